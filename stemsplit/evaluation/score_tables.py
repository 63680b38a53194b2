"""The figures of an evaluation, metric by metric: what the table, the JSON and the page show."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stemsplit.evaluation.significance import Comparison, compare, median

if TYPE_CHECKING:
    from stemsplit.evaluation.scoring import SongScores

MEAN = "mean"  # the column of the mean over the stems
FRAMEWISE = {
    "SDR": "signal to distortion: all that is wrong",
    "SIR": "signal to interference: what is heard of the other stems",
    "ISR": "image to spatial distortion: filtering, volume, place between the loudspeakers",
    "SAR": "signal to artifacts: what was never in the song",
}


@dataclass(frozen=True, slots=True)
class MetricTable:
    """One metric, in dB.

    Args:
        key: for programs. title: for people. note: what it says.
        songs: by estimator, song and stem, with the mean over the stems under `MEAN`; NaN where there is none.
        summary: the same over all songs, by estimator and stem: their means, or their `medians`.
    """

    key: str
    title: str
    note: str
    songs: Mapping[str, Mapping[str, Mapping[str, float]]]
    summary: Mapping[str, Mapping[str, float]]
    medians: bool = False

    @property
    def columns(self) -> list[str]:
        """The stems, and `MEAN`."""
        return list(next(iter(self.summary.values())))

    def series(self, estimator: str, column: str) -> list[float]:
        """The figures of all songs, in their order."""
        return [row[column] for row in self.songs[estimator].values()]

    def compare(self, first: str, second: str) -> dict[str, Comparison]:
        """Two estimators, stem by stem, and in their mean over the stems."""
        return {each: compare(self.series(first, each), self.series(second, each)) for each in self.columns}


def boards(results: Mapping[str, Sequence["SongScores"]]) -> list[MetricTable]:
    """All boards of some estimators, who have the same songs, of which there is one at least.

    SDR and SI-SDR of whole songs, and their means. If there are windows, SDR, SIR, ISR and SAR, too: the medians over a
    song's windows, and over songs the medians of those, as museval has them.
    """
    found = [
        _board("sdr", "SDR of whole songs", "10 log10(sum s² / sum (s - e)²)", results, lambda score: score.sdr),
        _board("si_sdr", "SI-SDR of whole songs", "the same at the best volume", results, lambda score: score.si_sdr),
    ]
    if any(score.windows for scores in results.values() for score in scores):
        for metric, note in FRAMEWISE.items():
            title = f"BSS Eval: {metric}"
            found.append(_board(metric, title, note, results, partial(windows, metric=metric), medians=True))
    return found


def windows(score: "SongScores", metric: str) -> dict[str, float]:
    """The median over a song's windows, stem by stem; those without a finite figure do not count."""
    return {
        stem: median([value for value in rows[metric] if math.isfinite(value)]) for stem, rows in score.windows.items()
    }


def to_json(board: MetricTable) -> dict[str, dict[str, Any]]:
    """By estimator: the songs, and their mean or median."""
    over = "median" if board.medians else "mean"
    return {name: {"songs": board.songs[name], over: board.summary[name]} for name in board.songs}


def _board(
    key: str,
    title: str,
    note: str,
    results: Mapping[str, Sequence["SongScores"]],
    figures: Callable[["SongScores"], Mapping[str, float]],
    *,
    medians: bool = False,
) -> MetricTable:
    songs = {name: {score.song: figures(score) for score in scores} for name, scores in results.items()}
    over = median if medians else _mean
    summary = {}
    for name, rows in songs.items():
        stems = next(iter(rows.values()))
        summary[name] = _with_mean({stem: over(_known([row[stem] for row in rows.values()])) for stem in stems})
    with_means = {name: {song: _with_mean(row) for song, row in rows.items()} for name, rows in songs.items()}
    return MetricTable(key, title, note, with_means, summary, medians)


def _with_mean(row: Mapping[str, float]) -> dict[str, float]:
    return {**row, MEAN: _mean(_known(list(row.values())))}


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
