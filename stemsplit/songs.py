"""Songs on disk as folders of stems: what training and evaluation read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile  # type: ignore[import-untyped]
import torch
from torch import Tensor

from stemsplit.errors import DatasetError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")


@dataclass(frozen=True, slots=True)
class Song:
    """One song: `stems` maps names to files of one rate (Hz), channels and length (samples).

    Their sum is the mixture.
    """

    name: str
    stems: Mapping[str, Path]
    rate: int
    channels: int
    length: int


def find_songs(folder: Path, stems: Sequence[str]) -> list[Song]:
    """The songs below `folder`, sorted by name: every folder that holds a file `<stem>.<wav|flac|ogg|mp3|aiff>`.

    A stem without a file is silent in that song. Raises DatasetError when there is no song at all, or when the stems of
    a song cannot be read or do not fit each other.
    """
    if not folder.is_dir():
        raise DatasetError(f"{str(folder)!r} is not a folder", "give a folder with one folder of stems for each song")
    found: dict[Path, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.stem in stems and path.suffix.lower() in SUFFIXES and path.is_file():
            song = found.setdefault(path.parent, {})
            if path.stem in song:
                raise DatasetError(f"{str(path.parent)!r} has two files for {path.stem}", "keep one of them")
            song[path.stem] = path
    if not found:
        raise DatasetError(
            f"no stems found in {str(folder)!r}", f"expected <song>/{stems[0]}.wav and so on, for {', '.join(stems)}"
        )
    names = {path: folder.resolve().name if path == folder else path.relative_to(folder).as_posix() for path in found}
    return [_song(names[path], files) for path, files in sorted(found.items())]


def require_format(songs: Iterable[Song], rate: int, channels: int) -> None:
    """Raise DatasetError at the first song that is not at `rate` Hz, or has more than `channels`; mono always fits."""
    for song in songs:
        if song.rate != rate or song.channels > channels:
            raise DatasetError(
                f"the stems of {song.name!r} have {song.rate} Hz and {_count(song.channels)}, not {rate} Hz and "
                f"{_count(channels)}",
                "convert them first",
            )


def read_stems(song: Song, stems: Sequence[str], start: int, length: int) -> Tensor:
    """An excerpt `(S, C, length)` of `song` in the order of `stems`; silence where there is no stem, or no more."""
    excerpt = np.zeros((len(stems), song.channels, length), np.float32)
    for row, stem in zip(excerpt, stems, strict=True):
        if stem in song.stems:
            samples = _read(song.stems[stem], start, length)
            row[:, : len(samples)] = samples.T
    return torch.from_numpy(excerpt)


def _read(path: Path, start: int, length: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    try:
        samples, _ = soundfile.read(path, length, start, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise _unreadable(path, error) from error
    return samples  # type: ignore[no-any-return]


def _song(name: str, stems: Mapping[str, Path]) -> Song:
    """Look at every file's header once."""
    shapes = {}
    for path in stems.values():
        try:
            info = soundfile.info(path)
        except soundfile.LibsndfileError as error:
            raise _unreadable(path, error) from error
        shapes[path.name] = (info.samplerate, info.channels, info.frames)
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{file}: {r} Hz, {_count(c)}, {n} samples" for file, (r, c, n) in shapes.items())
        raise DatasetError(f"the stems of {name!r} do not fit each other ({told})", "export them again, all alike")
    rate, channels, length = next(iter(shapes.values()))
    if not length:
        raise DatasetError(f"the stems of {name!r} are empty", "remove the song")
    return Song(name, dict(stems), rate, channels, length)


def _count(channels: int) -> str:
    return f"{channels} channel" if channels == 1 else f"{channels} channels"


def _unreadable(path: Path, error: soundfile.LibsndfileError) -> DatasetError:
    return DatasetError(f"cannot read {str(path)!r}: {error.error_string}", "replace the file or remove its song")
