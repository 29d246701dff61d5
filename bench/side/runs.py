"""What one run of a row does on one side. Each begins with a fresh broker and answers figures by name."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable

from driver.broker import Broker

from . import machine, peers, yardstick
from .brokers import Sides, Watched, run_json

# What one run on one side gives: figures by name.
Run = Callable[[Sides, str, int], dict[str, float]]

PAGE_CACHE = {"vltava": {"vltava.durability": "page-cache"}, "kafka": {}, "yardstick": {}}
# Ours as it comes, which is durable, against Kafka's as it comes, which is not.
DEFAULTS = {"vltava": {}, "kafka": {}}
# Both durable before they answer.
FSYNC = {"vltava": {}, "kafka": {"log.flush.interval.messages": "1"},
         "nats": {"sync_interval": "always"}, "redis": {"appendfsync": "always"}}
# Redis and NATS flush in the background; for Redis every second.
BACKGROUND = {"vltava": PAGE_CACHE["vltava"], "nats": {}, "redis": {"appendfsync": "everysec"}}

TOPIC = "vltava-bench"
# A topic with so many partitions is made beforehand, since that takes its time.
MANY_PARTITIONS = 100
# Kafka's controller refuses about twice as many in one request.
PARTITIONS_AT_ONCE = 5_000
WARM_UP_S = 5
# Until thousands of new files were synced for the first time, with their names: no part of the steady state.
FIRST_RECORDS_S = 10
# Bytes of a record where volume is what matters.
LARGE_RECORD_BYTES = 16 << 10
# Records a second of that size while a topic is filled, about 200 MB/s.
FILL_RATE = 12_000


def load(settings: dict[str, dict[str, str]], words: str, partitions: int = 4) -> Run:
    """A run of `vltava bench` and what the broker took meanwhile. `{seconds}` stands for the length of the load."""

    def run(sides: Sides, side: str, seconds: int) -> dict[str, float]:
        return loaded(sides, side, settings[side], words, sides.partitions(partitions), seconds)

    return run


def own_partitions(words: str) -> Run:
    """Vltava as it comes, with the number of partitions that begins the name of the side."""

    def run(sides: Sides, side: str, seconds: int) -> dict[str, float]:
        partitions = sides.partitions(int(side.split()[0].replace(",", "")))
        return loaded(sides, "vltava", {}, words, partitions, seconds, FIRST_RECORDS_S)

    return run


def loaded(
    sides: Sides, kind: str, settings: dict[str, str], words: str, partitions: int, seconds: int,
    warm_up: int = WARM_UP_S,
) -> dict[str, float]:
    """One broker under the load, after the same load for some seconds: a JVM that is cold is not what people run."""
    with sides.running(kind, settings) as watched:
        if partitions >= MANY_PARTITIONS:
            create_topic(sides, watched.broker, TOPIC, partitions)

        def work(length: int) -> dict:
            line = f"bench {words} -p {partitions}".format(seconds=length)
            return sides.tool(watched.broker, *line.split())

        work(min(warm_up, seconds))
        seen, burden = watched.during(lambda: work(seconds))
        return flatten(seen) | burden | {
            "cpu_per_million": burden["broker_cpu_s"] / seen["records"] * 1e6,
            "peak_mb": watched.peak_mb(),
        }


def create_topic(
    sides: Sides, broker: Broker, topic: str, partitions: int, *configs: str, copies: int = 1,
) -> None:
    """Makes a topic; with many partitions it may take minutes."""
    words = [word for config in configs for word in ("-c", config)]
    if copies > 1:
        words += ["--replicas", str(copies)]
    made = min(partitions, PARTITIONS_AT_ONCE)
    sides.tool(broker, "topic", "create", "--timeout", "300", "-p", str(made), *words, topic)
    while made < partitions:
        made = min(partitions, made + PARTITIONS_AT_ONCE)
        sides.tool(broker, "topic", "alter", "--timeout", "300", "-p", str(made), topic)


def fill(sides: Sides, broker: Broker, topic: str, total_bytes: int, rate_max: float = FILL_RATE) -> None:
    """Produces so many bytes in large records, at a rate that brokers bear."""
    seconds = max(1, round(total_bytes / LARGE_RECORD_BYTES / rate_max))
    rate = total_bytes / LARGE_RECORD_BYTES / seconds
    sides.tool(broker, *(
        f"bench produce --topic {topic} --keep --producers 2 -s {LARGE_RECORD_BYTES} --rate {rate:.3f} "
        f"--linger-ms 5 --warm-up 0 --timeout 300 --for {seconds}").split())


def flatten(seen: dict) -> dict[str, float]:
    """The numbers of a result, those within objects under joined names."""
    flat = {}
    for key, value in seen.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": number for inner, number in value.items()}
        else:
            flat[key] = value
    return flat


def first_record_s(sides: Sides, broker: Broker, began: float, more: str = "") -> float:
    """From then to the acknowledgement of one record that is produced as soon as that is possible, seconds.

    `more` are words for the topic, if it is to be made.
    """
    seen = sides.tool(broker, *(
        f"bench produce --topic {TOPIC} --keep {more} --for 1 --warm-up 0 --rate 1 --timeout 300").split())
    acked_s = seen["ack_latency_ms"]["max"] / 1000
    # The load lasts a second at least; its one record is due as it begins, after a head start of 0.2 s.
    return time.monotonic() - began - max(1.0, acked_s) + acked_s - 0.2


def start(sides: Sides, side: str, _: int) -> dict[str, float]:
    """From the command on an empty directory to the first acknowledged record, and memory when idle."""
    broker = sides.fresh(side, {})
    began = time.monotonic()
    try:
        broker.start()
        took = first_record_s(sides, broker, began)
        time.sleep(5)
        return {"first_record_s": took, "idle_mb": Watched(broker).resident_mb()}
    finally:
        broker.stop()
        broker.remove()


def restart(partitions: int, total_bytes: int) -> Run:
    """From the command after kill -9 to the first acknowledged record."""

    def run(sides: Sides, side: str, _: int) -> dict[str, float]:
        with sides.running(side, PAGE_CACHE[side]) as watched:
            broker = watched.broker
            create_topic(sides, broker, TOPIC, sides.partitions(partitions))
            fill(sides, broker, TOPIC, sides.bytes(total_bytes))
            broker.stop(signal.SIGKILL)
            began = time.monotonic()
            broker.start()
            took = first_record_s(sides, broker, began)
            return {"first_record_s": took, "resident_mb": watched.resident_mb()}

    return run


def catch_up(consumers: int) -> Run:
    """Reading 2 GB that were just written."""

    def run(sides: Sides, side: str, _: int) -> dict[str, float]:
        with sides.running(side, PAGE_CACHE[side]) as watched:
            written_bytes = sides.bytes(2_048_000_000)
            rate = written_bytes / 1024 / 20
            sides.tool(watched.broker, *f"bench produce --keep -p 4 --rate {rate:.3f} --for 20 --warm-up 0".split())
            words = f"bench consume {TOPIC} --consumers {consumers}".split()
            seen, burden = watched.during(lambda: sides.tool(watched.broker, *words))
            return flatten(seen) | burden | {"cpu_per_gb": burden["broker_cpu_s"] / seen["bytes"] * 1e9}

    return run


def cold_beside_tail(sides: Sides, side: str, seconds: int) -> dict[str, float]:
    """Reading 2 GB off the disk again and again while others write and read the tail of another topic."""
    with sides.running(side, PAGE_CACHE[side]) as watched:
        broker = watched.broker
        create_topic(sides, broker, "cold", 4)
        fill(sides, broker, "cold", sides.bytes(2 << 30))
        subprocess.run(["sync"], check=True)
        words = f"bench latency --topic tail -p 4 --rate 10000 --for {seconds}".split()
        tail = subprocess.Popen(sides.command(broker, *words), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            read_bytes, read_s = 0, 0.0
            time.sleep(1)
            # At least once, and again while that ends before the tail does.
            ends = time.monotonic() + seconds
            while read_bytes == 0 or time.monotonic() + read_s / 2 < ends:
                machine.drop_page_cache()
                seen = sides.tool(broker, "bench", "consume", "cold")
                read_bytes, read_s = read_bytes + seen["bytes"], read_s + seen["seconds"]
            output, said = tail.communicate(timeout=120)
        finally:
            tail.kill()
            tail.wait()
        if tail.returncode != 0:
            raise RuntimeError(f"the tail: {said.decode(errors='replace').strip()}")
        return flatten(json.loads(output)) | {"cold_bytes_per_second": read_bytes / read_s}


def raw_produce(sides: Sides, side: str, _: int) -> dict[str, float]:
    """2 GiB in batches of 64 KiB that were encoded once, over 4 connections with 5 in flight on each."""
    with sides.running(side, PAGE_CACHE[side]) as watched:
        return raw(sides, watched, "produce", 4, 5, 64 << 10, sides.bytes(2 << 30))


def raw_fetch(sides: Sides, side: str, _: int) -> dict[str, float]:
    """1 GiB read again and again in answers of 1 MiB over 4 connections, 16 GiB in all."""
    with sides.running(side, PAGE_CACHE[side]) as watched:
        raw(sides, watched, "produce", 4, 5, 64 << 10, sides.bytes(1 << 30))
        return raw(sides, watched, "fetch", 4, 1 << 20, sides.bytes(16 << 30))


def raw(sides: Sides, watched: Watched, verb: str, *numbers: int) -> dict[str, float]:
    """One load of the yardstick's client."""
    broker = watched.broker
    if broker.kind != "yardstick" and verb == "produce":
        create_topic(sides, broker, "yardstick", 4)
    command = [str(yardstick.build(sides.target)), verb, broker.bootstrap, *map(str, numbers)]
    seen, burden = watched.during(lambda: run_json(command))
    return seen | burden | {"cpu_per_gb": burden["broker_cpu_s"] / seen["bytes"] * 1e9}


def one_in_flight(producers: int, settings: dict[str, dict[str, str]]) -> Run:
    """Producers that wait for each record, each side driven by its own load generator."""

    def run(sides: Sides, side: str, seconds: int) -> dict[str, float]:
        if side == "vltava":
            words = f"produce --producers {producers} --one-at-a-time --for {{seconds}}"
            return loaded(sides, side, settings[side], words, 1, seconds)
        with sides.running(side, settings[side]) as watched:
            seen, burden = watched.during(peers.for_seconds(watched.broker.publish, producers, seconds))
            return seen | burden | {"cpu_per_million": burden["broker_cpu_s"] / seen["records"] * 1e6}

    return run
