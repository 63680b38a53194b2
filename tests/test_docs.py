"""The documentation is complete and true."""

import re
import runpy
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]
from support.program import write_song

import stemsplit
from stemsplit.audio import formats
from stemsplit.cli import options
from stemsplit.cli.main import app
from stemsplit.cli.separate import DEMO
from stemsplit.models import publish, registry
from stemsplit.models.checkpoint import Header
from stemsplit.version import DISTRIBUTION

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GENERATOR = runpy.run_path(str(DOCS / "generate_cli.py"))
COMMANDS: dict[str, Any] = dict(GENERATOR["commands"](GENERATOR["typer"].main.get_command(app)))
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("recipes/*/*.md"), ROOT / "benchmarks/README.md"]
}
GUIDE = {name: text for name, text in PAGES.items() if name.startswith("docs/") or name == "README.md"}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


# Commands


def test_the_reference_of_commands_is_what_the_program_says() -> None:
    assert PAGES["docs/cli.md"] == GENERATOR["render"](), "run make docs"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_its_options_have_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} of {name} has no help"


@pytest.mark.parametrize("page", GUIDE)
def test_a_page_names_no_option_that_is_not_there(page: str) -> None:
    known = {option for command in COMMANDS.values() for p in command.params for option in (*p.opts, *p.secondary_opts)}
    known |= {"--help", "--version", "--install-completion", "--show-completion"}
    text = re.sub(r"```(?:yaml|bash)\n.*?```", "", GUIDE[page], flags=re.DOTALL)  # which have options of other programs
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))
    assert named - known <= {"--nproc-per-node"}  # that is torchrun's


@pytest.mark.parametrize("page", GUIDE)
def test_the_command_lines_of_a_page_parse(page: str) -> None:
    for line in re.findall(r"^(?:    )?(?:curl .* \| )?stemsplit (.*)$", GUIDE[page], re.MULTILINE):
        words = line.partition(" #")[0].partition(" > ")[0].split()
        if "[OPTIONS]" in words:
            continue
        name = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), "")
        known = {o for p in COMMANDS[name or "separate"].params for o in (*p.opts, *p.secondary_opts)}
        options = {word for word in words if word.startswith("-") and word != "-"}
        assert options <= known | {"--version", "--install-completion"}, line


# Pages


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_links_to_exist(page: str) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", PAGES[page]):
        assert (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_targets_of_make_that_a_page_names_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^    |^)make ([a-z][a-z-]*)", PAGES[page], re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", ["README.md", "docs/models.md"])
def test_all_models_are_in_the_tables(page: str) -> None:
    rows = {name for line in PAGES[page].splitlines() for name in re.findall(r"^\| `([^`]+)`", line)}
    assert set(registry.read_bundled().models) <= rows


def test_everything_that_is_exported_is_in_the_api_reference() -> None:
    exported = set(stemsplit.__all__) - {"__version__"}
    assert exported == set(re.findall(r"^::: stemsplit\.(\w+)$", PAGES["docs/api.md"], re.MULTILINE))


def test_all_pages_are_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert {path.name for path in DOCS.glob("*.md")} == set(re.findall(r"^ +- ([\w-]+\.md)$", navigation, re.MULTILINE))


def test_the_description_of_the_wheel_has_no_relative_links() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    readme = PAGES["README.md"]
    for rule in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        readme = re.sub(rule["pattern"], rule["replacement"], readme)
    assert "[MIT]" not in readme
    assert "MIT, for the code" in readme
    assert not re.search(r"\]\((?!https?:)", readme)


@pytest.mark.parametrize("page", PAGES)
def test_what_is_installed_is_this_program(page: str) -> None:
    """The name `stemsplit` on the public Python index belongs to another one."""
    for name in re.findall(r"pipx? install (?:-\S+ )*'?(stemsplit[\w-]*)", PAGES[page]):
        assert name == DISTRIBUTION


