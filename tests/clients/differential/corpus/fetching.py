"""Fetching, offsets by time, leader epochs."""

import time
import uuid

from proof.connection import Session
from proof.records import BASE_TIME, Record, batch

from .helpers import STRANGE, ZERO, coordinate, create, fill, named, values

BIG = 1_000_000


def _partition(offset: int, partition: int = 0, size: int = BIG, **more) -> dict:
    return {"partition": partition, "fetchOffset": offset, "partitionMaxBytes": size, **more}


def fetch(session: Session) -> None:
    ids = {name: create(session, name, 2) for name in ["fetched", "fetched-other", "fetched-empty"]}
    fill(session, "fetched", values(10), values(10, 10), batch([b"z" * 50] * 10, gzip=True))
    fill(session, "fetched-other", values(3))
    fill(session, "fetched", values(2), partition=1)
    coordinate(session, "any")
    ids["__consumer_offsets"] = session.ask("Metadata", 12, topics=[{"name": "__consumer_offsets"}])["topics"][0]["topicId"]
    ids["zero"] = ZERO
    for version in session.each("Fetch"):
        def place(name: str) -> str | uuid.UUID:
            return ids.get(name, STRANGE) if version >= 13 else name

        def ask(step: str, *partitions: dict, name: str = "fetched", **more) -> dict:
            settings = {"maxWaitMs": 0, "minBytes": 0, "maxBytes": BIG, **more}
            return session.call(step, "Fetch", version, topics=[
                {**named(place(name), "topic"), "partitions": list(partitions)}], **settings)

        ask("all", _partition(0))
        ask("inside a batch", _partition(15))
        ask("inside a compressed batch", _partition(25))
        ask("at the end", _partition(30))
        ask("beyond the end", _partition(31))
        ask("negative", _partition(-1))
        ask("one byte", _partition(0, size=1))
        ask("no bytes", _partition(0, size=0))
        ask("less than no bytes", _partition(0, size=-1))
        ask("less than no bytes in all", _partition(0), maxBytes=-1)
        ask("no bytes in all", _partition(0), maxBytes=0)
        ask("less than no wait", _partition(30), maxWaitMs=-1)
        ask("negative least bytes", _partition(30), minBytes=-1)
        ask("negative partition", _partition(0, partition=-1))
        ask("no partitions")
        ask("same partition twice", _partition(0), _partition(15))
        ask("groups' topic", _partition(1000, partition=0), name="__consumer_offsets")
        ask("empty name", _partition(0), name="") if version < 13 else ask("zero id", _partition(0), name="zero")
        session.call("same topic twice", "Fetch", version, maxWaitMs=0, minBytes=0, maxBytes=BIG, topics=[
            {**named(place("fetched"), "topic"), "partitions": [_partition(0, partition=n)]} for n in (1, 0)])
        ask("one batch", _partition(0, size=700))
        ask("little in all", _partition(0), _partition(0, partition=1), maxBytes=1)
        ask("two partitions", _partition(0), _partition(0, partition=1))
        ask("unknown partition", _partition(0, partition=9))
        ask("unknown topic", _partition(0), name="fetched-unknown")
        ask("empty topic", _partition(0), name="fetched-empty")
        ask("committed only", _partition(0), isolationLevel=1)
        ask("strange isolation", _partition(0), isolationLevel=7)
        session.call("no topics", "Fetch", version, maxWaitMs=0, minBytes=0, topics=[])
        session.call("two topics", "Fetch", version, maxWaitMs=0, minBytes=0, maxBytes=BIG, topics=[
            {**named(place(name), "topic"), "partitions": [_partition(0)]} for name in ["fetched", "fetched-other"]])
        if version >= 9:
            ask("epoch of now", _partition(0, currentLeaderEpoch=0))
            ask("epoch to come", _partition(0, currentLeaderEpoch=50))
            ask("negative epoch", _partition(0, currentLeaderEpoch=-2))
            ask("epoch to come, beyond the end", _partition(99, currentLeaderEpoch=50))
        if version >= 11:
            ask("from a rack", _partition(0), rackId="r1")
        if version >= 12:
            ask("diverging", _partition(5, lastFetchedEpoch=0))
            ask("diverging, epoch to come", _partition(5, lastFetchedEpoch=9))
            ask("diverging, beyond the end", _partition(31, lastFetchedEpoch=0))
            ask("diverging, negative epoch", _partition(5, lastFetchedEpoch=-2))


