"""The life of classic groups: joining, agreeing, beating, leaving, and what others see of it."""

from __future__ import annotations

from proof.connection import Connection, Session

from .helpers import coordinate, until

# Longer than the whole run: no member of a group that a scenario leaves behind dies meanwhile.
SESSION_MS = 120_000


def _versions(join: int) -> tuple[int, int, int]:
    """SyncGroup, Heartbeat and LeaveGroup versions that go with a JoinGroup version, so that all are tried."""
    return min(join, 5), min(join, 4), min(join, 5)


class Group:
    """A group as one scenario plays it; keeps what its members were told."""

    def __init__(self, session: Session, name: str, version: int):
        self.session = session
        self.name = name
        self.join_version = version
        self.sync_version, self.beat_version, self.leave_version = _versions(version)
        coordinate(session, name)

    def _join_body(self, member: str, **more) -> dict:
        return {
            "groupId": self.name, "sessionTimeoutMs": SESSION_MS, "rebalanceTimeoutMs": SESSION_MS, "memberId": member,
            "protocolType": "consumer", "protocols": [{"name": "range", "metadata": b"meta"}], **more,
        }

    def join(self, step: str, member: str = "", **more) -> dict:
        """A join that must be answered at once."""
        return self.session.call(step, "JoinGroup", self.join_version, **self._join_body(member, **more))

    def start_join(self, connection: Connection, member: str, **more) -> None:
        """A join that waits for others."""
        connection.send("JoinGroup", self.join_version, self._join_body(member, **more))

    def identify(self, step: str, **more) -> str:
        """The first join of a member; returns its id. From version 4 on it is told to come again with the id."""
        return self.join(step, **more)["memberId"]

    def sync(self, step: str, generation: int, member: str, assignments: dict | None = None, **more) -> dict:
        """SyncGroup, as the leader if there are assignments."""
        return self.session.call(step, "SyncGroup", self.sync_version, **self.sync_body(
            generation, member, assignments, **more))

    def sync_body(self, generation: int, member: str, assignments: dict | None = None, **more) -> dict:
        """The body of SyncGroup."""
        listed = [{"memberId": m, "assignment": a} for m, a in (assignments or {}).items()]
        return {"groupId": self.name, "generationId": generation, "memberId": member, "assignments": listed,
                "protocolType": "consumer", "protocolName": "range", **more}

    def beat(self, step: str, generation: int, member: str, **more) -> dict:
        """Heartbeat."""
        return self.session.call(step, "Heartbeat", self.beat_version, groupId=self.name, generationId=generation,
                                 memberId=member, **more)

    def leave(self, step: str, *members: str | dict) -> dict:
        """LeaveGroup of one member, or from version 3 on of several."""
        if self.leave_version < 3:
            return self.session.call(step, "LeaveGroup", self.leave_version, groupId=self.name, memberId=members[0])
        listed = [m if isinstance(m, dict) else {"memberId": m} for m in members]
        return self.session.call(step, "LeaveGroup", self.leave_version, groupId=self.name, members=listed)

    def describe(self, step: str, version: int = 5) -> dict:
        """DescribeGroups."""
        return self.session.call(step, "DescribeGroups", version, groups=[self.name])

    def state(self) -> str:
        """The group's state, unrecorded."""
        return self.session.ask("DescribeGroups", 5, groups=[self.name])["groups"][0]["groupState"]

    def await_state(self, state: str) -> None:
        """Waits for the state."""
        until(self.session, lambda: self.state() == state, f"state {state} of {self.name}")


