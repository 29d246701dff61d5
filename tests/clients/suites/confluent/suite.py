"""confluent-kafka, and so librdkafka: producer, consumer, groups and the whole AdminClient."""

import os
import signal
import subprocess
import threading
import time
import urllib.request

import compaction
import harness
from confluent_kafka import (
    OFFSET_BEGINNING, OFFSET_END, Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, IsolationLevel,
    KafkaError, KafkaException, Producer, TopicCollection, TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource, NewPartitions, NewTopic, OffsetSpec,
    ResourceType,
)
from harness import BOOTSTRAP, SESSION_MS, Child, case, check, equal, payload, role, unique, wait_until

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def admin() -> AdminClient:
    return AdminClient({"bootstrap.servers": BOOTSTRAP})


def outcome(futures: dict) -> None:
    """Waits for every future of an admin call; the first error is raised."""
    for future in futures.values():
        future.result(timeout=30)


def code_of(futures: dict):
    """The Kafka error code of an admin call that must fail."""
    error = harness.raises(KafkaException, lambda: outcome(futures), "the admin call")
    return error.args[0].code()


def create(prefix: str, partitions: int = 1, config: dict | None = None) -> str:
    """A new topic whose every partition has a leader."""
    topic = unique(prefix)
    client = admin()
    outcome(client.create_topics([NewTopic(topic, partitions, 1, config=config or {})]))
    wait_until(lambda: led_partitions(client, topic) == set(range(partitions)), f"leaders of {topic}")
    return topic


def led_partitions(client: AdminClient, topic: str) -> set[int]:
    found = client.list_topics(topic, timeout=10).topics[topic]
    return {number for number, partition in found.partitions.items() if partition.leader >= 0}


def producer(**settings) -> Producer:
    return Producer({"bootstrap.servers": BOOTSTRAP, "log_level": 2, **dotted(settings)})


def dotted(settings: dict) -> dict:
    """Keyword arguments as librdkafka spells its settings; callbacks keep their underscore."""
    return {key if key == "on_commit" else key.replace("_", "."): value for key, value in settings.items()}


def consumer(group: str | None = None, **settings) -> Consumer:
    return Consumer({
        "bootstrap.servers": BOOTSTRAP, "group.id": group or unique("group"), "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": 500,
        "log_level": 2, **dotted(settings),
    })


def send(client: Producer, topic: str, values: list, partition: int = 0, **more) -> list:
    """Produces the values in order and waits for every report; returns the delivered messages."""
    reports = []

    def note(error, message):
        reports.append((error, message))

    for value in values:
        client.produce(topic, value, partition=partition, on_delivery=note, **more)
    harness.equal(client.flush(30), 0, "messages left after flush")
    for error, _ in reports:
        check(error is None, f"delivery failed: {error}")
    return [message for _, message in reports]


def take(client: Consumer, count: int, timeout_s: float = 30) -> list:
    """The next `count` messages."""
    messages = []
    deadline = time.monotonic() + timeout_s
    while len(messages) < count:
        check(time.monotonic() < deadline, f"{len(messages)} of {count} messages within {timeout_s} s")
        for message in client.consume(count - len(messages), 0.5):
            check(message.error() is None, f"consumer error {message.error()}")
            messages.append(message)
    return messages


def read(topic: str, count: int, offset: int = OFFSET_BEGINNING, partition: int = 0) -> list:
    """`count` messages of one partition from an offset, without a group."""
    client = consumer()
    client.assign([TopicPartition(topic, partition, offset)])
    try:
        return take(client, count)
    finally:
        client.close()


# ---------------------------------------------------------------- several brokers