def waiting_fetch(session: Session) -> None:
    create(session, "waited")
    for version in [4, 11, 12]:
        connection = session.connect()
        started = time.monotonic()
        connection.send("Fetch", version, {"maxWaitMs": 10000, "minBytes": 1, "topics": [
            {"topic": "waited", "partitions": [_partition((version - 4) and (version - 10))]}]})
        # The answer must wait for the record, and come with it rather than at the end of the wait.
        fill(session, "waited", values(1))
        answer = connection.receive()
        session.record("woken by a record", "Fetch", version, answer)
        session.record("woken in time", "Fetch", version, {"inTime": time.monotonic() - started < 5})
        connection.close()
    started = time.monotonic()
    session.call("not woken", "Fetch", 11, maxWaitMs=300, minBytes=1, topics=[
        {"topic": "waited", "partitions": [_partition(3)]}])
    session.record("full wait", "Fetch", 11, {"waited": 0.25 < time.monotonic() - started < 5})


def fetch_sessions(session: Session) -> None:
    for version in [7, 11, 12, 13, session.newest("Fetch")]:
        names = [f"session-v{version}-{n}" for n in range(2)]
        ids = [create(session, name) for name in names]
        places = [named(one if version >= 13 else name, "topic") for one, name in zip(ids, names)]
        fill(session, names[0], values(3))

        def ask(step: str, number: int, epoch: int, *topics: dict, forget: list = ()) -> dict:
            return session.call(step, "Fetch", version, maxWaitMs=0, minBytes=0, maxBytes=BIG, sessionId=number,
                                sessionEpoch=epoch, topics=list(topics), forgottenTopicsData=list(forget))

        def full(which: int, offset: int = 0) -> dict:
            return {**places[which], "partitions": [_partition(offset)]}

        number = ask("begin", 0, 0, full(0), full(1))["sessionId"]
        ask("nothing new asked", number, 1)
        ask("move on", number, 2, full(0, 3))
        ask("nothing new there", number, 3)
        fill(session, names[1], values(1))
        ask("something new there", number, 4)
        ask("wrong epoch", number, 9)
        ask("epoch again", number, 5, full(1, 1))
        ask("forget one", number, 6, forget=[{**places[0], "partitions": [0]}])
        ask("without the forgotten", number, 7)
        ask("unknown session", 999_999_999, 1)
        ask("unknown session to close", 999_999_999, -1, full(0))
        ask("close", number, -1, full(0))
        ask("closed", number, 8)
        ask("closed, to close", number, -1)
        ask("negative session", -5, 1)
        ask("negative session begins", -5, 0, full(0))
        ask("negative epoch", 0, -2, full(0))
        ask("session with the epoch of none", 5, -1)
        ask("sessionless", 0, -1, full(0))
        ask("session zero goes on", 0, 1, full(0))
        if version >= 13:
            number = ask("begin with a stranger", 0, 0, {"topicId": STRANGE, "partitions": [_partition(0)]})["sessionId"]
            ask("stranger stays", number, 1)
            ask("forget the stranger", number, 2, forget=[{"topicId": STRANGE, "partitions": [0]}])
            ask("without the stranger", number, 3)
        number = ask("begin with an unknown partition", 0, 0, {**places[0], "partitions": [_partition(0, 9)]})["sessionId"]
        ask("unknown partition stays", number, 1)
        ask("add a known one", number, 2, full(0))
        ask("forget what is not in it", number, 3, forget=[{**places[1], "partitions": [0, 5]}])
        ask("add and forget", number, 4, full(1), forget=[{**places[1], "partitions": [0]}])
        ask("after all", number, 5)


