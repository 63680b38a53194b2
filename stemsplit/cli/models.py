"""The commands that look after models: which there are, fetching, checking and removing their weights, publishing."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from stemsplit.cli.completing import complete_model
from stemsplit.cli.download import fetch
from stemsplit.cli.options import Json, Quiet, RegistryFile
from stemsplit.errors import ModelError, UsageError
from stemsplit.models import conversion
from stemsplit.models.loading import read_registry
from stemsplit.models.registry import HUB, ModelSpec, Registry, WeightFile, runs

app = typer.Typer(rich_markup_mode=None, invoke_without_command=True, help="List, fetch, check and remove models.")

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", autocompletion=complete_model, help="A model's name, or hf://OWNER/NAME[@REVISION]."
    ),
]
Models = Annotated[
    list[str] | None, typer.Argument(metavar="[MODEL]...", autocompletion=complete_model, help="Names of models.")
]
All = Annotated[bool, typer.Option("--all", help="All models of the list.")]


@app.callback()
def default(context: typer.Context, own: RegistryFile = None, as_json: Json = False) -> None:
    """List, fetch, check and remove models. Without a command: list."""
    if context.invoked_subcommand is None:
        list_models(own, as_json)


@app.command("list")
def list_models(own: RegistryFile = None, as_json: Json = False) -> None:
    """Show all models: what they give, how good and how large they are, their licences, and which are here."""
    from stemsplit.cli import console

    known = read_registry(own)
    if as_json:
        console.write_json({"default": known.default, "models": [_describe(spec) for spec in known.models.values()]})
        return
    rows = []
    for spec in known.models.values():
        name = f"{spec.name} *" if spec.name == known.default else spec.name
        state = _state(spec) if runs(spec) else "not for this version"
        license = re.split(r"[;(]", spec.license)[0].strip()
        rows.append([name, str(len(spec.stems)), _quality(spec), _megabytes(spec), license, state])
    console.write_rows(["model", "stems", "SDR", "size", "licence", "state"], rows)
    note = "* runs when no model is named; SDR in brackets is of another kind; all about one:"
    console.Messages().note(f"{note}  stemsplit models info MODEL")


@app.command()
def info(model: Model, own: RegistryFile = None, as_json: Json = False) -> None:
    """Show all that is known about a model."""
    from stemsplit.cli import console

    spec = read_registry(own).find(model)
    if as_json:
        console.write_json(_describe(spec))
        return
    sdr = ", ".join(f"{stem} {value:.2f}" for stem, value in spec.sdr.items())
    rows = [
        ["model", spec.name],
        ["", spec.summary],
        ["stems", " ".join(spec.stems)],
        [
            "family",
            spec.family if runs(spec) or not spec.family else f"{spec.family}, which this version does not have",
        ],
        ["licence", spec.license],
        *([["SDR in dB", sdr], ["", spec.sdr_metric], ["", spec.sdr_source]] if sdr else []),
        ["size", _megabytes(spec)],
        ["state", _state(spec)],
        *([["from", f"https://huggingface.co/{spec.repo}/tree/{spec.revision}"]] if spec.repo else []),
        *(["file", f"{file.name}  SHA-256 {file.sha256 or 'unpinned'}"] for file in spec.files),
        *(["path", str(path)] for path in _paths(spec)),
    ]
    console.write_rows(None, rows)


@app.command()
def pull(
    models: Models = None,
    everything: All = False,
    own: RegistryFile = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch models now, so that they are here without a network later. One that fails does not stop the others."""
    from stemsplit.cli import console

    known, messages = read_registry(own), console.Messages(quiet=quiet)
    chosen = _chosen(known, models, everything, needed=True)
    results: list[dict[str, Any]] = []
    for spec in chosen:
        try:
            spec, paths = fetch(spec, messages)
        except ModelError as error:
            messages.error(error)
            results.append({"model": spec.name, "error": str(error), "hint": error.hint})
            continue
        messages.note(f"{spec.name} is here")
        results.append({"model": spec.name, "paths": [str(path) for path in paths]})
        if not as_json:
            for path in paths:
                console.write(str(path))
    if as_json:
        console.write_json({"models": results})
    if any("error" in result for result in results):
        raise typer.Exit(1)


@app.command()
def verify(models: Models = None, own: RegistryFile = None, as_json: Json = False) -> None:
    """Hash the files of models once more: of all that are here, or of those that are named."""
    from stemsplit.cli import console
    from stemsplit.models import cache

    messages = console.Messages()
    results: list[dict[str, Any]] = []
    for spec in _chosen(read_registry(own), models, everything=not models):
        cached = _cached(spec)
        if models and not spec.path and len(cached) < (len(spec.files) or 1):
            error = ModelError(
                f"the model {spec.name!r} is not here, or not all of it", f"stemsplit models pull {spec.name}"
            )
            messages.error(error)
            results.append({"model": spec.name, "file": None, "path": None, "good": False, "error": str(error)})
        for file, path in [*cached, *conversion.find(spec)]:
            result = {"model": spec.name, "file": file.name, "path": str(path), "good": True}
            try:
                cache.check(file, path, again=True)
            except ModelError as error:
                hint = f"it is fetched again when it is used, or by  stemsplit models pull {spec.name}"
                messages.error(ModelError(f"the model {spec.name!r} is damaged: {error}", hint))
                result |= {"good": False, "error": str(error)}
            results.append(result)
            if not as_json and result["good"]:
                console.write(f"{spec.name}: {file.name} is good")
    if as_json:
        console.write_json({"files": results})
    elif not results:
        messages.note("no downloaded weights are here")
    if not all(result["good"] for result in results):
        raise typer.Exit(1)


