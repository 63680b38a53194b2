"""Which songs are found: in folders, by patterns, in playlists, and on standard input."""

import io
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stemsplit.batch import inputs, playlists
from stemsplit.batch.standard_input import StandardInput
from stemsplit.errors import AudioError, UsageError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def search(*names: str, output: str = "separated", **options: Any) -> dict[str, str]:
    """Songs and their places, where all is well."""
    songs, failed = inputs.find_input_files(names, Path(output), **options)
    assert not failed, [str(failure.error) for failure in failed]
    assert [song.label for song in songs] == [str(song.path) for song in songs]
    return {song.label: song.relative_path.as_posix() for song in songs}


def refusals(*names: str, **options: Any) -> list[tuple[str, str]]:
    """Inputs that stand for nothing, and why."""
    songs, failed = inputs.find_input_files(names, Path("separated"), **options)
    assert not songs
    assert all(failure.error.hint for failure in failed)
    return [(failure.source, str(failure.error)) for failure in failed]


# Folders

ALBUM = ("cd 1/a.mp3", "cd 1/b.FLAC", "cd 2/live/c.mp3", "cd 2/Ärger.mp3", "d.wav")


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        ([], [], "a b Ärger c d"),
        (["*.mp3"], [], "a Ärger c"),
        (["*.flac"], [], "b"),
        (["*.mp3", "*.FLAC"], [], "a b Ärger c"),
        ([], ["*.mp3"], "b d"),
        (["*.mp3"], ["c.*"], "a Ärger"),
        (["a.mp3"], ["a.mp3", "nothing"], ""),
        (["cd 1/*"], [], "a b"),
        (["cd 1"], [], "a b"),
        (["CD 1/"], [], "a b"),
        (["*/*.mp3"], [], "a Ärger"),
        (["**/*.mp3"], [], "a Ärger c"),
        (["**/live/**"], [], "c"),
        (["/d.wav"], [], "d"),
        (["/*.mp3"], [], ""),
        (["./cd 2/live/c.mp3"], [], "c"),
        ([], ["live"], "a b Ärger d"),
        ([], ["cd ?/*"], "d"),
        ([], ["**"], ""),
        (["[ab].*"], [], "a b"),
        (["[!ab].*"], [], "c d"),
        ([unicodedata.normalize("NFD", "ärger*")], [], "Ärger"),
    ],
)
def test_patterns_choose_songs(here: Path, include: list[str], exclude: list[str], found: str) -> None:
    touch(here / "album", *ALBUM)
    if not found:
        (refusal,) = refusals("album", include=include, exclude=exclude)
        assert refusal[1] == "--include and --exclude leave no songs in the folder 'album'"
        return
    names = [Path(place).stem for place in search("album", include=include, exclude=exclude).values()]
    assert sorted(names) == sorted(found.split())


@pytest.mark.parametrize("pattern", ["", "/", "./"])
def test_a_pattern_for_nothing(here: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="matches nothing"):
        inputs.find_input_files(["."], Path("out"), include=[pattern])


def test_patterns_are_not_for_files_that_are_named(here: Path) -> None:
    touch(here, "a.wav")
    assert search("a.wav", exclude=["*.wav"]) == {"a.wav": "a.wav"}


def test_folders_are_searched_in_order(here: Path) -> None:
    touch(here / "album", *ALBUM, "cover.jpg", ".hidden.wav", ".cache/x.wav")
    assert list(search("album").values()) == ["d.wav", "cd 1/a.mp3", "cd 1/b.FLAC", "cd 2/Ärger.mp3", "cd 2/live/c.mp3"]
    assert list(search("album/cd 1", "album/d.wav")) == ["album/cd 1/a.mp3", "album/cd 1/b.FLAC", "album/d.wav"]


def test_a_folder_within_another_is_not_found_twice(here: Path) -> None:
    touch(here / "album", *ALBUM)
    assert search("album", "album/cd 1", "album/cd 2/live/c.mp3") == search("album")


