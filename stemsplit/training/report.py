"""The curves of a training run as one HTML page that needs nothing else: no script, no network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from stemsplit.errors import StemsplitError
from stemsplit.files import replacing
from stemsplit.training.recipe import Recipe

Row = Mapping[str, Any]
Line = tuple[str, list[tuple[float, float]]]  # its name, and its points (epoch, value)

WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 120, 14, 34  # around what is drawn in
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")  # Okabe and Ito's
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
svg { width: 100%; height: auto } text { font: 12px system-ui, sans-serif; fill: #444 }
table { border-collapse: collapse } td, th { padding: .1em .8em; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } pre { background: #f5f5f5; padding: 1em; overflow-x: auto }
"""


def write_report(history: Sequence[Row], recipe: Recipe, path: Path) -> None:
    """Write the page, in one step.

    Args:
        history: a row for each epoch with `epoch`, `loss`, `gradient`, `learning_rate`, `seconds`, and where it was
            validated `score` (the mean SDR in dB) and `sdr` (by stem).
    """
    try:
        with replacing(path) as part:
            part.write_text(make_report(history, recipe), encoding="utf-8")
    except OSError as error:
        raise StemsplitError(
            f"cannot write {str(path)!r}: {error.strerror}", "check the folder and the disk"
        ) from error


def make_report(history: Sequence[Row], recipe: Recipe) -> str:
    """The page as text."""
    scored = [row for row in history if row.get("score") is not None]
    best = max(scored, key=lambda row: float(row["score"]), default=None)
    seconds = sum(row["seconds"] for row in history)
    told = f"{len(history)} of {recipe.epochs} epochs, {len(history) * recipe.steps} steps, {seconds / 3600:.2f} hours"
    parts = [f"<p>{told}.</p>"]
    if best is not None:
        stems = ", ".join(f"{escape(stem)} {value:.2f}" for stem, value in best["sdr"].items())
        parts.append(f"<p>Best validation: <b>{best['score']:.2f} dB</b> after epoch {best['epoch']} ({stems}).</p>")
        lines = [("mean", _points(scored, "score"))]
        names = dict.fromkeys(stem for row in scored for stem in row["sdr"])
        lines += [(stem, [(r["epoch"], r["sdr"][stem]) for r in scored if stem in r["sdr"]]) for stem in names]
        parts += ["<h2>SDR of the validation songs, dB</h2>", draw(lines)]
    parts += ["<h2>Loss</h2>", draw([("loss", _points(history, "loss"))])]
    parts += ["<h2>Learning rate</h2>", draw([("rate", _points(history, "learning_rate"))])]
    parts += ["<h2>Norm of the gradient, before clipping</h2>", draw([("norm", _points(history, "gradient"))])]
    parts += ["<h2>Epochs</h2>", _table(history), "<h2>Recipe</h2>"]
    settings = "\n".join(f"{key} = {value!r}" for key, value in asdict(recipe).items())
    parts.append(f"<pre>{escape(settings)}</pre>")
    head = f'<meta charset="utf-8"><title>Training</title><style>{STYLE}</style>'
    body = "\n".join(["<h1>Training</h1>", *parts])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def figures(row: Row) -> dict[str, float]:
    """An epoch's figures by name, those that there are."""
    named = {"loss": row["loss"], "learning rate": row["learning_rate"], "gradient": row["gradient"]}
    if row.get("score") is not None:
        named["SDR/mean"] = row["score"]
    return named | {f"SDR/{stem}": value for stem, value in row["sdr"].items()}


def draw(lines: Sequence[Line]) -> str:
    """Curves over the epochs as SVG, the first one thicker; values that are no finite numbers are left out."""
    drawn = [(name, [(x, y) for x, y in points if math.isfinite(y)]) for name, points in lines]
    xs = [x for _, points in drawn for x, _ in points] or [0.0]
    ys = [y for _, points in drawn for _, y in points] or [0.0]
    ticks = _ticks(min(ys), max(ys))
    low, high = min(ticks[0], *ys), max(ticks[-1], *ys)
    first, last = min(xs), max(max(xs), min(xs) + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return LEFT + across, TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in ticks:
        _, y = place(first, tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for x in dict.fromkeys((first, last)):
        parts.append(f'<text x="{place(x, low)[0]:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{x:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">epoch</text>')
    labels = []
    for number, (name, points) in enumerate(drawn):
        color, width = COLORS[number % len(COLORS)], 2.5 if number == 0 else 1.5
        places = [place(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"/>')
        if places:
            parts.append(f'<circle cx="{places[-1][0]:.1f}" cy="{places[-1][1]:.1f}" r="3" fill="{color}"/>')
            labels.append((places[-1][1], name, color))
    below = -math.inf
    for y, name, color in sorted(labels):  # as close to the ends of the curves as they fit beneath each other
        below = max(y + 4, below + 14)
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{below:.1f}" style="fill:{color}">{escape(name)}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from below `low` to above `high`, some five of them."""
    if high <= low:
        low, high = low - abs(low or 1) / 2, high + abs(high or 1) / 2
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
    first = math.floor(low / step)
    return [number * step for number in range(first, math.ceil(high / step) + 1)]


def _points(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[key]) for row in rows]


def _table(history: Sequence[Row]) -> str:
    names = list(dict.fromkeys(stem for row in history for stem in row["sdr"]))
    heads = ["epoch", "loss", "learning rate", "seconds", *(["mean SDR"] if names else []), *names]
    lines = [f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"]
    for row in history:
        cells = [str(row["epoch"]), f"{row['loss']:.5f}", f"{row['learning_rate']:.2e}", f"{row['seconds']:.1f}"]
        if names:
            scores = [row.get("score"), *(row["sdr"].get(name) for name in names)]
            cells += ["" if score is None else f"{score:.2f}" for score in scores]
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"