@app.command()
def remove(models: Models = None, everything: All = False, own: RegistryFile = None, as_json: Json = False) -> None:
    """Delete the downloaded weights of models. The bundled one stays."""
    from stemsplit.cli import console
    from stemsplit.models import cache

    messages = console.Messages()
    results: list[dict[str, Any]] = []
    for spec in _chosen(read_registry(own), models, everything, needed=True):
        freed = 0
        for file, path in [*_cached(spec), *conversion.find(spec)]:
            result: dict[str, Any] = {"model": spec.name, "file": file.name}
            try:
                result["freed"] = cache.discard(path)
            except ModelError as error:
                messages.error(error)
                result["error"] = str(error)
            else:
                cache.forget(path)
                freed += result["freed"]
            results.append(result)
        if spec.path:
            messages.note(f"{spec.name} is a part of stemsplit, or a file of your own, and stays")
        else:
            messages.note(f"{spec.name}: {freed / 1e6:.0f} MB free")
    if as_json:
        console.write_json({"removed": results})
    if any("error" in result for result in results):
        raise typer.Exit(1)


@app.command()
def path(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", autocompletion=complete_model, help="A model's name.")
    ] = None,
    own: RegistryFile = None,
    as_json: Json = False,
) -> None:
    """Print where the weights of a model are, or where all downloads are kept."""
    from stemsplit.cli import console
    from stemsplit.models import cache

    if model is None:
        paths = [cache.hub_cache()]
    else:
        spec = read_registry(own).find(model)
        paths = _paths(spec)
        if not paths:
            raise ModelError(f"the model {spec.name!r} is not here", f"stemsplit models pull {spec.name}")
    if as_json:
        console.write_json({"paths": [str(each) for each in paths]})
        return
    for each in paths:
        console.write(str(each))


@app.command()
def push(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A model that stemsplit has trained.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A repository on the Hub; it is made if need be.")],
    license: Annotated[
        str, typer.Option(help="Under which licence you publish the weights, as the Hub names it, for example mit.")
    ] = "",
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private; one that is public is refused.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Publish a trained model on the Hugging Face Hub, with a model card.

    It is then run as hf://OWNER/NAME. Log in with  hf auth login  first, or set HF_TOKEN.
    """
    from stemsplit.cli import console
    from stemsplit.models import publish

    messages = console.Messages(quiet=quiet)
    with messages.progress(f"uploading {checkpoint.name}"):
        commit = publish.push(checkpoint, repo.removeprefix(HUB), license=license, private=private)
    address = f"{HUB}{repo.removeprefix(HUB)}@{commit}"
    messages.note(f"run it anywhere:  stemsplit song.mp3 --model {address}")
    if as_json:
        console.write_json({"model": address, "commit": commit})
    else:
        console.write(address)


def _chosen(known: Registry, names: list[str] | None, everything: bool, *, needed: bool = False) -> list[ModelSpec]:
    if everything and names:
        raise UsageError("--all was given beside names of models", "leave one of them out")
    if needed and not (everything or names):
        raise UsageError("no model was named", "name one, or give --all")
    return list(known.models.values()) if everything else [known.find(name) for name in names or ()]


def _cached(spec: ModelSpec) -> list[tuple[WeightFile, Path]]:
    """The downloaded files of a model, with what is known about them."""
    if spec.path:
        return []
    from stemsplit.models import cache

    if not spec.files:  # a repository that the user named
        return [(WeightFile(found.name), found)] if (found := cache.find_weights(spec)) else []
    return [(file, found) for file in spec.files if (found := cache.find(spec, file))]


def _paths(spec: ModelSpec) -> list[Path]:
    return [spec.path] if spec.path else [found for _, found in [*_cached(spec), *conversion.find(spec)]]


def _state(spec: ModelSpec) -> str:
    if spec.path:
        return "here"
    here, wanted = len(_cached(spec)), len(spec.files) or 1
    return "here" if here == wanted else f"{here} of {wanted} files here" if here else "not here"


def _quality(spec: ModelSpec) -> str:
    """Mean SDR where it is published for all stems, in brackets if it is not the kind that most models have."""
    if not spec.sdr or set(spec.sdr) != set(spec.stems):
        return "-"
    mean = f"{sum(spec.sdr.values()) / len(spec.sdr):.1f} dB"
    return mean if spec.sdr_metric.startswith("BSS Eval") else f"({mean})"


def _megabytes(spec: ModelSpec) -> str:
    size = spec.path.stat().st_size if spec.path and spec.path.exists() else spec.size if spec.files else None
    return f"{size / 1e6:.0f} MB" if size else "?"


def _describe(spec: ModelSpec) -> dict[str, Any]:
    """All that is known about a model, for JSON; sizes are in bytes, SDR in dB."""
    return {
        "name": spec.name,
        "summary": spec.summary,
        "family": spec.family,
        "runs": not spec.family or runs(spec),
        "stems": spec.stems,
        "license": spec.license,
        "sdr": {**spec.sdr, "metric": spec.sdr_metric, "source": spec.sdr_source} if spec.sdr else None,
        "repo": spec.repo or None,
        "revision": spec.revision or None,
        "files": [
            {"name": file.name, "size": file.size, "sha256": file.sha256 or None, "gives": file.gives or spec.stems}
            for file in spec.files
        ],
        "size": spec.size if spec.files else None,
        "state": _state(spec),
        "paths": [str(path) for path in _paths(spec)],
    }
