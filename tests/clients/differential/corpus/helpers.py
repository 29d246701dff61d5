"""What scenarios share: topics made and filled without a trace in the transcript."""

from __future__ import annotations

import time
import uuid

from proof.connection import Session
from proof.records import Record, batch

ZERO = uuid.UUID(int=0)
# A topic id that no broker has.
STRANGE = uuid.UUID("5ca1ab1e-0000-4000-8000-000000000001")


def create(session: Session, name: str, partitions: int = 1, **configs: str) -> uuid.UUID:
    """A topic whose every partition has a leader; returns its id. Config names are given with underscores."""
    answer = session.ask("CreateTopics", 7, topics=[topic(name, partitions, **configs)], timeoutMs=15000)
    code = answer["topics"][0]["errorCode"]
    if code != 0:
        raise RuntimeError(f"could not create {name}: error {code}")
    settle(session, name, partitions)
    return answer["topics"][0]["topicId"]


def topic(name: str, partitions: int = 1, replicas: int = 1, **configs: str) -> dict:
    """A topic as CreateTopics takes it."""
    return {
        "name": name, "numPartitions": partitions, "replicationFactor": replicas,
        "configs": [{"name": key.replace("_", "."), "value": value} for key, value in configs.items()],
    }


def settle(session: Session, name: str, partitions: int) -> None:
    """Waits until Metadata tells a leader for every partition, and the leader answers for it."""
    until(session, lambda: _led(session, name) == partitions, f"leaders of {name}")
    until(session, lambda: _ready(session, name, partitions), f"{name} to be ready")


def settle_configs(session: Session) -> None:
    """Waits until what was changed is told: a change that was made later, a topic's creation, is."""
    create(session, f"settled-{uuid.uuid4()}")


def _led(session: Session, name: str) -> int:
    answer = session.ask("Metadata", 12, topics=[{"name": name}], allowAutoTopicCreation=False)
    return len([p for p in answer["topics"][0]["partitions"] if p["leaderId"] >= 0])


def _ready(session: Session, name: str, partitions: int) -> bool:
    asked = [{"partitionIndex": n, "timestamp": -1} for n in range(partitions)]
    answer = session.ask("ListOffsets", 7, replicaId=-1, topics=[{"name": name, "partitions": asked}])
    return all(p["errorCode"] == 0 for p in answer["topics"][0]["partitions"])


def until(session: Session, condition, what: str) -> None:
    """Asks until the answer is true."""
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {what} in time")
        time.sleep(0.02)


def gone(session: Session, name: str) -> None:
    """Waits until Metadata no longer knows the topic."""
    def unknown() -> bool:
        answer = session.ask("Metadata", 12, topics=[{"name": name}], allowAutoTopicCreation=False)
        return answer["topics"][0]["errorCode"] == 3

    until(session, unknown, f"end of {name}")


def fill(session: Session, name: str, *batches: bytes, partition: int = 0) -> None:
    """Produces batches, one request each."""
    for data in batches:
        answer = session.ask("Produce", 9, acks=-1, timeoutMs=10000, topicData=[produced(name, data, partition)])
        code = answer["responses"][0]["partitionResponses"][0]["errorCode"]
        if code != 0:
            raise RuntimeError(f"could not produce to {name}: error {code}")


def produced(name: str | uuid.UUID, data: bytes | None, partition: int = 0) -> dict:
    """A topic with one partition's records as Produce takes it, by name or id."""
    return {**named(name), "partitionData": [{"index": partition, "records": data}]}


def named(name: str | uuid.UUID, key: str = "name") -> dict:
    """How a request names a topic: by name or by id."""
    return {"topicId": name} if isinstance(name, uuid.UUID) else {key: name}


def values(count: int, first: int = 0, size: int = 20) -> bytes:
    """A batch of that many numbered values, ten milliseconds apart."""
    return batch([
        Record(f"value {first + n}".encode().ljust(size, b"."), key=f"k{n}".encode(), time=n * 10)
        for n in range(count)
    ])


def coordinate(session: Session, group: str) -> None:
    """Waits until the group's coordinator is found and ready."""
    def ready() -> bool:
        found = session.ask("FindCoordinator", 3, key=group, keyType=0)
        fetched = session.ask("OffsetFetch", 5, groupId=group, topics=None)
        return found["errorCode"] == 0 and fetched["errorCode"] == 0

    until(session, ready, f"coordinator of {group}")
