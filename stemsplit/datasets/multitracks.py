"""Songs whose stems are known, for training and evaluation.

A song is a folder with a file for each stem, as in MUSDB18-HQ, or one `.stem.mp4` with all of them, as in MUSDB18.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stemsplit.audio.decoding import Block
from stemsplit.datasets.index import Index, open_index
from stemsplit.datasets.stem_files import (
    CHECK_HINT,
    MIXTURE,
    PACKED_SUFFIX,
    STREAMS,
    SUFFIXES,
    Shape,
    is_packed,
    plural,
    read_file,
    read_streams,
    unreadable,
)
from stemsplit.errors import DatasetError
from stemsplit.wording import one_line


@dataclass(frozen=True, slots=True)
class Multitrack:
    """A song and its stems.

    Attributes:
        name: The song's path below the dataset's folder, without a suffix.
        stems: The file of each stem by name; all of them may be in one `.stem.mp4`.
        rate: Hz.
        channels: Of each stem.
        length: Samples.
        mixture: A file with the mixture, or None. The sum of the stems may differ from it a little, as in MUSDB18.
    """

    name: str
    stems: Mapping[str, Path]
    rate: int
    channels: int
    length: int
    mixture: Path | None = None


@dataclass(slots=True)
class MultitrackFiles:
    """The files of a song, before any was opened.

    Attributes:
        name: As in `Multitrack`.
        path: The folder or file of the song.
        stems: The files that match each stem's name; more than one is an error.
        mixture: A file with the mixture, or None.
    """

    name: str
    path: Path
    stems: dict[str, list[Path]] = field(default_factory=dict)
    mixture: Path | None = None


def find_songs(folder: Path, stems: Sequence[str]) -> list[Multitrack]:
    """Return the songs below a folder, sorted by name.

    A song is a folder with a file `<stem>.<wav|flac|ogg|mp3|aiff>`, or a file `<song>.stem.mp4`. A stem without a file
    is silent in that song. Headers are cached, so that only files that have changed are opened again.

    Args:
        folder: The dataset.
        stems: Names of the stems to look for.

    Raises:
        DatasetError: There are no songs, or the stems of a song cannot be read or do not match each other.
    """
    with open_index(folder) as index:
        return [read_multitrack(files, index) for files in find_files(folder, stems)]


def find_files(folder: Path, stems: Sequence[str]) -> list[MultitrackFiles]:
    """Return the files of all songs below a folder, sorted by path, without opening them.

    Raises:
        DatasetError: There are none.
    """
    if not folder.is_dir():
        raise DatasetError(f"{str(folder)!r} is not a folder", "give a folder with one folder of stems for each song")
    packed = [stem for stem in stems if stem in STREAMS[1:]]
    found: list[MultitrackFiles] = []
    for path, names in _walk(folder):
        song_name = folder.resolve().name if path == folder else path.relative_to(folder).as_posix()
        song = MultitrackFiles(song_name, path)
        for name in sorted(names):
            base, suffix = os.path.splitext(name)  # noqa: PTH122 (for a hundred thousand names)
            if is_packed(Path(name)) and packed:
                file = path / name
                title = file.relative_to(folder).as_posix()[: -len(PACKED_SUFFIX)]
                found.append(MultitrackFiles(title, file, {stem: [file] for stem in packed}, file))
            elif suffix.lower() in SUFFIXES and base in stems:
                song.stems.setdefault(base, []).append(path / name)
            elif suffix.lower() in SUFFIXES and base == MIXTURE:
                song.mixture = path / name
        if song.stems:
            found.append(song)
    if not found:
        raise DatasetError(
            f"no stems found in {str(folder)!r}",
            f"expected <song>/{stems[0]}.wav and so on, for {', '.join(stems)}, or <song>{PACKED_SUFFIX}",
        )
    return sorted(found, key=lambda song: song.path)


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder and the names of its files, following links, but no folder twice."""
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        try:
            status = os.stat(parent)  # noqa: PTH116
        except OSError:  # it was deleted meanwhile
            continue
        key = (status.st_dev, status.st_ino)
        if key in seen and key[1]:  # some file systems on Windows have no inode numbers
            folders.clear()
            continue
        seen.add(key)
        yield Path(parent), names


