"""What users set once for all runs: in a file, in the environment, by presets; and what a shell offers on Tab."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import pytest
import typer
from huggingface_hub import constants
from support.program import HEAVY, Outcome, Run, imported_by, write_song
from typer.testing import CliRunner

from stemsplit import settings
from stemsplit.cli import defaults
from stemsplit.cli.main import Program, app
from stemsplit.errors import StemsplitError
from stemsplit.models import registry

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that the user has set plays a part."""
    for name in settings.environment():
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Write:
    """A function that writes the file of settings, and gives its path."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))

    def write(text: str) -> Path:
        path = settings.config_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def song(here: Path) -> Path:
    """A song of noise in the current folder, and a model in its settings."""
    return write_song(here / "song.wav", length=100)


TINY = 'model = "model.safetensors"\ndevice = "cpu"\n'


# Which value holds


@pytest.mark.full
def test_the_nearest_value_holds(run: Run, song: Path, config: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def output(*arguments: str) -> str:
        outcome = run("song.wav", *arguments, model=False)
        assert outcome.code == 0, outcome.err
        return outcome.out.splitlines()[0]

    monkeypatch.setenv("STEMSPLIT_MODEL", "model.safetensors")
    monkeypatch.setenv("STEMSPLIT_DEVICE", "cpu")
    assert output() == "separated/song/vocals.wav"
    config('output = "of the file"\nstems = "drums"')
    assert output() == "of the file/song/drums.wav"
    monkeypatch.setenv("STEMSPLIT_OUTPUT", "of the environment")
    assert output() == "of the environment/song/drums.wav"
    monkeypatch.setenv("STEMSPLIT_STEMS", "")  # as good as not set
    assert output("-o", "of the line", "--stems", "bass") == "of the line/song/bass.wav"


def test_every_kind_of_value(run: Run, song: Path, config: Write) -> None:
    config(TINY + 'batch-size = 2\nshifts = 1\noverlap = 0.5\nprecision = "full"\nregistry = "models.toml"')
    (song.parent / "models.toml").touch()
    outcome = run("song.wav", "--json", model=False)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out.splitlines()[-1])["model"] == "model.safetensors"


def test_a_text_that_begins_with_a_tilde_is_in_the_home(
    run: Run, song: Path, config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(song.parent / "home"))
    config(TINY + 'output = "~/stems"')
    assert run("song.wav", model=False).code == 0
    assert (song.parent / "home/stems/song/bass.wav").exists()


@pytest.mark.full
def test_settings_are_for_all_commands_that_have_the_option(
    run: Run, here: Path, config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = Path(registry.__file__).parents[1] / "weights/mini.safetensors"
    table = f'summary = "x"\nfamily = "unet"\nstems = ["vocals"]\nlicense = "MIT"\nbundled = "{bundled}"\n'
    (here / "mine.toml").write_text(f"[of-the-file]\n{table}")
    (here / "more.toml").write_text(f"[of-the-environment]\n{table}")
    config('registry = "mine.toml"\noutput = "elsewhere"\ndevice = "cpu"')
    assert "of-the-file " in run("models", model=False).out
    assert "of-the-file " in run("models", "list", model=False).out
    assert run("models", "path", "of-the-file", model=False).code == 0
    monkeypatch.setenv("STEMSPLIT_REGISTRY", "more.toml")
    assert "of-the-environment " in run("models", model=False).out
    assert "of-the-environment " in run("models", "list", model=False).out
    assert run("demo", model=False).out.startswith("elsewhere/demo/")


def test_what_has_to_be_given_is_not_taken_from_settings(
    run: Run, here: Path, config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    config('output = "stems"')
    monkeypatch.setenv("STEMSPLIT_OUTPUT", "stems")
    code, _, err = run("train", "data", model=False)
    assert code == 2
    assert "--output is missing" in err


@pytest.mark.full
def test_another_file(run: Run, song: Path, config: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    config('device = "nonsense"')
    other = song.parent / "other.toml"
    other.write_text(TINY + 'output = "other"')
    monkeypatch.setenv("STEMSPLIT_CONFIG", str(other))
    assert run("song.wav", model=False).out.startswith("other/")
    monkeypatch.setenv("STEMSPLIT_CONFIG", os.devnull)
    assert run("song.wav").out.startswith("separated/")
    monkeypatch.setenv("STEMSPLIT_CONFIG", "missing.toml")
    code, _, err = run("song.wav")
    assert (code, err.startswith("stemsplit: STEMSPLIT_CONFIG names 'missing.toml', which does not exist\nhint: ")) == (
        2,
        True,
    )


@pytest.fixture
def other(config: Write, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """A function that runs a program with options of other kinds; it prints what it was given."""
    program = typer.Typer(cls=Program, rich_markup_mode=None, pretty_exceptions_enable=False)

    @program.command()
    def separate(
        include: Annotated[list[str] | None, typer.Option()] = None,
        folder: Annotated[list[Path] | None, typer.Option()] = None,
        player: Annotated[bool, typer.Option("--player/--no-player")] = False,
        refuse: Annotated[bool, typer.Option("--refuse")] = False,
    ) -> None:
        if refuse:
            raise typer.BadParameter("a reason")
        print(include, list(map(str, folder or [])), player)

    program.callback()(lambda: None)

    def call(*arguments: str) -> Outcome:
        result = CliRunner().invoke(program, ["separate", *arguments])
        error = result.exception
        if isinstance(error, StemsplitError):
            return Outcome(error.exit_code, result.stdout, f"{error}; {error.hint}")
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


def test_lists_and_flags(other: Callable[..., Outcome], config: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    config('include = ["*.wav", "*.mp3"]\nfolder = ["a/", "~"]\nplayer = true')
    home = str(Path.home())
    assert other().out == f"['*.wav', '*.mp3'] ['a', {home!r}] True\n"
    assert other("--no-player", "--include", "x", "--folder", "y").out == "['x'] ['y'] False\n"
    monkeypatch.setenv("STEMSPLIT_PLAYER", "0")
    assert other("--folder", "y").out == "['*.wav', '*.mp3'] ['y'] False\n"
    assert other("--player", "--folder", "y").out == "['*.wav', '*.mp3'] ['y'] True\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('include = "*.wav"', "include = '*.wav': "),
        ("include = [1]", "include = [1]: "),
        ('player = "yes"', "player = 'yes': it should be true or false"),
        ("player = 1", "player = 1: it should be true or false"),
        ("refuse = true", "sets 'refuse', which is not a setting"),
    ],
)
def test_lists_and_flags_that_are_none(other: Callable[..., Outcome], config: Write, text: str, told: str) -> None:
    config(text)
    outcome = other()
    assert outcome.code == 2
    assert told in outcome.err
    assert outcome.err.split("; ", 1)[1]


def test_refusals_of_a_command_look_like_ours(other: Callable[..., Outcome]) -> None:
    outcome = other("--refuse")
    assert outcome.code == 2
    assert outcome.err.startswith("a value is invalid: a reason; see ")


# What is refused


@pytest.mark.full
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model = ", " is not valid TOML: "),
        ("\0", " is not valid TOML: "),
        ('model = "a"\nmodel = "b"', " is not valid TOML: "),
        (
            'modell = "mini"',
            "sets 'modell', which is not a setting\nhint: did you mean model?",
        ),
        (
            "xyz = 1",
            "sets 'xyz', which is not a setting\nhint: known settings: output, model, ",
        ),
        ("overwrite = true", "sets 'overwrite', which is not"),
        ("[separate]\nshifts = 1", "sets 'separate', which is not"),
        ("batch-size = 1\nbatch_size = 2", "sets batch_size twice"),
        ("model = 5", "has model = 5: it should be text"),
        ("model = true", "has model = true: it should not be true or false"),
        ('model = ["mini"]', "has model = ['mini']: "),
        ("model = {a = 1}", "has model = {'a': 1}: "),
        ("model = 2026-01-01", "has model = "),
        ('shifts = "2"', "has shifts = '2': it should be a whole number"),
        ("shifts = 1.5", "has shifts = 1.5: "),
        ("shifts = -1", "has shifts = -1: "),
        ("shifts = true", "has shifts = true: it should not be true or false"),
        ('overlap = "a lot"', "has overlap = 'a lot': "),
        ("overlap = 1", "has overlap = 1: "),
        ("output = 5", "has output = 5: it should be text"),
        ('device = "tpu"', "has device = 'tpu': "),
        ('preset = "slow"', "has preset = 'slow': "),
    ],
)
def test_a_damaged_file_is_told_by_every_run_and_by_no_help(
    run: Run, song: Path, config: Write, text: str, told: str
) -> None:
    path = config(text)
    for arguments in (["song.wav"], ["models"], ["evaluate", "data"]):
        code, out, err = run(*arguments, model=False)
        assert (code, out) == (2, "")
        assert err.startswith("stemsplit: ")
        assert repr(str(path)) in err
        assert told in err
        assert err.count("\n") == 2
        assert "\nhint: " in err
    assert not (song.parent / "separated").exists()
    for arguments in (["--help"], ["separate", "--help"], ["song.wav", "--help"], ["models", "--help"]):
        code, out, err = run(*arguments, model=False)
        assert (code, out[:6], err) == (0, "Usage:", "")


def test_a_file_that_cannot_be_read(run: Run, song: Path, config: Write) -> None:
    path = config("")
    path.write_bytes(b'output = "\xff"')
    assert run("song.wav").err.startswith(
        f"stemsplit: cannot read the settings in {str(path)!r}: it is not UTF-8 text\nhint: "
    )
    path.unlink()
    path.mkdir()
    code, _, err = run("song.wav")
    assert (code, err.count("\nhint: ")) == (2, 1)
    assert repr(str(path)) in err


@pytest.mark.full
def test_the_environment_is_checked_where_it_counts(run: Run, song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMSPLIT_SHIFTS", "-1")
    code, out, err = run("song.wav")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"stemsplit: the environment variable STEMSPLIT_SHIFTS cannot be '-1': .*\nhint: .*\n", err)
    assert run("song.wav", "--shifts", "0").code == 0
    assert run("models", "list", model=False).code == 0
    # What is wrong on the line is told as before.
    assert run("song.wav", "--shifts", "-2").err.startswith("stemsplit: --shifts cannot be '-2'")


@pytest.mark.full
def test_an_error_says_where_a_value_comes_from(
    run: Run, song: Path, config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config('model = "minni"')
    told = run("song.wav", model=False)
    assert told.code == 2
    assert told.err.startswith("stemsplit: unknown model 'minni'\nhint: did you mean mini? ")
    assert told.err.endswith(f"; model is set in {str(path)!r}\n")
    monkeypatch.setenv("STEMSPLIT_MODEL", "mikro")
    assert run("song.wav", model=False).err.endswith("; model is set in STEMSPLIT_MODEL\n")
    assert "is set in" not in run("song.wav", "--model", "mikro", model=False).err
    assert "is set in" not in run("song.wav", "--model", "macro", model=False).err


# Presets


def test_presets_are_models_of_the_list() -> None:
    assert get_args(settings.Preset) == tuple(settings.PRESETS)
    models = {"fast": "spleeter", "balanced": "htdemucs", "best": "kim_htdemucs_ft", "vocals": "mel_roformer_kim"}
    assert {**models, "karaoke": "spleeter-2stems"} == settings.PRESETS
    assert set(settings.PRESETS.values()) <= set(registry.read_bundled().models)


def test_a_preset_is_a_model(run: Run, song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, out, err = run("song.wav", "--preset", "best", model=False)
    assert (code, out) == (1, "")
    assert "'kim_htdemucs_ft'" in err  # named, so nothing takes its place


@pytest.fixture
def which(run: Run, song: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that separates with tiny models in place of those of the presets, and tells with which one."""
    for preset in settings.PRESETS:
        shutil.copy("model.safetensors", f"{preset}.safetensors")
        monkeypatch.setitem(cast("dict[str, str]", settings.PRESETS), preset, f"{preset}.safetensors")

    def call(*arguments: str) -> str:
        outcome = run("song.wav", "--json", "--overwrite", "--device", "cpu", *arguments, model=False)
        assert outcome.code == 0, outcome.err
        return cast("str", json.loads(outcome.out.splitlines()[-1])["model"])

    return call


