"""What `stemsplit separate` can write, where, and of many songs, as a user sees it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from support.program import FILES, Run, files_in, start, wait_for, write_song
from support.songs import STEMS

from stemsplit.audio.formats import FORMATS
from stemsplit.audio.reading import open_reader
from stemsplit.models import speeds

BASE = ["--model", "model.safetensors", "--device", "cpu"]


def samples_of(path: Path | str) -> np.ndarray:
    """All samples of a file, `(C, N)`."""
    with open_reader(Path(path)) as reader:
        return np.concatenate([np.zeros((reader.channels, 0), np.float32), *reader.blocks()], axis=1)


@pytest.mark.full
@pytest.mark.parametrize("format", FORMATS)
def test_every_format(run: Run, here: Path, format: str) -> None:
    write_song(here / "song.wav", rate=48_000, length=48_000)
    extension = {"alac": "m4a"}.get(format, format)
    code, out, err = run("song.wav", "--format", format, "--stems", "drums")
    assert (code, out) == (0, f"separated/song/drums.{extension}\n"), err
    lossless = format in ("wav", "flac", "alac")
    assert run("song.wav", "--stems", "drums", "--bits", "32f", "-o", "exact").code == 0
    expected, got = samples_of("exact/song/drums.wav"), samples_of(out.strip())
    assert abs(got.shape[1] - expected.shape[1]) <= (0 if format != "m4a" else 1024)
    difference = got[:, : expected.shape[1]] - expected
    assert np.sqrt(np.square(difference).mean()) < (1e-6 if lossless else 0.05)


def test_two_stems_and_the_mixture(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    outcome = run("song.wav", "--two-stems", "vocals", "--mixture", "--bits", "32f")
    assert outcome.out.split() == [f"separated/song/{name}.wav" for name in ("vocals", "no_vocals", "mixture")]
    vocals, rest, mixture = map(samples_of, outcome.out.split())
    assert (rest == mixture - vocals).all()
    assert (mixture == samples_of("song.wav")).all()


@pytest.mark.full
def test_a_stem_file(run: Run, here: Path) -> None:
    write_song(here / "song.wav", rate=44_100, length=44_100)
    outcome = run("song.wav", "--stem-file")
    assert outcome.out.splitlines()[-1] == "separated/song/song.stem.mp4"
    assert run("song.wav", "--skip-existing", "--stem-file", "-q") == (0, "", "")
    with open_reader(Path("separated/song/song.stem.mp4"), audio_stream=5) as reader:
        assert reader.rate == 44_100
    again = run("separated/song/song.stem.mp4", "--track", "6", "-o", "else")
    assert again.code == 1
    assert "has only 5 audio tracks, not 6" in again.err
    assert run("separated/song/song.stem.mp4", "--track", "5", "-o", "else").code == 0


@pytest.mark.full
def test_a_page_to_listen_on(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    outcome = run("song.wav", "--player", "--mixture")
    assert outcome.out.splitlines()[-1] == "separated/song/player.html"
    page = (here / "separated/song/player.html").read_text()
    assert "no_vocals" not in page
    again = run("song.wav", "--player", "--format", "flac")
    assert (again.code, again.out) == (1, "")
    assert "player.html' exists already" in again.err
    # A page that is missing is made of the stems that are there.
    (here / "separated/song/player.html").unlink()
    (here / "model.safetensors").touch()
    skipped = run("song.wav", "--player", "--mixture", "--skip-existing")
    assert skipped.code == 0
    assert "skipped" in skipped.err
    assert (here / "separated/song/player.html").read_text() == page


@pytest.mark.full
def test_gain_and_rate(run: Run, here: Path) -> None:
    soundfile.write(here / "loud.wav", np.random.default_rng(1).uniform(-9, 9, (4_000, 1)), 8_000, subtype="FLOAT")
    outcome = run("loud.wav", "--clip", "gain", "--sample-rate", "16000", "--json")
    assert outcome.code == 0
    done = next(event for line in outcome.out.splitlines() if (event := json.loads(line))["event"] == "done")
    assert (done["clipped"], done["rate"], done["length"]) == (0, 16_000, 8_000)
    assert 0 < done["gain"] < 1
    assert "are turned down by" in outcome.err
    assert max(np.abs(samples_of(path)).max() for path in done["stems"].values()) == pytest.approx(1, abs=1e-4)
    assert run("loud.wav", "--sample-rate", "model", "-o", "m").code == 0


@pytest.mark.full
def test_standard_output_and_input(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    command = [sys.executable, "-m", "stemsplit", "-", "--stems", "bass", "-o", "-", "-f", "flac", *BASE]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, input=(here / "song.wav").read_bytes(), capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode().startswith("standard input -> standard output (0.5 s in ")
    (here / "got.flac").write_bytes(done.stdout)
    run("song.wav", "--stems", "bass", "-f", "flac")
    assert (samples_of("got.flac") == samples_of("separated/song/bass.flac")).all()
    assert sorted(path.name for path in here.iterdir()) == ["got.flac", "model.safetensors", "separated", "song.wav"]


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["song.wav", "-o", "-"], "standard output has room for one stem"),
        (["song.wav", "-o", "x.flac"], "'x.flac' has room for one stem"),
        (["song.wav", "-o", "x.flac", "--stems", "bass", "--player"], "'x.flac' has room for one stem"),
        (["song.wav", "other.wav", "-o", "x.flac", "--stems", "bass"], "'x.flac' has room for one song"),
        (["song.wav", "-o", "x.flac", "--stems", "bass", "-f", "mp3"], "--format mp3 and the name 'x.flac' contradict"),
        (["song.wav", "-o", "x.wav", "--stems", "bass", "--filename", "{stem}"], "--filename and the file 'x.wav'"),
        (["song.wav", "-o", "song.wav/sub"], "the output 'song.wav/sub' is below 'song.wav', which is a file"),
        (["song.wav", "--stems", "vocal"], "hint: did you mean vocals? its stems are vocals, drums, bass, other"),
        (["song.wav", "--stems", "instrumental"], "hint: did you mean no_vocals? its stems are"),
        (["song.wav", "--two-stems", "karaoke"], "hint: did you mean no_vocals? its stems are"),
        (["song.wav", "--stems", "Drum"], "hint: did you mean drums? its stems are"),
        (["song.wav", "other.wav", "-o", "-", "--stems", "bass"], "standard output has room for one song"),
        (["song.wav", "-o", "-", "--stems", "bass", "--json"], "cannot have both a stem and JSON"),
        (["song.wav", "--two-stems", "vocals,bass"], "--two-stems takes one stem"),
        (["song.wav", "--two-stems", "vocals", "--stems", "bass"], "--stems and --two-stems contradict each other"),
        (["song.wav", "--two-stems", "piano"], "has no stem 'piano'"),
        (["song.wav", "--two-stems", "vocals", "--stem-file"], "a stem file holds exactly four stems"),
        (["song.wav", "--stems", "vocals", "--consistent"], "only all stems of a model can be made to add up"),
        (["song.wav", "--format", "mp3", "--bits", "24"], "MP3 has no choice of bits"),
        (["song.wav", "--bitrate", "loud"], "'loud' is not a bit rate"),
        (["song.wav", "--sample-rate", "12"], "invalid sample rate '12'"),
        (["song.wav", "--filename", "../{stem}"], ".."),
        (["song.wav", "--filename", "/tmp/{stem}"], "is an absolute path"),
        (["song.wav", "--filename", "{track}"], "is the same for all stems"),
        (["song.wav", "--filename", "nul/{stem}"], "nul"),
        (["song.wav", "--include", ""], "matches nothing"),
        (["song.wav", "-q", "-v"], "--quiet and --verbose contradict each other"),
        (["song.wav", "--jobs", "0"], "--jobs"),
        (["song.wav", "--track", "0"], "--track"),
        (["song.wav", "--format", "mp4"], "--format cannot be 'mp4': it should be wav,"),
    ],
)
def test_what_does_not_go_together(run: Run, here: Path, arguments: list[str], message: str) -> None:
    for name in ("song.wav", "other.wav"):
        write_song(here / name)
    before = files_in(here)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert files_in(here) == before


def test_a_plan_for_standard_output(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    outcome = run("song.wav", "--stems", "bass", "-o", "-", "--dry-run")
    assert outcome.out.splitlines() == [
        "song      length  what      stems",
        "song.wav  0.5 s   separate  standard output",
    ]


@pytest.mark.parametrize("option", [["--stems", "Vocals"], ["--two-stems", "vocals"]])
@pytest.mark.parametrize("name", ["voice.flac", "new/a {song}.WAV", "x.m4a", "x.opus"])
def test_the_only_stem_of_a_song_as_one_file(run: Run, here: Path, option: list[str], name: str) -> None:
    write_song(here / "album/sub/song.wav", rate=48_000)
    outcome = run("album", *option, "-o", name)
    assert (outcome.code, outcome.out) == (0, f"{name}\n"), outcome.err
    assert files_in(here) == sorted([name, "album/sub/song.wav", "model.safetensors"])
    with open_reader(here / name) as reader:
        assert reader.rate == 48_000
    again = run("album", *option, "-o", name, "--skip-existing")
    assert (again.code, again.out) == (1, "")
    assert f"{name!r} exists already" in again.err
    assert run("album", *option, "-o", name, "--overwrite").code == 0


def test_a_folder_whose_name_ends_like_a_song(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    (here / "live.wav").mkdir()
    assert run("song.wav", "-o", "live.wav", "--stems", "bass").out == "live.wav/song/bass.wav\n"


@pytest.mark.full
def test_the_song_without_a_stem(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    both = run("song.wav", "--two-stems", "vocals", "--bits", "32f").out.split()
    alone = run("song.wav", "--stems", "no_vocals", "--bits", "32f", "-o", "alone").out.split()
    assert alone == ["alone/song/no_vocals.wav"]
    assert (samples_of(alone[0]) == samples_of(both[1])).all()
    mixed = run("song.wav", "--stems", "bass,NO_VOCALS", "-o", "mixed").out.split()
    assert mixed == ["mixed/song/bass.wav", "mixed/song/no_vocals.wav"]
    one = run("song.wav", "--stems", "no_vocals", "--bits", "32f", "-o", "one.wav").out
    assert one == "one.wav\n"
    assert (samples_of("one.wav") == samples_of(both[1])).all()


@pytest.mark.parametrize(("typed", "extension"), [("FLAC", "flac"), (".Mp3", "mp3"), ("WAV", "wav")])
def test_formats_as_people_write_them(run: Run, here: Path, typed: str, extension: str) -> None:
    write_song(here / "song.wav")
    assert run("song.wav", "--stems", "bass", "--format", typed).out == f"separated/song/bass.{extension}\n"


@pytest.mark.parametrize("typed", ["16000", "16k", "16K", "16 kHz", "16000Hz", "16.0k"])
def test_sample_rates_as_people_write_them(run: Run, here: Path, typed: str) -> None:
    write_song(here / "song.wav")
    assert run("song.wav", "--stems", "bass", "--sample-rate", typed).code == 0
    with open_reader(here / "separated/song/bass.wav") as reader:
        assert reader.rate == 16_000


def test_a_hint_for_names_that_collide_names_what_tells_them_apart(run: Run, here: Path) -> None:
    for name in ("a/song.wav", "b/song.wav", "c.wav"):
        write_song(here / "in" / name)
    code, _, err = run("in/a/song.wav", "in/c.wav", "--filename", "{model} {stem}")
    assert code == 2
    assert err.splitlines()[1].startswith("hint: put {track} or {index} into --filename: ")
    err = run("in/a/song.wav", "in/b/song.wav", "--filename", "{track} {stem}").err
    assert err.splitlines()[1].startswith("hint: put {index} into --filename: ")


def test_a_dry_run_says_how_much_there_is_to_do(run: Run, here: Path) -> None:
    for name in ("a.wav", "b.wav"):
        write_song(here / name, length=80_000)
    unknown = run("a.wav", "b.wav", "--dry-run").err
    assert unknown == (
        "2 songs, 20.0 s, with model.safetensors: a time that  stemsplit doctor  can find out, and 3.9 MB of stems\n"
    )
    speeds.record({"model.safetensors": 4.0})
    assert "with model.safetensors: about 5.0 s, and " in run("a.wav", "b.wav", "--dry-run").err
    speeds.record({"model.safetensors": 1.0})


def test_a_line_break_in_a_name(run: Run, here: Path) -> None:
    write_song(here / "a\nb.wav")
    assert run("a\nb.wav", "--stems", "bass,drums").out.splitlines() == [
        r"separated/a\nb/drums.wav",
        r"separated/a\nb/bass.wav",
    ]
    exact = run("a\nb.wav", "--stems", "bass,drums", "--overwrite", "--print0").out
    assert exact == "separated/a\nb/drums.wav\0separated/a\nb/bass.wav\0"


def test_a_path_of_windows_is_shown_as_it_is(run: Run) -> None:
    code, _, err = run(r"C:\Music\song.mp3")
    assert code == 1
    assert err.startswith(r"stemsplit: 'C:\Music\song.mp3' is a path of Windows")
    events = run(r"C:\Music\song.mp3", "--json").out.splitlines()
    assert json.loads(events[0])["error"] == r"'C:\Music\song.mp3' is a path of Windows"


# Many songs


@pytest.mark.full
def test_a_batch_that_is_run_again_says_how_to_go_on(run: Run, here: Path) -> None:
    for name in ("a.wav", "b.wav"):
        write_song(here / name)
    assert run("a.wav", "b.wav").code == 0
    code, out, err = run("a.wav", "b.wav")
    assert (code, out) == (1, "")
    assert err.count("exists already") == 2
    assert err.count("hint: skip what is complete with --skip-existing, replace it with --overwrite, or ") == 1
    assert err.splitlines()[-1].split() == ["failed", "2"]
    write_song(here / "c.wav")
    err = run("a.wav", "b.wav", "c.wav").err  # told before a song was done, so perhaps out of sight
    assert err.count("exists already") == 4


def test_json_names_the_page(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    events = [json.loads(line) for line in run("song.wav", "--player", "--json").out.splitlines()]
    (done,) = [event for event in events if event["event"] == "done"]
    assert done["page"] == "separated/song/player.html"


@pytest.mark.full
def test_a_batch_with_every_failure_among_good_songs(run: Run, here: Path) -> None:
    for name in ("a.wav", "sub/b.wav", "z.wav"):
        write_song(here / "in" / name)
    (here / "in/empty.mp3").touch()
    (here / "in/text.flac").write_text("no music")
    cut = (here / "in/a.wav").read_bytes()
    (here / "in/cut.wav").write_bytes(cut[:3000])
    (here / "in/gone.wav").symlink_to("nowhere.wav")
    (here / "list.m3u").write_text("in/sub/b.wav\nin/missing.wav\nrtsp://example.org/x.mp3\n")
    outcome = run("in", "list.m3u", "nothing*.wav", "--jobs", "2", "--json", "-q")
    assert outcome.code == 1
    events = [json.loads(line) for line in outcome.out.splitlines()]
    kinds: dict[str, list[str]] = {}
    for event in events:
        kinds.setdefault(event["event"], []).append(str(event.get("song")))
    assert sorted(kinds["done"]) == ["in/a.wav", "in/cut.wav", "in/sub/b.wav", "in/z.wav"]
    assert len(kinds["failed"]) == 6
    assert all(event["error"] and event["hint"] for event in events if event["event"] == "failed")
    assert (events[-1]["done"], events[-1]["failed"]) == (4, 6)
    assert files_in(here / "separated") == sorted(
        f"{song}/{name}" for song in ("a", "cut", "sub/b", "z") for name in FILES
    )


@pytest.mark.full
def test_a_batch_goes_on_after_it_was_killed(run: Run, here: Path) -> None:
    for number in range(3):
        write_song(here / f"in/{number}.wav")
    write_song(here / "in/long.wav", length=8_000 * 3_600, channels=1)
    process = start("in", "--skip-existing", "--model", "model.safetensors")
    wait_for(lambda: len(list(here.glob("separated/long/*.part"))) == 4, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    for part in (here / "separated/long").iterdir():  # as if it had been a while ago
        os.utime(part, (time.time() - 4000,) * 2)
    write_song(here / "in/long.wav")
    plan = run("in", "--skip-existing", "--dry-run")
    assert [row.split()[0] for row in plan.out.splitlines()[1:]] == ["in/long.wav", *(f"in/{n}.wav" for n in range(3))]
    assert ["skip: complete" in row for row in plan.out.splitlines()[1:]] == [False, True, True, True]
    assert plan.code == 0
    outcome = run("in", "--skip-existing")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [f"separated/long/{stem}.wav" for stem in STEMS]
    assert files_in(here / "separated/long") == FILES
    # What somebody has edited is kept.
    (here / "separated/0/bass.wav").write_text("mine")
    edited = run("in", "--skip-existing", "--overlap", "0.5")
    assert edited.code == 1
    assert "was changed after stemsplit wrote it" in edited.err
    assert (here / "separated/0/bass.wav").read_text() == "mine"


@pytest.mark.full
def test_overwriting_in_another_format_leaves_no_old_stems(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    assert run("song.wav").code == 0
    (here / "separated/song/bass.wav").write_text("edited")
    (here / "separated/song/notes.txt").touch()
    assert run("song.wav", "--format", "flac", "--overwrite", "--stems", "vocals,bass").code == 0
    assert files_in(here / "separated/song") == sorted(
        ["bass.flac", "bass.wav", "drums.wav", "notes.txt", "other.wav", "stemsplit.json", "vocals.flac"]
    )
    assert run("song.wav", "--format", "mp3").code == 0  # beside them, as it was not asked to replace anything
    assert (here / "separated/song/vocals.flac").exists()


@pytest.mark.full
def test_a_folder_that_is_its_own_output(run: Run, here: Path) -> None:
    write_song(here / "album/song.wav")
    assert run("album", "-o", "album").code == 0
    write_song(here / "album/new.wav")
    again = run("album", "-o", "album", "--skip-existing")
    assert again.code == 0
    assert again.out.splitlines() == [f"album/new/{stem}.wav" for stem in STEMS]
    flat = ("album", "-o", "album", "--filename", "{track} {stem}")
    assert len(run(*flat).out.splitlines()) == 8
    assert run(*flat, "--skip-existing").out == ""


@pytest.mark.full
def test_jobs_give_the_same_stems(run: Run, here: Path) -> None:
    for number in range(5):
        write_song(here / f"in/{number}.wav", length=3_000 + 500 * number)
    assert run("in", "-o", "one").code == 0
    outcome = run("in", "-o", "two", "--jobs", "3")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 20
    for path in sorted((here / "one").rglob("*.wav")):
        assert (here / "two" / path.relative_to(here / "one")).read_bytes() == path.read_bytes()


@pytest.mark.full
def test_stopping_several_jobs_leaves_nothing_behind(run: Run, here: Path) -> None:
    for name in ("a", "b"):
        write_song(here / f"{name}.wav", length=8_000 * 3_600, channels=1)
    process = start("a.wav", "b.wav", "--jobs", "2", "--model", "model.safetensors")
    wait_for(lambda: len(list(here.glob("separated/*/*.part"))) == 8, process)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.splitlines() == [
        "stemsplit: stopped by SIGTERM",
        "hint: the same command with --skip-existing goes on with the songs that are left",
    ]
    assert not (here / "separated").exists()


@pytest.mark.full
def test_verbose_on_a_pipe(run: Run, here: Path) -> None:
    write_song(here / "song.wav", length=60_000)
    err = run("song.wav", "-v").err
    assert "model model.safetensors: model.safetensors\n" in err
    assert "1 network on cpu, precision full, windows of 0.51 s" in err
    assert "song.wav: 8000 Hz, stereo, 7.5 s\n" in err
    assert "song.wav: 5" in err  # per cent
    assert "\x1b" not in err


@pytest.mark.full
def test_stdin_that_is_no_song(here: Path, run: Run) -> None:
    command = [sys.executable, "-m", "stemsplit", "-", *BASE]
    for data in (b"", b"no music"):
        done = subprocess.run(command, input=data, capture_output=True)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"standard input" in done.stderr
        assert b"hint: " in done.stderr
        assert not (here / "separated").exists()
