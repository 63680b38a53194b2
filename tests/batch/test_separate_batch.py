"""`separate_batch`, as a program in Python uses it."""

import importlib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from support.program import FILES, NAMES, Run, files_in, imported_by, write_song
from support.songs import STEMS

import stemsplit
from stemsplit.audio.reading import open_reader
from stemsplit.batch.events import Done, Event, PageProgress, Planned, Skipped, SongProgress, SongStarted, TracksFound
from stemsplit.batch.inputs import Failed
from stemsplit.batch.run import separate_batch
from stemsplit.errors import UsageError
from stemsplit.files import beside
from stemsplit.models import checkpoint, headers
from stemsplit.models.checkpoint import Model
from stemsplit.models.registry import Registry
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.outputs import Delivery


@pytest.fixture
def model(here: Path, unet_model: Callable[..., Model]) -> Path:
    """A small model in a file."""
    checkpoint.save(unet_model(rate=8_000), here / "model.safetensors")
    return here / "model.safetensors"


UNFORESEEN = [
    (IndexError("tuple index out of range"), "IndexError: tuple index out of range"),
    (KeyError(), "KeyError"),
    (OSError(5, "Input/output error"), "Input/output error"),
    (MemoryError(), "there is too little memory"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "there is too little memory"),
]


@pytest.mark.parametrize(("error", "reason"), UNFORESEEN, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize(
    "where",
    [
        "stemsplit.batch.manifest.check_stems",
        "stemsplit.batch.checks.Rows",
        "stemsplit.separation.separator.write_stems",
        "stemsplit.batch.song.write_player",
    ],
)
def test_no_error_of_one_song_ends_the_batch(
    here: Path, model: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception, reason: str
) -> None:
    write_song(here / "in/a.wav")
    write_song(here / "in/b.wav")
    module, _, name = where.rpartition(".")
    owner = importlib.import_module(module)
    real, calls = getattr(owner, name), []

    def fail_once(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, fail_once)
    report = separate_batch("in", "out", model=model, device="cpu", player=True, skip_existing=True)
    (failure,) = report.failed
    assert failure.source == "in/a.wav"
    assert str(failure.error) == f"'in/a.wav' cannot be separated: {reason}"
    assert failure.error.hint
    assert [done.track.label for done in report.done] == ["in/b.wav"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_the_caller_is_no_failure_of_a_song(here: Path, model: Path, jobs: int) -> None:
    write_song(here / "in/a.wav")
    write_song(here / "in/b.wav")

    def fail(event: Event) -> None:
        if isinstance(event, SongProgress):
            raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller"):
        separate_batch("in", "out", model=model, device="cpu", jobs=jobs, on_event=fail)


def kinds(events: list[Event]) -> list[str]:
    """The names of events, without progress."""
    return [type(event).__name__ for event in events if not isinstance(event, SongProgress)]


def test_songs_become_stems_and_events(here: Path, model: Path) -> None:
    write_song(here / "in/a.wav")
    write_song(here / "in/b.wav")
    (here / "in/c.mp3").write_text("no music")
    events: list[Event] = []
    report = separate_batch("in", "out", model=model, device="cpu", on_event=events.append)
    assert kinds(events) == [
        "TracksFound",
        "Failed",
        "ModelLoading",
        "SeparationStarted",
        *("SongStarted", "Done") * 2,
    ]
    assert [each for each in events if isinstance(each, (Done, Failed))] == report.results
    assert [each.track.label for each in report.done] == ["in/a.wav", "in/b.wav"]
    assert report.done[0].outputs == {stem: Path(f"out/a/{stem}.wav") for stem in STEMS}
    assert (report.model, report.fallback, report.audio_seconds) == (str(model), None, 1.0)
    assert "c.mp3" in str(report.failed[0].error)
    assert files_in(here / "out") == [f"{song}/{name}" for song in "ab" for name in FILES]


def test_a_page_is_reported_and_has_the_title_of_the_song(here: Path, model: Path) -> None:
    with soundfile.SoundFile(here / "01.flac", "w", 8_000, 2) as file:
        file.title, file.artist = "Title", "Artist"
        file.write(np.random.default_rng(0).uniform(-0.3, 0.3, (4_000, 2)))
    write_song(here / "02.wav")
    events: list[Event] = []
    separate_batch(["01.flac", "02.wav"], model=model, player=True, device="cpu", on_event=events.append)
    pages = [event for event in events if isinstance(event, PageProgress)]
    assert [(page.track.label, page.done, page.total) for page in pages] == [
        ("01.flac", 4_000, 4_000),
        ("02.wav", 4_000, 4_000),
    ]
    assert kinds(events)[-2:] == ["PageProgress", "Done"]
    titles = [re.search("<title>(.*)</title>", Path(str(page.track.player_page)).read_text("utf-8")) for page in pages]
    assert [title and title[1] for title in titles] == ["Artist \u2013 Title", "02"]


def test_what_is_complete_is_skipped(here: Path, model: Path) -> None:
    song = write_song(here / "a.wav")
    for expected in (Done, Skipped):
        (result,) = separate_batch([song], "out", model=model, device="cpu", skip_existing=True).results
        assert isinstance(result, expected)
    options = SeparationOptions(overlap=0.5)
    plan = separate_batch([song], "out", model=model, options=options, skip_existing=True, dry_run=True)
    assert [planned.track.why for planned in plan.planned] == ["made with another overlap"]


def test_a_dry_run_is_data(here: Path, model: Path) -> None:
    write_song(here / "a.wav")
    before = files_in(here)
    events: list[Event] = []
    report = separate_batch(
        ["a.wav"], model=model, stems=["bass"], complement=True, dry_run=True, on_event=events.append
    )
    (planned,) = report.planned
    assert planned.outputs == {name: Path(f"separated/a/{name}.wav") for name in ("bass", "no_bass")}
    assert planned.track.seconds == 0.5
    assert [type(event) for event in events] == [TracksFound, Planned]
    assert (report.results, files_in(here)) == ([], before)


@pytest.mark.full
def test_several_songs_at_a_time(here: Path, model: Path) -> None:
    for number in range(4):
        write_song(here / f"in/{number}.wav")
    events: list[Event] = []
    report = separate_batch("in", "out", model=model, device="cpu", jobs=3, on_event=events.append)
    assert len(report.done) == 4
    assert report.wall_seconds is not None
    assert sorted(each.number for each in events if isinstance(each, SongStarted)) == [1, 2, 3, 4]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_callback_can_stop_it(here: Path, model: Path, jobs: int) -> None:
    for name in ("a", "b", "c"):
        write_song(here / f"{name}.wav", length=40_000)

    def stop(event: Event) -> None:
        if isinstance(event, SongProgress):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separate_batch(["a.wav", "b.wav", "c.wav"], "out", model=model, device="cpu", jobs=jobs, on_event=stop)
    assert not (here / "out").exists()


def test_the_rate_of_the_model(here: Path, model: Path) -> None:
    write_song(here / "a.wav", rate=16_000)
    (result,) = separate_batch("a.wav", model=model, delivery=Delivery(rate="model"), manifests=False).done
    assert result.report.rate == 8_000
    assert files_in(here / "separated/a") == sorted(NAMES)


@pytest.mark.parametrize("arguments", [{"jobs": 0}, {"audio_stream": 0}, {"complement": True}, {"stems": ["piano"]}])
def test_arguments_that_make_no_sense(here: Path, model: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        separate_batch("a.wav", model=model, **arguments)


@pytest.mark.full
def test_what_it_does_is_logged(
    here: Path, model: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    write_song(here / "a.wav")
    separate_batch("a.wav", model=model, device="cpu")
    assert (caplog.messages, capfd.readouterr()) == ([], ("", ""))
    with caplog.at_level(logging.INFO, "stemsplit"):
        separate_batch("a.wav", model=model, device="cpu", overwrite=True)
    assert caplog.messages[0] == f"model {model}: {model}"
    assert caplog.messages[1].startswith("1 network on cpu, precision full, windows of 0.51 s")
    assert caplog.messages[2] == "a.wav: 8000 Hz, stereo, 0.5 s"


@pytest.mark.full
def test_neither_terminal_nor_command_line_is_needed(here: Path) -> None:
    assert not imported_by("from stemsplit import separate_batch") & {"typer", "click", "rich", "torch"}
    assert stemsplit.separate_batch is separate_batch


@pytest.mark.full
def test_a_run_looks_things_up_once(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a model, and the header of its file; that of a song once to check it, once to separate it."""
    write_song(here / "a.wav")
    write_song(here / "b.wav")
    count: dict[str, int] = {}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            count[name] = count.get(name, 0) + 1
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(Registry, "find", counted("model", Registry.find))
    monkeypatch.setattr(headers, "read_header", counted("header", headers.read_header))
    monkeypatch.setattr("stemsplit.batch.song.open_reader", counted("song", open_reader))
    assert run("a.wav", "b.wav").code == 0
    assert count == {"model": 1, "header": 1, "song": 4}


def test_what_a_killed_run_has_left_is_swept_beside_complete_songs(here: Path, model: Path) -> None:
    for name in ("a", "b"):
        write_song(here / f"in/{name}.wav")
    separate_batch("in/a.wav", "out", model=model, device="cpu")
    (here / "out/b").mkdir()
    running = [beside(here / f"out/{name}") for name in ("a/vocals.wav", "a/stemsplit.json", "b/bass.wav")]
    # As of a process that had the number of this one before.
    killed = [path.with_name(path.name.replace(f".{os.getpid()}-", f".{os.getpid()}-f")) for path in running]
    for path in (*running, *killed):
        path.touch()
    separate_batch("in", "out", model=model, device="cpu", skip_existing=True, dry_run=True)
    assert all(path.exists() for path in (*running, *killed))
    report = separate_batch("in", "out", model=model, device="cpu", skip_existing=True)
    assert [type(result) for result in report.results] == [Skipped, Done]
    assert all(path.exists() for path in running)
    assert not any(path.exists() for path in killed)
