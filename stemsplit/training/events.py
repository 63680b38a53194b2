"""Figures of a training run as TensorBoard reads them; nothing of TensorBoard is needed to write them.

A log is a TFRecord file: for each record its length, a masked CRC-32C of that, the record, and a masked CRC-32C of it.
A record is an `Event` in the encoding of Protocol Buffers (tensorflow/core/util/event.proto, summary.proto).
"""

import struct
import time
from collections.abc import Mapping
from pathlib import Path

VERSION = "brain.Event:2"
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # kinds of fields


def _table() -> list[int]:
    """Of CRC-32C (Castagnoli), least significant bit first."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _table()


class EventLog:
    """A log in `folder`, of its own for each time that the training is started."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"events.out.tfevents.{time.time_ns()}"
        version = _double(1, time.time()) + _bytes(3, VERSION.encode())
        self.path.write_bytes(pack(version))

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Write figures by name, such as `loss` or `SDR/vocals`, as those of a step."""
        values = b"".join(_bytes(1, _bytes(1, name.encode()) + _float(2, value)) for name, value in figures.items())
        event = _double(1, time.time()) + _key(2, _VARINT) + _varint(step) + _bytes(5, values)
        with self.path.open("ab") as file:
            file.write(pack(event))


def pack(record: bytes) -> bytes:
    """A record as it stands in the file."""
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", _masked(length)) + record + struct.pack("<I", _masked(record))


def checksum(data: bytes) -> int:
    """CRC-32C."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _masked(data: bytes) -> int:
    crc = checksum(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _key(number: int, kind: int) -> bytes:
    return bytes([number << 3 | kind])


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _double(number: int, value: float) -> bytes:
    return _key(number, _DOUBLE) + struct.pack("<d", value)


def _float(number: int, value: float) -> bytes:
    return _key(number, _FLOAT) + struct.pack("<f", value)


def _bytes(number: int, value: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(value)) + value
