"""Files of stems: what their headers say, and excerpts of them, read by seeking.

A stem is an audio file of its own, or a track of a `.stem.mp4`: MUSDB18 (Rafii et al., 2017) has five AAC tracks in
each, the mixture and its stems.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from stemsplit.audio.decoding import Block, Stems, open_container
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.errors import AudioError, DatasetError
from stemsplit.wording import one_line

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
PACKED = ".stem.mp4"
MIXTURE = "mixture"
TRACKS = (MIXTURE, "drums", "bass", "other", "vocals")  # of a packed song, in their order

# An AAC frame of 1024 samples is half made of the one before it; one more for what no one has thought of.
_LEAD = 2048
CHECK = "all that is wrong with a folder is told by  stemsplit data check FOLDER"
_REPLACE = f"replace the file or remove its song; {CHECK}"


@dataclass(frozen=True, slots=True)
class Shape:
    """Of an audio file, or of each track of a packed song. rate: Hz. length: samples."""

    rate: int
    channels: int
    length: int

    def __str__(self) -> str:
        return f"{self.rate} Hz, {count(self.channels, 'channel')}, {self.length} samples"


def is_packed(path: Path) -> bool:
    """Whether this is a song with all its stems in one file."""
    return path.name.lower().endswith(PACKED)


def measure(path: Path) -> Shape:
    """What a file's header says. Raises DatasetError when it cannot be read, or is packed in a way we do not know."""
    if not is_packed(path):
        with _open_sound(path) as reader:
            return Shape(reader.rate, reader.channels, reader.exact_length())
    with _opened(path) as container:
        tracks = container.streams.audio
        if len(tracks) != len(TRACKS):
            told = f"{str(path)!r} has {count(len(tracks), 'track')}, not the {len(TRACKS)} of MUSDB18"
            raise DatasetError(told, f"they are {', '.join(TRACKS)}, in this order")
        shapes = [_shape(track, path) for track in tracks]
        if odd := next((shape for shape in shapes if shape != shapes[0]), None):
            told = f"the tracks of {str(path)!r} do not fit each other ({shapes[0]}; {odd})"
            raise DatasetError(told, "get the file again")
        return shapes[0]


def read_file(path: Path, start: int, length: int) -> Block:
    """An excerpt `(C, n)` of an audio file, as far as there is one: `n <= length`. Raises DatasetError."""
    with _open_sound(path) as reader:
        return reader.excerpt(start, length)


def read_tracks(path: Path, tracks: Sequence[str], start: int, length: int) -> Stems:
    """An excerpt `(len(tracks), C, length)` of tracks of a packed song, to the sample; silence after its end.

    Raises DatasetError when the file cannot be read, or ends before its header says.
    """
    with _opened(path) as container:
        chosen = [container.streams.audio[TRACKS.index(track)] for track in tracks]
        rows = {stream.index: row for row, stream in enumerate(chosen)}
        shape = _shape(chosen[0], path)
        excerpt = np.zeros((len(tracks), shape.channels, length), np.float32)
        wanted = max(min(length, shape.length - start), 0)
        base = chosen[0].time_base
        assert base is not None  # or there would be no shape
        if start > _LEAD:
            container.seek(int((start - _LEAD) / (base * shape.rate)), stream=chosen[0])
        missing = set(rows) if wanted else set()
        for packet in container.demux(chosen) if wanted else ():
            if packet.stream.index in missing:
                for frame in cast("list[AudioFrame]", packet.decode()):
                    # Where FFmpeg puts the frame, its trimming of the encoder's delay taken into account.
                    place = round((frame.pts or 0) * base * shape.rate) - start
                    first, last = max(place, 0), min(place + frame.samples, wanted)
                    if first < last:
                        samples = _samples(frame)[:, first - place : last - place]
                        excerpt[rows[packet.stream.index], :, first:last] = samples
                    if last == wanted:
                        missing.discard(packet.stream.index)
            if not missing:
                break
        if missing:
            raise unreadable(path, "it ends before its header says")
        return excerpt


def unreadable(path: Path, reason: str) -> DatasetError:
    """Return the error for a file that is damaged."""
    return DatasetError(f"cannot read {str(path)!r}: {reason}", _REPLACE, path=path)


def count(number: int, thing: str) -> str:
    """`1 channel`, `2 channels`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


@contextmanager
def _open_sound(path: Path) -> Iterator[Reader]:
    try:
        with open_reader(path, random_access=True) as reader:
            yield reader
    except AudioError as error:
        raise DatasetError(str(error), _REPLACE, path=path) from error


@contextmanager
def _opened(path: Path) -> Iterator["InputContainer"]:
    import av  # 0.1 s, and only packed songs need it

    try:
        with path.open("rb") as file, open_container(file) as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        raise unreadable(path, one_line(error)) from error


def _shape(track: "AudioStream", path: Path) -> Shape:
    if not track.duration or not track.time_base or not track.rate:
        raise unreadable(path, "it does not say how long it is")
    return Shape(track.rate, track.channels, round(track.duration * track.time_base * track.rate))


def _samples(frame: "AudioFrame") -> Block:
    """A decoded frame as `(C, n)`; AAC gives floats, ALAC integers."""
    samples: npt.NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32, copy=False)
