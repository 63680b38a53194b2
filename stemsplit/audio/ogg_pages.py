"""The pages of Ogg files (RFC 3533), and what is wrong with them."""

import zlib
from dataclasses import dataclass
from typing import BinaryIO

from stemsplit.audio.splice import read_at

_HEADER = 27  # bytes, then the lengths of the segments
_BLOCK = 2**20  # bytes
_LARGEST_PAGE = 65_307  # bytes
_LONGEST_PAGE = 2**21  # samples: 255 packets of 8192 at most
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class PageCheck:
    """What is wrong with the pages of a recording.

    Attributes:
        is_intact: Whether they follow one another, with right checksums and plausible positions, up to the last one.
        usable: The bytes for a decoder: without damaged pages, and without what is between pages.
    """

    is_intact: bool
    usable: list[range]


def check_pages(file: BinaryIO, link: range) -> PageCheck:
    """Check the pages of a recording.

    Raises:
        OSError: The file cannot be read.
    """
    is_intact = True
    usable: list[range] = []
    count = damaged = 0
    latest: dict[bytes, tuple[int, int]] = {}  # by serial number: number and position of a stream's last page
    position = link.start
    while position < link.stop:
        page = read_at(file, position, page_size(page_head(file, position)))
        end = position + len(page)
        if page[:5] != b"OggS\0" or len(page) < page_size(page) or end > link.stop:
            position = _find_page(file, range(position + 1, link.stop))
            is_intact &= position == link.stop  # what is behind the last page, or left of it, disturbs nobody
            continue
        count += 1
        if checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
            damaged += 1
            is_intact = False
        elif usable and usable[-1].stop == position:
            usable[-1] = range(usable[-1].start, end)
        else:
            usable.append(range(position, end))
        number, granule = int.from_bytes(page[18:22], "little"), int.from_bytes(page[6:14], "little", signed=True)
        last_number, last_granule = latest.get(page[14:18], (number - 1, 0))
        may_jump = last_granule <= 0  # an excerpt begins anywhere
        is_plausible = granule == -1 or (
            granule >= last_granule and (may_jump or granule - last_granule <= _LONGEST_PAGE)
        )
        is_intact &= number == last_number + 1 and is_plausible
        latest[page[14:18]] = (number, last_granule if granule == -1 and end < link.stop else granule)
        position = end
    is_intact &= all(granule >= 0 for _, granule in latest.values())
    # If most checksums are wrong, it was the program that wrote them.
    return PageCheck(is_intact, [link] if damaged > count / 2 else usable)


def _find_page(file: BinaryIO, rest: range) -> int:
    """Return where the next page begins, or the end."""
    for start in range(rest.start, rest.stop, _BLOCK):
        block = read_at(file, start, min(_BLOCK + 4, rest.stop - start))  # it may straddle two blocks
        if (found := block.find(b"OggS\0")) >= 0:
            return start + found
    return rest.stop


def checksum(page: bytes) -> int:
    """Return the CRC of a page whose own is zero: polynomial 0x04c11db7, most significant bit first, from zero."""
    # zlib's has the same polynomial, but bits in the other order, and is inverted before and after.
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED), "big")


def ends_within_a_page(file: BinaryIO, sound: range) -> bool:
    """Return whether a file of pages has been cut off in the middle of the last one.

    Raises:
        OSError: The file cannot be read.
    """
    start = max(sound.start, sound.stop - 2 * _LARGEST_PAGE)
    tail = read_at(file, start, sound.stop - start)
    last = tail.rfind(b"OggS\x00")
    return last >= 0 and last + page_size(tail[last:]) > len(tail)


def page_head(file: BinaryIO, position: int) -> bytes:
    """Return the first bytes of a page, with the lengths of its segments.

    Raises:
        OSError: The file cannot be read.
    """
    return read_at(file, position, _HEADER + 255)


def page_size(head: bytes | bytearray) -> int:
    """Return the size of the page with these first bytes; more than there are if even its header is cut off."""
    if len(head) < _HEADER or len(head) < _HEADER + head[_HEADER - 1]:
        return _HEADER + 255
    count = head[_HEADER - 1]
    return _HEADER + count + sum(head[_HEADER : _HEADER + count])
