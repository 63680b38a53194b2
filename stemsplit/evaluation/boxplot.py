"""Box plots as SVG, for a page: a group of boxes for each stem, a box for each estimator, a dot for each song.

A box holds the middle half of the songs, the line in it is their median, and the whiskers end at the last song within
1.5 times the length of the box (Tukey, 1977), as in the literature on source separation. What it looks like is in
`score_page.css`; colours are given by number, in the order of the estimators.
"""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stemsplit.evaluation.significance import quantile

WIDTH = 760
LEFT, RIGHT = 190, 64  # of the boxes: the names, and the medians
MOST = 100.0  # dB: what is beyond, such as the artifacts of the mixture, is nothing, and would leave the rest no room
ROW, GAP, TOP, BOTTOM = 24, 34, 6, 34  # heights


@dataclass(frozen=True, slots=True)
class Box:
    """Five numbers of a series: where the whiskers end, the quartiles and the median."""

    low: float
    lower: float
    middle: float
    upper: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Box":
        """The box of one number at least."""
        lower, middle, upper = (quantile(values, share) for share in (0.25, 0.5, 0.75))
        reach = 1.5 * (upper - lower)
        within = [value for value in values if lower - reach <= value <= upper + reach]
        return Box(min(within), lower, middle, upper, max(within))


def draw(name: str, groups: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The SVG of figures in dB, by group (stem), series (estimator) and song; those beyond `MOST` are left out.

    name: what it shows, for those who do not see it, and its identity among the pictures of a page.
    """
    groups = {
        group: {series: {k: v for k, v in row.items() if abs(v) <= MOST} for series, row in rows.items()}
        for group, rows in groups.items()
    }
    values = [v for rows in groups.values() for row in rows.values() for v in row.values()] or [0.0]
    ticks = _ticks(min(values), max(values))
    rows = sum(len(each) for each in groups.values())
    height = TOP + GAP * len(groups) + ROW * rows + BOTTOM
    scale = _Scale(ticks[0], ticks[-1])
    body = "\n".join([*_grid(ticks, scale, height), *_groups(groups, scale)])
    told = html.escape(name, quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{told}: box plots; the table below has the '
        f'figures">\n{body}\n</svg>'
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    first: float
    last: float

    def __call__(self, value: float) -> str:
        share = (value - self.first) / (self.last - self.first)
        return f"{LEFT + share * (WIDTH - LEFT - RIGHT):.1f}"


def _ticks(least: float, most: float) -> list[float]:
    """About six round numbers of dB that enclose both."""
    span = max(most - least, 1.0)
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough)
    first, last = math.floor(least / step), math.ceil(most / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _grid(ticks: Sequence[float], scale: _Scale, height: int) -> Iterator[str]:
    bottom = height - BOTTOM
    for tick in ticks:
        kind = "zero" if tick == 0 else "tick"
        yield f'<line class="{kind}" x1="{scale(tick)}" x2="{scale(tick)}" y1="{TOP}" y2="{bottom}"/>'
        yield f'<text class="number" x="{scale(tick)}" y="{bottom + 16}">{tick:g}</text>'
    yield f'<text class="number" x="{WIDTH - RIGHT + 36}" y="{bottom + 16}">dB</text>'


def _groups(groups: Mapping[str, Mapping[str, Mapping[str, float]]], scale: _Scale) -> Iterator[str]:
    top = TOP
    for group, rows in groups.items():
        yield f'<text class="group" x="0" y="{top + 22}">{html.escape(group)}</text>'
        top += GAP
        for number, (series, songs) in enumerate(rows.items()):
            yield f'<g class="s{number}">{"".join(_row(series, songs, scale, top + ROW / 2))}</g>'
            top += ROW


def _row(series: str, songs: Mapping[str, float], scale: _Scale, y: float) -> Iterator[str]:
    yield f'<text class="series" x="{LEFT - 14}" y="{y + 4}">{html.escape(_short(series))}</text>'
    if not songs:
        yield f'<text class="none" x="{LEFT}" y="{y + 4}">no song within 100 dB</text>'
        return
    box = Box.of(list(songs.values()))
    for start, end in ((box.low, box.lower), (box.upper, box.high)):
        yield f'<line class="whisker" x1="{scale(start)}" x2="{scale(end)}" y1="{y}" y2="{y}"/>'
    width = max(float(scale(box.upper)) - float(scale(box.lower)), 1)
    yield f'<rect class="box" x="{scale(box.lower)}" y="{y - 8}" width="{width:.1f}" height="16" rx="2"/>'
    yield f'<line class="median" x1="{scale(box.middle)}" x2="{scale(box.middle)}" y1="{y - 8}" y2="{y + 8}"/>'
    for number, (song, value) in enumerate(songs.items()):
        # Beside each other in a fixed order, so that dots of the same figure can be told apart.
        at = y + (number * 5 % 11 - 5) * 1.1
        told = html.escape(f"{song}: {value:.2f} dB")
        yield f'<circle class="song" cx="{scale(value)}" cy="{at:.1f}" r="2.2"><title>{told}</title></circle>'
    yield f'<text class="value" x="{WIDTH - 6}" y="{y + 4}">{box.middle:.2f}</text>'


def _short(name: str) -> str:
    """A name that has room in front of the boxes; its end tells more than its beginning."""
    return name if len(name) <= 22 else f"…{name[-21:]}"
