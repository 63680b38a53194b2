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
from stemsplit.audio.reading import AudioInfo, Reader, open_reader
from stemsplit.batch.checks import estimate_size, estimate_spool, partition_existing, partition_separable
from stemsplit.batch.events import BatchReport, Done, Planned, Skipped, SongProgress, SongStarted
from stemsplit.batch.inputs import Failed
from stemsplit.batch.manifest import Provenance
from stemsplit.batch.song import separate_track
from stemsplit.batch.standard_input import StandardInput
from stemsplit.batch.tracks import Track, find_tracks
from stemsplit.cli import reporting
from stemsplit.errors import AudioError, ModelError
from stemsplit.models.checkpoint import Model
from stemsplit.separation.outputs import Delivery, Report
from stemsplit.separation.separator import Separator

STEMS = ("vocals", "drums")


def write_song(name: str, *, rate: int = 8_000, channels: int = 2, length: int = 4_000) -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(name, np.zeros((length, channels), np.float32), rate, format="WAV", subtype="PCM_16")
    return Path(name)


def find(*names: str) -> list[Track]:
    found, failed = find_tracks(names, Path("out"))
    assert not failed
    return found


def report(length: int = 16_000) -> Report:
    return Report(8_000, 2, length, 0, ())


# Checks


def test_what_is_checked_knows_its_header(here: Path) -> None:
    write_song("a.wav", rate=44_100, channels=1, length=100)
    ((track,), failed) = partition_separable(find("a.wav"), STEMS, overwrite=False)
    assert not failed
    assert track.info == AudioInfo(44_100, 1, 100)


def test_a_song_that_vanishes(here: Path) -> None:
    write_song("album/a.wav")
    write_song("album/b.wav")
    found = find("album")
    Path("album/a.wav").unlink()
    ready, failed = partition_separable(found, STEMS, overwrite=False)
    assert [track.label for track in ready] == ["album/b.wav"]
    assert [str(failure.error) for failure in failed] == ["there is no file 'album/a.wav'"]


def test_stems_that_are_to_be_replaced_may_exist(here: Path, shares_model: Callable[..., Model]) -> None:
    write_song("a.wav")
    separator = Separator(shares_model(shares=(0.5, 0.5), rate=8_000))
    made = Provenance({"sha256": "1"}, {})
    (track,) = find("a.wav")
    assert isinstance(separate_track(track, STEMS, separator.separate_file, provenance=made), Done)
    _, (failure,) = partition_separable([track], STEMS, overwrite=False)
    assert "exists already" in str(failure.error)
    (again,), _, _ = partition_existing([track], STEMS, Provenance({"sha256": "2"}, {}))
    assert again.why == "made by another model"
    assert len(partition_separable([again], STEMS, overwrite=False)[0]) == 1


def test_formats_that_do_not_have_the_rate_of_a_song(here: Path) -> None:
    write_song("a.wav", rate=2**20)
    found = find("a.wav")
    assert len(partition_separable(found, STEMS, overwrite=False)[0]) == 1
    _, (failure,) = partition_separable(found, STEMS, overwrite=False, delivery=Delivery(Format("flac")))
    assert str(failure.error) == "'a.wav' cannot be separated: FLAC has no sample rate of 1048576 Hz"


def test_every_failure_names_its_song(here: Path, shares_model: Callable[..., Model]) -> None:
    write_song("empty.wav", length=0)
    (track,) = find_tracks(["empty.wav"], Path("out"), extension="mp3")[0]
    result = separate_track(track, STEMS, Separator(shares_model(shares=(0.5, 0.5), rate=8_000)).separate_file)
    assert isinstance(result, Failed)
    told = "'empty.wav' cannot be separated: the song is empty, which MP3 cannot hold"
    assert (str(result.error), result.error.hint) == (told, "choose --format wav or flac")


def test_a_stem_never_replaces_a_song_even_one_that_is_skipped(here: Path) -> None:
    write_song("x/vocals.wav")
    write_song("y/x.wav")
    (x,), _ = find_tracks(["x/vocals.wav"], Path())
    (y,), _ = find_tracks(["y/x.wav"], Path())
    assert y.outputs(["vocals"])["vocals"] == Path("x/vocals.wav")
    for others in ([x], []):
        ready, failed = partition_separable([y], STEMS, overwrite=True, kept=others)
        assert bool(ready) != bool(others)
        assert [str(each.error) for each in failed] == [
            "a stem of 'y/x.wav' would replace the song 'x/vocals.wav'"
        ] * len(others)


