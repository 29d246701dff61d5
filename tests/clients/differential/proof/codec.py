"""A codec for Kafka's requests and answers that shares nothing with Vltava's: it interprets, at run time, the message
descriptions that the kafka-python package ships, and turns them to and from plain dictionaries.

It is strict where a lenient reader would hide a fault: bytes left over, a null where none is allowed, a tag that is
unknown at a version, and a tagged field sent with its default are all errors. It does not try to be fast.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import struct
import uuid
from dataclasses import dataclass, field
from functools import cache
from typing import Any

_FIXED = {
    "int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d",
    "bool": ">?",
}


class CodecError(Exception):
    """Bytes that do not follow the description, or a value that the version cannot carry."""


@dataclass(frozen=True)
class Versions:
    """A range of versions, open-ended or empty."""

    low: int
    high: int

    @staticmethod
    def parse(text: str | None) -> "Versions":
        """Reads `3`, `3-5`, `3+`, `none`."""
        if text is None or text == "none":
            return Versions(1, 0)
        if text.endswith("+"):
            return Versions(int(text[:-1]), 1 << 15)
        low, _, high = text.partition("-")
        return Versions(int(low), int(high or low))

    def __contains__(self, version: int) -> bool:
        return self.low <= version <= self.high


@dataclass
class Field:
    """One field of a message or of a structure within it."""

    name: str
    kind: str
    versions: Versions
    nullable: Versions
    tagged: Versions
    tag: int | None
    default: Any
    # Set where the field has its own rule, as the client id of request headers has.
    flexible: Versions | None
    fields: list["Field"] = field(default_factory=list)

    @property
    def element(self) -> str | None:
        """The kind of an array's elements."""
        return self.kind[2:] if self.kind.startswith("[]") else None


@dataclass
class Message:
    """One message with its versions."""

    name: str
    key: int | None
    valid: Versions
    flexible: Versions
    fields: list[Field]


def _camel(name: str) -> str:
    return name[0].lower() + name[1:]


def _strip_comments(text: str) -> str:
    return re.sub(r"^\s*//.*$|(?<=[\s,\[{\]}\"])//.*$", "", text, flags=re.MULTILINE)


# What kafka-python does not describe.
_OTHERS = {
    "UnregisterBrokerRequest": {
        "apiKey": 64, "name": "UnregisterBrokerRequest", "validVersions": "0", "flexibleVersions": "0+",
        "fields": [{"name": "BrokerId", "type": "int32", "versions": "0+"}],
    },
    "UnregisterBrokerResponse": {
        "apiKey": 64, "name": "UnregisterBrokerResponse", "validVersions": "0", "flexibleVersions": "0+",
        "fields": [
            {"name": "ThrottleTimeMs", "type": "int32", "versions": "0+"},
            {"name": "ErrorCode", "type": "int16", "versions": "0+"},
            {"name": "ErrorMessage", "type": "string", "versions": "0+", "nullableVersions": "0+"},
        ],
    },
}


@cache
def load(name: str) -> Message:
    """The description of `MetadataRequest`, `MetadataResponse`, and so on."""
    raw = _OTHERS.get(name)
    if raw is None:
        place = importlib.resources.files("kafka.protocol.schemas.resources").joinpath(f"{name}.json")
        raw = json.loads(_strip_comments(place.read_text()))
    commons = {entry["name"]: entry["fields"] for entry in raw.get("commonStructs", [])}
    return Message(
        name=raw["name"], key=raw.get("apiKey"), valid=Versions.parse(raw["validVersions"]),
        flexible=Versions.parse(raw.get("flexibleVersions")), fields=[_field(f, commons) for f in raw["fields"]],
    )


