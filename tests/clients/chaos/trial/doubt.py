"""Damages what a good run wrote, in one way after the other, and asks whether the checks notice."""

from __future__ import annotations

import copy
from collections.abc import Callable

from . import check, offsets
from .family import Journal


def _lost(written: Journal, found: Journal) -> None:
    records = found.found[0]
    records.pop()
    found.ends[0] -= 1


def _hole(written: Journal, found: Journal) -> None:
    found.found[0].pop(len(found.found[0]) // 2)


def _twice(written: Journal, found: Journal) -> None:
    records = found.found[0]
    records.append((len(records), records[-1][1]))
    found.ends[0] += 1


def _swapped(written: Journal, found: Journal) -> None:
    (first, one), (second, two) = found.found[0][:2]
    found.found[0][:2] = [(first, two), (second, one)]


def _foreign(written: Journal, found: Journal) -> None:
    offset, value = found.found[0][-1]
    found.found[0][-1] = (offset, value + "0000000")


def _elsewhere(written: Journal, found: Journal) -> None:
    written.acked[0][0] += 1


def _refused(written: Journal, found: Journal) -> None:
    written.refused.append((0, 0, "no reason"))


def _untold(written: Journal, found: Journal) -> None:
    written.acked[0].popitem()


def _unseen(written: Journal, found: Journal) -> None:
    written.seen[0].popitem()


def _phantom(written: Journal, found: Journal) -> None:
    kind, member, partition, offset, value = written.group[-1]
    written.group.append(("saw", member, partition, offset, value + "0"))


def _back(written: Journal, found: Journal) -> None:
    written.group += [("committed", "first", 0, 2, ""), ("saw", "first", 0, 1, written.seen[0][1])]


DAMAGES: list[Callable[[Journal, Journal], None]] = [
    _lost, _hole, _twice, _swapped, _foreign, _elsewhere, _refused, _untold, _unseen, _phantom, _back,
]
# What is answered, what was told before, and what was committed.
WRONG_COMMITS: list[tuple[dict[int, int], ...]] = [({0: 4}, {0: 5}, {}), ({0: 4}, {}, {0: 5}), ({}, {0: 5}, {})]
KINDS = len(DAMAGES) + len(WRONG_COMMITS)


def _copied(journal: Journal) -> Journal:
    """A journal of which may be changed what the damages change: what is told of partition 0, and the lists."""
    twin = copy.copy(journal)
    for name in ("acked", "seen", "found"):
        partitions = copy.copy(getattr(journal, name))
        partitions[0] = copy.copy(partitions[0])
        setattr(twin, name, partitions)
    twin.ends, twin.refused, twin.group = dict(journal.ends), list(journal.refused), list(journal.group)
    return twin


def unnoticed(family: str, written: Journal, found: Journal) -> list[str]:
    """The damages that the checks do not find."""
    missed = []
    for damage in DAMAGES:
        pair = (_copied(written), _copied(found))
        damage(*pair)
        if not check.everything(family, *pair):
            missed.append(f"the checks do not notice the damage `{damage.__name__}`")
    for answer, told, known in WRONG_COMMITS:
        if not offsets.compare("any", answer, dict(told), known):
            missed.append(f"the watch of commits does not notice {answer} after {told} and {known}")
    return missed
