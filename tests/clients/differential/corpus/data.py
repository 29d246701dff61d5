"""Producing: what is taken, what is refused and how, idempotence."""

import time
import uuid

from proof.connection import Session
from proof.records import BASE_TIME, Record, batch

from .helpers import STRANGE, coordinate, create, fill, gone, produced, settle_configs, until, values

LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 8, 16, 32


def produce(session: Session) -> None:
    ids = {name: create(session, name, 2) for name in ["produced", "produced-other"]}
    coordinate(session, "any")
    ids["__consumer_offsets"] = session.ask("Metadata", 12, topics=[{"name": "__consumer_offsets"}])["topics"][0]["topicId"]
    for version in session.each("Produce"):
        def place(name: str) -> str | uuid.UUID:
            return ids.get(name, STRANGE) if version >= 13 else name

        def ask(step: str, data: bytes | None, name: str = "produced", partition: int = 0, acks: int = -1) -> dict:
            return session.call(step, "Produce", version, acks=acks, timeoutMs=10000,
                                topicData=[produced(place(name), data, partition)])

        ask("plain", values(3))
        ask("leader alone", values(1), acks=1)
        ask("gzip", batch([b"a" * 100, b"b" * 100], gzip=True))
        ask("strange acks", values(1), acks=2)
        ask("unknown topic", values(1), name="produced-unknown")
        ask("unknown partition", values(1), partition=9)
        ask("negative partition", values(1), partition=-1)
        ask("groups' topic", values(1), name="__consumer_offsets")
        ask("other strange acks", values(1), acks=-2)
        session.call("no partitions", "Produce", version, acks=-1, timeoutMs=1000, topicData=[
            {**produced(place("produced"), None), "partitionData": []}])
        session.call("negative timeout", "Produce", version, acks=-1, timeoutMs=-1, topicData=[
            produced(place("produced"), values(1))])
        session.call("strange acks among good and bad", "Produce", version, acks=5, timeoutMs=1000, topicData=[
            produced(place("produced"), values(1)), produced(place("produced-unknown"), values(1))])
        session.call("same topic twice", "Produce", version, acks=-1, timeoutMs=10000, topicData=[
            produced(place("produced"), values(1), 0), produced(place("produced"), values(1), 1)])
        ids["produced-twice"] = create(session, f"produced-twice-v{version}")
        twice = place("produced-twice") if version >= 13 else f"produced-twice-v{version}"
        session.call("same partition twice", "Produce", version, acks=-1, timeoutMs=10000, topicData=[
            {**produced(twice, None), "partitionData": [
                {"index": 0, "records": values(n)} for n in (1, 2)]}])
        session.call("what came of it", "ListOffsets", 7, replicaId=-1, topics=[
            {"name": "produced", "partitions": [{"partitionIndex": n, "timestamp": -1} for n in range(2)]}])
        session.call("no topics", "Produce", version, acks=-1, timeoutMs=1000, topicData=[])
        session.call("two topics", "Produce", version, acks=-1, timeoutMs=10000, topicData=[
            produced(place("produced"), values(1), 1), produced(place("produced-other"), values(2), 0)])
        session.call("one good and one bad", "Produce", version, acks=-1, timeoutMs=10000, topicData=[
            {**produced(place("produced"), values(1)), "partitionData": [
                {"index": 0, "records": values(1)}, {"index": 9, "records": values(1)}]}])
        unanswered(session, version, place("produced"))
        if version >= 9:
            session.call("transactional", "Produce", version, acks=-1, timeoutMs=1000, transactionalId=None,
                         topicData=[produced(place("produced"), batch([b"x"], attributes=TRANSACTIONAL))])


def unanswered(session: Session, version: int, topic: str | uuid.UUID) -> None:
    """acks=0 gets no answer: the next request's answer comes first. A refused one ends the connection."""
    for step, data in [("good", values(1)), ("bad checksum", batch([b"x"], crc=1))]:
        connection = session.connect()
        connection.send("Produce", version, {"acks": 0, "timeoutMs": 1000, "topicData": [produced(topic, data)]})
        connection.waiting.clear()
        connection.send("ApiVersions", 2, {})
        answer = connection.receive()
        told = answer if "connection" in answer else {"errorCode": answer["errorCode"]}
        session.record(f"no acks, {step}", "Produce", version, told)
        connection.close()


# Versions in which batches are checked: the oldest, the first with zstd, the first with record errors, the last by name.
_BATCH_VERSIONS = [3, 7, 8, 12]


