"""The recordings in a file that others were appended to, of which decoders read only the first: Ogg and FLAC."""

import re
from itertools import pairwise
from typing import BinaryIO

from stemsplit.audio.ogg_pages import page_head, page_size
from stemsplit.audio.splice import read_at

_LONGEST = 8  # bytes that a pattern matches
# A page that begins a stream: magic, version, and flags with the bit of a first page but not that of a continued one
# (RFC 3533, section 6).
_FIRST_PAGE = re.compile(rb"OggS\x00[\x02\x06]")
_FIRST_BLOCK = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # magic, and the head of STREAMINFO (RFC 9639, section 8.2)
_BLOCK = 2**20  # bytes


def find_links(file: BinaryIO, sound: range) -> list[range]:
    """Return the bytes of each recording; the whole file if it is of another format, or has only one.

    In Ogg, each begins with the first pages of all its streams. That is all that tells recordings apart: programs that
    join files leave the same serial number in all of them.

    Args:
        file: The file.
        sound: Its bytes between foreign tags.

    Raises:
        OSError: The file cannot be read.
    """
    magic = read_at(file, sound.start, 4)
    if magic == b"OggS":
        starts = _after_gaps(file, _find_all(file, sound, _FIRST_PAGE))
    elif magic == b"fLaC":
        starts = _find_all(file, sound, _FIRST_BLOCK)
    else:
        return [sound]
    return [range(start, end) for start, end in pairwise([sound.start, *starts[1:], sound.stop])]


def _after_gaps(file: BinaryIO, pages: list[int]) -> list[int]:
    """Return the positions of those pages that do not follow another one directly."""
    starts, end_of_last = [], -1
    for position in pages:
        if position != end_of_last:
            starts.append(position)
        end_of_last = position + page_size(page_head(file, position))
    return starts


def _find_all(file: BinaryIO, sound: range, pattern: re.Pattern[bytes]) -> list[int]:
    found = []
    for start in range(sound.start, sound.stop, _BLOCK):
        block = read_at(file, start, min(_BLOCK + _LONGEST - 1, sound.stop - start))  # it may straddle two blocks
        found += [start + match.start() for match in pattern.finditer(block) if match.start() < _BLOCK]
    return found
