"""What a broker tells about itself: versions, metadata, cluster."""

from proof.connection import Session

from .helpers import STRANGE, ZERO, coordinate, create, gone, settle


def api_versions(session: Session) -> None:
    for version in session.each("ApiVersions"):
        session.call("plain", "ApiVersions", version, clientSoftwareName="proof", clientSoftwareVersion="1.0")
    for step, name, number in [
        ("empty name", "", "1.0"), ("empty version", "proof", ""), ("bad name", "pro of", "1.0"),
        ("leading dash", "-proof", "1"), ("dots and dashes", "a.b-c", "1.2-rc.3"),
    ]:
        session.call(step, "ApiVersions", 3, clientSoftwareName=name, clientSoftwareVersion=number)
    # A version from the future is answered in the form of version 0, so that any client can read it.
    connection = session.connect()
    connection.send("ApiVersions", 99, {}, encode_as=0)
    session.record("from the future", "ApiVersions", 0, connection.receive())
    connection.send("ApiVersions", 0, {})
    session.record("after the future", "ApiVersions", 0, connection.receive())
    connection.close()


def metadata(session: Session) -> None:
    known = create(session, "metadata-a", 3)
    create(session, "metadata-b")
    for version in session.each("Metadata"):
        quiet = {"allowAutoTopicCreation": False}
        # Version 0 means all topics by an empty list, later ones by null.
        everything = [] if version == 0 else None
        session.call("all", "Metadata", version, topics=everything, **quiet)
        session.call("none", "Metadata", version, topics=[] if version else [{"name": "metadata-a"}], **quiet)
        session.call("two", "Metadata", version, topics=[{"name": "metadata-b"}, {"name": "metadata-a"}], **quiet)
        session.call("twice", "Metadata", version, topics=[{"name": "metadata-a"}] * 2, **quiet)
        session.call("metadata's topic", "Metadata", version, topics=[{"name": "__cluster_metadata"}], **quiet)
        for step, name in [("empty", ""), ("dots", ".."), ("slash", "a/b"), ("long", "x" * 250)]:
            session.call(f"bad name: {step}", "Metadata", version, topics=[{"name": name}], **quiet)
        if version >= 4:
            for step, name in [("unknown", "metadata-unknown"), ("groups' topic", "__consumer_offsets")]:
                session.call(step, "Metadata", version, topics=[{"name": name}], **quiet)
        if version >= 8:
            session.call("operations", "Metadata", version, topics=[{"name": "metadata-a"}],
                         includeTopicAuthorizedOperations=True,
                         **({"includeClusterAuthorizedOperations": True} if version <= 10 else {}), **quiet)
        if version >= 10:
            for step, one in [("id", known), ("unknown id", STRANGE), ("id and name", known)]:
                name = "metadata-a" if step == "id and name" else None
                session.call(f"by {step}", "Metadata", version, topics=[{"topicId": one, "name": name}], **quiet)
            session.call("by id twice", "Metadata", version, topics=[{"topicId": known, "name": None}] * 2, **quiet)
            session.call("by id and by name", "Metadata", version, topics=[
                {"topicId": known, "name": None}, {"topicId": ZERO, "name": "metadata-b"}], **quiet)
            session.call("null name", "Metadata", version, topics=[{"topicId": ZERO, "name": None}], **quiet)


def auto_create(session: Session) -> None:
    for version in session.each("Metadata"):
        name = f"auto-v{version}"
        # What the first answer says is Kafka's weak point; from the second on all must agree.
        session.ask("Metadata", version, topics=[{"name": name}], allowAutoTopicCreation=True)
        settle(session, name, 1)
        session.call("created", "Metadata", version, topics=[{"name": name}], allowAutoTopicCreation=True)
        session.call("bad name", "Metadata", version, topics=[{"name": "not/ok"}], allowAutoTopicCreation=True)
        session.call("metadata's topic", "Metadata", version, topics=[{"name": "__cluster_metadata"}],
                     allowAutoTopicCreation=True)
        session.ask("DeleteTopics", 5, topicNames=[name], timeoutMs=10000)
        gone(session, name)


