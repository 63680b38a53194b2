"""Problems in a dataset, found before hours of training find them."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stemsplit.audio.decoding import Block
from stemsplit.datasets.index import Index, open_index
from stemsplit.datasets.multitracks import (
    Multitrack,
    MultitrackFiles,
    find_files,
    read_mixture,
    read_multitrack,
    read_stems,
)
from stemsplit.datasets.stem_files import MIXTURE, Shape, is_packed, plural, unreadable
from stemsplit.errors import DatasetError
from stemsplit.wording import one_line

SEGMENT = 2**14  # samples whose sum is compared at once
BLOCK = 16 * SEGMENT  # samples read at a time
SILENCE = 1e-4  # peak of a stem that counts as silent, -80 dBFS
QUIET = 1e-3  # RMS of a mixture that is too quiet to be compared, -60 dBFS
# Stems add up to a mixture if the residual is 15 dB below it in nine tenths of the song. Rounding to 16 bits leaves
# about -80 dB, the five streams of MUSDB18, encoded one by one, -20 to -35 dB, a missing stem -10 dB and more.
RESIDUAL_DB, MAX_BAD_SHARE = -15.0, 0.1


@dataclass(frozen=True, slots=True)
class Issue:
    """A problem with a song.

    Attributes:
        song: The song's name.
        kind: `damaged`, `mismatch`, `double`, `missing`, `rate`, `silent`, `numbers` or `sum`, for programs.
        message: A sentence for people, without the song's name.
    """

    song: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What is in a dataset.

    Attributes:
        found: Number of songs.
        songs: Number of songs that can be used.
        seconds: Total duration of the songs.
        issues: All problems, in the order of the songs.
    """

    found: int
    songs: int
    seconds: float
    issues: tuple[Issue, ...]


