"""aiokafka: asyncio, and the old, non-flexible versions of most APIs."""

import asyncio
import contextlib
import signal
import time

import compaction
import harness
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.structs import OffsetAndMetadata
from harness import BOOTSTRAP, SESSION_MS, Child, case, check, equal, payload, role, unique

ASSIGNORS = {
    "range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor, "sticky": StickyPartitionAssignor,
}


@contextlib.asynccontextmanager
async def started(client):
    """Starts an admin client, and closes it."""
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def admin():
    return started(AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP))


async def until(condition, what: str, timeout_s: float = harness.WAIT_S):
    """Asks the coroutine function until its answer is true, and returns it."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = await condition()
        if answer:
            return answer
        check(time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s")
        await asyncio.sleep(0.05)


async def raises(kind, awaitable, what: str) -> None:
    """Fails the case unless awaiting raises an error of that kind."""
    try:
        await awaitable
    except kind:
        return
    raise harness.Failure(f"{what} raised nothing")


def first_error(response) -> int:
    """The error code of the only topic of an admin answer."""
    entries = getattr(response, "topic_errors", None) or response.topic_error_codes
    return entries[0][1]


async def create(prefix: str, partitions: int = 1, configs: dict | None = None) -> str:
    """A new topic whose every partition has a leader."""
    topic = unique(prefix)
    async with admin() as client:
        answer = await client.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs or {})])
        equal(first_error(answer), 0, f"error code of creating {topic}")
        await leaders(client, topic, partitions)
    return topic


async def leaders(client, topic: str, partitions: int) -> None:
    async def led() -> bool:
        found = (await client.describe_topics([topic]))[0]["partitions"]
        return len([p for p in found if p["leader"] >= 0]) == partitions

    await until(led, f"leaders of {topic}")


def producer(**settings) -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, **settings)


def consumer(*topics: str, **settings) -> AIOKafkaConsumer:
    settings = {
        "auto_offset_reset": "earliest", "enable_auto_commit": False, "session_timeout_ms": SESSION_MS,
        "heartbeat_interval_ms": 500, **settings,
    }
    return AIOKafkaConsumer(*topics, bootstrap_servers=BOOTSTRAP, **settings)


async def send(topic: str, values: list, partition: int | None = 0, client=None, **more) -> list:
    """Produces the values in order and waits for every answer."""
    if client is None:
        async with producer() as own:
            return await send(topic, values, partition, own, **more)
    futures = [await client.send(topic, value, partition=partition, **more) for value in values]
    return [await asyncio.wait_for(future, 30) for future in futures]


async def take(client: AIOKafkaConsumer, count: int, timeout_s: float = 30) -> list:
    """The next `count` records."""
    async with asyncio.timeout(timeout_s):
        return [await client.getone() for _ in range(count)]


async def read(topic: str, count: int, offset: int = 0, partition: int = 0) -> list:
    """`count` records of one partition from an offset, without a group."""
    place = TopicPartition(topic, partition)
    async with consumer() as client:
        client.assign([place])
        client.seek(place, offset)
        return await take(client, count)


def values_of(records: list) -> list:
    return [record.value for record in records]


# ---------------------------------------------------------------- compaction: first, since it waits

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()


async def read_through(client: AIOKafkaConsumer, place: TopicPartition) -> list:
    """Polls until the position is the end; returns offsets, keys and values."""
    end = (await client.end_offsets([place]))[place]
    records: list = []

    async def at_end() -> bool:
        records.extend((await client.getmany(place, timeout_ms=100)).get(place, []))
        return await client.position(place) >= end

    await until(at_end, f"a position at the end, {end}")
    equal(await client.position(place), end, "position")
    return [(record.offset, text(record.key), text(record.value)) for record in records]


async def read_all(topic: str) -> list:
    """Reads from the beginning to the end, one batch a fetch, so that empty ones come alone."""
    place = TopicPartition(topic, 0)
    async with consumer(max_partition_fetch_bytes=1) as client:
        client.assign([place])
        await client.seek_to_beginning(place)
        return await read_through(client, place)


async def send_batch(client: AIOKafkaProducer, topic: str, pairs: list) -> list:
    """Produces keys and values in one batch; returns the offsets."""
    batch = client.create_batch()
    for key, value in pairs:
        check(batch.append(key=key.encode(), value=value and value.encode(), timestamp=None), "it has room")
    first = await (await client.send_batch(batch, topic, partition=0))
    return [first.offset + number for number in range(len(pairs))]


async def send_once(topic: str, pairs: list, codec: str = "none") -> list:
    """The same by a producer of its own."""
    async with producer(compression_type=None if codec == "none" else codec) as client:
        return await send_batch(client, topic, pairs)


@case
async def compacted_topic():
    topic = await create("compacted", 1, compaction.CONFIG)
    async with producer(enable_idempotence=True) as lasting:
        await send_batch(lasting, topic, compaction.first_batch())
        for codec in CODECS:
            await send_once(topic, compaction.batch(codec, CODECS), codec)
        await asyncio.to_thread(compaction.await_roll)
        wanted, count = compaction.left(CODECS), compaction.written(CODECS)
        equal(await send_once(topic, [compaction.LAST]), [count - 1], "offset of the last record")

        async def settled() -> bool:
            return compaction.settled(await read_all(topic))

        await until(settled, "compaction")
        records = await read_all(topic)
        compaction.judge(records, wanted, count)
        await resume_in_gap(topic, records)

        # The producer goes on; then nothing is left at the end of the log but, at most, a tombstone.
        changes = [("key-0", "afterwards"), (compaction.LAST[0], None)]
        for offset, change in enumerate(changes, count):
            equal(await send_batch(lasting, topic, [change]), [offset], "offset after compaction")

    found = {key: value for _, key, value in await read_all(topic)}
    equal({key: found.get(key) for key in wanted}, {**wanted, **dict(changes)}, "the last values")


async def resume_in_gap(topic: str, records: list) -> None:
    """A group that committed where there is nothing any more."""
    group, place = unique("compacted"), TopicPartition(topic, 0)
    committed, following = compaction.gap(records)
    async with consumer(group_id=group) as client:
        client.assign([place])
        await client.commit({place: committed})
    async with consumer(topic, group_id=group) as client:
        equal((await take(client, 1))[0].offset, following, f"first offset after {committed}")
        await read_through(client, place)


@case
async def no_key_for_a_compacted_topic():
    topic = await create("keyless", 1, compaction.CONFIG)
    async with producer() as client:
        # This client has no name for INVALID_RECORD.
        await raises(errors.UnknownError, client.send_and_wait(topic, b"no key", partition=0), "a record without a key")
    equal(await send_once(topic, [("key", "value")]), [0], "offset of the record after the refused one")


# ---------------------------------------------------------------- topics and configs

@case
async def create_list_describe_topic():
    topic = await create("topics", 3, {"retention.ms": "123456"})
    async with admin() as client:
        check(topic in await client.list_topics(), "the topic is listed")
        described = (await client.describe_topics([topic]))[0]
        equal(sorted(p["partition"] for p in described["partitions"]), [0, 1, 2], "partitions")
        twice = await client.create_topics([NewTopic(topic, 1, 1)])
        equal(first_error(twice), errors.TopicAlreadyExistsError.errno, "creating twice")
        bad = await client.create_topics([NewTopic("no/such name", 1, 1)])
        equal(first_error(bad), errors.InvalidTopicError.errno, "a bad name")
        cluster = await client.describe_cluster()
        equal([b["port"] for b in cluster["brokers"]], [int(BOOTSTRAP.split(":")[1])], "ports of the brokers")


@case
async def describe_and_alter_configs():
    topic = await create("configs", 1, {"retention.ms": "100000"})
    async with admin() as client:
        async def value(name: str) -> str:
            answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            return {entry[0]: entry[1] for entry in answers[0].resources[0][4]}[name]

        async def altered() -> bool:
            return await value("retention.ms") == "200000"

        equal(await value("retention.ms"), "100000", "retention.ms")
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "200000"})])
        await until(altered, "the altered config")


@case
async def create_partitions():
    topic = await create("grow", 1)
    async with admin() as client:
        await client.create_partitions({topic: NewPartitions(4)})
        await leaders(client, topic, 4)
    await send(topic, [b"in the last"], partition=3)
    equal(values_of(await read(topic, 1, partition=3)), [b"in the last"], "record of a new partition")


@case
async def delete_records():
    topic = await create("trim")
    await send(topic, [payload(n) for n in range(100)])
    place = TopicPartition(topic, 0)
    async with admin() as client:
        equal(await client.delete_records({place: RecordsToDelete(40)}), {place: 40}, "low watermark")
    async with consumer() as client:
        equal(await client.beginning_offsets([place]), {place: 40}, "beginning")
        equal(await client.end_offsets([place]), {place: 100}, "end")
    equal((await read(topic, 60, 40))[0].value, payload(40), "first record left")


@case
async def delete_and_recreate_topic():
    topic = await create("gone")
    await send(topic, [b"old"])
    async with admin() as client:
        async def gone() -> bool:
            return topic not in await client.list_topics()

        equal(first_error(await client.delete_topics([topic])), 0, "deleting")
        await until(gone, "the topic is gone")
        equal(first_error(await client.delete_topics([topic])), errors.UnknownTopicOrPartitionError.errno, "twice")
        equal(first_error(await client.create_topics([NewTopic(topic, 1, 1)])), 0, "creating again")
        await leaders(client, topic, 1)
    equal((await send(topic, [b"new"]))[0].offset, 0, "first offset of the new topic")
    equal(values_of(await read(topic, 1)), [b"new"], "content of the new topic")


# ---------------------------------------------------------------- produce and consume

def produce_with(codec: str | None, acks):
    async def body():
        topic = await create(f"codec-{codec}")
        values = [payload(n, 300) for n in range(200)]
        async with producer(compression_type=codec, acks=acks, linger_ms=20) as client:
            await send(topic, values, client=client)
        records = await read(topic, 200)
        equal(values_of(records), values, "values")
        equal([record.offset for record in records], list(range(200)), "offsets")

    return body


for _codec in [None, "gzip", "snappy", "lz4", "zstd"]:
    for _acks in [0, 1, "all"]:
        harness.add(f"produce-{_codec or 'none'}-acks-{_acks}", produce_with(_codec, _acks))


@case
async def produce_idempotent():
    topic = await create("idempotent", 2)
    values = [payload(n) for n in range(1000)]
    async with producer(enable_idempotence=True, linger_ms=1) as client:
        futures = [await client.send(topic, value, partition=n % 2) for n, value in enumerate(values)]
        await asyncio.gather(*futures)
    for partition in [0, 1]:
        equal(values_of(await read(topic, 500, partition=partition)), values[partition::2], "values")


@case
async def round_trip():
    topic = await create("round-trip")
    sent = [
        (b"key", b"value", [("a", b"1"), ("a", b"2"), ("empty", b""), ("null", None)], 1_700_000_000_123),
        (None, b"no key", [], 1_700_000_000_124),
        (b"null value", None, [], 1_700_000_000_125),
        (b"", b"", [("ключ", "Влтава".encode())], 1_700_000_000_126),
        (bytes(range(256)), bytes(range(255, -1, -1)), [], 1_700_000_000_127),
    ]
    async with producer() as client:
        for key, value, headers, timestamp in sent:
            await client.send_and_wait(topic, value, key, 0, timestamp, headers)
    found = [(r.key, r.value, list(r.headers), r.timestamp) for r in await read(topic, len(sent))]
    equal(found, sent, "records")


@case
async def large_record():
    topic = await create("large")
    values = [payload(n, 950_000) for n in range(3)]
    await send(topic, values)
    equal(values_of(await read(topic, 3)), values, "values")


@case
async def too_large_record():
    topic = await create("too-large", 1, {"max.message.bytes": "50000"})
    async with producer() as client:
        await raises(errors.MessageSizeTooLargeError, client.send_and_wait(topic, payload(1, 60_000), partition=0),
                     "the broker's refusal")
    await send(topic, [b"small"])
    equal(values_of(await read(topic, 1)), [b"small"], "the record after the refused one")


@case
async def auto_create():
    topic = unique("auto")
    equal((await send(topic, [b"first"], partition=None))[0].offset, 0, "first offset")
    equal(values_of(await read(topic, 1)), [b"first"], "the record")


@case
async def consume_from_offset():
    topic = await create("from-offset")
    values = [payload(n) for n in range(500)]
    async with producer(linger_ms=100, compression_type="lz4") as client:
        await send(topic, values, client=client)
    for offset in [0, 1, 137, 498, 499]:
        records = await read(topic, 500 - offset, offset)
        equal(records[0].offset, offset, "first offset")
        equal(values_of(records), values[offset:], f"values from {offset}")


@case
async def consume_by_timestamp():
    topic = await create("by-time")
    base = 1_700_000_000_000
    async with producer(linger_ms=200, compression_type="zstd") as client:
        futures = [await client.send(topic, payload(n), partition=0, timestamp_ms=base + n * 10) for n in range(100)]
        await asyncio.gather(*futures)
    place = TopicPartition(topic, 0)
    async with consumer() as client:
        for time_ms, wanted in [(0, 0), (base, 0), (base + 505, 51), (base + 990, 99)]:
            found = (await client.offsets_for_times({place: time_ms}))[place]
            equal((found.offset, found.timestamp), (wanted, base + wanted * 10), f"found for +{time_ms - base}")
        equal((await client.offsets_for_times({place: base + 991}))[place], None, "nothing after the last")


def reset_to(policy: str):
    async def body():
        topic = await create(f"reset-{policy}")
        await send(topic, [b"before"])
        place = TopicPartition(topic, 0)
        async with consumer(group_id=unique("reset"), auto_offset_reset=policy) as client:
            client.assign([place])
            if policy == "none":
                await raises(errors.NoOffsetForPartitionError, take(client, 1), "no offset")
            elif policy == "latest":
                equal(await client.position(place), 1, "position")
                await send(topic, [b"after"])
                equal(values_of(await take(client, 1)), [b"after"], "first record")
            else:
                equal(values_of(await take(client, 1)), [b"before"], "first record")

    return body


for _policy in ["earliest", "latest", "none"]:
    harness.add(f"offset-reset-{_policy}", reset_to(_policy))


@case
async def concurrent_order():
    topic = await create("concurrent", 4)
    count = 500

    async def produce(who: int):
        async with producer(linger_ms=1, enable_idempotence=True) as client:
            for n in range(count):
                await client.send(topic, f"{who}:{n}".encode(), partition=n % 4)

    async with consumer(topic) as client:
        *_, records = await asyncio.gather(*(produce(who) for who in range(3)), take(client, 3 * count, 60))
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
    asyncio.run(_member(group, topic, strategy, instance))


async def _member(group: str, topic: str, strategy: str, instance: str):
    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)

    class Listener(ConsumerRebalanceListener):
        async def on_partitions_assigned(self, assigned):
            print(harness.assigned(p.partition for p in assigned), flush=True)

        async def on_partitions_revoked(self, revoked):
            pass

    client = consumer(group_id=group, group_instance_id=instance or None,
                      partition_assignment_strategy=[ASSIGNORS[strategy]])
    client.subscribe([topic], listener=Listener())
    async with client:
        while not leaving.is_set():
            for records in (await client.getmany(timeout_ms=100)).values():
                for record in records:
                    print(f"got {record.partition} {record.offset}", flush=True)


def spawn(group: str, topic: str, strategy: str = "range", instance: str = "") -> Child:
    return Child("member", group, topic, strategy, *([instance] if instance else []))


async def owns(child: Child, count: int, what: str) -> set[int]:
    """Waits until the child owns that many partitions."""
    line = await asyncio.to_thread(
        child.wait_line, lambda l: l.startswith("assigned") and len(harness.partitions_of(l)) == count, what)
    return harness.partitions_of(line)


@case
async def group_of_one():
    topic = await create("one", 3)
    group = unique("one")
    for partition in range(3):
        await send(topic, [payload(partition)], partition=partition)
    async with consumer(topic, group_id=group) as client:
        equal({r.partition for r in await take(client, 3)}, {0, 1, 2}, "partitions read")
        await client.commit()
    async with consumer(topic, group_id=group) as client:
        await send(topic, [b"later"], partition=1)
        equal(values_of(await take(client, 1)), [b"later"], "only what follows the commit")


def join_leave(strategy: str):
    async def body():
        topic = await create("join", 4)
        group = unique("join")
        with spawn(group, topic, strategy) as first:
            await owns(first, 4, "the only member owns all")
            with spawn(group, topic, strategy) as second:
                one = await owns(second, 2, "the second member's half")
                two = await owns(first, 2, "the first member's half")
                equal(one | two, {0, 1, 2, 3}, "together they own all")
                await asyncio.to_thread(second.end)
            await owns(first, 4, "all again after the second left")

    return body


for _strategy in ASSIGNORS:
    harness.add(f"group-join-and-leave-{_strategy}", join_leave(_strategy))


@case
async def group_member_dies():
    topic = await create("die", 4)
    group = unique("die")
    with spawn(group, topic) as first, spawn(group, topic) as second:
        await owns(first, 2, "the first member's half")
        await owns(second, 2, "the second member's half")
        second.kill()
        await owns(first, 4, "the rest takes over")
        await send(topic, [b"x"], partition=3)
        await asyncio.to_thread(first.wait_line, lambda l: l == "got 3 0", "a record of a partition taken over")


@case
async def commits():
    topic = await create("commits", 2)
    group = unique("commits")
    await send(topic, [payload(n) for n in range(10)])
    place, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    async with consumer(group_id=group) as client:
        client.assign([place])
        await take(client, 10)
        await client.commit({place: OffsetAndMetadata(4, "kept: žluť")})
        equal(await client.committed(place), 4, "committed")
        equal(await client.committed(other), None, "nothing committed for the other partition")
    async with admin() as client:
        found = await client.list_consumer_group_offsets(group)
        equal(found, {place: OffsetAndMetadata(4, "kept: žluť")}, "offsets of the group")


@case
async def admin_groups():
    topic = await create("admin-groups", 2)
    group = unique("admin-groups")
    await send(topic, [payload(1)])
    async with admin() as client, consumer(topic, group_id=group) as reader:
        await take(reader, 1)
        await reader.commit()
        check(group in [entry[0] for entry in await client.list_consumer_groups()], "listed")
        described = (await client.describe_consumer_groups([group]))[0].groups[0]
        equal(described[:5], (0, group, "Stable", "consumer", "roundrobin"), "description")
        equal(await client.list_consumer_group_offsets(group, partitions=[TopicPartition(topic, 0)]),
              {TopicPartition(topic, 0): OffsetAndMetadata(1, "")}, "offsets of the group")


# ---------------------------------------------------------------- alone: restarts and times

@case(exclusive=True)
async def long_poll_latency():
    topic = await create("latency")
    async with consumer(topic, fetch_max_wait_ms=5000) as client, producer() as sender:
        await send(topic, [b"warm"], client=sender)
        await take(client, 1)
        times = []
        for n in range(20):
            start = time.monotonic()
            await send(topic, [payload(n)], client=sender)
            await take(client, 1)
            times.append(time.monotonic() - start)
    check(sorted(times)[10] < 0.25, f"a waiting fetch is answered late: median {sorted(times)[10]:.3f} s")


@case(exclusive=True)
async def commits_survive_kill():
    topic = await create("survive")
    group = unique("survive")
    place = TopicPartition(topic, 0)
    values = [payload(n) for n in range(100)]
    await send(topic, values)
    async with consumer(topic, group_id=group) as client:
        await take(client, 60)
        await client.commit({place: OffsetAndMetadata(60, "before")})
    await asyncio.to_thread(harness.restart, "KILL")
    async with consumer(topic, group_id=group) as client:
        equal(await client.committed(place), 60, "committed after kill -9")
        equal(values_of(await take(client, 40, 60)), values[60:], "the rest")


@case(exclusive=True)
async def idempotent_produce_over_kill():
    topic = await create("in-flight")
    values = [payload(n) for n in range(3000)]
    restarted = asyncio.Event()
    futures: list = []

    async def produce(client):
        for n, value in enumerate(values):
            futures.append(await client.send(topic, value, partition=0))
            if n > 1500 and not restarted.is_set():
                await asyncio.sleep(0.002)

    async def restart():
        async def some() -> bool:
            return len(futures) > 1000 and futures[1000].done()

        await until(some, "the first deliveries")
        await asyncio.to_thread(harness.restart, "KILL")
        restarted.set()

    async with producer(enable_idempotence=True, linger_ms=2) as client:
        await asyncio.gather(produce(client), restart())
        found = await asyncio.wait_for(asyncio.gather(*futures), 60)
    equal([record.offset for record in found], list(range(len(values))), "offsets")
    equal(values_of(await read(topic, len(values))), values, "each once and in order")


@case(exclusive=True)
async def group_lives_over_clean_restart():
    topic = await create("restart", 2)
    group = unique("restart")
    with spawn(group, topic) as first:
        await owns(first, 2, "all")
        await send(topic, [b"before"])
        await asyncio.to_thread(first.wait_line, lambda l: l == "got 0 0", "the record before")
        await asyncio.to_thread(harness.restart, "TERM")
        await send(topic, [b"after"])
        await asyncio.to_thread(first.wait_line, lambda l: l == "got 0 1", "the record after")


if __name__ == "__main__":
    harness.main()
