"""One run: the cluster, the families at work, the faults, and the checks."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from driver import packages
from driver.broker import BrokerError, end_group

from . import check, doubt, faults
from .cluster import COPIES, OFFSETS_PARTITIONS, OFFSETS_TOPIC, Cluster
from .family import FAMILIES, FLUSH_S, PARTITIONS, FamilyError, Journal, Program, await_all
from .offsets import Watch

# How long clients may take, once the cluster is whole again, until every partition gets and gives records. They need
# some seconds; a busy machine's disk may keep all waiting for a minute.
BACK_WITHIN_S = 120.0
# How long a reader may take.
READ_WITHIN_S = 120.0
# Lines of a broker's log that a failure shows.
TAIL_LINES = 15


class Trial:
    """The state of one run."""

    def __init__(self, arguments: argparse.Namespace, commands: dict[str, list[str]]):
        self.commands = commands
        self.minutes = arguments.minutes
        self.choices = random.Random(arguments.seed)
        self.folder = arguments.place / "run" / "chaos"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.cluster = Cluster(self.folder, arguments.binary)
        self.programs: list[Program] = []
        self.watch: Watch | None = None
        self.began = time.monotonic()
        self.faults = 0

    def say(self, text: str) -> None:
        """A line with the time since the beginning."""
        print(f"{time.monotonic() - self.began:6.1f} s  {text}")

    def run(self) -> list[str]:
        """All of it; returns what is wrong."""
        self.cluster.start()
        self.say(f"the cluster serves, whole after {self.cluster.heal():.1f} s")
        self.create_topics()
        for family in self.commands:
            self.programs.append(self.program(family, "run", family))
        self.watch = Watch(self.cluster.bootstrap, {program.name: program for program in self.programs})
        self.progress()
        # The groups' own topic is there now.
        self.cluster.heal()
        self.say(f"{', '.join(self.commands)} write and read")
        for fault in faults.rounds(self.choices, time.monotonic() + 60 * self.minutes):
            self.injure(fault)
        self.settle()
        written = {program.name: program.await_end(FLUSH_S) for program in self.programs}
        found = self.read_back()
        self.cluster.end()
        findings = self.watch.wrong()[:check.TOLD]
        for family, journal in written.items():
            findings += check.everything(family, journal, found[family])
        if not findings:
            family = self.choices.choice(list(written))
            findings += doubt.unnoticed(family, written[family], found[family])
            self.say(f"the checks notice {doubt.KINDS - len(findings)} of {doubt.KINDS} kinds of damage")
        for family, journal in written.items():
            self.tell(family, journal)
        print(f"{self.watch.stale} answers of held coordinators were out of date")
        return findings

    def program(self, family: str, role: str, of: str) -> Program:
        """Starts the program of a family: to `run` on its own topic, or to `read` that of another."""
        return Program(family, self.commands[family], role, of, of, self.cluster.bootstrap, self.folder)

    def create_topics(self) -> None:
        """A topic for each family."""
        client = AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        topics = [NewTopic(family, PARTITIONS, COPIES) for family in self.commands]
        for future in client.create_topics(topics).values():
            future.result(timeout=30)
        self.cluster.heal()

    def progress(self) -> None:
        """Waits until every partition of every family gets and gives new records."""
        since = int(time.time() * 1000)

        def moves(journal: Journal) -> bool:
            return all(
                (journal.acked_at[partition] or [0])[-1] > since and journal.seen_at.get(partition, 0) > since
                for partition in range(PARTITIONS)
            )

        await_all(self.programs, "records in every partition", BACK_WITHIN_S, moves)

    def injure(self, fault: faults.Fault) -> None:
        """One fault, done to the leader of some partition; then waits until all is as it was, and a little more."""
        topics = [(OFFSETS_TOPIC, number) for number in range(OFFSETS_PARTITIONS)]
        topics += [(family, number) for family in self.commands for number in range(PARTITIONS)]
        topic, partition = self.choices.choice(topics)
        node = self.cluster.leader(topic, partition)
        self.watch.tolerates = fault is faults.hold
        told = fault(self.cluster, node, self.choices)
        self.faults += 1
        healed_s = self.cluster.heal()
        self.watch.tolerates = False
        since = time.monotonic()
        self.progress()
        self.say(f"{told}; it led {topic}/{partition}; whole {healed_s:.1f} s later, all clients go on"
                 f" {time.monotonic() - since:.1f} s after that")
        time.sleep(self.choices.uniform(0.3, 1.5))

    def settle(self) -> None:
        """Ends the producers, waits until groups saw all that was acknowledged, and ends them, too."""
        for program in self.programs:
            program.flush()
        await_all(self.programs, "the end of the producers", FLUSH_S + 10, lambda journal: journal.sent is not None)

        def saw_all(journal: Journal) -> bool:
            return all(len(journal.seen[partition]) >= len(acked) for partition, acked in journal.acked.items())

        try:
            await_all(self.programs, "all records seen", BACK_WITHIN_S, saw_all)
        except FamilyError as error:
            # The checks tell which are missing.
            self.say(str(error))
        for program in self.programs:
            program.end()
        for program in self.programs:
            program.await_end(FLUSH_S)
        self.last_commits()

    def last_commits(self) -> None:
        """What is committed once nobody commits any more."""
        self.watch.end()
        for program in self.programs:
            deadline = time.monotonic() + BACK_WITHIN_S
            while not self.watch.ask(program.name):
                if time.monotonic() > deadline:
                    raise FamilyError(f"nobody tells what group {program.name} has committed")
                time.sleep(0.2)

    def read_back(self) -> dict[str, Journal]:
        """What is in each family's topic, as the next family reads it."""
        names = list(self.commands)
        readers = {of: names[(number + 1) % len(names)] for number, of in enumerate(names)}
        running = {of: self.program(reader, "read", of) for of, reader in readers.items()}
        self.programs += running.values()
        found = {of: program.await_end(READ_WITHIN_S) for of, program in running.items()}
        self.say(", ".join(f"{reader} read what {of} wrote" for of, reader in readers.items()))
        return found

    def tell(self, family: str, journal: Journal) -> None:
        """The line of a family."""
        together, single = journal.longest_gap_s()
        untold = sum(offset < 0 for acked in journal.acked.values() for offset in acked.values())
        again = sum(kind == "saw" for kind, *_ in journal.group) - sum(map(len, journal.seen.values()))
        print(f"{family}: {journal.acknowledged()} records acknowledged ({untold} without an offset),"
              f" {len(journal.refused)} refused; longest gap {together:.1f} s, of one partition {single:.1f} s;"
              f" {again} records seen again; commits told {self.watch.answers[family]} times;"
              f" {journal.notes} notes; {self.faults} faults")

    def destroy(self) -> None:
        """Ends all processes that are left."""
        for program in self.programs:
            end_group(program.process)
        if self.watch is not None:
            self.watch.close()
        self.cluster.destroy()


