"""Charts as SVG: box plots of an evaluation, curves of a training run.

Their look is in `report.css`, which has a colour for each number of a series.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stemsplit.evaluation.significance import quantile
from stemsplit.pages import escape

WIDTH = 760
BOX_LEFT, BOX_RIGHT = 190, 64  # beside the boxes: names on the left, medians on the right
ROW_HEIGHT, GROUP_HEIGHT, BOX_TOP, BOX_BOTTOM = 24, 34, 6, 34
LIMIT_DB = 100.0  # figures beyond it, such as the SAR of the mixture, would squeeze all others into a line
CURVE_HEIGHT = 260
CURVE_LEFT, CURVE_RIGHT, CURVE_TOP, CURVE_BOTTOM = 64, 120, 14, 34
COLOURS = 7

Curve = tuple[str, Sequence[tuple[float, float]]]
"""A name, and points (epoch, value)."""


@dataclass(frozen=True, slots=True)
class Box:
    """The five numbers of a box plot: the ends of the whiskers, the quartiles and the median."""

    low: float
    lower_quartile: float
    median: float
    upper_quartile: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Box":
        """Summarise at least one value; whiskers end at the last value within 1.5 times the box (Tukey, 1977)."""
        lower, middle, upper = (quantile(values, share) for share in (0.25, 0.5, 0.75))
        reach = 1.5 * (upper - lower)
        within = [value for value in values if lower - reach <= value <= upper + reach]
        return Box(min(within), lower, middle, upper, max(within))


def draw_boxes(name: str, groups: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Markup:
    """Draw a group of boxes for each stem, in it a box for each estimator, and a dot for each song.

    Args:
        name: What the chart shows, for screen readers.
        groups: Figures in dB by stem, estimator and song. Those beyond `LIMIT_DB` are left out.
    """
    groups = {
        group: {series: {k: v for k, v in row.items() if abs(v) <= LIMIT_DB} for series, row in rows.items()}
        for group, rows in groups.items()
    }
    values = [v for rows in groups.values() for row in rows.values() for v in row.values()] or [0.0]
    marks = ticks(min(values), max(values), least_span=1.0)
    x = _Scale(marks[0], marks[-1], BOX_LEFT, WIDTH - BOX_RIGHT)
    bottom = BOX_TOP + GROUP_HEIGHT * len(groups) + ROW_HEIGHT * sum(map(len, groups.values()))
    elements = []
    for mark in marks:
        elements.append(_line("tick" if mark else "zero", x(mark), BOX_TOP, x(mark), bottom))
        elements.append(_text("number", x(mark), bottom + 16, f"{mark:g}"))
    elements.append(_text("number", WIDTH - BOX_RIGHT + 36, bottom + 16, "dB"))
    y = BOX_TOP
    for group, rows in groups.items():
        elements.append(_text("group", 0, y + 22, group))
        y += GROUP_HEIGHT
        for number, (series, songs) in enumerate(rows.items()):
            elements.append(_element("g", *_box_row(series, songs, x, y + ROW_HEIGHT / 2), class_=f"s{number}"))
            y += ROW_HEIGHT
    return _svg(bottom + BOX_BOTTOM, f"{name}: box plots; the table below has the figures", elements)


def draw_curves(name: str, curves: Sequence[Curve]) -> Markup:
    """Draw curves over the epochs, the first one thicker; points that are not finite are left out.

    Args:
        name: What the chart shows, for screen readers.
        curves: In the order of their colours.
    """
    finite = [(label, [(x, y) for x, y in points if math.isfinite(y)]) for label, points in curves]
    xs = [x for _, points in finite for x, _ in points] or [0.0]
    ys = [y for _, points in finite for _, y in points] or [0.0]
    marks = ticks(min(ys), max(ys))
    first, last = min(xs), max(xs)
    bottom, right = CURVE_HEIGHT - CURVE_BOTTOM, WIDTH - CURVE_RIGHT
    x = _Scale(first, max(last, first + 1), CURVE_LEFT, right)
    y = _Scale(min(marks[0], *ys), max(marks[-1], *ys), bottom, CURVE_TOP)
    elements = []
    for mark in marks:
        elements.append(_line("tick", CURVE_LEFT, y(mark), right, y(mark)))
        elements.append(_text("series", CURVE_LEFT - 6, y(mark) + 4, f"{mark:.4g}"))
    for epoch in dict.fromkeys((first, max(last, first + 1))):
        elements.append(_text("number", x(epoch), bottom + 22, f"{epoch:g}"))
    elements.append(_text("number", (CURVE_LEFT + right) / 2, bottom + 22, "epoch"))
    ends = []
    for number, (label, points) in enumerate(finite):
        colour = f"s{number % COLOURS}"
        path = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in points)
        width = 2.5 if number == 0 else 1.5
        elements.append(_element("polyline", class_=f"curve {colour}", points=path, stroke_width=width))
        if points:
            end = y(points[-1][1])
            elements.append(_element("circle", class_=f"dot {colour}", cx=x(points[-1][0]), cy=end, r=3))
            ends.append((end, label, colour))
    below = -math.inf
    for end, label, colour in sorted(ends):  # beside the ends of the curves, as closely as the labels fit
        below = max(end + 4, below + 14)
        elements.append(_text(f"label {colour}", right + 8, below, label))
    return _svg(CURVE_HEIGHT, f"{name}: curves; the table below has the figures", elements)


def ticks(low: float, high: float, *, least_span: float = 0.0) -> list[float]:
    """Return about six round numbers, from `low` or below to `high` or above, at least two.

    Args:
        low: Lower end of the range to enclose.
        high: Upper end of the range.
        least_span: Choose steps as for a range of at least this size.
    """
    rough = (max(high - low, least_span) or abs(low) or 1.0) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True, slots=True)
class _Scale:
    """A linear map from [low, high] to [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _box_row(series: str, songs: Mapping[str, float], x: _Scale, y: float) -> Iterator[Markup]:
    yield _text("series", BOX_LEFT - 14, y + 4, _shortened(series))
    if not songs:
        yield _text("none", BOX_LEFT, y + 4, f"no song within {LIMIT_DB:g} dB")
        return
    box = Box.of(list(songs.values()))
    yield _line("whisker", x(box.low), y, x(box.lower_quartile), y)
    yield _line("whisker", x(box.upper_quartile), y, x(box.high), y)
    start, width = x(box.lower_quartile), max(x(box.upper_quartile) - x(box.lower_quartile), 1)
    yield _element("rect", class_="box", x=start, y=y - 8, width=width, height=16, rx=2)
    yield _line("median", x(box.median), y - 8, x(box.median), y + 8)
    for number, (song, value) in enumerate(songs.items()):
        # Spread in a fixed pattern, so that dots of equal figures can be told apart.
        spread = y + (number * 5 % 11 - 5) * 1.1
        title = _element("title", f"{song}: {value:.2f} dB")
        yield _element("circle", title, class_="song", cx=x(value), cy=spread, r=2.2)
    yield _text("value", WIDTH - 6, y + 4, f"{box.median:.2f}")


def _shortened(name: str) -> str:
    """A name that fits in front of the boxes: its end says more than its beginning."""
    return name if len(name) <= 22 else f"…{name[-21:]}"


def _svg(height: float, label: str, elements: Sequence[Markup]) -> Markup:
    return _element("svg", *elements, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=label)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return _element("line", class_=kind, x1=x1, y1=y1, x2=x2, y2=y2)


def _text(kind: str, x: float, y: float, text: str) -> Markup:
    return _element("text", text, class_=kind, x=x, y=y)


def _element(tag: str, *content: str, **attributes: object) -> Markup:
    """An element with its content and attributes escaped; numbers are pixels, to a tenth."""
    written = [
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), escape(_pixels(value)))
        for name, value in attributes.items()
    ]
    inside = Markup("").join(map(escape, content))
    return Markup("<{}{}>{}</{}>\n").format(tag, Markup("").join(written), inside, tag)


def _pixels(value: object) -> object:
    return f"{value:.1f}" if isinstance(value, float) else value