def test_links_to_folders_are_followed_once(here: Path) -> None:
    touch(here / "album", "z/a.wav", "z/live/b.wav")
    touch(here / "other", "c.wav", "cd/d.wav")
    for name, target in {
        "album/1": "z",  # found where it really is
        "album/2": "../other/cd",
        "album/3": "../other",
        "album/z/other": "../../other",
        "other/cd/back": "../../album",
        "other/cd/self": ".",
        "other/nowhere": "gone",
    }.items():
        (here / name).symlink_to(target)
    assert list(search("album").values()) == ["z/a.wav", "z/live/b.wav", "2/d.wav", "3/c.wav"]
    assert list(search("album", exclude=["2"]).values()) == ["z/a.wav", "z/live/b.wav", "3/c.wav", "3/cd/d.wav"]
    assert list(search("album", include=["3"]).values()) == ["3/c.wav", "3/cd/d.wav"]
    assert list(search("album", "other").values()) == ["z/a.wav", "z/live/b.wav", "2/d.wav", "3/c.wav"]
    assert list(search("album/**/*.wav")) == [f"album/{name}" for name in search("album").values()]


def test_links_that_lead_to_stems_are_not_followed(here: Path) -> None:
    touch(here / "album", "a.wav")
    touch(here / "out", "a/vocals.wav")
    (here / "album/stems").symlink_to(here / "out")
    (here / "album/vocals").symlink_to(here / "out/a")
    assert list(search("album", output="out")) == ["album/a.wav"]


def test_links_that_lead_back_are_not_followed(here: Path) -> None:
    touch(here, "album/a.wav", "elsewhere.wav")
    (here / "album/self").symlink_to(here / "album")
    (here / "album/up.wav").symlink_to(here)
    (here / "album/b.wav").symlink_to("a.wav")
    (here / "album/loop.wav").symlink_to("loop.wav")
    assert list(search("album")) == ["album/a.wav", "album/loop.wav"]


def test_a_link_that_is_named_is_searched(here: Path) -> None:
    touch(here / "album", "a.wav")
    (here / "link").symlink_to("album")
    assert search("link") == {"link/a.wav": "a.wav"}


def test_names_of_any_bytes(here: Path) -> None:
    names = [os.fsdecode(bytes([value]) + b".wav") for value in range(1, 256) if chr(value) not in "./"]
    touch(here / "album", *names)
    assert sorted(search("album").values()) == sorted(names)
    for name in names:
        assert search(f"album/{name}") == {f"album/{name}": name}


