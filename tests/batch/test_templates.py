"""What stems are called: templates, what songs make of them, and songs that would share a file."""

import os
import string
from collections.abc import Callable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stemsplit.batch import checks, templates, tracks
from stemsplit.batch.templates import Template
from stemsplit.errors import UsageError

VALUES: dict[str, str | int] = {
    "track": "Some Song",
    "stem": "vocals",
    "ext": "flac",
    "model": "htdemucs",
    "folder": "album/cd 1",
    "index": 7,
    "title": "A Title",
    "artist": "Some One",
}


def fill(text: str, *, windows: bool = False, **values: str | int) -> str:
    return "/".join(Template.parse(text).fill({**VALUES, "folder": "", **values}, windows=windows))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{track}/{stem}.{ext}", "Some Song/vocals.flac"),
        ("{track}/{stem}", "Some Song/vocals.flac"),
        ("{stem}", "vocals.flac"),
        ("{stem}.v2", "vocals.v2.flac"),
        ("{track}.{stem}", "Some Song.vocals.flac"),
        ("{stem}/{track}.{ext}", "vocals/Some Song.flac"),
        ("{model}\\{track}\\{stem}", "htdemucs/Some Song/vocals.flac"),
        ("{index:03d} {track}/{stem}", "007 Some Song/vocals.flac"),
        ("{index:2}{index}{index:d}/{stem}", " 777/vocals.flac"),
        ("{artist} - {title} ({stem}).{ext}", "Some One - A Title (vocals).flac"),
        ("{{{stem}}}", "{vocals}.flac"),
        ("{ext}/{stem}", "flac/vocals.flac"),
        (".{stem}", ".vocals.flac"),
        ("{stem}..{ext}", "vocals..flac"),
        ("conto/auxiliary/null/{stem}", "conto/auxiliary/null/vocals.flac"),
    ],
)
def test_templates(text: str, name: str) -> None:
    assert fill(text) == name
    assert fill(text, windows=True) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{track}/{stem}", "album/cd 1/Some Song/vocals.flac"),
        ("{folder}/{track}/{stem}", "album/cd 1/Some Song/vocals.flac"),
        ("{stem}/{folder}/{track}", "vocals/album/cd 1/Some Song.flac"),
        ("{folder} - {stem}", "album_cd 1 - vocals.flac"),
    ],
)
def test_folders_are_mirrored(text: str, name: str) -> None:
    assert fill(text, folder="album/cd 1") == name
    assert fill("{stem}/{folder}/{track}") == "vocals/Some Song.flac"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has an empty folder or name"),
        ("x", "is the same for all stems"),
        ("{track}.{ext}", "is the same for all stems"),
        ("{{stem}}", "is the same for all stems"),
        ("{track}/{step}", "has an unknown field {step}"),
        ("{track}{trackext}/{stem}", "has an unknown field {trackext}"),
        ("{stem.__class__}", "has an unknown field {stem.__class__}"),
        ("{stem[0]}", "has an unknown field {stem[0]}"),
        ("{}{stem}", "has an unknown field {}"),
        ("{0}{stem}", "has an unknown field {0}"),
        ("{stem!r}", "has a {stem} with a format"),
        ("{stem:>9}", "has a {stem} with a format"),
        ("{index:99999999d}{stem}", "has a {index} with a format"),
        ("{index:x}{stem}", "has a {index} with a format"),
        ("{index:{index}}{stem}", "has a {index} with a format"),
        ("{stem", "is not a valid template: "),
        ("stem}", "is not a valid template: "),
        ("/{stem}", "is an absolute path"),
        ("\\{stem}", "is an absolute path"),
        ("\\\\server\\share\\{stem}", "is an absolute path"),
        ("C:\\{stem}", "is an absolute path"),
        ("c:{stem}", "is an absolute path"),
        ("../{stem}", "leads to another folder with '..'"),
        ("{track}/../{stem}", "leads to another folder with '..'"),
        ("{track}\\..\\{stem}", "leads to another folder with '..'"),
        ("./{stem}", "leads to another folder with '.'"),
        (".. /{stem}", "leads to another folder with '.. '"),
        ("{track}//{stem}", "has an empty folder or name"),
        ("{stem}/", "has an empty folder or name"),
        ("{stem}\\{ext}\\", "has an empty folder or name"),
        ("{stem}.", "has a dot or space at the end of a name"),
        ("{track}./{stem}", "has a dot or space at the end of a name"),
        ("{track} /{stem}", "has a dot or space at the end of a name"),
        ("a?/{stem}", "has a '?', which Windows forbids"),
        ("{track}:{stem}", "has a ':', which Windows forbids"),
        ("{track}\n{stem}", "has a '\\n', which Windows forbids"),
        ("{track}\0{stem}", "has a '\\x00', which Windows forbids"),
        ("CON/{stem}", "is a device on Windows"),
        ("nul.{stem}", "is a device on Windows"),
        ("Lpt1.x/{stem}", "is a device on Windows"),
        ("com²/{stem}", "is a device on Windows"),
        ("aux .x/{stem}", "is a device on Windows"),
        ("{track}/{stem}.wav", "has a fixed extension"),
        ("{track}/{stem}.MP3", "has a fixed extension"),
    ],
)
def test_what_is_no_template(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        Template.parse(text)
    assert reason in str(caught.value)
    assert caught.value.hint


def test_hints_know_the_fields() -> None:
    with pytest.raises(UsageError) as caught:
        Template.parse("{trak}/{stem}")
    assert caught.value.hint.startswith("did you mean {track}? the fields are {track}, {stem}, ")


@pytest.mark.parametrize(
    ("song", "here", "there"),
    [
        ("..", "_", "_"),
        (".", "_", "_"),
        ("", "_", "_"),
        ("...", "_", "_"),
        (" ", "_", "_"),
        ("Wait...", "Wait", "Wait"),
        ("a/b", "a_b", "a_b"),
        ("a\0b", "a_b", "a_b"),
        ("a\\b", "a\\b", "a_b"),
        ("Who?", "Who?", "Who_"),
        ('<>:"|*\n', '<>:"|*\n', "_______"),
        ("con", "con_", "con_"),
        ("NUL.txt", "NUL_.txt", "NUL_.txt"),
        ("COM1 .x", "COM1 _.x", "COM1 _.x"),
        ("CONIN$", "CONIN$_", "CONIN$_"),
        ("console", "console", "console"),
        ("\udcff", "\udcff", "\udcff"),
        ("..\\..\\x", "..\\..\\x", ".._.._x"),
    ],
)
def test_names_of_songs_are_made_safe(song: str, here: str, there: str) -> None:
    assert fill("{track}/{stem}", track=song) == f"{here}/vocals.flac"
    assert fill("{track}/{stem}", track=song, windows=True) == f"{there}/vocals.flac"


def test_a_device_is_recognised_in_the_whole_name_only() -> None:
    assert fill("{track}-{stem}", track="con") == "con-vocals.flac"
    assert fill("{track}.{stem}", track="con") == "con_.vocals.flac"
    assert fill("co{track}/{stem}", track="n") == "con_/vocals.flac"


def test_words_from_tags_and_models_are_made_safe_everywhere() -> None:
    assert fill("{artist}/{title}/{stem}", artist="AC/DC", title='What: "?"') == "AC_DC/What_ ___/vocals.flac"
    assert fill("{artist}/{title}/{stem}", artist="", title="") == "Unknown artist/Some Song/vocals.flac"
    assert fill("{artist}/{stem}", artist="..") == "_/vocals.flac"
    assert fill("{model}/{stem}", model="hf://owner/name@v1") == "owner_name@v1/vocals.flac"
    assert fill("{model}/{stem}", model="runs/first/model.safetensors") == "model/vocals.flac"
    assert fill("{track}/{stem}", stem="../../vocals") == "Some Song/.._.._vocals.flac"


def test_folders_are_made_safe() -> None:
    folder = "../a/./con/b. /c"
    assert fill("{track}/{stem}", folder=folder) == "_/a/con_/b/c/Some Song/vocals.flac"


PIECES = st.sampled_from(["{stem}", "{track}", "{folder}", "/", ".", "..", "x", "{title}", "\\"])
TEXT = st.text(st.sampled_from("./\\:~ \0\n{}aC" + string.ascii_letters), max_size=12)


@pytest.mark.full
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    template=st.lists(PIECES).map(lambda pieces: "".join([*pieces, "{stem}"])),
    song=TEXT,
)
@pytest.mark.parametrize("windows", [False, True])
def test_no_song_leads_out_of_the_folder(windows: bool, template: str, song: str) -> None:
    try:
        parsed = Template.parse(template)
    except UsageError:
        return
    values = dict.fromkeys(("track", "folder", "title", "artist", "stem", "model"), song)
    names = parsed.fill({**values, "ext": "wav"}, windows=windows)
    assert names
    for name in names:
        assert name not in ("", ".", "..")
        assert not {"/", "\0"} & set(name)
        assert name[-1] not in ". "
        if windows:
            assert PureWindowsPath(name).parts == (name,)
    inside = Path(os.path.normpath(Path("/out").joinpath(*names)))
    assert Path("/out") in inside.parents


