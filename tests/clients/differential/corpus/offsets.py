"""Offsets committed, fetched and deleted."""

from __future__ import annotations

from proof.connection import Session

from .groups import Group
from .helpers import STRANGE, ZERO, coordinate, create, named


def commit_and_fetch(session: Session) -> None:
    known = create(session, "committed", 3)
    for version in session.each("OffsetCommit"):
        group = f"commits-v{version}"
        coordinate(session, group)
        place = named(known if version >= 10 else "committed")

        def ask(step: str, *partitions: dict, topic: dict = place, **more) -> dict:
            topics = [{**topic, "partitions": list(partitions)}]
            return session.call(step, "OffsetCommit", version, groupId=group, topics=topics, **more)

        def at(offset: int, partition: int = 0, metadata: str | None = "m", **more) -> dict:
            return {"partitionIndex": partition, "committedOffset": offset, "committedMetadata": metadata, **more}

        ask("plain", at(5), at(7, 1, "žluť"))
        ask("null metadata", at(6, 2, None))
        ask("backwards", at(3))
        ask("negative", at(-1))
        ask("metadata too long", at(4, metadata="x" * 5000))
        ask("metadata just short enough", at(4, metadata="x" * 4096))
        ask("unknown partition", at(1, 9))
        ask("unknown topic", at(1), topic=named(STRANGE if version >= 10 else "committed-unknown"))
        ask("a member of no group", at(1), generationIdOrMemberEpoch=3, memberId="m")
        ask("a generation without member", at(1), generationIdOrMemberEpoch=3)
        session.call("no topics", "OffsetCommit", version, groupId=group, topics=[])
        ask("negative partition", at(1, -1))
        ask("no partitions")
        ask("same partition twice", at(11, 1), at(12, 1))
        ask("known and unknown partitions", at(9), at(9, 9), at(9, -1))
        ask("a member id without generation", at(1), memberId="m")
        ask("a generation of zero", at(1), generationIdOrMemberEpoch=0)
        ask("offset beyond the end", at(2**62))
        ask("least negative", at(-(2**63)))
        session.call("same topic twice", "OffsetCommit", version, groupId=group, topics=[
            {**place, "partitions": [at(13, n)]} for n in (1, 2)])
        session.call("known and unknown topics", "OffsetCommit", version, groupId=group, topics=[
            {**one, "partitions": [at(14)]} for one in (
                named(STRANGE if version >= 10 else "committed-unknown"), place)])
        if version <= 4:
            ask("kept for a while", at(15, 2), retentionTimeMs=3_600_000)
        if version >= 7:
            ask("by a static member of no group", at(1), groupInstanceId="i", memberId="m", generationIdOrMemberEpoch=1)
        if version >= 10:
            session.call("zero id", "OffsetCommit", version, groupId=group, topics=[
                {"topicId": ZERO, "partitions": [at(1)]}])
        else:
            session.call("empty name", "OffsetCommit", version, groupId=group, topics=[
                {"name": "", "partitions": [at(1)]}])
        session.call("empty group", "OffsetCommit", version, groupId="", topics=[{**place, "partitions": [at(1)]}])
        if version >= 6:
            ask("with an epoch", at(8, committedLeaderEpoch=0))
        fetch_all_ways(session, group, known, f"after v{version}")


def fetch_all_ways(session: Session, group: str, known, after: str) -> None:
    """Fetches a group's offsets in every version."""
    for version in session.each("OffsetFetch"):
        place = named(known if version >= 10 else "committed")
        other = named(STRANGE if version >= 10 else "committed-unknown")
        topics = [{**place, "partitionIndexes": [0, 1, 2, 9]}]
        unknown = [{**other, "partitionIndexes": [0]}]
        def ask(step: str, wanted: list | None, group: str = group, **more) -> dict:
            where = {"groupId": group, "topics": wanted} if version < 8 else {
                "groups": [{"groupId": group, "topics": wanted}]}
            return session.call(f"{step} {after}", "OffsetFetch", version, **where, **more)

        ask("some", topics)
        ask("unknown topic", unknown)
        ask("no topics", [])
        ask("no partitions", [{**place, "partitionIndexes": []}])
        ask("same partition twice", [{**place, "partitionIndexes": [0, 0]}])
        ask("same topic twice", [{**place, "partitionIndexes": [n]} for n in (0, 1)])
        ask("negative partition", [{**place, "partitionIndexes": [-1]}])
        ask("empty group", topics, group="")
        if version >= 2:
            ask("all", None)
            ask("unknown group", None, group="commits-unknown")
        ask("some of an unknown group", topics, group="commits-unknown")
        if version >= 7:
            ask("stable only", topics, requireStable=True)
        if version >= 8:
            session.call(f"two groups {after}", "OffsetFetch", version, groups=[
                {"groupId": group, "topics": None}, {"groupId": "commits-unknown", "topics": topics}])
            session.call(f"no groups {after}", "OffsetFetch", version, groups=[])
            session.call(f"same group twice {after}", "OffsetFetch", version, groups=[
                {"groupId": group, "topics": topics}, {"groupId": group, "topics": None}])
        if version >= 9:
            for step, member, epoch in [("as a member", "m", 1), ("as nobody in particular", None, -1)]:
                session.call(f"{step} {after}", "OffsetFetch", version, groups=[
                    {"groupId": group, "memberId": member, "memberEpoch": epoch, "topics": topics}])


