"""The command that tells whether stemsplit can work here."""

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
    """Find out whether songs can be separated here.

    Looks at what is installed, the devices, your settings, the models and the way to the Hub, and separates a second
    of sound. The exit code is 0 if songs can be separated, and 1 if not.
    """
    from stemsplit import doctor as diagnosis
    from stemsplit.cli import console

    found = diagnosis.Diagnosis()
    messages = console.Messages()
    with messages.loading("looking around"):
        _examine_settings(found, context)
        known = registry.read_bundled()
        with found.noted(fatal=True):
            known = registry.read_registry(own)
        spec, named = known.find(), False
        with found.noted(fatal=True):
            if name := defaults.choose_model(context, model, preset):
                spec, named = known.find(name), True
        diagnosis.diagnose(found, known, spec, named=named, device=device)
    for problem in found.problems:
        if problem.fatal:
            messages.error(StemsplitError(problem.problem, problem.hint))
        else:
            messages.warn(problem.problem, problem.hint)
    if as_json:
        problems = [asdict(problem) for problem in found.problems]
        console.write_json({**found.facts, "problems": problems, "good": found.good})
    else:
        console.write_rows(None, _rows(found.facts))
        console.write("stemsplit can separate songs here" if found.good else "stemsplit cannot separate songs here")
    if not found.good:
        raise typer.Exit(1)


def _examine_settings(found: "Diagnosis", context: typer.Context) -> None:
    """What the user has set once for all runs, and where."""
    root = context.find_root()
    options: dict[str, Any] = {}
    with found.noted(fatal=True):
        options = defaults.read(root.command, root)
    for error, stops in defaults.check_environment(root.command, root):
        found.note(error, fatal=stops)
    file, models = settings.config_file(), settings.models_file()
    found.facts["settings"] = {
        "file": {"path": str(file), "there": file.exists(), "options": options},
        "environment": settings.environment(),
        "models": {"path": str(models), "there": models.exists()},
    }


def _rows(facts: Mapping[str, Any]) -> list[list[str]]:
    """The facts for people."""
    from stemsplit.devices import Device

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
        ["settings", f"{file['path']}: {', '.join(file['options']) or 'none' if file['there'] else 'not there'}"],
        *(["", f"{name}={value}"] for name, value in facts["settings"]["environment"].items()),
        ["own models", f"{models['path']}: {'there' if models['there'] else 'not there'}"],
    ]
    if cache:
        way = f" through {hub['proxy']}" if hub["proxy"] else ""
        rows += [
            ["cache", f"{cache['folder']}: {cache['size'] / 1e6:.0f} MB of models, {cache['free'] / 1e9:.1f} GB free"],
            ["Hub", f"{hub['endpoint']}{way}: {hub['reason'] or 'can be reached'}"],
            ["model", _model(facts["model"])],
        ]
    passed = f"passed: a second of sound took {test['elapsed_seconds']} s on {test['device']}"
    return [*rows, ["self-test", passed if test["passed"] else "failed"]]


def _model(model: Mapping[str, Any]) -> str:
    name = model["name"] if model["named"] else f"{model['name']}, the default"
    size = f", {model['size'] / 1e6:.0f} MB" if model["size"] else ""
    return f"{name}: {'here' if model['here'] else 'not here, or not all of it'}{size}"