def refused_batches(session: Session) -> None:
    cases = _batches()
    for version in _BATCH_VERSIONS:
        # Every case has a partition of its own, so that one that only one broker takes does not shift the others.
        name = f"batches-v{version}"
        create(session, name, len(cases))
        for partition, (step, data) in enumerate(cases):
            session.call(step, "Produce", version, acks=-1, timeoutMs=10000,
                         topicData=[produced(name, data, partition)])
            session.call(f"stored: {step}", "Fetch", 12, maxWaitMs=0, minBytes=0, topics=[
                {"topic": name, "partitions": [
                    {"partition": partition, "fetchOffset": 0, "partitionMaxBytes": 1_000_000}]}])
    # Apache Kafka never answers this one; no use in waiting long.
    connection = session.connect()
    connection.send("Produce", 9, {"acks": -1, "timeoutMs": 1000, "topicData": [produced("batches-v3", None)]})
    session.record("null", "Produce", 9, connection.receive(timeout_s=2))
    connection.close()


def _batches() -> list[tuple[str, bytes]]:
    """Batches that are wrong, or nearly so, with the name of what is wrong."""
    two_hours_on = int(time.time() * 1000) + 7_200_000
    return [
        ("no bytes", b""), ("cut short", values(3)[:-5]), ("header alone", values(3)[:61]),
        ("half a header", values(3)[:30]), ("garbage", b"\xff" * 100), ("bad checksum", batch([b"x"], crc=1)),
        ("two batches", values(1) + values(1)), ("magic 0", batch([b"x"], magic=0)),
        ("magic 1", batch([b"x"], magic=1)), ("magic 3", batch([b"x"], magic=3)), ("no records", batch([])),
        ("count too high", batch([b"x"], count=5)), ("count too low", batch([b"x", b"y"], count=1)),
        ("count negative", batch([b"x"], count=-1)), ("last delta wrong", batch([b"x", b"y"], last_delta=7)),
        ("last delta negative", batch([b"x"], last_delta=-1)),
        ("offsets with a gap", batch([Record(b"x"), Record(b"y", offset=5)], last_delta=5)),
        ("offsets backwards", batch([Record(b"x", offset=1), Record(b"y", offset=0)])),
        ("base offset set", batch([b"x"], base_offset=77)), ("leader epoch set", batch([b"x"], leader_epoch=5)),
        ("control", batch([b"\0\0\0\0"], attributes=CONTROL)), ("unknown codec", batch([b"x"], attributes=7)),
        ("zstd that is not", batch([b"x"], attributes=4)), ("gzip that is not", batch([b"x"], attributes=1)),
        ("append time claimed", batch([b"x"], attributes=LOG_APPEND_TIME)),
        ("unused attribute", batch([b"x"], attributes=0x100)), ("no timestamp", batch([b"x"], base_time=-1)),
        ("max timestamp too small", batch([Record(b"x", time=100)], max_time=BASE_TIME)),
        ("max timestamp missing", batch([Record(b"x", time=100)], max_time=-1)),
        ("two hours ahead", batch([b"x"], base_time=two_hours_on)),
        ("of the last century", batch([b"x"], base_time=900_000_000_000)),
        ("length too long", batch([b"x"], length=500)), ("length too short", batch([b"x"], length=20)),
        ("trailing byte", batch([b"x"]) + b"\0"),
        ("negative producer epoch", batch([b"x"], producer=5, epoch=-1, sequence=0)),
        ("sequence without producer", batch([b"x"], sequence=5)),
    ]