def bytes_out(http: str, topic: str) -> float:
    """Bytes of a topic that a node gave to consumers."""
    text = urllib.request.urlopen(f"http://{http}/metrics", timeout=10).read().decode()
    name = "kafka_server_brokertopicmetrics_bytesout_total"
    lines = [line for line in text.splitlines() if line.startswith(name + "{") and f'topic="{topic}"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@case
def reads_from_its_rack():
    """A consumer that says where it stands gets its records from the broker there, and not from the leader."""
    if harness.BROKER != "vltava":
        return
    selector = "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector"
    folder = f"{harness.SCRATCH}/{unique('racks')}"
    started = subprocess.Popen(
        [os.environ["VLTAVA"], "dev", "cluster", "--data", folder, "--set", selector],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    try:
        ports = read_ports(folder)
        bootstrap = ",".join(f"127.0.0.1:{port}" for port in ports)
        topic = unique("near")
        client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
        wait_until(lambda: len(client.list_topics(timeout=10).brokers) == 3, "three brokers", timeout_s=60)
        outcome(client.create_topics([NewTopic(topic, 1, 3)]))
        wait_until(lambda: led_partitions(client, topic) == {0}, "a leader")
        values = [payload(number, 1000) for number in range(500)]
        send(producer(bootstrap_servers=bootstrap), topic, values)
        leader = client.list_topics(topic, timeout=10).topics[topic].partitions[0].leader
        near = leader % 3 + 1
        reader = consumer(bootstrap_servers=bootstrap, client_rack=f"rack-{near}")
        reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        equal([message.value() for message in take(reader, 500)], values, "records from the rack")
        # And what comes while it waits.
        send(producer(bootstrap_servers=bootstrap), topic, values[:5])
        equal([message.value() for message in take(reader, 5)], values[:5], "records that came later")
        reader.close()
        given = {node: bytes_out(f"127.0.0.1:{ports[node - 1] + 20}", topic) for node in (1, 2, 3)}
        check(given[near] >= 500 * 1000, f"node {near} gave {given}, and {leader} leads")
        check(given[leader] < 250 * 1000, f"the leader, {leader}, gave {given}")
    finally:
        started.terminate()
        started.wait(30)


def read_ports(folder: str) -> list[int]:
    """Where the nodes of `vltava dev cluster` listen, from the files that it wrote for them."""
    def port(node: int) -> int | None:
        try:
            lines = open(f"{folder}/node-{node}/server.properties").read().splitlines()
        except FileNotFoundError:
            return None
        listeners = next(line for line in lines if line.startswith("listeners="))
        return int(listeners.replace("\\", "").split("PLAINTEXT://127.0.0.1:")[1].split(",")[0])

    wait_until(lambda: all(port(node) for node in (1, 2, 3)), "the files of three nodes")
    return [port(node) for node in (1, 2, 3)]


# ---------------------------------------------------------------- compaction: first, since it waits

def text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()


def read_through(client: Consumer) -> tuple[list, int]:
    """Reads until librdkafka tells the end of the partition; returns offsets, keys and values, and that end."""
    records = []

    def at_end() -> int | None:
        message = client.poll(0.1)
        if message is None:
            return None
        error = message.error()
        if error is not None:
            equal(error.code(), KafkaError._PARTITION_EOF, f"consumer error {error}")
            return message.offset()
        records.append((message.offset(), text(message.key()), text(message.value())))
        return None

    end = wait_until(at_end, "the end of the partition", every_s=0)
    return records, end


def read_all(topic: str) -> list:
    """Reads from the beginning to the end, one batch a fetch, so that empty ones come alone."""
    client = consumer(enable_partition_eof=True, fetch_message_max_bytes=1)
    place = TopicPartition(topic, 0, OFFSET_BEGINNING)
    client.assign([place])
    records, end = read_through(client)
    equal(end, client.get_watermark_offsets(place)[1], "the end that the consumer came to")
    client.close()
    return records


def send_batch(client: Producer, topic: str, pairs: list) -> list:
    """Produces keys and values in one batch; returns the offsets."""
    offsets = []

    def note(error, message):
        check(error is None, f"delivery failed: {error}")
        offsets.append(message.offset())

    for key, value in pairs:
        client.produce(topic, value, key, partition=0, on_delivery=note)
    equal(client.flush(30), 0, "messages left after flush")
    return offsets


@case
def compacted_topic():
    topic = create("compacted", 1, compaction.CONFIG)
    lasting = producer(enable_idempotence=True, linger_ms=50)
    send_batch(lasting, topic, compaction.first_batch())
    for codec in CODECS:
        send_batch(producer(compression_type=codec, linger_ms=50), topic, compaction.batch(codec, CODECS))
    compaction.await_roll()
    wanted, count = compaction.left(CODECS), compaction.written(CODECS)
    equal(send_batch(producer(), topic, [compaction.LAST]), [count - 1], "offset of the last record")
    wait_until(lambda: compaction.settled(read_all(topic)), "compaction", every_s=0.2)
    records = read_all(topic)
    compaction.judge(records, wanted, count)
    resume_in_gap(topic, records)

    # The producer goes on; then nothing is left at the end of the log but, at most, a tombstone.
    changes = [("key-0", "afterwards"), (compaction.LAST[0], None)]
    for offset, change in enumerate(changes, count):
        equal(send_batch(lasting, topic, [change]), [offset], "offset after compaction")
    found = {key: value for _, key, value in read_all(topic)}
    equal({key: found.get(key) for key in wanted}, {**wanted, **dict(changes)}, "the last values")


def resume_in_gap(topic: str, records: list) -> None:
    """A group that committed where there is nothing any more."""
    group = unique("compacted")
    committed_at, following = compaction.gap(records)
    client = consumer(group)
    client.commit(offsets=[TopicPartition(topic, 0, committed_at)], asynchronous=False)
    client.close()
    client = consumer(group, enable_partition_eof=True)
    client.subscribe([topic])
    rest, _ = read_through(client)
    client.close()
    wanted = [record for record in compaction.live(records) if record[0] >= following]
    equal(compaction.live(rest), wanted, f"records after {committed_at}")


@case
def no_key_for_a_compacted_topic():
    topic = create("keyless", 1, compaction.CONFIG)
    client = producer()
    errors = []
    client.produce(topic, "no key", partition=0, on_delivery=lambda error, _: errors.append(error.code()))
    equal(client.flush(30), 0, "messages left after flush")
    equal(errors, [KafkaError.INVALID_RECORD], "a record without a key")
    equal(send_batch(client, topic, [("key", "value")]), [0], "offset of the record after the refused one")


# ---------------------------------------------------------------- topics and configs

@case
def create_list_describe_topic():
    client = admin()
    topic = create("topics", 3, {"retention.ms": "123456", "max.message.bytes": "2000000"})
    check(topic in client.list_topics(timeout=10).topics, "the topic is listed")
    described = client.describe_topics(TopicCollection([topic]))[topic].result(timeout=10)
    equal([p.id for p in described.partitions], [0, 1, 2], "partitions")
    check(str(described.topic_id) not in ("", "AAAAAAAAAAAAAAAAAAAAAA"), "the topic has an id")
    equal([[n.id for n in p.isr] for p in described.partitions],
          [[n.id for n in p.replicas] for p in described.partitions], "in-sync replicas")
    equal(code_of(client.create_topics([NewTopic(topic, 1, 1)])), KafkaError.TOPIC_ALREADY_EXISTS, "twice")
    equal(code_of(client.create_topics([NewTopic("no/such name", 1, 1)])), KafkaError.TOPIC_EXCEPTION, "bad name")
    equal(code_of(client.create_topics([NewTopic(unique("rf"), 1, 9)])), KafkaError.INVALID_REPLICATION_FACTOR,
          "more replicas than brokers")
    equal(code_of(client.create_topics([NewTopic(unique("bad"), 1, 1, config={"no.such": "1"})])),
          KafkaError.INVALID_CONFIG, "unknown config")


@case
def create_topic_validate_only():
    client = admin()
    topic = unique("validated")
    outcome(client.create_topics([NewTopic(topic, 2, 1)], validate_only=True))
    check(topic not in client.list_topics(timeout=10).topics, "validate-only created the topic")


@case
def describe_and_alter_configs():
    client = admin()
    topic = create("configs", 1, {"retention.ms": "100000"})
    resource = ConfigResource(ResourceType.TOPIC, topic)

    def described() -> dict:
        return client.describe_configs([resource])[resource].result(timeout=10)

    equal(described()["retention.ms"].value, "100000", "retention.ms")
    equal(described()["retention.ms"].source, ConfigSource.DYNAMIC_TOPIC_CONFIG.value, "its source")
    equal(described()["segment.bytes"].source, ConfigSource.DEFAULT_CONFIG.value, "source of a default")
    changes = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
        ConfigEntry("retention.ms", "200000", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND),
    ])
    outcome(client.incremental_alter_configs([changes]))
    wait_until(lambda: described()["retention.ms"].value == "200000", "the new retention")
    equal(set(described()["cleanup.policy"].value.split(",")), {"delete", "compact"}, "appended policy")
    back = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
        ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE),
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SUBTRACT),
    ])
    outcome(client.incremental_alter_configs([back]))
    wait_until(lambda: described()["retention.ms"].value == "604800000", "the default retention")
    equal(described()["cleanup.policy"].value, "delete", "subtracted policy")
    outcome(client.alter_configs([ConfigResource(ResourceType.TOPIC, topic, set_config={"segment.ms": "777777"})]))
    wait_until(lambda: described()["segment.ms"].value == "777777", "segment.ms by AlterConfigs")
    bad = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
        ConfigEntry("retention.ms", "soon", incremental_operation=AlterConfigOpType.SET)])
    equal(code_of(client.incremental_alter_configs([bad])), KafkaError.INVALID_CONFIG, "a value of the wrong type")


