"""Some requests of the Kafka protocol by hand, timed one at a time: what no tool of `vltava` does in a loop."""

from __future__ import annotations

import socket
import struct
import time

FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT = 1, 2, 3, 8
COORDINATOR, JOIN_GROUP, SYNC_GROUP, API_VERSIONS = 10, 11, 14, 18
CLIENT_ID = "growth"


def text(value: str) -> bytes:
    """A text with its length."""
    return struct.pack(">h", len(value)) + value.encode()


def blob(value: bytes) -> bytes:
    """Bytes with their length."""
    return struct.pack(">i", len(value)) + value


def one(*parts: bytes) -> bytes:
    """An array with one element."""
    return struct.pack(">i", 1) + b"".join(parts)


class Refused(Exception):
    """The broker answered an error."""


def check(code: int) -> None:
    """Raises `Refused` unless the code says that all went well."""
    if code:
        raise Refused(f"error code {code}")


class Connection:
    """A connection with one request under way at most."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Closes it."""
        self.socket.close()

    def ask(self, api_key: int, version: int, body: bytes) -> bytes:
        """The body of the answer."""
        head = struct.pack(">hhi", api_key, version, 7) + text(CLIENT_ID)
        self.socket.sendall(blob(head + body))
        length, correlation = struct.unpack(">ii", self._read(8))
        if correlation != 7:
            raise Refused("an answer to something else")
        return self._read(length - 4)

    def _read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        received = bytearray()
        while len(received) < count:
            piece = self.socket.recv(min(count - len(received), 1 << 20))
            if not piece:
                raise ConnectionError("the broker closed the connection")
            received += piece
        return bytes(received)

    def api_versions(self) -> None:
        """What every client asks first."""
        check(struct.unpack_from(">h", self.ask(API_VERSIONS, 0, b""))[0])

    def metadata(self, topic: str) -> int:
        """Asks for all partitions of a topic; the bytes of the answer."""
        return len(self.ask(METADATA, 1, one(text(topic))))

    def fetch(self, topic: str, offset: int, bytes_max: int) -> int:
        """Reads partition 0; the bytes of records that came."""
        partition = struct.pack(">iqi", 0, offset, bytes_max)
        answer = self.ask(FETCH, 4, struct.pack(">iiiib", -1, 0, 0, bytes_max, 0) + one(text(topic), one(partition)))
        at = 4 + 4 + 2 + len(topic) + 4 + 4
        check(struct.unpack_from(">h", answer, at)[0])
        aborted = max(struct.unpack_from(">i", answer, at + 18)[0], 0)
        return struct.unpack_from(">i", answer, at + 22 + 16 * aborted)[0]

    def offset_for(self, topic: str, time_ms: int) -> int:
        """The first offset of partition 0 that is as late; -1 as time asks for the end, -2 for the beginning."""
        partition = struct.pack(">iq", 0, time_ms)
        answer = self.ask(LIST_OFFSETS, 1, struct.pack(">i", -1) + one(text(topic), one(partition)))
        code, _, offset = struct.unpack_from(">hqq", answer, 4 + 2 + len(topic) + 4 + 4)
        check(code)
        return offset

    def coordinator(self, group: str) -> None:
        """Asks who coordinates a group until that is known; the topic of groups is made when the first asks."""
        deadline = time.monotonic() + 60
        while True:
            code = struct.unpack_from(">h", self.ask(COORDINATOR, 0, text(group)))[0]
            if not code or time.monotonic() > deadline:
                return check(code)
            time.sleep(0.1)

    def join(self, group: str) -> tuple[int, str]:
        """Becomes the one member of a group; generation and member id."""
        protocol = text("range") + blob(b"\0\0" + one(text("t")) + blob(b""))
        answer = self.ask(JOIN_GROUP, 2, text(group) + struct.pack(">ii", 1_800_000, 60_000) + text("")
                          + text("consumer") + one(protocol))
        _, code, generation = struct.unpack_from(">ihi", answer)
        check(code)
        at = 10
        for _ in range(2):  # protocol and leader, then the member's id
            at += 2 + struct.unpack_from(">h", answer, at)[0]
        length = struct.unpack_from(">h", answer, at)[0]
        member = answer[at + 2:at + 2 + length].decode()
        assignment = text(member) + blob(b"\0\0" + one(text("t"), one(struct.pack(">i", 0))) + blob(b""))
        answer = self.ask(SYNC_GROUP, 0, text(group) + struct.pack(">i", generation) + text(member) + one(assignment))
        check(struct.unpack_from(">h", answer)[0])
        return generation, member

    def commit(self, group: str, generation: int, member: str, topic: str, offset: int) -> None:
        """Commits an offset of partition 0."""
        partition = struct.pack(">iq", 0, offset) + text("")
        answer = self.ask(OFFSET_COMMIT, 2, text(group) + struct.pack(">i", generation) + text(member)
                          + struct.pack(">q", -1) + one(text(topic), one(partition)))
        check(struct.unpack_from(">h", answer, len(answer) - 2)[0])


def timed_ms(work, count: int) -> float:
    """The median of so many runs of the work, each with its number, ms."""
    took = []
    for number in range(count):
        began = time.perf_counter()
        work(number)
        took.append((time.perf_counter() - began) * 1000)
    return sorted(took)[count // 2]
