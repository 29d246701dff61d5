"""A family of clients: how its program is prepared, started and told to end, and the journal that it writes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from driver import packages, suites

HERE = Path(__file__).resolve().parent.parent
PARTITIONS = 6
# Records a second of each family.
RATE = 240
SESSION_MS = 6000
# How long a producer may take at the end until all that it sent is acknowledged.
FLUSH_S = 120


class FamilyError(Exception):
    """A program of ours did not do what it is for."""


def _confluent(place: Path) -> list[str]:
    return [sys.executable, "-B", str(HERE / "confluent" / "member.py")]


def _java(place: Path) -> list[str]:
    libs = packages.maven_jars(place / "java", suites.SUITES / "java" / "pom.xml")
    classes = packages.java_classes(place / "chaos" / "java", libs, [HERE / "java" / "Member.java"])
    classpath = f"{classes}:{suites.HERE / 'lib' / 'java'}:{libs}/*"
    return ["java", *suites.JVM_FLAGS, "-cp", classpath, "Member"]


def _franz_go(place: Path) -> list[str]:
    return [str(packages.go_program(place / "chaos" / "franz-go", HERE / "franz-go"))]


# How each is prepared below the target folder; the command that runs it.
FAMILIES: dict[str, Callable[[Path], list[str]]] = {"confluent": _confluent, "java": _java, "franz-go": _franz_go}


@dataclass
class Journal:
    """What a program wrote so far."""

    # Partition → sequence → offset; below 0 where the client was not told it.
    acked: dict[int, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    # When each was acknowledged, in ms, by partition.
    acked_at: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    # Partition, sequence, why.
    refused: list[tuple[int, int, str]] = field(default_factory=list)
    # Records sent in all, known once the producer is at its end.
    sent: int | None = None
    # What members of the group did, in order: "saw" or "committed", member, partition, offset, value.
    group: list[tuple[str, str, int, int, str]] = field(default_factory=list)
    # Partition → the greatest offset that a member was told to be committed.
    committed: dict[int, int] = field(default_factory=dict)
    # Partition → offset → value, of those that members saw.
    seen: dict[int, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    seen_at: dict[int, int] = field(default_factory=dict)
    # What a reader found: offset and value in the order of the log, and the log's end.
    found: dict[int, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[int, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    notes: int = 0
    ended: bool = False

    def take(self, line: str) -> None:
        """Notes one line: the time in ms, what happened, and its words."""
        at, kind, *words = line.split(" ")
        if kind == "acked":
            partition, sequence, offset = map(int, words)
            self.acked[partition][sequence] = offset
            self.acked_at[partition].append(int(at))
        elif kind == "refused":
            self.refused.append((int(words[0]), int(words[1]), " ".join(words[2:])))
        elif kind == "saw":
            self._saw(int(at), *words)
        elif kind == "committed":
            member, partition, offset = words[0], int(words[1]), int(words[2])
            self.group.append((kind, member, partition, offset, ""))
            self.committed[partition] = max(offset, self.committed.get(partition, 0))
        elif kind == "found":
            self.found[int(words[0])].append((int(words[1]), words[2]))
        elif kind == "end":
            self.ends[int(words[0])] = int(words[1])
        elif kind == "flushed":
            self.sent = int(words[0])
        elif kind == "failed":
            self.failed.append(" ".join(words))
        elif kind == "ended":
            self.ended = True
        else:
            self.notes += 1

    def _saw(self, at: int, member: str, partition: str, offset: str, value: str) -> None:
        self.group.append(("saw", member, int(partition), int(offset), value))
        self.seen[int(partition)].setdefault(int(offset), value)
        self.seen_at[int(partition)] = at

    def acknowledged(self) -> int:
        """How many records were acknowledged."""
        return sum(map(len, self.acked.values()))

    def longest_gap_s(self) -> tuple[float, float]:
        """The longest time without an acknowledgement, of all partitions together and of one of them."""
        def longest(times: list[int]) -> float:
            return max((later - earlier for earlier, later in zip(times, times[1:])), default=0) / 1000

        together = longest(sorted(time for times in self.acked_at.values() for time in times))
        return together, max(map(longest, self.acked_at.values()), default=0.0)


class Program:
    """A running program of a family, and its journal."""

    def __init__(self, name: str, command: list[str], role: str, topic: str, group: str, bootstrap: str, folder: Path):
        self.name = name
        self.journal = Journal()
        self.path = folder / f"{role}-{topic}.journal"
        self.output = folder / f"{role}-{topic}.out"
        self._lock = threading.RLock()
        self._taken = 0
        self._rest = b""
        environment = {
            **os.environ, "BOOTSTRAP": bootstrap, "TOPIC": topic, "GROUP": group, "PARTITIONS": str(PARTITIONS),
            "RATE": str(RATE), "SESSION_MS": str(SESSION_MS), "FLUSH_S": str(FLUSH_S), "JOURNAL": str(self.path),
        }
        self.path.touch()
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, role], env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )

    def read(self) -> Journal:
        """The journal as far as it is written. Others may read it meanwhile: see `holds`."""
        with self._lock:
            with self.path.open("rb") as file:
                file.seek(self._taken)
                data = file.read()
            self._taken += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self.journal.take(line.decode(errors="replace"))
            return self.journal

    def holds(self, condition: Callable[[Journal], bool]) -> bool:
        """Whether something holds of the journal as far as it is written."""
        with self._lock:
            return condition(self.read())

    def committed(self) -> dict[int, int]:
        """What members were told to be committed so far, by partition."""
        with self._lock:
            return dict(self.read().committed)

    def flush(self) -> None:
        """Lets the producer send no more."""
        self.process.stdin.write(b"flush\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Lets it end."""
        self.process.stdin.close()

    def must_run(self) -> None:
        """Raises if it ended, or says that something is wrong."""
        if self.process.poll() is not None:
            raise FamilyError(f"{self.name} ended with status {self.process.returncode}; see {self.output}")
        if self.read().failed:
            raise FamilyError(f"{self.name}: {self.journal.failed[0]}; see {self.output}")

    def await_end(self, within_s: float) -> Journal:
        """Waits for its end, which is to be one of success."""
        try:
            status = self.process.wait(within_s)
        except subprocess.TimeoutExpired as error:
            raise FamilyError(f"{self.name} did not end within {within_s:.0f} s; see {self.output}") from error
        journal = self.read()
        if status != 0 or journal.failed or not journal.ended:
            raise FamilyError(f"{self.name} ended with status {status}, {journal.failed[:1]}; see {self.output}")
        return journal


def await_all(programs: list[Program], what: str, within_s: float, holds: Callable[[Journal], bool]) -> None:
    """Returns once something holds of every program's journal; raises if it takes too long."""
    deadline = time.monotonic() + within_s
    while True:
        for program in programs:
            program.must_run()
        missing = [program.name for program in programs if not program.holds(holds)]
        if not missing:
            return
        if time.monotonic() > deadline:
            raise FamilyError(f"{what}: not within {within_s:.0f} s by {', '.join(missing)}")
        time.sleep(0.1)