def describe_cluster(session: Session) -> None:
    for version in session.each("DescribeCluster"):
        session.call("plain", "DescribeCluster", version)
        session.call("operations", "DescribeCluster", version, includeClusterAuthorizedOperations=True)
        if version >= 1:
            session.call("controllers", "DescribeCluster", version, endpointType=2)
            session.call("strange endpoint", "DescribeCluster", version, endpointType=7)
        if version >= 2:
            session.call("fenced brokers", "DescribeCluster", version, includeFencedBrokers=True)


def describe_topic_partitions(session: Session) -> None:
    create(session, "partitions-a", 5)
    create(session, "partitions-b", 2)
    def ask(step: str, names: list, **more) -> dict:
        topics = [{"name": name} for name in names]
        return session.call(step, "DescribeTopicPartitions", 0, topics=topics, **more)

    ask("one", ["partitions-a"])
    ask("two", ["partitions-b", "partitions-a"])
    ask("unknown", ["partitions-unknown", "partitions-b"])
    ask("bad name", ["not/ok"])
    first = ask("page of three", ["partitions-a", "partitions-b"], responsePartitionLimit=3)
    cursor = first.get("nextCursor")
    ask("next page", ["partitions-a", "partitions-b"], responsePartitionLimit=3, cursor=cursor)
    ask("cursor at a topic", ["partitions-a", "partitions-b"], cursor={"topicName": "partitions-b", "partitionIndex": 1})
    ask("cursor beyond", ["partitions-a"], cursor={"topicName": "partitions-a", "partitionIndex": 9})
    ask("cursor before", ["partitions-a"], cursor={"topicName": "partitions-a", "partitionIndex": -1})
    ask("limit of zero", ["partitions-a"], responsePartitionLimit=0)
    ask("negative limit", ["partitions-a"], responsePartitionLimit=-1)
    ask("twice", ["partitions-a", "partitions-a"])
    ask("empty name", [""])
    ask("cursor at another topic", ["partitions-b"], cursor={"topicName": "partitions-a", "partitionIndex": 0})
    ask("cursor at an unknown topic", ["partitions-b"], cursor={"topicName": "partitions-c", "partitionIndex": 0})
    ask("all", [], responsePartitionLimit=4)


def find_coordinator(session: Session) -> None:
    coordinate(session, "coordinated")
    for version in session.each("FindCoordinator"):
        if version < 4:
            session.call("group", "FindCoordinator", version, key="coordinated", keyType=0)
            session.call("empty", "FindCoordinator", version, key="", keyType=0)
        else:
            session.call("groups", "FindCoordinator", version, coordinatorKeys=["coordinated", "other"], keyType=0)
            session.call("nothing", "FindCoordinator", version, coordinatorKeys=[], keyType=0)
            session.call("empty", "FindCoordinator", version, coordinatorKeys=[""], keyType=0)
            session.call("twice", "FindCoordinator", version, coordinatorKeys=["coordinated"] * 2, keyType=0)
        if version >= 1:
            keys = {"key": "x"} if version < 4 else {"coordinatorKeys": ["x"]}
            session.call("strange kind", "FindCoordinator", version, keyType=9, **keys)
            session.call("share group", "FindCoordinator", version, keyType=2, **keys)
            session.call("negative kind", "FindCoordinator", version, keyType=-1, **keys)


def elect_leaders(session: Session) -> None:
    create(session, "elected", 2)
    for version in session.each("ElectLeaders"):
        def ask(step: str, *topics: tuple, **more) -> None:
            asked = [{"topic": name, "partitions": list(numbers)} for name, numbers in topics]
            session.call(step, "ElectLeaders", version, **{"topicPartitions": asked, "timeoutMs": 10000, **more})

        ask("led as it should", ("elected", (0, 1)))
        ask("nothing")
        ask("no partitions", ("elected", ()))
        ask("unknown topic", ("elected-not", (0,)), ("elected", (0,)))
        ask("unknown partition", ("elected", (2, -1)))
        ask("twice", ("elected", (0, 0)))
        ask("negative timeout", ("elected", (0,)), timeoutMs=-1)
        if version >= 1:
            ask("unclean", ("elected", (0,)), ("elected-not", (0,)), electionType=1)
            ask("strange kind", ("elected", (0,)), electionType=7)


