"""kafka-python 3: a client that speaks the newest version of most APIs, in pure Python."""

import signal
import threading
import time
import uuid

import compaction
import harness
from harness import BOOTSTRAP, SESSION_MS, Child, case, check, equal, payload, role, unique, wait_until
from kafka import (
    ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, OffsetSpec,
    TopicPartition, errors,
)
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

ASSIGNORS = {
    "range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor,
    "sticky": StickyPartitionAssignor, "cooperative-sticky": CooperativeStickyAssignor,
}


class Admin:
    """An admin client that closes itself."""

    def __enter__(self) -> KafkaAdminClient:
        self._client = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
        return self._client

    def __exit__(self, *_):
        self._client.close()


def create(prefix: str, partitions: int = 1, configs: dict | None = None) -> str:
    """A new topic whose every partition has a leader."""
    topic = unique(prefix)
    with Admin() as admin:
        admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1,
                                     "configs": configs or {}}})
        await_leaders(admin, topic, partitions)
    return topic


def await_leaders(admin: KafkaAdminClient, topic: str, partitions: int) -> None:
    def led() -> int:
        found = admin.describe_topics([topic])[0]["partitions"]
        return len([p for p in found if p["leader_id"] >= 0])

    wait_until(lambda: led() == partitions, f"leaders of {topic}")


def producer(**settings) -> KafkaProducer:
    return KafkaProducer(bootstrap_servers=BOOTSTRAP, **settings)


def consumer(*topics: str, **settings) -> KafkaConsumer:
    settings = {
        "auto_offset_reset": "earliest", "enable_auto_commit": False, "session_timeout_ms": SESSION_MS,
        "heartbeat_interval_ms": 500, **settings,
    }
    return KafkaConsumer(*topics, bootstrap_servers=BOOTSTRAP, **settings)


def send(topic: str, values: list, partition: int = 0, client: KafkaProducer | None = None, **more) -> list:
    """Produces the values in order and waits for every answer; returns the record metadata."""
    own = client or producer()
    try:
        futures = [own.send(topic, value, partition=partition, **more) for value in values]
        own.flush(30)
        return [future.get(30) for future in futures]
    finally:
        if client is None:
            own.close()


def take(client: KafkaConsumer, count: int, timeout_s: float = 30) -> list:
    """The next `count` records."""
    records = []
    deadline = time.monotonic() + timeout_s
    while len(records) < count:
        check(time.monotonic() < deadline, f"{len(records)} of {count} records within {timeout_s} s")
        for batch in client.poll(500, max_records=count - len(records)).values():
            records.extend(batch)
    return records


def read(topic: str, count: int, offset: int = 0, partition: int = 0) -> list:
    """`count` records of one partition from an offset, without a group."""
    client = consumer(group_id=None)
    place = TopicPartition(topic, partition)
    client.assign([place])
    client.seek(place, offset)
    try:
        return take(client, count)
    finally:
        client.close()


def values_of(records: list) -> list:
    return [record.value for record in records]


# ---------------------------------------------------------------- compaction: first, since it waits

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()


def read_through(client: KafkaConsumer, place: TopicPartition) -> list:
    """Polls until the position is the end; returns offsets, keys and values."""
    end = client.end_offsets([place])[place]
    records: list = []

    def at_end() -> bool:
        records.extend(client.poll(100).get(place, []))
        return client.position(place) >= end

    wait_until(at_end, f"a position at the end, {end}", every_s=0)
    equal(client.position(place), end, "position")
    return [(record.offset, text(record.key), text(record.value)) for record in records]


def read_all(topic: str) -> list:
    """Reads from the beginning to the end, one batch a fetch, so that empty ones come alone."""
    client = consumer(group_id=None, max_partition_fetch_bytes=1)
    place = TopicPartition(topic, 0)
    client.assign([place])
    client.seek_to_beginning(place)
    try:
        return read_through(client, place)
    finally:
        client.close()


def send_batch(client: KafkaProducer, topic: str, pairs: list) -> list:
    """Produces keys and values in one batch; returns the offsets."""
    futures = [client.send(topic, value and value.encode(), key=key.encode(), partition=0) for key, value in pairs]
    client.flush(30)
    return [future.get(30).offset for future in futures]


def send_once(topic: str, pairs: list, codec: str = "none") -> list:
    """The same by a producer of its own."""
    client = producer(compression_type=None if codec == "none" else codec, linger_ms=50)
    try:
        return send_batch(client, topic, pairs)
    finally:
        client.close()


