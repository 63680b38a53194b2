"""Names of places at URLs, and what of them is shown."""

import pickle
from datetime import datetime, timezone
from typing import Any

import pytest

from stemsplit.errors import AudioError
from stemsplit.storage import location
from stemsplit.storage.location import Location, is_url
from stemsplit.storage.redaction import redact


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/album/song.flac", "s3://bucket/album/song.flac"),
        ("s3://KEY:secret@bucket/song.flac", "s3://bucket/song.flac"),
        ("s3://bucket/what?.flac", "s3://bucket/what?.flac"),
        ("https://user:p@ss@host:81/song.wav", "https://host:81/song.wav"),
        ("https://host/song.wav?X-Amz-Signature=abc&x=1", "https://host/song.wav?..."),
        ("https://host/song.wav?abc#part", "https://host/song.wav?..."),
        ("https://host/song.wav#part", "https://host/song.wav"),
        ("az://container/song.wav?sig=abc", "az://container/song.wav?..."),
        ("sftp://me:secret@host/a@b.wav", "sftp://host/a@b.wav"),
    ],
)
def test_secrets_are_not_shown(url: str, shown: str) -> None:
    place = Location(url)
    assert str(place) == shown
    assert not any(secret in f"{place} {place!r}" for secret in ("secret", "p@ss", "abc", "KEY"))
    assert redact(f"404, message='Not Found', url=URL('{url}')").count("secret") == 0


def test_what_libraries_say_is_redacted() -> None:
    text = "403, message='Forbidden', url=URL('https://me:pw@host/a.wav?token=abc'), see http://other/?q"
    assert redact(text) == "403, message='Forbidden', url=URL('https://host/a.wav?...'), see http://other/?..."


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/a%20b/c%20d.wav?x=/y", "c d.wav"),
        ("https://me:pw@host", "host"),
        ("s3://bucket/a b/ü?.wav", "ü?.wav"),
        ("s3://bucket/album/", "album"),
    ],
)
def test_names(url: str, name: str) -> None:
    assert Location(url).name == name


def test_places_below_a_url() -> None:
    folder = Location("s3://bucket/stems/")
    file = folder.joinpath("a", "b").with_name("c.wav")
    assert (str(file), file.name, file.suffix, file.key) == ("s3://bucket/stems/a/c.wav", "c.wav", ".wav", "a/c.wav")
    assert file.parent == folder.joinpath("a")
    assert pickle.loads(pickle.dumps(file)) == file


@pytest.mark.parametrize(
    ("playlist", "entry", "song"),
    [
        (Location("https://host/x/list.m3u?t=1"), "a b.wav", "https://host/x/a%20b.wav"),
        (Location("https://host/x/list.m3u"), "/a.wav", "https://host/a.wav"),
        (Location("s3://bucket/x/list.m3u"), "y/a b.wav", "s3://bucket/x/y/a b.wav"),
        (Location("s3://bucket/x/list.m3u"), "../../../a b.wav", "s3://bucket/a b.wav"),
        (Location("s3://bucket/x/list.m3u"), "/y/a.wav", "s3://bucket/y/a.wav"),
        (Location("s3://bucket/x", ("y", "list.m3u")), "../a.wav", "s3://bucket/x/a.wav"),
        (Location("s3://bucket/x/list.m3u"), "https://host/a.wav", "https://host/a.wav"),
    ],
)
def test_what_a_playlist_names(playlist: Location, entry: str, song: str) -> None:
    assert str(playlist.sibling(entry)) == song


@pytest.mark.parametrize("url", ["https://www.youtube.com/watch?v=x", "http://youtu.be/x", "https://a.bandcamp.com/y"])
def test_sites_that_are_refused(url: str) -> None:
    with pytest.raises(AudioError, match=r"^stemsplit does not download from [\w.]+$") as caught:
        Location.parse(url)
    assert caught.value.hint == "a file that was downloaded from there will do"


def test_a_site_with_a_similar_name_is_not_refused() -> None:
    assert Location.parse("https://notyoutube.com/a.wav").is_web


def test_what_nothing_can_open() -> None:
    with pytest.raises(AudioError, match=r"^nothing is known about nonsense://, as in 'nonsense://x/a.wav'$"):
        Location.parse("nonsense://me:secret@x/a.wav")


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec  # type: ignore[import-untyped]

    def fail(scheme: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", fail)
    with pytest.raises(AudioError, match=r"^s3:// needs a package that is not installed$") as caught:
        Location.parse("s3://bucket/a.wav")
    assert caught.value.hint == "pip install 'stemsplit-audio[s3]'"


@pytest.mark.parametrize(("text", "answer"), [("s3://x", True), ("a.wav", False), ("C:\\a.wav", False), ("a:b", False)])
def test_is_url(text: str, answer: bool) -> None:
    assert is_url(text) == answer


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        (datetime(2026, 1, 1, 0, 0, 0, 999_999, timezone.utc), 1_767_225_600),
        (datetime(2026, 1, 1), 1_767_225_600),
        ("2026-01-01T00:00:00.123Z", 1_767_225_600),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 1_767_225_600),
        (1_767_225_600.9, 1_767_225_600),
        ("yesterday", 0),
        (1e30, 0),
    ],
)
def test_times_are_whole_seconds(moment: Any, seconds: int) -> None:
    assert location._nanoseconds(moment) == seconds * 10**9
