"""The commands for models: list, download, verify, remove and publish them."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from stemsplit.cli.download import download
from stemsplit.cli.options import Json, Quiet, RegistryFile, complete_model
from stemsplit.errors import ModelError, UsageError
from stemsplit.models import cache
from stemsplit.models.registry import HUB, ModelSpec, Registry, Step, is_supported, read_registry

app = typer.Typer(rich_markup_mode=None, invoke_without_command=True, help="List, download, verify and remove models.")

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
    """List, download, verify and remove models. Without a command: list."""
    if context.invoked_subcommand is None:
        list_models(own, as_json)


@app.command("list")
def list_models(own: RegistryFile = None, as_json: Json = False) -> None:
    """List all models: stems, quality, size, licence, and which are downloaded."""
    from stemsplit.cli import console

    known = read_registry(own)
    if as_json:
        console.write_json({"default": known.default, "models": [_describe(spec) for spec in known.models.values()]})
        return
    rows = []
    for spec in known.models.values():
        name = f"{spec.name} *" if spec.name == known.default else spec.name
        state = _state(spec) if is_supported(spec) else "not supported"
        license = re.split(r"[;(]", spec.license)[0].strip()
        rows.append([name, str(len(spec.stems)), _quality(spec), _megabytes(spec), license, state])
    console.write_rows(["model", "stems", "SDR", "size", "licence", "state"], rows)
    note = "* runs when no model is named; SDR in brackets was measured in another way; details:"
    console.Messages().note(f"{note}  stemsplit models info MODEL")


@app.command()
def info(model: Model, own: RegistryFile = None, as_json: Json = False) -> None:
    """Show everything about a model."""
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
        *([["family", spec.family if is_supported(spec) else f"{spec.family}, not supported"]] if spec.family else []),
        *(["step", _describe_step(step)] for step in spec.steps),
        ["licence", spec.license],
        *([["SDR in dB", sdr], ["", spec.sdr_metric], ["", spec.sdr_source]] if sdr else []),
        ["size", _megabytes(spec)],
        ["state", _state(spec)],
        *([["from", f"https://huggingface.co/{spec.repo}/tree/{spec.revision}"]] if spec.repo else []),
        *(["file", f"{file.name}  SHA-256 {file.sha256 or 'unpinned'}"] for part in spec.parts for file in part.files),
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
    """Download models now, to have them without a network later. One that fails does not stop the others."""
    from stemsplit.cli import console

    known, messages = read_registry(own), console.Messages(quiet=quiet)
    chosen = _chosen(known, models, everything, needed=True)
    results: list[dict[str, Any]] = []
    for spec in chosen:
        try:
            paths = download(spec, messages).paths
        except ModelError as error:
            messages.error(error)
            results.append({"model": spec.name, "error": str(error), "hint": error.hint})
            continue
        messages.note(f"{spec.name} is {_state(spec).replace('local', 'a local')}")
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
    """Hash the files of models again: of all that are downloaded, or of those that are named."""
    from stemsplit.cli import console

    messages = console.Messages()
    results: list[dict[str, Any]] = []
    for spec in _chosen(read_registry(own), models, everything=not models):
        files = cache.find_files(spec)
        if models and len(files) < _count_files(spec):
            message = f"the model {spec.name!r} is not downloaded, or not all of it"
            error = ModelError(message, f"stemsplit models pull {spec.name}")
            messages.error(error)
            results.append({"model": spec.name, "file": None, "path": None, "good": False, "error": str(error)})
        for file, path in [*files, *cache.find_converted(spec)]:
            result = {"model": spec.name, "file": file.name, "path": str(path), "good": True}
            try:
                cache.check_file(file, path, again=True)
            except ModelError as error:
                hint = f"it is downloaded again when it is used, or by  stemsplit models pull {spec.name}"
                messages.error(ModelError(f"the model {spec.name!r} is damaged: {error}", hint))
                result |= {"good": False, "error": str(error)}
            results.append(result)
            if not as_json and result["good"]:
                console.write(f"{spec.name}: {file.name} is good")
    if as_json:
        console.write_json({"files": results})
    elif not results:
        messages.note("there are no downloads to verify")
    if not all(result["good"] for result in results):
        raise typer.Exit(1)


@app.command()
def remove(models: Models = None, everything: All = False, own: RegistryFile = None, as_json: Json = False) -> None:
    """Delete downloaded models. The bundled one stays."""
    from stemsplit.cli import console

    messages = console.Messages()
    results: list[dict[str, Any]] = []
    for spec in _chosen(read_registry(own), models, everything, needed=True):
        freed = 0
        for file, path in [*cache.find_files(spec), *cache.find_converted(spec)]:
            result: dict[str, Any] = {"model": spec.name, "file": file.name}
            try:
                result["freed"] = cache.remove_file(path)
            except ModelError as error:
                messages.error(error)
                result["error"] = str(error)
            else:
                cache.forget(path)
                freed += result["freed"]
            results.append(result)
        if spec.is_local:
            messages.note(f"{spec.name} is {_state(spec).replace('local', 'a local')}, and stays")
        else:
            messages.note(f"{spec.name}: freed {freed / 1e6:.0f} MB")
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
    """Print the paths of a model's files, or the folder of all downloads."""
    from stemsplit.cli import console

    if model is None:
        paths = [cache.hub_cache()]
    else:
        spec = read_registry(own).find(model)
        paths = _paths(spec)
        if not paths:
            raise ModelError(f"the model {spec.name!r} is not downloaded", f"stemsplit models pull {spec.name}")
    if as_json:
        console.write_json({"paths": [str(each) for each in paths]})
        return
    for each in paths:
        console.write(str(each))


