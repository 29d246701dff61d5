"""The confluent-kafka member of the chaos test: `run` produces and consumes until told to end, `read` reads all back.

What it is given and what it writes stands in tests/clients/README.md.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

BOOTSTRAP = os.environ["BOOTSTRAP"]
TOPIC = os.environ["TOPIC"]
GROUP = os.environ["GROUP"]
PARTITIONS = int(os.environ["PARTITIONS"])
RATE = int(os.environ["RATE"])
SESSION_MS = int(os.environ["SESSION_MS"])
FLUSH_S = int(os.environ["FLUSH_S"])

COMMON = {"bootstrap.servers": BOOTSTRAP, "reconnect.backoff.max.ms": 1000}
COMMIT_EVERY_S = 0.5


class Journal:
    """Lines that others read while they are written."""

    def __init__(self, path: str):
        self._file = open(path, "a", buffering=1)
        self._lock = threading.Lock()

    def write(self, *words) -> None:
        line = " ".join(map(str, (int(time.time() * 1000), *words)))
        with self._lock:
            self._file.write(line + "\n")


JOURNAL = Journal(os.environ["JOURNAL"])


def produce(ends: threading.Event) -> None:
    """Numbered records, round and round the partitions, until the end; then waits for what is under way."""
    client = Producer({
        **COMMON, "enable.idempotence": True, "acks": "all", "linger.ms": 5, "message.timeout.ms": 600_000,
        "error_cb": lambda error: JOURNAL.write("note", "producer:", error.str()),
    })

    def report(partition: int, sequence: int):
        def note(error, message) -> None:
            if error is None:
                # A record that a broker knew already is acknowledged without its offset.
                offset = message.offset()
                JOURNAL.write("acked", partition, sequence, -1 if offset is None else offset)
            else:
                JOURNAL.write("refused", partition, sequence, error.str())
        return note

    number = 0
    due = time.monotonic()
    while not ends.is_set():
        partition, sequence = number % PARTITIONS, number // PARTITIONS
        try:
            client.produce(TOPIC, f"confluent:{partition}:{sequence}", partition=partition,
                           on_delivery=report(partition, sequence))
            number += 1
        except BufferError:
            client.poll(0.1)
        # What was missed while the queue was full is not made up for.
        due = max(due + 1 / RATE, time.monotonic() - 0.1)
        client.poll(max(0.0, due - time.monotonic()))
    client.flush(FLUSH_S)
    JOURNAL.write("flushed", number)


class Member:
    """One consumer of the group; commits what it has seen."""

    def __init__(self, name: str):
        self.name = name
        self.positions: dict[int, int] = {}
        self.client = Consumer({
            **COMMON, "group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": 500,
            "error_cb": lambda error: JOURNAL.write("note", f"{name}:", error.str()),
        })

    def run(self, ends: threading.Event) -> None:
        self.client.subscribe([TOPIC], on_revoke=self.revoked, on_lost=self.lost)
        due = time.monotonic() + COMMIT_EVERY_S
        while not ends.is_set():
            for message in self.client.consume(500, 0.1):
                self.take(message)
            if time.monotonic() >= due:
                self.commit()
                due = time.monotonic() + COMMIT_EVERY_S
        self.commit()
        self.client.close()

    def take(self, message) -> None:
        if message.error() is not None:
            JOURNAL.write("note", f"{self.name}:", message.error().str())
            return
        JOURNAL.write("saw", self.name, message.partition(), message.offset(), message.value().decode())
        self.positions[message.partition()] = message.offset() + 1

    def commit(self) -> None:
        if not self.positions:
            return
        asked = [TopicPartition(TOPIC, partition, offset) for partition, offset in self.positions.items()]
        try:
            answers = self.client.commit(offsets=asked, asynchronous=False)
        except KafkaException as error:
            JOURNAL.write("note", f"{self.name}: commit:", error.args[0].str())
            return
        for answer in answers:
            if answer.error is None:
                JOURNAL.write("committed", self.name, answer.partition, answer.offset)
                self.positions.pop(answer.partition, None)
            else:
                JOURNAL.write("note", f"{self.name}: commit:", answer.error.str())

    def revoked(self, _client, _partitions) -> None:
        self.commit()
        self.positions.clear()

    def lost(self, _client, _partitions) -> None:
        self.positions.clear()


def run() -> None:
    """Until the input ends; the first line of it ends the producer."""
    flush, end = threading.Event(), threading.Event()
    members = [Member("first"), Member("second")]
    threads = [threading.Thread(target=produce, args=(flush,))]
    threads += [threading.Thread(target=member.run, args=(end,)) for member in members]
    # One that fails ends all, and is told by the exit status.
    threading.excepthook = fail
    for thread in threads:
        thread.start()
    sys.stdin.readline()
    flush.set()
    sys.stdin.read()
    end.set()
    for thread in threads:
        thread.join()
    JOURNAL.write("ended")


def fail(failure) -> None:
    sys.excepthook(failure.exc_type, failure.exc_value, failure.exc_traceback)
    JOURNAL.write("failed", repr(failure.exc_value))
    os._exit(1)


def read() -> None:
    """Every record of the topic up to its present end."""
    client = Consumer({**COMMON, "group.id": GROUP, "enable.auto.commit": False, "enable.partition.eof": True})
    client.assign([TopicPartition(TOPIC, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    left = set(range(PARTITIONS))
    while left:
        for message in client.consume(500, 1.0):
            if message.error() is None:
                JOURNAL.write("found", message.partition(), message.offset(), message.value().decode())
            elif message.error().code() == KafkaError._PARTITION_EOF:
                JOURNAL.write("end", message.partition(), message.offset())
                left.discard(message.partition())
            else:
                JOURNAL.write("note", "reader:", message.error().str())
    client.close()
    JOURNAL.write("ended")


if __name__ == "__main__":
    {"run": run, "read": read}[sys.argv[1]]()
