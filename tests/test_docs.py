"""The documentation is complete and true."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

from stemsplit.cli.main import app
from stemsplit.cli.separate import DEMO
from stemsplit.models import registry

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOP: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS = {name: command for name, command in TOP.items() if not hasattr(command, "commands")}
COMMANDS |= {
    f"{group} {name}": command
    for group, commands in TOP.items()
    for name, command in getattr(commands, "commands", {}).items()
}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_is_in_the_readme_and_has_help(name: str) -> None:
    command = COMMANDS[name]
    assert f"stemsplit {name}" in README or name == "models list"
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} of {name} has no help"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_an_option_is_in_the_readme(name: str) -> None:
    group, _, subcommand = name.partition(" ")
    section = README.partition(f"### `stemsplit {group}")[2].partition("\n##")[0]
    if group == "models":
        section = next(line for line in section.splitlines() if line.startswith(f"| `{subcommand}"))
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts if option.startswith("--")}
    assert options - {"--help"} <= set(re.findall(r"--[a-z][a-z-]*", section))


def test_the_readme_names_no_option_that_is_not_there() -> None:
    known = {option for command in COMMANDS.values() for p in command.params for option in (*p.opts, *p.secondary_opts)}
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README.partition("## Commands")[2].partition("\n## ")[0]))
    others = {"--help", "--version", "--install-completion", "--show-completion", "--nproc-per-node"}
    assert told <= known | others  # the last one is of torchrun


@pytest.mark.parametrize("name", registry.read().models)
def test_a_model_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in README


def test_files_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DEMO, "song.mp3")  # the name does not matter
    names: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", README, re.DOTALL):  # each goes on where the one before ended
        exec(compile(example, "README.md", "exec"), names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beat.wav", "karaoke.wav", "song.mp3", "voice.wav"]
    clipped, loudest, refused = capsys.readouterr().out.splitlines()
    assert clipped.endswith(" 0 samples clipped")
    assert loudest.startswith("{'vocals': '0.")
    assert "no song" in refused


def test_the_settings_in_the_readme_are_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "config.toml").write_text(example)
    monkeypatch.setenv("STEMSPLIT_CONFIG", str(tmp_path / "config.toml"))
    app(["separate", "--help"], standalone_mode=False)
    assert "[default: best]" in " ".join(capsys.readouterr().out.split())


def test_the_two_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