def test_a_folder_that_cannot_be_read_does_not_stop_the_others(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(here / "album", "a/1.wav", "b/2.wav", "c/3.wav")
    scan = os.scandir

    def refuse(path: str) -> Any:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    songs, failed = inputs.find_input_files(["album"], Path("out"))
    assert [song.label for song in songs] == ["album/a/1.wav", "album/c/3.wav"]
    assert [(failure.source, str(failure.error)) for failure in failed] == [
        ("album/b", "cannot read the folder 'album/b': Permission denied")
    ]


def test_a_folder_that_vanishes_while_it_is_searched(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(here / "album", "a.wav", "b/2.wav")
    scan = os.scandir

    def remove(path: str) -> Any:
        if Path(path).name == "b":
            (here / "album/b/2.wav").unlink()
            (here / "album/b").rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", remove)
    songs, failed = inputs.find_input_files(["album"], Path("out"))
    assert [song.label for song in songs] == ["album/a.wav"]
    assert [failure.source for failure in failed] == ["album/b"]


@pytest.mark.full
def test_more_folders_in_each_other_than_python_calls_functions(here: Path) -> None:
    deep = here / "album"
    deep.mkdir()
    try:
        os.chdir(deep)
        for _ in range(sys.getrecursionlimit() + 100):
            Path("a").mkdir()
            os.chdir("a")
        Path("song.wav").touch()
        os.chdir(here)
        (place,) = search("album").values()
        assert place.count("/") == sys.getrecursionlimit() + 100
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-r", "album"], check=True)


@pytest.mark.full
def test_thousands_of_songs_are_not_looked_at_one_by_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5_000):
        touch(here / "many", f"{number % 10}/{number}.wav")
    asked: list[str] = []
    real = os.path.realpath

    def count(path: str, **options: Any) -> str:
        asked.append(path)
        return real(path, **options)

    monkeypatch.setattr(os.path, "realpath", count)
    assert len(search("many")) == 5_000
    assert len(asked) < 20


def test_a_folder_without_songs(here: Path) -> None:
    touch(here, "empty/cover.jpg")
    assert refusals("empty") == [("empty", "no songs in the folder 'empty'")]


# Patterns that no shell has expanded


@pytest.fixture
def library(here: Path) -> Path:
    touch(
        here,
        *("a.wav", "b.flac", "cover.jpg", ".hidden.wav", "notes.dat", "album/cd/c.wav", "album/d.wav", "list.txt"),
        *("separated/a/vocals.wav",),
    )
    return here


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.wav", ["a.wav"]),
        ("?.*", ["a.wav", "b.flac"]),
        ("[ab].wav", ["a.wav"]),
        ("*", ["a.wav", "album/d.wav", "album/cd/c.wav", "b.flac"]),
        ("*.dat", ["notes.dat"]),
        ("album/*", ["album/cd/c.wav", "album/d.wav"]),
        ("*/*.wav", ["album/d.wav"]),
        ("**/*.wav", ["a.wav", "album/d.wav", "album/cd/c.wav"]),
        ("album/**", ["album/d.wav", "album/cd/c.wav"]),
        ("./a*/**/c.*", ["album/cd/c.wav"]),
    ],
)
def test_patterns_stand_for_songs(library: Path, pattern: str, found: list[str]) -> None:
    assert list(search(pattern)) == found
    assert [str(library / name) for name in found] == list(search(str(library / pattern)))


def test_songs_of_a_pattern_are_as_if_each_was_named(library: Path) -> None:
    assert search("**/*.wav")["album/cd/c.wav"] == "c.wav"


def test_a_file_with_a_pattern_for_its_name_is_that_file(library: Path) -> None:
    touch(library, "[ab].wav", "a*.wav")
    assert list(search("[ab].wav")) == ["[ab].wav"]
    assert list(search("a*.wav")) == ["a*.wav"]


@pytest.mark.parametrize("pattern", ["*.mp3", "nowhere/*", "[", "song [live].wav", "**/*.xyz", "cover*"])
def test_a_pattern_without_songs_is_refused(library: Path, pattern: str) -> None:
    assert refusals(pattern) == [(pattern, f"no songs match {pattern!r}")]


def test_patterns_do_not_get_lost_in_links(library: Path) -> None:
    for number in range(3):
        (library / f"album/self{number}").symlink_to(".")
    assert list(search("**/*.wav")) == ["a.wav", "album/d.wav", "album/cd/c.wav"]


def test_a_folder_without_songs_among_what_a_pattern_is_for(library: Path) -> None:
    touch(library, "nothing/cover.jpg")
    songs, failed = inputs.find_input_files(["[an]*"], Path("separated"))
    assert [song.label for song in songs] == ["a.wav", "album/d.wav", "album/cd/c.wav"]
    assert [failure.source for failure in failed] == ["nothing"]


@pytest.mark.parametrize(
    ("address", "label"),
    [
        ("https://example.org/a.mp3", "https://example.org/a.mp3"),
        ("HTTP://x/y?z=*", "HTTP://x/y?..."),
        ("file:///a.mp3", "/a.mp3"),
    ],
)
def test_addresses_are_songs(here: Path, address: str, label: str) -> None:
    songs, failed = inputs.find_input_files([address], Path("out"))
    assert ([song.label for song in songs], failed) == ([label], [])


