"""The two decoders behind `audio.Reader`, and which of them reads what, chosen by measurement.

* libsndfile reads plain samples (WAV, AIFF, CAF, AU, W64, RF64) and Ogg Vorbis with one or two channels.
* FFmpeg (PyAV) reads everything else. Among that is MP3, because libsndfile takes its length from an estimate and then
  silently stops there (halfway through a VBR file without a Xing header) and prints to the terminal; FLAC, because
  libsndfile gives up at the first damaged frame; and everything with more than two channels, because libsndfile does
  not say which loudspeaker a channel belongs to.

Both trim encoder delay and padding wherever the file tells them: lag 0 and the same length as FFmpeg's own decoding.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile  # type: ignore[import-untyped]

from stemsplit.audio import lame_header
from stemsplit.errors import AudioError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.layout import AudioLayout
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

Block = npt.NDArray[np.float32]
"""Samples of a song, `(C, n)`: contiguous, nominally in [-1, 1]."""
Stems = npt.NDArray[np.float32]
"""Samples of several stems, `(S, C, n)`."""

_SNDFILE_STARTS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"caff", b"riff", b"OggS")
_SAMPLE_BYTES = {"PCM_U8": 1, "PCM_S8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_OPEN_END = 0x7FFF_0000  # bytes; who cannot go back to correct the header announces this much or more
# Samples to decode before an excerpt: an MP3 frame uses bits of up to ten frames before it, and Opus needs 80 ms.
_RUN_UP = 16_384
_OGG_PAGE = 65_307  # bytes, the most that one page can have
# What FFmpeg calls the containers whose length stands in the file, and is not estimated from its size.
_HONEST = {"flac", "mov", "matroska", "asf", "wv", "tta", "ape", "wav", "aiff", "caf", "ogg"}

_HALF_POWER = 0.5**0.5  # -3 dB
_LEFT, _RIGHT = (1.0, 0.0), (0.0, 1.0)
_FRONT = {"FL": _LEFT, "FLC": _LEFT, "DL": _LEFT, "WL": _LEFT, "FR": _RIGHT, "FRC": _RIGHT, "DR": _RIGHT, "WR": _RIGHT}


class SndfileSource:
    """libsndfile: plain samples and Ogg Vorbis with one or two channels; for random access, FLAC and more channels.

    Attributes: as in `FFmpegSource`.

    Args:
        file: An opened, unbuffered file.
        path: Its name, for messages.

    Raises:
        soundfile.LibsndfileError: libsndfile cannot read the file.
    """

    folded_from = None

    def __init__(self, file: BinaryIO, path: Path) -> None:
        # By number, not by name: a name that is not UTF-8, or one that ends in .raw, is then nothing special.
        self._file = file
        self._path = path
        self._sound = soundfile.SoundFile(file.fileno(), closefd=False)
        self.rate: int = self._sound.samplerate
        self.channels: int = self._sound.channels
        self.length: int = self._sound.frames
        self.exact_length: int | None = self.length
        self.promised = self._announced()
        self.failures = 0
        self.chained = False
        if self._sound.format == "OGG":
            self._read_last_page()

    def is_suitable(self, *, random_access: bool) -> bool:
        """Whether libsndfile is the better decoder for this file.

        It is not if it finds no samples: FFmpeg reads what a recorder left behind that was killed before it wrote the
        length.
        """
        has_samples = self.length > 0 or self._sound.format == "OGG"
        readable = self._sound.subtype in (*_SAMPLE_BYTES, "VORBIS")
        return has_samples and readable and (random_access or (self.channels <= 2 and self._sound.format != "FLAC"))

    def blocks(self) -> Iterator[Block]:
        """Yield (channels, n <= 65536) as far as it can be decoded."""
        while True:
            try:
                samples = self._sound.read(65_536, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                self.failures += 1
                return
            if not len(samples):
                return
            yield np.ascontiguousarray(samples.T)

    def excerpt(self, start: int, length: int) -> Block:
        """Return samples `(channels, n)` from `start` on; `n < length` at the end of the song.

        Raises:
            AudioError: The excerpt cannot be decoded.
        """
        try:
            self._sound.seek(min(start, self.length))
            samples: Block = self._sound.read(length, dtype="float32", always_2d=True).T
        except soundfile.LibsndfileError as error:
            raise undecodable(self._path, error.error_string.removeprefix("Error : ").rstrip(". ")) from error
        return samples

    def close(self) -> None:
        """Close the decoder, not the file; a second time does nothing."""
        self._sound.close()

    def _announced(self) -> int | None:
        # libsndfile corrects the length of a truncated file by itself; only its log still has what was announced.
        log = re.search(r"(?:data|SSND)\s*: (\d+) \(should be", self._sound.extra_info)
        if self._sound.subtype not in _SAMPLE_BYTES:
            return None
        if log is None:
            return int(self.length)  # all of it is there, unless the file is cut short while it is being read
        if int(log[1]) >= _OPEN_END:
            return None
        frame_bytes: int = _SAMPLE_BYTES[self._sound.subtype] * self.channels
        return int(log[1]) // frame_bytes

    def _read_last_page(self) -> None:
        """An Ogg file tells its length, and whether it ends in the stream it began with, in its last page only."""
        place = self._file.tell()
        self._file.seek(0)
        first = self._file.read(18)
        self._file.seek(-min(2 * _OGG_PAGE, self._file.seek(0, 2)), 2)
        tail = self._file.read()
        self._file.seek(place)
        last = tail[tail.rfind(b"OggS\x00") :][:18]
        if len(last) == 18:  # RFC 3533: 6 bytes, the granule position (in Vorbis, samples), the stream's serial number
            self.chained = last[14:] != first[14:]
            self.promised = None if self.chained else int.from_bytes(last[6:14], "little", signed=True)


class FFmpegSource:
    """FFmpeg: an audio stream of anything, folded down to at most two channels. AudioError if it is not there.

    rate: Hz. channels: 1 or 2. folded_from: the count of channels before folding down, or None. length: samples, an
    estimate, or None. promised: samples, if a header tells them that can be trusted, else None. failures: pieces that
    could not be decoded so far. chained: whether recordings follow that are not read.
    """

    chained = False

    def __init__(self, file: BinaryIO, path: Path, track: int = 1) -> None:
        """track: which of the audio streams, from 1 on. path: for messages."""
        import av  # 0.1 s, and needed for few files

        self._av = av
        self._file = file
        self._path = path
        self._matrices: dict[str, Block] = {}
        self.failures = 0
        try:
            self._container = open_container(file)
        except av.FFmpegError as error:
            raise undecodable(path) from error
        try:
            if not self._container.streams.audio:
                raise AudioError(f"{str(path)!r} has no sound in it", "name a song, or a film that has a sound track")
            count = len(self._container.streams.audio)
            if track > count:
                told = "one sound track" if count == 1 else f"{count} sound tracks"
                hint = "leave out --track" if count == 1 else f"choose one from 1 to {count} with --track"
                raise AudioError(f"{str(path)!r} has {told}, and none of the number {track}", hint)
            self._stream = stream = self._container.streams.audio[track - 1]
            first = next(packets := self._demux(stream), None)
            self._packets = chain([first] if first else [], packets)
            self._frames = self._decode(self._packets)
            # Decoding the first frame at once tells the rate and the channels better than many a header.
            self._first = next(self._frames, None)
            head = self._first or stream.codec_context
            if not head or not head.sample_rate or not head.layout.nb_channels:
                raise undecodable(path)
            self.rate: int = head.sample_rate
            self.channels = min(2, head.layout.nb_channels)
            self.folded_from = head.layout.nb_channels if head.layout.nb_channels > 2 else None
            self.length, self.promised = self._announced(stream, first)
            self.exact_length: int | None = self.promised if self._container.format.name == "mp3" else None
            self._samples_per_tick = (stream.time_base or Fraction(1, self.rate)) * self.rate
            if not self._first and (self.failures or self.promised):
                raise undecodable(path)
        except BaseException:
            self._container.close()
            raise

    def blocks(self) -> Iterator[Block]:
        """Yield (channels, n) as far as it can be decoded, all of it at `rate`."""
        for _, block in self._convert_all(self._with_first(self._frames)):
            yield block

    def excerpt(self, start: int, length: int) -> Block:
        """Return samples `(channels, n)` from `start` on; `n < length` at the end of the song.

        It can be called once, in place of `blocks`.

        Raises:
            AudioError: Pieces of the excerpt cannot be decoded.
        """
        origin = self._first.pts if self._first else None
        frames = self._with_first(self._frames)
        if origin is not None and start > _RUN_UP:
            needed = int(origin + (start - _RUN_UP) / self._samples_per_tick)
            if self._container.format.name == "mp3":  # in other formats, timestamps after seeking may be wrong
                self._container.seek(needed, stream=self._stream)
            packets = dropwhile(lambda p: p.pts is not None and p.pts + (p.duration or 0) < needed, self._packets)
            frames = self._decode(packets)
        excerpt = np.zeros((self.channels, length), np.float32)
        place = count = end = 0  # in the song, in the excerpt, in the excerpt
        for frame, block in self._convert_all(frames):
            if frame is not None and frame.pts is not None and origin is not None:
                place = round((frame.pts - origin) * self._samples_per_tick)
            first, last = max(place, start) - start, min(place + block.shape[1], start + length) - start
            if first < last:
                excerpt[:, first:last] = block[:, start + first - place : start + last - place]
                count, end = count + last - first, max(end, last)
            place += block.shape[1]
            if place >= start + length:
                break
        if count < end:
            raise undecodable(self._path, f"{end - count} samples of it are damaged")
        return excerpt[:, :end]

    def close(self) -> None:
        """Close the decoder, not the file; a second time does nothing."""
        self._container.close()

    def _with_first(self, frames: Iterator["AudioFrame"]) -> Iterator["AudioFrame"]:
        return chain([self._first] if self._first else [], frames)

    def _demux(self, stream: "AudioStream") -> Iterator["Packet[AudioStream]"]:
        """Yield packets up to where the container ends or breaks."""
        packets = self._container.demux(stream)
        try:
            yield from packets
        except self._av.FFmpegError:
            self.failures += 1

    def _decode(self, packets: Iterable["Packet[AudioStream]"]) -> Iterator["AudioFrame"]:
        """Decode what can be decoded, beyond damaged packets."""
        for packet in packets:
            try:
                frames = packet.decode()
            except self._av.FFmpegError:
                self.failures += 1
            else:
                yield from frames

    def _announced(self, stream: "AudioStream", first: "Packet[AudioStream] | None") -> tuple[int | None, int | None]:
        """Length and promised length. Of a film whose tracks do not tell theirs, that of the film is an estimate."""
        container = self._container
        if stream.duration and stream.time_base:
            exact = stream.duration * stream.time_base * self.rate
        elif container.duration:
            exact = Fraction(container.duration * self.rate, self._av.time_base)
        else:
            return None, None
        kind = container.format.name.split(",")[0]
        alone = bool(stream.duration) or len(container.streams) == 1
        honest = kind in _HONEST and alone
        if kind == "mp3" and first is not None and first.pos and exact.denominator == 1:
            honest = lame_header.counts_frames(self._file, first.pos)
        return round(exact), round(exact) if honest else None

    def _convert_all(self, frames: Iterable["AudioFrame"]) -> Iterator[tuple["AudioFrame | None", Block]]:
        """Yield each frame and its samples; None and what is left at the end of a sample format."""
        kind: tuple[str, str, int] | None = None
        converter: AudioResampler | None = None
        for frame in frames:
            if kind != (kind := (frame.format.name, frame.layout.name, frame.sample_rate)):
                for block in self._convert(converter, None):
                    yield None, block
                # Interleaved: PyAV crashes on frames with eight channels or more that are not.
                converter = self._av.AudioResampler("flt", frame.layout, self.rate)
            for block in self._convert(converter, frame):
                yield frame, block
        for block in self._convert(converter, None):
            yield None, block

    def _convert(self, converter: "AudioResampler | None", frame: "AudioFrame | None") -> Iterator[Block]:
        """Frames in whatever sample format as blocks (channels, n); None flushes."""
        for part in converter.resample(frame) if converter else []:
            samples: npt.NDArray[Any] = part.to_ndarray()  # (1, n * C), float32
            block: Block = samples.reshape(-1, part.layout.nb_channels).T
            if len(block) != self.channels:
                if part.layout.name not in self._matrices:
                    self._matrices[part.layout.name] = self._matrix(part.layout)
                with np.errstate(invalid="ignore"):  # infinity times zero, in a float file; the reader replaces it
                    block = self._matrices[part.layout.name] @ block
            yield np.ascontiguousarray(block)

    def _matrix(self, layout: "AudioLayout") -> Block:
        if layout.nb_channels == 1:
            return np.ones((2, 1), dtype=np.float32)
        names = [channel.name for channel in layout.channels]
        if set(names) == {"NONE"}:  # the file does not tell: what FFmpeg takes for granted, where it has an idea
            with contextlib.suppress(ValueError):
                names = [channel.name for channel in self._av.AudioLayout(f"{len(names)}c").channels]
        matrix = downmix_matrix(names) if len(names) > 2 else np.eye(2, dtype=np.float32)
        mono: Block = matrix.mean(axis=0, keepdims=True, dtype=np.float32)
        return mono if self.channels == 1 else matrix


def open_container(file: BinaryIO, *, metadata_errors: str = "replace") -> "InputContainer":
    """Open a media file with FFmpeg, which may open nothing else by itself.

    No protocol is allowed: otherwise a playlist that claims to be a song could make FFmpeg open other files, or
    addresses on the network.

    Args:
        metadata_errors: What becomes of tags that are not UTF-8, as in `bytes.decode`.

    Raises:
        av.FFmpegError: FFmpeg cannot read it.
    """
    import av

    return av.open(file, "r", options={"protocol_whitelist": "none"}, metadata_errors=metadata_errors)


def open_source(
    file: BinaryIO, path: Path, track: int = 1, *, random_access: bool = False
) -> SndfileSource | FFmpegSource:
    """Choose the decoder for a file.

    Args:
        file: An opened, unbuffered file.
        path: Its name, for messages.
        track: Which of its audio streams to read, from 1 on.
        random_access: Prefer the decoder that is faster at seeking.

    Raises:
        AudioError: Neither decoder can read the file.
    """
    start = file.read(4)
    file.seek(0)
    if track == 1 and (start in _SNDFILE_STARTS or (random_access and start == b"fLaC")):
        try:
            source = SndfileSource(file, path)
        except soundfile.LibsndfileError:
            pass  # another codec, or another format that starts alike: let FFmpeg try
        else:
            if source.is_suitable(random_access=random_access):
                return source
            source.close()
        file.seek(0)
    return FFmpegSource(file, path, track)


def undecodable(path: Path, reason: str = "it is damaged, or not audio") -> AudioError:
    """Return the error for a file, or a part of it, that no decoder can read."""
    hint = "if a player can play it, convert it first, for instance with  ffmpeg -i SONG song.flac"
    return AudioError(f"cannot decode {str(path)!r}: {reason}", hint)


def downmix_matrix(names: Sequence[str]) -> Block:
    """The (2, C) matrix that folds channels with FFmpeg's names ("FL", "FC", "LFE", "BL", ...) down to stereo.

    Recommendation ITU-R BS.775: centre and surround at -3 dB, a single rear channel at -6 dB on each side, no LFE.
    Height and unknown channels go the same way, so that none vanishes. One common factor scales the whole so that it
    cannot clip, as FFmpeg does for integer samples.
    """
    matrix: Block = np.array([_gains(name) for name in names], dtype=np.float32).T
    matrix /= max(1.0, float(matrix.sum(axis=1).max()))
    return matrix


def _gains(name: str) -> tuple[float, float]:
    """Gains of a channel on the left and on the right."""
    if name in _FRONT:
        return _FRONT[name]
    if name == "FC":
        return _HALF_POWER, _HALF_POWER
    if name.startswith("LFE"):
        return 0.0, 0.0
    if name.endswith("L"):
        return _HALF_POWER, 0.0
    if name.endswith("R"):
        return 0.0, _HALF_POWER
    return 0.5, 0.5
