"""Tags where a format does not have them."""

from pathlib import Path

import numpy as np
import pytest
from support.sounds import bursts, encode, read_with_warnings

from stemsplit.audio.foreign_tags import find_sound
from stemsplit.audio.id3 import pack
from stemsplit.audio.tags import Tags, read_tags

ID3 = pack(Tags({"title": "from the front", "artist": "Müller & Łukasz"}))
ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
ENHANCED = b"TAG+" + bytes(223)
_APE_HEAD = b"APETAGEX" + b"\xd0\7\0\0" + (32 + 11).to_bytes(4, "little") + b"\1\0\0\0"
APE = _APE_HEAD + b"\0\0\0\xa0" + bytes(8) + b"\1\0\0\0\0\0\0\0A\0b" + _APE_HEAD + b"\0\0\0\x80" + bytes(8)
LYRICS1 = b"LYRICSBEGIN" + b"la la la " * 40 + b"LYRICSEND"
_WORDS = b"LYRICSBEGININD0000200LYR00360" + b"la la la " * 40
LYRICS2 = _WORDS + f"{len(_WORDS):06}".encode() + b"LYRICS200"
BEHIND = {
    "ID3v1": ID3V1,
    "enhanced": ENHANCED + ID3V1,
    "APE": APE,
    "Lyrics3v1": LYRICS1 + ID3V1,
    "Lyrics3v2": LYRICS2 + ID3V1,
    "many": APE + LYRICS2 + ID3V1,
    "ID3v2.4": ID3.replace(b"ID3\3\0\0", b"ID3\4\0\x10", 1) + b"3DI\4\0\x10" + ID3[6:10],
}
CODECS = [
    ("x.wav", "pcm_s16le"),
    ("x.aiff", "pcm_s16be"),
    ("x.au", "pcm_s16be"),
    ("x.caf", "pcm_s16le"),
    ("x.w64", "pcm_s16le"),
    ("x.flac", "flac"),
    ("x.ogg", "libvorbis"),
    ("x.opus", "libopus"),
    ("x.m4a", "aac"),
    ("x.mka", "flac"),
    ("x.wv", "wavpack"),
    ("x.tta", "tta"),
    ("x.wma", "wmav2"),
    ("x.mp3", "libmp3lame"),
    ("x.aac", "aac"),
]


def song(path: Path, codec: str) -> Path:
    return encode(path, bursts(length=20_000), codec, rate=48_000 if codec == "libopus" else 44_100)


@pytest.mark.parametrize(("name", "codec"), CODECS)
def test_id3_in_front_of_any_format(tmp_path: Path, name: str, codec: str) -> None:
    path = song(tmp_path / name, codec)
    expected, _ = read_with_warnings(path)
    path.write_bytes(ID3 + ID3 + path.read_bytes())
    result, warnings = read_with_warnings(path)
    assert warnings == []
    np.testing.assert_array_equal(result, expected)
    assert read_tags(path).fields["title"] == "from the front"
    assert read_tags(path).fields["artist"] == "Müller & Łukasz"


@pytest.mark.parametrize("kind", BEHIND)
@pytest.mark.parametrize(
    ("name", "codec"),
    [("x.mp3", "libmp3lame"), ("x.aac", "aac"), ("x.flac", "flac"), ("x.wav", "pcm_s16le"), ("x.ogg", "libvorbis")],
)
def test_tags_behind_the_sound_are_no_damage(tmp_path: Path, name: str, codec: str, kind: str) -> None:
    path = song(tmp_path / name, codec)
    expected, _ = read_with_warnings(path)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + BEHIND[kind])
    with path.open("rb") as file:
        assert find_sound(file).stop == size
    result, warnings = read_with_warnings(path)
    assert warnings == []
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND.keys())
def test_tags_between_joined_songs_are_no_damage(tmp_path: Path, behind: bytes) -> None:
    path = song(tmp_path / "x.mp3", "libmp3lame")
    one = path.read_bytes()
    single, _ = read_with_warnings(path)
    path.write_bytes(one + behind + ID3 + one)
    result, warnings = read_with_warnings(path)
    assert warnings == []
    assert result.shape[1] == pytest.approx(2 * single.shape[1], abs=3 * 1152)


def test_a_file_of_tags_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(ID3V1 + ID3V1)
    with path.open("rb") as file:
        assert len(find_sound(file)) == 0
    path.write_bytes(b"")
    with path.open("rb") as file:
        assert find_sound(file) == range(0)


@pytest.mark.parametrize("size", [1, 3, 50, 5_000, 100_000])
@pytest.mark.parametrize(("name", "codec"), [("x.mp3", "libmp3lame"), ("x.aac", "aac"), ("x.flac", "flac")])
def test_zeros_behind_the_sound_are_no_damage(tmp_path: Path, name: str, codec: str, size: int) -> None:
    path = song(tmp_path / name, codec)
    expected, _ = read_with_warnings(path)
    path.write_bytes(path.read_bytes() + bytes(size))
    result, warnings = read_with_warnings(path)
    assert warnings == []
    # FFmpeg mistrusts the header of an MP3 that is far too large, and no longer cuts the encoder's padding.
    assert 0 <= result.shape[1] - expected.shape[1] < (1_152 if name == "x.mp3" and size > 100 else 1)
    np.testing.assert_array_equal(result[:, : expected.shape[1]], expected)
