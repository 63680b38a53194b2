"""Songs and stems in a bucket, by the protocol of S3."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
from support.program import FILES, write_song

from stemsplit.batch.inputs import find_input_files
from stemsplit.batch.run import separate_batch
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model
from stemsplit.storage import requests
from stemsplit.storage.location import Location
from stemsplit.storage.transfer import fetch, upload

pytest.importorskip("s3fs", reason="needs stemsplit-audio[s3]")
support = pytest.importorskip("support.s3_server", reason="needs moto")
STORE = pytest.importorskip("moto.s3.models", reason="needs moto").s3_backends["123456789012"]["aws"]

pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A server, of clients that hardly wait between two tries."""
    with pytest.MonkeyPatch.context() as monkeypatch, support.s3_server(monkeypatch) as faults:
        monkeypatch.setattr(requests, "PAUSES", (0.01, 0.01, 0.01))
        yield faults


@pytest.fixture
def bucket(server: Any) -> Iterator[Any]:
    """An empty bucket."""
    server.answer = lambda method, path: None
    system = fsspec.filesystem("s3", use_listings_cache=False)
    system.retries = 1  # these are the client's own, which are tested elsewhere
    yield system
    server.answer = lambda method, path: None
    STORE.buckets["bucket"].keys.clear()


@pytest.fixture
def model(here: Path, unet_model: Callable[..., Model]) -> Path:
    """A small model in a file."""
    checkpoint.save(unet_model(rate=8_000), here / "model.safetensors")
    return here / "model.safetensors"


def test_a_batch_from_a_bucket_to_a_bucket(bucket: Any, here: Path, model: Path) -> None:
    content = write_song(here / "song.wav").read_bytes()
    for name in ("a b", "ü?", "[live]"):
        bucket.pipe_file(f"bucket/in/x/{name}.wav", content)

    def run(**options: Any) -> list[str]:
        report = separate_batch(
            "s3://bucket/in/", "s3://bucket/out", model=model, device="cpu", skip_existing=True, **options
        )
        assert [str(each.error) for each in report.failed] == []
        return [type(each).__name__ for each in (*report.results, *report.planned)]

    assert run(dry_run=True) == ["Planned"] * 3
    assert run() == ["Done"] * 3
    names = [f"bucket/out/x/{name}/{file}" for name in ("[live]", "a b", "ü?") for file in FILES]
    assert sorted(bucket.find("bucket/out")) == sorted(names)
    assert run() == ["Skipped"] * 3
    bucket.rm("bucket/out/x/a b/bass.wav")
    assert sorted(run()) == ["Done", "Skipped", "Skipped"]
    report = separate_batch("s3://bucket/in/x/[live].wav", "local", model=model, device="cpu")
    assert (here / "local/[live]/stemsplit.json").exists()
    assert len(report.done) == 1


def test_a_bucket_of_five_thousand_songs(bucket: Any, server: Any) -> None:
    for number in range(5_000):  # at once, which takes minutes from outside
        STORE.put_object("bucket", f"many/{number:04}/song.flac", b"")
    server.log.clear()
    songs, failed = find_input_files(["s3://bucket/many"], Location("s3://bucket/out"))
    assert (len(songs), failed) == (5_000, [])
    assert len({song.label for song in songs}) == 5_000
    assert sum("list-type=2" in line for line in server.log) <= 8
    assert len(server.log) <= 12


def test_no_permission(bucket: Any, server: Any, tmp_path: Path) -> None:
    bucket.pipe_file("bucket/a.wav", b"abc")
    server.answer = lambda method, path: ("403 Forbidden", "AccessDenied")
    for action, verb in (
        (lambda: fetch(Location("s3://bucket/a.wav"), tmp_path / "a"), "read"),
        (lambda: upload(write_song(tmp_path / "b"), Location("s3://bucket/b.wav")), "write to"),
    ):
        with pytest.raises(Exception, match=f"^cannot {verb} 's3://bucket/..wav': permission denied$"):
            action()


def test_a_bucket_that_does_not_exist(bucket: Any, tmp_path: Path) -> None:
    _, (failure,) = find_input_files(["s3://other/a.wav"], Location("s3://bucket/out"))
    assert str(failure.error) == "there is no file or folder 's3://other/a.wav'"
    with pytest.raises(Exception, match=r"^cannot write to 's3://other/b.wav': "):
        upload(write_song(tmp_path / "b"), Location("s3://other/b.wav"))


def test_a_busy_server_is_asked_again(bucket: Any, server: Any, tmp_path: Path) -> None:
    bucket.pipe_file("bucket/a.wav", b"abc")
    left = [6]

    def answer(method: str, path: str) -> tuple[str, str] | None:
        left[0] -= 1
        return ("503 Slow Down", "SlowDown") if left[0] >= 0 else None

    server.answer = answer
    fetch(Location("s3://bucket/a.wav"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"abc"
    left[0] = 10**9
    with pytest.raises(Exception, match=r"^cannot read 's3://bucket/a.wav': the server is too busy$"):
        fetch(Location("s3://bucket/a.wav"), tmp_path / "a")


def test_a_song_that_changes_while_it_is_read(bucket: Any, server: Any, tmp_path: Path) -> None:
    bucket.pipe_file("bucket/a.wav", b"old")
    changes = [b"new"]

    def change() -> None:
        if changes:
            STORE.put_object("bucket", "a.wav", changes.pop())

    fetch(Location("s3://bucket/a.wav"), tmp_path / "a", change)
    assert (tmp_path / "a").read_bytes() == b"new"
    changes += [bytes([number]) * 3 for number in range(20)]
    with pytest.raises(Exception, match=r"^cannot read 's3://bucket/a.wav': it is being changed$"):
        fetch(Location("s3://bucket/a.wav"), tmp_path / "a", change)


def test_credentials_are_never_shown(bucket: Any, model: Path) -> None:
    report = separate_batch("s3://AKIAEXAMPLE:hunter2@bucket/a.wav", "out", model=model)
    (failure,) = report.failed
    assert failure.source == "s3://bucket/a.wav"
    assert "hunter2" not in f"{failure.source} {failure.error} {failure.error.hint}"
