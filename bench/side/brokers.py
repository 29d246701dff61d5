"""The two brokers as benchmarks want them: on a fresh directory, on a settled machine, watched from outside."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from driver.broker import Broker, Kafka, Vltava

# The flags of Kafka's own start script, and its default heap.
JVM = ("-Xmx1G -Xms1G -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 "
       "-XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true").split()

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Written and thrown away before each run, so that page-cache memory is in the same state for all.
RECYCLED_BYTES = 3 << 30
PIECE = bytes(8 << 20)


class FastKafka(Kafka):
    """Kafka with the flags of its start script; the suites' own trade speed for a quick start."""

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        return ["java", *JVM, "-cp", f"{self.libs}/*", main_class, *arguments]


class Watched:
    """A running broker process seen through /proc."""

    def __init__(self, broker: Broker):
        self.broker = broker

    @property
    def _proc(self) -> Path:
        return Path("/proc") / str(self.broker.process.pid)

    def cpu_seconds(self) -> float:
        """Processor time since the start of the process."""
        fields = (self._proc / "stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def _status_mb(self, key: str) -> float:
        for line in (self._proc / "status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) / 1000
        raise KeyError(key)

    def resident_mb(self) -> float:
        """Resident memory now, MB."""
        return self._status_mb("VmRSS:")

    def peak_mb(self) -> float:
        """Most resident memory so far, MB."""
        return self._status_mb("VmHWM:")


class Sides:
    """Makes fresh brokers of both kinds."""

    NAMES = ("vltava", "kafka")

    def __init__(self, folder: Path, binary: Path, libs: Path):
        self.folder = folder
        self.binary = binary
        self.libs = libs

    def fresh(self, side: str, settings: dict[str, str]) -> Broker:
        """A broker that has not been started, on an empty directory."""
        place = self.folder / side
        shutil.rmtree(place, ignore_errors=True)
        # The suites' settings are for the suites.
        if side == "vltava":
            broker = Vltava(place, self.binary)
        else:
            broker = FastKafka(place, self.libs)
        broker.settings = dict(settings)
        return broker

    @contextlib.contextmanager
    def running(self, side: str, settings: dict[str, str]) -> Iterator[Watched]:
        """A fresh broker that serves; removed afterwards."""
        settle(self.folder)
        broker = self.fresh(side, settings)
        broker.start()
        try:
            yield Watched(broker)
        finally:
            broker.stop()
            broker.remove()

    def tool(self, broker: Broker, *words: str) -> dict | list | None:
        """Runs one of the tools of `vltava` against a broker; its JSON, if it prints any."""
        command = [str(self.binary), *words[:1], "-b", broker.bootstrap, "-o", "json", *words[1:]]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else None


def settle(folder: Path) -> None:
    """Brings disk and page cache into the same state before each run."""
    folder.mkdir(parents=True, exist_ok=True)
    os.sync()
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("1\n")
    scratch = folder / "scratch"
    with scratch.open("wb") as file:
        for _ in range(RECYCLED_BYTES // len(PIECE)):
            file.write(PIECE)
    scratch.unlink()
    time.sleep(0.5)
