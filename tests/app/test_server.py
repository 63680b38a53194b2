"""The app without a browser: songs go in, stems come out, and what is cut, broken or stopped leaves nothing."""

import http.client
import io
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from support.app import Running, registry_of, running, wait_for
from support.hub import point_to
from support.program import files_in
from support.songs import STEMS

from stemsplit.app import server
from stemsplit.app.downloads import Mix, render_mix
from stemsplit.app.queue import PEAKS, look_at
from stemsplit.app.server import bind
from stemsplit.audio.formats import Format
from stemsplit.batch.run import separate_batch
from stemsplit.errors import UsageError
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model
from stemsplit.models.registry import ModelSpec, Registry, WeightFile

pytestmark = pytest.mark.full

RATE = 8_000


def noise(length: int = 2 * RATE, seed: int = 1) -> bytes:
    """A song."""
    file = io.BytesIO()
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, (length, 2))
    soundfile.write(file, samples, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


@pytest.fixture
def registry(tmp_path: Path, unet_model: Callable[..., Model]) -> Registry:
    checkpoint.save(unet_model(rate=RATE), tmp_path / "model.safetensors")
    return registry_of(tmp_path / "model.safetensors")


@pytest.fixture
def app(tmp_path: Path, registry: Registry) -> Iterator[Running]:
    with running(tmp_path / "kept", tmp_path / "out", registry) as app:
        yield app


def test_a_song_becomes_stems_a_player_and_an_archive(app: Running, tmp_path: Path) -> None:
    id = app.upload("My song.wav", noise())
    song = app.wait(id, "done")
    assert song["stems"] == list(STEMS)
    assert song["folder"] == str(tmp_path / "out" / "My song")
    assert song["seconds"] == 2.0
    assert len(song["peaks"]) == 16 and 90 < max(song["peaks"]) <= 99
    names = [f"{stem}.wav" for stem in STEMS]
    expected = sorted(f"My song/{name}" for name in [*names, "player.html", "stemsplit.json"])
    assert files_in(tmp_path / "out") == expected
    stem = app.ask("GET", f"/api/songs/{id}/files/vocals")
    assert stem.body == (tmp_path / "out/My song/vocals.wav").read_bytes()
    assert stem.headers["content-disposition"] == "attachment; filename*=UTF-8''My%20song%20-%20vocals.wav"
    archive = app.ask("GET", f"/api/songs/{id}/zip")
    with zipfile.ZipFile(io.BytesIO(archive.body)) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == names
        assert opened.read("bass.wav") == (tmp_path / "out/My song/bass.wav").read_bytes()
    page = app.ask("GET", f"/api/songs/{id}/player")
    assert page.body == (tmp_path / "out/My song/player.html").read_bytes()
    assert page.headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert not list((tmp_path / "kept/uploads").iterdir()), "the upload has served its purpose"


def test_stems_are_those_of_the_command(app: Running, registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_bytes(noise())
    separate_batch([tmp_path / "song.wav"], tmp_path / "else", model=registry.models["tiny"], device="cpu")
    app.wait(app.upload("song.wav", noise()), "done")
    for stem in STEMS:
        assert (tmp_path / f"out/song/{stem}.wav").read_bytes() == (tmp_path / f"else/song/{stem}.wav").read_bytes()


def test_choices_persist(tmp_path: Path, registry: Registry) -> None:
    with running(tmp_path / "kept", tmp_path / "out", registry) as app:
        chosen = {"model": "tiny", "stems": ["vocals"], "rest": True, "format": "flac", "accepted": False}
        chosen["place"] = "desktop"
        assert app.ask("PATCH", "/api/choices", chosen).status == 204
        song = app.wait(app.upload("a.wav", noise()), "done")
        assert song["stems"] == ["vocals", "no_vocals"]
        assert (tmp_path / "out/elsewhere/a/no_vocals.flac").exists()
    with running(tmp_path / "kept", tmp_path / "out", registry) as app:
        assert app.ask("GET", "/api/state").json()["choices"] == chosen


def test_the_place_of_stems_is_chosen_by_name(tmp_path: Path, registry: Registry) -> None:
    with running(tmp_path / "kept", tmp_path / "out", registry) as app:
        state = app.ask("GET", "/api/state").json()
        places = {place["id"]: place["path"] for place in state["places"]}
        assert places == {"music": str(tmp_path / "out"), "desktop": str(tmp_path / "out/elsewhere")}
        assert state["choices"]["place"] == "music"
        assert app.ask("PATCH", "/api/choices", {"place": "desktop"}).status == 204
        song = app.wait(app.upload("b.wav", noise()), "done")
        assert song["folder"] == str(tmp_path / "out/elsewhere/b")
        assert (tmp_path / "out/elsewhere/b/vocals.wav").exists()
    # The place was offered last time only; and now it is named by the command.
    with running(tmp_path / "kept", tmp_path / "new", registry, places={"other": tmp_path / "new"}) as app:
        assert app.song(song["id"])["status"] == "done"
        assert app.ask("GET", "/api/state").json()["choices"]["place"] == "other"
        assert app.wait(app.upload("b.wav", noise()), "done")["folder"] == str(tmp_path / "new/b")


def test_songs_whose_model_is_gone_are_kept(tmp_path: Path, registry: Registry) -> None:
    with running(tmp_path / "kept", tmp_path / "out", registry) as app:
        id = app.upload("a.wav", b"no sound" * 99)
        wait_for(lambda: app.song(id)["status"] == "failed")
    renamed = Registry({"new": replace(registry.models["tiny"], name="new")}, "new")
    with running(tmp_path / "kept", tmp_path / "out", renamed) as app:
        assert app.song(id)["choices"]["model"] == "new"


@pytest.mark.parametrize(
    "choices",
    [
        {"model": "../model.safetensors"},
        {"model": "hf://owner/name"},
        {"model": 3},
        {"model": ["tiny"]},
        {"model": "tiny", "stems": ["horns"]},
        {"model": "tiny", "stems": "vocals"},
        {"model": "tiny", "format": "exe"},
        {"model": "tiny", "format": ["wav"]},
        {"model": "tiny", "place": "music", "output": "/etc"},
        {"model": "tiny", "place": "/etc"},
        {"model": "tiny", "place": "../music"},
        {"model": "tiny", "place": ["music"]},
        [],
        None,
    ],
)
def test_choices_that_no_page_sends_are_refused(choices: Any, app: Running) -> None:
    before = app.ask("GET", "/api/state").json()["choices"]
    answer = app.ask("PATCH", "/api/choices", b"null" if choices is None else choices)
    assert answer.status == 400
    assert answer.json()["error"]
    assert app.ask("GET", "/api/state").json()["choices"] == before


def test_a_mix_is_what_the_faders_say(app: Running, tmp_path: Path) -> None:
    id = app.upload("song.wav", noise())
    app.wait(id, "done")
    gains = {"vocals": 0.5, "drums": 0, "bass": 1, "other": 1.5}
    answer = app.ask("POST", f"/api/songs/{id}/mix", {"gains": gains})
    assert (answer.status, answer.json()) == (201, {"name": "mix.wav", "clipped": 0})
    stems = {stem: soundfile.read(tmp_path / f"out/song/{stem}.wav", dtype="float32")[0] for stem in STEMS}
    mix, rate = soundfile.read(tmp_path / "out/song/mix.wav", dtype="float32")
    assert rate == RATE
    np.testing.assert_allclose(mix, sum(gains[stem] * stems[stem] for stem in STEMS), atol=2**-23)
    again = app.ask("POST", f"/api/songs/{id}/mix", {"gains": {"bass": 1}})
    assert again.json()["name"] == "mix (2).wav"
    taken = app.ask("GET", f"/api/songs/{id}/files/mix%20(2).wav")
    assert taken.body == (tmp_path / "out/song/mix (2).wav").read_bytes()
    for wrong in ({"vocals": -1}, {"vocals": float("nan")}, {"horns": 1}, {"vocals": "1"}, {"vocals": 0}, [1], 3):
        assert app.ask("POST", f"/api/songs/{id}/mix", {"gains": wrong}).status == 400
    for wrong in (
        {"speed": 9},
        {"speed": "1"},
        {"speed": float("nan")},
        {"semitones": 13},
        {"semitones": 0.5},
        {"x": 1},
    ):
        assert app.ask("POST", f"/api/songs/{id}/mix", {"gains": {"bass": 1}, **wrong}).status == 400
    assert sorted(path.name for path in (tmp_path / "out/song").glob("mix*")) == ["mix (2).wav", "mix.wav"]


def test_a_mix_has_the_speed_and_the_pitch_that_are_heard(tmp_path: Path) -> None:
    time = np.arange(4 * RATE) / RATE
    stems = {"vocals": 440.0, "bass": 110.0}
    for stem, pitch in stems.items():
        soundfile.write(tmp_path / f"{stem}.wav", 0.5 * np.sin(2 * np.pi * pitch * time), RATE, subtype="FLOAT")
    paths = {stem: tmp_path / f"{stem}.wav" for stem in stems}
    mix = Mix({"vocals": 1.0, "bass": 0.25}, speed=0.75, semitones=3)
    path, clipped = render_mix(paths, mix, tmp_path, Format("wav"))
    assert (path.name, clipped) == ("mix 75 % +3.wav", 0)
    heard, rate = soundfile.read(path)
    assert rate == RATE
    assert len(heard) == pytest.approx(len(time) / 0.75, abs=2)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    levels = []
    for pitch in stems.values():
        middle = round(pitch * 2 ** (3 / 12) * len(heard) / RATE)
        near = spectrum[middle - 20 : middle + 21]
        assert np.argmax(near) == pytest.approx(20, abs=2)
        levels.append(near.max())
    assert levels[1] / levels[0] == pytest.approx(0.25, rel=0.3)  # the cuts suit the louder one
    with pytest.raises(UsageError, match="nothing is heard"):
        Mix({"vocals": 0.0})


def test_a_mix_that_is_too_loud_says_so_and_one_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "vocals.wav", np.full(RATE, 0.9), RATE)
    path, clipped = render_mix({"vocals": tmp_path / "vocals.wav"}, Mix({"vocals": 2.0}), tmp_path, Format("wav"))
    assert clipped == RATE
    path.unlink()

    def stop() -> None:
        raise UsageError("stopped", "")

    with pytest.raises(UsageError, match="stopped"):
        render_mix({"vocals": tmp_path / "vocals.wav"}, Mix({"vocals": 1.0}), tmp_path, Format("wav"), check=stop)
    assert files_in(tmp_path) == ["vocals.wav"]


def test_a_broken_file_says_what_the_command_says(app: Running, tmp_path: Path) -> None:
    id = app.upload("broken.mp3", b"no sound at all" * 100)
    with pytest.raises(AssertionError, match="failed"):
        app.wait(id, "done")
    song = app.song(id)
    assert "'broken.mp3'" in song["error"] and str(tmp_path) not in song["error"] + song["hint"]
    assert song["hint"]
    assert not (tmp_path / "out").exists() or not files_in(tmp_path / "out")
    good = app.upload("good.wav", noise())
    app.wait(good, "done")


def test_an_empty_file_is_refused(app: Running) -> None:
    answer = app.ask("PUT", "/api/songs?name=nothing.wav", b"")
    assert answer.status == 507 or answer.status == 400
    assert answer.json()["error"] == "'nothing.wav' is empty (0 bytes)"
    assert app.ask("GET", "/api/state").json()["songs"] == []


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>.wav", "🎸 señal.wav", "../../../evil.wav", "..\\x.wav", ""]
)
def test_names_are_for_people_only(name: str, app: Running, tmp_path: Path) -> None:
    id = app.upload(name, noise(RATE // 4))
    song = app.wait(id, "done")
    assert song["name"] == name
    folders = list((tmp_path / "out").iterdir())
    assert len(folders) == 1 and Path(song["folder"]) == folders[0]
    assert not re.search(r'[<>:"/\\|?*]', folders[0].name)
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "out", "model.safetensors"}


def test_songs_of_one_name_do_not_meet(app: Running, tmp_path: Path) -> None:
    (tmp_path / "out/song").mkdir(parents=True)
    (tmp_path / "out/song/vocals.wav").write_text("mine")
    ids = [app.upload("song.wav", noise(RATE // 4, seed)) for seed in range(2)]
    folders = [Path(app.wait(id, "done")["folder"]).name for id in ids]
    assert folders == ["song (2)", "song (3)"]
    assert (tmp_path / "out/song/vocals.wav").read_text() == "mine"


def test_fifty_songs_at_once(app: Running, tmp_path: Path) -> None:
    names = [f"{number:02}.wav" for number in range(50)]
    ids = [app.upload(name, noise(RATE // 8)) for name in names]
    assert [song["name"] for song in app.ask("GET", "/api/state").json()["songs"]] == names
    for id in ids[3:]:
        assert app.ask("DELETE", f"/api/songs/{id}").status == 204
    for id in ids[:3]:
        app.wait(id, "done")


def test_an_upload_that_is_cut_leaves_nothing(app: Running, tmp_path: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", app.port)
    connection.putrequest("PUT", "/api/songs?name=a.wav")
    for header, value in {**app.headers, "Content-Length": "1000000"}.items():
        connection.putheader(header, value)
    connection.endheaders()
    connection.send(noise())
    wait_for(lambda: any((tmp_path / "kept/uploads").iterdir()))
    connection.close()
    wait_for(lambda: not any((tmp_path / "kept/uploads").iterdir()))
    assert app.ask("GET", "/api/state").json()["songs"] == []


def test_a_full_disk_is_a_sentence(app: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    answer = app.ask("PUT", "/api/songs?name=a.wav", noise())
    assert (answer.status, answer.json()["error"]) == (507, "the disk has no room for this song")
    # Also where no length is stated, and the disk fills up on the way.
    monkeypatch.setattr(server, "ROOM", 0)
    monkeypatch.setattr(server, "_CHECK_EVERY", 1)
    usage.free = -1
    answer = app.ask("PUT", "/api/songs?name=a.wav", noise())
    assert answer.status == 507
    assert not list((tmp_path / "kept/uploads").iterdir())


def test_a_song_is_cancelled_in_the_middle_and_tried_again(app: Running, tmp_path: Path) -> None:
    id = app.upload("long.wav", noise(600 * RATE))
    wait_for(lambda: app.song(id)["phase"] == "separating" and (app.song(id)["done"] or 0) > 0)
    assert app.ask("POST", f"/api/songs/{id}/cancel").status == 204
    app.wait(id, "cancelled")
    assert not (tmp_path / "out").exists() or not files_in(tmp_path / "out/long")
    assert app.ask("POST", f"/api/songs/{id}/retry", {}).status == 204
    wait_for(lambda: (app.song(id)["done"] or 0) > 0)
    assert app.ask("DELETE", f"/api/songs/{id}").status == 204
    wait_for(lambda: not any((tmp_path / "kept/uploads").iterdir()))
    assert app.ask("GET", "/api/state").json()["songs"] == []


def test_a_restart_goes_on(tmp_path: Path, registry: Registry) -> None:
    with running(tmp_path / "kept", tmp_path / "out", registry) as app:
        done = app.upload("first.wav", noise(RATE // 4))
        app.wait(done, "done")
        long = app.upload("long.wav", noise(60 * RATE))
        later = app.upload("later.wav", noise(RATE // 4))
        wait_for(lambda: app.song(long)["phase"] == "separating")
    assert not files_in(tmp_path / "out/long") if (tmp_path / "out/long").exists() else True
    (tmp_path / "kept/uploads/lost").mkdir()  # an upload that was cut by a crash
    with running(tmp_path / "kept", tmp_path / "out", registry) as app:
        assert app.song(done)["status"] == "done"
        app.wait(later, "done")
        assert Path(app.wait(long, "done")["folder"]).name == "long"
        assert not (tmp_path / "kept/uploads/lost").exists()


def test_what_cannot_be_read_of_the_queue_does_not_keep_it_from_starting(tmp_path: Path, registry: Registry) -> None:
    for text in ("", "[]", '{"songs": 3}', '{"songs": [{"id": "x"}], "choices": {"model": "tiny"}}'):
        (tmp_path / "kept").mkdir(exist_ok=True)
        (tmp_path / "kept/queue.json").write_text(text)
        with running(tmp_path / "kept", tmp_path / "out", registry) as app:
            assert app.ask("GET", "/api/state").json()["songs"] == []


def test_two_pages_see_the_same(app: Running) -> None:
    with app.events() as one, app.events() as other:
        assert one()["state"]["songs"] == other()["state"]["songs"] == []
        id = app.upload("a.wav", noise(RATE // 4))
        for page in (one, other):
            while (change := page()).get("song", {}).get("status") != "done":
                assert change["song"]["id"] == id
        app.ask("DELETE", f"/api/songs/{id}")
        assert one() == other() == {"removed": id}
    with app.events() as again:  # after a laptop has slept, say
        assert again()["state"]["songs"] == []


def test_another_model_is_offered_and_not_taken(
    tmp_path: Path, registry: Registry, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to("http://127.0.0.1:9", monkeypatch)
    remote = ModelSpec(
        name="remote",
        summary="",
        license="",
        family="unet",
        stems=STEMS,
        repo="owner/name",
        revision="0" * 40,
        files=(WeightFile("model.safetensors", 84_000_000),),
    )
    mini = registry.models["tiny"]
    both = Registry({"remote": remote, "mini": mini}, "remote")
    with running(tmp_path / "kept", tmp_path / "out", both) as app:
        state = app.ask("GET", "/api/state").json()
        assert [(model["here"], model["size"]) for model in state["models"]] == [(False, 84_000_000), (True, 0)]
        id = app.upload("a.wav", noise(RATE // 4))
        with pytest.raises(AssertionError, match="failed"):
            app.wait(id, "done")
        song = app.song(id)
        assert (song["offer"], song["stems"]) == ("mini", [])
        assert "'remote'" in song["error"]
        assert app.ask("POST", f"/api/songs/{id}/retry", {"model": "mini"}).status == 204
        assert app.wait(id, "done")["choices"]["model"] == "mini"
        assert app.ask("GET", "/api/state").json()["choices"]["model"] == "remote"


def test_a_port_that_is_taken() -> None:
    with bind("127.0.0.1", None, default=0) as taken:
        port = taken.getsockname()[1]
        with bind("127.0.0.1", None, default=port) as other:
            assert other.getsockname()[1] != port
        with pytest.raises(UsageError, match=f"cannot listen at 127.0.0.1, port {port}: address already in use"):
            bind("127.0.0.1", port, default=1)


def test_a_look_at_a_song(tmp_path: Path) -> None:
    samples = np.zeros((RATE * 60, 1), np.float32)
    samples[RATE * 30 :] = 0.5
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    seconds, peaks = look_at(tmp_path / "a.wav")
    assert seconds == 60
    assert len(peaks) == PEAKS
    assert peaks[: PEAKS // 2 - 1] == (0,) * (PEAKS // 2 - 1) and peaks[PEAKS // 2 + 1 :] == (99,) * (PEAKS // 2 - 1)
