"""How well a model separates songs whose stems are known."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stemsplit.metrics import Sdr
from stemsplit.separation import Separator
from stemsplit.songs import Song, read_stems, require_format
from stemsplit.stft import Stft

BLOCK = 2**18  # samples read at a time
IDEAL = (4096, 1024)  # n_fft and hop of the ideal ratio mask


@dataclass(frozen=True, slots=True)
class SongScores:
    """SDR in dB of one song, stem by stem; NaN where the true stem is silent."""

    song: str
    sdr: Mapping[str, float]


def evaluate(separator: Separator, songs: Iterable[Song]) -> Iterator[SongScores]:
    """Separate every song's mixture as the command line does, and score it.

    Raises DatasetError when a song does not have the model's rate, or has more channels.
    """
    header = separator.bag.header
    for song in songs:
        require_format([song], header.rate, header.channels)
        mixture = (read.sum(0).numpy() for read in _blocks(song, header.stems, 0))
        yield _score(song, header.stems, map(torch.from_numpy, separator.separate(mixture, song.rate)))


def evaluate_mixture(songs: Iterable[Song], stems: tuple[str, ...]) -> Iterator[SongScores]:
    """The score of doing nothing: the mixture as the estimate of every stem."""
    for song in songs:
        yield _score(song, stems, (read.sum(0).expand(read.shape) for read in _blocks(song, stems, 0)))


def evaluate_ideal_mask(songs: Iterable[Song], stems: tuple[str, ...]) -> Iterator[SongScores]:
    """The score of the ideal ratio mask, |s|^2 / sum |s|^2 on the true stems: about what masks can reach.

    As IRM2 in the SiSEC 2018 campaign (Stoeter, Liutkus and Ito, 2018), with its STFT of 4096 samples.
    """
    stft = Stft(*IDEAL)
    for song in songs:
        yield _score(song, stems, _ideal(song, stems, stft))


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


def _blocks(song: Song, stems: tuple[str, ...], margin: int) -> Iterator[Tensor]:
    """The song's true stems, `(S, C, n)` at a time, each with `margin` samples of its neighbours on either side."""
    for start in range(0, song.length, BLOCK):
        length = min(BLOCK, song.length - start)
        before = min(margin, start)
        read = read_stems(song, stems, start - before, before + length + margin)
        yield torch.nn.functional.pad(read, (margin - before, 0))


def _ideal(song: Song, stems: tuple[str, ...], stft: Stft) -> Iterator[Tensor]:
    margin = 2 * stft.n_fft
    for true in _blocks(song, stems, margin):
        spectra = stft(true)
        power = spectra.abs().square()
        masks = power / power.sum(0).clamp(min=1e-20)
        estimate = stft.inverse(masks * spectra.sum(0), true.shape[-1])
        yield estimate[..., margin:-margin]


def _score(song: Song, stems: tuple[str, ...], estimates: Iterable[Tensor]) -> SongScores:
    """Score a stream of estimates in blocks of any size against the song."""
    total, start = Sdr(len(stems)), 0
    for estimate in estimates:
        # A stereo model's estimates of a mono song are folded down, as `Separator.separate_file` does.
        folded = estimate.mean(1, keepdim=True) if song.channels == 1 else estimate
        total.update(read_stems(song, stems, start, estimate.shape[-1]), folded)
        start += estimate.shape[-1]
    assert start == song.length, f"{song.name}: {start} samples estimated of {song.length}"
    return SongScores(song.name, dict(zip(stems, total.result().tolist(), strict=True)))
