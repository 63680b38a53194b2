"""From the name of a model to its files: what the command line and the Python interface share. No torch here."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stemsplit import settings
from stemsplit.errors import ModelError
from stemsplit.models import registry
from stemsplit.models.registry import ModelSpec, Registry

Fetch = Callable[[ModelSpec], tuple[ModelSpec, tuple[Path, ...]]]


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that is ready to be loaded.

    Args:
        paths: its files of weights.
        fallback: when it took the place of the default model: `instead_of` which one, and the `reason`.
    """

    spec: ModelSpec
    paths: tuple[Path, ...]
    fallback: dict[str, str] | None = None

    @property
    def gives(self) -> list[tuple[str, ...]]:
        """Which stems each file is for; none for all."""
        return [file.gives for file in self.spec.files] or [()]


def read_registry(own: Path | None = None) -> Registry:
    """Our models, those of the user's configuration folder, and those of the file `own`.

    Raises ModelError on a file that cannot be read or is wrong.
    """
    usual = settings.models_file()
    there = os.path.isfile(usual)  # noqa: PTH113 (never raises)
    return registry.read(*([usual] if there else []), *([own] if own else []))


def find(known: Registry, model: str | None, stems: Sequence[str] = ()) -> ModelSpec:
    """The model of that name, or the default, for these stems; those of a repository may not be known yet.

    Raises ModelError when there is no such model, UsageError when it has no such stem.
    """
    spec = known.find(model or known.default)
    return spec.only(stems) if spec.stems else spec


def obtain(spec: ModelSpec, stems: Sequence[str], fetch: Fetch) -> LocalModel:
    """The files of a model, or of what is needed for some of its stems.

    Args:
        fetch: `hub.obtain`, or what shows how it goes on.

    Raises what `fetch` raises, ModelError for a network that this version cannot run, and UsageError when the model
    has no such stem.
    """
    require_family(spec)
    spec, paths = fetch(spec)
    obtained = LocalModel(spec.only(stems), paths)
    require_family(obtained.spec)  # of a repository it is known only now
    return obtained


def require_family(spec: ModelSpec) -> None:
    """Refuse a network that this version cannot run, before anything is downloaded for it."""
    if spec.family and not registry.runs(spec):
        reason = f"this version of stemsplit cannot run the model {spec.name!r}: it has no family {spec.family!r}"
        raise ModelError(reason, "upgrade stemsplit, or choose another: stemsplit models")