def one_member(session: Session) -> None:
    for version in session.each("JoinGroup"):
        group = Group(session, f"one-v{version}", version)
        member = group.identify("first join")
        if version >= 4:
            joined = group.join("join with the id", member)
        else:
            joined = session.ask("DescribeGroups", 5, groups=[group.name])
        generation = joined.get("generationId", 1)
        group.describe(f"before the sync, joined by v{version}")
        group.beat("beat before the sync", generation, member)
        group.sync("sync in a wrong generation", generation + 5, member, {member: b"mine"})
        group.sync("sync of a stranger", generation, "stranger", {})
        group.sync("sync", generation, member, {member: b"mine"})
        group.describe(f"stable, joined by v{version}")
        group.sync("sync again", generation, member)
        group.beat("beat", generation, member)
        group.beat("beat of a stranger", generation, "stranger")
        group.beat("beat in a wrong generation", generation + 1, member)
        group.join("join of a stranger", "stranger")
        group.join("join again", member)
        group.await_state("CompletingRebalance")
        group.beat("beat of the old generation", generation, member)
        group.sync("sync of the next generation", generation + 1, member, {member: b"next"})
        group.leave("a stranger leaves", "stranger")
        group.leave("leave", member)
        group.leave("leave again", member)
        group.describe(f"empty, joined by v{version}")


def refused_joins(session: Session) -> None:
    for version in session.each("JoinGroup"):
        group = Group(session, f"refused-v{version}", version)
        group.join("session too short", sessionTimeoutMs=100)
        group.join("session too long", sessionTimeoutMs=10_000_000)
        group.join("no protocols", protocols=[])
        group.join("no protocol type", protocolType="")
        group.join("negative session", sessionTimeoutMs=-1)
        group.join("no protocol type and no protocols", protocolType="", protocols=[])
        session.call("empty group", "JoinGroup", version, groupId="", sessionTimeoutMs=SESSION_MS,
                     rebalanceTimeoutMs=SESSION_MS, protocolType="consumer",
                     protocols=[{"name": "range", "metadata": b""}])
        member = group.identify("a member")
        if version >= 4:
            group.join("the member", member)
        group.sync("its sync", 1, member, {member: b"x", "stranger": b"y"})
        group.join("another protocol type", protocolType="connect")
        group.join("no protocol in common", protocols=[{"name": "other", "metadata": b""}])
        group.join("another protocol type, by the member", member, protocolType="connect")
        group.join("no protocols, by the member", member, protocols=[])
        group.join("a stranger without a session", "stranger", sessionTimeoutMs=1)
        group.sync("negative generation", -1, member, {member: b"x"})
        group.sync("another protocol type", 1, member, {}, protocolType="connect")
        group.sync("another protocol", 1, member, {}, protocolName="other")
        group.sync("no member id", 1, "", {})
        group.sync("no protocol", 1, member, {}, protocolType=None, protocolName=None)
        group.sync("half a protocol", 1, member, {}, protocolName=None)
        group.beat("negative generation", -1, member)
        group.beat("no member id", 1, "")
        for step, instance in [("empty", ""), ("blank", "a b"), ("long", "i" * 300)] if version >= 5 else []:
            # Each in a group of its own, since one that is taken waits for the members there are.
            Group(session, f"instance-{step}-v{version}", version).join(f"{step} instance", groupInstanceId=instance)
        group.leave("leave", member)
        group.beat("beat of a gone member", 1, member)
        group.sync("sync of a gone member", 1, member)
    for version in session.each("SyncGroup"):
        session.call("empty group", "SyncGroup", version, groupId="", memberId="m", generationId=1,
                     protocolType="consumer", protocolName="range", assignments=[])
        session.call("unknown group", "SyncGroup", version, groupId="refused-unknown", memberId="m", generationId=1,
                     protocolType="consumer", protocolName="range", assignments=[])
    for version in session.each("Heartbeat"):
        session.call("empty group", "Heartbeat", version, groupId="", memberId="m", generationId=1)
        session.call("unknown group", "Heartbeat", version, groupId="refused-unknown", memberId="m", generationId=1)
    for version in session.each("LeaveGroup"):
        who = {"memberId": "m"} if version < 3 else {"members": [{"memberId": "m"}, {"memberId": "n"}]}
        session.call("empty group", "LeaveGroup", version, groupId="", **who)
        session.call("unknown group", "LeaveGroup", version, groupId="refused-unknown", **who)
        if version >= 3:
            session.call("nobody", "LeaveGroup", version, groupId="refused-unknown", members=[])
            session.call("nobody of a known group", "LeaveGroup", version, groupId="refused-v5", members=[])
            session.call("a member twice", "LeaveGroup", version, groupId="refused-v5", members=[{"memberId": "m"}] * 2)
    unknown = Group(session, "refused-unknown", 5)
    unknown.beat("beat in an unknown group", 1, "m")
    unknown.sync("sync in an unknown group", 1, "m")
    unknown.leave("leave an unknown group", "m")