def topic_rules(session: Session) -> None:
    """Batches that only some topics refuse or change."""
    create(session, "rules-compact", cleanup_policy="compact")
    create(session, "rules-small", max_message_bytes="2000")
    create(session, "rules-zstd", compression_type="zstd")
    create(session, "rules-gzip", compression_type="gzip")
    create(session, "rules-uncompressed", compression_type="uncompressed")
    create(session, "rules-recent", message_timestamp_before_max_ms="86400000")
    create(session, "rules-altered")
    session.ask("IncrementalAlterConfigs", 1, resources=[{"resourceType": 2, "resourceName": "rules-altered", "configs": [
        {"name": "max.message.bytes", "configOperation": 0, "value": "1000"},
        {"name": "message.timestamp.type", "configOperation": 0, "value": "LogAppendTime"}]}])
    settle_configs(session)
    now = int(time.time() * 1000)
    cases = [
        ("null key", batch([Record(b"x")]), "rules-compact"),
        ("some null keys", batch([Record(b"x", key=b"k"), Record(b"y")]), "rules-compact"),
        ("keys", batch([Record(b"x", key=b"k")]), "rules-compact"),
        ("too large", batch([b"x" * 3000]), "rules-small"), ("large enough", batch([b"x" * 1900]), "rules-small"),
        ("plain to zstd", batch([b"x" * 200]), "rules-zstd"), ("plain to gzip", batch([b"x" * 200]), "rules-gzip"),
        ("gzip to plain", batch([b"x" * 200], gzip=True), "rules-uncompressed"),
        ("gzip of several to plain", batch([Record(b"x", key=b"k", headers=(("h", b"v"), ("h", None)), time=n)
                                            for n in range(5)], gzip=True), "rules-uncompressed"),
        ("claimed append time to plain", batch([Record(b"x", time=n) for n in range(3)], gzip=True,
                                               attributes=LOG_APPEND_TIME), "rules-uncompressed"),
        ("too old", batch([b"x"]), "rules-recent"), ("recent enough", batch([b"x"], base_time=now), "rules-recent"),
        ("one too old", batch([Record(b"x"), Record(b"y", time=now - BASE_TIME)]), "rules-recent"),
        ("all too old", batch([b"x", b"y"], gzip=True), "rules-recent"),
        ("no time", batch([b"x"], base_time=-1), "rules-recent"),
        ("too large by now", batch([b"x" * 1500]), "rules-altered"), ("still small", batch([b"x"]), "rules-altered"),
    ]
    for version in _BATCH_VERSIONS:
        for step, data, name in cases:
            session.call(step, "Produce", version, acks=-1, timeoutMs=10000, topicData=[produced(name, data)])
    for name in ["rules-compact", "rules-small", "rules-uncompressed", "rules-recent", "rules-altered"]:
        stored(session, name)


def stored(session: Session, name: str) -> None:
    """Records what is in a log, batch by batch."""
    session.call(f"stored in {name}", "Fetch", 12, maxWaitMs=0, minBytes=0, topics=[
        {"topic": name, "partitions": [{"partition": 0, "fetchOffset": 0, "partitionMaxBytes": 1_000_000}]}])


def append_time(session: Session) -> None:
    create(session, "append-time", message_timestamp_type="LogAppendTime")
    for version in session.each("Produce"):
        if version < 13:
            session.call("plain", "Produce", version, acks=-1, timeoutMs=10000,
                         topicData=[produced("append-time", values(2))])
    session.call("gzip", "Produce", 9, acks=-1, timeoutMs=10000,
                 topicData=[produced("append-time", batch([b"a", b"b"], gzip=True))])
    session.call("attributes", "Fetch", 12, maxWaitMs=0, minBytes=0, maxBytes=1000, topics=[
        {"topic": "append-time", "partitions": [{"partition": 0, "fetchOffset": 0, "partitionMaxBytes": 150}]}])


def idempotence(session: Session) -> None:
    create(session, "idempotent")
    # Right after its start Apache Kafka has no ids to give yet.
    until(session, lambda: session.ask("InitProducerId", 4, transactionalId=None, transactionTimeoutMs=60000)[
        "errorCode"] == 0, "producer ids")
    for version in session.each("InitProducerId"):
        session.call("plain", "InitProducerId", version, transactionalId=None, transactionTimeoutMs=60000)
        session.call("odd timeout", "InitProducerId", version, transactionalId=None, transactionTimeoutMs=-5)
        session.call("no timeout", "InitProducerId", version, transactionalId=None, transactionTimeoutMs=0)
        session.call("empty transactional id", "InitProducerId", version, transactionalId="", transactionTimeoutMs=1000)
        if version >= 3:
            session.call("with an epoch alone", "InitProducerId", version, transactionalId=None,
                         transactionTimeoutMs=60000, producerId=-1, producerEpoch=3)
            session.call("with a strange id", "InitProducerId", version, transactionalId=None,
                         transactionTimeoutMs=60000, producerId=-5, producerEpoch=-5)
            session.call("with an id", "InitProducerId", version, transactionalId=None, transactionTimeoutMs=60000,
                         producerId=10, producerEpoch=3)
            session.call("with half an id", "InitProducerId", version, transactionalId=None,
                         transactionTimeoutMs=60000, producerId=10, producerEpoch=-1)
    producer = session.ask("InitProducerId", 4, transactionalId=None, transactionTimeoutMs=60000)["producerId"]

    def ask(step: str, sequence: int, count: int = 2, epoch: int = 0, version: int = 9) -> dict:
        data = batch([f"{step} {n}".encode() for n in range(count)], producer=producer, epoch=epoch, sequence=sequence)
        return session.call(step, "Produce", version, acks=-1, timeoutMs=10000,
                            topicData=[produced("idempotent", data)])

    ask("first", 0)
    ask("first again", 0)
    for n in range(1, 7):
        ask(f"next {n}", n * 2)
    ask("fifth last again", 4)
    ask("older than the fifth", 0)
    ask("half of one again", 12, count=1)
    ask("gap", 20)
    ask("after the gap", 14)
    ask("new epoch, not from zero", 5, epoch=1)
    ask("new epoch", 0, epoch=1)
    ask("old epoch", 16, epoch=0)
    ask("new epoch goes on", 2, epoch=1)
    producer = session.ask("InitProducerId", 4, transactionalId=None, transactionTimeoutMs=60000)["producerId"]
    ask("unknown producer in the middle", 100)
    ask("unknown producer goes on", 102)
    producer = session.ask("InitProducerId", 4, transactionalId=None, transactionTimeoutMs=60000)["producerId"]
    stored(session, "idempotent")
    ask("before the wrap", 2**31 - 2)
    ask("after the wrap", 0)
    ask("wrap goes on", 2)


