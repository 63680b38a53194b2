"""Many songs: checks before any work, room on the disk, and what is told of it all."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]

from stemsplit.audio.formats import Format
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.batch import room, run
from stemsplit.batch.manifest import Provenance
from stemsplit.batch.room import Shape
from stemsplit.batch.run import Done, Failed, Skipped, Track
from stemsplit.batch.standard_input import StandardInput
from stemsplit.cli import reporting
from stemsplit.errors import AudioError, ModelError
from stemsplit.models.checkpoint import Model
from stemsplit.separation.outputs import Delivery
from stemsplit.separation.render import Report
from stemsplit.separation.separator import Separator

STEMS = ("vocals", "drums")


def write_song(name: str, *, rate: int = 8_000, channels: int = 2, length: int = 4_000) -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(name, np.zeros((length, channels), np.float32), rate, format="WAV", subtype="PCM_16")
    return Path(name)


def find(*names: str) -> list[Track]:
    found, failed = run.find(names, Path("out"))
    assert not failed
    return found


def report(length: int = 16_000) -> Report:
    return Report(8_000, 2, length, 0, ())


# Checks


def test_what_is_checked_knows_its_shape(here: Path) -> None:
    write_song("a.wav", rate=44_100, channels=1, length=100)
    ((track,), failed) = run.check(find("a.wav"), STEMS, overwrite=False)
    assert not failed
    assert track.shape == Shape(44_100, 1, 100)


def test_a_song_that_vanishes(here: Path) -> None:
    write_song("album/a.wav")
    write_song("album/b.wav")
    found = find("album")
    Path("album/a.wav").unlink()
    ready, failed = run.check(found, STEMS, overwrite=False)
    assert [track.label for track in ready] == ["album/b.wav"]
    assert [str(failure.error) for failure in failed] == ["there is no file 'album/a.wav'"]


def test_stems_that_are_to_be_replaced_may_exist(here: Path, shares_model: Callable[..., Model]) -> None:
    write_song("a.wav")
    separator = Separator(shares_model(shares=(0.5, 0.5), rate=8_000))
    made = Provenance({"sha256": "1"}, {})
    (track,) = find("a.wav")
    assert isinstance(run.run(track, STEMS, separator.separate_file, provenance=made), Done)
    _, (failure,) = run.check([track], STEMS, overwrite=False)
    assert "exists already" in str(failure.error)
    (again,), _, _ = run.sort_out([track], STEMS, Provenance({"sha256": "2"}, {}))
    assert again.why == "made by another model"
    assert len(run.check([again], STEMS, overwrite=False)[0]) == 1


def test_formats_that_do_not_have_the_rate_of_a_song(here: Path) -> None:
    write_song("a.wav", rate=2**20)
    found = find("a.wav")
    assert len(run.check(found, STEMS, overwrite=False)[0]) == 1
    _, (failure,) = run.check(found, STEMS, overwrite=False, delivery=Delivery(Format("flac")))
    assert str(failure.error) == "'a.wav' cannot be separated: FLAC has no sample rate of 1048576 Hz"


def test_every_failure_names_its_song(here: Path, shares_model: Callable[..., Model]) -> None:
    write_song("empty.wav", length=0)
    (track,) = run.find(["empty.wav"], Path("out"), extension="mp3")[0]
    result = run.run(track, STEMS, Separator(shares_model(shares=(0.5, 0.5), rate=8_000)).separate_file)
    assert isinstance(result, Failed)
    told = "'empty.wav' cannot be separated: there is nothing in the song, which MP3 cannot hold"
    assert (str(result.error), result.error.hint) == (told, "use WAV or FLAC")


def test_a_stem_never_replaces_a_song_even_one_that_is_skipped(here: Path) -> None:
    write_song("x/vocals.wav")
    write_song("y/x.wav")
    (x,), _ = run.find(["x/vocals.wav"], Path())
    (y,), _ = run.find(["y/x.wav"], Path())
    assert y.outputs(["vocals"])["vocals"] == Path("x/vocals.wav")
    for others in ([x], []):
        ready, failed = run.check([y], STEMS, overwrite=True, others=others)
        assert bool(ready) != bool(others)
        assert [str(each.error) for each in failed] == [
            "a stem of 'y/x.wav' would replace the song 'x/vocals.wav'"
        ] * len(others)


def test_a_link_to_a_song_is_not_replaced_either(here: Path) -> None:
    write_song("song.wav")
    Path("x").mkdir()
    Path("x/vocals.wav").symlink_to("../song.wav")
    write_song("x.wav")
    found, _ = run.find(["x.wav", "x/vocals.wav"], Path())
    _, (failure,) = run.check(found, STEMS, overwrite=True)
    assert "would replace the song 'x/vocals.wav'" in str(failure.error)


def test_songs_can_be_opened_otherwise(here: Path) -> None:
    write_song("a.wav")
    opened: list[Path] = []

    def open_song(path: Path) -> Reader:
        opened.append(path)
        return open_reader(path)

    run.check(find("a.wav"), STEMS, overwrite=False, open_song=open_song)
    assert opened == [Path("a.wav")]


def test_thousands_of_songs_are_checked_in_few_steps(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song = write_song("song.wav", length=10).read_bytes()
    Path("many").mkdir()
    for number in range(500):
        Path(f"many/{number}.wav").write_bytes(song)
    asked: list[Path] = []
    real = os.path.realpath

    def count(path: Path) -> str:
        asked.append(path)
        return real(path)

    found = find("many")
    monkeypatch.setattr(os.path, "realpath", count)
    assert len(run.check(found, STEMS, overwrite=False)[0]) == 500
    assert len(asked) <= 2 * 500 + 10


# Standard input


def test_standard_input_is_separated(here: Path, shares_model: Callable[..., Model]) -> None:
    content = write_song("song.wav").read_bytes()
    separator = Separator(shares_model(shares=(0.5, 0.5), rate=8_000))
    made = Provenance({"sha256": "1"}, {})
    for expected in (Done, Skipped):
        with StandardInput(io.BytesIO(content)) as stdin:
            found, failed = run.find(["-"], Path("out"), stdin=stdin)
            assert not failed
            assert len(run.sort_out(found, STEMS, made)[expected is Skipped]) == 1
            result = run.run(found[0], STEMS, separator.separate_file, provenance=made, skip_existing=True)
        assert isinstance(result, expected)
        assert run.describe(result, STEMS)["song"] == "-"
    assert soundfile.info("out/stdin/vocals.wav").frames == 4_000


def test_what_comes_from_standard_input_is_called_so(here: Path, shares_model: Callable[..., Model]) -> None:
    with StandardInput(io.BytesIO(b"no music")) as stdin:
        found, _ = run.find(["-"], Path("out"), stdin=stdin)
        _, (failure,) = run.check(found, STEMS, overwrite=False)
    assert failure.source == "-"
    assert str(failure.error) == "cannot decode standard input: it is damaged, or not audio"
    soundfile.write("nan.wav", np.full((100, 1), np.nan, np.float32), 8_000, subtype="FLOAT")
    with StandardInput(io.BytesIO(Path("nan.wav").read_bytes())) as stdin:
        (track,), _ = run.find(["-"], Path("out"), stdin=stdin)
        separator = Separator(shares_model(shares=(0.5, 0.5), rate=8_000))
        result = run.run(track, STEMS, separator.separate_file)
    assert isinstance(result, Done)
    assert result.report.warnings[0].startswith("standard input holds 100 sample(s)")


# Room


def test_how_much_room_stems_take() -> None:
    shapes = [Shape(44_100, 2, 44_100 * 60), Shape(48_000, 1, 48_000)]
    exact = 4 * (44_100 * 60 * 2 * 3 + 48_000 * 3)
    assert exact <= room.estimate(shapes, 4, Format()) <= exact + 2 * 4 * 4_096
    assert room.estimate(shapes, 4, Format("flac")) < exact
    assert room.estimate(shapes[:1], 4, Format("mp3", bitrate=320_000)) == 4 * (40_000 * 60 + 4_096)
    assert room.estimate([Shape(44_100, 2, None)], 4, Format()) == 4 * 4_096


def test_songs_that_wait_for_their_gain_take_room_as_well() -> None:
    shapes = [Shape(44_100, 2, 1_000), Shape(8_000, 1, 1_500), Shape(44_100, 2, None)]
    assert room.waiting(shapes, 4) == 4 * 4 * 2 * 1_000
    assert room.waiting([], 4) == 0


def test_the_estimate_is_near_what_is_written(here: Path, shares_model: Callable[..., Model]) -> None:
    rng = np.random.default_rng(0)
    seconds = np.arange(80_000)[:, None] / 8_000
    music = 0.1 * np.sin(2 * np.pi * 220 * seconds) + 0.003 * rng.standard_normal((80_000, 2))
    soundfile.write("a.wav", music, 8_000)
    separator = Separator(shares_model(shares=(0.5, 0.5), rate=8_000))
    (track,) = find("a.wav")
    assert isinstance(run.run(track, STEMS, separator.separate_file), Done)
    needed = room.estimate([Shape(8_000, 2, 80_000)], 2, Format())
    written = sum(path.stat().st_size for path in track.outputs(STEMS).values())
    assert written <= needed <= written + 2 * 4_096


# What is told


@pytest.fixture
def results(here: Path) -> list[Done | Skipped | Failed]:
    """One song that was separated, one that was skipped, one that failed."""
    for name in ("a.wav", "b.wav"):
        write_song(name)
    tracks, _ = run.check(find("a.wav", "b.wav"), STEMS, overwrite=False)
    failed = Failed("c.wav", AudioError("'c.wav' is empty (0 bytes)", "copy it again"))
    return [Done(tracks[0], report(16_000), 0.5), Skipped(tracks[1]), failed]


def test_what_would_be_done(here: Path) -> None:
    write_song("a.wav", length=8_000 * 65)
    (track,) = run.check(find("a.wav"), STEMS, overwrite=False)[0]
    again = run.Track(track.source, track.output, track.template, track.values, "b.wav", why="made by another model")
    failed = [Failed("c.wav", AudioError("'c.wav' is empty", ""))]
    assert reporting.plan_rows([track, again], [Skipped(track)], failed) == [
        ("a.wav", "1:05 min", "separate", "out/a"),
        ("b.wav", "?", "separate again: made by another model", "out/a"),
        ("a.wav", "", "skip: complete", "out/a"),
        ("c.wav", "", "fail: 'c.wav' is empty", ""),
    ]
    assert len(reporting.PLAN_COLUMNS) == 4


def test_what_was_done(results: list[Done | Skipped | Failed]) -> None:
    assert reporting.result_rows(results) == [
        ("done", "1", "2.0 s in 0.5 s, 4.0 x real time"),
        ("skipped", "1", "complete before"),
        ("failed", "1", ""),
        ("", "", "'c.wav' is empty (0 bytes)"),
    ]
    assert reporting.result_rows(results[:1], took_seconds=0.25) == [("done", "1", "2.0 s in 0.2 s, 8.0 x real time")]
    assert reporting.result_rows([]) == []


def test_objects_for_programs(results: list[Done | Skipped | Failed]) -> None:
    done, skipped, failed = results
    assert isinstance(done, Done)
    events = [
        reporting.begin_event(done.track, 1, 3),
        reporting.progress_event(done.track, 100, None),
        *(reporting.result_event(result, STEMS) for result in results),
        reporting.end_event(results, "mini", {"instead_of": "htdemucs", "reason": "offline"}, 0.25),
        reporting.error_event(ModelError("there is no model 'x'", "hint")),
    ]
    assert json.loads(json.dumps(events)) == events
    assert [event.pop("event") for event in events] == "begin progress done skipped failed end error".split()
    assert events[0] == {"song": "a.wav", "number": 1, "of": 3, "rate": 8_000, "length": 4_000}
    assert events[1] == {"song": "a.wav", "done": 100, "length": None}
    assert events[2:5] == [run.describe(result, STEMS) for result in (done, skipped, failed)]
    assert events[3] == {
        "song": "b.wav",
        "stems": {"vocals": "out/b/vocals.wav", "drums": "out/b/drums.wav"},
        "skipped": True,
    }
    assert events[5] == {
        "model": "mini",
        "fallback": {"instead_of": "htdemucs", "reason": "offline"},
        "done": 1,
        "skipped": 1,
        "failed": 1,
        "audio_seconds": 2.0,
        "elapsed_seconds": 0.25,
    }
    assert reporting.end_event(results, "mini", None)["elapsed_seconds"] == 0.5


def test_the_pace_of_progress() -> None:
    pace = reporting.Throttle(1.0)
    assert [pace.allows(now) for now in (5.0, 5.5, 6.0, 6.9, 9.0, 9.5)] == [True, False, True, False, True, False]
