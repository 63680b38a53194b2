"""The report of a training run: one HTML page without scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stemsplit import pages
from stemsplit.errors import StemsplitError
from stemsplit.evaluation.charts import draw_curves
from stemsplit.evaluation.report import STYLE
from stemsplit.files import replacing
from stemsplit.training.recipe import Recipe
from stemsplit.wording import one_line

Row = Mapping[str, Any]
"""An epoch: `epoch` (from 1), `loss`, `gradient` (norm before clipping), `learning_rate`, `seconds`; and if it was
validated, `score` (mean SDR in dB) and `sdr` (by stem), else None and empty."""


def write_report(history: Sequence[Row], recipe: Recipe, path: Path) -> None:
    """Write the page; it appears complete or not at all.

    Args:
        history: A row for each epoch.
        recipe: The settings of the run.
        path: The file.

    Raises:
        StemsplitError: The file cannot be written.
    """
    try:
        with replacing(path) as part:
            part.write_text(render_training(history, recipe), encoding="utf-8")
    except OSError as error:
        message = f"cannot write {str(path)!r}: {one_line(error)}"
        raise StemsplitError(message, "check the folder and the disk", path=path) from error


def render_training(history: Sequence[Row], recipe: Recipe) -> str:
    """Return the page as HTML; the arguments are those of `write_report`."""
    validated = [row for row in history if row.get("score") is not None]
    stems = list(dict.fromkeys(stem for row in history for stem in row["sdr"]))
    hours = sum(row["seconds"] for row in history) / 3600
    charts = [
        ("Loss", [("loss", _points(history, "loss"))]),
        ("Learning rate", [("rate", _points(history, "learning_rate"))]),
        ("Norm of the gradient, before clipping", [("norm", _points(history, "gradient"))]),
    ]
    if validated:
        sdr = [(stem, [(row["epoch"], row["sdr"][stem]) for row in validated if stem in row["sdr"]]) for stem in stems]
        charts.insert(0, ("SDR of the validation songs, dB", [("mean", _points(validated, "score")), *sdr]))
    return pages.render(
        "training/report.html",
        style=STYLE,
        title="Training",
        progress=f"{len(history)} of {recipe.epochs} epochs, {len(history) * recipe.steps} steps, {hours:.2f} hours.",
        best=max(validated, key=lambda row: float(row["score"]), default=None),
        charts=[(name, draw_curves(name, curves)) for name, curves in charts],
        columns=["epoch", "loss", "learning rate", "seconds", *(["mean SDR", *stems] if stems else [])],
        rows=[_cells(row, stems) for row in history],
        settings="\n".join(f"{key} = {value!r}" for key, value in asdict(recipe).items()),
    )


def figures(row: Row) -> dict[str, float]:
    """Return the figures of an epoch by their names in TensorBoard, such as "SDR/vocals"."""
    named = {"loss": row["loss"], "learning rate": row["learning_rate"], "gradient": row["gradient"]}
    if row.get("score") is not None:
        named["SDR/mean"] = row["score"]
    return named | {f"SDR/{stem}": value for stem, value in row["sdr"].items()}


def _points(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[key]) for row in rows]


def _cells(row: Row, stems: Sequence[str]) -> list[str]:
    cells = [str(row["epoch"]), f"{row['loss']:.5f}", f"{row['learning_rate']:.2e}", f"{row['seconds']:.1f}"]
    scores = [row.get("score"), *(row["sdr"].get(stem) for stem in stems)] if stems else []
    return cells + ["" if score is None else f"{score:.2f}" for score in scores]
