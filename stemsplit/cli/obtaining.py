"""From the name of a model to its files: what the commands that run one share."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from stemsplit import registry
from stemsplit.errors import ModelError, UnreachableError
from stemsplit.registry import ModelSpec, Registry

if TYPE_CHECKING:
    from stemsplit.console import Messages


@dataclass(frozen=True, slots=True)
class Obtained:
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


def read_registry(own: Path | None) -> Registry:
    """Our models, those of the user's configuration folder, and those of the file that `--registry` names."""
    usual = platformdirs.user_config_path("stemsplit") / "models.toml"
    there = os.path.isfile(usual)  # noqa: PTH113 (never raises)
    return registry.read(*([usual] if there else []), *([own] if own else []))


def obtain(known: Registry, model: str | None, messages: "Messages", stems: Sequence[str] = ()) -> Obtained:
    """Fetch the model of that name, or what is needed for some of its stems, unless it is here.

    When nobody named one and the default cannot be had, the bundled one takes its place. A model that was named is
    never replaced by another.
    """
    spec = find(known, model, stems)
    require_family(spec)
    try:
        spec, paths = fetch(spec, messages)
        obtained = Obtained(spec.only(stems), paths)
        require_family(obtained.spec)  # of a repository it is known only now
        return obtained
    except UnreachableError as error:
        if model or spec.name == registry.FALLBACK:
            raise
        fallback = find(known, registry.FALLBACK, stems)
        hint = f"better: connect to the network once and run  stemsplit models pull {spec.name}"
        messages.warn(f"{error}; {fallback.name}, which travels with stemsplit, takes its place", hint)
        return Obtained(*fetch(fallback, messages), {"instead_of": spec.name, "reason": str(error)})


def find(known: Registry, model: str | None, stems: Sequence[str]) -> ModelSpec:
    """The model of that name, or the default, for these stems; those of a repository may not be known yet."""
    spec = known.find(model or known.default)
    return spec.only(stems) if spec.stems else spec


def fetch(spec: ModelSpec, messages: "Messages") -> tuple[ModelSpec, tuple[Path, ...]]:
    """The files of a model; a download is announced with the licence, and shown."""
    if spec.path:
        return spec, (spec.path,)
    from stemsplit import hub

    def announce(spec: ModelSpec, size: int | None) -> None:
        told = f" ({size / 1e6:.0f} MB)" if size else ""
        messages.note(f"downloading {spec.name}{told} from {spec.repo}")
        messages.note(f"licence of its weights: {spec.license}")

    with messages.download(f"downloading {spec.name}") as on_progress:
        return hub.obtain(spec, on_download=announce, on_progress=on_progress)


def require_family(spec: ModelSpec) -> None:
    """Refuse a network that this version cannot run, before anything is downloaded for it."""
    if spec.family and not registry.runs(spec):
        reason = f"this version of stemsplit cannot run the model {spec.name!r}: it has no family {spec.family!r}"
        raise ModelError(reason, "upgrade stemsplit, or choose another: stemsplit models")
