"""The command that checks the installation."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from stemsplit import settings
from stemsplit.cli import defaults
from stemsplit.cli.defaults import Preset
from stemsplit.cli.options import Device, Json, ModelName, RegistryFile
from stemsplit.errors import StemsplitError
from stemsplit.models import registry
from stemsplit.wording import duration

if TYPE_CHECKING:
    from stemsplit.doctor import Diagnosis


def doctor(
    context: typer.Context,
    model: ModelName = None,
    preset: Preset = None,
    own: RegistryFile = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check whether songs can be separated on this machine.

    Checks the installed libraries, the devices, your settings, the models and the connection to the Hub, and separates
    a second of audio. The exit code is 0 if songs can be separated, and 1 if not.
    """
    from stemsplit import doctor as checks
    from stemsplit.cli import console

    diagnosis = checks.Diagnosis()
    messages = console.Messages()
    with messages.loading("checking"):
        _check_settings(diagnosis, context)
        known = registry.read_bundled()
        with diagnosis.noted(fatal=True):
            known = registry.read_registry(own)
        spec, named = known.find(), False
        with diagnosis.noted(fatal=True):
            if name := defaults.choose_model(context, model, preset):
                spec, named = known.find(name), True
        checks.diagnose(diagnosis, known, spec, named=named, device=device)
    for problem in diagnosis.problems:
        if problem.fatal:
            messages.error(StemsplitError(problem.problem, problem.hint))
        else:
            messages.warn(problem.problem, problem.hint)
    if as_json:
        problems = [asdict(problem) for problem in diagnosis.problems]
        console.write_json({**diagnosis.facts, "problems": problems, "good": diagnosis.good})
    else:
        console.write_rows(None, _rows(diagnosis.facts))
        console.write("songs can be separated" if diagnosis.good else "songs cannot be separated")
    if not diagnosis.good:
        raise typer.Exit(1)


def _check_settings(diagnosis: "Diagnosis", context: typer.Context) -> None:
    """Record the user's settings, and where they are."""
    root = context.find_root()
    options: dict[str, Any] = {}
    with diagnosis.noted(fatal=True):
        options = defaults.read(root.command, root)
    for error, stops in defaults.check_environment(root.command, root):
        diagnosis.note(error, fatal=stops)
    file, models = settings.config_file(), settings.models_file()
    diagnosis.facts["settings"] = {
        "file": {"path": str(file), "there": file.exists(), "options": options},
        "environment": settings.environment(),
        "models": {"path": str(models), "there": models.exists()},
    }


def _rows(facts: Mapping[str, Any]) -> list[list[str]]:
    """Rows of a table of the facts."""
    from stemsplit.devices import Device
    from stemsplit.doctor import SONG_SECONDS

    libraries = ", ".join(f"{name} {version or 'missing'}" for name, version in facts["libraries"].items())
    threads = f", {facts['threads']} thread(s)" if facts["threads"] else ""
    file, models = facts["settings"]["file"], facts["settings"]["models"]
    cache, hub, test = facts["cache"], facts["hub"], facts["self_test"]
    rows = [
        ["stemsplit", facts["stemsplit"]],
        ["Python", f"{facts['python']}, {facts['executable']}"],
        ["system", facts["platform"]],
        ["libraries", libraries],
        ["FFmpeg", facts["ffmpeg"] or "?"],
        ["libsndfile", facts["libsndfile"] or "?"],
        ["processor", f"{facts['cores']} core(s){threads}"],
        *(["device", str(Device(**device))] for device in facts["devices"]),
        ["settings", f"{file['path']}: {', '.join(file['options']) or 'none' if file['there'] else 'does not exist'}"],
        *(["", f"{name}={value}"] for name, value in facts["settings"]["environment"].items()),
        ["own models", f"{models['path']}: {'exists' if models['there'] else 'does not exist'}"],
    ]
    rows.append(["temporary", facts["temporary"] or "there is no folder for temporary files"])
    if cache:
        proxy = f" through {hub['proxy']}" if hub["proxy"] else ""
        rows += [
            ["cache", f"{cache['folder']}: {cache['size'] / 1e6:.0f} MB of models, {cache['free'] / 1e9:.1f} GB free"],
            ["Hub", f"{hub['endpoint']}{proxy}: {hub['reason'] or 'reachable'}"],
            ["model", _model(facts["model"])],
        ]
    passed = f"passed: a second of audio took {test['elapsed_seconds']} s on {test['device']}"
    rows.append(["self-test", passed if test["passed"] else "failed"])
    songs = [
        f"{name}: a song of 4 minutes takes about {duration(SONG_SECONDS / speed)}"
        for name, speed in facts["speeds"].items()
    ]
    return [*rows, *([label, song] for label, song in zip(["speed", *[""] * len(songs)], songs, strict=False))]


def _model(model: Mapping[str, Any]) -> str:
    name = model["name"] if model["named"] else f"{model['name']}, the default"
    size = f", {model['size'] / 1e6:.0f} MB" if model["size"] else ""
    return f"{name}: {'downloaded' if model['here'] else 'not downloaded, or not all of it'}{size}"
