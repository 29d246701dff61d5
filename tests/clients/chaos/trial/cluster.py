"""Three nodes, each broker and controller, as processes on loopback, and whether all of them is whole."""

from __future__ import annotations

import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from driver.broker import BrokerError, Vltava, end_group, free_port

COPIES = 3
OFFSETS_TOPIC = "__consumer_offsets"
OFFSETS_PARTITIONS = 6

# How long the cluster may take until all is as it was before a fault; it needs ten seconds after a broker was held.
HEAL_WITHIN_S = 120.0

SETTINGS = {
    "default.replication.factor": str(COPIES),
    "min.insync.replicas": "2",
    # Segments end also in a short run.
    "log.segment.bytes": "1048576",
    "offsets.topic.num.partitions": str(OFFSETS_PARTITIONS),
}


class Node(Vltava):
    """One of the three, started by a file as an operator writes it."""

    def __init__(self, number: int, folder: Path, binary: Path):
        super().__init__(folder, binary, SETTINGS)
        self.number = number
        self.controller_port = free_port()
        self.properties = folder / "server.properties"

    def configure(self, voters: str) -> None:
        """Writes its file."""
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(self.number),
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.data),
            "vltava.http.listener": f"127.0.0.1:{self.http_port}",
            **self.settings,
        }
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))

    def command(self) -> list[str]:
        return [str(self.binary), "serve", "--config", str(self.properties)]

    def kill(self) -> None:
        """`kill -9`."""
        self.must_run()
        self.stop(signal.SIGKILL)

    def end(self) -> None:
        """SIGTERM, and the status of success."""
        self.must_run()
        self.stop(signal.SIGTERM)
        if self.process.returncode != 0:
            raise BrokerError(f"node {self.number} ended with status {self.process.returncode} after SIGTERM")

    def hold(self, seconds: float) -> None:
        """SIGSTOP for a while."""
        self.must_run()
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)

    def must_run(self) -> None:
        """Raises what is wrong with it on its own account."""
        trouble = self.trouble()
        if trouble is not None:
            raise BrokerError(f"node {self.number}: {trouble}")

    def healthy(self) -> bool:
        """Whether it says itself that it serves."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/healthz", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def view(self) -> dict[tuple[str, int], tuple[int, int]] | None:
        """What it says of every partition: the leader, and how many copies are in sync; nothing if it does not answer.

        A client that has just been made asks the one broker it knows.
        """
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            told = client.list_topics(timeout=2)
        except KafkaException:
            return None
        if len(told.brokers) < COPIES:
            return None
        return {
            (topic.topic, number): (partition.leader, len(partition.isrs))
            for topic in told.topics.values() for number, partition in topic.partitions.items()
        }


class Cluster:
    """The three nodes."""

    def __init__(self, folder: Path, binary: Path):
        self.nodes = [Node(number, folder / f"node-{number}", binary) for number in range(1, COPIES + 1)]
        voters = ",".join(f"{node.number}@127.0.0.1:{node.controller_port}" for node in self.nodes)
        for node in self.nodes:
            node.configure(voters)
        # What all said of every partition when they were last whole.
        self._view: dict[tuple[str, int], tuple[int, int]] = {}

    @property
    def bootstrap(self) -> str:
        """All brokers, as clients take them."""
        return ",".join(node.bootstrap for node in self.nodes)

    def start(self) -> None:
        """Starts all at once: one alone waits for a majority."""
        with ThreadPoolExecutor(COPIES) as pool:
            list(pool.map(Node.start, self.nodes))

    def kill(self) -> None:
        """Kills all at once."""
        with ThreadPoolExecutor(COPIES) as pool:
            list(pool.map(Node.kill, self.nodes))

    def end(self) -> None:
        """Ends all in order, at once."""
        with ThreadPoolExecutor(COPIES) as pool:
            list(pool.map(Node.end, self.nodes))

    def leader(self, topic: str, partition: int) -> Node:
        """The node that led a partition when the cluster was last whole."""
        return self.nodes[self._view[topic, partition][0] - 1]

    def heal(self) -> float:
        """Returns once all nodes serve and agree that every partition is led and has all copies; how long that took."""
        began = time.monotonic()
        while True:
            wrong = self._wrong()
            if wrong is None:
                return time.monotonic() - began
            if time.monotonic() - began > HEAL_WITHIN_S:
                raise BrokerError(f"the cluster is not whole again after {HEAL_WITHIN_S:.0f} s: {wrong}")
            time.sleep(0.1)

    def _wrong(self) -> str | None:
        for node in self.nodes:
            node.must_run()
            if not node.healthy():
                return f"node {node.number} is not healthy"
        views = [node.view() for node in self.nodes]
        for node, view in zip(self.nodes, views):
            if view is None:
                return f"node {node.number} does not answer, or does not know of all brokers"
            for (topic, partition), (leader, copies) in view.items():
                if leader < 1 or copies < COPIES:
                    return f"node {node.number}: {topic}/{partition}: leader {leader}, {copies} copies in sync"
            if view != views[0]:
                return f"nodes 1 and {node.number} do not agree"
        self._view = views[0]
        return None

    def destroy(self) -> None:
        """Ends what still runs, at once."""
        for node in self.nodes:
            if node.process is not None:
                end_group(node.process)