def commit_by_members(session: Session) -> None:
    create(session, "by-members")
    for version in session.each("OffsetCommit"):
        if version >= 10:
            continue
        group = Group(session, f"by-members-v{version}", 5)
        member = group.identify("a member")
        group.join("it joins", member)

        def ask(step: str, generation: int, member: str) -> dict:
            return session.call(step, "OffsetCommit", version, groupId=group.name, memberId=member,
                                generationIdOrMemberEpoch=generation, topics=[
                                    {"name": "by-members", "partitions": [
                                        {"partitionIndex": 0, "committedOffset": 1}]}])

        ask("before the sync", 1, member)
        group.sync("it syncs", 1, member, {member: b"x"})
        ask("by the member", 1, member)
        ask("in a wrong generation", 2, member)
        ask("in an old generation", 0, member)
        ask("by a stranger", 1, "stranger")
        ask("from outside", -1, "")
        group.leave("it leaves", member)
        ask("after it left", 1, member)
        ask("from outside an empty group", -1, "")


def delete_offsets(session: Session) -> None:
    create(session, "offsets-deleted", 2)
    group = Group(session, "deletes", 5)
    session.ask("OffsetCommit", 5, groupId=group.name, topics=[{"name": "offsets-deleted", "partitions": [
        {"partitionIndex": n, "committedOffset": 5} for n in range(2)]}])

    def ask(step: str, partition: int, name: str = "offsets-deleted", of: str = "deletes") -> dict:
        return session.call(step, "OffsetDelete", 0, groupId=of, topics=[
            {"name": name, "partitions": [{"partitionIndex": partition}]}])

    ask("one", 0)
    ask("again", 0)
    ask("unknown partition", 9)
    ask("unknown topic", 0, name="offsets-unknown")
    ask("unknown group", 0, of="deletes-unknown")
    ask("empty group name", 0, of="")
    session.call("no topics", "OffsetDelete", 0, groupId="deletes", topics=[])
    session.call("no partitions", "OffsetDelete", 0, groupId="deletes", topics=[
        {"name": "offsets-deleted", "partitions": []}])
    session.call("same partition twice", "OffsetDelete", 0, groupId="deletes", topics=[
        {"name": "offsets-deleted", "partitions": [{"partitionIndex": 0}] * 2}])
    session.call("known and unknown", "OffsetDelete", 0, groupId="deletes", topics=[
        {"name": name, "partitions": [{"partitionIndex": n} for n in (0, 7)]}
        for name in ("offsets-deleted", "offsets-unknown")])
    ask("negative partition", -1)
    ask("empty name", 0, name="")
    session.call("what is left", "OffsetFetch", 5, groupId="deletes", topics=None)
    subscribed = b"\0\0\0\0\0\1\0\x0foffsets-deleted\xff\xff\xff\xff"
    member = group.identify("a member", protocols=[{"name": "range", "metadata": subscribed}])
    group.join("it joins", member, protocols=[{"name": "range", "metadata": subscribed}])
    group.sync("it syncs", 1, member, {member: b""})
    ask("of a live group that reads it", 1)
    ask("of a live group that does not", 0, name="committed")
    group.leave("it leaves", member)
    ask("after it left", 1)


SCENARIOS = [
    ("commit-and-fetch", commit_and_fetch), ("commit-by-members", commit_by_members),
    ("delete-offsets", delete_offsets),
]