@case
def compacted_topic():
    topic = create("compacted", 1, compaction.CONFIG)
    lasting = producer(enable_idempotence=True, linger_ms=50)
    send_batch(lasting, topic, compaction.first_batch())
    for codec in CODECS:
        send_once(topic, compaction.batch(codec, CODECS), codec)
    compaction.await_roll()
    wanted, count = compaction.left(CODECS), compaction.written(CODECS)
    equal(send_once(topic, [compaction.LAST]), [count - 1], "offset of the last record")
    wait_until(lambda: compaction.settled(read_all(topic)), "compaction", every_s=0.2)
    records = read_all(topic)
    compaction.judge(records, wanted, count)

    resume_in_gap(topic, records)

    # The producer goes on; then nothing is left at the end of the log but, at most, a tombstone.
    changes = [("key-0", "afterwards"), (compaction.LAST[0], None)]
    for offset, change in enumerate(changes, count):
        equal(send_batch(lasting, topic, [change]), [offset], "offset after compaction")
    lasting.close()
    found = {key: value for _, key, value in read_all(topic)}
    equal({key: found.get(key) for key in wanted}, {**wanted, **dict(changes)}, "the last values")


def resume_in_gap(topic: str, records: list) -> None:
    """A group that committed where there is nothing any more."""
    group, place = unique("compacted"), TopicPartition(topic, 0)
    committed, following = compaction.gap(records)
    client = consumer(group_id=group)
    client.assign([place])
    client.commit({place: OffsetAndMetadata(committed, "", -1)})
    client.close()
    client = consumer(topic, group_id=group)
    equal(take(client, 1)[0].offset, following, f"first offset after {committed}")
    read_through(client, place)
    client.close()


@case
def no_key_for_a_compacted_topic():
    topic = create("keyless", 1, compaction.CONFIG)
    client = producer()
    future = client.send(topic, b"no key", partition=0)
    harness.raises(errors.InvalidRecordError, lambda: future.get(30), "a record without a key")
    client.close()
    equal(send_once(topic, [("key", "value")]), [0], "offset of the record after the refused one")


# ---------------------------------------------------------------- topics and configs

@case
def create_list_describe_topic():
    topic = create("topics", 3, {"retention.ms": "123456"})
    with Admin() as admin:
        check(topic in admin.list_topics(), "the topic is listed")
        described = admin.describe_topics([topic])[0]
        equal(sorted(p["partition_index"] for p in described["partitions"]), [0, 1, 2], "partitions")
        by_id = admin.describe_topics([uuid.UUID(str(described["topic_id"]))])[0]
        equal(by_id["name"], topic, "name by id")
        paged = admin.describe_topic_partitions([topic])
        check(topic in str(paged), "DescribeTopicPartitions tells the topic")
        harness.raises(errors.TopicAlreadyExistsError, lambda: admin.create_topics({topic: {}}), "creating twice")
        harness.raises(errors.InvalidTopicError, lambda: admin.create_topics({"no/such name": {}}), "a bad name")


@case
def describe_and_alter_configs():
    topic = create("configs", 1, {"retention.ms": "100000"})
    with Admin() as admin:
        def described(filter_by: str = "all") -> dict:
            asked = [ConfigResource(ConfigResourceType.TOPIC, topic)]
            return admin.describe_configs(asked, include_synonyms=True, config_filter=filter_by)["topic"][topic]

        equal(described()["retention.ms"]["value"], "100000", "retention.ms")
        equal(described()["retention.ms"]["config_source"], "DYNAMIC_TOPIC_CONFIG", "its source")
        equal(described()["segment.bytes"]["config_source"], "DEFAULT_CONFIG", "source of a default")
        check("retention.ms" in described("modified"), "retention.ms counts as modified")
        for configs in [
            {"retention.ms": ("SET", "200000"), "cleanup.policy": ("APPEND", "compact")},
            {"segment.ms": "777777"},
        ]:
            result = admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
            equal(result["topic"][topic], "OK", f"altering {configs}")
        wait_until(lambda: described()["segment.ms"]["value"] == "777777", "segment.ms")
        equal(described()["retention.ms"]["value"], "200000", "retention.ms")
        equal(set(described()["cleanup.policy"]["value"].split(",")), {"delete", "compact"}, "policy")
        # The old API replaces everything.
        replaced = ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.bytes": "4096"})
        admin.alter_configs([replaced], incremental=False)
        wait_until(lambda: described()["retention.bytes"]["value"] == "4096", "retention.bytes")
        admin.reset_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.bytes": None})])
        wait_until(lambda: described()["retention.bytes"]["value"] == "-1", "the default again")
        bad = ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "soon"})
        check(admin.alter_configs([bad])["topic"][topic] != "OK", "a value of the wrong type is refused")


