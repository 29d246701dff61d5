"""Topics created, grown, trimmed and deleted."""

import uuid

from proof.connection import Session

from .helpers import STRANGE, coordinate, create, fill, gone, settle, topic, values


def create_topics(session: Session) -> None:
    create(session, "existing")
    for version in session.each("CreateTopics"):
        def ask(step: str, *topics: dict, **more) -> dict:
            return session.call(step, "CreateTopics", version, **{"topics": list(topics), "timeoutMs": 15000, **more})

        name = f"created-v{version}"
        ask("plain", topic(name, 2, retention_ms="100000", cleanup_policy="compact"))
        settle(session, name, 2)
        ask("again", topic(name, 2))
        ask("validate only", topic(f"{name}-v", 2), validateOnly=True)
        ask("validate existing", topic("existing"), validateOnly=True)
        ask("nothing")
        ask("two of which one is bad", topic(f"{name}-ok"), topic("not/ok"))
        ask("same name twice", topic(f"{name}-twice"), topic(f"{name}-twice", 3))
        for step, bad in [
            ("empty", ""), ("dot", "."), ("dots", ".."), ("space", "a b"), ("long", "x" * 250), ("unicode", "žluť"),
        ]:
            ask(f"bad name: {step}", topic(bad))
        ask("longest name", topic(f"v{version}".ljust(249, ".")))
        ask("no partitions", topic(f"{name}-p0", 0))
        ask("negative partitions", topic(f"{name}-pn", -2))
        ask("no replicas", topic(f"{name}-r0", 1, 0))
        ask("too many replicas", topic(f"{name}-r9", 1, 9))
        ask("default partitions", topic(f"{name}-dp", -1, 1))
        ask("default replicas", topic(f"{name}-dr", 1, -1))
        assigned_topics(session, ask, name)
        ask("unknown config", topic(f"{name}-c1", no_such_config="1"))
        ask("bad value", topic(f"{name}-c2", retention_ms="soon"))
        ask("value out of range", topic(f"{name}-c3", segment_bytes="1"))
        ask("unknown policy", topic(f"{name}-c4", cleanup_policy="forget"))
        ask("null value", {**topic(f"{name}-c5"), "configs": [{"name": "retention.ms", "value": None}]})
        ask("same config twice", {**topic(f"{name}-c6"), "configs": [
            {"name": "retention.ms", "value": "1000"}, {"name": "retention.ms", "value": "2000"}]})
        ask("min insync beyond replicas", topic(f"{name}-c7", min_insync_replicas="3"))
        ask("reserved name", topic("__consumer_offsets"), validateOnly=True)
        ask("metadata's name", topic("__cluster_metadata"), validateOnly=True)
        ask("replicas minus two", topic(f"{name}-r2", 1, -2))
        ask("validate only, bad", topic(f"{name}-p9", 0), validateOnly=True)
        ask("empty config name", {**topic(f"{name}-c8"), "configs": [{"name": "", "value": "x"}]})
        ask("negative timeout", topic(f"{name}-t1"), timeoutMs=-1)
        ask("dots", topic(f"col.lide.v{version}"))
        ask("collides with dots", topic(f"col_lide_v{version}"))


def assigned_topics(session: Session, ask, name: str) -> None:
    """Replicas placed by hand."""
    node = session.ask("Metadata", 5, topics=[])["brokers"][0]["nodeId"]
    def placed(suffix: str, *places: tuple, partitions: int = -1, replicas: int = -1) -> dict:
        assignments = [{"partitionIndex": index, "brokerIds": list(nodes)} for index, nodes in places]
        return {**topic(name + suffix, partitions, replicas), "assignments": assignments}

    ask("placed", placed("-a1", (0, (node,)), (1, (node,))))
    ask("placed on a stranger", placed("-a2", (0, (node + 77,))))
    ask("placed with a gap", placed("-a3", (0, (node,)), (2, (node,))))
    ask("placed twice on one", placed("-a4", (0, (node, node))))
    ask("placed nowhere", placed("-a5", (0, ())))
    ask("placed and counted", placed("-a6", (0, (node,)), partitions=1, replicas=1))
    ask("same partition placed twice", placed("-a7", (0, (node,)), (0, (node,))))
    ask("negative partition placed", placed("-a8", (-1, (node,))))


def delete_topics(session: Session) -> None:
    for version in session.each("DeleteTopics"):
        names = [f"doomed-v{version}-{n}" for n in range(3)]
        ids = [create(session, name) for name in names]

        def ask(step: str, *wanted: str | uuid.UUID) -> dict:
            by_version = {"topicNames": list(wanted)} if version < 6 else {
                "topics": [{"topicId": w} if isinstance(w, uuid.UUID) else {"name": w} for w in wanted]}
            return session.call(step, "DeleteTopics", version, timeoutMs=10000, **by_version)

        ask("one", names[0])
        gone(session, names[0])
        ask("again", names[0])
        ask("one known and one not", names[1], "doomed-unknown")
        gone(session, names[1])
        ask("nothing")
        ask("bad name", "not/ok")
        ask("empty name", "")
        ask("metadata's name", "__cluster_metadata")
        session.call("negative timeout", "DeleteTopics", version, timeoutMs=-1,
                     **({"topicNames": [names[2]]} if version < 6 else {"topics": [{"name": names[2]}]}))
        if version >= 6:
            ask("same id twice", ids[2], ids[2])
            ask("by name and by id", names[2], ids[2])
            ask("same strange id twice", STRANGE, STRANGE)
            ids[2] = create(session, f"{names[2]}-again")
            names[2] = f"{names[2]}-again"
            ask("by id", ids[2])
            gone(session, names[2])
            ask("by id again", ids[2])
            ask("by a strange id", STRANGE)
            session.call("by name and id", "DeleteTopics", version, timeoutMs=1000,
                         topics=[{"name": "existing", "topicId": STRANGE}])
            session.call("by neither", "DeleteTopics", version, timeoutMs=1000, topics=[{"name": None}])
        else:
            ask("twice in one", names[2], names[2])


