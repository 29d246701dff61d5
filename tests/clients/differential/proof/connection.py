"""One broker as the corpus sees it: connections that send one request and read its answer, and the transcript."""

from __future__ import annotations

import itertools
import socket
import struct
import time
import uuid
from dataclasses import dataclass, field

from . import codec

CLIENT_ID = "differential"
# No answer of the corpus may take longer.
ANSWER_TIMEOUT_S = 15.0
# What stands in the transcript where a broker ended the connection instead of answering.
CLOSED = {"connection": "closed"}
# What stands there where it neither answered nor closed.
SILENT = {"connection": "silent"}


@dataclass
class Exchange:
    """One recorded request and what came of it."""

    scenario: str
    step: str
    api: str
    version: int
    answer: dict


@dataclass
class Transcript:
    """All that one broker was asked and answered, in order. Unrecorded answers stay out."""

    exchanges: list[Exchange] = field(default_factory=list)
    # Names for topic ids, learnt from every answer that tells both: the topic's name, and which of that name.
    topic_ids: dict[uuid.UUID, str] = field(default_factory=dict)

    def learn(self, value: object) -> None:
        """Notes the topic ids that an answer tells together with a name."""
        if isinstance(value, list):
            for inner in value:
                self.learn(inner)
        elif isinstance(value, dict):
            self._learn_one(value.get("topicId"), value.get("name") or value.get("topic"))
            for inner in value.values():
                self.learn(inner)

    def _learn_one(self, topic_id: object, name: object) -> None:
        if isinstance(topic_id, uuid.UUID) and topic_id.int and isinstance(name, str) and topic_id not in self.topic_ids:
            turn = len([known for known in self.topic_ids.values() if known.startswith(f"{name}#")]) + 1
            self.topic_ids[topic_id] = f"{name}#{turn}"


class Connection:
    """A connection that may have several requests on their way; answers come back in their order."""

    def __init__(self, address: tuple[str, int]):
        self._socket = socket.create_connection(address, timeout=ANSWER_TIMEOUT_S)
        self._numbers = itertools.count(1)
        self.waiting: list[tuple[int, str, int]] = []

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def send(self, api: str, version: int, body: dict, *, encode_as: int | None = None) -> None:
        """Sends a request; `encode_as` writes the body in another version than the header claims."""
        message = codec.load(f"{api}Request")
        form = version if encode_as is None else encode_as
        self.send_raw(message.key, version, form in message.flexible, codec.encode(message, form, body))
        self.waiting.append((self._last, api, form))

    def send_raw(self, key: int, version: int, flexible: bool, body: bytes) -> None:
        """Sends a request whose body is given as bytes; nothing is expected back."""
        self._last = next(self._numbers)
        client = CLIENT_ID.encode()
        header = struct.pack(">hhih", key, version, self._last, len(client)) + client + (b"\0" if flexible else b"")
        self.send_bytes(struct.pack(">i", len(header) + len(body)) + header + body)

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes that need not be a request."""
        try:
            self._socket.sendall(data)
        except OSError:
            # The broker has already closed; receiving tells.
            pass

    def receive(self, timeout_s: float | None = None) -> dict:
        """The next answer, or `CLOSED` or `SILENT`."""
        number, api, version = self.waiting.pop(0)
        try:
            frame = self.receive_frame(timeout_s)
        except TimeoutError:
            return SILENT
        if frame is None:
            return CLOSED
        if struct.unpack_from(">i", frame)[0] != number:
            return {"connection": "an answer to another request"}
        message = codec.load(f"{api}Response")
        # The answer to ApiVersions never has tags in its header, since the client may not know how to read them.
        start = 5 if version in message.flexible and api != "ApiVersions" else 4
        try:
            return codec.decode(message, version, frame[start:])
        except codec.CodecError as error:
            return {"connection": f"an answer that cannot be read: {error}"}

    def receive_frame(self, timeout_s: float | None = None) -> bytes | None:
        """The next frame as bytes, or None when the broker closed the connection."""
        deadline = time.monotonic() + (timeout_s or ANSWER_TIMEOUT_S)
        head = self._read(4, deadline)
        return None if head is None else self._read(struct.unpack(">i", head)[0], deadline)

    def _read(self, count: int, deadline: float) -> bytes | None:
        data = b""
        while len(data) < count:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                chunk = self._socket.recv(count - len(data))
            except TimeoutError:
                raise
            except OSError:
                return None
            if not chunk:
                return None
            data += chunk
        return data


class Session:
    """What a scenario talks to: one broker, and its transcript."""

    def __init__(self, address: tuple[str, int]):
        self.address = address
        self.transcript = Transcript()
        self.scenario = ""
        self._main: Connection | None = None

    def connect(self) -> Connection:
        """A further connection, for requests that wait."""
        return Connection(self.address)

    def begin(self, scenario: str) -> None:
        """Names the scenario that follows, and gives it a fresh connection."""
        self.scenario = scenario
        self.drop()

    def drop(self) -> None:
        """Gives up the main connection; the next call makes a new one."""
        if self._main is not None:
            self._main.close()
            self._main = None

    def ask(self, api: str, version: int, **body) -> dict:
        """One request and its answer, not recorded."""
        if self._main is None:
            self._main = self.connect()
        self._main.send(api, version, body)
        answer = self._main.receive()
        if "connection" in answer:
            self.drop()
        self.transcript.learn(answer)
        return answer

    def call(self, step: str, api: str, version: int, **body) -> dict:
        """One request and its answer, recorded."""
        answer = self.ask(api, version, **body)
        self.record(step, api, version, answer)
        return answer

    def record(self, step: str, api: str, version: int, answer: dict) -> None:
        """Notes an answer that came another way."""
        self.transcript.learn(answer)
        self.transcript.exchanges.append(Exchange(self.scenario, step, api, version, answer))

    def each(self, api: str) -> range:
        """Every stable version of an API that Apache Kafka 4.3 serves."""
        valid = codec.load(f"{api}Request").valid
        high = STABLE.get(api, valid.high)
        return range(valid.low, high + 1)

    def newest(self, api: str) -> int:
        """The highest of them."""
        return self.each(api)[-1]


# Where the newest version that is described is not served unless unstable versions are enabled.
STABLE = {"InitProducerId": 5}
