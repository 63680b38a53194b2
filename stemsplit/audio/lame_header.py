"""The Xing or Info header of an MP3, which states the number of frames and the encoder's delay and padding."""

import io
import re
from typing import BinaryIO

from stemsplit.audio.foreign_tags import ID3_HEADER, id3_size

# Offsets in an "Info" or "Xing" header by LAME, in bytes: 4 bytes of the name, 4 of flags, the number of frames, the
# size, a seek table of 100 bytes, the quality, 9 bytes of the encoder's name, and so on.
_FRAMES = 8
_DELAY = 141
_CHECKSUM = 154
_SEARCHED = 512  # bytes of the first frame to search for the header
_HIGHEST_PADDING = 2**12 - 1
LONGEST_PADDING = 2 * _HIGHEST_PADDING
"""Samples of delay and padding at most."""
_LONGEST_FRAME = 1_441  # bytes, of MPEG-1 layer III at 320 kbit/s and 32 kHz
# The header of a frame, then as much as the side information would take up in this version of MPEG for one or two
# channels, then the name; the lowest bit of the flags says that a count of frames follows.
_FRAME_COUNT = re.compile(
    rb"\xff[\xe0-\xff]..(?:(?:.{9}|.{17}|.{32})(?:Xing|Info)...[\x01\x03\x05\x07\x09\x0b\x0d\x0f](.{4})"
    rb"|.{32}VBRI.{10}(.{4}))",
    re.DOTALL,
)


def write_padding(file: BinaryIO, length: int) -> None:
    """Correct the padding in the header of an MP3 that FFmpeg has written.

    Delay and padding fill up whole frames. The padding may be longer than one frame, but FFmpeg writes one at most.

    Args:
        file: The MP3, opened for reading and writing.
        length: Samples without delay and padding.

    Raises:
        ValueError: There is no such header, or the length does not fit the number of frames.
    """
    file.seek(0)
    start = id3_size(file.read(ID3_HEADER))
    file.seek(start)
    head = bytearray(file.read(_SEARCHED))
    match = re.search(rb"Info|Xing", head)
    if match is None:
        raise ValueError("an MP3 without a Xing header")
    header = match.start()
    frames = int.from_bytes(head[header + _FRAMES : header + _FRAMES + 4], "big")
    delay_and_padding = int.from_bytes(head[header + _DELAY : header + _DELAY + 3], "big")
    delay = delay_and_padding >> 12
    padding = frames * _samples_per_frame(head) - delay - length
    if not 0 <= padding <= _HIGHEST_PADDING:
        raise ValueError(f"an MP3 of {frames} frames cannot be of {length} samples")
    head[header + _DELAY : header + _DELAY + 3] = (delay << 12 | padding).to_bytes(3, "big")
    head[header + _CHECKSUM : header + _CHECKSUM + 2] = checksum(head[: header + _CHECKSUM]).to_bytes(2, "big")
    file.seek(start)
    file.write(head)


def count_samples(file: BinaryIO | io.RawIOBase, start: int) -> int:
    """Return the number of samples, with delay and padding, that an MP3 has according to its Xing, Info or VBRI header.

    Args:
        file: The MP3; its position is kept.
        start: Where its first frame with sound begins, in bytes. The header is the frame before.

    Returns:
        Samples, or 0 if there is no such header.
    """
    position = file.tell()
    file.seek(max(0, start - _LONGEST_FRAME))
    before = file.read(min(start, _LONGEST_FRAME)) or b""
    file.seek(position)
    match = _FRAME_COUNT.search(before)
    return int.from_bytes(match[1] or match[2], "big") * _samples_per_frame(match[0]) if match else 0


def checksum(data: bytes | bytearray) -> int:
    """Return the CRC-16 of some bytes: polynomial 0x8005, least significant bit first, initial value 0."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def _samples_per_frame(head: bytes | bytearray) -> int:
    """Return 1152 for MPEG-1, 576 for MPEG-2 and 2.5, according to two bits of the frame header."""
    return 1152 if head[1] >> 3 & 0b11 == 0b11 else 576