def two_members(session: Session) -> None:
    for version in session.each("JoinGroup"):
        group = Group(session, f"two-v{version}", version)
        first = group.identify("first member")
        if version >= 4:
            group.join("first member joins", first)
        group.sync("first member syncs", 1, first, {first: b"all"})
        second_connection, first_connection = session.connect(), session.connect()
        second = ""
        if version >= 4:
            second = group.identify("second member")
        group.start_join(second_connection, second)
        group.await_state("PreparingRebalance")
        group.describe(f"while one waits, v{version}")
        group.beat("first member hears of it", 1, first)
        group.start_join(first_connection, first)
        joined = [first_connection.receive(), second_connection.receive()]
        session.record("first member's second join", "JoinGroup", version, joined[0])
        session.record("second member's join", "JoinGroup", version, joined[1])
        second = joined[1].get("memberId", "")
        # The follower asks first and waits for the leader's word.
        body = group.sync_body(2, second)
        second_connection.send("SyncGroup", group.sync_version, body)
        group.sync("leader syncs", 2, first, {first: b"half", second: b"other half"})
        session.record("follower's sync", "SyncGroup", group.sync_version, second_connection.receive())
        group.describe(f"two members, v{version}")
        group.beat("second member beats", 2, second)
        group.leave("second member leaves", second)
        group.await_state("PreparingRebalance")
        group.beat("first member hears of the leaving", 2, first)
        group.join("first member joins alone", first)
        group.sync("first member syncs alone", 3, first, {first: b"all again"})
        group.leave("first member leaves", first)
        for connection in [first_connection, second_connection]:
            connection.close()


def protocol_choice(session: Session) -> None:
    """The group takes the protocol that all know and most like best."""
    group = Group(session, "choice", 7)
    first = group.identify("first", protocols=[{"name": n, "metadata": n.encode()} for n in ["a", "b", "c"]])
    group.join("first joins", first, protocols=[{"name": n, "metadata": n.encode()} for n in ["a", "b", "c"]])
    group.sync("first syncs", 1, first, {first: b""}, protocolName="a")
    second = group.identify("second", protocols=[{"name": n, "metadata": n.encode()} for n in ["c", "b"]])
    connections = session.connect(), session.connect()
    group.start_join(connections[0], second, protocols=[{"name": n, "metadata": n.encode()} for n in ["c", "b"]])
    group.await_state("PreparingRebalance")
    group.start_join(connections[1], first, protocols=[{"name": n, "metadata": n.encode()} for n in ["a", "b", "c"]])
    session.record("second's answer", "JoinGroup", 7, connections[0].receive())
    session.record("first's answer", "JoinGroup", 7, connections[1].receive())
    group.sync("a sync by another protocol", 2, first, {first: b""}, protocolName="zzz")
    for connection in connections:
        connection.close()


