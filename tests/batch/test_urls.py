"""Songs from URLs, stems to URLs, in memory: all that a batch does works there as well."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
from support.program import FILES, write_song
from support.songs import STEMS

from stemsplit.batch import manifest
from stemsplit.batch.events import Skipped
from stemsplit.batch.inputs import find_input_files
from stemsplit.batch.run import separate_batch
from stemsplit.errors import UsageError
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model
from stemsplit.storage.location import Location


@pytest.fixture
def model(here: Path, unet_model: Callable[..., Model]) -> Path:
    """A small model in a file."""
    checkpoint.save(unet_model(rate=8_000), here / "model.safetensors")
    return here / "model.safetensors"


@pytest.fixture
def memory() -> Iterator[Any]:
    """An empty file system in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def album(memory: Any, here: Path) -> Any:
    """Two songs at memory://in/album."""
    content = write_song(here / "song.wav").read_bytes()
    for name in ("a", "b"):
        memory.pipe_file(f"/in/album/{name}.wav", content)
    return memory


def found(memory: Any, folder: str = "/out") -> list[str]:
    """The files at a URL, relative to it."""
    return sorted(name.removeprefix(f"{folder}/") for name in memory.find(folder))


def test_stems_go_where_a_url_says(album: Any, here: Path, model: Path) -> None:
    report = separate_batch("memory://in/", "memory://out/", model=model, device="cpu")
    assert [str(result.error) for result in report.failed] == []
    assert found(album) == [f"album/{name}/{file}" for name in "ab" for file in FILES]
    assert [str(path) for path in report.done[0].outputs.values()] == [
        f"memory://out/album/a/{stem}.wav" for stem in STEMS
    ]
    local = separate_batch(here / "song.wav", "local", model=model, device="cpu").done[0]
    for stem, path in local.outputs.items():
        assert album.cat_file(f"/out/album/a/{stem}.wav") == Path(str(path)).read_bytes()
    table = json.loads(album.cat_file("/out/album/a/stemsplit.json"))
    assert table["runs"][0]["song"]["name"] == "memory://in/album/a.wav"


@pytest.mark.full
def test_what_is_complete_there_is_skipped(album: Any, model: Path) -> None:
    def run(**options: Any) -> list[str]:
        report = separate_batch(
            "memory://in/", "memory://out", model=model, device="cpu", skip_existing=True, **options
        )
        return [type(result).__name__ for result in (*report.results, *report.planned)]

    assert run(dry_run=True) == ["Planned", "Planned"]
    assert found(album) == []
    assert run() == ["Done", "Done"]
    assert run() == ["Skipped", "Skipped"]
    album.rm("/out/album/a/vocals.wav")
    assert run() == ["Skipped", "Done"]
    assert run(dry_run=True) == ["Skipped", "Skipped"]
    content = bytearray(album.cat_file("/in/album/b.wav"))
    content[-1] ^= 1
    album.pipe_file("/in/album/b.wav", bytes(content))
    assert run() == ["Skipped", "Done"]


@pytest.mark.full
def test_stems_that_exist_are_not_replaced(album: Any, model: Path) -> None:
    album.pipe_file("/out/a/vocals.wav", b"mine")
    report = separate_batch("memory://in/album/a.wav", "memory://out", model=model, device="cpu")
    assert [str(result.error) for result in report.failed] == ["'memory://out/a/vocals.wav' exists already"]
    report = separate_batch("memory://in/album/a.wav", "memory://out", model=model, device="cpu", skip_existing=True)
    assert [str(result.error) for result in report.failed] == ["'memory://out/a/vocals.wav' exists already"]
    assert album.cat_file("/out/a/vocals.wav") == b"mine"
    assert len(separate_batch("memory://in/album/a.wav", "memory://out", model=model, overwrite=True).done) == 1


@pytest.mark.full
def test_a_stem_that_was_edited_there_is_not_replaced(album: Any, model: Path) -> None:
    def run(**options: Any) -> list[str]:
        report = separate_batch(
            "memory://in/album/a.wav", "memory://out", model=model, device="cpu", skip_existing=True, **options
        )
        return [str(result.error) for result in report.failed]

    assert run() == []
    content = album.cat_file("/out/a/vocals.wav")
    album.pipe_file("/out/a/vocals.wav", content[:-1] + bytes([content[-1] ^ 1]))
    album.rm("/out/a/bass.wav")
    assert run() == ["'memory://out/a/vocals.wav' was changed after stemsplit wrote it"]


