"""NATS JetStream and Redis streams, for the work that they have in common with Kafka's protocol.

Each is driven by its own load generator, whose clients wait for each record before they send the next.
"""

from __future__ import annotations

import csv
import io
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from driver import packages
from driver.broker import Broker

NATS_SERVER = "github.com/nats-io/nats-server/v2@v2.15.2"
NATS_CLIENT = "github.com/nats-io/natscli/nats@v0.5.0"

# Records by which a rate is found before it is measured.
PROBE_RECORDS = 2_000
RECORD_BYTES = 1024
GENERATOR_TIMEOUT_S = 600


class NatsServer(Broker):
    """A NATS server with JetStream on files. Its one setting is `sync_interval`."""

    kind = "nats"

    def __init__(self, folder: Path, target: Path):
        super().__init__(folder)
        packages.need("go")
        self.programs = target / "nats"
        for module, program in ((NATS_SERVER, "nats-server"), (NATS_CLIENT, "nats")):
            if not (self.programs / program).exists():
                self.programs.mkdir(parents=True, exist_ok=True)
                packages.run_step(["go", "install", module], self.programs, {"GOBIN": str(self.programs)})

    def command(self) -> list[str]:
        config = self.folder / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{self.data}", '
                          f'sync_interval: {self.settings.get("sync_interval", "2m")} }}\n')
        return [str(self.programs / "nats-server"), "-c", str(config)]

    def publish(self, clients: int, records: int) -> dict[str, float]:
        """Records a second of so many clients, and the latency of their acknowledgements."""
        said = run(
            [str(self.programs / "nats"), "-s", self.bootstrap, "bench", "js", "pub", "sync", "bench", "--create",
             "--purge", "--storage", "file", "--maxbytes=16GB", "--size", str(RECORD_BYTES), "--no-progress",
             "--clients", str(clients), "--msgs", str(records)], self.folder)
        rate = re.search(r"(?:aggregated stats|publisher stats): ([\d,]+) msgs/sec", said)
        latencies = re.search(r"latencies per operation .*? P50 ([\d,.]+)us .*? P99 ([\d,.]+)us", said)
        if not rate or not latencies:
            raise RuntimeError(f"nats bench printed something else: {said[-500:]}")
        p50_us, p99_us = (float(text.replace(",", "")) for text in latencies.groups())
        return answer(records, float(rate.group(1).replace(",", "")), p50_us / 1000, p99_us / 1000)


class RedisServer(Broker):
    """A Redis server with its log on. Its one setting is `appendfsync`."""

    kind = "redis"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.server = packages.debian_package("redis-server", "redis-server")
        self.generator = packages.debian_package("redis-benchmark", "redis-tools")

    def command(self) -> list[str]:
        self.data.mkdir(exist_ok=True)
        return [str(self.server), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.data),
                "--save", "", "--appendonly", "yes", "--appendfsync", self.settings.get("appendfsync", "everysec")]

    def publish(self, clients: int, records: int) -> dict[str, float]:
        """Records a second of so many clients, and the latency of their acknowledgements."""
        said = run(
            [str(self.generator), "-p", str(self.port), "-c", str(clients), "-n", str(records), "--csv",
             "XADD", "bench", "*", "v", "v" * RECORD_BYTES], self.folder)
        line = list(csv.DictReader(io.StringIO(said)))[-1]
        return answer(records, float(line["rps"]), float(line["p50_latency_ms"]), float(line["p99_latency_ms"]))


def run(command: list[str], home: Path) -> str:
    """What a load generator prints; its own files go under `home`."""
    done = subprocess.run(command, env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=GENERATOR_TIMEOUT_S, check=False)
    said = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name}: {said[-500:]}")
    return said


def answer(records: int, rate: float, p50_ms: float, p99_ms: float) -> dict[str, float]:
    """The figures under the names that `vltava bench` gives them."""
    return {"records": records, "records_per_second": rate,
            "ack_latency_ms.p50": p50_ms, "ack_latency_ms.p99": p99_ms}


def for_seconds(publish: Callable[[int, int], dict[str, float]], clients: int, seconds: int) -> Callable[[], dict]:
    """The load that lasts about so long, at the rate that a short one finds."""
    rate = publish(clients, PROBE_RECORDS)["records_per_second"]
    per_client = max(int(rate * seconds / clients), 1)
    return lambda: publish(clients, per_client * clients)
