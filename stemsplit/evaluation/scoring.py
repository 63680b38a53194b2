"""Scoring models on songs whose stems are known, beside two references: the mixture and the ideal ratio mask."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stemsplit.datasets.index import open_index
from stemsplit.datasets.multitracks import (
    Multitrack,
    check_format,
    find_files,
    read_mixture,
    read_multitrack,
    read_stems,
)
from stemsplit.dsp.stft import Stft
from stemsplit.errors import DatasetError
from stemsplit.evaluation.bss_eval import METRICS, References
from stemsplit.evaluation.metrics import Sdr, SiSdr
from stemsplit.separation.separator import Separator
from stemsplit.separation.streams import MixtureTap

BLOCK = 2**18  # samples read at a time
IDEAL_STFT = (4096, 1024)  # n_fft and hop of the ideal ratio mask
ACCOMPANIMENT = "accompaniment"  # of models with two stems; data sets have its parts instead
PARTS = ("drums", "bass", "other", "guitar", "piano")


Estimator = Callable[[Multitrack, tuple[str, ...]], Iterable[Tensor]]
"""Estimates the named stems of a song: blocks `(S, C, n)` of any size, with the song's channels."""


@dataclass(frozen=True, slots=True)
class SongScores:
    """Figures of one song in dB, by stem; NaN where the true stem is silent.

    Attributes:
        song: Its name.
        sdr: SDR of the whole song.
        si_sdr: SI-SDR of the whole song.
        windows: SDR, SIR, ISR and SAR of BSS Eval for each second, by stem and metric; empty if not requested.
    """

    song: str
    sdr: Mapping[str, float]
    si_sdr: Mapping[str, float] = field(default_factory=dict)
    windows: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)

    @property
    def has_windows(self) -> bool:
        """Whether BSS Eval has a figure for any second of the song."""
        return any(not np.isnan(value) for rows in self.windows.values() for row in rows.values() for value in row)


def evaluate(separator: Separator, songs: Iterable[Multitrack]) -> Iterator[SongScores]:
    """Separate the mixture of each song as the command line does, and score the result.

    Raises:
        DatasetError: A song does not have the model's sample rate, or has more channels.
    """
    estimator = model_estimator(separator)
    for song in songs:
        yield score(song, separator.stems, {"": estimator})[""]


def score(
    song: Multitrack, stems: tuple[str, ...], estimators: Mapping[str, Estimator], *, bss_eval: bool = False
) -> dict[str, SongScores]:
    """Score estimators on one song.

    Args:
        song: The song.
        stems: Names of the stems to score.
        estimators: By name.
        bss_eval: Also compute the figures of BSS Eval, which takes longer.

    Returns:
        Scores by the name of the estimator.

    Raises:
        DatasetError: The song cannot be read, or does not fit an estimator.
    """
    with ExitStack() as stack:
        references = stack.enter_context(References(_blocks(song, stems, 0), song.rate)) if bss_eval else None
        return {name: _score(song, stems, estimator(song, stems), references) for name, estimator in estimators.items()}


def find_scorable(folder: Path, stems: Sequence[str]) -> tuple[list[Multitrack], list[DatasetError]]:
    """Find all songs below a folder: those that can be read, and an error for each of the others.

    Raises:
        DatasetError: There are none.
    """
    songs: list[Multitrack] = []
    errors: list[DatasetError] = []
    names = dict.fromkeys((*stems, *(PARTS if ACCOMPANIMENT in stems else ())))
    with open_index(folder) as index:
        for files in find_files(folder, list(names)):
            try:
                songs.append(read_multitrack(files, index))
            except DatasetError as error:
                errors.append(error)
    return songs, errors


def model_estimator(separator: Separator) -> Estimator:
    """Return the estimator that separates a song's mixture with a model, as `Separator.separate_file` does.

    The stems may be in any order. If they are all that the model has, they add up to the mixture.
    """
    header, complete = separator.chain.header, separator.chain.complete

    def estimate(song: Multitrack, stems: tuple[str, ...]) -> Iterator[Tensor]:
        check_format([song], header.rate, header.channels)
        order = [header.stems.index(stem) for stem in stems]
        level = separator.measure((block.numpy() for block in _mixture(song)), song.rate)
        tap = MixtureTap((block.numpy() for block in _mixture(song)), keep=complete)
        for block in separator.separate(tap, song.rate, level=level):
            estimates = block.mean(1, keepdims=True) if song.channels == 1 else block
            if complete:
                estimates = estimates + (tap.take(block.shape[-1]) - estimates.sum(0)) / len(estimates)
            yield torch.from_numpy(estimates[order])

    return estimate