@pytest.mark.full
def test_the_nearest_of_a_model_and_a_preset_holds(
    which: Callable[..., str], config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert which("--preset", "fast") == "fast.safetensors"
    config('preset = "balanced"')
    assert which() == "balanced.safetensors"
    assert which("--preset", "fast") == "fast.safetensors"
    assert which("--model", "model.safetensors") == "model.safetensors"
    config('model = "model.safetensors"')
    assert which("--preset", "fast") == "fast.safetensors"
    monkeypatch.setenv("STEMSPLIT_PRESET", "best")
    assert which() == "best.safetensors"
    assert which("--model", "fast.safetensors") == "fast.safetensors"


@pytest.mark.parametrize("place", ["line", "environment", "file"])
def test_a_model_and_a_preset_in_one_place_contradict_each_other(
    run: Run, song: Path, config: Write, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    arguments, told = ["--model", "mini", "--preset", "fast"], "--model and --preset contradict each other"
    if place == "environment":
        monkeypatch.setenv("STEMSPLIT_MODEL", "mini")
        monkeypatch.setenv("STEMSPLIT_PRESET", "fast")
        arguments, told = [], "STEMSPLIT_MODEL and STEMSPLIT_PRESET contradict each other"
    elif place == "file":
        path = config('model = "mini"\npreset = "fast"')
        arguments, told = [], f"--model and --preset in {str(path)!r} contradict each other"
    code, out, err = run("song.wav", *arguments, model=False)
    assert (code, out, err) == (2, "", f"stemsplit: {told}\nhint: leave one of them out\n")


# Help


def test_help_shows_how_options_are_set_for_all_runs(run: Run, config: Write) -> None:
    config("shifts = 3")
    out = " ".join(run("separate", "--help", model=False).out.split())
    assert "default: 3" in out
    assert "STEMSPLIT_BATCH_SIZE=4" in out
    assert "config.toml" in out


def test_every_name_is_one_that_the_command_line_has() -> None:
    group: Any = typer.main.get_command(app)
    known = defaults.options(group)
    assert {"output", "model", "preset", "registry", "stems", "device", "batch_size"} <= set(known)
    assert not {"help", "overwrite"} & set(known)
    for name, parameter in known.items():
        assert f"--{name.replace('_', '-')}" in parameter.opts
        assert parameter.envvar == f"STEMSPLIT_{name.upper()}"


@pytest.mark.full
def test_help_imports_nothing_heavy_for_a_file_of_settings(config: Write) -> None:
    config('model = "mini"\nshifts = 1')
    code = "import stemsplit.cli.main; sys.argv[1:] = ['separate', '--help']; stemsplit.cli.main.main()"
    assert not imported_by(code) & HEAVY


# Completion


BASH = shutil.which("bash")
MAIN = "import sys; sys.argv[0] = 'stemsplit'; from stemsplit.cli.main import main; main()"


@pytest.fixture
def complete(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A function that gives what bash offers for the last of some words, the first of which is the program."""
    program = here / "bin/stemsplit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(MAIN)} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    environment = {**os.environ, "_STEMSPLIT_COMPLETE": "source_bash"}
    source = subprocess.run(["stemsplit"], env=environment, capture_output=True, text=True, check=True, timeout=300)

    def call(*words: str) -> list[str]:
        quoted = " ".join(map(shlex.quote, words))
        script = f"{source.stdout}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n"
        script += "_stemsplit_completion stemsplit\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
        done = subprocess.run([str(BASH), "-c", script], capture_output=True, text=True, check=True, timeout=300)
        assert done.stderr == ""
        return done.stdout.split()

    return call


@pytest.mark.full
@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_what_bash_offers(complete: Callable[..., list[str]], here: Path, config: Write) -> None:
    for name in ("song.mp3", "sep arate.wav", ".hidden"):
        (here / name).touch()
    config("damaged")
    assert complete("stemsplit", "se") == ["separate"]
    assert complete("stemsplit", "s") == ["separate", "song.mp3"]
    assert complete("stemsplit", "so") == []  # then bash offers files itself
    assert complete("stemsplit", "--mod") == ["--model"]
    assert complete("stemsplit", "--vers") == ["--version"]
    assert complete("stemsplit", "song.mp3", "--model", "mi") == ["mini", "mini-accompaniment", "mini-unet"]
    assert complete("stemsplit", "--preset", "") == list(settings.PRESETS)
    assert complete("stemsplit", "song.mp3", "--model", "mini", "--stems", "vocals,d") == ["vocals,drums"]
    assert complete("stemsplit", "models", "info", "htdemucs_") == ["htdemucs_ft", "htdemucs_6s"]
    assert complete("stemsplit", "song.mp3", "so") == []


@pytest.mark.full
@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_models_of_the_user_are_offered(complete: Callable[..., list[str]], here: Path, config: Write) -> None:
    path = config("").with_name("models.toml")
    table = (
        'summary = "x"\nfamily = "unet"\nstems = ["vocals"]\nlicense = "MIT"\nbundled = "weights/mini.safetensors"\n'
    )
    path.write_text(f"[minimal]\n{table}")
    (here / "more.toml").write_text(f"[minor]\n{table}")
    assert complete("stemsplit", "--model", "mini") == ["mini", "mini-accompaniment", "mini-unet", "minimal"]
    assert complete("stemsplit", "--registry", "more.toml", "--model", "min") == [
        "mini",
        "mini-accompaniment",
        "mini-unet",
        "minimal",
        "minor",
    ]
    path.write_text("damaged")
    assert complete("stemsplit", "--model", "mini") == []


@pytest.mark.full
def test_completion_imports_nothing_heavy() -> None:
    words = {"_STEMSPLIT_COMPLETE": "complete_bash", "COMP_WORDS": "stemsplit\n--model\nm", "COMP_CWORD": "2"}
    code = "sys.argv[0] = 'stemsplit'; import stemsplit.cli.main; stemsplit.cli.main.main()"
    loaded = imported_by(f"import os; os.environ.update({words!r}); {code}")
    assert "stemsplit" in loaded
    assert not loaded & HEAVY


def test_the_options_that_install_completion(run: Run) -> None:
    out = run("--help", model=False).out
    assert "--install-completion" in out
    assert "--show-completion" in out
