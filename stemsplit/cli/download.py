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


def obtain(
    spec: ModelSpec, messages: "Messages", *, stems: Sequence[str] = (), bundled_from: Registry | None = None
) -> loading.LocalModel:
    """Get the files of a model, and show how a download goes on.

    Args:
        spec: the model.
        messages: where to show it.
        stems: the wanted stems; all by default. What only others need is not downloaded.
        bundled_from: where to find the bundled model, which takes the place of one that cannot be downloaded; None if
            the user named the model, which is then never replaced.
    """
    get = partial(fetch, messages=messages)
    try:
        return loading.obtain(spec, stems, get)
    except UnreachableError as error:
        if bundled_from is None or spec.name == registry.FALLBACK:
            raise
        bundled = loading.find(bundled_from, registry.FALLBACK, stems)
        hint = f"better: connect to the network once and run  stemsplit models pull {spec.name}"
        messages.warn(f"{error}; {bundled.name}, which travels with stemsplit, takes its place", hint)
        fallback = {"instead_of": spec.name, "reason": str(error)}
        return replace(loading.obtain(bundled, stems, get), fallback=fallback)


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