def mixture(song: Multitrack, stems: tuple[str, ...]) -> Iterator[Tensor]:
    """Estimate every stem as the mixture: the baseline of doing nothing."""
    return (block.expand(len(stems), *block.shape) for block in _mixture(song))


def ideal_mask(song: Multitrack, stems: tuple[str, ...]) -> Iterator[Tensor]:
    """Estimate the stems with the ideal ratio mask, |s|^2 / sum |s|^2 of the true stems: close to the best of any mask.

    IRM2 of the SiSEC 2018 campaign (Stoeter, Liutkus and Ito, 2018), with its STFT of 4096 samples.
    """
    stft = Stft(*IDEAL_STFT)
    margin = 2 * stft.n_fft
    for true in _blocks(song, stems, margin):
        spectra = stft(true)
        power = spectra.abs().square()
        masks = power / power.sum(0).clamp(min=1e-20)
        estimate = stft.inverse(masks * spectra.sum(0), true.shape[-1])
        yield estimate[..., margin:-margin]


def mean_scores(scores: Iterable[SongScores]) -> dict[str, float]:
    """Return the mean SDR over the songs in which a stem is not silent, by stem; NaN where there is no such song."""
    rows = [score.sdr for score in scores]
    return {stem: _mean([row[stem] for row in rows]) for stem in rows[0]} if rows else {}


def mean_sdr(sdr: Mapping[str, float]) -> float:
    """Return the mean over the stems that are not NaN, in dB."""
    return _mean(list(sdr.values()))


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def _mixture(song: Multitrack) -> Iterator[Tensor]:
    """The mixture, `(C, n)` at a time."""
    for start in range(0, song.length, BLOCK):
        yield read_mixture(song, start, min(BLOCK, song.length - start))


def _blocks(song: Multitrack, stems: tuple[str, ...], margin: int) -> Iterator[Tensor]:
    """The true stems, `(S, C, n)` at a time, each block with `margin` samples of its neighbours on either side."""
    for start in range(0, song.length, BLOCK):
        length = min(BLOCK, song.length - start)
        before = min(margin, start)
        read = _read_references(song, stems, start - before, before + length + margin)
        yield torch.nn.functional.pad(read, (margin - before, 0))


def _read_references(song: Multitrack, stems: tuple[str, ...], start: int, length: int) -> Tensor:
    """The true stems, `(S, C, length)`; an accompaniment that the song does not have is the sum of all other stems."""
    references = read_stems(song, stems, start, length)
    if ACCOMPANIMENT in stems and ACCOMPANIMENT not in song.stems:
        others = [stem for stem in song.stems if stem not in stems]
        references[stems.index(ACCOMPANIMENT)] = read_stems(song, others, start, length).sum(0)
    return references


def _score(
    song: Multitrack, stems: tuple[str, ...], estimates: Iterable[Tensor], references: References | None
) -> SongScores:
    """Score a stream of estimates, in blocks of any size."""
    sdr, si_sdr, start = Sdr(len(stems)), SiSdr(len(stems)), 0

    def scored() -> Iterator[Tensor]:
        nonlocal start
        for estimate in estimates:
            true = _read_references(song, stems, start, estimate.shape[-1])
            sdr.update(true, estimate)
            si_sdr.update(true, estimate)
            start += estimate.shape[-1]
            yield estimate

    windows: dict[str, dict[str, tuple[float, ...]]] = {}
    if references:
        ratios = references.score(scored())
        for stem, rows in zip(stems, ratios.transpose(0, 1).tolist(), strict=True):
            windows[stem] = {metric: tuple(row) for metric, row in zip(METRICS, rows, strict=True)}
    else:
        deque(scored(), maxlen=0)
    assert start == song.length, f"{song.name}: {start} samples estimated of {song.length}"
    totals = [dict(zip(stems, metric.result().tolist(), strict=True)) for metric in (sdr, si_sdr)]
    return SongScores(song.name, totals[0], totals[1], windows)