def _field(raw: dict, commons: dict) -> Field:
    kind = raw["type"]
    struct_name = kind.removeprefix("[]")
    inner = raw.get("fields") or commons.get(struct_name) or []
    return Field(
        name=_camel(raw["name"]), kind=kind, versions=Versions.parse(raw["versions"]),
        nullable=Versions.parse(raw.get("nullableVersions")), tagged=Versions.parse(raw.get("taggedVersions")),
        tag=raw.get("tag"), default=_default(raw, inner),
        flexible=Versions.parse(raw["flexibleVersions"]) if "flexibleVersions" in raw else None,
        fields=[_field(f, commons) for f in inner],
    )


def _default(raw: dict, inner: list) -> Any:
    kind, given = raw["type"], raw.get("default")
    if given in ("null", None) and given is not None:
        return None
    if kind.startswith("[]"):
        return []
    if inner:
        return {}
    if kind == "string":
        return "" if given is None else given
    if kind in ("bytes", "records"):
        return b""
    if kind == "uuid":
        return uuid.UUID(int=0)
    if kind == "bool":
        return str(given).lower() == "true"
    if kind == "float64":
        return float(given or 0)
    return int(str(given), 0) if given not in (None, "") else 0


# ---------------------------------------------------------------- writing

def encode(message: Message, version: int, body: dict) -> bytes:
    """The body's bytes; fields that are missing from it take their defaults."""
    out = bytearray()
    _write_struct(out, message.fields, version, version in message.flexible, body, message.name)
    return bytes(out)


def _write_struct(out: bytearray, fields: list[Field], version: int, flexible: bool, body: dict, where: str) -> None:
    known = {f.name for f in fields}
    unknown = [name for name in body if name not in known]
    if unknown:
        raise CodecError(f"{where} has no {', '.join(unknown)}")
    tagged = []
    for entry in fields:
        value = body.get(entry.name, entry.default)
        if version not in entry.versions:
            continue
        if version in entry.tagged:
            if value != entry.default:
                tagged.append((entry.tag, entry, value))
            continue
        _write_field(out, entry, version, flexible, value, f"{where}.{entry.name}")
    if flexible:
        _write_varint(out, len(tagged))
        for tag, entry, value in sorted(tagged, key=lambda item: item[0]):
            inner = bytearray()
            _write_field(inner, entry, version, flexible, value, f"{where}.{entry.name}")
            _write_varint(out, tag)
            _write_varint(out, len(inner))
            out += inner


def _write_field(out: bytearray, entry: Field, version: int, flexible: bool, value: Any, where: str) -> None:
    if entry.flexible is not None:
        flexible = version in entry.flexible
    if value is None and version not in entry.nullable:
        raise CodecError(f"{where} may not be null in version {version}")
    if entry.element is not None:
        _write_length(out, None if value is None else len(value), flexible, ">i")
        for item in value or []:
            _write_value(out, entry.element, entry.fields, version, flexible, item, where)
        return
    if entry.fields and version in entry.nullable:
        out.append(0xFF if value is None else 1)
        if value is None:
            return
    _write_value(out, entry.kind, entry.fields, version, flexible, value, where)


def _write_value(out: bytearray, kind: str, fields: list[Field], version: int, flexible: bool, value: Any,
                 where: str) -> None:
    if fields:
        _write_struct(out, fields, version, flexible, value, where)
    elif kind in _FIXED:
        try:
            out += struct.pack(_FIXED[kind], value)
        except struct.error as error:
            raise CodecError(f"{where}: {value!r} is no {kind}") from error
    elif kind == "uuid":
        out += value.bytes
    elif kind == "string":
        data = None if value is None else value.encode()
        _write_length(out, None if data is None else len(data), flexible, ">h")
        out += data or b""
    elif kind in ("bytes", "records"):
        _write_length(out, None if value is None else len(value), flexible, ">i")
        out += value or b""
    else:
        raise CodecError(f"{where}: unknown kind {kind}")


def _write_length(out: bytearray, length: int | None, flexible: bool, form: str) -> None:
    if flexible:
        _write_varint(out, 0 if length is None else length + 1)
    else:
        out += struct.pack(form, -1 if length is None else length)