@case
def describe_broker_configs_and_cluster():
    client = admin()
    cluster = client.describe_cluster().result(timeout=10)
    check(cluster.cluster_id, "the cluster has an id")
    equal([node.port for node in cluster.nodes], [int(BOOTSTRAP.split(":")[1])], "ports of the brokers")
    check(cluster.controller.id in [node.id for node in cluster.nodes], "the controller is a broker")
    resource = ConfigResource(ResourceType.BROKER, str(cluster.nodes[0].id))
    found = client.describe_configs([resource])[resource].result(timeout=10)
    check("log.retention.hours" in found or "log.retention.ms" in found, "broker configs are described")
    equal(found["group.initial.rebalance.delay.ms"].value, "100", "a config set at start")


@case
def create_partitions():
    client = admin()
    topic = create("grow", 1)
    outcome(client.create_partitions([NewPartitions(topic, 4)]))
    wait_until(lambda: led_partitions(client, topic) == {0, 1, 2, 3}, "four partitions")
    send(producer(), topic, [b"in the last"], partition=3)
    equal(read(topic, 1, partition=3)[0].value(), b"in the last", "record of a new partition")
    equal(code_of(client.create_partitions([NewPartitions(topic, 2)])), KafkaError.INVALID_PARTITIONS, "shrinking")


