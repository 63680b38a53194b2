"""Compressed sound in files that claim to hold PCM, which would be full-scale noise: DTS, Dolby Digital, MPEG audio.

Discs and receivers carry it like this, and so do copies of them: as bursts between zeros (IEC 61937), or as one frame
behind the other.
"""

import re
from pathlib import Path
from typing import BinaryIO

from stemsplit.audio.decoding import undecodable
from stemsplit.audio.ffmpeg_source import FFmpegSource
from stemsplit.audio.frame_headers import read_frame_header
from stemsplit.audio.splice import Splice, read_at
from stemsplit.errors import AudioError

_SEARCHED = 2**16  # bytes; bursts are at most a quarter of that apart
# Sync words in either byte order: IEC 61937 in 16, 24 and 32 bits, and DTS in 16 and 14 bits (ETSI TS 102 114).
_SYNCS = re.compile(
    rb"\x72\xf8\x1f\x4e|\xf8\x72\x4e\x1f|\x72\xf8\x00\x1f\x4e|\x72\xf8\x00\x00\x1f\x4e"
    rb"|\x7f\xfe\x80\x01|\xfe\x7f\x01\x80|\x1f\xff\xe8\x00|\xff\x1f\x00\xe8"
)
_FEWEST_SYNCS = 3
_CONTAINERS = (b"fLaC", b"OggS\0", b"RIFF", b"ID3\3\0", b"ID3\4\0")
_FEWEST_FRAMES = 4


def open_disguised(file: BinaryIO, data: range, path: Path) -> FFmpegSource | None:
    """Open compressed sound that is in the place of PCM; None if it is PCM.

    Args:
        file: The file.
        data: The bytes of its samples.
        path: Its path, for messages.

    Raises:
        AudioError: It is compressed sound that FFmpeg cannot decode there.
    """
    begin = _find(read_at(file, data.start, min(_SEARCHED, len(data))))
    if begin is None:
        return None
    refusal = undecodable(path, "it claims to be PCM, but its sound is compressed in a way that cannot be read there")
    try:
        source = FFmpegSource(Splice(file, data[begin:]), path)
    except AudioError as error:
        raise refusal from error
    if source.codec.startswith("pcm"):
        source.close()
        raise refusal
    return source


def _find(head: bytes) -> int | None:
    """Return where in the first bytes of PCM something begins that is not PCM, or None."""
    silence = len(head) - len(head.lstrip(b"\0"))
    if head[silence:].startswith(_CONTAINERS) or _are_frames(head, silence):
        return silence
    syncs = [match.start() for match in _SYNCS.finditer(head)]
    return syncs[0] if len(syncs) >= _FEWEST_SYNCS else None


def _are_frames(head: bytes, position: int) -> bool:
    """Return whether frames of AC-3, MPEG audio or AAC follow one another."""
    if head[position : position + 2] in (b"\x0b\x77", b"\x77\x0b"):
        return head.count(head[position : position + 2]) >= _FEWEST_FRAMES
    for _ in range(_FEWEST_FRAMES):
        header = read_frame_header(head[position : position + 8])
        if header is None or header.size is None:
            return False
        position += header.size
    return True
