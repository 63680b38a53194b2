"""Batches on a cluster of two nodes: the same stems as on one machine, whatever dies meanwhile."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from support.program import FILES, Outcome, Run, files_in, start, wait_for, write_song
from support.ray_cluster import Machines, machines
from support.web_server import web_server

from stemsplit.batch import cluster
from stemsplit.batch.cluster import ClusterOptions
from stemsplit.batch.events import Event, SongStarted
from stemsplit.batch.run import separate_batch
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model

pytestmark = pytest.mark.full

LONG = 8_000 * 50  # samples of a song that takes a while


@pytest.fixture(scope="module")
def nodes() -> Iterator[Machines]:
    """A cluster."""
    with machines() as running:
        yield running


@pytest.fixture
def model(here: Path, unet_model: Callable[..., Model]) -> Path:
    """A small model in a file."""
    checkpoint.save(unet_model(rate=8_000), here / "model.safetensors")
    return here / "model.safetensors"


def stems_in(folder: Path) -> dict[str, bytes]:
    """The content of all stems."""
    return {name: (folder / name).read_bytes() for name in files_in(folder) if name.endswith(".wav")}


def events(outcome: Outcome) -> list[tuple[str, str]]:
    """What the JSON of a run says of each song."""
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    return sorted((line["event"], line["song"]) for line in lines if line["event"] in ("done", "skipped", "failed"))


def test_stems_are_those_of_one_machine(run: Run, here: Path, nodes: Machines) -> None:
    for number, name in enumerate(["a", "b", "below/c", "d"]):
        write_song(here / f"in/{name}.wav", length=4_000 + 1_000 * number)
    (here / "in/e.wav").write_text("no music")
    with web_server((here / "in/a.wav").read_bytes()) as server:
        songs = ["in", f"{server.url}/plain/web.wav"]
        assert run(*songs, "-o", "alone").code == 1
        on_cluster = ("--cluster", nodes.address, "--cpus-per-worker", "1", "--json")
        first = run(*songs, "-o", "out", *on_cluster)
        again = run(*songs, "-o", "out", *on_cluster, "--skip-existing")
    songs = ["in/a.wav", "in/b.wav", "in/below/c.wav", "in/d.wav", f"{server.url}/plain/web.wav"]
    assert first.code == again.code == 1  # of the song that is none
    assert events(first) == sorted([("failed", "in/e.wav"), *(("done", song) for song in songs)])
    assert events(again) == sorted([("failed", "in/e.wav"), *(("skipped", song) for song in songs)])
    assert '"vocals": "out/a/vocals.wav"' in first.out  # as the user typed it, though workers are elsewhere
    assert re.search(r"^done +5  3.2 s in ", first.err, re.MULTILINE)
    assert files_in(here / "out") == files_in(here / "alone")
    assert stems_in(here / "out") == stems_in(here / "alone")


def test_a_song_is_tried_again_when_its_worker_dies_but_not_for_ever(here: Path, model: Path, nodes: Machines) -> None:
    kills = {"in/a.wav": 3, "in/b.wav": 1, "in/c.wav": 0}
    for label in kills:
        write_song(here / label, length=LONG)
    begun: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, SongStarted):
            label = event.track.label
            begun.append(label)
            if begun.count(label) <= kills[label]:
                stems = here / "out" / Path(label).stem
                Thread(target=nodes.kill_busy_worker, args=[stems], daemon=True).start()

    options = ClusterOptions(address=nodes.address, cpus_per_worker=1, workers=1)
    report = separate_batch("in", "out", model=model, device="cpu", cluster=options, on_event=on_event)
    assert begun == [*["in/a.wav"] * 3, *["in/b.wav"] * 2, "in/c.wav"]
    (failure,) = report.failed
    assert failure.source == "in/a.wav"
    assert str(failure.error) == "'in/a.wav' cannot be separated: 3 workers died while they tried"
    assert [result.track.label for result in report.done] == ["in/b.wav", "in/c.wav"]
    assert [name for name in files_in(here / "out") if not name.startswith("a/")] == [
        f"{song}/{name}" for song in "bc" for name in FILES
    ]


def test_a_node_that_dies(here: Path, model: Path, nodes: Machines) -> None:
    for name in "abcdef":
        write_song(here / f"in/{name}.wav", length=LONG // 8)
    node, running = nodes.add(), []

    def on_event(event: Event) -> None:
        if isinstance(event, SongStarted):
            running.append(event.track.label)
            if len(running) == 3:  # one song on each node
                nodes.kill(node)

    options = ClusterOptions(address=nodes.address, cpus_per_worker=1)
    report = separate_batch("in", "out", model=model, device="cpu", cluster=options, on_event=on_event)
    assert not report.failed
    assert len(report.done) == 6
    assert files_in(here / "out") == [f"{song}/{name}" for song in "abcdef" for name in FILES]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_batch_that_is_stopped_goes_on_later(run: Run, here: Path, nodes: Machines, number: int) -> None:
    for name in "abcd":
        write_song(here / f"in/{name}.wav", length=4_000 if name in "ab" else LONG)
    arguments = ["in", "-o", "out", "-m", "model.safetensors", "--cluster", nodes.address, "--cpus-per-worker", "1"]
    process = start(*arguments)
    wait_for(lambda: any((here / "out").glob("[cd]/*.part")), process)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert err.splitlines()[-2:] == [
            "stemsplit: stopped by SIGINT",
            "hint: the same command with --skip-existing goes on with the songs that are left",
        ]
        assert not list((here / "out").rglob("*.part"))
        assert not list((here / "out").rglob("*pending*"))
    outcome = run(*arguments, "-j", "1", "--skip-existing", "--json", model=False)
    assert outcome.code == 0
    assert ("skipped", "in/a.wav") in events(outcome)
    assert ("done", "in/d.wav") in events(outcome)
    assert run("in", "-o", "alone").code == 0
    assert files_in(here / "out") == files_in(here / "alone")
    assert stems_in(here / "out") == stems_in(here / "alone")


def test_workers_of_another_version_are_refused(
    run: Run, here: Path, nodes: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_song(here / "a.wav")
    monkeypatch.setattr(cluster, "__version__", "99.0")
    outcome = run("a.wav", "--cluster", nodes.address, "--cpus-per-worker", "1")
    assert outcome.code == 2
    assert "no worker of the cluster can separate songs" in outcome.err
    assert "is installed there, and 99.0 here" in outcome.err
    assert "hint: install the same version on all machines of the cluster" in outcome.err
    assert not (here / "separated").exists()


def test_the_processes_of_this_machine(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))  # where Ray keeps a token
    write_song(here / "a.wav")
    process = start("a.wav", "-m", str(model), "--cluster", "local", "--cpus-per-worker", "1")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.splitlines() == [f"separated/a/{name}" for name in ("vocals.wav", "drums.wav", "bass.wav", "other.wav")]
    assert files_in(here / "separated") == [f"a/{name}" for name in FILES]
