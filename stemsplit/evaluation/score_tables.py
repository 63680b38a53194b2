"""The figures of an evaluation, metric by metric: what the terminal, the JSON and the report show."""

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
    "SDR": "signal to distortion: all errors together",
    "SIR": "signal to interference: how much is heard of the other stems",
    "ISR": "image to spatial distortion: filtering, level, panning",
    "SAR": "signal to artifacts: what was never in the song",
}
"""The metrics of BSS Eval, which has a figure for every second, and what they say."""


@dataclass(frozen=True, slots=True)
class MetricTable:
    """One metric in dB, for all estimators and songs.

    Attributes:
        key: Its name in JSON.
        title: Its name for people.
        note: What it says.
        songs: Figures by estimator, song and stem, with the mean over the stems under `MEAN`; NaN for a silent stem.
        summary: Means over the songs, or medians, by estimator and stem, and `MEAN`.
        medians: Whether the summary has medians.
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

    @property
    def average(self) -> str:
        """What the summary has: "mean" or "median"."""
        return "median" if self.medians else "mean"

    def compare(self, first: str, second: str) -> dict[str, Comparison]:
        """Compare two estimators over the songs, column by column."""
        return {column: compare(self._values(first, column), self._values(second, column)) for column in self.columns}

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return the figures by estimator: of the songs, and their mean or median."""
        return {name: {"songs": self.songs[name], self.average: self.summary[name]} for name in self.songs}

    def _values(self, estimator: str, column: str) -> list[float]:
        return [row[column] for row in self.songs[estimator].values()]


def metric_tables(results: Mapping[str, Sequence["SongScores"]]) -> list[MetricTable]:
    """Return the tables for the scores of one or more estimators on the same songs, of which there is at least one.

    They are SDR and SI-SDR of whole songs, with means over the songs. With BSS Eval there are SDR, SIR, ISR and SAR,
    too: for a song the median over its seconds, and over the songs the median of those, as in museval.
    """
    tables = [
        _table("sdr", "SDR of whole songs", "10 log10(sum s² / sum (s - e)²)", results, lambda score: score.sdr),
        _table("si_sdr", "SI-SDR of whole songs", "SDR at the best level", results, lambda score: score.si_sdr),
    ]
    if any(score.windows for scores in results.values() for score in scores):
        for metric, note in FRAMEWISE.items():
            title = f"BSS Eval: {metric}"
            tables.append(_table(metric, title, note, results, partial(_over_windows, metric=metric), medians=True))
    return tables


def _table(
    key: str,
    title: str,
    note: str,
    results: Mapping[str, Sequence["SongScores"]],
    figures: Callable[["SongScores"], Mapping[str, float]],
    *,
    medians: bool = False,
) -> MetricTable:
    songs = {name: {score.song: figures(score) for score in scores} for name, scores in results.items()}
    average = median if medians else _mean
    summary = {}
    for name, rows in songs.items():
        stems = next(iter(rows.values()))
        summary[name] = _with_mean({stem: average(_known([row[stem] for row in rows.values()])) for stem in stems})
    with_means = {name: {song: _with_mean(row) for song, row in rows.items()} for name, rows in songs.items()}
    return MetricTable(key, title, note, with_means, summary, medians)


def _over_windows(score: "SongScores", metric: str) -> dict[str, float]:
    """The median over the windows of a song, by stem; windows without a finite figure do not count."""
    return {
        stem: median([value for value in rows[metric] if math.isfinite(value)]) for stem, rows in score.windows.items()
    }


def _with_mean(row: Mapping[str, float]) -> dict[str, float]:
    return {**row, MEAN: _mean(_known(list(row.values())))}


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
