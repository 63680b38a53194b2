"""The choice of a decoder for a file, which was made by measurement.

* libsndfile reads PCM (WAV, AIFF, CAF, AU, W64, RF64) and intact Ogg Vorbis with one or two channels.
* FFmpeg (PyAV) reads everything else. That includes MP3, because libsndfile only estimates its length and silently
  stops there (halfway through a VBR file without a Xing header) and prints to the terminal; FLAC, because libsndfile
  gives up at the first damaged frame; damaged Vorbis, because it does not tell what it leaves out; and everything with
  more than two channels, because libsndfile does not say which loudspeaker a channel belongs to.

Both trim the encoder's delay and padding wherever the file states them, as the ffmpeg program does.

For random access, as in training, libsndfile also reads FLAC and files with more than two channels, because it seeks
faster.

Before a decoder sees a file, tags around the sound are left out (`foreign_tags`), files to which others were appended
are taken apart (`links`), useless sizes in headers are replaced (`pcm_headers`), what is no PCM is not read as PCM
(`disguises`), and damaged pages of Ogg are left out (`ogg_pages`).
"""

from functools import partial
from pathlib import Path
from typing import BinaryIO

import soundfile  # type: ignore[import-untyped]

from stemsplit.audio.chain_source import ChainSource
from stemsplit.audio.container_sizes import is_cut_off
from stemsplit.audio.decoding import Source
from stemsplit.audio.disguises import open_disguised
from stemsplit.audio.ffmpeg_source import FFmpegSource
from stemsplit.audio.foreign_tags import find_sound
from stemsplit.audio.links import find_links
from stemsplit.audio.ogg_pages import check_pages
from stemsplit.audio.pcm_headers import PcmHeader, read_pcm_header
from stemsplit.audio.sndfile_source import SndfileSource
from stemsplit.audio.splice import Splice, read_at

_PCM_STARTS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"caff", b"riff")


def open_source(file: BinaryIO, path: Path, audio_stream: int = 1, *, random_access: bool = False) -> Source:
    """Choose the decoder for a file.

    Args:
        file: An opened, unbuffered file.
        path: Its path, for messages.
        audio_stream: Which of its audio streams to read, from 1 on.
        random_access: Prefer the decoder that is faster at seeking.

    Raises:
        AudioError: No decoder can read the file.
        OSError: The file cannot be read.
    """
    sound = find_sound(file)
    open_part = partial(_open_part, file, path, audio_stream, random_access)
    links = find_links(file, sound)
    source: Source
    source = ChainSource([partial(open_part, link) for link in links]) if len(links) > 1 else open_part(sound)
    source.damage.is_cut_off = is_cut_off(file, sound)
    return source


def _open_part(file: BinaryIO, path: Path, audio_stream: int, random_access: bool, sound: range) -> Source:
    header = read_pcm_header(file, sound)
    if header and header.is_plain and (disguised := open_disguised(file, header.data, path)):
        return disguised
    if read_at(file, sound.start, 4) == b"OggS":
        return _open_ogg(file, path, audio_stream, sound)
    splice = header.splice(file, sound) if header else Splice(file, sound)
    starts = (*_PCM_STARTS, b"fLaC") if random_access else _PCM_STARTS
    if audio_stream == 1 and read_at(file, sound.start, 4) in starts:
        source = _try_sndfile(splice, path, header)
        if source and source.is_suitable(random_access=random_access):
            return source
    return FFmpegSource(splice.again(), path, audio_stream, header)


def _open_ogg(file: BinaryIO, path: Path, audio_stream: int, link: range) -> Source:
    pages = check_pages(file, link)
    if audio_stream == 1 and pages.is_intact:
        source = _try_sndfile(Splice(file, *pages.usable), path, None)
        if source and source.is_suitable(random_access=False):
            return source
    return FFmpegSource(Splice(file, *pages.usable), path, audio_stream, is_whole=pages.is_intact)


def _try_sndfile(file: Splice, path: Path, header: PcmHeader | None) -> SndfileSource | None:
    try:
        return SndfileSource(file, path, header)
    except soundfile.LibsndfileError:
        return None  # another codec, or another format with the same first bytes: let FFmpeg try