# Tracks


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def stems_of(names: Sequence[str], text: str, **options: Any) -> dict[str, str]:
    """Songs, and the files of their vocals."""
    found, failed = tracks.find_tracks(names, Path("out"), template=Template.parse(text), **options)
    assert not failed
    return {track.label: Path(str(track.outputs(["vocals"])["vocals"])).as_posix() for track in found}


def test_songs_of_a_folder(here: Path) -> None:
    touch("album/cd 1/a.mp3", "album/cd 2/a.mp3", "b.wav")
    assert stems_of(["b.wav", "album"], "{index:02d} {track} - {stem}", extension="mp3") == {
        "b.wav": "out/01 b - vocals.mp3",
        "album/cd 1/a.mp3": "out/cd 1/02 a - vocals.mp3",
        "album/cd 2/a.mp3": "out/cd 2/03 a - vocals.mp3",
    }
    flat = stems_of(["album"], "{stem}/{folder} - {track}", model="m")
    assert flat["album/cd 2/a.mp3"] == "out/vocals/cd 2 - a.wav"


def test_songs_with_the_same_name(here: Path) -> None:
    touch("a.mp3", "A.wav", "a.mp3.ogg", "b/a.mp3")
    assert stems_of(["a.mp3", "A.wav"], "{track}_{stem}") == {
        "a.mp3": "out/a.mp3_vocals.wav",
        "A.wav": "out/A.wav_vocals.wav",
    }
    assert stems_of(["a.mp3", "a.mp3.ogg"], "{stem}/{track}")["a.mp3.ogg"] == "out/vocals/a.mp3.wav"
    assert stems_of(["a.mp3", "A.wav", "a.mp3.ogg"], "{stem}/{track}")["a.mp3.ogg"] == "out/vocals/a.mp3.ogg.wav"
    assert stems_of(["a.mp3", "b/a.mp3"], "{index} {track}/{stem}")["b/a.mp3"] == "out/2 a/vocals.wav"


