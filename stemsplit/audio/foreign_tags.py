"""Tags in front of and behind the sound: ID3, APE and Lyrics3, which programs attach to files of any format.

Decoders that do not know them in a format refuse the file, or take what is behind the sound for damage.
"""

from typing import BinaryIO

from stemsplit.audio.splice import read_at, whole

ID3_HEADER = 10  # bytes
# First bytes of formats in front of which FFmpeg does not expect ID3; behind it, it finds MPEG audio by itself.
_FORMATS = (
    *(b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b"FRM8", b".snd", b"caff", b"OggS", b"fLaC"),
    *(b"\x1aE\xdf\xa3", b"wvpk", b"MAC ", b"TTA1", b"MPCK", b"MP+", b"DSD ", b"0&\xb2u", b"Creative Voice File"),
)
_BEGINNINGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"3DI")
_LYRICS3_V1 = 5_100 + 20  # bytes at most


def find_sound(file: BinaryIO) -> range:
    """Return the bytes between the tags in front of the sound and those behind it.

    ID3 in front of a format for which FFmpeg reads it counts as part of the file.

    Raises:
        OSError: The file cannot be read.
    """
    start, end = 0, whole(file).stop
    while (size := id3_size(read_at(file, start, ID3_HEADER))) and start + size < end:
        start += size
    head = read_at(file, start, 20)
    if not head.startswith(_FORMATS) and head[4:8] != b"ftyp":
        start = 0
    while (size := _size_behind(file, end)) and size <= end - start:
        end -= size
    return range(start, end)


def is_tag(data: bytes) -> bool:
    """Return whether these are the first bytes of a tag."""
    return data.startswith(_BEGINNINGS)


def id3_size(head: bytes) -> int:
    """Return the size of the ID3v2 tag with these first 10 bytes, or 0; it is stored as 7 bits a byte (ID3v2.4)."""
    if head[:3] != b"ID3" or len(head) < ID3_HEADER:
        return 0
    has_footer = bool(head[5] & 0x10)
    return ID3_HEADER + _synchsafe(head[6:10]) + (ID3_HEADER if has_footer else 0)


def _synchsafe(digits: bytes) -> int:
    size = 0
    for byte in digits:
        size = size << 7 | byte
    return size


def _size_behind(file: BinaryIO, end: int) -> int:
    """Return the size of the last tag before `end`, or 0."""
    start = max(0, end - _LYRICS3_V1)
    tail = read_at(file, start, end - start)
    if tail[-128:].startswith(b"TAG"):
        return 128 + (227 if tail[-355:].startswith(b"TAG+") else 0)
    if tail[-32:].startswith(b"APETAGEX"):  # a footer: its size has no header
        has_header = bool(tail[-9] & 0x80)
        return int.from_bytes(tail[-20:-16], "little") + (32 if has_header else 0)
    if tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
        return int(tail[-15:-9]) + 15
    if tail.endswith(b"LYRICSEND") and (begin := tail.rfind(b"LYRICSBEGIN")) >= 0:
        return len(tail) - begin
    if tail[-10:].startswith(b"3DI"):
        return 2 * ID3_HEADER + _synchsafe(tail[-4:])
    return 0
