"""Whether a file is shorter than its container says, where decoders do not tell how much sound is missing."""

import struct
from typing import BinaryIO

from stemsplit.audio.ogg_pages import ends_within_a_page
from stemsplit.audio.splice import read_at

_ASF_HEADER = b"0&\xb2u"
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # GUID of its File Properties Object
_SEGMENT = b"\x18\x53\x80\x67"  # Matroska (RFC 9559, section 5.1)
_SEARCHED = 4_096  # bytes


def is_cut_off(file: BinaryIO, sound: range) -> bool:
    """Return whether the end of an Ogg, AVI, ASF (WMA) or Matroska (WebM) file is missing.

    Args:
        file: The file.
        sound: Its bytes between foreign tags.

    Raises:
        OSError: The file cannot be read.
    """
    head = read_at(file, sound.start, _SEARCHED)
    if head[:4] == b"OggS":
        return ends_within_a_page(file, sound)
    return len(sound) < _stated_size(head)


def _stated_size(head: bytes) -> int:
    """Return how many bytes a file should have at least, or 0."""
    if head[:4] == b"RIFF" and head[8:12] == b"AVI " and len(head) > 12:
        size: int = struct.unpack_from("<I", head, 4)[0]
        return 8 + size if size < 0x7FFF_0000 else 0
    if head.startswith(_ASF_HEADER) and 0 <= (place := head.find(_ASF_FILE)) < len(head) - 48:
        return int(struct.unpack_from("<Q", head, place + 40)[0])
    if head.startswith(b"\x1aE\xdf\xa3") and 0 <= (place := head.find(_SEGMENT)) < len(head) - 16:
        # The number of leading zeros is that of further bytes, all ones is an unknown size (RFC 8794, section 4).
        length = 9 - head[place + 4].bit_length()
        size = int.from_bytes(head[place + 4 : place + 4 + length], "big") & ((1 << 7 * length) - 1)
        return place + 4 + length + size if size < (1 << 7 * length) - 1 else 0
    return 0