def _write_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


# ---------------------------------------------------------------- reading

class _Reader:
    def __init__(self, data: bytes):
        self.data = data
        self.place = 0

    def take(self, length: int) -> bytes:
        if length < 0 or self.place + length > len(self.data):
            raise CodecError(f"{length} bytes wanted at {self.place} of {len(self.data)}")
        chunk = self.data[self.place:self.place + length]
        self.place += length
        return chunk

    def fixed(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 28:
                raise CodecError("a length of more than five bytes")

    def length(self, flexible: bool, form: str) -> int | None:
        length = self.varint() - 1 if flexible else self.fixed(form)
        return None if length == -1 else length


def decode(message: Message, version: int, data: bytes) -> dict:
    """The dictionary that the bytes mean; all of them must be used."""
    reader = _Reader(data)
    body = _read_struct(reader, message.fields, version, version in message.flexible, message.name)
    if reader.place != len(data):
        raise CodecError(f"{message.name} v{version}: {len(data) - reader.place} bytes left over")
    return body


def _read_struct(reader: _Reader, fields: list[Field], version: int, flexible: bool, where: str) -> dict:
    body = {}
    for entry in fields:
        if version not in entry.versions:
            continue
        if version in entry.tagged:
            body[entry.name] = entry.default
            continue
        body[entry.name] = _read_field(reader, entry, version, flexible, f"{where}.{entry.name}")
    if flexible:
        _read_tags(reader, fields, version, body, where)
    return body


def _read_tags(reader: _Reader, fields: list[Field], version: int, body: dict, where: str) -> None:
    known = {f.tag: f for f in fields if version in f.tagged and version in f.versions}
    last = -1
    for _ in range(reader.varint()):
        tag, size = reader.varint(), reader.varint()
        if tag <= last:
            raise CodecError(f"{where}: tag {tag} after {last}")
        last = tag
        entry = known.get(tag)
        if entry is None:
            raise CodecError(f"{where}: tag {tag} is unknown in version {version}")
        end = reader.place + size
        value = _read_field(reader, entry, version, True, f"{where}.{entry.name}")
        if reader.place != end:
            raise CodecError(f"{where}: tag {tag} has another length than its value")
        if value == entry.default:
            raise CodecError(f"{where}: tag {tag} carries its default")
        body[entry.name] = value


def _read_field(reader: _Reader, entry: Field, version: int, flexible: bool, where: str) -> Any:
    if entry.flexible is not None:
        flexible = version in entry.flexible
    value = _read_nullable(reader, entry, version, flexible, where)
    if value is None and version not in entry.nullable:
        raise CodecError(f"{where} is null in version {version}")
    return value


def _read_nullable(reader: _Reader, entry: Field, version: int, flexible: bool, where: str) -> Any:
    if entry.element is not None:
        length = reader.length(flexible, ">i")
        if length is None:
            return None
        return [
            _read_value(reader, entry.element, entry.fields, version, flexible, where) for _ in range(length)
        ]
    if entry.fields and version in entry.nullable and reader.fixed(">b") < 0:
        return None
    return _read_value(reader, entry.kind, entry.fields, version, flexible, where)


def _read_value(reader: _Reader, kind: str, fields: list[Field], version: int, flexible: bool, where: str) -> Any:
    if fields:
        return _read_struct(reader, fields, version, flexible, where)
    if kind in _FIXED:
        return reader.fixed(_FIXED[kind])
    if kind == "uuid":
        return uuid.UUID(bytes=reader.take(16))
    if kind == "string":
        length = reader.length(flexible, ">h")
        return None if length is None else reader.take(length).decode()
    if kind in ("bytes", "records"):
        length = reader.length(flexible, ">i")
        return None if length is None else reader.take(length)
    raise CodecError(f"{where}: unknown kind {kind}")
