"""Models of files that no registry knows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stemsplit.models import ensemble
from stemsplit.models.ensemble import Ensemble
from stemsplit.models.registry import LocalModel, ModelSpec, WeightFile


def load_ensemble(
    paths: Sequence[Path],
    gives: Sequence[Sequence[str]] = ((),),
    *,
    config: Mapping[str, Any] | None = None,
    stems: Sequence[str] = (),
) -> Ensemble:
    """An ensemble of files, each of which is for some stems, or for all that it has."""
    files = tuple(WeightFile(path.name, gives=tuple(names)) for path, names in zip(paths, gives, strict=True))
    spec = ModelSpec(name="files", summary="", license="", stems=tuple(stems), files=files, config=config or {})
    return ensemble.load_ensemble(LocalModel(spec, tuple(paths)))