def read_multitrack(files: MultitrackFiles, index: Index) -> Multitrack:
    """Read the headers of a song's files.

    Raises:
        DatasetError: The stems cannot be read or do not match each other.
    """
    for stem, paths in files.stems.items():
        if len(paths) > 1:
            raise DatasetError(f"{str(files.path)!r} has two files for {stem}", "keep one of them", path=files.path)
    stems = {stem: path for stem, (path,) in files.stems.items()}
    shapes: dict[str, Shape] = {}
    for path in dict.fromkeys(stems.values()):
        try:
            shapes[path.name] = index.shape(path)
        except OSError as error:
            raise unreadable(path, one_line(error)) from error
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name}: {shape}" for name, shape in shapes.items())
        hint = f"export them again with the same settings; {CHECK_HINT}"
        raise DatasetError(f"the stems of {files.name!r} do not match each other ({listed})", hint, path=files.path)
    shape = next(iter(shapes.values()))
    if not shape.length:
        raise DatasetError(f"the stems of {files.name!r} are empty", "remove the song", path=files.path)
    return Multitrack(files.name, stems, shape.rate, shape.channels, shape.length, files.mixture)


def check_format(songs: Iterable[Multitrack], rate: int, channels: int) -> None:
    """Check that songs have a sample rate, and at most some channels.

    Args:
        songs: The songs.
        rate: Hz.
        channels: The most channels; mono always fits.

    Raises:
        DatasetError: A song does not.
    """
    for song in songs:
        if song.rate != rate or song.channels > channels:
            has, wants = (
                f"{r} Hz and {plural(c, 'channel')}" for r, c in ((song.rate, song.channels), (rate, channels))
            )
            raise DatasetError(f"the stems of {song.name!r} have {has}, not {wants}", "convert them first")


def read_stems(song: Multitrack, stems: Sequence[str], start: int, length: int) -> Tensor:
    """Read an excerpt of a song's stems, and nothing else.

    Args:
        song: The song.
        stems: Names of stems; one that the song does not have is silent.
        start: Samples.
        length: Samples; silence follows the end of the song.

    Returns:
        `(S, C, length)`, float32, in the order of `stems`.

    Raises:
        DatasetError: A file is damaged or truncated.
    """
    excerpt = np.zeros((len(stems), song.channels, length), np.float32)
    packed: dict[Path, list[str]] = {}
    for row, stem in zip(excerpt, stems, strict=True):
        path = song.stems.get(stem)
        if path is None:
            continue
        if is_packed(path):
            packed.setdefault(path, []).append(stem)
        else:
            samples = _read_stem(song, path, start, length)
            row[:, : samples.shape[1]] = samples
    for path, names in packed.items():
        excerpt[[list(stems).index(name) for name in names]] = read_streams(path, names, start, length)
    return torch.from_numpy(excerpt)


def read_mixture(song: Multitrack, start: int, length: int) -> Tensor:
    """Read an excerpt `(C, length)` of the mixture's file, or of the sum of the stems if there is none.

    Raises:
        DatasetError: A file is damaged or truncated.
    """
    if song.mixture is None:
        return read_stems(song, tuple(song.stems), start, length).sum(0)
    if is_packed(song.mixture):
        return torch.from_numpy(read_streams(song.mixture, (MIXTURE,), start, length)[0])
    samples = read_file(song.mixture, start, length)
    return torch.from_numpy(np.pad(samples, ((0, 0), (0, length - samples.shape[1]))))


def _read_stem(song: Multitrack, path: Path, start: int, length: int) -> Block:
    samples = read_file(path, start, length)
    if samples.shape[1] < min(length, song.length - start):
        raise unreadable(path, f"it ends before the {song.length} samples that it should have")
    return samples