def create_partitions(session: Session) -> None:
    coordinate(session, "any")  # brings the topic of groups into being
    node = session.ask("Metadata", 5, topics=[])["brokers"][0]["nodeId"]
    for version in session.each("CreatePartitions"):
        name = f"grown-v{version}"
        create(session, name, 2)

        def ask(step: str, *topics: dict, **more) -> dict:
            return session.call(step, "CreatePartitions", version, topics=list(topics), timeoutMs=10000, **more)

        def grow(count: int, *places: list, name: str = name) -> dict:
            return {"name": name, "count": count, "assignments": [{"brokerIds": p} for p in places] or None}

        ask("validate only", grow(5), validateOnly=True)
        ask("to three", grow(3))
        settle(session, name, 3)
        ask("to the same", grow(3))
        ask("to fewer", grow(1))
        ask("to none", grow(0))
        ask("to a negative number", grow(-1))
        ask("unknown topic", grow(3, name="grown-unknown"))
        ask("same topic twice", grow(4), grow(5))
        ask("bad name", grow(4, name="not/ok"))
        ask("empty name", grow(4, name=""))
        ask("far too many", grow(2**31 - 1))
        session.call("negative timeout", "CreatePartitions", version, topics=[grow(9)], timeoutMs=-1)
        ask("placed", grow(4, [node]))
        settle(session, name, 4)
        ask("placed too few", grow(6, [node]))
        ask("placed too many", grow(5, [node], [node]))
        ask("placed on a stranger", grow(5, [node + 77]))
        ask("placed on two of one", grow(5, [node, node + 77]))
        ask("placed by an empty list", {"name": name, "count": 5, "assignments": []})
        ask("nothing")
        ask("groups' topic", grow(60, name="__consumer_offsets"), validateOnly=True)


def delete_records(session: Session) -> None:
    coordinate(session, "any")  # brings the topic of groups into being
    for version in session.each("DeleteRecords"):
        name = f"trimmed-v{version}"
        create(session, name)
        fill(session, name, values(10), values(10, 10))

        def ask(step: str, offset: int, partition: int = 0, name: str = name) -> dict:
            partitions = [{"partitionIndex": partition, "offset": offset}]
            return session.call(step, "DeleteRecords", version, timeoutMs=10000,
                                topics=[{"name": name, "partitions": partitions}])

        ask("before five", 5)
        ask("backwards", 3)
        ask("nothing new", 5)
        ask("negative", -2)
        ask("beyond the end", 21)
        ask("all", -1)
        ask("at the end", 20)
        ask("unknown partition", 1, partition=7)
        ask("negative partition", 1, partition=-1)
        ask("empty name", 1, name="")
        ask("groups' topic", 0, name="__consumer_offsets")
        ask("unknown partition of the groups' topic", 0, partition=9999, name="__consumer_offsets")
        session.call("same partition twice", "DeleteRecords", version, timeoutMs=10000, topics=[
            {"name": name, "partitions": [{"partitionIndex": 0, "offset": n} for n in (20, 19)]}])
        session.call("same topic twice", "DeleteRecords", version, timeoutMs=10000, topics=[
            {"name": name, "partitions": [{"partitionIndex": n, "offset": 20}]} for n in (0, 1)])
        session.call("no partitions", "DeleteRecords", version, timeoutMs=1000, topics=[
            {"name": name, "partitions": []}])
        ask("unknown topic", 1, name="trimmed-unknown")
        session.call("no topics", "DeleteRecords", version, timeoutMs=1000, topics=[])
        compact = f"trimmed-compact-v{version}"
        create(session, compact, cleanup_policy="compact")
        ask("compacted topic", 0, name=compact)
        both = f"trimmed-both-v{version}"
        create(session, both, cleanup_policy="compact,delete")
        ask("compacted and deleted topic", 0, name=both)
    for offset in [0, 4, 5, 19, 20]:
        session.call(f"fetch at {offset} of what is left", "Fetch", 12, maxWaitMs=0, minBytes=0, topics=[
            {"topic": "trimmed-v0", "partitions": [
                {"partition": 0, "fetchOffset": offset, "partitionMaxBytes": 1_000_000}]}])
    session.call("what is left", "ListOffsets", 5, replicaId=-1, topics=[
        {"name": "trimmed-v0", "partitions": [{"partitionIndex": 0, "timestamp": -2}]}])


SCENARIOS = [
    ("create-topics", create_topics), ("delete-topics", delete_topics), ("create-partitions", create_partitions),
    ("delete-records", delete_records),
]