@case
def delete_records():
    client = admin()
    topic = create("trim")
    send(producer(), topic, [payload(n) for n in range(100)])
    deleted = client.delete_records([TopicPartition(topic, 0, 40)])
    equal([f.result(timeout=10).low_watermark for f in deleted.values()], [40], "low watermark")
    reader = consumer()
    equal(reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=10), (40, 100), "watermarks")
    reader.close()
    first = read(topic, 60)[0]
    equal((first.offset(), first.value()), (40, payload(40)), "first record left")
    equal(code_of(client.delete_records([TopicPartition(topic, 0, 1000)])), KafkaError.OFFSET_OUT_OF_RANGE, "beyond")
    outcome(client.delete_records([TopicPartition(topic, 0, OFFSET_END)]))
    reader = consumer()
    equal(reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=10), (100, 100), "watermarks at the end")
    reader.close()


@case
def delete_and_recreate_topic():
    client = admin()
    topic = create("gone")
    send(producer(), topic, [b"old"])
    outcome(client.delete_topics([topic]))
    wait_until(lambda: topic not in client.list_topics(timeout=10).topics, "the topic is gone")
    equal(code_of(client.delete_topics([topic])), KafkaError.UNKNOWN_TOPIC_OR_PART, "deleting twice")
    outcome(client.create_topics([NewTopic(topic, 1, 1)]))
    wait_until(lambda: led_partitions(client, topic) == {0}, "leader of the new topic")
    message = send(producer(), topic, [b"new"])[0]
    equal(message.offset(), 0, "first offset of the new topic")
    equal([m.value() for m in read(topic, 1)], [b"new"], "content of the new topic")


