"""The note in an MP3 of how much silence its encoder has added, without which it would come back too long."""

import re
from typing import BinaryIO

# Places in the "Info" or "Xing" header of LAME, from its first byte: 4 of the name, 4 of flags, the count of frames,
# the size, 100 of a table for seeking, the quality, 9 of the encoder's name, and so on.
_FRAMES = 8
_DELAY = 141
_CHECKSUM = 154
_SEARCHED = 512  # bytes of the first frame
_HIGHEST_PADDING = 2**12 - 1
_LONGEST_FRAME = 1_441  # bytes, of MPEG-1 layer III at 320 kbit/s and 32 kHz
# The header of a frame, then as much as the side information would take up in this version of MPEG for one or two
# channels, then the name; the lowest bit of the flags says that a count of frames follows.
_FRAME_COUNT = re.compile(
    rb"\xff[\xe0-\xff]..(?:(?:.{9}|.{17}|.{32})(?:Xing|Info)...[\x01\x03\x05\x07\x09\x0b\x0d\x0f]|.{32}VBRI)", re.DOTALL
)


def write_padding(file: BinaryIO, length: int) -> None:
    """Correct the note at the start of an MP3 of `length` samples that FFmpeg has written.

    The encoder's delay and the padding at the end fill up whole frames, and may come to more than one frame of padding,
    which FFmpeg cuts down to one. ValueError: there is no such note, or no such length.
    """
    file.seek(0)
    start = _after_id3(file.read(10))
    file.seek(start)
    head = bytearray(file.read(_SEARCHED))
    found = re.search(rb"Info|Xing", head)
    if found is None:
        raise ValueError("an MP3 without a note of its length")
    note = found.start()
    frames = int.from_bytes(head[note + _FRAMES : note + _FRAMES + 4], "big")
    both = int.from_bytes(head[note + _DELAY : note + _DELAY + 3], "big")
    delay = both >> 12
    padding = frames * _samples_per_frame(head) - delay - length
    if not 0 <= padding <= _HIGHEST_PADDING:
        raise ValueError(f"an MP3 of {frames} frames cannot be of {length} samples")
    head[note + _DELAY : note + _DELAY + 3] = (delay << 12 | padding).to_bytes(3, "big")
    head[note + _CHECKSUM : note + _CHECKSUM + 2] = checksum(head[: note + _CHECKSUM]).to_bytes(2, "big")
    file.seek(start)
    file.write(head)


def counts_frames(file: BinaryIO, start: int) -> bool:
    """Return whether an MP3 has a Xing, Info or VBRI header with its number of frames, from which its length is known.

    Args:
        file: The MP3; its position is kept.
        start: Where its first frame with sound begins, in bytes. The header is the frame before.
    """
    position = file.tell()
    file.seek(max(0, start - _LONGEST_FRAME))
    before = file.read(min(start, _LONGEST_FRAME))
    file.seek(position)
    return _FRAME_COUNT.search(before) is not None


def checksum(data: bytes | bytearray) -> int:
    """CRC-16 with the polynomial 0x8005, least significant bit first, from zero."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def _after_id3(start: bytes) -> int:
    """Where an ID3v2 tag ends whose first 10 bytes these are: its size stands there, 7 bits a byte."""
    if start[:3] != b"ID3":
        return 0
    size = 0
    for byte in start[6:10]:
        size = size << 7 | byte
    return 10 + size


def _samples_per_frame(head: bytes | bytearray) -> int:
    """1152 in MPEG-1, 576 in the versions of it for lower rates; two bits of a frame's header tell."""
    return 1152 if head[1] >> 3 & 0b11 == 0b11 else 576
