"""The command line as a user meets it: what goes where, exit codes, and input of every unkind sort."""

import json
import os
import pty
import select
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from support.program import FILES, NAMES, Run, files_in, start, wait_for, write_song
from support.songs import STEMS

from stemsplit.batch.checks import partition_separable
from stemsplit.batch.tracks import find_tracks
from stemsplit.cli import console, separate
from stemsplit.errors import AudioError, UsageError
from stemsplit.wording import duration, printable

# What is written where


@pytest.mark.parametrize("first", [[], ["separate"]])
def test_a_song_becomes_four_stems(run: Run, here: Path, first: Sequence[str]) -> None:
    write_song(here / "song.wav", length=5_001, channels=1)
    outcome = run(*first, "song.wav")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [f"separated/song/{name}" for name in NAMES]
    assert outcome.err.startswith("song.wav -> separated/song (0.6 s in ")
    assert outcome.err.endswith(" x real time)\n")
    assert outcome.err.count("\n") == 1
    for name in NAMES:
        info = soundfile.info(f"separated/song/{name}")
        assert (info.frames, info.samplerate, info.channels) == (5_001, 8_000, 1)


def test_quiet_and_output(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    outcome = run("-q", "-o", "else/where", "song.wav")
    assert outcome == (0, "".join(f"else/where/song/{name}\n" for name in NAMES), "")


@pytest.mark.full
def test_json_of_a_plan_and_of_a_refusal(run: Run, here: Path) -> None:
    for name in ("old.wav", "new.wav"):
        write_song(here / name)
    assert run("old.wav", "--stems", "bass").code == 0
    outcome = run("old.wav", "new.wav", "none.wav", "--stems", "bass", "--skip-existing", "--dry-run", "--json")
    failed, skipped, plan = map(json.loads, outcome.out.splitlines())
    assert (outcome.code, failed["event"], skipped["event"], skipped["song"]) == (1, "failed", "skipped", "old.wav")
    assert "old.wav" not in outcome.err
    assert plan == {
        "event": "plan",
        "song": "new.wav",
        "stems": {"bass": "separated/new/bass.wav"},
        "rate": 8_000,
        "length": 4_000,
        "why": None,
    }
    outcome = run("new.wav", "--stems", "piano", "--json")
    refusal = json.loads(outcome.out)
    assert (outcome.code, refusal["event"], refusal["hint"]) == (2, "error", f"its stems are {', '.join(STEMS)}")
    assert refusal["error"] in outcome.err


@pytest.mark.full
def test_what_is_true_of_all_songs_is_told_once(run: Run, here: Path) -> None:
    for name in ("a.wav", "b.wav"):
        write_song(here / name, rate=11_025)
    outcome = run("a.wav", "b.wav", "--format", "opus", "--jobs", "2")
    assert outcome.err.count("warning: Opus has no sample rate of 11025 Hz") == 1


def test_json(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    (here / "text.mp3").write_text("no music")
    outcome = run("song.wav", "text.mp3", "--json", "-q")
    assert outcome.code == 1
    events = [json.loads(line) for line in outcome.out.splitlines()]
    bad, begin, *progress, good, end = [(event.pop("event"), event) for event in events]
    assert begin == ("begin", {"song": "song.wav", "number": 1, "of": 1, "rate": 8_000, "length": 4_000})
    assert {kind for kind, _ in progress} <= {"progress"}
    assert [kind for kind, _ in (bad, good, end)] == ["failed", "done", "end"]
    bad, good, end = bad[1], good[1], end[1]
    assert (end["model"], end["fallback"]) == ("model.safetensors", None)
    assert (end["done"], end["skipped"], end["failed"], end["audio_seconds"]) == (1, 0, 1, 0.5)
    assert bad["song"] == "text.mp3"
    assert "text.mp3" in bad["error"]
    assert bad["hint"]
    assert good.pop("elapsed_seconds") > 0
    assert 0 < good.pop("peak") < 1
    assert good == {
        "song": "song.wav",
        "stems": {stem: f"separated/song/{stem}.wav" for stem in STEMS},
        "rate": 8_000,
        "channels": 2,
        "length": 4_000,
        "clipped": 0,
        "gain": 1.0,
        "consistent": True,
        "incomplete": False,
        "warnings": [],
    }


@pytest.mark.full
def test_folders_are_searched_and_mirrored(run: Run, here: Path) -> None:
    for name in ("album/cd 1/a.wav", "album/cd 2/a.WAV", "album/b.wav", "album/.hidden.wav", "album/.cache/c.wav"):
        write_song(here / name, length=100)
    (here / "album/cover.jpg").write_text("no music")
    assert run("album", "-o", "album/stems").code == 0
    folders = ("b", "cd 1/a", "cd 2/a")
    expected = sorted(f"{folder}/{name}" for folder in folders for name in FILES)
    assert files_in(here / "album/stems") == expected
    # Not the stems of the first run, which are below the folder that is searched.
    assert run("album", "-o", "album/stems", "--overwrite", "-q").code == 0
    assert files_in(here / "album/stems") == expected


@pytest.mark.full
def test_clipping_and_warnings_are_told(run: Run, here: Path) -> None:
    soundfile.write(here / "loud.wav", np.full((4_000, 1), 40.0), 8_000, subtype="FLOAT")
    outcome = run("loud.wav", "-q")
    assert outcome.code == 0
    assert "warning: " in outcome.err
    assert "'loud.wav' are beyond full scale and were clipped\nhint: turn all of its stems down" in outcome.err
    soundfile.write(here / "broken.wav", np.full((4_000, 1), np.nan), 8_000, subtype="FLOAT")
    assert "warning: 'broken.wav' has 4000 sample(s)" in run("broken.wav", "-q").err


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["a [live] [bold].wav", "[/b].wav", "🎵 ü.wav", "two\nlines\x1b[31m.wav", "\udcff.wav", "...wav"]
)
def test_names_of_every_kind(run: Run, here: Path, name: str) -> None:
    if "/" in name:
        name = name.replace("/", "\\")
    write_song(here / name, length=100)
    outcome = run(name)
    stem = {"...wav": "...wav"}.get(name, name[:-4])
    assert outcome.code == 0
    assert sorted(path.name for path in (here / "separated" / stem).iterdir()) == FILES
    line = f"separated/{stem}/vocals.wav".replace("\n", "\\n")  # one path a line
    assert os.fsencode(line) in os.fsencode(outcome.out)
    assert outcome.err.count("\n") == 1
    assert "\x1b" not in outcome.err
    assert outcome.err.startswith(printable(name) + " -> ")
    # And in a refusal, which names the song as well.
    again = run(name)
    assert again.code == 1
    assert again.err.count("\n") == 2
    assert "\x1b" not in again.err


def test_an_empty_song_gives_empty_stems(run: Run, here: Path) -> None:
    write_song(here / "song.wav", length=0)
    assert run("song.wav").code == 0
    assert soundfile.info("separated/song/vocals.wav").frames == 0


# Refusals


def test_stems_that_exist_are_kept(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    (here / "separated/song").mkdir(parents=True)
    (here / "separated/song/bass.wav").write_text("mine")
    outcome = run("song.wav")
    assert (outcome.code, outcome.out) == (1, "")
    assert "bass.wav' exists already" in outcome.err
    assert "--overwrite" in outcome.err
    assert files_in(here / "separated") == ["song/bass.wav"]
    assert (here / "separated/song/bass.wav").read_text() == "mine"
    assert run("song.wav", "--overwrite").code == 0
    assert soundfile.info("separated/song/bass.wav").frames == 4_000


def test_a_bad_song_does_not_stop_the_others(run: Run, here: Path) -> None:
    (here / "text.mp3").write_text("no music")
    (here / "empty.mp3").touch()
    (here / "nothing").mkdir()
    write_song(here / "song.wav")
    outcome = run("text.mp3", "missing.wav", "nothing", "empty.mp3", "song.wav")
    assert outcome.code == 1
    assert outcome.out.splitlines() == [f"separated/song/{name}" for name in NAMES]
    errors = [line for line in outcome.err.splitlines() if line.startswith("stemsplit: ")]
    assert len(errors) == outcome.err.count("hint: ") == 4
    for name in ("text.mp3", "missing.wav", "nothing", "empty.mp3"):
        assert sum(repr(name) in line for line in errors) == 1
    summary = outcome.err.splitlines()[-6:]
    assert summary[0].split()[:2] == ["done", "1"]
    assert summary[1].split() == ["failed", "4"]
    assert [line.split("'")[1] for line in summary[2:]] == ["nothing", "text.mp3", "missing.wav", "empty.mp3"]
    assert files_in(here / "separated") == [f"song/{name}" for name in FILES]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.wav"], 1, "stemsplit: there is no file 'missing.wav'\nhint: "),
        ([""], 2, "stemsplit: an empty name was given\nhint: "),
        (["song.wav", "-o", "song.wav"], 2, "stemsplit: 'song.wav' has room for one stem\nhint: "),
        (["song.wav", "-o", "model.safetensors"], 2, "stemsplit: the output 'model.safetensors' is a file\nhint: "),
        (["song.wav", "other/song.wav"], 2, "would go to the same folder\nhint: "),
        (["song.wav", "--model", "minni"], 2, "stemsplit: unknown model 'minni'\nhint: did you mean mini?"),
        (["song.wav", "--model", "song.wav"], 1, "stemsplit: 'song.wav' is not a valid .safetensors file"),
        (["song.wav", "--device", "tpu"], 2, "stemsplit: --device cannot be 'tpu': it should be auto, cpu,"),
        (["song.wav", "--nonsense"], 2, "stemsplit: there is no option --nonsense"),
        (
            ["evalute", "data"],
            2,
            "stemsplit: there is no command or file 'evalute'\nhint: did you mean  stemsplit evaluate",
        ),
        (["evaluate", "missing"], 1, "stemsplit: 'missing'"),
        (["train", "missing", "--output", "run"], 1, "stemsplit: 'missing'"),
        (["train", "other", "--output", "run", "--recipe", "missing.toml"], 2, "missing.toml"),
        (["x" * 300 + ".wav"], 1, "stemsplit: cannot read"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, here: Path, arguments: list[str], code: int, message: str) -> None:
    write_song(here / "song.wav")
    write_song(here / "other/song.wav")
    before = files_in(here)
    if arguments[0] == "evaluate":
        arguments += ["--model", "model.safetensors"]
    outcome = run(*arguments, model=False)
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert files_in(here) == before


@pytest.mark.full
def test_how_it_is_separated(run: Run, here: Path) -> None:
    write_song(here / "song.wav")

    def stem(*options: str) -> bytes:
        assert run("song.wav", "--stems", "bass", "--overwrite", *options).code == 0
        return (here / "separated/song/bass.wav").read_bytes()

    usual = stem()
    assert stem("--batch-size", "3") == usual
    assert stem("--overlap", "0.25") == usual
    results = [stem("--overlap", "0.5"), stem("--shifts", "2"), stem("--precision", "half")]
    assert len({usual, *results}) == 4
    assert stem("--shifts", "2") == results[1]
    assert files_in(here / "separated") == ["song/bass.wav", "song/stemsplit.json"]


@pytest.mark.parametrize(
    "option", [("--overlap", "1"), ("--shifts", "-1"), ("--precision", "double"), ("--batch-size", "0")]
)
def test_settings_out_of_range(run: Run, here: Path, option: tuple[str, str]) -> None:
    write_song(here / "song.wav")
    code, out, err = run("song.wav", *option)
    assert (code, out) == (2, "")
    assert option[0] in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    outcome = run("song.wav", "--model", "model.safetensors", "--device", "cuda", model=False)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("stemsplit: PyTorch finds no cuda device on this machine\nhint: use --device cpu")


def test_running_out_of_memory(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("stemsplit.separation.separator.Separator.separate_song", fail)
    write_song(here / "song.wav")
    outcome = run("song.wav")
    assert outcome.code == 1
    assert outcome.err.startswith("stemsplit: the cpu device has too little free memory\nhint: ")


def test_a_bug_fails_one_song_and_verbose_has_its_traceback(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("stemsplit.separation.separator.Separator.separate_song", fail)
    write_song(here / "song.wav")
    outcome = run("song.wav")
    assert outcome.code == 1
    assert "stemsplit: 'song.wav' cannot be separated: ValueError: a bug\nhint: " in outcome.err
    assert "Traceback" not in outcome.err
    assert "Traceback (most recent call last):" in run("song.wav", "--verbose").err.splitlines()


def test_a_bug_elsewhere_keeps_its_traceback(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("stemsplit.batch.run.separate_batch", fail)
    with pytest.raises(ValueError, match="a bug"):
        run("song.wav")


# The other commands


@pytest.mark.full
def test_the_demo(run: Run, here: Path) -> None:
    outcome = run("demo", "--device", "cpu", model=False)
    assert outcome.code == 0
    assert files_in(here / "separated") == [f"demo/{name}" for name in FILES]
    length = soundfile.info(separate.DEMO).frames
    assert all(soundfile.info(f"separated/demo/{name}").frames == length for name in NAMES)
    assert f"Its stems are in {here / 'separated/demo'}" in outcome.err


@pytest.mark.full
def test_a_second_demo_does_not_fail(run: Run, here: Path) -> None:
    assert run("demo", "--device", "cpu", model=False).code == 0
    code, out, err = run("demo", "--device", "cpu", "--player", model=False)
    assert (code, out) == (0, "")
    assert "skipped, its stems in separated/demo are complete\n" in err
    assert f"open {here / 'separated/demo/player.html'} in a browser" in err
    (here / "separated/demo/bass.wav").write_text("mine")
    code, _, err = run("demo", "--device", "cpu", model=False)
    assert code == 1
    assert "was changed after stemsplit wrote it" in err
    assert run("demo", "--device", "cpu", "--overwrite", model=False).code == 0


def test_the_demo_does_not_go_to_standard_output(run: Run, here: Path) -> None:
    code, out, err = run("demo", "--output", "-", model=False)
    assert (code, out) == (2, "")
    assert err.startswith("stemsplit: standard output has room for one stem")
    assert not (here / "-").exists()


RECIPE = """
config = {n_fft = 512, hop = 128, bands = 24, linear_bands = 8, widths = [4, 6]}
rate = 8000
window_seconds = 0.5
overlap_seconds = 0.1
epochs = 2
steps = 2
batch_size = 2
"""


@pytest.mark.full
def test_train(run: Run, here: Path, make_song: Callable[..., object]) -> None:
    make_song(here / "data/a")
    make_song(here / "valid/b", seed=1)
    (here / "recipe.toml").write_text(RECIPE)
    arguments = ["train", "data", "--recipe", "recipe.toml", "--output", "run", "--device", "cpu", "--workers", "0"]
    outcome = run(*arguments, "--valid", "valid", model=False)
    assert (outcome.code, outcome.out) == (0, "run/best.safetensors\n")
    first, second = [line for line in outcome.err.splitlines() if line.startswith("epoch ")]
    assert first.startswith("epoch 1/2  loss ")
    assert "  SDR vocals " in first
    assert first.endswith(" to go")
    assert second.startswith("epoch 2/2  loss ")

    again = run(*arguments, model=False)
    assert again.code == 2
    assert "--resume" in again.err
    more = run(*arguments, "--resume", "--epochs", "3", model=False)
    assert more.code == 0
    assert [line[:9] for line in more.err.splitlines() if line.startswith("epoch ")] == ["epoch 3/3"]

    write_song(here / "song.wav")
    assert run("song.wav", "--model", "run/model.safetensors", "--device", "cpu", model=False).code == 0


# Which song goes where


def tracks(inputs: Sequence[str], output: str = "out") -> dict[str, str]:
    """Songs and the folders of their stems."""
    found, failed = find_tracks(inputs, Path(output))
    assert not failed
    return {str(track.source): str(track.folder) for track in found}


def test_songs_that_would_share_a_folder_are_told_apart(here: Path) -> None:
    for name in ("a.wav", "a.mp3", "A.flac", "a.mp3.ogg", "b.wav", "sub/a.wav"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).touch()
    assert tracks(["a.wav", "b.wav"]) == {"a.wav": "out/a", "b.wav": "out/b"}
    assert tracks(["a.wav", "a.mp3"]) == {"a.wav": "out/a.wav", "a.mp3": "out/a.mp3"}
    assert tracks(["a.wav", "A.flac"]) == {"a.wav": "out/a.wav", "A.flac": "out/A.flac"}
    assert tracks(["a.wav", "a.mp3", "a.mp3.ogg"])["a.mp3.ogg"] == "out/a.mp3.ogg"
    assert tracks([".", "a.wav", "./a.wav"])["sub/a.wav"] == "out/sub/a"
    with pytest.raises(UsageError, match=r"'a\.wav' and 'sub/a\.wav' would go to the same folder"):
        tracks(["a.wav", "sub/a.wav"])


def test_a_song_is_separated_once(here: Path) -> None:
    (here / "a.wav").touch()
    (here / "b.wav").symlink_to("a.wav")
    assert tracks(["a.wav", "./a.wav", "b.wav", "."]) == {"a.wav": "out/a"}


def test_the_output_is_not_searched_unless_it_is_what_was_given(here: Path) -> None:
    for name in ("song.wav", "out/song/vocals.wav"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    assert list(tracks(["."])) == ["song.wav"]
    assert list(tracks(["out"])) == ["out/song/vocals.wav"]
    assert sorted(tracks(["."], ".")) == ["out/song/vocals.wav", "song.wav"]


def test_links_that_go_in_circles(here: Path) -> None:
    (here / "loop.wav").symlink_to("loop.wav")
    (here / "self").symlink_to(here)
    (here / "a.wav").touch()
    assert list(tracks(["."])) == ["a.wav", "loop.wav"]
    assert partition_separable(find_tracks(["loop.wav"], Path("out"))[0], STEMS, overwrite=False)[1]


def test_a_stem_never_replaces_a_song(here: Path) -> None:
    write_song(here / "vocals/vocals.wav")
    found, _ = find_tracks(["vocals/vocals.wav"], Path())
    ready, failed = partition_separable(found, STEMS, overwrite=True)
    assert not ready
    assert isinstance(failed[0].error, AudioError)
    assert "would replace the song" in str(failed[0].error)


# As a process of its own


@pytest.fixture
def long_song(run: Run, here: Path) -> Path:
    """A song that takes minutes."""
    return write_song(here / "long.wav", length=8_000 * 3_600, channels=1)


@pytest.mark.full
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_leaves_nothing_behind(long_song: Path, here: Path, number: signal.Signals, code: int) -> None:
    write_song(here / "short.wav")
    process = start("short.wav", "long.wav", "--model", "model.safetensors")
    wait_for(lambda: bool(list(here.glob("separated/long/*"))), process)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out.splitlines() == [f"separated/short/{name}" for name in NAMES]
    hint = "hint: the same command with --skip-existing goes on with the songs that are left"
    assert err.splitlines()[1:] == [f"stemsplit: stopped by {number.name}", hint]
    # The song that was finished stays; of the other one there is not even its folder.
    assert files_in(here / "separated") == [f"short/{name}" for name in FILES]


@pytest.mark.full
def test_a_reader_that_has_seen_enough(run: Run, here: Path) -> None:
    for number in range(3):
        write_song(here / f"{number}.wav", length=100)
    process = start("0.wav", "1.wav", "2.wav", "--model", "model.safetensors", "-q")
    assert process.stdout and process.stderr
    assert process.stdout.readline() == "separated/0/vocals.wav\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(timeout=60)
    process.stderr.close()


@pytest.mark.full
def test_stopping_a_training_tells_how_to_go_on(run: Run, here: Path, make_song: Callable[..., object]) -> None:
    make_song(here / "data/a")
    (here / "recipe.toml").write_text(RECIPE.replace("epochs = 2", "epochs = 100000"))
    process = start("train", "data", "--recipe", "recipe.toml", "--output", "my run")
    wait_for(lambda: (here / "my run/state.pt").exists(), process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-2:] == [
        "stemsplit: stopped by SIGINT",
        "hint: continue with  stemsplit train data --recipe recipe.toml --output 'my run' --device cpu --resume",
    ]
    assert files_in(here / "my run") == ["model.safetensors", "report.html", "state.pt"]


def test_a_terminal_gets_a_bar_and_no_markup_from_names(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with console.Messages().progress("a [red]song[/red]\n\x1b[31m") as on_progress:
            on_progress(50, 100)
        console.Messages().note("[bold]done")
        stream.flush()
        # A terminal hands over what has arrived so far, which may be less than all.
        shown = ""
        while not shown.endswith("[bold]done\r\n") and select.select([terminal], [], [], 10)[0]:
            shown += os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert r"a [red]song[/red]\n\x1b[31m " in shown
    assert " 50%" in shown
    assert shown.endswith("[bold]done\r\n")


# What the console makes of values


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (65, "1:05 min"), (7_384, "2:03:04 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_that_json_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    console.write_json({"a": [float("nan"), 1.5], "b": {"c": float("inf")}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": {"c": None}}


def test_a_cluster_needs_ray(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_song(here / "song.wav")
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    code, out, err = run("song.wav", "--cluster", "auto")
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "stemsplit: --cluster needs Ray, which is not installed",
        "hint: pip install 'stemsplit-audio[cluster]'",
    ]
    assert not (here / "separated").exists()


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["song.wav", "--cluster", "elsewhere"], "'elsewhere' is not the address of a cluster"),
        (["song.wav", "--cluster", "http://127.0.0.1:80"], "'http://127.0.0.1:80' is not the address of a cluster"),
        (["song.wav", "--cluster", "127.0.0.1:1"], "cannot connect to the cluster '127.0.0.1:1': "),
        (["song.wav", "--cluster", "ray://127.0.0.1:1"], "cannot connect to the cluster 'ray://127.0.0.1:1': "),
        (["-", "--cluster", "auto"], "the machines of a cluster cannot read the standard input of this one"),
        (
            ["song.wav", "-o", "-", "--cluster", "auto", "--stems", "drums"],
            "the machines of a cluster cannot write to the standard output of this one",
        ),
        (
            ["song.wav", "--cluster", "auto", "--gpus-per-worker", "2"],
            "a worker can have a GPU or a share of one, not 2",
        ),
    ],
)
def test_what_a_cluster_cannot_do(run: Run, here: Path, arguments: list[str], message: str) -> None:
    write_song(here / "song.wav")
    code, out, err = run(*arguments)
    assert code
    assert not out
    assert err.startswith(f"stemsplit: {message}")
    assert "\nhint: " in err
    assert not (here / "separated").exists()
