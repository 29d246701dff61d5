"""Record batches of format 2, built by hand so that they can also be wrong in chosen ways."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

BASE_TIME = 1_700_000_000_000

_TABLE = []
for _n in range(256):
    _value = _n
    for _ in range(8):
        _value = (_value >> 1) ^ 0x82F63B78 if _value & 1 else _value >> 1
    _TABLE.append(_value)


def crc32c(data: bytes) -> int:
    """The checksum of a batch."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _zigzag(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(value: bytes | None) -> bytes:
    return _zigzag(-1) if value is None else _zigzag(len(value)) + value


@dataclass
class Record:
    """One record; `time` and `offset` are differences from the batch's."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    time: int = 0
    offset: int | None = None

    def encode(self, number: int) -> bytes:
        """The record's bytes as the one of that number."""
        offset = number if self.offset is None else self.offset
        headers = _zigzag(len(self.headers)) + b"".join(
            _bytes(key.encode()) + _bytes(value) for key, value in self.headers)
        body = b"\0" + _zigzag(self.time) + _zigzag(offset) + _bytes(self.key) + _bytes(self.value) + headers
        return _zigzag(len(body)) + body


def batch(
    records: list[Record] | list[bytes], *, base_offset: int = 0, base_time: int = BASE_TIME, producer: int = -1,
    epoch: int = -1, sequence: int = -1, attributes: int = 0, magic: int = 2, crc: int | None = None,
    count: int | None = None, last_delta: int | None = None, max_time: int | None = None, gzip: bool = False,
    length: int | None = None, leader_epoch: int = -1,
) -> bytes:
    """One batch. Everything that is derived can be overridden, to make a batch that a broker must refuse."""
    list_of = [r if isinstance(r, Record) else Record(r) for r in records]
    body = b"".join(record.encode(number) for number, record in enumerate(list_of))
    if gzip:
        packer = zlib.compressobj(wbits=31)
        body = packer.compress(body) + packer.flush()
        attributes |= 1
    if max_time is None:
        max_time = base_time + max([record.time for record in list_of], default=0)
    checked = struct.pack(
        ">hiqqqhii", attributes, len(list_of) - 1 if last_delta is None else last_delta, base_time, max_time,
        producer, epoch, sequence, len(list_of) if count is None else count) + body
    checksum = crc32c(checked) if crc is None else crc
    tail = struct.pack(">ibI", leader_epoch, magic, checksum) + checked
    return struct.pack(">qi", base_offset, len(tail) if length is None else length) + tail


def describe(data: bytes | None) -> object:
    """What a broker sent as records, batch by batch: the header's fields and a hash of the rest."""
    if not data:
        return None if data is None else []
    batches = []
    place = 0
    while place + 12 <= len(data):
        base, length = struct.unpack_from(">qi", data, place)
        whole = data[place:place + 12 + length]
        if len(whole) < 12 + length or length < 49:
            batches.append({"truncated": len(whole)})
            break
        epoch, magic, checksum = struct.unpack_from(">ibI", whole, 12)
        attributes, last, first_time, max_time, producer, producer_epoch, sequence, count = struct.unpack_from(
            ">hiqqqhii", whole, 21)
        batches.append({
            "baseOffset": base, "length": length, "batchLeaderEpoch": epoch, "magic": magic,
            "crcRight": checksum == crc32c(whole[21:]), "attributes": attributes, "lastOffsetDelta": last,
            "baseTimestamp": first_time, "maxTimestamp": max_time, "producerId": producer,
            "producerEpoch": producer_epoch, "baseSequence": sequence, "count": count,
            "recordsHash": zlib.crc32(whole[61:]),
        })
        place += 12 + length
    return batches
