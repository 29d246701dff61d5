"""The rows of the table. Each is run by turns on its two sides."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator

from . import clusters, runs
from .brokers import Sides
from .runs import DEFAULTS, FSYNC, PAGE_CACHE, Run, load


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number of a run, with the ratio it must reach."""

    key: str
    label: str
    bar: float | None = None
    more_is_better: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table."""

    name: str
    what: str
    run: Run
    figures: tuple[Figure, ...]
    # Ratios are the first side's figure / the second's.
    sides: tuple[str, str] = ("vltava", "kafka")
    # What one alternation takes about, both sides together, when loads last ten seconds.
    takes_s: int = 55
    # Run without being asked for: rows with bars are.
    by_default: bool = True

    def new_result(self) -> dict[str, dict[str, list[float]]]:
        """Nothing measured yet, for each side."""
        return {side: defaultdict(list) for side in self.sides}

    def alternate(self, result: dict, sides: Sides, alternations: int, seconds: int) -> Iterator[tuple[int, str]]:
        """Runs both sides by turns; every other time the second begins. Tells of each run that it is in the result."""
        for turn in range(alternations):
            for side in self.sides if turn % 2 == 0 else reversed(self.sides):
                for key, value in self.run(sides, side, seconds).items():
                    result[side][key].append(value)
                yield turn + 1, side


RATE = Figure("records_per_second", "records/s", None, True)
CPU = Figure("broker_cpu_s", "broker CPU, s")
CPU_PER_MILLION = Figure("cpu_per_million", "broker CPU s per million")
CPU_PER_GB = Figure("cpu_per_gb", "broker CPU s per GB")
BYTES = Figure("bytes_per_second", "bytes/s", None, True)
P50 = Figure("end_to_end_latency_ms.p50", "end to end p50, ms")
P99 = Figure("end_to_end_latency_ms.p99", "end to end p99, ms")
P999 = Figure("end_to_end_latency_ms.p99.9", "end to end p99.9, ms")
ACK_P50 = Figure("ack_latency_ms.p50", "acknowledged p50, ms")
ACK_P99 = Figure("ack_latency_ms.p99", "acknowledged p99, ms")
ACK_P999 = Figure("ack_latency_ms.p99.9", "acknowledged p99.9, ms")
PEAK = Figure("peak_mb", "peak memory, MB")


def at(bar: float, figure: Figure) -> Figure:
    """The figure with a bar."""
    return dataclasses.replace(figure, bar=bar)


SATURATION = "produce --producers 2 --linger-ms 5 --for {seconds}"
END_TO_END = (P50, P99, P999, CPU)
SATURATED = (RATE, ACK_P50, ACK_P99, ACK_P999, CPU_PER_MILLION, PEAK)
OWN = ("10,000 partitions", "10 partitions")

WITH_BARS = (
    Row("start", "an empty directory to the first acknowledged record", runs.start, (
        Figure("first_record_s", "seconds", 1 / 15), Figure("idle_mb", "idle memory, MB")), takes_s=25),
    Row("restart", "after kill -9 with 10,000 partitions and 10 GiB, until a record is acknowledged",
        runs.restart(10_000, 10 << 30), (
            Figure("first_record_s", "seconds", 1 / 15), Figure("resident_mb", "memory then, MB")), takes_s=330),
    Row("saturation, 1 KiB", "2 producers, 4 partitions, page cache", load(PAGE_CACHE, SATURATION), (
        at(1.5, RATE), ACK_P50, ACK_P99, ACK_P999, at(0.4, CPU_PER_MILLION), at(1 / 8, PEAK))),
    Row("saturation, 1 KiB, as they come", "ours with fsync, Kafka without", load(DEFAULTS, SATURATION), (
        at(1.0, RATE), ACK_P99, CPU_PER_MILLION)),
    Row("saturation, 100 B, lz4", "2 producers, 4 partitions, page cache",
        load(PAGE_CACHE, f"{SATURATION} -s 100 -z lz4"), (RATE, at(0.7, CPU_PER_MILLION))),
    Row("fixed 1,000/s, fsync", "end to end, both durable before they answer",
        load(FSYNC, "latency --rate 1000 --for {seconds}"), (P50, at(1 / 5, P99), P999)),
    Row("fixed 20,000/s", "end to end, 2 producers, no linger, page cache",
        load(PAGE_CACHE, "latency --rate 20000 --producers 2 --for {seconds}"), (
            at(1 / 3, CPU), P50, at(1 / 3, P99), at(1 / 3, P999))),
    Row("fixed 20,000/s, as they come", "ours with fsync, Kafka without",
        load(DEFAULTS, "latency --rate 20000 --producers 2 --for {seconds}"), (P50, at(1.0, P99), P999)),
    Row("fixed 100,000/s", "end to end, 2 producers, page cache",
        load(PAGE_CACHE, "latency --rate 100000 --producers 2 --for {seconds}"), (P50, at(1 / 3, P99), P999)),
    Row("one in flight, 16 producers, fsync", "each waits for its record, both durable before they answer",
        load(FSYNC, "produce --producers 16 --one-at-a-time --for {seconds}"), (at(4.0, RATE), ACK_P50, ACK_P99)),
    Row("one in flight, 64 producers, fsync", "as above",
        load(FSYNC, "produce --producers 64 --one-at-a-time --for {seconds}"), (at(5.0, RATE), ACK_P50, ACK_P99)),
    Row("catch-up, 1 consumer", "2 GB just written, page cache", runs.catch_up(1), (
        at(1.0, BYTES), at(0.8, CPU_PER_GB)), takes_s=75),
    Row("catch-up, 10 consumers", "each reads the same 2 GB, page cache", runs.catch_up(10), (
        at(1.0, BYTES), at(0.8, CPU_PER_GB)), takes_s=90),
    Row("10,000 partitions against 10", "Vltava alone, fsync, 10,000 records/s, each to the next partition",
        runs.own_partitions("produce --rate 10000 --producers 2 --round-robin --for {seconds}"), (
            at(2.0, CPU), ACK_P50, at(2.0, ACK_P99)), sides=OWN, takes_s=50),
    Row("machine, produce", "64 KiB batches over 4 connections, page cache, against the miniature broker",
        runs.raw_produce, (at(0.7, BYTES), CPU_PER_GB), sides=("vltava", "yardstick"), takes_s=15),
    Row("machine, consume", "answers of 1 MiB over 4 connections, against the miniature broker",
        runs.raw_fetch, (at(0.8, BYTES), CPU_PER_GB), sides=("vltava", "yardstick"), takes_s=25),
    Row("three brokers, start", "three copies, empty directories to the first acknowledged record", clusters.start, (
        Figure("first_record_s", "seconds"), Figure("idle_mb", "idle memory, MB")), takes_s=40),
    Row("three brokers, saturation", "2 producers, 6 partitions, three copies, page cache",
        clusters.load(PAGE_CACHE, SATURATION), (
            at(2.5, RATE), ACK_P99, at(1 / 3, CPU_PER_MILLION), at(1 / 8, PEAK)), takes_s=80),
    Row("three brokers, saturation, as they come", "ours with fsync, Kafka without", clusters.load(DEFAULTS, SATURATION), (
        at(1.5, RATE), ACK_P99, at(1 / 3, CPU_PER_MILLION), at(1 / 8, PEAK)), takes_s=80),
    Row("three brokers, 1,000/s, as they come", "end to end, ours with fsync, Kafka without",
        clusters.load(DEFAULTS, "latency --rate 1000 --for {seconds}"), (P50, at(1 / 5, P99), CPU), takes_s=80),
    Row("three brokers, 20,000/s, as they come", "end to end, 2 producers, ours with fsync, Kafka without",
        clusters.load(DEFAULTS, "latency --rate 20000 --producers 2 --for {seconds}"), (
            P50, at(1 / 5, P99), at(1 / 3, CPU)), takes_s=80),
    Row("three brokers, kill -9 of a leader", "200/s with acks=all: the longest wait for an answer", clusters.fail_over, (
        Figure("ack_latency_ms.max", "longest, ms"), ACK_P50), takes_s=130),
)


def wider() -> list[Row]:
    """Rows without bars, by what varies."""
    rows = []

    def add(name: str, what: str, run: Run, figures: tuple[Figure, ...], takes_s: int = 55, **more) -> None:
        rows.append(Row(name, what, run, figures, takes_s=takes_s, by_default=False, **more))

    add("fixed 1,000/s", "end to end, page cache", load(PAGE_CACHE, "latency --rate 1000 --for {seconds}"), END_TO_END)
    for size, label in ((100, "100 B"), (16 << 10, "16 KiB")):
        add(f"saturation, {label}", "2 producers, 4 partitions, page cache",
            load(PAGE_CACHE, f"{SATURATION} -s {size}"), SATURATED)
        add(f"saturation, {label}, as they come", "ours with fsync, Kafka without",
            load(DEFAULTS, f"{SATURATION} -s {size}"), SATURATED)
    for codec in ("lz4", "zstd"):
        add(f"saturation, 1 KiB, {codec}", "2 producers, 4 partitions, page cache",
            load(PAGE_CACHE, f"{SATURATION} -z {codec}"), SATURATED)
    add("saturation, 1 KiB, fsync", "both durable before they answer", load(FSYNC, SATURATION), SATURATED)
    add("fixed 20,000/s, linger 5 ms", "end to end, 2 producers that wait for more as Kafka's do by default, page cache",
        load(PAGE_CACHE, "latency --rate 20000 --producers 2 --linger-ms 5 --for {seconds}"), (CPU, P50, P99, P999))
    for acks, label in (("leader", "acks 1"), ("all", "acks all")):
        add(f"fixed 20,000/s, {label}", "2 producers, until acknowledged, page cache",
            load(PAGE_CACHE, f"produce --rate 20000 --producers 2 --acks {acks} --for {{seconds}}"),
            (ACK_P50, ACK_P99, ACK_P999, CPU))
    for partitions in (1, 12, 1_000, 10_000):
        add(f"partitions, {partitions:,}", "20,000/s, 2 producers, until acknowledged, page cache",
            load(PAGE_CACHE, "produce --rate 20000 --producers 2 --for {seconds}", partitions),
            (ACK_P50, ACK_P99, ACK_P999, CPU, PEAK), 55 if partitions < 10_000 else 150)
    add("partitions, 10,000, fsync", "20,000/s, 2 producers, until acknowledged, both durable before they answer",
        load(FSYNC, "produce --rate 20000 --producers 2 --for {seconds}", 10_000), (CPU, ACK_P50, ACK_P99), 150)
    for connections in (1, 10, 100, 500):
        add(f"connections, {connections}", "as many producers, 10,000/s in all, until acknowledged, page cache",
            load(PAGE_CACHE, f"produce --rate 10000 --producers {connections} --for {{seconds}}"),
            (ACK_P50, ACK_P99, ACK_P999, CPU, PEAK))
    for consumers in (1, 10, 100):
        add(f"fan-out, {consumers}", "consumers that each read all of 1,000/s, page cache",
            load(PAGE_CACHE, f"latency --rate 1000 --consumers {consumers} --for {{seconds}}"), END_TO_END,
            50 + consumers // 2)
    add("cold catch-up beside tail", "2 GB off the disk again and again, beside 10,000/s end to end, page cache",
        runs.cold_beside_tail, (Figure("cold_bytes_per_second", "cold bytes/s", None, True), P50, P99, P999), 80)
    for peer, label in (("nats", "NATS JetStream"), ("redis", "Redis streams")):
        for settings, durability in ((FSYNC, "fsync"), (runs.BACKGROUND, "page cache")):
            add(f"{label}, one in flight, {durability}", "16 producers, each waits; 1 partition or stream",
                runs.one_in_flight(16, settings), (RATE, ACK_P50, ACK_P99, CPU_PER_MILLION), 50, sides=("vltava", peer))
    return rows


ROWS = (*WITH_BARS, *wider())
