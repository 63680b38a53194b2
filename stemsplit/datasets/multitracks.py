"""Songs with known stems: what training and evaluation read.

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
from stemsplit.datasets.index import Index, opened_index
from stemsplit.datasets.stem_files import (
    CHECK,
    MIXTURE,
    PACKED,
    SUFFIXES,
    TRACKS,
    Shape,
    count,
    is_packed,
    read_file,
    read_tracks,
    unreadable,
)
from stemsplit.errors import DatasetError
from stemsplit.wording import one_line


@dataclass(frozen=True, slots=True)
class Multitrack:
    """One song: `stems` maps names to files of one rate (Hz), channels and length (samples).

    Several stems may be in the same file, if it is a `.stem.mp4`. Their sum is the mixture; `mixture` is a file that
    has it as well, if there is one, and in MUSDB18 differs from the sum a little.
    """

    name: str
    stems: Mapping[str, Path]
    rate: int
    channels: int
    length: int
    mixture: Path | None = None


@dataclass(slots=True)
class Found:
    """Files that belong together, before any was opened: for each stem those that could be it, and the mixture."""

    name: str
    path: Path
    stems: dict[str, list[Path]] = field(default_factory=dict)
    mixture: Path | None = None


def find_songs(folder: Path, stems: Sequence[str]) -> list[Multitrack]:
    """The songs below `folder`, sorted by name: every folder with a file `<stem>.<wav|flac|ogg|mp3|aiff>`, and every
    file `<song>.stem.mp4`.

    A stem without a file is silent in that song. What the headers say is remembered in the user's cache: next time only
    files that have changed are opened. Raises DatasetError when there is no song at all, or when the stems of a song
    cannot be read or do not fit each other.
    """
    with opened_index(folder) as index:
        return [make_song(found, index) for found in find_files(folder, stems)]


def find_files(folder: Path, stems: Sequence[str]) -> list[Found]:
    """What `find_songs` would look at. Raises DatasetError when there is nothing."""
    if not folder.is_dir():
        raise DatasetError(f"{str(folder)!r} is not a folder", "give a folder with one folder of stems for each song")
    packed = [stem for stem in stems if stem in TRACKS[1:]]
    found: list[Found] = []
    for path, names in _walk(folder):
        told = folder.resolve().name if path == folder else path.relative_to(folder).as_posix()
        song = Found(told, path)
        for name in sorted(names):
            base, suffix = os.path.splitext(name)  # noqa: PTH122 (for a hundred thousand names)
            if is_packed(Path(name)) and packed:
                whole = path / name
                title = whole.relative_to(folder).as_posix()[: -len(PACKED)]
                found.append(Found(title, whole, {stem: [whole] for stem in packed}, whole))
            elif suffix.lower() in SUFFIXES and base in stems:
                song.stems.setdefault(base, []).append(path / name)
            elif suffix.lower() in SUFFIXES and base == MIXTURE:
                song.mixture = path / name
        if song.stems:
            found.append(song)
    if not found:
        raise DatasetError(
            f"no stems found in {str(folder)!r}",
            f"expected <song>/{stems[0]}.wav and so on, for {', '.join(stems)}, or <song>{PACKED}",
        )
    return sorted(found, key=lambda song: song.path)


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder, and the names of its files; what is linked as well, but no folder twice."""
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)  # noqa: PTH116
        key = (status.st_dev, status.st_ino)
        if key in seen and key[1]:  # some file systems on Windows have no numbers
            folders.clear()
            continue
        seen.add(key)
        yield Path(place), names


def make_song(found: Found, index: Index) -> Multitrack:
    """Look at every file's header. Raises DatasetError as `find_songs` does."""
    for stem, paths in found.stems.items():
        if len(paths) > 1:
            raise DatasetError(f"{str(found.path)!r} has two files for {stem}", "keep one of them")
    files = {stem: path for stem, (path,) in found.stems.items()}
    shapes: dict[str, Shape] = {}
    for path in dict.fromkeys(files.values()):
        try:
            shapes[path.name] = index.measure(path)
        except OSError as error:
            raise unreadable(path, one_line(error)) from error
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{name}: {shape}" for name, shape in shapes.items())
        hint = f"export them again, all alike; {CHECK}"
        raise DatasetError(f"the stems of {found.name!r} do not fit each other ({told})", hint)
    shape = next(iter(shapes.values()))
    if not shape.length:
        raise DatasetError(f"the stems of {found.name!r} are empty", "remove the song")
    return Multitrack(found.name, files, shape.rate, shape.channels, shape.length, found.mixture)


def require_format(songs: Iterable[Multitrack], rate: int, channels: int) -> None:
    """Raise DatasetError at the first song that is not at `rate` Hz, or has more than `channels`; mono always fits."""
    for song in songs:
        if song.rate != rate or song.channels > channels:
            has, wants = (
                f"{r} Hz and {count(c, 'channel')}" for r, c in ((song.rate, song.channels), (rate, channels))
            )
            raise DatasetError(f"the stems of {song.name!r} have {has}, not {wants}", "convert them first")


def read_stems(song: Multitrack, stems: Sequence[str], start: int, length: int) -> Tensor:
    """An excerpt `(S, C, length)` of `song` in the order of `stems`; silence where there is no stem, or no more.

    Only the excerpt is read. Raises DatasetError when a file is damaged, or ends before its header says.
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
            samples = _read(song, path, start, length)
            row[:, : samples.shape[1]] = samples
    for path, tracks in packed.items():
        excerpt[[list(stems).index(track) for track in tracks]] = read_tracks(path, tracks, start, length)
    return torch.from_numpy(excerpt)


def read_mixture(song: Multitrack, start: int, length: int) -> Tensor:
    """An excerpt `(C, length)` of the recorded mixture, or of the sum of the stems where there is none."""
    if song.mixture is None:
        return read_stems(song, tuple(song.stems), start, length).sum(0)
    if is_packed(song.mixture):
        return torch.from_numpy(read_tracks(song.mixture, (MIXTURE,), start, length)[0])
    samples = read_file(song.mixture, start, length)
    return torch.from_numpy(np.pad(samples, ((0, 0), (0, length - samples.shape[1]))))


def _read(song: Multitrack, path: Path, start: int, length: int) -> Block:
    samples = read_file(path, start, length)
    if samples.shape[1] < min(length, song.length - start):
        raise unreadable(path, f"it ends before the {song.length} samples that it should have")
    return samples