@pytest.mark.parametrize("address", ["youtu.be/xyz", "www.youtube.com/watch?v=x", "https://vimeo.com/1"])
def test_sites_for_videos_are_refused(here: Path, address: str) -> None:
    host = address.removeprefix("https://").partition("/")[0]
    assert refusals(address) == [(address, f"stemsplit does not download from {host}")]


def test_a_url_needs_its_scheme(here: Path) -> None:
    assert refusals("example.org/a.mp3") == [("example.org/a.mp3", "'example.org/a.mp3' is a URL, not a file")]


@pytest.mark.parametrize("start", ["file://", "file://localhost", "FILE://", "file:"])
def test_the_address_of_a_file_is_the_file(here: Path, start: str) -> None:
    touch(here, "a song.mp3", "youtu.be/a.mp3")
    address = start + (here / "a song.mp3").as_uri().removeprefix("file://")
    songs, failed = inputs.find_input_files([address, "youtu.be/a.mp3"], Path("separated"))
    assert not failed
    assert [song.path for song in songs] == [here / "a song.mp3", Path("youtu.be/a.mp3")]


def test_what_is_no_file_of_this_machine() -> None:
    ((_, told),) = refusals("file://server/a.mp3")
    assert told == "'file://server/a.mp3' is on another machine"
    ((_, told),) = refusals(r"C:\Music\a.mp3")
    assert told == repr(r"C:\Music\a.mp3") + " is a path of Windows"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\3\4...", "an archive"),
        (b"\x1f\x8b.", "an archive"),
        (b"MThd\0", "a MIDI file"),
        (b"%PDF-1", "a PDF document"),
    ],
)
def test_files_without_sound_are_called_what_they_are(here: Path, content: bytes, what: str) -> None:
    (here / "song").write_bytes(content)
    ((_, told),) = refusals("song")
    assert told.startswith(f"'song' is {what}")
    (here / "song").rename("song.wav")  # which has its own message when it is opened
    assert search("song.wav")


def test_links_that_may_not_be_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of other users' processes in /proc."""
    touch(here, "folder/a.wav")
    (here / "folder/b.wav").symlink_to(here / "folder/a.wav")

    def fails(path: str) -> str:
        if "b.wav" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return str(path)

    monkeypatch.setattr("os.path.realpath", fails)
    assert list(search("folder")) == ["folder/a.wav", "folder/b.wav"]


# Playlists


def write_playlist(folder: Path, content: bytes | str, name: str = "list.m3u8") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return os.path.relpath(folder / name)


def test_a_playlist_stands_for_its_songs(here: Path) -> None:
    touch(here / "music", "Some One/a.mp3", "b.xyz", "c.mp3")
    touch(here, "elsewhere/d.mp3")
    content = f"""#EXTM3U
#EXTINF:123,Some One - A
Some One/a.mp3

  # a comment
b.xyz
../elsewhere/d.mp3
{here}/music/c.mp3
./c.mp3
"""
    assert search(write_playlist(here / "music", content)) == {
        "music/Some One/a.mp3": "Some One/a.mp3",
        "music/b.xyz": "b.xyz",
        "music/../elsewhere/d.mp3": "d.mp3",
        f"{here}/music/c.mp3": "c.mp3",
    }