def prepare(place: Path, strict: bool) -> dict[str, list[str]]:
    """The commands of the families whose runtimes are there."""
    commands = {}
    for family, prepare_one in FAMILIES.items():
        try:
            commands[family] = prepare_one(place)
        except packages.MissingRuntime as error:
            if strict:
                raise
            print(f"{family}: skipped, {error} is missing")
    return commands


def end_in_order(*_: object) -> None:
    """SIGTERM leaves nothing over, also when it comes twice."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    try:
        commands = prepare(arguments.place, os.environ.get("CI") == "true")
    except (packages.MissingRuntime, packages.InstallError) as error:
        print(f"{error} is missing" if isinstance(error, packages.MissingRuntime) else error)
        return 1
    print(f"chaos with real clients, --seed {arguments.seed}")
    signal.signal(signal.SIGTERM, end_in_order)
    trial = Trial(arguments, commands)
    try:
        findings = trial.run()
    except (BrokerError, FamilyError, KafkaException) as error:
        findings = [str(error), *(trial.watch.findings[:check.TOLD] if trial.watch else [])]
    finally:
        trial.destroy()
    for node in trial.cluster.nodes if findings else []:
        print(f"--- the log of node {node.number} ends with", *node.log_tail(TAIL_LINES), sep="\n")
    for finding in findings:
        print(f"wrong: {finding}")
    if findings:
        print(f"data, logs and journals are in {trial.folder}; --seed {arguments.seed}")
    elif not arguments.keep:
        shutil.rmtree(trial.folder, ignore_errors=True)
    print(f"chaos: {'failed' if findings else 'passed'}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