@pytest.mark.full
def test_a_run_that_was_killed_during_uploads_is_made_good(
    album: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> list[str]:
        report = separate_batch("memory://in/album/a.wav", "memory://out", model=model, skip_existing=True)
        return [type(result).__name__ for result in report.results]

    real = Location.unlink
    real_write = manifest.write_manifest

    class Killed(BaseException):
        pass

    def die(path: Any, runs: Any) -> None:
        if isinstance(path, Location):
            raise Killed
        real_write(path, runs)

    monkeypatch.setattr("stemsplit.batch.manifest.write_manifest", die)
    monkeypatch.setattr(Location, "unlink", lambda self: None)  # a process that is killed cleans nothing up
    with pytest.raises(Killed):
        run()
    assert found(album) == sorted([*(f"a/{stem}.wav" for stem in STEMS), "a/stemsplit.pending.json"])
    monkeypatch.setattr("stemsplit.batch.manifest.write_manifest", real_write)
    monkeypatch.setattr(Location, "unlink", real)
    assert run() == ["Done"]
    assert found(album) == [f"a/{file}" for file in FILES]
    assert run() == ["Skipped"]


@pytest.mark.full
def test_an_upload_that_fails_leaves_nothing(album: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = album.put_file

    def fail(path: str, name: str, **options: Any) -> None:
        if "bass" in name:
            raise PermissionError(13, "Access Denied")
        real(path, name, **options)

    monkeypatch.setattr(type(album), "put_file", lambda self, *arguments, **options: fail(*arguments, **options))
    report = separate_batch("memory://in/album/a.wav", "memory://out", model=model, device="cpu")
    assert [str(each.error) for each in report.failed] == [
        "cannot write to 'memory://out/a/bass.wav': permission denied"
    ]
    assert found(album) == []


@pytest.mark.full
def test_only_songs_or_only_stems_at_a_url(album: Any, here: Path, model: Path) -> None:
    report = separate_batch("memory://in/album/a.wav", here / "local", model=model, player=True)
    assert (here / "local/a/stemsplit.json").exists()
    assert (here / "local/a/player.html").exists()
    assert report.done[0].outputs["vocals"] == here / "local/a/vocals.wav"
    report = separate_batch(here / "song.wav", "memory://out", model=model, player=True)
    assert found(album) == sorted(f"song/{file}" for file in (*FILES, "player.html"))
    album.rm("/out/song/player.html")
    report = separate_batch(here / "song.wav", "memory://out", model=model, player=True, skip_existing=True)
    assert isinstance(report.results[0], Skipped)
    assert b"<html" in album.cat_file("/out/song/player.html")


@pytest.mark.full
def test_a_song_that_is_no_song(album: Any, model: Path) -> None:
    album.pipe_file("/in/album/c.wav", b"no music")
    report = separate_batch("memory://in/", "memory://out", model=model, device="cpu", jobs=2)
    (failure,) = report.failed
    assert failure.source == "memory://in/album/c.wav"
    assert "'memory://in/album/c.wav'" in str(failure.error)
    assert "stemsplit-song" not in str(failure.error)
    assert len(report.done) == 2


OUT = Location("memory://out")


def songs(*names: str, output: Any = OUT, **options: Any) -> tuple[list[str], list[str]]:
    """The songs that are found, with their mirrored paths, and the errors."""
    files, failed = find_input_files(names, output, **options)
    return [f"{file.label} {file.relative_path.as_posix()}" for file in files], [str(each.error) for each in failed]


def test_what_is_found(album: Any) -> None:
    for name in ("x/a.wav", "x/notes.txt", "x/.hidden/b.wav", "x/.c.wav", "x//d.wav", "x/../e.wav", "x/ü b/é?.wav"):
        album.store[f"/{name}"] = album.store["/in/album/a.wav"]
    mirrored, failed = songs("memory://x")
    assert mirrored == [
        "memory://x/../e.wav ../e.wav",
        "memory://x//d.wav _/d.wav",
        "memory://x/a.wav a.wav",
        "memory://x/ü b/é?.wav ü b/é?.wav",
    ]
    assert failed == []
    assert songs("memory://in/*/a.wav", "memory://in/album/a.wav") == (["memory://in/album/a.wav a.wav"], [])
    assert songs("memory://in", include=["b.*"])[0] == ["memory://in/album/b.wav album/b.wav"]
    assert songs("memory://in", exclude=["album/b.*"])[0] == ["memory://in/album/a.wav album/a.wav"]
    assert songs("memory://in", include=["c.*"])[1] == [
        "--include and --exclude leave no songs in the folder 'memory://in'"
    ]
    assert songs("memory://nothing")[1] == ["there is no file or folder 'memory://nothing'"]
    assert songs("memory://in/*.flac")[1] == ["no songs match 'memory://in/*.flac'"]
    assert songs("https://me:hunter2@host/folder/")[1] == [
        "'https://host/folder/' is no file, and web servers have no folders"
    ]


def test_no_key_leads_out_of_the_output(album: Any, here: Path, model: Path) -> None:
    album.store["/x/../../e.wav"] = album.store["/in/album/a.wav"]
    (planned,) = separate_batch("memory://x", here / "out", model=model, dry_run=True).planned
    assert str(planned.outputs["vocals"]) == str(here / "out/_/_/e/vocals.wav")


def test_stems_of_earlier_runs_are_no_songs(album: Any, model: Path) -> None:
    stamp = {"size": 1, "mtime_ns": 0, "sha256": ""}
    run = {"model": {}, "settings": {}, "rate": 1, "channels": 1, "length": 1, "song": {"name": "a", **stamp}}
    table = {"manifest": 1, "runs": [{**run, "stems": {"vocals": {"file": "vocals.wav", **stamp}}}]}
    for folder in ("/in/stems/a", "/in/album/a"):
        album.pipe_file(f"{folder}/stemsplit.json", json.dumps(table).encode())
        album.pipe_file(f"{folder}/vocals.wav", b"")
    assert songs("memory://in", output=Location("memory://in/stems"))[0] == [
        "memory://in/album/a.wav album/a.wav",
        "memory://in/album/a/vocals.wav album/a/vocals.wav",
        "memory://in/album/b.wav album/b.wav",
    ]
    assert songs("memory://in/album", output=Location("memory://in"))[0] == [
        "memory://in/album/a.wav a.wav",
        "memory://in/album/b.wav b.wav",
    ]


def test_playlists_name_urls(album: Any, here: Path) -> None:
    lines = "a.wav\nhttps://me:hunter2@host/b.wav?token=hunter2\nfile:///etc/c.wav\n../x/d.wav\nmore.m3u\n"
    album.pipe_file("/in/album/list.m3u", lines.encode())
    mirrored, failed = songs("memory://in/album/list.m3u")
    assert mirrored == [
        "memory://in/album/a.wav a.wav",
        "https://host/b.wav?... b.wav",
        "memory://in/x/d.wav d.wav",
    ]
    assert failed == [
        "'file:///etc/c.wav' in 'memory://in/album/list.m3u' is on another machine",
        "'more.m3u' in 'memory://in/album/list.m3u' is another playlist, which is not followed",
    ]
    (here / "list.m3u").write_text("https://host/b.wav?1\nhttps://host/b.wav?2\nsong.wav\n")
    assert songs(str(here / "list.m3u"))[0] == [
        "https://host/b.wav?... b.wav",
        "https://host/b.wav?... (2) b.wav",
        f"{here}/song.wav song.wav",
    ]
    assert songs((here / "song.wav").as_uri())[0] == [f"{here}/song.wav song.wav"]


def test_a_web_server_takes_no_stems(here: Path, model: Path) -> None:
    with pytest.raises(UsageError, match=r"^web servers take no stems, as 'https://host/x' would have to$"):
        separate_batch("a.wav", "https://me:hunter2@host/x", model=model)
    with pytest.raises(UsageError, match=r"^nothing is known about nonsense://"):
        separate_batch("a.wav", "nonsense://x", model=model)


@pytest.mark.full
def test_tags_of_songs_at_urls_name_their_stems(album: Any, model: Path) -> None:
    (planned,) = separate_batch(
        "memory://in/album/a.wav", "memory://out", model=model, filename="{artist}/{title}/{stem}", dry_run=True
    ).planned
    assert str(planned.outputs["vocals"]) == "memory://out/Unknown artist/a/vocals.wav"