@case
def list_offsets():
    client = admin()
    topic = create("offsets")
    base = int(time.time() * 1000) - 100_000
    for n in range(10):
        send(producer(), topic, [payload(n)], timestamp=base + n * 1000)
    place = TopicPartition(topic, 0)

    def found(spec) -> int:
        asked = client.list_offsets({place: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED)
        return asked[place].result(timeout=10).offset

    equal(found(OffsetSpec.earliest()), 0, "earliest")
    equal(found(OffsetSpec.latest()), 10, "latest")
    equal(found(OffsetSpec.max_timestamp()), 9, "offset of the greatest timestamp")
    equal(found(OffsetSpec.for_timestamp(base + 4500)), 5, "first at or after a time")
    equal(found(OffsetSpec.for_timestamp(base + 100_000_000)), -1, "after the last")


# ---------------------------------------------------------------- produce and consume

def produce_with(codec: str, acks: str):
    def body():
        topic = create(f"codec-{codec}")
        client = producer(compression_type=codec, acks=acks, linger_ms=20, enable_idempotence=False)
        values = [payload(n, 300) for n in range(200)]
        send(client, topic, values)
        messages = read(topic, 200)
        equal([m.value() for m in messages], values, "values")
        equal([m.offset() for m in messages], list(range(200)), "offsets")

    return body


for _codec in CODECS:
    for _acks in ["0", "1", "all"]:
        harness.add(f"produce-{_codec}-acks-{_acks}", produce_with(_codec, _acks))


@case
def produce_idempotent():
    topic = create("idempotent", 2)
    client = producer(enable_idempotence=True, linger_ms=1)
    values = [payload(n) for n in range(2000)]
    for n, value in enumerate(values):
        client.produce(topic, value, partition=n % 2)
        if n % 50 == 0:
            client.poll(0)
    equal(client.flush(30), 0, "messages left")
    for partition in [0, 1]:
        equal([m.value() for m in read(topic, 1000, partition=partition)], values[partition::2], "values")


@case
def round_trip():
    topic = create("round-trip")
    sent = [
        (b"key", b"value", [("a", b"1"), ("a", b"2"), ("empty", b""), ("null", None)], 1_700_000_000_123),
        (None, b"no key", [], 1_700_000_000_124),
        (b"null value", None, [], 1_700_000_000_125),
        (b"", b"", [("ключ", "Влтава".encode())], 1_700_000_000_126),
        (bytes(range(256)), bytes(range(255, -1, -1)), [], 1_700_000_000_127),
    ]
    client = producer()
    for key, value, headers, timestamp in sent:
        client.produce(topic, value, key, partition=0, headers=headers, timestamp=timestamp)
    equal(client.flush(30), 0, "messages left")
    found = [(m.key(), m.value(), m.headers() or [], m.timestamp()[1]) for m in read(topic, len(sent))]
    equal(found, sent, "records")


@case
def large_record():
    topic = create("large")
    values = [payload(n, 950_000) for n in range(3)]
    send(producer(acks="all"), topic, values)
    equal([m.value() for m in read(topic, 3)], values, "values")


@case
def too_large_record():
    topic = create("too-large", 1, {"max.message.bytes": "50000"})
    client = producer()
    reports = []
    client.produce(topic, payload(1, 60_000), partition=0, on_delivery=lambda error, _: reports.append(error))
    equal(client.flush(30), 0, "messages left")
    equal(reports[0].code(), KafkaError.MSG_SIZE_TOO_LARGE, "the broker's refusal")
    send(client, topic, [b"small"])
    equal([m.value() for m in read(topic, 1)], [b"small"], "the record after the refused one")


@case
def auto_create():
    topic = unique("auto")
    client = producer()
    message = send(client, topic, [b"first"], partition=-1)[0]
    equal((message.partition(), message.offset()), (0, 0), "place of the first record")
    equal([m.value() for m in read(topic, 1)], [b"first"], "the record")


@case
def consume_from_offset():
    topic = create("from-offset")
    values = [payload(n) for n in range(500)]
    send(producer(linger_ms=100, compression_type="lz4"), topic, values)
    for offset in [0, 1, 137, 498, 499]:
        messages = read(topic, 500 - offset, offset)
        equal(messages[0].offset(), offset, "first offset")
        equal([m.value() for m in messages], values[offset:], f"values from {offset}")
    client = consumer()
    client.assign([TopicPartition(topic, 0, 0)])
    take(client, 10)
    client.seek(TopicPartition(topic, 0, 250))
    equal(take(client, 1)[0].offset(), 250, "offset after seek")
    client.close()


@case
def consume_by_timestamp():
    topic = create("by-time")
    base = 1_700_000_000_000
    client = producer(linger_ms=200, compression_type="zstd")
    for n in range(100):
        client.produce(topic, payload(n), partition=0, timestamp=base + n * 10)
    equal(client.flush(30), 0, "messages left")
    reader = consumer()
    for time_ms, wanted in [(0, 0), (base, 0), (base + 505, 51), (base + 990, 99), (base + 991, OFFSET_END)]:
        found = reader.offsets_for_times([TopicPartition(topic, 0, time_ms)], timeout=10)
        equal(found[0].offset, wanted, f"offset for time +{time_ms - base}")
    reader.assign([TopicPartition(topic, 0, 51)])
    equal(take(reader, 1)[0].timestamp()[1], base + 510, "timestamp of the record found")
    reader.close()


def reset_to(policy: str, wanted: str):
    def body():
        topic = create(f"reset-{policy}")
        send(producer(), topic, [b"before"])
        client = consumer(auto_offset_reset=policy)
        client.assign([TopicPartition(topic, 0)])
        if policy == "error":
            message = wait_until(lambda: client.poll(0.5), "an error")
            equal(message.error().code(), KafkaError._AUTO_OFFSET_RESET, "error without any offset")
            client.close()
            return
        if policy == "latest":
            # Nothing may arrive before the position is known, else the record to come would be skipped.
            wait_until(lambda: client.poll(0.1) is None and client.position([TopicPartition(topic, 0)]),
                       "a position")
            wait_until(lambda: sees(client, topic), "a record after the reset")
        else:
            equal(take(client, 1)[0].value(), wanted.encode(), "first record")
        client.close()

    return body


def sees(client: Consumer, topic: str) -> bool:
    """Sends a record and looks whether one like it, and never an older one, comes."""
    send(producer(), topic, [b"after"])
    message = client.poll(0.5)
    if message is None:
        return False
    equal(message.value(), b"after", "first record after the reset")
    return True


for _policy, _wanted in [("earliest", "before"), ("latest", "after"), ("error", "")]:
    harness.add(f"offset-reset-{_policy}", reset_to(_policy, _wanted))


@case
def concurrent_order():
    topic = create("concurrent", 4)
    count = 1500

    def produce(who: int):
        client = producer(linger_ms=1, compression_type=CODECS[who], enable_idempotence=True)
        for n in range(count):
            client.produce(topic, f"{who}:{n}".encode(), partition=n % 4)
            if n % 100 == 0:
                client.poll(0)
        client.flush(30)

    threads = [threading.Thread(target=produce, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    client = consumer()
    client.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(4)])
    messages = take(client, 3 * count, 60)
    client.close()
    for thread in threads:
        thread.join()
    last: dict = {}
    for message in messages:
        who, n = map(int, message.value().split(b":"))
        place = (message.partition(), who)
        check(n > last.get(place, -1), f"producer {who}, partition {message.partition()}: {n} after {last.get(place)}")
        last[place] = n


# ---------------------------------------------------------------- groups

@role
def member(group: str, topic: str, strategy: str, instance: str = ""):
    """A member that tells its partitions whenever they change; SIGTERM makes it leave."""
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    owned: set[int] = set()
    extra = {"group_instance_id": instance} if instance else {}
    client = consumer(group, partition_assignment_strategy=strategy, **extra)

    def tell():
        print(harness.assigned(owned), flush=True)

    def assign(_, partitions):
        owned.update(p.partition for p in partitions)
        tell()

    def give_up(_, partitions):
        owned.difference_update(p.partition for p in partitions)
        tell()

    client.subscribe([topic], on_assign=assign, on_revoke=give_up, on_lost=give_up)
    while not leaving.is_set():
        message = client.poll(0.1)
        if message is not None and message.error() is None:
            print(f"got {message.partition()} {message.offset()}", flush=True)
    client.close()


def spawn(group: str, topic: str, strategy: str = "range", instance: str = "") -> Child:
    return Child("member", group, topic, strategy, *([instance] if instance else []))


def owns(child: Child, count: int, what: str, timeout_s: float = 30) -> set[int]:
    """Waits until the child owns that many partitions."""
    line = child.wait_line(
        lambda l: l.startswith("assigned") and len(harness.partitions_of(l)) == count, what, timeout_s)
    return harness.partitions_of(line)


@case
def group_of_one():
    topic = create("one", 3)
    group = unique("one")
    for partition in range(3):
        send(producer(), topic, [payload(partition)], partition=partition)
    client = consumer(group)
    client.subscribe([topic])
    messages = take(client, 3)
    equal({m.partition() for m in messages}, {0, 1, 2}, "partitions read")
    client.commit(asynchronous=False)
    client.close()
    client = consumer(group)
    client.subscribe([topic])
    send(producer(), topic, [b"later"], partition=1)
    equal([m.value() for m in take(client, 1)], [b"later"], "only what follows the commit")
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
            # A leaving member's partitions return at once, long before its session would end.
            started = time.monotonic()
            owns(first, 4, "all again after the second left")
            check(time.monotonic() - started < SESSION_MS / 1000 - 1, "a clean leave must not wait for the session")

    return body


for _strategy in ["range", "roundrobin", "cooperative-sticky"]:
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
        send(producer(), topic, [b"x"], partition=3)
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
            # It comes back under its name within its session: same partition, and the other never notices.
            with spawn(group, topic, instance="b") as returned:
                equal(owns(returned, 1, "its old partition"), other, "partition of the returned member")
                send(producer(), topic, [b"x"], partition=min(mine))
                line = first.wait_line(lambda l: l.startswith(("got", "assigned")), "the record")
                equal(line, f"got {min(mine)} 0", "what the untouched member saw")


@case
def commits():
    topic = create("commits", 2)
    group = unique("commits")
    send(producer(), topic, [payload(n) for n in range(10)])
    client = consumer(group)
    client.assign([TopicPartition(topic, 0, 0)])
    take(client, 10)
    client.commit(offsets=[TopicPartition(topic, 0, 4, "kept: žluť")], asynchronous=False)
    found = client.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], timeout=10)
    equal([(p.offset, p.metadata) for p in found][0], (4, "kept: žluť"), "committed with metadata")
    check(found[1].offset < 0, "nothing committed for the other partition")
    done = threading.Event()
    client.close()
    client = consumer(group, on_commit=lambda error, _: done.set() if error is None else None)
    client.assign([TopicPartition(topic, 0, 0)])
    # The message is named: without it the offset is taken when the commit is sent, after further polls.
    client.commit(message=take(client, 7)[-1], asynchronous=True)
    wait_until(lambda: client.poll(0) is None and done.is_set() or done.is_set(), "the asynchronous commit")
    equal(client.committed([TopicPartition(topic, 0)], timeout=10)[0].offset, 7, "committed")
    client.close()


