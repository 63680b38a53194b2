"""Downloading a model on the command line: size and licence are printed first, and a bar shows the progress."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from stemsplit.errors import ModelError, UnreachableError
from stemsplit.models import cache, hub
from stemsplit.models.registry import FALLBACK, LocalModel, ModelSpec, Registry

if TYPE_CHECKING:
    from stemsplit.cli.console import Messages


def find_and_download(
    known: Registry, name: str | None, messages: "Messages", *, accept_license: bool = False
) -> LocalModel:
    """Look up a model and download it unless it is cached; if the default is not to be had, use the bundled model.

    Args:
        known: All models.
        name: What the user named; None for the default.
        messages: Where the download is shown.
        accept_license: As for `download`.

    Raises:
        ModelError, UnreachableError: As `download`.
    """
    fallback = None if name else known.find(FALLBACK)
    return download(known.find(name), messages, accept_license=accept_license, fallback=fallback)


def download(
    spec: ModelSpec,
    messages: "Messages",
    *,
    stems: Sequence[str] = (),
    accept_license: bool = False,
    fallback: ModelSpec | None = None,
) -> LocalModel:
    """Download a model, unless it is cached, and show the progress.

    Args:
        spec: The model, from `Registry.find`.
        messages: Where the download is shown.
        stems: The requested stems; all if empty.
        accept_license: Accept licences that must be accepted before the first download; otherwise the user is asked on
            a terminal.
        fallback: The model to use instead, with a warning, if this one is neither here nor to be had. A model that the
            user named should have none.

    Raises:
        ModelError, UnreachableError, UsageError: As `hub.download`.
        ModelError: A licence was not accepted.
    """

    def ask(spec: ModelSpec) -> None:
        messages.note(f"asking the Hub for {spec.name} ...")

    def announce(spec: ModelSpec, size: int | None) -> None:
        megabytes = f" ({size / 1e6:.0f} MB)" if size else ""
        repos = dict.fromkeys(part.repo for part in spec.parts if part.repo)
        messages.note(f"downloading {spec.name}{megabytes} from {' and '.join(repos)}")
        for part in spec.parts:
            whose = "its weights" if part is spec else f"the weights of {part.name}"
            messages.note(f"licence of {whose}: {part.license}")

    if spec.is_local:
        return hub.download(spec, stems)
    for part in spec.parts:
        if part.confirm and not accept_license and len(cache.find_files(part)) < len(part.files):
            _ask_to_accept(part, messages)
    try:
        with messages.download(f"downloading {spec.name}") as on_progress:
            return hub.download(
                spec,
                stems,
                accept_license=lambda part: True,
                on_ask=ask,
                on_download=announce,
                on_progress=on_progress,
            )
    except ModelError as error:  # whatever the reason, the first command of a newcomer works
        if fallback is None or fallback.name == spec.name or not fallback.has(stems):
            raise
        hint = error.hint
        if isinstance(error, UnreachableError):
            hint = f"connect to the network once and run  stemsplit models pull {spec.name}"
        messages.warn(f"{error}; using {fallback.name}, which is bundled with stemsplit, instead", hint)
        local = hub.download(fallback, stems)
        return replace(local, fallback={"instead_of": spec.name, "reason": str(error)})


def _ask_to_accept(spec: ModelSpec, messages: "Messages") -> None:
    """Ask on a terminal whether the licence of a model is accepted; raise ModelError unless it is."""
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty():
        messages.warn(f"licence of the weights of {spec.name}: {spec.license}")
        if typer.confirm("Download it under this licence?", err=True):
            return
    message = f"the licence of the model {spec.name!r} has to be accepted, by --accept-license: {spec.license}"
    raise ModelError(message, f"about the model:  stemsplit models info {spec.name}", model=spec.name)
