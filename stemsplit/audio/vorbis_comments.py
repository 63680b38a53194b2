"""Vorbis comments, the tags and cover of Ogg files, added afterwards: libsndfile writes few tags and no cover."""

import base64
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from stemsplit.audio.ogg_pages import checksum
from stemsplit.audio.tags import Picture, Tags

FIELDS = {
    "title": "TITLE",
    "artist": "ARTIST",
    "album_artist": "ALBUMARTIST",
    "album": "ALBUM",
    "composer": "COMPOSER",
    "track": "TRACKNUMBER",
    "disc": "DISCNUMBER",
    "date": "DATE",
    "genre": "GENRE",
    "comment": "COMMENT",
    "copyright": "COPYRIGHT",
    "publisher": "ORGANIZATION",
    "bpm": "BPM",
    "key": "INITIALKEY",
}
"""Names of Vorbis comments, by those of `tags.FIELDS`."""

_HEADER = struct.Struct("<4sBBqIIIB")  # RFC 3533, section 6: magic to count of segments
_CONTINUED = 1  # flag of a page that begins with the rest of a packet
_MOST_SEGMENTS = 255
_SERIAL = 1  # libsndfile's is random, but the same song should give the same file


def picture_comment(picture: Picture) -> str:
    """Return the value of METADATA_BLOCK_PICTURE: a FLAC picture block (RFC 9639, section 8.8) in base64."""
    mime = picture.mime.encode()
    front_cover, no_description, bits, no_palette = 3, 0, 24, 0
    block = struct.pack(">II", front_cover, len(mime)) + mime + struct.pack(">I", no_description)
    block += struct.pack(">IIIII", picture.width, picture.height, bits, no_palette, len(picture.data)) + picture.data
    return base64.b64encode(block).decode()


def comments(tags: Tags) -> dict[str, str]:
    """Return tags as Vorbis comments."""
    result = tags.named(FIELDS)
    if tags.picture:
        result["METADATA_BLOCK_PICTURE"] = picture_comment(tags.picture)
    return result


def retag(source: BinaryIO, target: BinaryIO, new: Mapping[str, str]) -> None:
    """Copy an Ogg Vorbis file with other comments.

    The serial number of the stream becomes a constant; page numbers and checksums follow. Nothing else changes.

    Args:
        source: The file to copy.
        target: An empty file, opened for writing.
        new: Comments by name, in place of those in `source`.

    Raises:
        ValueError: `source` is not an Ogg Vorbis file, or is incomplete.
    """
    pages = _read_pages(source)
    first = next(pages, None)
    if first is None or not first.body.startswith(b"\x01vorbis"):
        raise ValueError("not an Ogg Vorbis file")
    comment, setup = _read_header_packets(pages)
    number = 0
    target.write(first.packed(number))
    for page in _split([_with_comments(comment, new), setup]):
        number += 1
        target.write(page.packed(number))
    for page in pages:  # audio starts on a new page (Vorbis I specification, section A.2)
        number += 1
        target.write(page.packed(number))


@dataclass(frozen=True, slots=True)
class _Page:
    flags: int
    position: int  # the granule position
    segments: bytes  # a length each
    body: bytes

    def packed(self, number: int) -> bytes:
        head = _HEADER.pack(b"OggS", 0, self.flags, self.position, _SERIAL, number, 0, len(self.segments))
        page = head + self.segments + self.body
        return page[:22] + checksum(page).to_bytes(4, "little") + page[26:]


def _read_pages(file: BinaryIO) -> Iterator[_Page]:
    while head := file.read(_HEADER.size):
        if len(head) < _HEADER.size or head[:4] != b"OggS":
            raise ValueError("not an Ogg file, or an incomplete one")
        _, _, flags, position, _, _, _, count = _HEADER.unpack(head)
        segments = file.read(count)
        body = file.read(sum(segments))
        if len(body) < sum(segments) or len(segments) < count:
            raise ValueError("an incomplete Ogg file")
        yield _Page(flags, position, segments, body)


def _read_header_packets(pages: Iterator[_Page]) -> tuple[bytes, bytes]:
    """Return the second and third packets, comments and codebooks; they end together with a page."""
    packets = [b""]
    for page in pages:
        at = 0
        for length in page.segments:
            packets[-1] += page.body[at : at + length]
            at += length
            if length < 255:
                packets.append(b"")
        if len(packets) > 2:
            break
    if len(packets) != 3 or packets[2]:
        raise ValueError("not the headers of an Ogg Vorbis file")
    return packets[0], packets[1]


def _with_comments(old: bytes, new: Mapping[str, str]) -> bytes:
    """Replace the comments in a comment packet (Vorbis I specification, section 5), but keep the vendor."""
    (size,) = struct.unpack_from("<I", old, 7)
    packet = old[: 11 + size] + struct.pack("<I", len(new))
    for name, text in new.items():
        comment = f"{name}={text}".encode()
        packet += struct.pack("<I", len(comment)) + comment
    return packet + b"\x01"


def _split(packets: list[bytes]) -> Iterator[_Page]:
    """Distribute packets over pages; all pages but the last are full."""
    segments = [segment for packet in packets for segment in _laced(packet)]
    body = b"".join(packets)
    at, begun = 0, False
    for start in range(0, len(segments), _MOST_SEGMENTS):
        lengths = bytes(segments[start : start + _MOST_SEGMENTS])
        size = sum(lengths)
        ends_packet = any(length < 255 for length in lengths)
        # The granule position of a header page is 0, or -1 if no packet ends there.
        yield _Page(_CONTINUED if begun else 0, 0 if ends_packet else -1, lengths, body[at : at + size])
        at += size
        begun = lengths[-1] == 255


def _laced(packet: bytes) -> list[int]:
    """Return the lengths of a packet's segments; one of less than 255 bytes ends the packet."""
    return [255] * (len(packet) // 255) + [len(packet) % 255]
