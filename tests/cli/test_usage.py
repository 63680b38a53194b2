"""Command lines that make no sense, and those that only look like it: options before the song, misspelt words."""

import shlex
from typing import Any

import pytest
import typer
from support.program import Run
from typer.testing import CliRunner

from stemsplit.cli import usage
from stemsplit.cli.main import app

PROGRAM: Any = typer.main.get_command(app)
SEPARATE = PROGRAM.commands["separate"]
EXAMPLES = {int: "1", float: "0.25", str: "text"}


def parsed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[str, dict[str, Any]]:
    """The command that runs, and the values that it gets."""
    group: Any = typer.main.get_command(app)
    gained: dict[str, Any] = {}
    for name, command in main_commands(group):
        monkeypatch.setattr(command, "callback", lambda name=name, **values: gained.update({"command": name, **values}))
    monkeypatch.setattr(group, "callback", None)
    group.main(list(arguments), standalone_mode=False)
    gained.pop("context", None)
    return str(gained.pop("command")), gained


def main_commands(group: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, command in group.commands.items():
        found += main_commands(command) if hasattr(command, "commands") else [(name, command)]
    return found


def example(option: Any) -> list[str]:
    """An option with a value."""
    name = max(option.opts, key=len)
    if option.is_flag:
        return [name]
    choices = usage._choices(option.type_descriptor.annotation)
    values = {"--format": "flac", "--sample-rate": "48000", "--output": "out"}
    return [name, values.get(name) or (choices or [EXAMPLES.get(option.type_descriptor.annotation, "text")])[0]]


@pytest.mark.parametrize("option", [p for p in SEPARATE.params if p.param_type_name == "option"], ids=lambda p: p.name)
def test_an_option_before_the_song_counts_as_one_behind_it(monkeypatch: pytest.MonkeyPatch, option: Any) -> None:
    last = parsed(monkeypatch, "song.wav", *example(option))
    assert last[0] == "separate"
    for name in option.opts:
        first = [name, *example(option)[1:]]
        assert parsed(monkeypatch, *first, "song.wav") == last
        assert parsed(monkeypatch, *first, "--", "song.wav") == last
    if not option.is_flag:
        assert parsed(monkeypatch, "=".join(example(option)), "song.wav") == last


def test_an_option_before_a_command_counts_as_one_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in ("--json models list", "--json -q models pull mini", "--device cpu demo", "-m mini evaluate data"):
        words = shlex.split(line)
        start = next(number for number, word in enumerate(words) if word in ("models", "demo", "evaluate"))
        assert parsed(monkeypatch, *words) == parsed(monkeypatch, *words[start:], *words[:start])
    command, values = parsed(monkeypatch, "--quiet", "--", "models")
    assert (command, values["songs"], values["quiet"]) == ("separate", ["models"], True)


@pytest.mark.parametrize(
    ("line", "told", "hint"),
    [
        ("--modle mini song.wav", "there is no option --modle", "did you mean --model?"),
        ("song.wav --xyz", "there is no option --xyz", "see  stemsplit separate --help"),
        ("song.wav --jobs many", "--jobs cannot be 'many': it should be a whole number, 1 or more", "see  "),
        ("song.wav --overlap 3", "--overlap cannot be '3': it should be a number from 0 to 0.95", "see  "),
        ("song.wav --device tpu", "--device cannot be 'tpu': it should be auto, cpu, cuda or mps", "see  "),
        ("song.wav --jobs", "--jobs needs a value", "see  "),
        ("song.wav --json=3", "--json takes no value", "see  "),
        ("separate", "SONG is missing", "see  stemsplit separate --help"),
        ("train data", "--output is missing", "see  stemsplit train --help"),
        ("models lst", "there is no command 'lst'", "did you mean list?"),
        ("doctor a b", "there is an argument too many: 'a b'", "see  stemsplit doctor --help"),
        ("-q evalute data", "there is no command or file 'evalute'", "did you mean  stemsplit evaluate"),
        ("-n htdemucs song.wav", "there is no option -n", "it is --model here, or -m"),
        ("song.wav --mp3", "there is no option --mp3", "it is --format mp3 here"),
    ],
)
def test_what_is_refused_looks_like_all_other_errors(run: Run, line: str, told: str, hint: str) -> None:
    code, out, err = run(*shlex.split(line), model=False)
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first == f"stemsplit: {told}"
    assert second.startswith(f"hint: {hint}")


def test_without_arguments_there_is_help() -> None:
    assert CliRunner().invoke(app, []).exit_code == 2