@pytest.mark.parametrize(
    ("names", "text", "reason", "hint"),
    [
        (["a.mp3", "b/a.mp3"], "{track}/{stem}.{ext}", "would go to the same folder", "{index} {track}/{stem}"),
        (["a.mp3", "b/a.mp3"], "{stem}/{track}", "would have the same names", "{index}"),
        (["a.mp3", "b.mp3"], "{model}/{stem}", "would have the same names", "{track}"),
        (["album"], "{folder}/{stem}", "would have the same names", "{track}"),
    ],
)
def test_songs_that_cannot_be_told_apart(here: Path, names: list[str], text: str, reason: str, hint: str) -> None:
    touch("a.mp3", "b/a.mp3", "b.mp3", "album/c.mp3", "album/d.mp3")
    with pytest.raises(UsageError, match=reason) as caught:
        stems_of(names, text)
    assert hint in caught.value.hint


def test_songs_whose_stems_would_share_a_file(here: Path, write: Callable[[str], Path]) -> None:
    for name in ("a.wav", "a_no.wav"):
        write(name)
    found, _ = tracks.find_tracks(["a.wav", "a_no.wav"], Path("out"), template=Template.parse("{track}_{stem}"))
    assert len(checks.partition_separable(found, ["vocals"], overwrite=False)[0]) == 2
    with pytest.raises(UsageError, match=r"'a\.wav' and 'a_no\.wav' would both be written to 'out/a_no_vocals\.wav'"):
        checks.partition_separable(found, ["vocals", "no_vocals"], overwrite=False)
    with pytest.raises(UsageError):
        checks.partition_separable(found[:1], ["vocals", "no_vocals"], overwrite=False, kept=found[1:])


