"""One broker process on loopback, started, killed and started again on the same data and port.

Two kinds stand behind one interface: the `vltava` binary under test, and Apache Kafka as the oracle
that says whether a case asks for the right thing. Both get the same settings (`COMMON_SETTINGS`).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

KAFKA_VERSION = "4.3.1"

# What the suites count on, for either broker.
COMMON_SETTINGS = {
    # Keeps group tests quick, yet lets members that start together meet in one generation.
    "group.initial.rebalance.delay.ms": "100",
    # How soon compaction looks again; it leaves topics alone that no case has compacted.
    "log.cleaner.backoff.ms": "100",
}

# What a one-node Apache Kafka needs on top, since its defaults are for three.
KAFKA_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}

KAFKA_CLUSTER_ID = "AAAAAAAAQAGAAAAAAAAAAA"

# How long a broker may take until its port accepts.
START_TIMEOUT_S = 60.0
# How long a broker may take to end after SIGTERM.
STOP_TIMEOUT_S = 30.0


class BrokerError(Exception):
    """The broker did not start, did not stop, or died on its own."""


# Ports given away: the system may name one again before anybody listens on it.
_GIVEN: set[int] = set()


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on right now; another one each time."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


class Broker:
    """A broker process. Subclasses say how it is formatted and started."""

    kind = ""

    def __init__(self, folder: Path, settings: dict[str, str] | None = None):
        """`folder` takes the data and the log; `settings` come on top of `COMMON_SETTINGS`."""
        self.folder = folder
        self.data = folder / "data"
        self.log_path = folder / "broker.log"
        self.port = free_port()
        self.settings = {**COMMON_SETTINGS, **(settings or {})}
        self.process: subprocess.Popen | None = None
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def bootstrap(self) -> str:
        """What clients take as `bootstrap.servers`."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """The command that serves the data folder."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts the process and returns once its port accepts connections."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd=self.folder, start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._accepts():
            if self.process.poll() is not None:
                raise BrokerError(f"{self.kind} ended with status {self.process.returncode} at its start")
            if time.monotonic() > deadline:
                raise BrokerError(f"{self.kind} does not accept connections after {START_TIMEOUT_S:.0f} s")
            time.sleep(0.02)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False

    def stop(self, with_signal: int = signal.SIGTERM) -> None:
        """Sends the signal and returns once the process is gone; SIGKILL follows if it will not end."""
        with self._lock:
            self._stop(with_signal)

    def _stop(self, with_signal: int) -> None:
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.send_signal(with_signal)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise BrokerError(f"{self.kind} did not end within {STOP_TIMEOUT_S:.0f} s of signal {with_signal}")

    def restart(self, with_signal: int) -> None:
        """Ends the process by the signal and starts it again on the same data and port."""
        with self._lock:
            if self.process is None or self.process.poll() is not None:
                raise BrokerError(f"{self.kind} was not running when its restart was asked for")
            self._stop(with_signal)
            self._start()

    def trouble(self) -> str | None:
        """Why this broker fails the suite on its own account: it is dead, or its log shows a panic."""
        with self._lock:
            if self.process is None:
                return None
            if self.process.poll() is not None:
                return f"{self.kind} ended by itself with status {self.process.returncode}"
        for line in self.log_tail(10_000):
            if "panicked at" in line:
                return line.strip()
        return None

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of the broker's output."""
        try:
            return self.log_path.read_text(errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            return []

    def remove(self) -> None:
        """Deletes data and log."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Vltava(Broker):
    """The binary under test."""

    kind = "vltava"

    def __init__(self, folder: Path, binary: Path, settings: dict[str, str] | None = None):
        super().__init__(folder, settings)
        self.binary = binary
        self.http_port = free_port()

    def command(self) -> list[str]:
        settings = {
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "vltava.http.listener": f"127.0.0.1:{self.http_port}",
            **self.settings,
        }
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        return [str(self.binary), "serve", "--data", str(self.data), *sets]


class Kafka(Broker):
    """Apache Kafka in KRaft mode, broker and controller in one JVM, from its published jars."""

    kind = "kafka"

    def __init__(self, folder: Path, libs: Path, settings: dict[str, str] | None = None):
        super().__init__(folder, settings)
        self.libs = libs
        self.controller_port = free_port()
        self.properties = folder / "server.properties"

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        return [
            "java", "-Xmx1G", "-XX:+UseG1GC", "-XX:TieredStopAtLevel=1", "-cp", f"{self.libs}/*",
            main_class, *arguments,
        ]

    def _format(self) -> None:
        listeners = f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}"
        settings = {
            **KAFKA_SETTINGS,
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": listeners,
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": str(self.data),
            **self.settings,
        }
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        done = subprocess.run(
            self._java("kafka.tools.StorageTool", "format", "-t", KAFKA_CLUSTER_ID, "-c", str(self.properties)),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
        )
        if done.returncode != 0:
            raise BrokerError(f"kafka could not format its storage: {done.stdout.decode(errors='replace')}")

    def command(self) -> list[str]:
        if not self.properties.exists():
            self._format()
        return self._java("kafka.Kafka", str(self.properties))


def signal_by_name(name: str) -> int:
    """KILL → SIGKILL, TERM → SIGTERM; anything else is refused."""
    allowed = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM}
    if name not in allowed:
        raise ValueError(f"signal must be one of {', '.join(allowed)}, not {name!r}")
    return allowed[name]


def end_group(process: subprocess.Popen) -> None:
    """Ends a process that leads its own session, and all its children, at once."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
