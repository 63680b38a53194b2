"""What is wrong with a folder of songs, found before hours of training find it."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stemsplit.audio.decoding import Block
from stemsplit.datasets.index import Index, opened_index
from stemsplit.datasets.multitracks import Found, Multitrack, find_files, make_song, read_mixture, read_stems
from stemsplit.datasets.stem_files import MIXTURE, Shape, count, is_packed
from stemsplit.errors import DatasetError

PIECE = 2**14  # samples that are judged at once
BLOCK = 16 * PIECE  # samples read at a time
SILENCE = 1e-4  # highest sample of a stem that counts as silent, -80 dBFS
QUIET = 1e-3  # root mean square of a mixture that is too quiet to be judged, -60 dBFS
# Stems add up to a mixture if what is left is 15 dB below it, but for a tenth of the song: rounding to 16 bits leaves
# some -80 dB, the five tracks of MUSDB18, coded one by one, -20 to -35 dB, a stem that is missing -10 dB and more.
LEFT_OVER_DB, BAD_SHARE = -15.0, 0.1


@dataclass(frozen=True, slots=True)
class Issue:
    """Something wrong with a song. kind: a word for programs. told: for people, without the song's name."""

    song: str
    kind: str
    told: str


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What is in a folder: songs that can be used, how long they are together, and all faults."""

    songs: int
    seconds: float
    faults: tuple[Issue, ...]


def survey(
    folder: Path,
    stems: Sequence[str],
    *,
    thorough: bool = True,
    missing_ok: bool = False,
    on_progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> DatasetReport:
    """Look at every song below `folder`, and not only at the first that is wrong.

    Args:
        thorough: read every sample; otherwise only headers, which tell of lengths, rates and stems that are missing.
        missing_ok: stems that are missing or silent are no fault.
        on_progress: called with the songs done, and with how many there are.

    Raises DatasetError when there are no songs at all.
    """
    found = find_files(folder, stems)
    with opened_index(folder) as index:
        songs, faults = _open(found, stems, index)
    if missing_ok:
        faults = [fault for fault in faults if fault.kind != "missing"]
    faults += _odd_ones(songs)
    on_progress(0, len(songs))
    if thorough:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # the decoders work without Python's lock
            for done, told in enumerate(pool.map(_listen, songs), start=1):
                faults += [fault for fault in told if not (missing_ok and fault.kind == "silent")]
                on_progress(done, len(songs))
    damaged = {fault.song for fault in faults if fault.kind in ("damaged", "mismatch", "double")}
    seconds = sum(song.length / song.rate for song in songs)
    order = {song.name: number for number, song in enumerate(found)}
    told = sorted(faults, key=lambda fault: order[fault.song])
    return DatasetReport(len([song for song in songs if song.name not in damaged]), seconds, tuple(told))


def _open(found: Sequence[Found], stems: Sequence[str], index: Index) -> tuple[list[Multitrack], list[Issue]]:
    """Headers: files that cannot be read, that do not fit each other, that are not there."""
    songs, faults = [], []
    for files in found:
        try:
            songs.append(make_song(files, index))
        except DatasetError as error:
            faults.append(Issue(files.name, _kind(files, index), str(error)))
            continue
        missing = [stem for stem in stems if stem not in files.stems]
        if missing:
            faults.append(Issue(files.name, "missing", f"there is no {' and no '.join(missing)}"))
        if files.mixture and not is_packed(files.mixture):
            faults += _compare(files, files.mixture, songs[-1], index)
    return songs, faults


def _kind(files: Found, index: Index) -> str:
    """Why a song was refused."""
    if any(len(paths) > 1 for paths in files.stems.values()):
        return "double"
    try:
        for (path,) in files.stems.values():
            index.measure(path)
    except (DatasetError, OSError):
        return "damaged"
    return "mismatch"


def _compare(files: Found, mixture: Path, song: Multitrack, index: Index) -> Iterator[Issue]:
    own = Shape(song.rate, song.channels, song.length)
    try:
        shape = index.measure(mixture)
    except DatasetError as error:
        yield Issue(files.name, "damaged", str(error))
        return
    if shape != own:
        yield Issue(files.name, "mismatch", f"the {MIXTURE} does not fit the stems ({shape}; {own})")


def _odd_ones(songs: Sequence[Multitrack]) -> list[Issue]:
    """Songs with another rate than most: a training run takes one rate only."""
    rates = Counter(song.rate for song in songs)
    if len(rates) < 2:
        return []
    usual = rates.most_common(1)[0][0]
    told = f"of {count(len(songs), 'song')} {rates[usual]} have {usual} Hz"
    return [Issue(s.name, "rate", f"its rate is {s.rate} Hz, and {told}") for s in songs if s.rate != usual]


def _listen(song: Multitrack) -> list[Issue]:
    """Samples: what is damaged, no number, silent, or does not add up to the mixture."""
    stems = tuple(song.stems)
    peaks = np.zeros(len(stems))
    judged = bad = 0
    try:
        for start in range(0, song.length, BLOCK):
            length = min(BLOCK, song.length - start)
            block = read_stems(song, stems, start, length).numpy()
            peaks = np.maximum(peaks, np.abs(block).max((1, 2)))
            if song.mixture is not None:
                mixture = read_mixture(song, start, length).numpy()
                if len(mixture) == song.channels:  # if not, the headers have told
                    audible, off = _judge(mixture, block.sum(0))
                    judged, bad = judged + audible, bad + off
    except DatasetError as error:
        return [Issue(song.name, "damaged", str(error))]
    faults = []
    if odd := [stem for stem, peak in zip(stems, peaks, strict=True) if not np.isfinite(peak)]:
        faults.append(Issue(song.name, "numbers", f"{' and '.join(odd)} {_has(odd)} samples that are no numbers"))
    if silent := [stem for stem, peak in zip(stems, peaks, strict=True) if peak < SILENCE]:
        faults.append(
            Issue(song.name, "silent", f"{' and '.join(silent)} {'is' if len(silent) == 1 else 'are'} silent")
        )
    if not odd and bad > BAD_SHARE * judged:
        told = f"the stems do not add up to the {MIXTURE} in {bad / judged:.0%} of the song"
        faults.append(Issue(song.name, "sum", told))
    return faults


def _judge(mixture: Block, total: Block) -> tuple[int, int]:
    """How many samples are loud enough to be judged, and in how many of these the stems do not add up."""
    audible = off = 0
    for start in range(0, mixture.shape[1], PIECE):
        mix, both = (x[:, start : start + PIECE].astype(np.float64) for x in (mixture, total))
        energy = max(np.square(mix).mean(), np.square(both).mean())
        if energy > QUIET**2:
            audible += mix.shape[1]
            off += mix.shape[1] * bool(np.square(mix - both).mean() > energy * 10 ** (LEFT_OVER_DB / 10))
    return audible, off


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"