@case
def admin_groups():
    client = admin()
    topic = create("admin-groups", 2)
    group = unique("admin-groups")
    send(producer(), topic, [payload(n) for n in range(10)])
    reader = consumer(group)
    reader.subscribe([topic])
    take(reader, 10)
    reader.commit(asynchronous=False)
    listed = client.list_consumer_groups(states={ConsumerGroupState.STABLE}).result(timeout=10)
    check(group in [g.group_id for g in listed.valid], "listed as stable")
    described = client.describe_consumer_groups([group])[group].result(timeout=10)
    equal(described.state, ConsumerGroupState.STABLE, "state")
    equal(described.partition_assignor, "range", "assignor")
    equal({p.partition for p in described.members[0].assignment.topic_partitions}, {0, 1}, "assignment")
    check(described.members[0].host.startswith("/127.0.0.1"), f"host {described.members[0].host}")
    equal(code_of(client.delete_consumer_groups([group])), KafkaError.NON_EMPTY_GROUP, "deleting a live group")
    reader.close()
    wait_until(
        lambda: client.describe_consumer_groups([group])[group].result(timeout=10).state == ConsumerGroupState.EMPTY,
        "an empty group")

    def offsets() -> dict:
        asked = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(timeout=10)
        return {p.partition: p.offset for p in asked.topic_partitions}

    equal(offsets().get(0), 10, "offsets of the group")
    change = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 3)])
    outcome(client.alter_consumer_group_offsets([change]))
    equal(offsets().get(0), 3, "altered offsets")
    outcome(client.delete_consumer_groups([group]))
    error = code_of(client.delete_consumer_groups([group]))
    equal(error, KafkaError.GROUP_ID_NOT_FOUND, "deleting twice")