def test_a_link_to_a_song_is_not_replaced_either(here: Path) -> None:
    write_song("song.wav")
    Path("x").mkdir()
    Path("x/vocals.wav").symlink_to("../song.wav")
    write_song("x.wav")
    found, _ = find_tracks(["x.wav", "x/vocals.wav"], Path())
    _, (failure,) = partition_separable(found, STEMS, overwrite=True)
    assert "would replace the song 'x/vocals.wav'" in str(failure.error)


def test_songs_can_be_opened_otherwise(here: Path) -> None:
    write_song("a.wav")
    opened: list[Path] = []

    def open_song(path: Path) -> Reader:
        opened.append(path)
        return open_reader(path)

    partition_separable(find("a.wav"), STEMS, overwrite=False, open_song=open_song)
    assert opened == [Path("a.wav")]


@pytest.mark.full
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
    assert len(partition_separable(found, STEMS, overwrite=False)[0]) == 500
    assert len(asked) <= 2 * 500 + 10


# Standard input


def test_standard_input_is_separated(here: Path, shares_model: Callable[..., Model]) -> None:
    content = write_song("song.wav").read_bytes()
    separator = Separator(shares_model(shares=(0.5, 0.5), rate=8_000))
    made = Provenance({"sha256": "1"}, {})
    for expected in (Done, Skipped):
        with StandardInput(io.BytesIO(content)) as stdin:
            found, failed = find_tracks(["-"], Path("out"), stdin=stdin)
            assert not failed
            assert len(partition_existing(found, STEMS, made)[expected is Skipped]) == 1
            result = separate_track(found[0], STEMS, separator.separate_file, provenance=made, skip_existing=True)
        assert isinstance(result, expected)
        assert reporting.result_event(result)["song"] == "-"
    assert soundfile.info("out/stdin/vocals.wav").frames == 4_000


def test_what_comes_from_standard_input_is_called_so(here: Path, shares_model: Callable[..., Model]) -> None:
    with StandardInput(io.BytesIO(b"no music")) as stdin:
        found, _ = find_tracks(["-"], Path("out"), stdin=stdin)
        _, (failure,) = partition_separable(found, STEMS, overwrite=False)
    assert failure.source == "-"
    assert str(failure.error) == "cannot decode standard input: it is damaged, or not audio"
    soundfile.write("nan.wav", np.full((100, 1), np.nan, np.float32), 8_000, subtype="FLOAT")
    with StandardInput(io.BytesIO(Path("nan.wav").read_bytes())) as stdin:
        (track,), _ = find_tracks(["-"], Path("out"), stdin=stdin)
        separator = Separator(shares_model(shares=(0.5, 0.5), rate=8_000))
        result = separate_track(track, STEMS, separator.separate_file)
    assert isinstance(result, Done)
    assert result.report.warnings[0].startswith("standard input has 100 sample(s)")


# Room


def test_how_much_room_stems_take() -> None:
    shapes = [AudioInfo(44_100, 2, 44_100 * 60), AudioInfo(48_000, 1, 48_000)]
    exact = 4 * (44_100 * 60 * 2 * 3 + 48_000 * 3)
    assert exact <= estimate_size(shapes, 4, Format()) <= exact + 2 * 4 * 4_096
    assert estimate_size(shapes, 4, Format("flac")) < exact
    assert estimate_size(shapes[:1], 4, Format("mp3", bitrate=320_000)) == 4 * (40_000 * 60 + 4_096)
    assert estimate_size([AudioInfo(44_100, 2, None)], 4, Format()) == 4 * 4_096


def test_songs_that_wait_for_their_gain_take_room_as_well() -> None:
    shapes = [AudioInfo(44_100, 2, 1_000), AudioInfo(8_000, 1, 1_500), AudioInfo(44_100, 2, None)]
    assert estimate_spool(shapes, 4) == 4 * 4 * 2 * 1_000
    assert estimate_spool([], 4) == 0


def test_the_estimate_is_near_what_is_written(here: Path, shares_model: Callable[..., Model]) -> None:
    rng = np.random.default_rng(0)
    seconds = np.arange(80_000)[:, None] / 8_000
    music = 0.1 * np.sin(2 * np.pi * 220 * seconds) + 0.003 * rng.standard_normal((80_000, 2))
    soundfile.write("a.wav", music, 8_000)
    separator = Separator(shares_model(shares=(0.5, 0.5), rate=8_000))
    (track,) = find("a.wav")
    assert isinstance(separate_track(track, STEMS, separator.separate_file), Done)
    needed = estimate_size([AudioInfo(8_000, 2, 80_000)], 2, Format())
    written = sum(path.stat().st_size for path in track.outputs(STEMS).values())
    assert written <= needed <= written + 2 * 4_096