def inspect_dataset(
    folder: Path,
    stems: Sequence[str],
    *,
    thorough: bool = True,
    missing_ok: bool = False,
    on_progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> DatasetReport:
    """Report all problems of all songs below a folder.

    Args:
        folder: The dataset.
        stems: The stems that every song should have.
        thorough: Read every sample; otherwise only headers, which show lengths, sample rates and missing stems.
        missing_ok: Do not report stems that are missing or silent.
        on_progress: Called with the number of songs done, and the number of all songs.

    Raises:
        DatasetError: There are no songs.
    """
    found = find_files(folder, stems)
    with open_index(folder) as index:
        songs, issues = _read_headers(found, stems, index)
    issues += _rate_issues(songs)
    on_progress(0, len(songs))
    if thorough:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders release the interpreter's lock
            for done, of_song in enumerate(pool.map(_sample_issues, songs), start=1):
                issues += of_song
                on_progress(done, len(songs))
    if missing_ok:
        issues = [issue for issue in issues if issue.kind not in ("missing", "silent")]
    unusable = {issue.song for issue in issues if issue.kind in ("damaged", "mismatch", "double")}
    seconds = sum(song.length / song.rate for song in songs)
    order = {files.name: number for number, files in enumerate(found)}
    issues.sort(key=lambda issue: order[issue.song])
    return DatasetReport(len(found), len([song for song in songs if song.name not in unusable]), seconds, tuple(issues))


def _read_headers(
    found: Sequence[MultitrackFiles], stems: Sequence[str], index: Index
) -> tuple[list[Multitrack], list[Issue]]:
    songs, issues = [], []
    for files in found:
        if damaged := list(_unreadable(files, index)):
            issues += damaged
            continue
        try:
            songs.append(read_multitrack(files, index))
        except DatasetError as error:
            kind = "double" if any(len(paths) > 1 for paths in files.stems.values()) else "mismatch"
            issues.append(Issue(files.name, kind, str(error)))
            continue
        if missing := [stem for stem in stems if stem not in files.stems]:
            issues.append(Issue(files.name, "missing", f"{_list(missing)} missing"))
        if files.mixture and not is_packed(files.mixture):
            issues += _mixture_issues(files, files.mixture, songs[-1], index)
    return songs, issues


def _unreadable(files: MultitrackFiles, index: Index) -> Iterator[Issue]:
    """All files of a song whose headers cannot be read."""
    for path in dict.fromkeys(path for paths in files.stems.values() for path in paths):
        try:
            index.shape(path)
        except DatasetError as error:
            yield Issue(files.name, "damaged", str(error))
        except OSError as error:
            yield Issue(files.name, "damaged", str(unreadable(path, one_line(error))))


def _mixture_issues(files: MultitrackFiles, mixture: Path, song: Multitrack, index: Index) -> Iterator[Issue]:
    expected = Shape(song.rate, song.channels, song.length)
    try:
        shape = index.shape(mixture)
    except DatasetError as error:
        yield Issue(files.name, "damaged", str(error))
        return
    if shape != expected:
        yield Issue(files.name, "mismatch", f"the {MIXTURE} does not match the stems ({shape}; {expected})")


def _rate_issues(songs: Sequence[Multitrack]) -> list[Issue]:
    """Songs at another sample rate than most: a training run takes one rate only."""
    rates = Counter(song.rate for song in songs)
    if len(rates) < 2:
        return []
    common, count = rates.most_common(1)[0]
    most = f"{count} of {plural(len(songs), 'song')} have {common} Hz"
    return [Issue(s.name, "rate", f"its sample rate is {s.rate} Hz, but {most}") for s in songs if s.rate != common]


def _sample_issues(song: Multitrack) -> list[Issue]:
    """Read all samples: damaged, not finite, silent, or not adding up to the mixture."""
    stems = tuple(song.stems)
    peaks = np.zeros(len(stems))
    compared = bad = 0
    try:
        for start in range(0, song.length, BLOCK):
            length = min(BLOCK, song.length - start)
            block = read_stems(song, stems, start, length).numpy()
            peaks = np.maximum(peaks, np.abs(block).max((1, 2)))
            if song.mixture is not None:
                mixture = read_mixture(song, start, length).numpy()
                if len(mixture) == song.channels:  # otherwise it was reported from the headers
                    audible, off = _compare(mixture, block.sum(0))
                    compared, bad = compared + audible, bad + off
    except DatasetError as error:
        reasons = [_damage_of(song, stem) for stem in stems]
        return [Issue(song.name, "damaged", text) for text in dict.fromkeys(filter(None, reasons))] or [
            Issue(song.name, "damaged", str(error))  # of the mixture
        ]
    issues = []
    if not_finite := [stem for stem, peak in zip(stems, peaks, strict=True) if not np.isfinite(peak)]:
        message = f"{' and '.join(not_finite)} {'has' if len(not_finite) == 1 else 'have'} samples that are not finite"
        issues.append(Issue(song.name, "numbers", message))
    if silent := [stem for stem, peak in zip(stems, peaks, strict=True) if peak < SILENCE]:
        issues.append(Issue(song.name, "silent", f"{_list(silent)} silent"))
    if not not_finite and bad > MAX_BAD_SHARE * compared:
        message = f"the stems do not add up to the {MIXTURE} in {bad / compared:.0%} of the song"
        issues.append(Issue(song.name, "sum", message))
    return issues


def _damage_of(song: Multitrack, stem: str) -> str:
    """What keeps the samples of a stem from being read; empty if nothing does."""
    try:
        for start in range(0, song.length, BLOCK):
            read_stems(song, (stem,), start, min(BLOCK, song.length - start))
    except DatasetError as error:
        return str(error)
    return ""


def _compare(mixture: Block, total: Block) -> tuple[int, int]:
    """Count the samples that are loud enough to be compared, and those where the stems do not add up."""
    audible = off = 0
    for start in range(0, mixture.shape[1], SEGMENT):
        mix, stem_sum = (x[:, start : start + SEGMENT].astype(np.float64) for x in (mixture, total))
        energy = max(np.square(mix).mean(), np.square(stem_sum).mean())
        if energy > QUIET**2:
            audible += mix.shape[1]
            off += mix.shape[1] * bool(np.square(mix - stem_sum).mean() > energy * 10 ** (RESIDUAL_DB / 10))
    return audible, off


def _list(stems: Sequence[str]) -> str:
    return f"{' and '.join(stems)} {'is' if len(stems) == 1 else 'are'}"
