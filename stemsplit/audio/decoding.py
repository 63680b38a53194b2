"""The two decoders behind `Reader`, and the choice between them, which was made by measurement.

* libsndfile reads PCM (WAV, AIFF, CAF, AU, W64, RF64) and Ogg Vorbis with one or two channels.
* FFmpeg (PyAV) reads everything else. That includes MP3, because libsndfile only estimates its length and silently
  stops there (halfway through a VBR file without a Xing header) and prints to the terminal; FLAC, because libsndfile
  gives up at the first damaged frame; and everything with more than two channels, because libsndfile does not say
  which loudspeaker a channel belongs to.

Both trim the encoder's delay and padding wherever the file states them, as the ffmpeg program does.

For random access, as in training, libsndfile also reads FLAC and files with more than two channels, because it seeks
faster.
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
_UNKNOWN_SIZE = 0x7FFF_0000  # bytes; writers that cannot go back to correct the header state this much or more
# Samples to decode before an excerpt: an MP3 frame uses bits of up to ten frames before it, and Opus needs 80 ms.
_PREROLL = 16_384
_OGG_PAGE = 65_307  # bytes, the largest page
# FFmpeg's names for containers that state their length, so that it is not estimated from the size of the file.
_EXACT_CONTAINERS = {"flac", "mov", "matroska", "asf", "wv", "tta", "ape", "wav", "aiff", "caf", "ogg"}

_HALF_POWER = 0.5**0.5  # -3 dB
_LEFT, _RIGHT = (1.0, 0.0), (0.0, 1.0)
_FRONT = {"FL": _LEFT, "FLC": _LEFT, "DL": _LEFT, "WL": _LEFT, "FR": _RIGHT, "FRC": _RIGHT, "DR": _RIGHT, "WR": _RIGHT}


class SndfileSource:
    """libsndfile: PCM and Ogg Vorbis with one or two channels; for random access, also FLAC and more channels.

    Args:
        file: An opened, unbuffered file.
        path: Its path, for messages.

    Attributes:
        rate: Hz.
        channels: As in the file.
        downmixed_from: None.
        estimated_length: Samples; exact here.
        exact_length: Samples.
        stated_length: Samples according to the header, even if the file is truncated, or None.
        failures: Blocks that could not be decoded so far.
        chained: Whether more recordings follow that are not read.

    Raises:
        soundfile.LibsndfileError: The file cannot be read by libsndfile.
    """

    downmixed_from = None

    def __init__(self, file: BinaryIO, path: Path) -> None:
        # By descriptor, not by name, so that names that are not UTF-8, or end in .raw, need no special treatment.
        self._file = file
        self._path = path
        self._sound = soundfile.SoundFile(file.fileno(), closefd=False)
        self.rate: int = self._sound.samplerate
        self.channels: int = self._sound.channels
        self.estimated_length: int = self._sound.frames
        self.exact_length: int | None = self.estimated_length
        self.stated_length = self._read_stated_length()
        self.failures = 0
        self.chained = False
        if self._sound.format == "OGG":
            self._read_last_page()

    def is_suitable(self, *, random_access: bool) -> bool:
        """Whether libsndfile is the better decoder for this file.

        It is not if it finds no samples: FFmpeg can read a recording that was interrupted before its length was
        written.
        """
        has_samples = self.estimated_length > 0 or self._sound.format == "OGG"
        readable = self._sound.subtype in (*_SAMPLE_BYTES, "VORBIS")
        return has_samples and readable and (random_access or (self.channels <= 2 and self._sound.format != "FLAC"))

    def blocks(self) -> Iterator[Block]:
        """Yield blocks `(channels, n)`, `n <= 65536`, as far as the file can be decoded."""
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
            self._sound.seek(min(start, self.estimated_length))
            samples: Block = self._sound.read(length, dtype="float32", always_2d=True).T
        except soundfile.LibsndfileError as error:
            raise undecodable(self._path, error.error_string.removeprefix("Error : ").rstrip(". ")) from error
        return samples

    def close(self) -> None:
        """Close the decoder, not the file; a second call does nothing."""
        self._sound.close()

    def _read_stated_length(self) -> int | None:
        # libsndfile corrects the length of a truncated file; only its log still shows the length in the header.
        log = re.search(r"(?:data|SSND)\s*: (\d+) \(should be", self._sound.extra_info)
        if self._sound.subtype not in _SAMPLE_BYTES:
            return None
        if log is None:
            return int(self.estimated_length)  # complete, unless the file is truncated while it is being read
        if int(log[1]) >= _UNKNOWN_SIZE:
            return None
        frame_bytes: int = _SAMPLE_BYTES[self._sound.subtype] * self.channels
        return int(log[1]) // frame_bytes

    def _read_last_page(self) -> None:
        """Read the length of an Ogg file, and whether it ends in the stream that it began with, off its last page."""
        position = self._file.tell()
        self._file.seek(0)
        first = self._file.read(18)
        self._file.seek(-min(2 * _OGG_PAGE, self._file.seek(0, 2)), 2)
        tail = self._file.read()
        self._file.seek(position)
        last = tail[tail.rfind(b"OggS\x00") :][:18]
        if len(last) == 18:  # RFC 3533: 6 bytes, the granule position (in Vorbis, samples), the stream's serial number
            self.chained = last[14:] != first[14:]
            self.stated_length = None if self.chained else int.from_bytes(last[6:14], "little", signed=True)


class FFmpegSource:
    """FFmpeg: an audio stream of any file, downmixed to at most two channels.

    Args:
        file: An opened, unbuffered file.
        path: Its path, for messages.
        audio_stream: Which of the audio streams to read, from 1 on.

    Attributes:
        rate: Hz.
        channels: 1 or 2.
        downmixed_from: Number of channels in the file if it was more than two, else None.
        estimated_length: Samples, or None if not even an estimate is known.
        exact_length: Samples, if a header gives them exactly, else None.
        stated_length: Samples according to a header that can be trusted, or None.
        failures: Packets that could not be decoded so far.
        chained: Whether more recordings follow that are not read.

    Raises:
        AudioError: The file cannot be decoded, or has no such audio stream.
    """

    chained = False

    def __init__(self, file: BinaryIO, path: Path, audio_stream: int = 1) -> None:
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
                raise AudioError(f"{str(path)!r} has no audio", "name a song, or a film with sound", path=path)
            count = len(self._container.streams.audio)
            if audio_stream > count:
                available = "only one audio track" if count == 1 else f"only {count} audio tracks"
                hint = "leave out --track" if count == 1 else f"choose one from 1 to {count} with --track"
                raise AudioError(f"{str(path)!r} has {available}, not {audio_stream}", hint, path=path)
            self._stream = stream = self._container.streams.audio[audio_stream - 1]
            first = next(packets := self._demux(stream), None)
            self._packets = chain([first] if first else [], packets)
            self._frames = self._decode(self._packets)
            # The first frame is more reliable about sample rate and channels than many headers.
            self._first = next(self._frames, None)
            parameters = self._first or stream.codec_context
            if not parameters or not parameters.sample_rate or not parameters.layout.nb_channels:
                raise undecodable(path)
            count = parameters.layout.nb_channels
            self.rate: int = parameters.sample_rate
            self.channels = min(2, count)
            self.downmixed_from = count if count > 2 else None
            self.estimated_length, self.stated_length = self._read_lengths(stream, first)
            self.exact_length: int | None = self.stated_length if self._container.format.name == "mp3" else None
            self._samples_per_tick = (stream.time_base or Fraction(1, self.rate)) * self.rate
            if not self._first and (self.failures or self.stated_length):
                raise undecodable(path)
        except BaseException:
            self._container.close()
            raise

    def blocks(self) -> Iterator[Block]:
        """Yield blocks `(channels, n)` at `rate`, as far as the file can be decoded."""
        for _, block in self._convert_all(self._with_first(self._frames)):
            yield block

    def excerpt(self, start: int, length: int) -> Block:
        """Return samples `(channels, n)` from `start` on; `n < length` at the end of the song.

        It can be called once, in place of `blocks`.

        Raises:
            AudioError: Part of the excerpt cannot be decoded.
        """
        origin = self._first.pts if self._first else None
        frames = self._with_first(self._frames)
        if origin is not None and start > _PREROLL:
            needed = int(origin + (start - _PREROLL) / self._samples_per_tick)
            if self._container.format.name == "mp3":  # in other formats, timestamps after seeking may be wrong
                self._container.seek(needed, stream=self._stream)
            packets = dropwhile(lambda p: p.pts is not None and p.pts + (p.duration or 0) < needed, self._packets)
            frames = self._decode(packets)
        excerpt = np.zeros((self.channels, length), np.float32)
        position = 0  # of the next block in the song
        filled = 0  # samples of the excerpt
        end = 0  # of the excerpt, as far as the song goes
        for frame, block in self._convert_all(frames):
            if frame is not None and frame.pts is not None and origin is not None:
                position = round((frame.pts - origin) * self._samples_per_tick)
            first, last = max(position, start) - start, min(position + block.shape[1], start + length) - start
            if first < last:
                excerpt[:, first:last] = block[:, start + first - position : start + last - position]
                filled, end = filled + last - first, max(end, last)
            position += block.shape[1]
            if position >= start + length:
                break
        if filled < end:
            raise undecodable(self._path, f"{end - filled} samples are damaged")
        return excerpt[:, :end]

    def close(self) -> None:
        """Close the decoder, not the file; a second call does nothing."""
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
        except IndexError:  # PyAV at the end, flushing a stream that appeared late and that it does not know
            pass

    def _decode(self, packets: Iterable["Packet[AudioStream]"]) -> Iterator["AudioFrame"]:
        """Decode the packets, skipping damaged ones."""
        for packet in packets:
            try:
                frames = packet.decode()
            except self._av.FFmpegError:
                self.failures += 1
            else:
                yield from frames

    def _read_lengths(
        self, stream: "AudioStream", first: "Packet[AudioStream] | None"
    ) -> tuple[int | None, int | None]:
        """Return estimated and stated length; for films whose streams have none, the film's length is the estimate."""
        container = self._container
        if stream.duration and stream.time_base:
            length = stream.duration * stream.time_base * self.rate
        elif container.duration:
            length = Fraction(container.duration * self.rate, self._av.time_base)
        else:
            return None, None
        kind = container.format.name.split(",")[0]
        is_of_stream = bool(stream.duration) or len(container.streams) == 1
        is_stated = kind in _EXACT_CONTAINERS and is_of_stream
        if kind == "mp3" and first is not None and first.pos and length.denominator == 1:
            is_stated = lame_header.has_frame_count(self._file, first.pos)
        return round(length), round(length) if is_stated else None

    def _convert_all(self, frames: Iterable["AudioFrame"]) -> Iterator[tuple["AudioFrame | None", Block]]:
        """Yield each frame and its samples; and None with the samples still buffered when the sample format ends."""
        kind: tuple[str, str, int] | None = None
        converter: AudioResampler | None = None
        for frame in frames:
            if kind != (kind := (frame.format.name, frame.layout.name, frame.sample_rate)):
                for block in self._convert(converter, None):
                    yield None, block
                # Interleaved, because PyAV crashes on planar frames with eight or more channels.
                converter = self._av.AudioResampler("flt", frame.layout, self.rate)
            for block in self._convert(converter, frame):
                yield frame, block
        for block in self._convert(converter, None):
            yield None, block

    def _convert(self, converter: "AudioResampler | None", frame: "AudioFrame | None") -> Iterator[Block]:
        """Convert a frame of any sample format to blocks `(channels, n)`; None flushes the converter."""
        for part in converter.resample(frame) if converter else []:
            samples: npt.NDArray[Any] = part.to_ndarray()  # (1, n * C), float32
            block: Block = samples.reshape(-1, part.layout.nb_channels).T
            if len(block) != self.channels:
                if part.layout.name not in self._matrices:
                    self._matrices[part.layout.name] = self._matrix(part.layout)
                with np.errstate(invalid="ignore"):  # infinity times zero in a float file; the reader replaces it
                    block = self._matrices[part.layout.name] @ block
            yield np.ascontiguousarray(block)

    def _matrix(self, layout: "AudioLayout") -> Block:
        if layout.nb_channels == 1:
            return np.ones((2, 1), dtype=np.float32)
        names = [channel.name for channel in layout.channels]
        if set(names) == {"NONE"}:  # unknown layout: FFmpeg's default for this number of channels, if it has one
            with contextlib.suppress(ValueError):
                names = [channel.name for channel in self._av.AudioLayout(f"{len(names)}c").channels]
        matrix = downmix_matrix(names) if len(names) > 2 else np.eye(2, dtype=np.float32)
        mono: Block = matrix.mean(axis=0, keepdims=True, dtype=np.float32)
        return mono if self.channels == 1 else matrix