@app.command()
def push(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A model trained by stemsplit.")],
    repo: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="A repository on the Hub; created if it does not exist.")
    ],
    license: Annotated[str, typer.Option(help="Licence of the weights, by its name on the Hub, such as mit.")] = "",
    private: Annotated[
        bool, typer.Option("--private", help="Create a private repository; refuse a public one.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Publish a trained model on the Hugging Face Hub, with a model card.

    Run it as hf://OWNER/NAME. Log in with  hf auth login  first, or set HF_TOKEN.
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
        raise UsageError("--all does not go with names of models", "leave one of them out")
    if needed and not (everything or names):
        raise UsageError("no model named", "name one, or give --all")
    return list(known.models.values()) if everything else [known.find(name) for name in names or ()]


def _paths(spec: ModelSpec) -> list[Path]:
    paths: list[Path] = []
    for part in spec.parts:
        downloaded = [path for _, path in [*cache.find_files(part), *cache.find_converted(part)]]
        paths += [part.path] if part.path else downloaded
    return paths


def _count_files(spec: ModelSpec) -> int:
    """How many files of a model are downloaded when it is complete; one for a repository that was not looked up yet."""
    return sum(0 if part.path else len(part.files) or 1 for part in spec.parts)


def _state(spec: ModelSpec) -> str:
    if spec.is_local:
        return "local file" if spec.name == str(spec.path) else "bundled"
    count, total = len(cache.find_files(spec)), _count_files(spec)
    return "downloaded" if count == total else f"{count} of {total} files" if count else "not downloaded"


def _describe_step(step: Step) -> str:
    renamed = "".join(f", its {old} to {new}" for old, new in step.rename.items())
    return f"{step.model.name}{f' on the {step.of}' if step.of else ''}{renamed}; {step.model.license}"


def _quality(spec: ModelSpec) -> str:
    """Mean SDR if it is published for all stems, in brackets if it was not measured as for most models."""
    if not spec.sdr or set(spec.sdr) != set(spec.stems):
        return "-"
    mean = f"{sum(spec.sdr.values()) / len(spec.sdr):.1f} dB"
    return mean if spec.sdr_metric.startswith("BSS Eval") else f"({mean})"


def _megabytes(spec: ModelSpec) -> str:
    size = spec.size_on_disk
    return f"{size / 1e6:.0f} MB" if size else "?"


def _describe(spec: ModelSpec) -> dict[str, Any]:
    """Everything about a model, for JSON; sizes in bytes, SDR in dB."""
    return {
        "name": spec.name,
        "summary": spec.summary,
        "family": spec.family,
        "runs": not spec.family or is_supported(spec),
        "stems": spec.stems,
        "steps": [{"model": step.model.name, "of": step.of or None, "as": dict(step.rename)} for step in spec.steps],
        "license": spec.license,
        "sdr": {**spec.sdr, "metric": spec.sdr_metric, "source": spec.sdr_source} if spec.sdr else None,
        "repo": spec.repo or None,
        "revision": spec.revision or None,
        "files": [
            {"name": file.name, "size": file.size, "sha256": file.sha256 or None, "gives": file.gives or spec.stems}
            for part in spec.parts
            for file in part.files
        ],
        "size": spec.size if any(part.files for part in spec.parts) else None,
        "state": _state(spec),
        "paths": [str(path) for path in _paths(spec)],
    }
