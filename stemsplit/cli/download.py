"""Downloading a model on the command line: size and licence are printed first, and a bar shows the progress."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stemsplit.errors import ModelError, UnreachableError
from stemsplit.models import hub
from stemsplit.models.registry import FALLBACK, LocalModel, ModelSpec, Registry

if TYPE_CHECKING:
    from stemsplit.cli.console import Messages


def find_and_download(known: Registry, name: str | None, messages: "Messages") -> LocalModel:
    """Look up a model and download it unless it is cached; if the default is not to be had, use the bundled model.

    Args:
        known: All models.
        name: What the user named; None for the default.
        messages: Where the download is shown.

    Raises:
        ModelError, UnreachableError: As `hub.download`.
    """
    return download(known.find(name), messages, fallback=None if name else known.find(FALLBACK))


def download(
    spec: ModelSpec, messages: "Messages", *, stems: Sequence[str] = (), fallback: ModelSpec | None = None
) -> LocalModel:
    """Download a model, unless it is cached, and show the progress.

    Args:
        spec: The model, from `Registry.find`.
        messages: Where the download is shown.
        stems: The requested stems; all if empty.
        fallback: The model to use instead, with a warning, if this one is neither here nor to be had. A model that the
            user named should have none.

    Raises:
        ModelError, UnreachableError, UsageError: As `hub.download`.
    """

    def ask(spec: ModelSpec) -> None:
        messages.note(f"asking the Hub for {spec.name} ...")

    def announce(spec: ModelSpec, size: int | None) -> None:
        megabytes = f" ({size / 1e6:.0f} MB)" if size else ""
        repos = dict.fromkeys(part.repo for part in spec.parts if part.repo)
        messages.note(f"downloading {spec.name}{megabytes} from {' and '.join(repos)}")
        messages.note(f"licence of its weights: {spec.license}")

    if spec.is_local:
        return hub.download(spec, stems)
    try:
        with messages.download(f"downloading {spec.name}") as on_progress:
            return hub.download(spec, stems, on_ask=ask, on_download=announce, on_progress=on_progress)
    except ModelError as error:  # whatever the reason, the first command of a newcomer works
        if fallback is None or fallback.name == spec.name or not fallback.has(stems):
            raise
        hint = error.hint
        if isinstance(error, UnreachableError):
            hint = f"connect to the network once and run  stemsplit models pull {spec.name}"
        messages.warn(f"{error}; using {fallback.name}, which is bundled with stemsplit, instead", hint)
        local = hub.download(fallback, stems)
        return replace(local, fallback={"instead_of": spec.name, "reason": str(error)})