def list_offsets(session: Session) -> None:
    create(session, "timed")
    create(session, "timed-empty")
    fill(session, "timed", values(10), batch([Record(b"x", time=n * 10) for n in range(10)],
                                             base_time=BASE_TIME + 1000, gzip=True))
    fill(session, "timed", batch([Record(b"late", time=50), Record(b"early", time=0)], base_time=BASE_TIME + 500))
    session.ask("DeleteRecords", 2, timeoutMs=5000, topics=[
        {"name": "timed", "partitions": [{"partitionIndex": 0, "offset": 2}]}])
    for version in session.each("ListOffsets"):
        def ask(step: str, *times: int, name: str = "timed", partition: int = 0, **more) -> dict:
            isolation = more.pop("isolationLevel", 0)
            partitions = [{"partitionIndex": partition, "timestamp": moment, **more} for moment in times]
            return session.call(step, "ListOffsets", version, replicaId=-1, isolationLevel=isolation, timeoutMs=5000,
                                topics=[{"name": name, "partitions": partitions}])

        for moment in range(-7, 0):
            ask(f"special {moment}", moment)
            ask(f"special {moment}, empty", moment, name="timed-empty")
        for after in [-BASE_TIME, -1, 0, 1, 5, 10, 90, 91, 500, 501, 550, 551, 1000, 1001, 1050, 1090, 1091]:
            ask(f"time {after}", BASE_TIME + after)
        ask("time, empty", BASE_TIME, name="timed-empty")
        ask("unknown topic", -1, name="timed-unknown")
        ask("unknown partition", -1, partition=9)
        ask("same partition twice", -1, -2)
        ask("committed only", -1, isolationLevel=1)
        ask("negative partition", -1, partition=-1)
        ask("empty name", -1, name="")
        ask("unknown timestamp of an unknown topic", -9, name="timed-unknown")
        ask("no partitions")
        ask("strange isolation", -1, isolationLevel=7)
        session.call("no topics", "ListOffsets", version, replicaId=-1, timeoutMs=5000, topics=[])
        session.call("same topic twice", "ListOffsets", version, replicaId=-1, timeoutMs=5000, topics=[
            {"name": "timed", "partitions": [{"partitionIndex": n, "timestamp": -1}]} for n in (0, 1)])
        for replica in [-2, -3, 0, 5]:
            session.call(f"as replica {replica}", "ListOffsets", version, replicaId=replica, timeoutMs=5000, topics=[
                {"name": "timed", "partitions": [{"partitionIndex": 0, "timestamp": -1}]}])
        if version >= 4:
            ask("negative epoch", -1, currentLeaderEpoch=-2)
            ask("epoch to come", -1, currentLeaderEpoch=50)
            ask("epoch of now", -1, currentLeaderEpoch=0)


def leader_epochs(session: Session) -> None:
    create(session, "epochs")
    fill(session, "epochs", values(5))
    for version in session.each("OffsetForLeaderEpoch"):
        def ask(step: str, epoch: int, current: int = -1, name: str = "epochs", partition: int = 0) -> dict:
            partitions = [{"partition": partition, "leaderEpoch": epoch, "currentLeaderEpoch": current}]
            return session.call(step, "OffsetForLeaderEpoch", version, replicaId=-1,
                                topics=[{"topic": name, "partitions": partitions}])

        ask("first", 0)
        ask("negative", -1)
        ask("to come", 5)
        ask("current to come", 0, current=50)
        ask("current of now", 0, current=0)
        ask("unknown partition", 0, partition=9)
        ask("unknown topic", 0, name="epochs-unknown")
        ask("empty name", 0, name="")
        ask("negative partition", 0, partition=-1)
        ask("negative beyond unknown", -5)
        ask("of the unknown current", 0, current=-2)
        session.call("no topics", "OffsetForLeaderEpoch", version, replicaId=-1, topics=[])
        session.call("same partition twice", "OffsetForLeaderEpoch", version, replicaId=-1, topics=[
            {"topic": "epochs", "partitions": [
                {"partition": 0, "leaderEpoch": epoch, "currentLeaderEpoch": -1} for epoch in (0, 7)]}])
        session.call("no partitions", "OffsetForLeaderEpoch", version, replicaId=-1, topics=[
            {"topic": "epochs", "partitions": []}])
        session.call("as a follower", "OffsetForLeaderEpoch", version, replicaId=5, topics=[
            {"topic": "epochs", "partitions": [{"partition": 0, "leaderEpoch": 0, "currentLeaderEpoch": -1}]}])


SCENARIOS = [
    ("fetch", fetch), ("waiting-fetch", waiting_fetch), ("fetch-sessions", fetch_sessions),
    ("list-offsets", list_offsets), ("leader-epochs", leader_epochs),
]
