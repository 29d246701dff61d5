"""What must hold of the journals at the end. Each function returns what is wrong, in words."""

from __future__ import annotations

from itertools import pairwise

from .family import PARTITIONS, Journal

# So many findings of a kind are told, and the number of the others.
TOLD = 5


def everything(family: str, written: Journal, found: Journal) -> list[str]:
    """All checks of what one family wrote and its group saw, by what another family read back."""
    checks = [
        ("sent", sent(written)),
        ("log", log(family, written, found)),
        ("acknowledged", acknowledged(written, found)),
        ("seen", seen(written, found)),
        ("members", members(written)),
    ]
    findings = []
    for kind, wrong in checks:
        findings += [f"{family}, {kind}: {each}" for each in wrong[:TOLD]]
        if len(wrong) > TOLD:
            findings.append(f"{family}, {kind}: and {len(wrong) - TOLD} more like these")
    return findings


def sent(written: Journal) -> list[str]:
    """Every record was acknowledged: there was time enough, and no fault is one that a client may not outlive."""
    wrong = [f"{partition}/{sequence} was refused: {why}" for partition, sequence, why in written.refused]
    open_yet = (written.sent or 0) - written.acknowledged() - len(written.refused)
    if open_yet != 0:
        wrong.append(f"{open_yet} records of {written.sent} were neither acknowledged nor refused")
    if not all(written.acked[partition] for partition in range(PARTITIONS)):
        wrong.append("a partition has no acknowledged record")
    return wrong


def log(family: str, written: Journal, found: Journal) -> list[str]:
    """Each partition is without holes, and has only records that were sent to it, once and in their order."""
    wrong = []
    for partition in range(PARTITIONS):
        records = found.found[partition]
        if [offset for offset, _ in records] != list(range(found.ends.get(partition, -1))):
            wrong.append(f"partition {partition}: {len(records)} records before its end, {found.ends.get(partition)}")
        sequences = []
        for offset, value in records:
            sequence = sequence_of(family, partition, value)
            if sequence is None or sequence * PARTITIONS + partition >= (written.sent or 0):
                wrong.append(f"partition {partition}, offset {offset}: {value!r} was never sent there")
            else:
                sequences.append(sequence)
        for earlier, later in pairwise(sequences):
            if later <= earlier:
                kind = "came twice" if later in sequences[:sequences.index(earlier) + 1] else "came late"
                wrong.append(f"partition {partition}: {later} {kind}, after {earlier}")
    return wrong


def sequence_of(family: str, partition: int, value: str) -> int | None:
    """The number in a value that belongs there."""
    words = value.split(":")
    belongs = len(words) == 3 and words[:2] == [family, str(partition)] and words[2].isdecimal()
    return int(words[2]) if belongs else None


def acknowledged(written: Journal, found: Journal) -> list[str]:
    """Every acknowledged record is at its offset; where the client was not told the offset, it is somewhere."""
    wrong = []
    for partition, acked in written.acked.items():
        at = dict(found.found[partition])
        offsets = {value.rpartition(":")[2]: offset for offset, value in at.items()}
        for sequence, offset in acked.items():
            if offset >= 0 and at.get(offset, "").rpartition(":")[2] != str(sequence):
                wrong.append(f"{partition}/{sequence} was acknowledged at {offset}, where is {at.get(offset)!r};"
                             f" found at {offsets.get(str(sequence))}")
            elif str(sequence) not in offsets:
                wrong.append(f"{partition}/{sequence} was acknowledged and is not there")
    return wrong


def seen(written: Journal, found: Journal) -> list[str]:
    """The group saw every acknowledged record, and nothing that is not at its place afterwards."""
    wrong = []
    for partition, acked in written.acked.items():
        values = {value.rpartition(":")[2] for value in written.seen[partition].values()}
        wrong += [f"{partition}/{sequence} was acknowledged and never seen by the group"
                  for sequence in acked if str(sequence) not in values]
    at = {partition: dict(records) for partition, records in found.found.items()}
    for kind, member, partition, offset, value in written.group:
        there = at.get(partition, {}).get(offset)
        if kind == "saw" and there != value:
            wrong.append(f"member {member} saw {value!r} at {partition}/{offset}, where is {there!r}")
    return wrong


def members(written: Journal) -> list[str]:
    """No member was given what lies before an offset that it had committed."""
    wrong = []
    committed: dict[tuple[str, int], int] = {}
    for kind, member, partition, offset, _ in written.group:
        if kind == "committed":
            committed[member, partition] = max(offset, committed.get((member, partition), 0))
        elif offset < committed.get((member, partition), 0):
            wrong.append(f"member {member} was given {partition}/{offset} after it had committed"
                         f" {committed[member, partition]}")
    return wrong
