"""Files of stems: their headers, and excerpts of them.

A stem is an audio file, or an audio stream of a `.stem.mp4`, as in MUSDB18 (Rafii et al., 2017), where each song is
one file of five AAC streams, the mixture and its stems.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from stemsplit.audio.decoding import Block, Stems
from stemsplit.audio.ffmpeg_source import open_container
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.audio.splice import Splice, whole
from stemsplit.errors import AudioError, DatasetError
from stemsplit.wording import one_line

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
PACKED_SUFFIX = ".stem.mp4"
MIXTURE = "mixture"
STREAMS = (MIXTURE, "drums", "bass", "other", "vocals")  # of a packed song, in this order

# Samples to decode before an excerpt: an AAC frame of 1024 overlaps the one before it; one more to be safe.
_PREROLL = 2048
CHECK_HINT = "to list all problems, run  stemsplit data check FOLDER"
_REPLACE = f"replace the file or remove its song; {CHECK_HINT}"


@dataclass(frozen=True, slots=True)
class Shape:
    """Format and length of an audio file, or of each stream of a packed song.

    Attributes:
        rate: Hz.
        channels: Number of channels.
        length: Samples.
    """

    rate: int
    channels: int
    length: int

    def __str__(self) -> str:
        return f"{self.rate} Hz, {plural(self.channels, 'channel')}, {self.length} samples"


def is_packed(path: Path) -> bool:
    """Return whether this is a song with all its stems in one file."""
    return path.name.lower().endswith(PACKED_SUFFIX)


def read_shape(path: Path) -> Shape:
    """Read the header of a file; an MP3 without a length in its header is decoded to count its samples.

    Raises:
        DatasetError: The file cannot be read, or is not a packed song like those of MUSDB18.
    """
    if not is_packed(path):
        with _open_audio(path) as reader:
            return Shape(reader.rate, reader.channels, reader.exact_length())
    with _open_packed(path) as container:
        streams = container.streams.audio
        if len(streams) != len(STREAMS):
            count = plural(len(streams), "audio stream")
            message = f"{str(path)!r} has {count} instead of the {len(STREAMS)} of MUSDB18"
            raise DatasetError(message, f"expected {', '.join(STREAMS)}, in this order", path=path)
        shapes = [_shape(stream, path) for stream in streams]
        if other := next((shape for shape in shapes if shape != shapes[0]), None):
            message = f"the audio streams of {str(path)!r} do not match each other ({shapes[0]}; {other})"
            raise DatasetError(message, "download the file again", path=path)
        return shapes[0]


def read_file(path: Path, start: int, length: int) -> Block:
    """Read an excerpt `(C, n)` of an audio file; `n < length` at its end.

    Raises:
        DatasetError: The file cannot be read.
    """
    with _open_audio(path) as reader:
        return reader.excerpt(start, length)


def read_streams(path: Path, names: Sequence[str], start: int, length: int) -> Stems:
    """Read an excerpt of some of the streams of a packed song, exact to the sample.

    Args:
        path: The `.stem.mp4`.
        names: Of `STREAMS`.
        start: Samples.
        length: Samples; silence follows the end of the song.

    Returns:
        `(len(names), C, length)`, float32.

    Raises:
        DatasetError: The file cannot be read or is truncated.
    """
    with _open_packed(path) as container:
        chosen = [container.streams.audio[STREAMS.index(name)] for name in names]
        rows = {stream.index: row for row, stream in enumerate(chosen)}
        shape = _shape(chosen[0], path)
        excerpt = np.zeros((len(names), shape.channels, length), np.float32)
        wanted = max(min(length, shape.length - start), 0)
        base = chosen[0].time_base
        assert base is not None  # or there would be no shape
        if start > _PREROLL:
            container.seek(int((start - _PREROLL) / (base * shape.rate)), stream=chosen[0])
        missing = set(rows) if wanted else set()
        for packet in container.demux(chosen) if wanted else ():
            if packet.stream.index in missing:
                for frame in cast("list[AudioFrame]", packet.decode()):
                    # FFmpeg's timestamps take the trimmed delay of the encoder into account.
                    position = round((frame.pts or 0) * base * shape.rate) - start
                    first, last = max(position, 0), min(position + frame.samples, wanted)
                    if first < last:
                        samples = _samples(frame)[:, first - position : last - position]
                        excerpt[rows[packet.stream.index], :, first:last] = samples
                    if last == wanted:
                        missing.discard(packet.stream.index)
            if not missing:
                break
        if missing:
            raise unreadable(path, "it is shorter than its header says")
        return excerpt


def unreadable(path: Path, reason: str) -> DatasetError:
    """Return the error for a file that is damaged."""
    return DatasetError(f"cannot read {str(path)!r}: {reason}", _REPLACE, path=path)


def plural(number: int, noun: str) -> str:
    """Return a number and a noun: `1 channel`, `2 channels`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@contextmanager
def _open_audio(path: Path) -> Iterator[Reader]:
    try:
        with open_reader(path, random_access=True) as reader:
            yield reader
    except AudioError as error:
        raise DatasetError(str(error), _REPLACE, path=path) from error


@contextmanager
def _open_packed(path: Path) -> Iterator["InputContainer"]:
    import av  # 0.1 s, and only packed songs need it

    try:
        with path.open("rb", buffering=0) as file, open_container(Splice(file, whole(file))) as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        raise unreadable(path, one_line(error)) from error


def _shape(stream: "AudioStream", path: Path) -> Shape:
    if not stream.duration or not stream.time_base or not stream.rate:
        raise unreadable(path, "its length is missing")
    return Shape(stream.rate, stream.channels, round(stream.duration * stream.time_base * stream.rate))


def _samples(frame: "AudioFrame") -> Block:
    """Convert a decoded frame to `(C, n)`; AAC gives floats, ALAC integers."""
    samples: npt.NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32, copy=False)