def open_container(file: BinaryIO, *, metadata_errors: str = "replace") -> "InputContainer":
    """Open a media file with FFmpeg, which may not open any other file by itself.

    No protocol is allowed: otherwise a playlist that claims to be a song could make FFmpeg open other files, or
    addresses on the network.

    Args:
        file: An opened file.
        metadata_errors: How to decode tags that are not UTF-8: the `errors` of `bytes.decode`.

    Raises:
        av.FFmpegError: FFmpeg cannot read it.
    """
    import av

    return av.open(file, "r", options={"protocol_whitelist": "none"}, metadata_errors=metadata_errors)


def open_source(
    file: BinaryIO, path: Path, audio_stream: int = 1, *, random_access: bool = False
) -> SndfileSource | FFmpegSource:
    """Choose the decoder for a file.

    Args:
        file: An opened, unbuffered file.
        path: Its path, for messages.
        audio_stream: Which of its audio streams to read, from 1 on.
        random_access: Prefer the decoder that is faster at seeking.

    Raises:
        AudioError: Neither decoder can read the file.
    """
    start = file.read(4)
    file.seek(0)
    if audio_stream == 1 and (start in _SNDFILE_STARTS or (random_access and start == b"fLaC")):
        try:
            source = SndfileSource(file, path)
        except soundfile.LibsndfileError:
            pass  # another codec, or another format with the same first bytes: let FFmpeg try
        else:
            if source.is_suitable(random_access=random_access):
                return source
            source.close()
        file.seek(0)
    return FFmpegSource(file, path, audio_stream)


def undecodable(path: Path, reason: str = "it is damaged, or not audio") -> AudioError:
    """Return the error for a file, or a part of it, that no decoder can read."""
    hint = "if a player can play it, convert it first, for instance with  ffmpeg -i SONG song.flac"
    return AudioError(f"cannot decode {str(path)!r}: {reason}", hint, path=path)


def downmix_matrix(names: Sequence[str]) -> Block:
    """Return the matrix that downmixes channels to stereo, as in Recommendation ITU-R BS.775.

    Centre and surround get -3 dB, a single rear channel -6 dB on each side, and LFE is left out. Height channels have
    the gains of surround and rear, unknown ones those of a single rear channel, so that none is lost. The matrix is
    scaled so that the result cannot clip, as FFmpeg does for integer samples.

    Args:
        names: FFmpeg's names of the channels: "FL", "FC", "LFE", "BL" and so on.

    Returns:
        `(2, C)`.
    """
    matrix: Block = np.array([_gains(name) for name in names], dtype=np.float32).T
    matrix /= max(1.0, float(matrix.sum(axis=1).max()))
    return matrix


def _gains(name: str) -> tuple[float, float]:
    """Return a channel's gains on the left and on the right."""
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