NAME = "Café — naïve.mp3"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (NAME.encode(), NAME),
        (b"\xef\xbb\xbf" + NAME.encode(), NAME),
        (("\ufeff" + NAME).encode("utf-16-le"), NAME),
        (("\ufeff" + NAME).encode("utf-16-be"), NAME),
        (NAME.encode("cp1252"), NAME),
        (b"caf\xe9.mp3", "caf\xe9.mp3"),
        (b"caf\x81\xe9.mp3", "caf\x81\xe9.mp3"),
        (b"caf\xe9.mp3", "caf\udce9.mp3"),
        (unicodedata.normalize("NFD", NAME).encode(), NAME),
        (NAME.encode(), unicodedata.normalize("NFD", NAME)),
        (b"a b.mp3 \t", "a b.mp3"),
        (b"a b.mp3 ", "a b.mp3 "),
        (b"a\\b c.mp3", "a/b c.mp3"),
        (b"a\\b.mp3", "a\\b.mp3"),
        (b".\\a%20%C3%A9.mp3", "a é.mp3"),
        (b"100%25.mp3", "100%25.mp3"),
        (b"100%25.mp3", "100%.mp3"),
        (b"100% b.mp3", "100% b.mp3"),
        (b"a.mp3\r", "a.mp3"),
        (b"A:b.mp3", "A:b.mp3"),
        (b"spotify:track:a.mp3", "spotify:track:a.mp3"),
    ],
)
@pytest.mark.parametrize("name_of_list", ["list.m3u", "list.M3U8"])
def test_what_a_line_may_mean(here: Path, line: bytes, name: str, name_of_list: str) -> None:
    touch(here / "music", name)
    assert list(search(write_playlist(here / "music", line, name_of_list)).values()) == [name]


@pytest.mark.parametrize("form", ["file://{}", "file://localhost{}", "FILE:{}", " file://{} "])
def test_addresses_of_files(here: Path, form: str) -> None:
    touch(here, "a b/é #1.mp3")
    line = form.format(f"{here}/a%20b/%C3%A9 #1.mp3")
    assert list(search(write_playlist(here, line))) == [f"{here}/a b/é #1.mp3"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("https://youtu.be/x", "stemsplit does not download from youtu.be"),
        ("rtsp://x", "nothing is known about rtsp://, as in 'rtsp://x'"),
        ("file://server/share/a.mp3", "is on another machine"),
        ("other.m3u", "is another playlist, which is not followed"),
        ("file:///x/other.M3U8", "is another playlist, which is not followed"),
        ("C:\\Music\\a.mp3", "is on a Windows drive"),
        ("\\\\server\\share\\a.mp3", "is on a Windows drive"),
        ("file:///%00.mp3", "there is no file"),
        ("no.mp3", "there is no file 'no.mp3', which 'list.m3u8' names"),
        ("x" * 5_000, "there is no file"),
    ],
)
def test_a_line_that_stands_for_nothing_does_not_stop_the_others(here: Path, line: str, reason: str) -> None:
    touch(here, "a.mp3", "other.m3u")
    songs, failed = inputs.find_input_files([write_playlist(here, f"{line}\na.mp3\n")], Path("out"))
    assert [song.label for song in songs] == ["a.mp3"]
    assert [failure.source for failure in failed] == [line]
    assert reason in str(failed[0].error)
    assert "'list.m3u8'" in str(failed[0].error) or line.startswith(("https:", "rtsp:"))
    assert failed[0].error.hint


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "names no songs"),
        ("#EXTM3U\n#EXTINF:1,x\n\n", "names no songs"),
        ("RIFF\0\0\0\0WAVE", "is not a playlist, despite its name"),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9\na.ts\n", "lists the pieces of one stream"),
        ("x\n" * 2**24, "is not a playlist"),
    ],
)
def test_what_is_no_playlist(here: Path, content: str, reason: str) -> None:
    (refusal,) = refusals(write_playlist(here, content))
    assert reason in refusal[1]
    assert "'list.m3u8'" in refusal[1]


def test_a_playlist_that_cannot_be_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusals("no.m3u") == [("no.m3u", "there is no file 'no.m3u'")]
    os.mkfifo("pipe.m3u")
    assert refusals("pipe.m3u") == [("pipe.m3u", "the playlist 'pipe.m3u' is not a regular file")]
    (here / "loop.m3u").symlink_to("loop.m3u")
    assert "cannot read the playlist 'loop.m3u'" in refusals("loop.m3u")[0][1]
    with pytest.raises(AudioError, match="cannot read the playlist"):
        playlists.read_playlist(Path("a\0b.m3u"))


