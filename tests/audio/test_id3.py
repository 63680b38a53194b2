"""ID3 tags in WAV, as other programs read them."""

from pathlib import Path
from typing import Any

import mutagen.id3
import mutagen.wave
import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]

from stemsplit.audio import id3
from stemsplit.audio.formats import Format
from stemsplit.audio.reading import open_reader
from stemsplit.audio.tags import Picture, Tags, read_tags
from stemsplit.audio.writing import StemWriter

PICTURE = Picture(b"\x89PNG\r\n\x1a\n" + b"\xff\0" * 50, "png", 16, 16)
FIELDS = {
    "title": "Łódź",
    "artist": "Die Ärzte",
    "album_artist": "Various",
    "album": "Album",
    "composer": "Composer",
    "track": "3/12",
    "disc": "1/2",
    "date": "2024-11-30",
    "genre": "Rock",
    "comment": "日本語\nsecond line",
    "copyright": "© 2020",
    "publisher": "Label",
    "bpm": "128",
    "key": "Am",
}


def write(path: Path, tags: Tags, length: int = 1_001, bits: str = "24") -> None:
    stem = np.linspace(-0.5, 0.5, length, dtype=np.float32).reshape(1, 1, -1)
    with StemWriter([path], rate=44_100, channels=1, format=Format("wav", bits), tags=[tags]) as writer:
        writer.write(stem)


@pytest.mark.parametrize("bits", ["16", "24", "32f"])
@pytest.mark.parametrize("length", [1_000, 1_001])
def test_other_programs_read_everything(tmp_path: Path, bits: str, length: int) -> None:
    write(tmp_path / "x.wav", Tags(FIELDS, PICTURE), length, bits)
    found: Any = mutagen.wave.WAVE(tmp_path / "x.wav")  # type: ignore[no-untyped-call]
    texts = {name: str(found.tags[frame]) for name, frame in id3.FRAMES.items()}
    assert texts == {name: FIELDS[name] for name in id3.FRAMES}
    assert str(found.tags["TDRC"]) == "2024-11-30"  # of year and day, as the newer version has them
    assert found.tags.getall("COMM")[0].text == [FIELDS["comment"]]
    cover = found.tags.getall("APIC")[0]
    assert (cover.mime, cover.type, cover.data) == ("image/png", mutagen.id3.PictureType.COVER_FRONT, PICTURE.data)
    assert found.info.length == pytest.approx(length / 44_100)


def test_samples_and_sizes_are_what_they_were(tmp_path: Path) -> None:
    write(tmp_path / "plain.wav", Tags())
    write(tmp_path / "x.wav", Tags(FIELDS, PICTURE))
    content = (tmp_path / "x.wav").read_bytes()
    assert int.from_bytes(content[4:8], "little") == len(content) - 8
    assert len(content) % 2 == 0
    samples, _ = soundfile.read(tmp_path / "x.wav")
    np.testing.assert_array_equal(samples, soundfile.read(tmp_path / "plain.wav")[0])
    with open_reader(tmp_path / "x.wav") as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == 1_001
        assert reader.warnings == []


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "x.wav", Tags(FIELDS, PICTURE))
    assert read_tags(tmp_path / "x.wav").fields == {**FIELDS, "date": "2024-11-30"}


def test_nothing_is_written_without_tags(tmp_path: Path) -> None:
    write(tmp_path / "x.wav", Tags())
    assert b"id3 " not in (tmp_path / "x.wav").read_bytes()
    assert id3.pack(Tags({"unknown": "x"})) == b""


@pytest.mark.parametrize(("date", "frames"), [("1999", {"TYER"}), ("1999-12", {"TYER"}), ("soon", set())])
def test_dates(date: str, frames: set[str]) -> None:
    tag = id3.pack(Tags({"date": date}))
    assert {name for name in ("TYER", "TDAT") if name.encode() in tag} == frames