@case
def cluster_and_versions():
    with Admin() as admin:
        cluster = admin.describe_cluster()
        equal([node["port"] for node in cluster["brokers"]], [int(BOOTSTRAP.split(":")[1])], "ports")
        node = cluster["brokers"][0].get("node_id", cluster["brokers"][0].get("broker_id"))
        asked = [ConfigResource(ConfigResourceType.BROKER, str(node))]
        found = admin.describe_configs(asked, config_filter="all")["broker"][str(node)]
        equal(found["group.initial.rebalance.delay.ms"]["value"], "100", "a config set at start")
        check(admin.api_versions(), "ApiVersions")


@case
def create_partitions():
    topic = create("grow", 1)
    with Admin() as admin:
        admin.create_partitions({topic: 4})
        await_leaders(admin, topic, 4)
        send(topic, [b"in the last"], partition=3)
        equal(values_of(read(topic, 1, partition=3)), [b"in the last"], "record of a new partition")
        harness.raises(errors.InvalidPartitionsError, lambda: admin.create_partitions({topic: 2}), "shrinking")


@case
def delete_records():
    topic = create("trim")
    send(topic, [payload(n) for n in range(100)])
    place = TopicPartition(topic, 0)
    with Admin() as admin:
        found = admin.delete_records({place: 40})
        equal(found[place]["low_watermark"], 40, "low watermark")
        client = consumer()
        equal(client.beginning_offsets([place]), {place: 40}, "beginning")
        equal(client.end_offsets([place]), {place: 100}, "end")
        client.close()
        equal(read(topic, 60, 40)[0].value, payload(40), "first record left")


@case
def delete_and_recreate_topic():
    topic = create("gone")
    send(topic, [b"old"])
    with Admin() as admin:
        admin.delete_topics([topic])
        wait_until(lambda: topic not in admin.list_topics(), "the topic is gone")
        harness.raises(errors.UnknownTopicOrPartitionError, lambda: admin.delete_topics([topic]), "twice")
        admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}})
        await_leaders(admin, topic, 1)
    equal(send(topic, [b"new"])[0].offset, 0, "first offset of the new topic")
    equal(values_of(read(topic, 1)), [b"new"], "content of the new topic")


@case
def list_offsets():
    topic = create("offsets")
    base = 1_700_000_000_000
    client = producer()
    for n in range(10):
        send(topic, [payload(n)], client=client, timestamp_ms=base + n * 1000)
    client.close()
    place = TopicPartition(topic, 0)
    with Admin() as admin:
        for spec, wanted in [
            (OffsetSpec.EARLIEST, 0), (OffsetSpec.LATEST, 10), (OffsetSpec.MAX_TIMESTAMP, 9), (base + 4500, 5),
        ]:
            equal(admin.list_partition_offsets({place: spec})[place].offset, wanted, f"offset for {spec}")


# ---------------------------------------------------------------- produce and consume

def produce_with(codec: str | None, acks):
    def body():
        topic = create(f"codec-{codec}")
        client = producer(compression_type=codec, acks=acks, linger_ms=20, enable_idempotence=False)
        values = [payload(n, 300) for n in range(200)]
        send(topic, values, client=client)
        client.close()
        records = read(topic, 200)
        equal(values_of(records), values, "values")
        equal([record.offset for record in records], list(range(200)), "offsets")

    return body


for _codec in [None, "gzip", "snappy", "lz4", "zstd"]:
    for _acks in [0, 1, "all"]:
        harness.add(f"produce-{_codec or 'none'}-acks-{_acks}", produce_with(_codec, _acks))


@case
def produce_idempotent():
    topic = create("idempotent", 2)
    client = producer(enable_idempotence=True, linger_ms=1)
    values = [payload(n) for n in range(1000)]
    futures = [client.send(topic, value, partition=n % 2) for n, value in enumerate(values)]
    client.flush(30)
    for future in futures:
        future.get(10)
    client.close()
    for partition in [0, 1]:
        equal(values_of(read(topic, 500, partition=partition)), values[partition::2], "values")