def reassignments(session: Session) -> None:
    create(session, "moved", 2)
    node = session.ask("Metadata", 5, topics=[])["brokers"][0]["nodeId"]
    for version in session.each("AlterPartitionReassignments"):
        def ask(step: str, name: str, *partitions: tuple, **more) -> None:
            asked = [{"partitionIndex": number, "replicas": nodes} for number, nodes in partitions]
            topics = [{"name": name, "partitions": asked}]
            session.call(step, "AlterPartitionReassignments", version,
                         **{"topics": topics, "timeoutMs": 10000, **more})

        ask("where it is", "moved", (0, [node]), (1, [node]))
        ask("to a stranger", "moved", (0, [node + 77]), (1, [node]))
        ask("nowhere", "moved", (0, []))
        ask("twice on one", "moved", (0, [node, node]))
        ask("to nobody", "moved", (0, [-1]))
        ask("called off", "moved", (0, None))
        ask("unknown topic", "moved-not", (0, [node]))
        ask("unknown partition", "moved", (2, [node]), (-1, None))
        ask("no partitions", "moved")
        ask("nothing", "moved", (0, [node]), topics=[])
        ask("negative timeout", "moved", (0, [node]), timeoutMs=-1)
        if version >= 1:
            ask("as many", "moved", (0, [node]), allowReplicationFactorChange=False)
            ask("called off, as many", "moved", (0, None), allowReplicationFactorChange=False)
    for version in session.each("ListPartitionReassignments"):
        for step, topics in [
            ("all", None), ("nothing", []), ("one", [{"name": "moved", "partitionIndexes": [0, 1, 2]}]),
            ("unknown", [{"name": "moved-not", "partitionIndexes": [0]}]),
            ("no partitions", [{"name": "moved", "partitionIndexes": []}]),
        ]:
            session.call(step, "ListPartitionReassignments", version, topics=topics, timeoutMs=10000)
        session.call("negative timeout", "ListPartitionReassignments", version, topics=None, timeoutMs=-1)


def describe_quorum(session: Session) -> None:
    for version in session.each("DescribeQuorum"):
        for step, topics in [
            ("metadata", [("__cluster_metadata", (0,))]), ("another partition", [("__cluster_metadata", (1,))]),
            ("another topic", [("quorum", (0,))]), ("nothing", []), ("no partitions", [("__cluster_metadata", ())]),
            ("twice", [("__cluster_metadata", (0, 0))]), ("two", [("__cluster_metadata", (0,)), ("quorum", (0,))]),
        ]:
            asked = [{"topicName": name, "partitions": [{"partitionIndex": number} for number in numbers]}
                     for name, numbers in topics]
            session.call(step, "DescribeQuorum", version, topics=asked)


def describe_log_dirs(session: Session) -> None:
    create(session, "on-disk", 2)
    for version in session.each("DescribeLogDirs"):
        for step, topics in [
            ("one", [("on-disk", (0, 1))]), ("one partition", [("on-disk", (1,))]), ("nothing", []),
            ("no partitions", [("on-disk", ())]), ("unknown topic", [("on-disk-not", (0,))]),
            ("unknown partition", [("on-disk", (0, 2, -1))]),
        ]:
            asked = [{"topic": name, "partitions": list(numbers)} for name, numbers in topics]
            session.call(step, "DescribeLogDirs", version, topics=asked)


def unregister_broker(session: Session) -> None:
    for version in session.each("UnregisterBroker"):
        session.call("a stranger", "UnregisterBroker", version, brokerId=4711)


SCENARIOS = [
    ("api-versions", api_versions), ("metadata", metadata), ("auto-create", auto_create),
    ("describe-cluster", describe_cluster), ("describe-topic-partitions", describe_topic_partitions),
    ("find-coordinator", find_coordinator), ("elect-leaders", elect_leaders), ("reassignments", reassignments),
    ("describe-quorum", describe_quorum), ("describe-log-dirs", describe_log_dirs),
    ("unregister-broker", unregister_broker),
]
