"""Songs at web servers, good and bad ones."""

import os
import shutil
import tempfile
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.web_server import WebServer, web_server

from stemsplit import signals
from stemsplit.errors import AudioError
from stemsplit.storage import location, requests, transfer
from stemsplit.storage.location import Location
from stemsplit.storage.transfer import fetch, local_song, temporary_folder

CONTENT = os.urandom(300_000)
SECRETS = "me:hunter1@", "?token=hunter2"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A server, of clients that hardly wait between two tries."""
    monkeypatch.setattr(requests, "PAUSES", (0.01, 0.01, 0.01))
    with web_server(CONTENT) as server:
        yield server


def song(server: WebServer, path: str) -> Location:
    """A song with secrets in its URL."""
    return Location.parse(f"{server.url.replace('://', '://' + SECRETS[0])}/{path}{SECRETS[1]}")


@pytest.mark.full
@pytest.mark.parametrize("way", ["plain", "ranges", "moved", "busy", "cut-once", "unknown", "no-head"])
def test_what_arrives(server: WebServer, tmp_path: Path, way: str) -> None:
    fetch(song(server, f"{way}/song.wav"), tmp_path / "song")
    assert (tmp_path / "song").read_bytes() == CONTENT
    assert (tmp_path / "song").stat().st_mtime_ns == (784_111_777 * 10**9 if way == "ranges" else 0)


@pytest.mark.full
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("403/song.wav", "permission denied"),
        ("401/song.wav", "permission denied"),
        ("503/song.wav", "the server is too busy"),
        ("410/song.wav", "the server answers with the HTTP status 410"),
        ("says-less/song.wav", "300000 bytes arrived, and 150000 were announced"),
    ],
)
def test_what_fails(server: WebServer, tmp_path: Path, path: str, reason: str) -> None:
    with pytest.raises(AudioError) as caught:
        fetch(song(server, path), tmp_path / "song")
    assert str(caught.value) == f"cannot read '{server.url}/{path}?...': {reason}"
    assert caught.value.hint
    assert caught.value.__cause__ is None


@pytest.mark.full
def test_a_connection_that_is_cut_again_and_again(server: WebServer, tmp_path: Path) -> None:
    with pytest.raises(AudioError) as caught:
        fetch(song(server, "cut/song.wav"), tmp_path / "song")
    assert str(caught.value).startswith(f"cannot read '{server.url}/cut/song.wav?...': the connection fails: ")
    assert "hunter" not in str(caught.value)
    assert server.requests["GET /cut/song.wav"] == 4


@pytest.mark.full
def test_a_file_that_does_not_exist_is_asked_for_once(server: WebServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        fetch(song(server, "404/song.wav"), tmp_path / "song")
    assert caught.value.filename == f"{server.url}/404/song.wav?..."
    assert server.requests["HEAD /404/song.wav"] == 1


@pytest.mark.full
def test_a_server_that_says_nothing(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(requests, "PAUSES", ())
    with pytest.raises(AudioError, match=r"the server does not answer in time$"):
        fetch(song(server, "silent/song.wav"), tmp_path / "song")


@pytest.mark.full
def test_a_station_that_never_ends(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "LARGEST_UNKNOWN", 1_000)
    with pytest.raises(AudioError, match=r"unknown/song.wav\?...' does not end$"):
        fetch(song(server, "unknown/song.wav"), tmp_path / "song")


@pytest.mark.full
def test_a_full_disk(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**6, 10**6, 10**5))
    with pytest.raises(
        AudioError, match=r"has 0.3 MB, and the folder for temporary files has room for 0.1 MB$"
    ) as caught:
        fetch(song(server, "plain/song.wav"), tmp_path / "song")
    assert "TMPDIR" in caught.value.hint


@pytest.mark.full
def test_a_transfer_can_be_stopped(server: WebServer, tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), temporary_folder() as folder:
        fetch(song(server, "plain/song.wav"), folder / "song", stop)
    assert not folder.exists()


@pytest.mark.full
def test_a_copy_is_deleted(server: WebServer) -> None:
    with local_song(song(server, "plain/song.wav")) as path:
        assert path.suffix == ".wav"
        assert path.read_bytes() == CONTENT
    assert not path.exists()


def test_a_file_of_this_machine_is_not_copied(tmp_path: Path) -> None:
    with local_song(tmp_path / "song.wav") as path:
        assert path == tmp_path / "song.wav"


def test_folders_of_killed_processes_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, age in (("old", 4_000), ("new", 0)):
        path = tmp_path / f"stemsplit-song-{name}" / "stems" / "vocals.wav.part"
        path.parent.mkdir(parents=True)
        path.touch()
        for each in (path, *path.parents[:2]):
            os.utime(each, (each.stat().st_atime, each.stat().st_mtime - age))
    with temporary_folder():
        assert sorted(path.name for path in tmp_path.glob("*-???")) == ["stemsplit-song-new"]


@pytest.mark.full
def test_nobody_waits_for_a_pause_after_the_program_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(BaseException):
        pass

    def check() -> None:
        raise Stop

    monkeypatch.setattr(signals, "check", check)

    def fail() -> Any:
        raise TimeoutError

    timer = threading.Timer(20, os._exit, (1,))
    timer.start()
    with pytest.raises(Stop):
        requests.attempt(fail, Location("https://host/a.wav"), "read")
    timer.cancel()


def test_no_temporary_folder_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with (
        pytest.raises(AudioError, match=r"^a song or a stem at a URL needs a folder for temporary files"),
        temporary_folder(),
    ):
        pass
