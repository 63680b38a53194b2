"""How well a model separates songs whose stems are known."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stemsplit.datasets.index import opened_index
from stemsplit.datasets.multitracks import Multitrack, find_files, make_song, read_mixture, read_stems, require_format
from stemsplit.dsp.stft import Stft
from stemsplit.errors import DatasetError
from stemsplit.evaluation.bss_eval import METRICS, References
from stemsplit.evaluation.metrics import Sdr, SiSdr
from stemsplit.separation.separator import Separator

BLOCK = 2**18  # samples read at a time
IDEAL = (4096, 1024)  # n_fft and hop of the ideal ratio mask


Estimator = Callable[[Multitrack, tuple[str, ...]], Iterable[Tensor]]
"""Makes estimates of a song's stems: blocks `(S, C, n)` of any size, in the order of the names, of its channels."""


@dataclass(frozen=True, slots=True)
class SongScores:
    """Figures in dB of one song, stem by stem; NaN where the true stem is silent.

    Args:
        sdr, si_sdr: of the whole song.
        windows: BSS Eval's SDR, SIR, ISR and SAR in every second, by stem and metric, if they were asked for.
    """

    song: str
    sdr: Mapping[str, float]
    si_sdr: Mapping[str, float] = field(default_factory=dict)
    windows: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)


def evaluate(separator: Separator, songs: Iterable[Multitrack]) -> Iterator[SongScores]:
    """Separate every song's mixture as the command line does, and score it.

    Raises DatasetError when a song does not have the model's rate, or has more channels.
    """
    yield from _each(songs, separator.ensemble.header.stems, separated(separator))


def evaluate_mixture(songs: Iterable[Multitrack], stems: tuple[str, ...]) -> Iterator[SongScores]:
    """The score of doing nothing: the mixture as the estimate of every stem."""
    return _each(songs, stems, mixture)


def evaluate_ideal_mask(songs: Iterable[Multitrack], stems: tuple[str, ...]) -> Iterator[SongScores]:
    """The score of the ideal ratio mask; see `ideal_mask`."""
    return _each(songs, stems, ideal_mask)


def score(
    song: Multitrack, stems: tuple[str, ...], estimators: Mapping[str, Estimator], *, bss_eval: bool = False
) -> dict[str, SongScores]:
    """Score several estimators on one song, by their names; with BSS Eval if wanted, which takes longer.

    Raises DatasetError when the song cannot be read, or does not fit an estimator.
    """
    with ExitStack() as stack:
        truth = None
        if bss_eval:
            truth = stack.enter_context(References(_blocks(song, stems, 0), song.rate))
        return {name: _score(song, stems, estimate(song, stems), truth) for name, estimate in estimators.items()}


def find_scorable(folder: Path, stems: Sequence[str]) -> tuple[list[Multitrack], list[DatasetError]]:
    """All songs below a folder that can be read, and what is wrong with the others.

    Raises DatasetError when there is none of either.
    """
    songs: list[Multitrack] = []
    errors: list[DatasetError] = []
    with opened_index(folder) as index:
        for found in find_files(folder, stems):
            try:
                songs.append(make_song(found, index))
            except DatasetError as error:
                errors.append(error)
    return songs, errors


def has_windows(found: SongScores) -> bool:
    """Whether BSS Eval has figures for any second of the song."""
    return any(not np.isnan(value) for rows in found.windows.values() for row in rows.values() for value in row)


def separated(separator: Separator) -> Estimator:
    """The estimates of a model, which gives those stems in any order."""
    header = separator.ensemble.header

    def estimate(song: Multitrack, stems: tuple[str, ...]) -> Iterator[Tensor]:
        require_format([song], header.rate, header.channels)
        order = [header.stems.index(stem) for stem in stems]
        mix = (block.numpy() for block in _mixture(song))
        for block in separator.separate(mix, song.rate):
            found = torch.from_numpy(block)[order]
            # A stereo model's estimates of a mono song are folded down, as `Separator.separate_file` does.
            yield found.mean(1, keepdim=True) if song.channels == 1 else found

    return estimate