@case
def round_trip():
    topic = create("round-trip")
    sent = [
        (b"key", b"value", [("a", b"1"), ("a", b"2"), ("empty", b"")], 1_700_000_000_123),
        (None, b"no key", [], 1_700_000_000_124),
        (b"null value", None, [], 1_700_000_000_125),
        (b"", b"", [("ключ", "Влтава".encode())], 1_700_000_000_126),
        (bytes(range(256)), bytes(range(255, -1, -1)), [], 1_700_000_000_127),
    ]
    client = producer()
    for key, value, headers, timestamp in sent:
        client.send(topic, value, key=key, headers=headers, partition=0, timestamp_ms=timestamp)
    client.flush(30)
    client.close()
    found = [(r.key, r.value, [tuple(h) for h in r.headers], r.timestamp) for r in read(topic, len(sent))]
    equal(found, sent, "records")


@case
def large_record():
    topic = create("large")
    values = [payload(n, 950_000) for n in range(3)]
    send(topic, values)
    equal(values_of(read(topic, 3)), values, "values")


@case
def too_large_record():
    topic = create("too-large", 1, {"max.message.bytes": "50000"})
    client = producer()
    future = client.send(topic, payload(1, 60_000), partition=0)
    harness.raises(errors.MessageSizeTooLargeError, lambda: future.get(30), "the broker's refusal")
    client.close()
    send(topic, [b"small"])
    equal(values_of(read(topic, 1)), [b"small"], "the record after the refused one")


@case
def auto_create():
    topic = unique("auto")
    client = producer()
    equal(client.send(topic, b"first").get(30).offset, 0, "first offset")
    client.close()
    equal(values_of(read(topic, 1)), [b"first"], "the record")


@case
def consume_from_offset():
    topic = create("from-offset")
    values = [payload(n) for n in range(500)]
    client = producer(linger_ms=100, compression_type="lz4")
    send(topic, values, client=client)
    client.close()
    for offset in [0, 1, 137, 498, 499]:
        records = read(topic, 500 - offset, offset)
        equal(records[0].offset, offset, "first offset")
        equal(values_of(records), values[offset:], f"values from {offset}")


@case
def consume_by_timestamp():
    topic = create("by-time")
    base = 1_700_000_000_000
    client = producer(linger_ms=200, compression_type="zstd")
    for n in range(100):
        client.send(topic, payload(n), partition=0, timestamp_ms=base + n * 10)
    client.flush(30)
    client.close()
    place = TopicPartition(topic, 0)
    reader = consumer()
    for time_ms, wanted in [(0, 0), (base, 0), (base + 505, 51), (base + 990, 99)]:
        found = reader.offsets_for_times({place: time_ms})[place]
        equal((found.offset, found.timestamp), (wanted, base + wanted * 10), f"found for +{time_ms - base}")
    equal(reader.offsets_for_times({place: base + 991})[place], None, "nothing after the last")
    reader.close()


def reset_to(policy: str):
    def body():
        topic = create(f"reset-{policy}")
        send(topic, [b"before"])
        place = TopicPartition(topic, 0)
        client = consumer(group_id=unique("reset"), auto_offset_reset=policy)
        client.assign([place])
        if policy == "none":
            harness.raises(errors.NoOffsetForPartitionError, lambda: take(client, 1), "no offset")
        elif policy == "latest":
            equal(client.position(place), 1, "position")
            send(topic, [b"after"])
            equal(values_of(take(client, 1)), [b"after"], "first record")
        else:
            equal(values_of(take(client, 1)), [b"before"], "first record")
        client.close()

    return body


for _policy in ["earliest", "latest", "none"]:
    harness.add(f"offset-reset-{_policy}", reset_to(_policy))