@pytest.mark.parametrize(
    ("text", "folder", "manifest", "page"),
    [
        ("{track}/{stem}", "out/cd/a", "out/cd/a/stemsplit.json", "out/cd/a/player.html"),
        ("{track}_{stem}", "out/cd", "out/cd/a_stemsplit.json", "out/cd/a_player.html"),
        ("{stem}/{track}", "out/cd", "out/cd/stemsplit/a.json", "out/cd/player/a.html"),
        ("{folder}/{track}/x/{stem}/y", "out/cd/a/x", "out/cd/a/x/stemsplit/y.json", "out/cd/a/x/player/y.html"),
        ("{stem}", "out/cd", "out/cd/stemsplit.json", "out/cd/player.html"),
        ("{ext}/{track}.v2/{stem}", "out/cd/wav/a.v2", "out/cd/wav/a.v2/stemsplit.json", "out/cd/wav/a.v2/player.html"),
    ],
)
def test_what_goes_beside_the_stems(here: Path, text: str, folder: str, manifest: str, page: str) -> None:
    touch("album/cd/a.mp3")
    ((track,), _) = tracks.find_tracks(["album"], Path("out"), template=Template.parse(text))
    assert track.folder == Path(folder)
    assert track.manifest == Path(manifest)
    assert track.file("player", "html") == Path(page)


def test_a_model_that_takes_the_place_of_another(here: Path) -> None:
    touch("a.mp3")
    found, _ = tracks.find_tracks(["a.mp3"], Path("out"), template=Template.parse("{model}/{stem}"), model="htdemucs")
    assert found[0].folder == Path("out/htdemucs")
    assert [track.folder for track in tracks.with_model(found, "mini")] == [Path("out/mini")]


@pytest.fixture
def write(here: Path) -> Callable[..., Path]:
    """A function that writes a song."""

    def make(name: str, **tags: str) -> Path:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        with soundfile.SoundFile(name, "w", 8_000, 1, format="WAV", subtype="PCM_16") as file:
            for tag, text in tags.items():
                setattr(file, tag, text)
            file.write(np.zeros(800, np.float32))
        return Path(name)

    return make


def test_tags_are_read_where_they_are_needed(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.wav", title="What? / Who?", artist="AC/DC")
    write("b.wav")
    Path("c.wav").write_text("no music")
    os.mkfifo("d.wav")
    assert stems_of(["a.wav", "b.wav", "c.wav", "d.wav", "no.wav"], "{artist}/{title} - {stem}") == {
        "a.wav": "out/AC_DC/What_ _ Who_ - vocals.wav",
        "b.wav": "out/Unknown artist/b - vocals.wav",
        "c.wav": "out/Unknown artist/c - vocals.wav",
        "d.wav": "out/Unknown artist/d - vocals.wav",
        "no.wav": "out/Unknown artist/no - vocals.wav",
    }
    monkeypatch.delattr("stemsplit.batch.tracks.read_tags")
    stems_of(["a.wav"], "{track}/{stem}")


def test_names_that_are_too_long(write: Callable[..., Path]) -> None:
    name = write("x" * 248 + ".wav")
    for text, count in (("{track}/{stem}", 1), ("{track} - {stem}", 0)):
        found, _ = tracks.find_tracks([str(name)], Path("out"), template=Template.parse(text))
        ready, failed = checks.partition_separable(found, ["vocals"], overwrite=False)
        assert len(ready) == count
        assert all("too long" in str(failure.error) and failure.error.hint for failure in failed)
        assert len(ready) + len(failed) == 1


def test_every_field_is_described() -> None:
    assert templates.DEFAULT.fields <= set(templates.FIELDS)
    everything = Template.parse("".join(f"{{{field}}}" for field in templates.FIELDS))
    assert everything.fields == set(templates.FIELDS)
