"""FFmpeg's encoders (PyAV): FLAC, MP3, Opus, AAC, ALAC, and stem files, with tags and cover."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.stream import Disposition

from stemsplit.audio import lame_header, stem_file, vorbis_comments
from stemsplit.audio.decoding import Stems
from stemsplit.audio.encoders import LOUDEST, Quantiser, check_size
from stemsplit.audio.formats import Format
from stemsplit.audio.tags import FIELDS, Tags

_PROBE_BYTES = 65_536  # more than FFmpeg writes before the first sample, except for a cover

# Encoder, container, sample format, container options.
_SETTINGS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "flac": ("flac", "flac", "s32", {}),
    "mp3": ("libmp3lame", "mp3", "fltp", {"id3v2_version": "3"}),  # the version that Windows shows
    "opus": ("libopus", "ogg", "flt", {}),
    "m4a": ("aac", "mp4", "fltp", {"brand": "M4A "}),
    "alac": ("alac", "mp4", "s32p", {"brand": "M4A "}),
}

_TAGS = {name: name for name in FIELDS if name not in ("bpm", "key")}  # FFmpeg knows the names in each format
_MORE_TAGS = {
    "mp3": {"bpm": "TBPM", "key": "TKEY"},
    "flac": {"bpm": "BPM", "key": "INITIALKEY"},
    "mp4": {"bpm": "tmpo"},
}


class FFmpegEncoder:
    """FLAC, MP3, Opus, AAC and ALAC, mono or stereo, or a stem file if there are names.

    Args:
        path: The file.
        format: What to write.
        rate: Hz.
        channels: 1 or 2.
        tags: Tags and cover.
        names: Of the audio streams of a stem file.
        seed: For dither, as in `Quantiser`.
    """

    def __init__(
        self,
        path: Path,
        format: Format,
        rate: int,
        channels: int,
        *,
        tags: Tags,
        names: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        if channels not in (1, 2):
            raise ValueError(f"{format} in {channels} channels")
        self.paths: Sequence[Path] = [path]
        self._format, self._rate, self._channels, self._tags = format, rate, channels, tags
        self._names = names
        self._quantiser = Quantiser(int(format.bits), seed) if format.bits else None
        self._codec, self._muxer, self._samples, self._options = _SETTINGS[format.name]
        if format.bits == "16":
            self._samples = self._samples.replace("s32", "s16")
        self._file: BinaryIO | None = None
        self._container: OutputContainer | None = None
        self._streams: list[av.AudioStream] = []
        self._length = 0
        self._bytes = 0

    def open(self) -> None:
        path, picture = self.paths[0], self._tags.picture
        # FFmpeg does not close its file if it cannot write the beginning, so try that first.
        self._file = path.open("xb")
        self._file.write(bytes(_PROBE_BYTES + (len(picture.data) if picture else 0)))
        self._file.close()
        options = {**self._options, "fflags": "+bitexact"}
        if self._muxer == "mp4":
            options["movie_timescale"] = str(self._rate)  # unit of the length; by default milliseconds
        with _from_ffmpeg():
            # "file:" because a name could look like an address.
            self._container = av.open(f"file:{path.absolute()}", "w", format=self._muxer, container_options=options)
            for name in self._names or [""]:
                self._streams.append(self._add_stream(name))
            cover = self._add_picture()
            self._container.metadata.update(self._named_tags())
            self._container.start_encoding()
            if cover:
                self._container.mux(cover)

    def write(self, stems: Stems) -> None:
        stems = stems if self._quantiser else np.clip(stems, -LOUDEST, LOUDEST)
        count, channels, length = stems.shape
        if length == 0:
            return
        samples: npt.NDArray[Any] = stems
        if self._quantiser:
            flat = self._quantiser(stems.reshape(count * channels, length).T)
            samples = np.ascontiguousarray(flat.T).reshape(stems.shape)
            if self._format.bits == "16":
                samples = (samples >> 16).astype(np.int16)
        layout = "mono" if channels == 1 else "stereo"
        with _from_ffmpeg():
            for stream, stem in zip(self._streams, samples, strict=True):
                planes = stem if self._samples.endswith("p") else stem.T.reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), self._samples, layout)
                frame.sample_rate, frame.pts = self._rate, self._length
                frame.time_base = Fraction(1, self._rate)
                self._encode(stream, frame)
        self._length += length

    def finish(self, length: int) -> None:
        assert self._container
        with _from_ffmpeg():
            for stream in self._streams:
                self._encode(stream, None)
            self._container.close()
        self._file = self.paths[0].open("r+b")
        check_size(self._file, self._bytes)
        try:
            if self._format.name == "mp3":
                lame_header.write_padding(self._file, length)
            if self._names:
                stem_file.add_manifest(self._file, self._names[1:])
        except ValueError as error:  # FFmpeg does not report every failed write
            raise OSError(errno.ENOSPC, str(error)) from error
        self._file.close()

    def close(self) -> None:
        with suppress(OSError), _from_ffmpeg():  # a full disk, already reported
            if self._container:
                self._container.close()
        with suppress(OSError):
            if self._file:
                self._file.close()

    def _add_stream(self, name: str) -> av.AudioStream:
        assert self._container
        stream = self._container.add_stream(self._codec, rate=self._rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono" if self._channels == 1 else "stereo"
        stream.format = self._samples
        if self._format.bitrate:
            limit = 256_000 * self._channels  # libopus's; the other encoders have none
            stream.bit_rate = min(self._format.bitrate, limit) if self._format.name == "opus" else self._format.bitrate
        elif self._format.quality is not None:
            stream.codec_context.qscale = True
            stream.codec_context.global_quality = round(self._format.quality * 118)  # FFmpeg's FF_QP2LAMBDA
        if self._format.name == "mp3":
            stream.metadata["encoder"] = "LAME"  # players trust the delay in the header only with this name
        if name:
            stream.metadata["handler_name"] = name
            first = len(self._streams) == 0
            stream.disposition = Disposition.default if first else Disposition(0)
        return stream

    def _add_picture(self) -> "av.Packet[Any] | None":
        picture = self._tags.picture
        if picture is None or self._muxer == "ogg":
            return None
        assert self._container
        stream = self._container.add_mux_stream(picture.codec, width=picture.width, height=picture.height)
        stream.disposition = Disposition.attached_pic
        stream.metadata["comment"] = "Cover (front)"  # FFmpeg's name for this type of picture
        packet = av.Packet(picture.data)
        packet.stream, packet.pts, packet.dts = stream, 0, 0
        return packet

    def _named_tags(self) -> dict[str, str]:
        if self._muxer == "ogg":
            return vorbis_comments.comments(self._tags)
        return self._tags.named(_TAGS | _MORE_TAGS[self._muxer])

    def _encode(self, stream: av.AudioStream, frame: av.AudioFrame | None) -> None:
        assert self._container
        for packet in stream.encode(frame):
            self._bytes += packet.size
            self._container.mux(packet)


@contextmanager
def _from_ffmpeg() -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error