# ---------------------------------------------------------------- alone: restarts and times

@case(exclusive=True)
def long_poll_latency():
    topic = create("latency")
    client = consumer(fetch_wait_max_ms=5000, fetch_min_bytes=1)
    client.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    sender = producer(linger_ms=0)
    send(sender, topic, [b"warm"])
    take(client, 1)
    times = []
    for n in range(20):
        started = time.monotonic()
        send(sender, topic, [payload(n)])
        take(client, 1)
        times.append(time.monotonic() - started)
    check(sorted(times)[10] < 0.25, f"a waiting fetch is answered late: median {sorted(times)[10]:.3f} s")


def committed(client: Consumer, topic: str):
    """Offset and metadata committed for partition 0, or None while the coordinator is not ready."""
    try:
        found = client.committed([TopicPartition(topic, 0)], timeout=30)[0]
    except KafkaException as error:
        if error.args[0].code() in (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS):
            return None
        raise
    return found.offset, found.metadata


@case(exclusive=True)
def commits_survive_kill():
    topic = create("survive", 2)
    group = unique("survive")
    values = [payload(n) for n in range(100)]
    send(producer(acks="all"), topic, values)
    client = consumer(group)
    client.subscribe([topic])
    take(client, 60)
    client.commit(offsets=[TopicPartition(topic, 0, 60, "before")], asynchronous=False)
    client.close()
    harness.restart("KILL")
    client = consumer(group)
    found = wait_until(lambda: committed(client, topic), "the coordinator's answer")
    equal(found, (60, "before"), "committed after kill -9")
    client.subscribe([topic])
    equal([m.value() for m in take(client, 40, 60)], values[60:], "the rest")
    client.close()