def joined_together(session: Session) -> None:
    """Two members of one group leave together, one is removed by name, and pending ids are told apart."""
    for version in range(5, session.newest("JoinGroup") + 1):
        group = Group(session, f"together-v{version}", version)
        first = group.join(f"first joins, v{version}", groupInstanceId="i1")["memberId"]
        pending = group.identify(f"second is told its id, v{version}")
        group.describe(f"with one pending, v{version}")
        group.beat(f"the pending one beats, v{version}", 1, pending)
        group.sync(f"the pending one syncs, v{version}", 1, pending)
        group.leave(f"the pending one leaves, v{version}", pending)
        group.join(f"the pending one joins after it left, v{version}", pending)
        group.sync(f"first syncs, v{version}", 1, first, {first: b"all"}, groupInstanceId="i1")
        group.join(f"unchanged, first joins again, v{version}", first, groupInstanceId="i1")
        group.await_state("CompletingRebalance")
        group.sync(f"first syncs again, v{version}", 2, first, {first: b"all"}, groupInstanceId="i1")
        group.leave(f"leave by id without the name, v{version}", first)
        group.leave(f"leave a stranger, and by name, v{version}", {"memberId": "stranger"}, {"memberId": "", "groupInstanceId": "i1"},
                    {"memberId": "", "groupInstanceId": "i1"})
        group.describe(f"left, v{version}")


def full_group(session: Session) -> None:
    """The brokers let a group have two members."""
    for version in session.each("JoinGroup"):
        group = Group(session, f"full-v{version}", version)
        first = group.identify("first")
        if version >= 4:
            group.join("first joins", first)
        connections = session.connect(), session.connect()
        second = "" if version < 4 else group.identify("second")
        group.start_join(connections[0], second)
        group.await_state("PreparingRebalance")
        group.start_join(connections[1], first)
        for step, connection in zip(("second", "first"), connections):
            session.record(f"{step} is in", "JoinGroup", version, connection.receive())
            connection.close()
        group.join("third")
        if version >= 5:
            group.join("third by a name", groupInstanceId="i3")
        group.join("stranger", "stranger")
        group.describe(f"full, v{version}")


def several_protocols(session: Session) -> None:
    """A member that changes what it can."""
    group = Group(session, "several", 7)
    first = group.identify("first")
    group.join("first joins", first)
    group.describe("first has joined")
    group.sync("first syncs", 1, first, {first: b"all"})
    group.describe("first has synced")
    other = [{"name": "roundrobin", "metadata": b"three"}]
    group.join("first changes its protocol", first, protocols=other)
    group.sync("first syncs by the old one", 2, first, {first: b"all"})
    group.sync("first syncs by the new one", 2, first, {first: b"all"}, protocolName="roundrobin")
    group.describe("first has changed")
    group.leave("first leaves", first)


def static_members(session: Session) -> None:
    for version in range(5, session.newest("JoinGroup") + 1):
        group = Group(session, f"static-v{version}", version)
        first = group.join("join", groupInstanceId="i1")["memberId"]
        group.sync("sync", 1, first, {first: b"mine"}, groupInstanceId="i1")
        group.describe(f"stable, v{version}")
        group.beat("beat by name", 1, first, groupInstanceId="i1")
        group.beat("beat by another name", 1, first, groupInstanceId="i2")
        again = group.join("comes back without its id", groupInstanceId="i1")
        group.beat("the old id beats", again.get("generationId", 1), first, groupInstanceId="i1")
        group.join("the old id joins", first, groupInstanceId="i1")
        group.sync("the old id syncs", again.get("generationId", 1), first, groupInstanceId="i1")
        current = again.get("memberId", "")
        group.sync("the new id syncs", again.get("generationId", 1), current, {current: b"mine again"},
                   groupInstanceId="i1")
        group.beat("the new id beats", again.get("generationId", 1), current, groupInstanceId="i1")
        session.call("commit by the old id", "OffsetCommit", 7, groupId=group.name, memberId=first,
                     generationIdOrMemberEpoch=again.get("generationId", 1), groupInstanceId="i1", topics=[])
        group.leave("leave by another name", {"memberId": "", "groupInstanceId": "i9"})
        group.leave("leave by name and old id", {"memberId": first, "groupInstanceId": "i1"})
        group.leave("leave by name", {"memberId": "", "groupInstanceId": "i1"})
        group.describe(f"empty, v{version}")


