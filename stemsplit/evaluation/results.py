"""The output folder of an evaluation: `report.html`, `scores.json`, and one JSON file per song for museval.

museval reads `<estimator>/test/<song>.json` with `museval.EvalStore().add_eval_dir(estimator)` and
`museval.MethodStore().add_eval_dir(estimator)`. The layout is that of its `TrackStore` and `musdb.schema.json`
(version 0.4).
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit.errors import StemsplitError, UsageError
from stemsplit.evaluation.score_tables import FRAMEWISE
from stemsplit.files import replacing
from stemsplit.wording import one_line

if TYPE_CHECKING:
    from stemsplit.evaluation.scoring import SongScores

REPORT, SCORES = "report.html", "scores.json"
SUBSET = "test"  # the only folder that museval reads
DIGITS = 5


def check_folder(folder: Path, names: Iterable[str], *, overwrite: bool) -> None:
    """Check, before anything is computed, that results can go into a folder.

    Args:
        folder: Need not exist.
        names: Of the estimators.
        overwrite: Whether existing results may be replaced.

    Raises:
        UsageError: The path is not a folder.
        StemsplitError: The folder already contains results.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        hint = "choose another name with --output"
        raise UsageError(f"the output {str(folder)!r} is not a folder", hint, path=folder)
    for path in [folder / REPORT, folder / SCORES, *(folder / file_name(name) / SUBSET for name in names)]:
        if os.path.lexists(path) and not overwrite:
            hint = "choose another folder with --output, or replace the results with --overwrite"
            raise StemsplitError(f"{str(path)!r} exists already", hint, path=path)


def write_results(folder: Path, texts: Mapping[str, str], *, overwrite: bool) -> None:
    """Write files, each complete or not at all.

    Args:
        folder: Created if it does not exist.
        texts: Contents of the files by their path in the folder.
        overwrite: Also delete museval's files of songs that no longer exist, as museval would count them.

    Raises:
        StemsplitError: A file cannot be written.
    """
    path = folder
    try:
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                part.write_bytes(text.encode(errors="replace"))
        if overwrite:
            written = {folder / name for name in texts}
            for parent in {path.parent for path in written} - {folder}:
                for path in set(parent.glob("*.json")) - written:
                    path.unlink()
    except OSError as error:
        hint = "make room, choose another folder with --output, or change its permissions"
        raise StemsplitError(f"cannot write {str(path)!r}: {one_line(error)}", hint, path=path) from error


def museval_files(results: Mapping[str, Iterable["SongScores"]]) -> dict[str, str]:
    """Return museval's files, as texts by their path, for the scores of each estimator."""
    files: dict[str, str] = {}
    for estimator, scores in results.items():
        folder = f"{file_name(estimator)}/{SUBSET}"
        for score in scores:
            name = file_name(score.song)
            while (path := f"{folder}/{name}.json") in files:  # the songs "a/b" and "a - b"
                name += "'"
            files[path] = json.dumps(museval_track(score), indent=2)
    return files


def museval_track(score: "SongScores") -> dict[str, Any]:
    """Return the scores of a song in museval's layout: one frame per second and stem, NaN for infinite figures."""
    targets = []
    for stem, metrics in score.windows.items():
        rows = [[_rounded(value) for value in metrics[metric]] for metric in FRAMEWISE]
        frames = [
            {"time": float(second), "duration": 1.0, "metrics": dict(zip(FRAMEWISE, values, strict=True))}
            for second, values in enumerate(zip(*rows, strict=True))
        ]
        targets.append({"name": stem, "frames": frames})
    return {"targets": targets}


def file_name(name: str) -> str:
    """Return a name, which may contain folders, as that of one file: "hf://a/b" becomes "hf_ - a - b"."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return " - ".join(parts).replace(":", "_") or "_"


def _rounded(value: float) -> float:
    return round(value, DIGITS) if math.isfinite(value) else math.nan
