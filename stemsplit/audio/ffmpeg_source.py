"""FFmpeg as a decoder, which reads nearly everything."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import chain, dropwhile, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stemsplit.audio import lame_header
from stemsplit.audio.channels import downmix_matrix
from stemsplit.audio.decoding import Block, Damage, encrypted, undecodable
from stemsplit.audio.foreign_tags import is_tag
from stemsplit.audio.frame_headers import FrameHeader, choose_format, read_frame_header
from stemsplit.audio.pcm_headers import PcmHeader
from stemsplit.audio.splice import Splice
from stemsplit.audio.timeline import Timeline
from stemsplit.errors import AudioError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.layout import AudioLayout
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

# Samples to decode before an excerpt: an MP3 frame uses bits of up to ten frames before it, and Opus needs 80 ms.
_PREROLL = 16_384
# FFmpeg's names for containers that state their length, so that it is not estimated from the size of the file; the
# first of them state it to the sample.
_SAMPLE_EXACT = {"flac", "wv", "tta", "ape"}
_EXACT = {*_SAMPLE_EXACT, *"mp3 mov matroska asf wav aiff caf ogg au w64 avi flv dsf iff mpc mpc8 rm voc".split()}
_SELF_DESCRIBING = {"mp3", "aac", "ac3", "mpegts", "mpeg", "flv", "avi"}  # may hold frames with headers of their own
_STATE_THEIR_END = {"matroska", "ogg", "asf"}  # and not their length
_BARE = {"mp3", "aac", "ac3", "eac3", "dts"}  # frames without a container: their timestamps only count packets
_LONGEST_GARBAGE = 2**20  # bytes
_LONGEST_HOLE = 60  # seconds, and
_MOST_SILENCE = 10  # times what can be decoded
_ADTS_HEADER = 7  # bytes
_FINE = Fraction(1, 8_000)  # seconds, a unit of exact timestamps
_TOLERANCE = 0.01  # seconds by which such timestamps may be off: encoders round, and recorders do worse
_ROUGH_TOLERANCE = 0.05  # seconds, for other timestamps
_VORBIS_TOLERANCE = 0.1  # seconds: within a page, timestamps of Vorbis are guesses
_SURVEYED_PACKETS = 200_000  # at most: 80 minutes of MP3, demuxed in a second or two
_SURVEYED_BYTES = 2**28  # at most: films are larger
_LONGEST_BLOCK = 65_536  # samples
# Samples for which a file needs at least a byte; no encoder comes near. Where a header states more, it is wrong.
_DENSEST = {"mp3float": 128, "mp3": 128, "mp2float": 128, "aac": 512, "opus": 4_096, "vorbis": 4_096}
_DENSEST_LOSSLESS = 8_192  # FLAC stores 65535 samples of silence in 11 bytes
_SHORTEST_EDIT = 0.01  # of all sound in an MP4; edit lists with less are mistakes, and are ignored
# Sample entries of sound in an MP4, and those that are encrypted (ISO/IEC 14496-12, 8.12; FairPlay; Audible).
_AUDIO_ENTRIES = re.compile(
    rb"stsd.{12}(enca|drms|aavd|mp4a|alac|fLaC|Opus|ac-3|ec-3|samr|sawb|sowt|twos|lpcm|in24|in32|fl32|\.mp3)", re.DOTALL
)
_ENCRYPTED_ENTRIES = {b"enca", b"drms", b"aavd"}
_ENCRYPTED_ASF = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")  # GUID of its Content Encryption Object
_SEARCHED = 2**22  # bytes at either end of a file


class FFmpegSource:
    """FFmpeg: an audio stream of any file, downmixed to at most two channels.

    Where timestamps tell that something is lost, silence stands in, so that the rest keeps its place.

    Args:
        file: The file as it should see it.
        path: Its path, for messages.
        audio_stream: Which of the audio streams to read, from 1 on.
        header: What is known of the header from elsewhere, or None.
        is_whole: Whether it is known that nothing is missing, whatever timestamps and lengths say.

    Attributes:
        rate: Hz, the highest in the file.
        channels: 1 or 2.
        downmixed_from: Number of channels in the file if it was more than two, else None.
        estimated_length: Samples, or None if not even an estimate is known.
        exact_length: Samples, if a header gives them exactly, else None.
        stated_length: Samples according to a header that can be trusted, or None.
        tolerance: By how much the stated length may be wrong, seconds.
        damage: What could not be decoded so far.
        codec: FFmpeg's name of the decoder.

    Raises:
        AudioError: The file cannot be decoded, or has no such audio stream.
    """

    def __init__(
        self,
        file: Splice,
        path: Path,
        audio_stream: int = 1,
        header: PcmHeader | None = None,
        *,
        is_whole: bool = False,
    ) -> None:
        import av  # 0.1 s, and needed for few files

        self._av = av
        self._file = file
        self._path = path
        self._matrices: dict[str, Block] = {}
        self._mean_size = 0.0  # bytes of a packet
        self._aside, self._dropped = file.again(), 0  # to look for bytes that FFmpeg has dropped
        self.damage = Damage()
        self._failures = 0  # before the last frame
        if _is_encrypted(file):
            raise encrypted(path)
        self._container = self._open()
        try:
            self._stream = stream = self._find_stream(audio_stream)
            if self._is_edited_away(stream):
                self._container.close()
                self._container = self._open({"advanced_editlist": "0"})
                self._stream = stream = self._find_stream(audio_stream)
            if "enc_key_id" in stream.metadata:  # Matroska
                raise encrypted(path)
            self._kind = self._container.format.name.split(",")[0]
            self._counts_packets = self._kind in _BARE
            first = next(packets := self._demux(stream), None)
            self._packets = chain([first] if first else [], packets)
            self._timeline: Timeline | None = None
            self._frames = self._decode(self._packets)
            # The first frame is more reliable about sample rate and channels than many headers.
            self._first = next(self._frames, None)
            parameters = self._first or stream.codec_context
            if not parameters or not parameters.sample_rate or not parameters.layout.nb_channels:
                raise undecodable(path)
            self.rate, count = self._survey(audio_stream, parameters.sample_rate, parameters.layout.nb_channels)
            self.channels = min(2, count)
            self.downmixed_from = count if count > 2 else None
            self.estimated_length, self.stated_length = self._read_lengths(stream, first)
            self.codec = stream.codec_context.name if stream.codec_context else ""
            self.tolerance = 0.05 if self._kind in _SAMPLE_EXACT else 0.2 if self._kind == "mp3" else 0.5
            if header:
                self.stated_length = header.stated_length
                self.tolerance = 0.01 if header.is_plain else 0.5
            if is_whole:
                self.stated_length = None
            self.exact_length: int | None = self.stated_length if self._kind == "mp3" else None
            time_base = stream.time_base or Fraction(1, self.rate)
            self._samples_per_tick = time_base * self.rate
            tolerance = _TOLERANCE if time_base <= _FINE else max(_ROUGH_TOLERANCE, float(2 * time_base))
            if self.codec == "vorbis":
                tolerance = _VORBIS_TOLERANCE
            self._timeline = None if is_whole else Timeline(self.rate, time_base, tolerance, self.stated_length)
            if not self._first and (self.damage.failures or stream.duration):
                raise undecodable(path)
        except BaseException:
            self._container.close()
            raise

    @property
    def error(self) -> OSError | None:
        """Why the file cannot be read any further, or None."""
        return self._file.error

    def blocks(self) -> Iterator[Block]:
        """Yield blocks `(channels, n)` at `rate`, as far as the file can be decoded."""
        length = 0
        for frame, block in self._convert_all(self._with_first(self._frames)):
            hole = self._hole_before(frame, length) if frame else 0
            if 0 < hole <= self._longest_hole(length):
                self.damage.holes.append((length, hole))
                length += hole
                yield from (np.zeros((self.channels, size), np.float32) for size in _sizes(hole))
            if self.exact_length is not None and self.damage.holes:  # FFmpeg cuts padding by counting what it decodes
                block = np.ascontiguousarray(block[:, : max(0, self.exact_length - length)])
            length += block.shape[1]
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

    def _open(self, options: Mapping[str, str] | None = None) -> "InputContainer":
        try:
            return open_container(self._file, options)
        except Exception as error:  # PyAV raises more than its own class for damaged files
            raise self._file.error or undecodable(self._path) from error

    def _find_stream(self, audio_stream: int) -> "AudioStream":
        path, streams = self._path, self._container.streams.audio
        if not streams:
            raise AudioError(f"{str(path)!r} has no audio", "name a song, or a film with sound", path=path)
        count = len(streams)
        if audio_stream > count:
            available = "only one audio track" if count == 1 else f"only {count} audio tracks"
            hint = "leave out --track" if count == 1 else f"choose one from 1 to {count} with --track"
            raise AudioError(f"{str(path)!r} has {available}, not {audio_stream}", hint, path=path)
        return streams[audio_stream - 1]

    def _is_edited_away(self, stream: "AudioStream") -> bool:
        """Return whether the edit list of an MP4 leaves next to nothing of its sound."""
        if "mp4" not in self._container.format.name or not stream.time_base or not stream.codec_context:
            return False
        samples = stream.frames * (stream.codec_context.frame_size or 1)
        kept = (stream.duration or 0) * stream.time_base * (stream.codec_context.sample_rate or 0)
        return samples > 0 and kept < _SHORTEST_EDIT * samples

    def _survey(self, audio_stream: int, rate: int, channels: int) -> tuple[int, int]:
        """Return the highest rate and most channels in the file, given those of the first frame."""
        if self._kind not in _SELF_DESCRIBING or not self._first:
            return rate, channels
        headers = self._frame_headers(audio_stream)
        first = next(headers, None)
        found = choose_format(chain([first], headers)) if first else None
        if not first or not found:
            return rate, channels
        if self._kind == "mp3":
            return found
        # In AAC, frames state the rate and channels before their extension by SBR and PS.
        return rate * found[0] // first.rate, channels if found[1] == first.channels else found[1]

    def _frame_headers(self, audio_stream: int) -> "Iterator[FrameHeader]":
        with contextlib.suppress(Exception), open_container(self._file.again()) as container:  # as far as it goes
            for packet in islice(container.demux(container.streams.audio[audio_stream - 1]), _SURVEYED_PACKETS):
                if packet.size and (header := read_frame_header(bytes(memoryview(packet)[:8]))):
                    yield header
                if (packet.pos or 0) > _SURVEYED_BYTES:
                    break

    def _hole_before(self, frame: "AudioFrame", position: int) -> int:
        """Return how many samples are missing before a frame that would be at a position in the song."""
        if self._timeline is None:
            return 0
        if self._counts_packets:
            return self._timeline.lost_before(position)
        has_failed, self._failures = self.damage.failures > self._failures, self.damage.failures
        return self._timeline.hole_before(frame.pts, position, certain=has_failed) if frame.pts is not None else 0

    def _longest_hole(self, position: int) -> int:
        """Return how much silence may stand in, so that a damaged file cannot make hours of it."""
        silence = self.damage.silence
        return _LONGEST_HOLE * self.rate + _MOST_SILENCE * (position - silence) - silence

    def _with_first(self, frames: Iterator["AudioFrame"]) -> Iterator["AudioFrame"]:
        return chain([self._first] if self._first else [], frames)

    def _demux(self, stream: "AudioStream") -> Iterator["Packet[AudioStream]"]:
        """Yield packets up to where the container ends or breaks."""
        end = 0  # of the last packet
        try:
            for packet in self._container.demux(stream):
                end = (packet.pos or end) + packet.size
                yield packet
        except IndexError:  # PyAV at the end, flushing a stream that appeared late and that it does not know
            pass
        except Exception:  # PyAV raises more than its own class for damaged files
            is_padding = self._kind == "aac" and end + _ADTS_HEADER > self._file.size
            self.damage.failures += not is_padding

    def _decode(self, packets: Iterable["Packet[AudioStream]"]) -> Iterator["AudioFrame"]:
        """Decode the packets, skipping damaged ones."""
        zeros = 0  # packets of zeros, which are no damage at the end
        for packet in packets:
            self._count_dropped(packet)
            try:
                frames = packet.decode()
            except Exception:  # PyAV raises more than its own class for damaged files
                data = bytes(packet)
                if not data.strip(b"\0"):
                    zeros += 1
                elif not is_tag(data):
                    self.damage.failures += 1
                    self._count_garbage(packet, 1)
                continue
            if frames:
                self.damage.failures, zeros = self.damage.failures + zeros, 0
                self.damage.successes += 1
                yield from frames
                self._count_garbage(packet, 0)

    def _count_dropped(self, packet: "Packet[AudioStream]") -> None:
        """Count as lost what FFmpeg has dropped before a frame of AAC: it does not even count those bytes."""
        if self._kind != "aac" or not packet.size or packet.pos is None or not self._timeline:
            return
        start, head = packet.pos + self._dropped, bytes(memoryview(packet)[:16])
        self._aside.seek(start)
        ahead = self._aside.read(_LONGEST_GARBAGE) or b""
        if (dropped := ahead.find(head)) > 0:
            self._dropped += dropped
            frames = round(dropped / (self._mean_size or packet.size))
            self._timeline.lose(frames * (packet.duration or 0))

    def _count_garbage(self, packet: "Packet[AudioStream]", frames: int) -> None:
        """Count as lost a number of frames, and as many as garbage behind them may stand for."""
        if not self._counts_packets or not packet.size or not self._timeline:
            return
        header = read_frame_header(bytes(memoryview(packet)[:8]))
        size = round(header.size if header and header.size else self._mean_size or packet.size)
        garbage = packet.size - size
        if garbage <= 0:
            self._mean_size = packet.size if not self._mean_size else 0.9 * self._mean_size + 0.1 * packet.size
        elif not is_tag(bytes(memoryview(packet)[size : size + 16])):
            frames += round(garbage / (self._mean_size or size))
        self._timeline.lose(frames * (packet.duration or 0))

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
        begin = Fraction((container.start_time or 0) * self.rate, self._av.time_base)
        if self._kind in _STATE_THEIR_END and 0 < begin < length:
            length -= begin
        codec = stream.codec_context.name if stream.codec_context else ""
        densest = 8 if codec.startswith(("pcm", "adpcm")) else _DENSEST.get(codec, _DENSEST_LOSSLESS)
        if not 0 < length <= self._file.size * densest:
            return None, None
        is_of_stream = bool(stream.duration) or len(container.streams) == 1
        is_stated = self._kind in _EXACT and is_of_stream
        if self._kind == "mp3":
            samples = lame_header.count_samples(self._file, first.pos) if first is not None and first.pos else 0
            # FFmpeg cuts the encoder's delay and padding; where the header seems wrong to it, it estimates.
            is_stated = 0 <= samples - length <= lame_header.LONGEST_PADDING
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


def open_container(
    file: Splice, options: Mapping[str, str] | None = None, *, format: str | None = None
) -> "InputContainer":
    """Open a media file with FFmpeg, which may not open any other file by itself.

    No protocol is allowed: otherwise a playlist that claims to be a song could make FFmpeg open other files, or
    addresses on the network. Tags that are not UTF-8 have surrogates in place of the bytes that do not fit.

    Args:
        file: The file as FFmpeg should see it.
        options: More of FFmpeg's options.
        format: FFmpeg's name of its format, if it is known.

    Raises:
        av.FFmpegError: FFmpeg cannot read it. Damaged files make PyAV raise other errors as well.
    """
    import av

    file.seek(0)
    file.name = file.file_name  # its extension helps FFmpeg to find out the format
    settings: dict[str, Any] = {"options": {"protocol_whitelist": "none", **(options or {})}, "format": format}
    if hasattr(av.container.Container, "metadata_errors"):  # versions without it decode all tags like this
        settings["metadata_errors"] = "surrogateescape"
    container: InputContainer = av.open(file, "r", **settings)
    return container


def _is_encrypted(file: Splice) -> bool:
    """Return whether all sound of an MP4 or ASF is encrypted; FFmpeg only fails to decode it, or decodes noise."""
    file.seek(0)
    head = file.read(16)
    is_mp4, is_asf = head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"), head.startswith(b"0&\xb2u")
    ends = b""
    if is_mp4 or is_asf:
        file.seek(0)
        ends = file.read(_SEARCHED)
    if is_mp4 and file.size > _SEARCHED:  # the description of the tracks may be at the end
        file.seek(max(_SEARCHED, file.size - _SEARCHED))
        ends += file.read(_SEARCHED)
    file.seek(0)
    entries = set(_AUDIO_ENTRIES.findall(ends)) if is_mp4 else set()
    return (bool(entries) and entries <= _ENCRYPTED_ENTRIES) or (is_asf and _ENCRYPTED_ASF in ends)


def _sizes(length: int) -> Iterator[int]:
    """Cut a length into blocks."""
    return (min(_LONGEST_BLOCK, length - start) for start in range(0, length, _LONGEST_BLOCK))
