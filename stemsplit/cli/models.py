"""The commands for models: list, download, verify, remove and publish them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemsplit.cli import help
from stemsplit.cli.download import download
from stemsplit.cli.options import AcceptLicense, Json, Quiet, RegistryFile, complete_model
from stemsplit.errors import ModelError, UsageError
from stemsplit.models import cache, speeds
from stemsplit.models.registry import HUB, ModelSpec, Registry, Share, Step, is_supported, read_registry

if TYPE_CHECKING:
    from stemsplit.cli.console import Messages

_MARKS = "¹²³⁴⁵⁶⁷⁸⁹"  # of the scales of SDR, which must not be compared

app = help.Commands(invoke_without_command=True, help="List, download, verify and remove models.")

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
    measured = speeds.read()
    scales = list(dict.fromkeys(_scale(spec) for spec in known.models.values() if _mean_sdr(spec)))
    marks = dict(zip(scales, _MARKS, strict=False))
    rows = []
    for spec in known.models.values():
        name = f"{spec.name} *" if spec.name == known.default else spec.name
        sdr = [_mean_sdr(spec) if _scale(spec) == scale else "" for scale in marks]
        state = _state(spec) if is_supported(spec) else "not supported"
        rows.append([name, str(len(spec.stems)), *sdr, _speed(spec, measured), _megabytes(spec), _licence(spec), state])
    columns = ["model", "stems", *(f"SDR{mark}" for mark in marks.values()), "speed", "size", "licence", "state"]
    console.write_rows(columns, rows)
    note = console.Messages().note
    note("* runs when no model is named; details:  stemsplit models info MODEL")
    for scale, mark in marks.items():
        note(f"SDR{mark} in dB: {scale}")
    note("speed: times real time, as  stemsplit doctor  measured it here; in brackets, on two cores of a server")


@app.command()
def info(model: Model, own: RegistryFile = None, as_json: Json = False) -> None:
    """Show everything about a model."""
    from stemsplit.cli import console

    spec = cache.described(read_registry(own).find(model))
    if as_json:
        console.write_json(_describe(spec))
        return
    sdr = ", ".join(f"{stem} {value:.2f}" for stem, value in spec.sdr.items())
    rows = [
        ["model", spec.name],
        ["", spec.summary],
        ["stems", " ".join(spec.stems) or "not known before it is downloaded"],
        *([["family", spec.family if is_supported(spec) else f"{spec.family}, not supported"]] if spec.family else []),
        *(["step", _describe_step(step)] for step in spec.steps),
        *(["mean", _describe_share(share)] for share in spec.shares),
        ["licence", spec.license],
        *([["SDR in dB", sdr], ["", spec.sdr_metric], ["", spec.sdr_source]] if sdr else []),
        ["size", _megabytes(spec)],
        ["state", _state(spec)],
        *(["from", f"https://huggingface.co/{part.repo}/tree/{part.revision}"] for part in spec.parts if part.repo),
        *(["file", f"{file.name}  SHA-256 {file.sha256 or 'unpinned'}"] for part in spec.parts for file in part.files),
        *(["path", str(path)] for path in _paths(spec)),
    ]
    console.write_rows(None, rows)


@app.command()
def pull(
    models: Models = None,
    everything: All = False,
    own: RegistryFile = None,
    accept_license: AcceptLicense = False,
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
            paths = download(spec, messages, accept_license=accept_license).paths
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
        if models and spec.is_local:
            results.append(_verify_local(spec, messages))
            if not as_json and results[-1]["good"]:
                console.write(f"{spec.name} is good")
            continue
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
        elif not any(result["model"] == spec.name for result in results):
            messages.note(f"{spec.name} is not downloaded, so there is nothing to remove")
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


def _verify_local(spec: ModelSpec, messages: "Messages") -> dict[str, Any]:
    """Load a model that is bundled, or a file of the user's: there is no hash to compare it with."""
    from stemsplit.models import hub

    result = {"model": spec.name, "file": None, "path": str(spec.path) if spec.path else None, "good": True}
    try:
        with messages.loading(f"loading {spec.name}"):
            from stemsplit.models.ensemble import load_model

            load_model(hub.download(spec))
    except ModelError as error:
        messages.error(error)
        result |= {"good": False, "error": str(error)}
    return result


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
    files = cache.find_files(spec)
    count, total = len(files), _count_files(spec)
    if any(cache.is_damaged(file, path) for file, path in files):
        return "damaged"
    return "downloaded" if count == total else f"{count} of {total} files" if count else "not downloaded"


def _describe_step(step: Step) -> str:
    renamed = "".join(f", its {old} to {new}" for old, new in step.rename.items())
    return f"{step.model.name}{f' on the {step.of}' if step.of else ''}{renamed}; {step.model.license}"


def _describe_share(share: Share) -> str:
    weight = f", with weight {share.weight:g}" if share.weight != 1 else ""
    return f"{share.model.name}{weight}; {share.model.license}"


def _mean_sdr(spec: ModelSpec) -> str:
    """The mean SDR, if it is published for all stems."""
    if not spec.sdr or set(spec.sdr) != set(spec.stems):
        return ""
    return f"{sum(spec.sdr.values()) / len(spec.sdr):.1f}"


def _scale(spec: ModelSpec) -> str:
    """What the SDR was measured on, and how; the two editions of MUSDB18 give the same figures."""
    return spec.sdr_metric.replace("MUSDB18-HQ", "MUSDB18")


def _speed(spec: ModelSpec, measured: Mapping[str, float]) -> str:
    if spec.name in measured:
        return f"{measured[spec.name]:.3g}"
    return f"({spec.speed:g})" if spec.speed else ""


def _licence(spec: ModelSpec) -> str:
    """The licence in a few words, without its sources: what its author says of weights without a licence."""
    words = re.sub(r"\([^)]*\)", "", spec.license).split(";")
    said = next((each for each in words if each.strip().startswith("the author:")), words[0])
    return said.strip().removeprefix("the author: ")


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
        "mean": [{"model": share.model.name, "weight": share.weight} for share in spec.shares],
        "license": spec.license,
        "speed": spec.speed,
        "confirm": any(part.confirm for part in spec.parts),
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