def test_a_playlist_in_a_folder_is_not_a_song(here: Path) -> None:
    touch(here / "music", "a.mp3", "b.mp3")
    write_playlist(here / "music", "a.mp3")
    assert list(search("music")) == ["music/a.mp3", "music/b.mp3"]
    assert list(search("music/*.m3u8")) == ["music/a.mp3"]


def test_a_folder_is_no_playlist(here: Path) -> None:
    touch(here, "best.m3u/a.mp3")
    assert list(search("best.m3u")) == ["best.m3u/a.mp3"]


# Standard input


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_song_from_standard_input(temporary: Path) -> None:
    content = os.urandom(3 * 2**20 + 1)
    with StandardInput(io.BytesIO(content)) as stdin:
        assert not list(temporary.iterdir())
        songs, failed = inputs.find_input_files(["-", "-"], Path("out"), stdin=stdin)
        assert not failed
        (song,) = songs
        assert (song.label, song.relative_path) == ("-", Path("stdin"))
        assert isinstance(song.path, Path)
        assert song.path.read_bytes() == content
        assert song.path.parent.stat().st_mode & 0o777 == 0o700
        assert list(temporary.iterdir()) == [song.path.parent]
    assert not list(temporary.iterdir())


def test_without_standard_input_a_dash_is_a_name(here: Path) -> None:
    assert search("-") == {"-": "-"}
    with StandardInput(io.BytesIO(b"x")) as stdin:
        assert search("./-", stdin=stdin) == {"-": "-"}


def test_standard_input_is_removed_whatever_happens(temporary: Path) -> None:
    with pytest.raises(RuntimeError), StandardInput(io.BytesIO(b"x")) as stdin:
        assert stdin.spool().exists()
        raise RuntimeError
    assert not list(temporary.iterdir())


class Broken(io.BytesIO):
    """What gives something, and then an error."""

    def __init__(self, error: OSError) -> None:
        super().__init__(b"x" * 100)
        self.error = error

    def read(self, size: int | None = -1) -> bytes:
        if content := super().read(10):
            return content
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "there is no room for the song from standard input in '{}'"),
        (OSError(5, "Input/output error"), "cannot keep the song from standard input: Input/output error"),
    ],
)
def test_standard_input_that_cannot_be_kept(temporary: Path, error: OSError, reason: str) -> None:
    with StandardInput(Broken(error)) as stdin:
        assert refusals("-", stdin=stdin) == [("-", reason.format(temporary))]
    assert not list(temporary.iterdir())


def test_no_room_for_standard_input_at_all(temporary: Path) -> None:
    temporary.rmdir()
    with StandardInput(io.BytesIO(b"x")) as stdin:
        assert "needs a folder for temporary files, and there is none" in refusals("-", stdin=stdin)[0][1]


def test_standard_input_that_is_a_terminal_or_closed(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, theirs = os.openpty()
    with os.fdopen(theirs, "rb") as stream, StandardInput(stream) as stdin:
        assert refusals("-", stdin=stdin) == [("-", "standard input has no song, but - was given")]
    os.close(terminal)
    monkeypatch.setattr(sys, "stdin", None)
    with StandardInput() as stdin:
        assert refusals("-", stdin=stdin) == [("-", "standard input has no song, but - was given")]


def test_reading_from_standard_input_in_pieces(temporary: Path) -> None:
    """A pipe gives what has arrived, which is often less than was asked for."""

    class Pipe(io.RawIOBase):
        def __init__(self, pieces: Sequence[bytes]) -> None:
            self.pieces: Iterator[bytes] = iter(pieces)

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            return next(self.pieces, b"")

    make: Callable[..., Any] = Pipe
    with StandardInput(make([b"a", b"bc", b"d"])) as stdin:
        assert stdin.spool().read_bytes() == b"abcd"
