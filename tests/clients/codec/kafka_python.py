"""The codec of kafka-python behind the same functions as ours: versions, sample, decode."""

from __future__ import annotations

import importlib
import pkgutil
import random
import struct
import uuid

import kafka.protocol
from kafka.protocol.api_data import ApiData
from kafka.protocol.api_message import ApiMessage

Fields = dict[str, str]
Versions = tuple[int, int]

# Bounds of the integers.
INTEGERS = {
    "int8": (-(1 << 7), (1 << 7) - 1),
    "int16": (-(1 << 15), (1 << 15) - 1),
    "uint16": (0, (1 << 16) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
}
LETTERS = "a.Z-0\"\\é\U0001f600\n\0 "


class KafkaPython:
    """All messages that kafka-python defines; fields that no version of `ours` has are left out of dumps."""

    def __init__(self, ours: dict[str, Versions]):
        self._ours = ours
        for module in pkgutil.walk_packages(kafka.protocol.__path__, "kafka.protocol."):
            if ".old" not in module.name and "generate_stubs" not in module.name:
                importlib.import_module(module.name)
        self._classes = {}
        for base in (ApiMessage, ApiData):
            for found in base.__subclasses__():
                if getattr(found, "_class_version", None) is None:  # not one of the wrappers for a version
                    self._classes[found.name] = found

    def versions(self, name: str) -> Versions | None:
        """The versions of a message, if there is such a message."""
        found = self._classes.get(name)
        return None if found is None else tuple(found.valid_versions)

    def decode(self, name: str, version: int, message: bytes) -> tuple[bytes, Fields]:
        """The message encoded again, and its fields."""
        found = self._classes[name]
        value = found.decode(message, version=version, **_plain(found))
        value._header = None  # which decoding leaves unset
        return self._encode(value, version)

    def sample(self, name: str, version: int, source: random.Random) -> tuple[bytes, Fields]:
        """Bytes and fields of a random message."""
        return self._encode(_sample_struct(self._classes[name]._struct, version, source), version)

    def _encode(self, value, version: int) -> tuple[bytes, Fields]:
        found = type(value)
        fields: Fields = {}
        _dump(found._struct, value, self._ours[found.name], "", fields)
        fields = {_original_name(found.name, path): value for path, value in fields.items()}
        return bytes(value.encode(version=version, **_plain(found))), fields


def _plain(found: type) -> dict[str, bool]:
    """Arguments that leave the version in front of embedded messages out, which is not part of them."""
    return {"header": False} if issubclass(found, ApiData) else {}


def _original_name(message: str, path: str) -> str:
    """The name Kafka gives a field that kafka-python gives another one."""
    head, _, last = path.rpartition(".")
    if last != "authorized_operations" or message not in ("MetadataResponse", "DescribeClusterResponse"):
        return path
    return f"{head}.{'topic' if head else 'cluster'}_{last}"


def _dump(fields_of, value, ours: Versions, path: str, out: Fields) -> None:
    """The fields of a struct; `value` is None for a tagged struct that equals its default."""
    for field in fields_of.fields.values():
        least, most = field._versions
        if most < ours[0] or least > ours[1]:
            continue  # a version that we do not have
        found = field.default if value is None and not field.is_struct() else getattr(value, field.name, None)
        _dump_field(field, found, ours, f"{path}.{field.name}", out)


def _dump_field(field, value, ours: Versions, path: str, out: Fields) -> None:
    if field.is_struct():
        if value is None and field._nullable_versions is not None:
            out[path] = "null"
        else:
            _dump(field, value, ours, path, out)
    elif field.is_struct_array() or field.is_array():
        if value is None:
            out[path] = "null"
            return
        out[path] = f"[{len(value)}]"
        for index, item in enumerate(value):
            if field.is_struct_array():
                _dump(field, item, ours, f"{path}[{index}]", out)
            else:
                out[f"{path}[{index}]"] = _scalar(field.array_of._type_str, item)
    else:
        out[path] = _scalar(field._type_str, value)


def _scalar(kind: str, value) -> str:
    """The value as our side writes it."""
    if kind == "uuid":
        return "u" + (value or uuid.UUID(int=0)).bytes.hex()
    if kind == "bitfield":
        bits = sum(1 << bit for bit in ({31} if value is None else value))
        return str(bits - (bits >> 31 << 32))
    if value is None and kind not in ("bool", "float64", *INTEGERS):
        return "null"
    if kind == "string":
        return "s" + str(value).encode().hex()
    if kind in ("bytes", "records"):
        return "b" + bytes(value).hex()
    if kind == "float64":
        return "f" + struct.pack(">d", value).hex()
    if kind == "bool":
        return "true" if value else "false"
    return str(value)


def _sample_struct(field, version: int, source: random.Random):
    chosen = {
        inner.name: _sample(inner, version, source)
        for inner in field.fields.values() if inner.for_version_q(version)
    }
    return field.data_class(version=version, **chosen)


def _sample(field, version: int, source: random.Random):
    if field.nullable_for_version_q(version) and source.random() < 0.25:
        return None
    if field.is_struct():
        value = _sample_struct(field, version, source)
        # Over there only None is the default of a tagged struct, and a default is never to be sent.
        return None if field.tagged_field_q(version) and _is_default(field, value) else value
    if field.is_struct_array():
        return [_sample_struct(field, version, source) for _ in range(source.randrange(4))]
    if field.is_array():
        length = source.choice([0, 1, 2, 3, 3, 140])
        return [_sample_scalar(field.array_of._type_str, source) for _ in range(length)]
    return _sample_scalar(field._type_str, source)


def _is_default(field, value) -> bool:
    return all(getattr(value, inner.name) == inner.default for inner in field.fields.values())


def _sample_scalar(kind: str, source: random.Random):
    if kind in INTEGERS:
        least, most = INTEGERS[kind]
        return source.choice([0, least, most, source.randint(least, most), max(least, -1), 1])
    if kind == "bool":
        return source.random() < 0.5
    if kind == "bitfield":
        return source.choice([None, {bit for bit in range(32) if source.random() < 0.3}])
    if kind == "float64":
        return source.randint(-(1 << 31), (1 << 31) - 1) / 8
    if kind == "uuid":
        return uuid.UUID(int=source.getrandbits(128))
    length = source.choice([0, 1, 5, 15, 300])
    if kind == "string":
        return "".join(source.choice(LETTERS) for _ in range(length))
    return source.randbytes(length)