def group_admin(session: Session) -> None:
    live = Group(session, "admin-live", 5)
    member = live.identify("a member")
    live.join("it joins", member)
    live.sync("it syncs", 1, member, {member: b"x"})
    committed = Group(session, "admin-committed", 5)
    session.ask("OffsetCommit", 5, groupId=committed.name, topics=[])
    for version in session.each("DeleteGroups"):
        session.ask("OffsetCommit", 5, groupId=f"admin-offsets-v{version}", topics=[
            {"name": "existing", "partitions": [{"partitionIndex": 0, "committedOffset": 1}]}])
    for version in session.each("DescribeGroups"):
        session.call("live", "DescribeGroups", version, groups=["admin-live"])
        session.call("unknown", "DescribeGroups", version, groups=["admin-unknown"])
        session.call("several", "DescribeGroups", version, groups=["admin-live", "admin-unknown", ""])
        session.call("nothing", "DescribeGroups", version, groups=[])
        session.call("twice", "DescribeGroups", version, groups=["admin-live", "admin-live"])
        if version >= 3:
            session.call("operations", "DescribeGroups", version, groups=["admin-live"],
                         includeAuthorizedOperations=True)
    for version in session.each("ListGroups"):
        session.call("all", "ListGroups", version)
        if version >= 4:
            for states in [["Stable"], ["Empty"], ["stable"], ["NoSuchState"], ["Stable", "Empty"]]:
                session.call(f"states {' '.join(states)}", "ListGroups", version, statesFilter=states)
        if version >= 5:
            session.call("a state and a type", "ListGroups", version, statesFilter=["Stable"], typesFilter=["classic"])
            session.call("a state and another type", "ListGroups", version, statesFilter=["Stable"],
                         typesFilter=["share"])
            for types in [["classic"], ["Classic"], ["consumer"], ["nosuchtype"]]:
                session.call(f"types {' '.join(types)}", "ListGroups", version, typesFilter=types)
    for version in session.each("DeleteGroups"):
        session.call("live", "DeleteGroups", version, groupsNames=["admin-live"])
        session.call("unknown and empty", "DeleteGroups", version, groupsNames=["admin-unknown", ""])
        session.call("emptied", "DeleteGroups", version, groupsNames=[f"one-v{version}"])
        session.call("deleted", "DeleteGroups", version, groupsNames=[f"one-v{version}"])
        session.call("nothing", "DeleteGroups", version, groupsNames=[])
        session.call("twice", "DeleteGroups", version, groupsNames=["admin-unknown"] * 2)
        session.call("known twice", "DeleteGroups", version, groupsNames=[f"two-v{version}"] * 2)
        session.call("offsets alone", "DeleteGroups", version, groupsNames=[f"admin-offsets-v{version}"])


def protocol_twice(session: Session) -> None:
    """Apache Kafka never answers a member that names a protocol twice, and its group is stuck: no use in waiting long."""
    group = Group(session, "protocol-twice", 7)
    twice = [{"name": "range", "metadata": text} for text in (b"one", b"two")]
    first = group.identify("first join", protocols=twice)
    connection = session.connect()
    group.start_join(connection, first, protocols=twice)
    session.record("join with the id", "JoinGroup", 7, connection.receive(timeout_s=2))
    connection.close()


SCENARIOS = [
    ("one-member", one_member), ("refused-joins", refused_joins), ("two-members", two_members),
    ("protocol-choice", protocol_choice), ("joined-together", joined_together),
    ("full-group", full_group), ("several-protocols", several_protocols), ("static-members", static_members), ("group-admin", group_admin),
    ("protocol-twice", protocol_twice),
]
