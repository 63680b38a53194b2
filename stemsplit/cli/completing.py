"""What a shell offers when Tab is pressed. Nothing here needs torch."""

from pathlib import Path

import typer

from stemsplit.errors import StemsplitError
from stemsplit.models.registry import Registry, read_registry


def complete_model(context: typer.Context) -> list[tuple[str, str]]:
    """The names of models, with what they are."""
    try:
        known = _registry(context)
    except StemsplitError:
        return []
    return [(spec.name, spec.summary) for spec in known.models.values()]


def complete_stems(context: typer.Context, incomplete: str) -> list[str]:
    """The stems of the model, after those that are named already: `vocals,d` -> `vocals,drums`."""
    try:
        spec = _registry(context).find(context.params.get("model"))
    except StemsplitError:
        return []
    *before, _ = incomplete.split(",")
    return [",".join([*before, stem]) for stem in spec.stems if stem not in before]


def _registry(context: typer.Context) -> Registry:
    own = context.params.get("own")  # what --registry has, which some versions of Typer have not converted yet
    return read_registry(Path(own) if own else None)