def test_the_name_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == DISTRIBUTION
    assert project["scripts"] == {"stemsplit": "stemsplit.__main__:main"}
    header = Header("unet", {}, ("vocals",), rate=8_000, channels=1, length=1, hop=1)
    assert f"pipx install {DISTRIBUTION}\n" in publish.model_card(header, "me/mine", "")


def test_help_names_the_default_model() -> None:
    assert registry.read_bundled().default == options.DEFAULT
    assert options.FORMATS == formats.FORMATS


# Examples


@pytest.mark.parametrize("name", ["separate_file.py", "separate_folder.py", "evaluate_model.py"])
@pytest.mark.parametrize("arguments", [[], ["a", "b", "c", "d"], ["missing", "out", "no-model"], ["missing", "mini"]])
def test_examples_refuse_what_makes_no_sense(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert ended.value.code not in (0, None)


@pytest.mark.full
def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DEMO, "song.mp3")  # the name does not matter
    names: dict[str, object] = {}
    for example in blocks("docs/python.md", "python"):  # each goes on where the one before ended
        exec(compile(example, "python.md", "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"beat.wav", "karaoke.wav", "song.mp3", "stems", "voice.wav"}
    clipped, loudest, batch, refused = capsys.readouterr().out.splitlines()
    assert clipped.endswith(" 0 samples clipped")
    assert loudest.startswith("{'vocals': '0.")
    assert batch.startswith("['stems/song/vocals.wav'] [\"there is no file")
    assert "must have the shape" in refused


def test_the_settings_are_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = blocks("docs/settings.md", "toml")
    (tmp_path / "config.toml").write_text(example)
    monkeypatch.setenv("STEMSPLIT_CONFIG", str(tmp_path / "config.toml"))
    app(["separate", "--help"], standalone_mode=False)
    assert "[default: best]" in " ".join(capsys.readouterr().out.split())


def test_the_jobs_of_a_cluster_have_options_that_there_are() -> None:
    (job,) = [yaml.safe_load(block)["spec"]["entrypoint"] for block in blocks("docs/clusters.md", "yaml")]
    script = blocks("docs/clusters.md", "bash")[-1].replace("\\\n", "")
    (line,) = re.findall(r"^srun ray symmetric-run .* -- +(stemsplit .*)$", script, re.MULTILINE)
    known = {
        option for parameter in COMMANDS["separate"].params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for command in (job, line):
        assert command.startswith("stemsplit separate ")
        options = set(re.findall(r"--[a-z-]+", command))
        assert "--cluster" in options
        assert options <= known


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """A function that runs a script of examples/ with arguments, and returns the lines that it prints."""

    def run(name: str, *arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with suppress(SystemExit):
            runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


@pytest.mark.full
def test_the_example_that_separates_a_file(run_example: Callable[..., list[str]], tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.wav")
    assert run_example("separate_file.py", song, tmp_path / "out")[0].endswith(" samples clipped")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"vocals.flac", "drums.flac", "bass.flac", "other.flac"}


@pytest.mark.full
def test_the_example_that_separates_a_folder(run_example: Callable[..., list[str]], tmp_path: Path) -> None:
    song = write_song(tmp_path / "album/song.wav")
    (tmp_path / "album/broken.wav").write_bytes(b"no audio")
    again = [run_example("separate_folder.py", tmp_path / "album", tmp_path / "stems") for _ in range(2)]
    for (failed, done), what in zip(map(sorted, again), ["separated in", "complete already"], strict=True):
        assert "broken.wav" in failed
        assert done.startswith(f"{song}: {what}")


@pytest.mark.full
def test_the_example_that_evaluates_a_model(
    run_example: Callable[..., list[str]], make_song: Callable[..., dict[str, np.ndarray]], tmp_path: Path
) -> None:
    make_song(tmp_path / "a song", rate=44_100, length=44_100)
    song, mean = run_example("evaluate_model.py", tmp_path)
    assert re.fullmatch(r"a song( (vocals|drums|bass|other) -?\d+\.\d\d){4}", song)
    assert mean.startswith("mean vocals ")
