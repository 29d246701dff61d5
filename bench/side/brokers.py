"""The brokers as benchmarks want them: on a fresh directory, on a settled machine, watched from outside."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from driver import broker as driver_broker
from driver.broker import Broker, Kafka, Vltava

from . import machine, peers, yardstick

# The flags of Kafka's own start script, and its default heap.
JVM = ("-Xmx1G -Xms1G -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 "
       "-XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true").split()

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Written and thrown away before each run, so that page-cache memory is in the same state for all.
RECYCLED_BYTES = 3 << 30
# The disk is quiet when it took none of the small writes of so many seconds longer than that to sync.
DISK_QUIET_S = 3.0
DISK_STALL_S = 0.015
DISK_PATIENCE_S = 40.0
PROBE = bytes(32 << 10)
PIECE = bytes(8 << 20)
# A tool may take this long.
TOOL_TIMEOUT_S = 1200

# With 10,000 partitions and 10 GiB to recover, a start takes longer than the suites allow.
driver_broker.START_TIMEOUT_S = 600.0


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

    def during(self, work: Callable[[], dict]) -> tuple[dict, dict[str, float]]:
        """What the work answers, and the seconds it took: by the clock, of the broker, of children that ended."""
        clients, broker, began = children_cpu_seconds(), self.cpu_seconds(), time.monotonic()
        seen = work()
        return seen, {
            "wall_s": time.monotonic() - began,
            "broker_cpu_s": self.cpu_seconds() - broker,
            "client_cpu_s": children_cpu_seconds() - clients,
        }


def children_cpu_seconds() -> float:
    """Processor time of all children that have been waited for: load generators, as brokers still run."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Sides:
    """Makes fresh brokers of all kinds."""

    def __init__(self, target: Path, libs: Path | None = None, scale: float = 1.0):
        """`libs` holds Kafka's jars; `scale` shrinks volumes and large numbers of partitions."""
        self.target = target
        self.folder = target / "bench"
        self.binary = target / "release" / "vltava"
        self.libs = libs
        self.scale = scale

    def fresh(self, side: str, settings: dict[str, str]) -> Broker:
        """A broker that has not been started, on an empty directory."""
        place = self.folder / side
        shutil.rmtree(place, ignore_errors=True)
        if side == "kafka":
            broker = FastKafka(place, self.libs)
        elif side == "yardstick":
            broker = yardstick.Yardstick(place, yardstick.build(self.target))
        elif side == "nats":
            broker = peers.NatsServer(place, self.target)
        elif side == "redis":
            broker = peers.RedisServer(place)
        else:
            broker = Vltava(place, self.binary)
        # The suites' settings are for the suites.
        broker.settings = dict(settings)
        return broker

    @contextlib.contextmanager
    def running(self, side: str, settings: dict[str, str]) -> Iterator[Watched]:
        """A fresh broker that serves; removed afterwards."""
        settle(self.folder, int(RECYCLED_BYTES * min(self.scale, 1.0)))
        broker = self.fresh(side, settings)
        try:
            broker.start()
            yield Watched(broker)
        finally:
            broker.stop()
            broker.remove()

    def command(self, broker: Broker, *words: str) -> list[str]:
        """The command line of one of the tools of `vltava` against a broker."""
        return [str(self.binary), *words[:1], *words[1:2], "-b", broker.bootstrap, "-o", "json", *words[2:]]

    def tool(self, broker: Broker, *words: str) -> dict | list | None:
        """Runs one of the tools of `vltava` against a broker; its JSON, if it prints any."""
        return run_json(self.command(broker, *words))

    def bytes(self, full: int) -> int:
        """A volume, scaled."""
        return max(int(full * self.scale), 1 << 20)

    def partitions(self, full: int) -> int:
        """A number of partitions, scaled when it is large."""
        return full if full < 100 else max(int(full * self.scale), 20)


def run_json(command: list[str]) -> dict | list | None:
    """Runs a command; the JSON it prints, if any."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TOOL_TIMEOUT_S, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"{' '.join(command[1:])}: {said}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def settle(folder: Path, recycled_bytes: int) -> None:
    """Brings disk and page cache into the same state before each run."""
    folder.mkdir(parents=True, exist_ok=True)
    os.sync()
    machine.drop_page_cache()
    scratch = folder / "scratch"
    with scratch.open("wb") as file:
        for _ in range(recycled_bytes // len(PIECE)):
            file.write(PIECE)
    scratch.unlink()
    os.sync()
    wait_for_disk(folder)


def wait_for_disk(folder: Path) -> None:
    """Waits until small synced writes see no stall for some seconds: a disk that has just taken gigabytes stalls now and
    then for a tenth of a second, for ten seconds and more."""
    probe = folder / "probe"
    deadline = time.monotonic() + DISK_PATIENCE_S
    with probe.open("wb") as file:
        since = time.monotonic()
        while time.monotonic() < min(since + DISK_QUIET_S, deadline):
            file.write(PROBE)
            file.flush()
            began = time.monotonic()
            os.fdatasync(file.fileno())
            if time.monotonic() - began > DISK_STALL_S:
                since = time.monotonic()
            time.sleep(0.002)
    probe.unlink()