def recreated(session: Session) -> None:
    """A topic that is deleted and made again under its name is another one."""
    old = create(session, "recreated")
    coordinate(session, "recreated-group")
    fill(session, "recreated", values(3))
    at = {"partitionIndex": 0, "committedOffset": 2}
    session.ask("OffsetCommit", 8, groupId="recreated-group", topics=[{"name": "recreated", "partitions": [at]}])
    asked = {"partition": 0, "fetchOffset": 0, "partitionMaxBytes": 1000}
    by_id, by_name = ({**place, "partitions": [asked]} for place in ({"topicId": old}, {"topic": "recreated"}))
    sessions = [session.ask("Fetch", version, maxWaitMs=0, minBytes=0, maxBytes=1000, sessionId=0, sessionEpoch=0,
                            topics=[place])["sessionId"] for version, place in ((13, by_id), (12, by_name))]

    def ask_all(when: str) -> None:
        for version, place in ((13, by_id), (18, by_id), (12, by_name)):
            session.call(f"fetch {when}", "Fetch", version, maxWaitMs=0, minBytes=0, topics=[place])
        session.call(f"produce by name {when}", "Produce", 12, acks=-1, timeoutMs=5000, topicData=[
            produced("recreated", values(1))])
        session.call(f"produce by id {when}", "Produce", 13, acks=-1, timeoutMs=5000, topicData=[produced(old, values(1))])
        session.call(f"metadata by id {when}", "Metadata", 12, topics=[{"topicId": old, "name": None}])
        session.call(f"commit by id {when}", "OffsetCommit", 10, groupId="recreated-group", topics=[
            {"topicId": old, "partitions": [at]}])
        session.call(f"offsets {when}", "OffsetFetch", 8, groups=[{"groupId": "recreated-group", "topics": None}])
        session.call(f"offsets by id {when}", "OffsetFetch", 10, groups=[
            {"groupId": "recreated-group", "topics": [{"topicId": old, "partitionIndexes": [0]}]}])

    session.ask("DeleteTopics", 5, topicNames=["recreated"], timeoutMs=10000)
    gone(session, "recreated")
    until(session, lambda: not session.ask("OffsetFetch", 8, groups=[
        {"groupId": "recreated-group", "topics": None}])["groups"][0]["topics"], "end of the offsets")
    ask_all("when deleted")
    for version, number in zip((13, 12), sessions):
        session.call("the session when deleted", "Fetch", version, maxWaitMs=0, minBytes=0, maxBytes=1000,
                     sessionId=number, sessionEpoch=1, topics=[])
    create(session, "recreated")
    ask_all("when made again")
    for version, number in zip((13, 12), sessions):
        session.call("the session when made again", "Fetch", version, maxWaitMs=0, minBytes=0, maxBytes=1000,
                     sessionId=number, sessionEpoch=2, topics=[])


SCENARIOS = [
    ("produce", produce), ("refused-batches", refused_batches), ("topic-rules", topic_rules),
    ("append-time", append_time), ("idempotence", idempotence), ("recreated", recreated),
]
