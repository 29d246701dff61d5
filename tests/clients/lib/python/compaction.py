"""What the Python suites share about compaction: what they write, and what must be left of it.

A case writes `first_batch()` by an idempotent producer that stays open. Others write one `batch()` per codec,
each in one request, and `LAST` more than `ROLL_MS` later, so that all before it lies in segments that
compaction may touch. The case reads until `settled()`, holds what it has read against `judge()`, and then
goes on with the first producer.

Every batch has one key of its own, so that it is cut down and built again in its codec, but for the first:
of that an empty batch stays, since it is the last one of a producer that may go on.

Records are tuples of offset, key and value, the latter two as text; `None` is a tombstone.
"""

from __future__ import annotations

import itertools
import time

from harness import check, equal, wait_until

# Small segments that are compacted at once. Tombstones may go soon after.
CONFIG = {
    "cleanup.policy": "compact", "segment.bytes": "1048576", "segment.ms": "10",
    "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "100", "delete.retention.ms": "100",
}
# Beyond `segment.ms`, by the timestamps of the records and by the clock alike.
ROLL_MS = 20

KEYS = [f"key-{number}" for number in range(5)]
# The last batch ends with tombstones for these.
DELETED = KEYS[3:]
LAST = ("last", "the record that ends the log")


def value(round_name: str, key: str) -> str:
    """A value that tells where it comes from and is worth compressing."""
    return f"{key} of {round_name} " + "abcdefghij" * 20


def first_batch() -> list[tuple]:
    """Keys and values of which nothing is left."""
    return [(key, value("first", key)) for key in KEYS]


def batch(codec: str, codecs: list[str]) -> list[tuple]:
    """Keys and values of one codec's batch."""
    deleted = DELETED if codec == codecs[-1] else []
    own = f"own-{codec}"
    return [(own, value(codec, own)), *((key, None if key in deleted else value(codec, key)) for key in KEYS)]


def left(codecs: list[str]) -> dict:
    """What is the last of every key."""
    return dict([pair for codec in codecs for pair in batch(codec, codecs)] + [LAST])


def written(codecs: list[str]) -> int:
    """How many records there are with `LAST`."""
    return len(first_batch()) + sum(len(batch(codec, codecs)) for codec in codecs) + 1


def lines(pairs: list[tuple]) -> list[str]:
    """Keys and values as command-line tools take them with `-K = -Z`."""
    return [f"{key}={value or ''}" for key, value in pairs]


def await_roll() -> None:
    """Returns once a record written now makes an open segment too old."""
    begun = time.time()
    wait_until(lambda: time.time() > begun + ROLL_MS / 1000, "the clock to move", every_s=ROLL_MS / 1000)


def settled(records: list[tuple]) -> bool:
    """Whether compaction has come to its end: no key is there twice."""
    return len({key for _, key, _ in records}) == len(records)


def judge(records: list[tuple], wanted: dict, count: int) -> None:
    """Fails the case unless this may be left, in order, of `count` records."""
    offsets = [offset for offset, _, _ in records]
    equal(offsets, sorted(set(offsets)), "offsets ascend")
    check(len(records) < count, f"{len(records)} of {count} records are left")
    equal(offsets[-1], count - 1, "offset of the last record")
    found = {key: value for _, key, value in records}
    for key, value in wanted.items():
        # A tombstone may be there still.
        equal(found.pop(key, None), value, f"the last value of {key}")
    equal(found, {}, "keys that nobody wrote")


def live(records: list[tuple]) -> list[tuple]:
    """Those that are no tombstones, which may go between two reads."""
    return [record for record in records if record[2] is not None]


def gap(records: list[tuple]) -> tuple[int, int]:
    """An offset amid some that have no record any more, and the offset of the first live one after it."""
    offsets = [offset for offset, _, _ in live(records)]
    for before, after in itertools.pairwise([-1, *offsets]):
        if after - before > 3:
            return before + 2, after
    raise AssertionError(f"no gap in {offsets}")