@case(exclusive=True)
def idempotent_produce_over_kill():
    topic = create("in-flight")
    client = producer(enable_idempotence=True, linger_ms=2, message_timeout_ms=60_000)
    values = [payload(n) for n in range(4000)]
    delivered = []
    restarted = threading.Event()

    def produce():
        for n, value in enumerate(values):
            client.produce(topic, value, partition=0,
                           on_delivery=lambda error, m: delivered.append(m.value()) if error is None else None)
            client.poll(0)
            # Half before the restart, the rest spread over it.
            if n > 2000 and not restarted.is_set():
                time.sleep(0.002)

    thread = threading.Thread(target=produce)
    thread.start()
    wait_until(lambda: len(delivered) > 1500, "the first deliveries")
    harness.restart("KILL")
    restarted.set()
    thread.join()
    equal(client.flush(60), 0, "messages left")
    equal(len(delivered), len(values), "delivered")
    equal([m.value() for m in read(topic, len(values))], values, "each once and in order")


@case(exclusive=True)
def group_lives_over_clean_restart():
    topic = create("restart", 2)
    group = unique("restart")
    with spawn(group, topic) as first:
        owns(first, 2, "all")
        send(producer(), topic, [b"before"])
        first.wait_line(lambda l: l == "got 0 0", "the record before")
        harness.restart("TERM")
        send(producer(), topic, [b"after"])
        first.wait_line(lambda l: l == "got 0 1", "the record after")


if __name__ == "__main__":
    harness.main()