@case
def concurrent_order():
    topic = create("concurrent", 4)
    count = 500

    def produce(who: int):
        client = producer(linger_ms=1)
        for n in range(count):
            client.send(topic, f"{who}:{n}".encode(), partition=n % 4)
        client.close()

    threads = [threading.Thread(target=produce, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    client = consumer()
    client.assign([TopicPartition(topic, p) for p in range(4)])
    client.seek_to_beginning()
    records = take(client, 3 * count, 60)
    client.close()
    for thread in threads:
        thread.join()
    last: dict = {}
    for record in records:
        who, n = map(int, record.value.split(b":"))
        place = (record.partition, who)
        check(n > last.get(place, -1), f"producer {who}, partition {record.partition}: {n} after {last.get(place)}")
        last[place] = n


# ---------------------------------------------------------------- groups

@role
def member(group: str, topic: str, strategy: str, instance: str = ""):
    """A member that tells its partitions whenever they change; SIGTERM makes it leave."""
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    client = consumer(group_id=group, group_instance_id=instance or None,
                      partition_assignment_strategy=[ASSIGNORS[strategy]])

    class Listener(ConsumerRebalanceListener):
        owned: set = set()

        def tell(self):
            print(harness.assigned(self.owned), flush=True)

        def on_partitions_assigned(self, assigned):
            self.owned |= {p.partition for p in assigned}
            self.tell()

        def on_partitions_revoked(self, revoked):
            self.owned -= {p.partition for p in revoked}
            self.tell()

    client.subscribe([topic], listener=Listener())
    while not leaving.is_set():
        for records in client.poll(100).values():
            for record in records:
                print(f"got {record.partition} {record.offset}", flush=True)
    client.close()


def spawn(group: str, topic: str, strategy: str = "range", instance: str = "") -> Child:
    return Child("member", group, topic, strategy, *([instance] if instance else []))


def owns(child: Child, count: int, what: str) -> set[int]:
    """Waits until the child owns that many partitions."""
    line = child.wait_line(lambda l: l.startswith("assigned") and len(harness.partitions_of(l)) == count, what)
    return harness.partitions_of(line)


@case
def group_of_one():
    topic = create("one", 3)
    group = unique("one")
    for partition in range(3):
        send(topic, [payload(partition)], partition=partition)
    client = consumer(topic, group_id=group)
    equal({r.partition for r in take(client, 3)}, {0, 1, 2}, "partitions read")
    client.commit()
    client.close()
    client = consumer(topic, group_id=group)
    send(topic, [b"later"], partition=1)
    equal(values_of(take(client, 1)), [b"later"], "only what follows the commit")
    client.close()


def join_leave(strategy: str):
    def body():
        topic = create("join", 4)
        group = unique("join")
        with spawn(group, topic, strategy) as first:
            owns(first, 4, "the only member owns all")
            with spawn(group, topic, strategy) as second:
                both = owns(second, 2, "the second member's half"), owns(first, 2, "the first member's half")
                equal(both[0] | both[1], {0, 1, 2, 3}, "together they own all")
                second.end()
            owns(first, 4, "all again after the second left")

    return body


for _strategy in ASSIGNORS:
    harness.add(f"group-join-and-leave-{_strategy}", join_leave(_strategy))


@case
def group_member_dies():
    topic = create("die", 4)
    group = unique("die")
    with spawn(group, topic) as first, spawn(group, topic) as second:
        owns(first, 2, "the first member's half")
        owns(second, 2, "the second member's half")
        second.kill()
        owns(first, 4, "the rest takes over")
        send(topic, [b"x"], partition=3)
        first.wait_line(lambda l: l == "got 3 0", "a record of a partition taken over")


@case
def group_static_member_returns():
    topic = create("static", 2)
    group = unique("static")
    with spawn(group, topic, instance="a") as first:
        owns(first, 2, "all")
        with spawn(group, topic, instance="b") as second:
            mine, other = owns(first, 1, "the first half"), owns(second, 1, "the second half")
            check(mine != other, "the halves differ")
            second.kill()
            with spawn(group, topic, instance="b") as returned:
                equal(owns(returned, 1, "its old partition"), other, "partition of the returned member")
                send(topic, [b"x"], partition=min(mine))
                line = first.wait_line(lambda l: l.startswith(("got", "assigned")), "the record")
                equal(line, f"got {min(mine)} 0", "what the untouched member saw")


@case
def commits():
    topic = create("commits", 2)
    group = unique("commits")
    send(topic, [payload(n) for n in range(10)])
    place, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    client = consumer(group_id=group)
    client.assign([place])
    take(client, 10)
    client.commit({place: OffsetAndMetadata(4, "kept: žluť", -1)})
    found = client.committed(place, metadata=True)
    equal((found.offset, found.metadata), (4, "kept: žluť"), "committed with metadata")
    equal(client.committed(other), None, "nothing committed for the other partition")
    done = threading.Event()
    client.commit_async({place: OffsetAndMetadata(7, "", -1)}, callback=lambda *_: done.set())
    wait_until(lambda: client.poll(50) is not None and done.is_set(), "the asynchronous commit")
    equal(client.committed(place), 7, "committed")
    client.close()


@case
def admin_groups():
    topic = create("admin-groups", 2)
    group = unique("admin-groups")
    place = TopicPartition(topic, 0)
    send(topic, [payload(n) for n in range(10)])
    reader = consumer(topic, group_id=group)
    take(reader, 10)
    reader.commit()
    with Admin() as admin:
        check(group in str(admin.list_groups(states_filter=["Stable"])), "listed as stable")
        check(group not in str(admin.list_groups(states_filter=["Empty"])), "not listed as empty")
        described = admin.describe_groups([group])[group]
        equal(described["group_state"], "Stable", "state")
        equal(described["protocol_data"], "range", "assignor")
        error = admin.alter_group_offsets(group, {place: OffsetAndMetadata(3, "", -1)})[place]
        equal(error, errors.UnknownMemberIdError, "altering the offsets of a live group")
        check("NonEmptyGroup" in str(admin.delete_groups([group])), "deleting a live group")
        reader.close()
        wait_until(lambda: admin.describe_groups([group])[group]["group_state"] == "Empty", "an empty group")
        equal(admin.list_group_offsets([group])[group][place].offset, 10, "offsets of the group")
        equal(admin.alter_group_offsets(group, {place: OffsetAndMetadata(3, "m", -1)})[place], errors.NoError, "alter")
        found = admin.list_group_offsets({group: [place]})[group][place]
        equal((found.offset, found.metadata), (3, "m"), "altered offsets")
        admin.reset_group_offsets(group, {place: OffsetSpec.LATEST})
        equal(admin.list_group_offsets([group])[group][place].offset, 10, "offsets reset to the latest")
        admin.delete_group_offsets(group, [place])
        check(place not in admin.list_group_offsets([group])[group], "deleted offsets")
        equal(admin.alter_group_offsets(group, {place: OffsetAndMetadata(1, "", -1)})[place], errors.NoError, "again")
        check("OK" in str(admin.delete_groups([group])), "deleting the group")
        check("GroupIdNotFound" in str(admin.delete_groups([group])), "deleting it twice")


# ---------------------------------------------------------------- alone: restarts and times

@case(exclusive=True)
def long_poll_latency():
    topic = create("latency")
    place = TopicPartition(topic, 0)
    client = consumer(fetch_max_wait_ms=5000)
    client.assign([place])
    sender = producer()
    send(topic, [b"warm"], client=sender)
    take(client, 1)
    times = []
    for n in range(20):
        started = time.monotonic()
        send(topic, [payload(n)], client=sender)
        take(client, 1)
        times.append(time.monotonic() - started)
    client.close()
    sender.close()
    check(sorted(times)[10] < 0.25, f"a waiting fetch is answered late: median {sorted(times)[10]:.3f} s")


@case(exclusive=True)
def commits_survive_kill():
    topic = create("survive")
    group = unique("survive")
    place = TopicPartition(topic, 0)
    values = [payload(n) for n in range(100)]
    send(topic, values)
    client = consumer(topic, group_id=group)
    take(client, 60)
    client.commit({place: OffsetAndMetadata(60, "before", -1)})
    client.close()
    harness.restart("KILL")
    client = consumer(topic, group_id=group)
    found = client.committed(place, metadata=True)
    equal((found.offset, found.metadata), (60, "before"), "committed after kill -9")
    equal(values_of(take(client, 40, 60)), values[60:], "the rest")
    client.close()


@case(exclusive=True)
def idempotent_produce_over_kill():
    topic = create("in-flight")
    client = producer(enable_idempotence=True, linger_ms=2)
    values = [payload(n) for n in range(3000)]
    futures: list = []
    half_sent, restarted = threading.Event(), threading.Event()

    def produce():
        for n, value in enumerate(values):
            futures.append(client.send(topic, value, partition=0))
            if n == 1500:
                half_sent.set()
            if n > 1500 and not restarted.is_set():
                time.sleep(0.002)

    thread = threading.Thread(target=produce)
    thread.start()
    half_sent.wait(30)
    futures[1000].get(30)
    harness.restart("KILL")
    restarted.set()
    thread.join()
    client.flush(60)
    equal([future.get(1).offset for future in futures], list(range(len(values))), "offsets")
    client.close()
    equal(values_of(read(topic, len(values))), values, "each once and in order")


@case(exclusive=True)
def group_lives_over_clean_restart():
    topic = create("restart", 2)
    group = unique("restart")
    with spawn(group, topic) as first:
        owns(first, 2, "all")
        send(topic, [b"before"])
        first.wait_line(lambda l: l == "got 0 0", "the record before")
        harness.restart("TERM")
        send(topic, [b"after"])
        first.wait_line(lambda l: l == "got 0 1", "the record after")


if __name__ == "__main__":
    harness.main()
