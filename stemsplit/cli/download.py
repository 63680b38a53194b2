"""The files of a model, with what the user should see of it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stemsplit.errors import UnreachableError
from stemsplit.models import loading, registry
from stemsplit.models.registry import ModelSpec, Registry

if TYPE_CHECKING:
    from stemsplit.cli.console import Messages


def obtain(known: Registry, model: str | None, messages: "Messages", stems: Sequence[str] = ()) -> loading.LocalModel:
    """Fetch the model of that name, or what is needed for some of its stems, unless it is here.

    When nobody named one and the default cannot be had, the bundled one takes its place. A model that was named is
    never replaced by another.
    """
    spec = loading.find(known, model, stems)
    loud = partial(fetch, messages=messages)
    try:
        return loading.obtain(spec, stems, loud)
    except UnreachableError as error:
        if model or spec.name == registry.FALLBACK:
            raise
        fallback = loading.find(known, registry.FALLBACK, stems)
        hint = f"better: connect to the network once and run  stemsplit models pull {spec.name}"
        messages.warn(f"{error}; {fallback.name}, which travels with stemsplit, takes its place", hint)
        instead = {"instead_of": spec.name, "reason": str(error)}
        return replace(loading.obtain(fallback, stems, loud), fallback=instead)


def fetch(spec: ModelSpec, messages: "Messages") -> tuple[ModelSpec, tuple[Path, ...]]:
    """The files of a model; a download is announced with the licence, and shown."""
    if spec.path:
        return spec, (spec.path,)
    from stemsplit.models import hub

    def announce(spec: ModelSpec, size: int | None) -> None:
        told = f" ({size / 1e6:.0f} MB)" if size else ""
        messages.note(f"downloading {spec.name}{told} from {spec.repo}")
        messages.note(f"licence of its weights: {spec.license}")

    with messages.download(f"downloading {spec.name}") as on_progress:
        return hub.obtain(spec, on_download=announce, on_progress=on_progress)
