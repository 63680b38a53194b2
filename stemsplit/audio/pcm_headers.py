"""Headers of WAV, RF64, Wave64, AIFF, AU and CAF: where the samples are, and how many there should be.

Decoders believe the sizes there. Programs that are killed, or that write into a pipe, leave them empty or at a maximum,
and those that write more than 4 GiB let them wrap around; then the size of the file counts, and decoders get a new
header. Files that are cut off are decoded as far as they go, but decoders do not tell.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from stemsplit.audio.splice import Splice, read_at

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE  # format tags of WAV
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}  # of a sample, by encoding
# By compression type of AIFF-C: whether samples are floats, and little-endian.
_AIFF_KINDS = {
    **dict.fromkeys((b"NONE", b"twos", b"in24", b"in32"), (False, False)),
    **dict.fromkeys((b"fl32", b"FL32", b"fl64", b"FL64"), (True, False)),
    b"sowt": (False, True),
}
_MOST_CHUNKS = 10_000
_LONGEST_CHUNK = 2**20  # bytes of one that is read
_LARGEST = 2**44  # bytes: no file system in use has larger files


@dataclass(frozen=True, slots=True)
class PcmHeader:
    """What the header of a file with uncompressed samples says, corrected by the size of the file.

    Attributes:
        data: The bytes of the samples, as far as the file has them.
        stated_length: Samples that the header states, or None if it states none.
        is_plain: Whether the samples are said to be integers or floats, and not compressed.
        new_head: What decoders need in front of `data` if the header's sizes are of no use, else None.
    """

    data: range
    stated_length: int | None
    is_plain: bool
    new_head: bytes | None

    def splice(self, file: BinaryIO, sound: range) -> Splice:
        """Return the file as decoders should see it; `sound` are its bytes between foreign tags."""
        return Splice(file, sound) if self.new_head is None else Splice(file, self.new_head, self.data)


def read_pcm_header(file: BinaryIO, sound: range) -> PcmHeader | None:
    """Read a header, or return None if the file is of another format, or too damaged.

    Args:
        file: The file.
        sound: Its bytes between foreign tags.

    Raises:
        OSError: The file cannot be read.
    """
    magic = read_at(file, sound.start, 4)
    read = {b"FORM": _read_aiff, b".snd": _read_au, b"caff": _read_caf}.get(magic)
    if magic in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff"):
        read = _read_riff
    try:
        return read(file, sound) if read else None
    except (struct.error, ValueError, ZeroDivisionError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class _Size:
    """How many bytes of samples there are.

    Attributes:
        length: In the file.
        stated: In the header, or None.
        usable: Whether decoders can go by the header.
    """

    length: int
    stated: int | None
    usable: bool


def _size(stated: int, available: int, *, bits: int = 32, ends_there: bool = False) -> _Size:
    """Compare the size in a header with the bytes that are there.

    Args:
        stated: Bytes, possibly left empty, at a maximum, or wrapped around.
        available: Bytes from the first sample to the end of the file.
        bits: In which the size is stored.
        ends_there: Whether other chunks are exactly behind an empty one, which then is right.
    """
    highest = (2 ** (bits - 1), 2**bits)  # of signed and unsigned numbers
    untold = any(top - 2**16 <= stated <= top + 2**16 for top in highest) and stated > available
    if (stated <= 0 and available > 0 and not ends_there) or untold or stated > _LARGEST:
        return _Size(available, None, usable=False)
    if bits == 32 and available - stated >= 2**32:
        length = stated + (available - stated) // 2**32 * 2**32
        return _Size(length, length, usable=False)
    return _Size(min(stated, available), stated, usable=True)


def _read_riff(file: BinaryIO, sound: range) -> PcmHeader | None:
    wide = read_at(file, sound.start, 4) == b"riff"  # Wave64 by Sonic Foundry: GUIDs, and sizes of 64 bits
    order = ">" if read_at(file, sound.start, 4) == b"RIFX" else "<"
    fmt, fact, sizes = b"", None, (0, 0, 0)
    for name, start, size in _chunks(file, sound, 40 if wide else 12, order, wide=wide):
        if name == b"data":
            break
        body = read_at(file, start, min(size, _LONGEST_CHUNK))
        if name == b"fmt ":
            fmt = body
        elif name == b"fact":
            (fact,) = struct.unpack_from(f"{order}I", body)
        elif name == b"ds64":  # EBU Tech 3306
            sizes = struct.unpack_from("<QQQ", body)
    else:
        return None
    tag, channels, rate, byte_rate, frame, bits = struct.unpack_from(f"{order}HHIIHH", fmt)
    if tag == _EXTENSIBLE and len(fmt) >= 26:
        (tag,) = struct.unpack_from(f"{order}H", fmt, 24)
    is_plain = tag in (_PCM, _FLOAT)
    if is_plain:
        frame = channels * -(-bits // 8)
    has_ds64 = size == 2**32 - 1 and any(sizes)
    ends_there = size == 0 and _are_chunks(file, range(start, sound.stop), order, wide=wide)
    known = _size(
        sizes[1] if has_ds64 else size,
        sound.stop - start,
        bits=64 if wide or has_ds64 else 32,
        ends_there=ends_there,
    )
    length = known.length - known.length % frame if is_plain else known.length
    stated = known.stated
    if stated is not None:
        stated = stated // frame if is_plain else fact or (stated * rate // byte_rate if byte_rate else None)
    head = None if known.usable or order == ">" else _rf64_head(fmt, length, length // max(frame, 1))
    return PcmHeader(range(start, start + length), stated, is_plain, head)


def _rf64_head(fmt: bytes, length: int, samples: int) -> bytes:
    chunk = b"fmt " + struct.pack("<I", len(fmt)) + fmt + bytes(len(fmt) % 2)
    riff = 4 + 36 + len(chunk) + 8 + length
    sizes = b"ds64" + struct.pack("<IQQQI", 28, riff, length, samples, 0)
    return b"RF64\xff\xff\xff\xffWAVE" + sizes + chunk + b"data\xff\xff\xff\xff"


def _read_aiff(file: BinaryIO, sound: range) -> PcmHeader | None:
    common = b""
    for name, start, size in _chunks(file, sound, 12, ">"):
        if name == b"COMM":
            common = read_at(file, start, min(size, _LONGEST_CHUNK))
        if name == b"SSND" and common:
            break
    else:
        return None
    channels, samples, bits, exponent, mantissa = struct.unpack_from(">hIhHQ", common)
    kind = common[18:22] if len(common) >= 22 else b"NONE"
    frame = channels * -(-bits // 8)
    if kind not in _AIFF_KINDS:
        return None
    (offset,) = struct.unpack(">I", read_at(file, start, 4))
    start += 8 + offset
    known = _size(size - 8 - offset if size else 0, sound.stop - start, ends_there=size >= 8 and not samples)
    length = known.length - known.length % frame
    stated = None if known.stated is None else known.stated // frame
    rate = mantissa * 2.0 ** (exponent - 16383 - 63)
    is_float, is_little = _AIFF_KINDS[kind]
    head = None if known.usable else _caf_head(rate, is_float, is_little, frame, channels, bits, length)
    return PcmHeader(range(start, start + length), stated, True, head)


def _caf_head(rate: float, is_float: bool, is_little: bool, frame: int, channels: int, bits: int, length: int) -> bytes:
    """AIFF has no sizes beyond 4 GiB; CAF holds the same samples."""
    flags = is_float | is_little << 1
    fields = struct.pack(">d4sIIIII", rate, b"lpcm", flags, frame, 1, channels, bits)
    return b"caff\0\1\0\0desc" + struct.pack(">q", 32) + fields + b"data" + struct.pack(">qI", length + 4, 0)


def _read_au(file: BinaryIO, sound: range) -> PcmHeader | None:
    head = read_at(file, sound.start, 24)
    _, offset, size, encoding, _, channels = struct.unpack(">4sIIIII", head)
    if encoding not in _AU_BYTES:
        return None
    frame = _AU_BYTES[encoding] * channels
    start = sound.start + offset
    known = _size(size, sound.stop - start)
    length = known.length - known.length % frame
    stated = None if known.stated is None else known.stated // frame
    new_head = struct.pack(">4sI", b".snd", 24) + b"\xff\xff\xff\xff" + head[12:]  # a size that is not known
    return PcmHeader(range(start, start + length), stated, True, None if known.usable else new_head)


def _read_caf(file: BinaryIO, sound: range) -> PcmHeader | None:
    packet_bytes = packet_samples = 0
    kind = b""
    for name, start, size in _chunks(file, sound, 8, ">", caf=True):  # noqa: B007 (used below)
        if name == b"desc":
            _, kind, _, packet_bytes, packet_samples = struct.unpack(">d4sIII", read_at(file, start, 24))
        if name == b"data":
            break
    else:
        return None
    start += 4  # a count of edits
    known = _size(size - 4, sound.stop - start, bits=64)
    whole_packets = known.length - known.length % packet_bytes if packet_bytes else known.length
    stated = known.stated
    if stated is not None:
        stated = stated // packet_bytes * packet_samples if packet_bytes else None
    head = read_at(file, sound.start, start - sound.start - 12) + struct.pack(">qI", whole_packets + 4, 0)
    data = range(start, start + whole_packets)
    return PcmHeader(data, stated, kind == b"lpcm", None if known.usable else head)


def _chunks(
    file: BinaryIO, sound: range, offset: int, order: str, *, wide: bool = False, caf: bool = False
) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, first byte and stated size of each chunk, as far as there are some."""
    position = sound.start + offset
    for _ in range(_MOST_CHUNKS):
        if wide:
            head = read_at(file, position, 24)
            name, size, start = head[:4], struct.unpack("<16xQ", head)[0] - 24 if len(head) == 24 else 0, position + 24
            after = start + -(-size // 8) * 8
        elif caf:
            head = read_at(file, position, 12)
            name, size, start = head[:4], struct.unpack(">4xq", head)[0] if len(head) == 12 else 0, position + 12
            after = start + size
        else:
            head = read_at(file, position, 8)
            name, size, start = head[:4], struct.unpack(f"{order}4xI", head)[0] if len(head) == 8 else 0, position + 8
            after = start + size + size % 2
        if start > sound.stop:
            return
        yield name, start, size
        if after <= position:
            return
        position = after


def _are_chunks(file: BinaryIO, rest: range, order: str, *, wide: bool) -> bool:
    """Return whether chunks fill the rest of a file exactly."""
    end = rest.start
    for name, start, size in _chunks(file, rest, 0, order, wide=wide):
        if not name.isascii():
            return False
        end = start + (-(-size // 8) * 8 if wide else size + size % 2)
    return end == rest.stop
