"""Three brokers on this machine, ours and Kafka's: each node is a controller, too, and a topic has three copies."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from driver.broker import Broker, Vltava, free_port

from . import runs
from .brokers import RECYCLED_BYTES, FastKafka, Sides, Watched, settle
from .runs import Run

NODES = 3
COPIES = f"--replicas {NODES} -c min.insync.replicas=2"
# Kafka's own defaults for its topics need three brokers, of which there are as many.
KAFKA_SETTINGS = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
}


class Cluster:
    """Three brokers of a kind, each with a process and a directory of its own."""

    def __init__(self, sides: Sides, side: str, place: Path, settings: dict[str, str]):
        self.kind = side
        self.nodes: list[Broker] = []
        for number in range(1, NODES + 1):
            folder = place / f"node-{number}"
            node = FastKafka(folder, sides.libs) if side == "kafka" else Vltava(folder, sides.binary)
            node.controller_port = free_port()
            self.nodes.append(node)
        voters = ",".join(f"{number}@127.0.0.1:{node.controller_port}" for number, node in enumerate(self.nodes, 1))
        for number, node in enumerate(self.nodes, 1):
            node.settings = {
                "process.roles": "broker,controller",
                "node.id": str(number),
                "controller.quorum.voters": voters,
                "controller.listener.names": "CONTROLLER",
                "listeners": f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}",
                **(KAFKA_SETTINGS if side == "kafka" else {}),
                **settings,
            }
            # What comes before a start is no part of it: Kafka formats its directory with a program of its own.
            node.command()

    @property
    def bootstrap(self) -> str:
        """What clients take as `bootstrap.servers`."""
        return ",".join(node.bootstrap for node in self.nodes)

    def start(self) -> None:
        """Starts all at once; returns when the ports of all accept."""
        failed = []

        def begin(node: Broker) -> None:
            try:
                node.start()
            except Exception as error:  # told by the thread that waits
                failed.append(error)

        threads = [threading.Thread(target=begin, args=(node,)) for node in self.nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def stop(self) -> None:
        """Ends all; what is measured is over."""
        for node in self.nodes:
            node.stop(signal.SIGKILL)

    def remove(self) -> None:
        """Deletes data and logs."""
        for node in self.nodes:
            node.remove()


class WatchedCluster(Watched):
    """The processes of a cluster together."""

    def cpu_seconds(self) -> float:
        """Processor time of all since their start."""
        return sum(Watched(node).cpu_seconds() for node in self.broker.nodes)

    def resident_mb(self) -> float:
        """Resident memory of all now, MB."""
        return sum(Watched(node).resident_mb() for node in self.broker.nodes)

    def peak_mb(self) -> float:
        """The most resident memory of each, added up, MB."""
        return sum(Watched(node).peak_mb() for node in self.broker.nodes)


@contextlib.contextmanager
def running(sides: Sides, side: str, settings: dict[str, str], serve: bool = True) -> Iterator[WatchedCluster]:
    """A fresh cluster, which serves if it is to; removed afterwards."""
    settle(sides.folder, int(RECYCLED_BYTES * min(sides.scale, 1.0)))
    cluster = Cluster(sides, side, sides.folder / f"cluster-{side}", settings)
    try:
        if serve:
            cluster.start()
        yield WatchedCluster(cluster)
    finally:
        cluster.stop()
        cluster.remove()


def load(settings: dict[str, dict[str, str]], words: str) -> Run:
    """A run of `vltava bench` over six partitions with three copies, and what the brokers took meanwhile together."""

    def run(sides: Sides, side: str, seconds: int) -> dict[str, float]:
        with running(sides, side, settings[side]) as watched:

            def work(length: int) -> dict:
                line = f"bench {words} -p 6 {COPIES}".format(seconds=length)
                return sides.tool(watched.broker, *line.split())

            work(min(runs.WARM_UP_S, seconds))
            seen, burden = watched.during(lambda: work(seconds))
            return runs.flatten(seen) | burden | {
                "cpu_per_million": burden["broker_cpu_s"] / seen["records"] * 1e6,
                "peak_mb": watched.peak_mb(),
            }

    return run


def start(sides: Sides, side: str, _: int) -> dict[str, float]:
    """From the commands on empty directories until a record has three copies."""
    with running(sides, side, {}, serve=False) as watched:
        began = time.monotonic()
        watched.broker.start()
        took = runs.first_record_s(sides, watched.broker, began, COPIES)
        time.sleep(5)
        return {"first_record_s": took, "idle_mb": watched.resident_mb()}


def fail_over(sides: Sides, side: str, _: int) -> dict[str, float]:
    """The leader of a partition is killed with -9 under 200 records/s: the longest a record waits for its answer."""
    with running(sides, side, {}) as watched:
        cluster = watched.broker
        runs.create_topic(sides, cluster, runs.TOPIC, 1, "min.insync.replicas=2", copies=NODES)
        words = f"bench produce --topic {runs.TOPIC} --keep --rate 200 --warm-up 5 --for 25".split()
        load = subprocess.Popen(sides.command(cluster, *words), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            time.sleep(10)
            described = sides.tool(cluster, "topic", "describe", runs.TOPIC)
            leader = described[0]["partitions"][0]["leader"]
            cluster.nodes[leader - 1].stop(signal.SIGKILL)
            output, said = load.communicate(timeout=180)
        finally:
            load.kill()
            load.wait()
        if load.returncode != 0:
            raise RuntimeError(f"the load: {said.decode(errors='replace').strip()}")
        return runs.flatten(json.loads(output))
