"""Scores as museval writes and reads them: a JSON file a track, `<method>/test/<track>.json`.

`museval.EvalStore().add_eval_dir(method)` and `museval.MethodStore().add_eval_dir(method)` read such a folder. The
layout is that of its `TrackStore` and `musdb.schema.json` (version 0.4).
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from stemsplit.evaluation.score_tables import FRAMEWISE

if TYPE_CHECKING:
    from stemsplit.evaluation.scoring import SongScores

SUBSET = "test"  # the only folder that museval reads
DIGITS = 5


def track(score: "SongScores") -> dict[str, Any]:
    """One song: a frame a second for every stem; what is infinite is NaN, as in museval."""
    targets = []
    for stem, rows in score.windows.items():
        frames = [
            {"time": float(i), "duration": 1.0, "metrics": dict(zip(FRAMEWISE, values, strict=True))}
            for i, values in enumerate(zip(*([_rounded(x) for x in rows[m]] for m in FRAMEWISE), strict=True))
        ]
        targets.append({"name": stem, "frames": frames})
    return {"targets": targets}


def files(results: Mapping[str, Iterable["SongScores"]]) -> dict[str, str]:
    """The text of every file, by its path; the name of a track is the song's, on one level."""
    found: dict[str, str] = {}
    for method, scores in results.items():
        folder = f"{flat(method)}/{SUBSET}"
        for score in scores:
            name = flat(score.song)
            while (path := f"{folder}/{name}.json") in found:  # a/b and "a - b"
                name += "'"
            found[path] = json.dumps(track(score), indent=2)
    return found


def flat(name: str) -> str:
    """A name with folders in it as one that is good for a file."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return " - ".join(parts).replace(":", "_") or "_"


def _rounded(value: float) -> float:
    return round(value, DIGITS) if math.isfinite(value) else math.nan