def mixture(song: Multitrack, stems: tuple[str, ...]) -> Iterator[Tensor]:
    """The mixture as the estimate of every stem: what doing nothing achieves."""
    return (block.expand(len(stems), *block.shape) for block in _mixture(song))


def ideal_mask(song: Multitrack, stems: tuple[str, ...]) -> Iterator[Tensor]:
    """The ideal ratio mask, |s|^2 / sum |s|^2 on the true stems: about what masks can reach.

    As IRM2 in the SiSEC 2018 campaign (Stoeter, Liutkus and Ito, 2018), with its STFT of 4096 samples.
    """
    return _ideal(song, stems, Stft(*IDEAL))


def mean_scores(scores: Iterable[SongScores]) -> dict[str, float]:
    """Mean SDR over the songs, stem by stem, songs in which the stem is silent left out; NaN where nothing is left."""
    rows = [score.sdr for score in scores]
    return {stem: _mean([row[stem] for row in rows]) for stem in rows[0]} if rows else {}


def mean_sdr(scores: SongScores | Mapping[str, float]) -> float:
    """Mean over the stems that are not NaN."""
    return _mean(list((scores.sdr if isinstance(scores, SongScores) else scores).values()))


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def _mixture(song: Multitrack) -> Iterator[Tensor]:
    """What is to be separated, `(C, n)` at a time."""
    for start in range(0, song.length, BLOCK):
        yield read_mixture(song, start, min(BLOCK, song.length - start))


def _blocks(song: Multitrack, stems: tuple[str, ...], margin: int) -> Iterator[Tensor]:
    """The song's true stems, `(S, C, n)` at a time, each with `margin` samples of its neighbours on either side."""
    for start in range(0, song.length, BLOCK):
        length = min(BLOCK, song.length - start)
        before = min(margin, start)
        read = read_stems(song, stems, start - before, before + length + margin)
        yield torch.nn.functional.pad(read, (margin - before, 0))


def _ideal(song: Multitrack, stems: tuple[str, ...], stft: Stft) -> Iterator[Tensor]:
    margin = 2 * stft.n_fft
    for true in _blocks(song, stems, margin):
        spectra = stft(true)
        power = spectra.abs().square()
        masks = power / power.sum(0).clamp(min=1e-20)
        estimate = stft.inverse(masks * spectra.sum(0), true.shape[-1])
        yield estimate[..., margin:-margin]


def _each(songs: Iterable[Multitrack], stems: tuple[str, ...], estimator: Estimator) -> Iterator[SongScores]:
    for song in songs:
        yield score(song, stems, {"": estimator})[""]


def _score(
    song: Multitrack, stems: tuple[str, ...], estimates: Iterable[Tensor], truth: References | None
) -> SongScores:
    """Score a stream of estimates in blocks of any size against the song."""
    sdr, si_sdr, start = Sdr(len(stems)), SiSdr(len(stems)), 0

    def scored() -> Iterator[Tensor]:
        nonlocal start
        for estimate in estimates:
            true = read_stems(song, stems, start, estimate.shape[-1])
            sdr.update(true, estimate)
            si_sdr.update(true, estimate)
            start += estimate.shape[-1]
            yield estimate

    windows: dict[str, dict[str, tuple[float, ...]]] = {}
    if truth:
        found = truth.score(scored())
        for stem, rows in zip(stems, found.transpose(0, 1).tolist(), strict=True):
            windows[stem] = {metric: tuple(row) for metric, row in zip(METRICS, rows, strict=True)}
    else:
        deque(scored(), maxlen=0)
    assert start == song.length, f"{song.name}: {start} samples estimated of {song.length}"
    totals = [dict(zip(stems, each.result().tolist(), strict=True)) for each in (sdr, si_sdr)]
    return SongScores(song.name, totals[0], totals[1], windows)
