"""What is no proper request: versions that are not served, bodies cut short, lengths that lie."""

from __future__ import annotations

import struct

from proof import codec
from proof.connection import Session

# One API of each coding, cheap to ask.
_BODIES = {
    "Metadata": {"topics": [{"name": "refused"}]}, "ListGroups": {},
    "FindCoordinator": {"key": "g", "coordinatorKeys": ["g"]}, "DescribeGroups": {"groups": ["g"]},
}


def versions(session: Session) -> None:
    """A version beyond those served ends the connection."""
    apis = ["Produce", "Fetch", "ListOffsets", "Metadata", "OffsetCommit", "OffsetFetch", "FindCoordinator", "JoinGroup",
            "CreateTopics", "DescribeConfigs", "InitProducerId"]
    for api in apis:
        message = codec.load(f"{api}Request")
        for version in sorted({message.valid.low - 1, message.valid.high + 1, 99, -1}):
            if version == message.valid.low - 1 == -1:
                continue
            connection = session.connect()
            connection.send_raw(message.key, version, version > 90, b"\0" * 8)
            frame = connection.receive_frame()
            session.record(f"version {version}", api, 0, {"connection": "closed" if frame is None else "answered"})
            connection.close()
    for key in [4, 5, 6, 7, 93, 99, 1000, -1]:
        connection = session.connect()
        connection.send_raw(key, 0, False, b"\0" * 8)
        frame = connection.receive_frame()
        session.record(f"key {key}", "none", 0, {"connection": "closed" if frame is None else "answered"})
        connection.close()


def _raw(session: Session, step: str, api: str, version: int, data: bytes, flexible: bool) -> None:
    connection = session.connect()
    connection.send_raw(codec.load(f"{api}Request").key, version, flexible, data)
    frame = connection.receive_frame()
    session.record(step, api, version, {"connection": "closed" if frame is None else "answered"})
    connection.close()


def bodies(session: Session) -> None:
    """Bodies cut short end the connection; bytes left over may be forgiven, alike on both sides."""
    for api, body in _BODIES.items():
        message = codec.load(f"{api}Request")
        for version in session.each(api):
            data = codec.encode(message, version, body)
            flexible = version in message.flexible
            for cut in range(1, min(4, len(data)) + 1):
                _raw(session, f"cut by {cut}", api, version, data[:-cut], flexible)
            _raw(session, "one byte more", api, version, data + b"\0", flexible)
    for name, data in [("too many", struct.pack(">i", 2**31 - 1)), ("negative", struct.pack(">i", -5))]:
        _raw(session, f"array length {name}", "Metadata", 5, data, False)
    _raw(session, "compact array too long", "Metadata", 9, b"\xff\xff\xff\xff\x07", True)
    _raw(session, "varint too long", "Metadata", 9, b"\xff" * 12, True)
    # An unknown tag must be skipped.
    plain = codec.encode(codec.load("MetadataRequest"), 9, {"topics": []})
    _raw(session, "unknown tag", "Metadata", 9, plain[:-1] + b"\x01\x63\x02hi", True)


def frames(session: Session) -> None:
    """Frames that are no requests end the connection."""
    for step, data in [
        ("negative length", struct.pack(">i", -1)), ("huge length", struct.pack(">i", 2**31 - 1)),
        ("just too large", struct.pack(">i", 104_857_601)), ("header cut short", struct.pack(">i", 3) + b"\0\0\0"),
        ("client id beyond", struct.pack(">ihhih", 10, 3, 1, 1, 500)),
    ]:
        connection = session.connect()
        connection.send_bytes(data)
        frame = connection.receive_frame()
        session.record(step, "none", 0, {"connection": "closed" if frame is None else "answered"})
        connection.close()


def null_client(session: Session) -> None:
    """A client without a name is served."""
    connection = session.connect()
    body = struct.pack(">hhih", 18, 0, 7, -1)
    connection.send_bytes(struct.pack(">i", len(body)) + body)
    frame = connection.receive_frame()
    session.record("no client id", "ApiVersions", 0, {"answered": frame is not None})
    connection.close()


def pipelined(session: Session) -> None:
    """Answers come in the order of the requests, however long one of them waits."""
    connection = session.connect()
    connection.send("Fetch", 11, {"maxWaitMs": 300, "minBytes": 1, "topics": [
        {"topic": "waited", "partitions": [{"partition": 0, "fetchOffset": 3, "partitionMaxBytes": 1000}]}]})
    connection.send("ListGroups", 0, {})
    connection.send("Metadata", 1, {"topics": []})
    for step in ["a waiting fetch", "after it", "after both"]:
        answer = connection.receive()
        session.record(step, "none", 0, {"right": "connection" not in answer})
    connection.close()


SCENARIOS = [
    ("versions", versions), ("bodies", bodies), ("frames", frames), ("null-client", null_client),
    ("pipelined", pipelined),
]