# What is told


@pytest.fixture
def results(here: Path) -> list[Done | Skipped | Failed]:
    """One song that was separated, one that was skipped, one that failed."""
    for name in ("a.wav", "b.wav"):
        write_song(name)
    tracks, _ = partition_separable(find("a.wav", "b.wav"), STEMS, overwrite=False)
    failed = Failed("c.wav", AudioError("'c.wav' is empty (0 bytes)", "copy it again"))
    first, second = ((track, track.outputs(STEMS)) for track in tracks)
    return [Done(*first, report(16_000), 0.5), Skipped(*second), failed]


def test_what_would_be_done(here: Path) -> None:
    write_song("a.wav", length=8_000 * 65)
    (track,) = partition_separable(find("a.wav"), STEMS, overwrite=False)[0]
    again = Track(track.source, track.output, track.template, track.values, "b.wav", why="made by another model")
    failed = [Failed("c.wav", AudioError("'c.wav' is empty", ""))]
    planned = [Planned(track, {}), Planned(again, {})]
    assert reporting.plan_rows(BatchReport([Skipped(track, {}), *failed], "mini", planned)) == [
        ("a.wav", "1:05 min", "separate", "out/a"),
        ("b.wav", "?", "separate again: made by another model", "out/a"),
        ("a.wav", "", "skip: complete", "out/a"),
        ("c.wav", "", "fail: 'c.wav' is empty", ""),
    ]
    assert len(reporting.PLAN_COLUMNS) == 4


def test_what_was_done(results: list[Done | Skipped | Failed]) -> None:
    assert reporting.result_rows(BatchReport(results, "mini")) == [
        ("done", "1", "2.0 s in 0.5 s, 4.0 x real time"),
        ("skipped", "1", "complete before"),
        ("failed", "1", ""),  # told as the last thing before these rows, so not once more
    ]
    assert reporting.result_rows(BatchReport([*results[2:], results[0]], "mini"))[1:] == [
        ("failed", "1", ""),
        ("", "", "'c.wav' is empty (0 bytes)"),
    ]
    assert reporting.result_rows(BatchReport(results[:1], "mini", wall_seconds=0.25)) == [
        ("done", "1", "2.0 s in 0.2 s, 8.0 x real time")
    ]
    assert reporting.result_rows(BatchReport([], "mini")) == []


def test_objects_for_programs(results: list[Done | Skipped | Failed]) -> None:
    done = results[0]
    assert isinstance(done, Done)
    events = [
        reporting.begin_event(SongStarted(done.track, 1, 3)),
        reporting.progress_event(SongProgress(done.track, 100, None)),
        *(reporting.result_event(result) for result in results),
        reporting.end_event(
            BatchReport(results, "mini", fallback={"instead_of": "htdemucs", "reason": "offline"}, wall_seconds=0.25)
        ),
        reporting.error_event(ModelError("unknown model 'x'", "hint")),
    ]
    assert json.loads(json.dumps(events)) == events
    assert [event.pop("event") for event in events] == "begin progress done skipped failed end error".split()
    assert events[0] == {"song": "a.wav", "number": 1, "of": 3, "rate": 8_000, "length": 4_000}
    assert events[1] == {"song": "a.wav", "done": 100, "length": None}
    assert events[2] == {
        "song": "a.wav",
        "stems": {"vocals": "out/a/vocals.wav", "drums": "out/a/drums.wav"},
        "rate": 8_000,
        "channels": 2,
        "length": 16_000,
        "clipped": 0,
        "peak": 0.0,
        "gain": 1.0,
        "consistent": False,
        "incomplete": False,
        "warnings": [],
        "elapsed_seconds": 0.5,
    }
    assert events[3] == {
        "song": "b.wav",
        "stems": {"vocals": "out/b/vocals.wav", "drums": "out/b/drums.wav"},
        "skipped": True,
        "incomplete": False,
    }
    assert events[4] == {"song": "c.wav", "error": "'c.wav' is empty (0 bytes)", "hint": "copy it again"}
    assert events[5] == {
        "model": "mini",
        "fallback": {"instead_of": "htdemucs", "reason": "offline"},
        "done": 1,
        "skipped": 1,
        "failed": 1,
        "audio_seconds": 2.0,
        "elapsed_seconds": 0.25,
    }
    assert reporting.end_event(BatchReport(results, "mini"))["elapsed_seconds"] == 0.5


def test_the_pace_of_progress() -> None:
    pace = reporting.Throttle(1.0)
    assert [pace.allows(now) for now in (5.0, 5.5, 6.0, 6.9, 9.0, 9.5)] == [True, False, True, False, True, False]
