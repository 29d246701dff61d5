"""Apache Kafka's own codec, a Java process, as the judge of what ours writes."""

from __future__ import annotations

import base64
import json
import re
import struct

from process import Process

Fields = dict[str, str]
Versions = tuple[int, int]

# Kafka's classes know a version that no broker serves, because it is not stable.
UNSTABLE = {"InitProducerIdRequest": 6, "InitProducerIdResponse": 6}


class ApacheKafka:
    """The class `CodecPeer` as a child process; `compile` has put it and the jars on `classpath`."""

    title = "Apache Kafka"

    def __init__(self, classpath: str):
        self._process = Process(["java", "-Xmx256m", "-cp", classpath, "CodecPeer"])

    def versions(self, name: str) -> Versions | None:
        """The versions of a message that a broker serves."""
        least, most = map(int, self._process.ask(f"versions {name}").split(" "))
        return least, most - (most == UNSTABLE.get(name))

    def judge(self, name: str, version: int, message: bytes, fields: Fields) -> None:
        """Raises unless `message` means `fields` to Kafka and is written there in the same bytes.

        Kafka tells only the fields of the version, and of the tagged ones those that are not at their default.
        """
        again, _, told = self._process.ask(f"decode {name} {version} {message.hex()}").partition("\t")
        if bytes.fromhex(again) != message:
            raise AssertionError(f"bytes:\n    ours   {message.hex()}\n    theirs {again}")
        differing = []
        _compare(fields, "", json.loads(told), differing)
        if differing:
            raise AssertionError(f"fields, ours / theirs: {'; '.join(differing[:5])}")


def _compare(ours: Fields, path: str, theirs, differing: list[str]) -> None:
    """Adds to `differing` where the value at `path` is not the one in JSON."""
    if isinstance(theirs, dict):
        for name, value in theirs.items():
            snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            _compare(ours, f"{path}.{snake}", value, differing)
        return
    if isinstance(theirs, list) and ours.get(path) == f"[{len(theirs)}]":
        for index, value in enumerate(theirs):
            _compare(ours, f"{path}[{index}]", value, differing)
        return
    records = path.removesuffix("_size_in_bytes")
    if records != path and records in ours:
        mine, theirs = len(ours[records].removeprefix("b")) // 2, theirs
    else:
        mine = _value(ours.get(path))
    if mine != theirs or isinstance(mine, bool) != isinstance(theirs, bool):
        differing.append(f"{path}: {mine!r} / {theirs!r}")


def _value(text: str | None):
    """A value of ours as JSON would have it."""
    if text is None:
        return "no such field"
    if text in ("null", "true", "false"):
        return json.loads(text)
    kind, content = text[0], text[1:]
    if kind == "s":
        return bytes.fromhex(content).decode()
    if kind == "b":
        return base64.b64encode(bytes.fromhex(content)).decode()
    if kind == "u":
        return base64.urlsafe_b64encode(bytes.fromhex(content)).decode().rstrip("=")
    if kind == "f":
        return struct.unpack(">d", bytes.fromhex(content))[0]
    return int(text)
