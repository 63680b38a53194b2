"""Damaged songs: what can be decoded keeps its place in time, what is lost is told, and nothing else is."""

import errno
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from support.sounds import RATE, bursts, encode, lag, read, read_with_warnings

from stemsplit.audio.reading import Reader, open_reader
from stemsplit.audio.sources import open_source
from stemsplit.audio.splice import Splice
from stemsplit.audio.timeline import Timeline
from stemsplit.errors import AudioError

SONG = bursts(length=6 * RATE)
CODECS = [
    ("x.mp3", "libmp3lame"),
    ("x.aac", "aac"),
    ("x.flac", "flac"),
    ("x.ogg", "libvorbis"),
    ("x.opus", "libopus"),
    ("x.m4a", "aac"),
    ("alac.m4a", "alac"),
    ("x.mka", "aac"),
    ("x.ac3", "ac3"),
    ("x.wv", "wavpack"),
    ("x.ts", "mp2"),
    ("x.tta", "tta"),
    ("x.wma", "wmav2"),
    ("x.webm", "libopus"),
    ("x.flv", "libmp3lame"),
    ("x.avi", "libmp3lame"),
    ("flac.ogg", "flac"),
    ("x.mp2", "mp2"),
    ("x.wav", "adpcm_ms"),
]


def rate_of(codec: str) -> int:
    return 48_000 if codec == "libopus" else RATE


@pytest.mark.full
@pytest.mark.parametrize(("name", "codec"), CODECS)
def test_nothing_is_told_of_whole_songs(tmp_path: Path, name: str, codec: str) -> None:
    _, warnings = read_with_warnings(encode(tmp_path / name, SONG, codec, rate=rate_of(codec)))
    assert warnings == []


# ADPCM and ALAC have no checksums; in AVI, timestamps only count what is found.
HOLES = [case for case in CODECS if case[0] not in ("x.wav", "x.tta", "alac.m4a", "x.avi")]


@pytest.mark.full
@pytest.mark.parametrize(("name", "codec"), HOLES)
@pytest.mark.parametrize("damage", [1_500, 20_000])
def test_what_follows_a_hole_keeps_its_place(tmp_path: Path, name: str, codec: str, damage: int) -> None:
    path = encode(tmp_path / name, SONG, codec, rate=rate_of(codec))
    whole = read(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + damage] = bytes(damage)
    path.write_bytes(content)
    result, warnings = read_with_warnings(path)
    rate = rate_of(codec)
    place = lag(result[:, -rate:], whole[:, -rate:])
    frame = 0.03 * rate if name in ("x.mp3", "x.aac", "x.ac3", "x.mp2") else 0.005 * rate  # where frames are counted
    assert abs(result.shape[1] - whole.shape[1]) <= frame
    assert abs(place) <= frame
    assert len(warnings) == 1
    assert warnings[0].startswith("is damaged: ")


def test_the_hole_is_told_with_its_place(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.flac", SONG, "flac")
    whole = read(path)
    content = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    begin, end = (sum(size for _, size in packets[:count]) for count in (20, 25))
    start = len(content) - sum(size for _, size in packets)
    path.write_bytes(content[: start + begin] + content[start + end :])
    result, warnings = read_with_warnings(path)
    assert warnings == ["is damaged: 522 ms at 2.1 s could not be decoded and is silent"]
    assert result.shape == whole.shape
    np.testing.assert_array_equal(result[:, : 20 * 4608], whole[:, : 20 * 4608])
    np.testing.assert_array_equal(result[:, 20 * 4608 : 25 * 4608], 0)
    np.testing.assert_array_equal(result[:, 25 * 4608 :], whole[:, 25 * 4608 :])


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("x.mp3", "libmp3lame"),
        ("x.flac", "flac"),
        ("x.wv", "wavpack"),
        ("x.tta", "tta"),
        ("x.m4a", "aac"),
        ("alac.m4a", "alac"),
        ("x.mka", "flac"),
        ("x.wav", "adpcm_ms"),
    ],
)
def test_every_container_that_states_a_length_tells_when_it_is_cut_off(tmp_path: Path, name: str, codec: str) -> None:
    options = {"movflags": "faststart"} if name.endswith("m4a") else None
    path = encode(tmp_path / name, SONG, codec, options=options)
    whole = read(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    result, warnings = read_with_warnings(path)
    assert len(warnings) == 1
    told = float(warnings[0].removeprefix("ends early: the last ").removesuffix(" s could not be decoded"))
    assert told == pytest.approx((whole.shape[1] - result.shape[1]) / RATE, abs=0.1)
    assert 1.5 < told < 3.5


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "codec"), [("x.wma", "wmav2"), ("x.avi", "libmp3lame"), ("film.mka", "flac"), ("x.webm", "libopus")]
)
def test_other_containers_tell_that_they_are_cut_off(tmp_path: Path, name: str, codec: str) -> None:
    path = encode(tmp_path / name, SONG, codec, rate=rate_of(codec))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    _, warnings = read_with_warnings(path)
    assert [warning for warning in warnings if warning.startswith("ends early: ")]


def test_next_to_nothing_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.flac", bursts(length=60 * RATE), "flac")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 40])
    with pytest.raises(AudioError, match=r"cannot decode .*: only 1\.\d s of 1:00 min can be decoded"):
        read(path)


@pytest.mark.parametrize("name", ["x.m4a", "x.mp4"])
def test_encryption_is_named(tmp_path: Path, name: str) -> None:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16, "encryption_kid": "a7" * 16}
    path = encode(tmp_path / name, SONG, "aac", options=key)
    with pytest.raises(AudioError, match=r"cannot decode .*: it is encrypted"):
        open_reader(path)


def test_encryption_by_a_shop_is_named(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.m4p", SONG, "aac", format="ipod")
    path.write_bytes(path.read_bytes().replace(b"mp4a\0\0\0\0", b"drms\0\0\0\0", 1))
    with pytest.raises(AudioError, match="it is encrypted"):
        open_reader(path)


@pytest.mark.full
@pytest.mark.parametrize(("name", "codec"), [("x.m4a", "aac"), ("x.mp3", "libmp3lame"), ("x.mka", "aac")])
@pytest.mark.parametrize("seed", range(3))
def test_scrambled_sound_is_refused(tmp_path: Path, name: str, codec: str, seed: int) -> None:
    path = encode(tmp_path / name, SONG, codec)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            data = bytes(packet)
            place = content.find(data) if len(data) > 16 else -1
            if place >= 0:
                kept = 4 if name == "x.mp3" else 0  # its header
                noise = np.random.default_rng((seed, place)).bytes(len(data) - kept)
                content[place + kept : place + len(data)] = noise
    path.write_bytes(content)
    with pytest.raises(AudioError, match="cannot decode"):
        read(path)


@pytest.mark.parametrize("length", [2**36 - 1, 2**35])
def test_an_implausible_length_counts_as_unknown(tmp_path: Path, length: int) -> None:
    path = encode(tmp_path / "x.flac", SONG, "flac")
    whole = read(path)
    content = bytearray(path.read_bytes())
    content[21] = content[21] & 0xF0 | length >> 32
    content[22:26] = (length % 2**32).to_bytes(4, "big")
    path.write_bytes(content)
    with open_reader(path) as reader:
        assert reader.length is None
    result, warnings = read_with_warnings(path)
    np.testing.assert_array_equal(result, whole)
    assert warnings == []


@pytest.mark.parametrize("box", [b"mdhd", b"mvhd", b"tkhd", b"elst"])
def test_an_implausible_length_in_an_mp4(tmp_path: Path, box: bytes) -> None:
    path = encode(tmp_path / "x.m4a", SONG, "aac")
    whole = read(path)
    content = bytearray(path.read_bytes())
    place = content.find(box) + {b"mdhd": 20, b"mvhd": 20, b"tkhd": 24, b"elst": 12}[box]
    content[place : place + 4] = b"\xff\xff\xff\xfe"
    path.write_bytes(content)
    result, warnings = read_with_warnings(path)
    assert abs(result.shape[1] - whole.shape[1]) <= 2_048
    assert warnings == []


def test_a_frame_count_in_an_mp3_that_cannot_be(tmp_path: Path) -> None:
    path = encode(tmp_path / "x.mp3", SONG, "libmp3lame")
    content = bytearray(path.read_bytes())
    place = content.find(b"Info") + 8
    content[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    result, warnings = read_with_warnings(path)
    assert result.shape[1] == pytest.approx(SONG.shape[1], abs=3 * 1152)
    assert warnings == []


@pytest.mark.parametrize("duration", [0, 1])
def test_an_edit_list_that_leaves_nothing_is_ignored(tmp_path: Path, duration: int) -> None:
    path = encode(tmp_path / "x.m4a", SONG, "aac")
    whole = read(path)
    content = bytearray(path.read_bytes())
    place = content.find(b"elst") + 12
    content[place : place + 4] = duration.to_bytes(4, "big")
    path.write_bytes(content)
    result, warnings = read_with_warnings(path)
    assert abs(result.shape[1] - whole.shape[1]) <= 2_048
    assert abs(lag(result, whole)) <= 0
    assert warnings == []


LATE = [
    ("x.mka", "flac"),
    ("x.webm", "libopus"),
    ("x.wma", "wmav2"),
    ("x.m4a", "aac"),
    ("x.ts", "mp2"),
    ("x.flv", "aac"),
]


@pytest.mark.parametrize(("name", "codec"), LATE)
def test_the_time_of_the_first_sample_is_no_part_of_the_length(tmp_path: Path, name: str, codec: str) -> None:
    path = encode(tmp_path / name, SONG, codec, rate=rate_of(codec), begin=3600 * RATE)
    result, warnings = read_with_warnings(path)
    assert warnings == []
    with open_reader(path) as reader:
        assert reader.length == pytest.approx(result.shape[1], abs=8_000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -1e30, 1e10, 1e300, -1e300, 1e6])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_wild_samples_become_silence(tmp_path: Path, value: float, channels: int, subtype: str) -> None:
    song = np.zeros((1_000, channels)) + 0.25
    song[500, 0] = value if subtype == "DOUBLE" or abs(value) < 4e38 else np.inf
    soundfile.write(tmp_path / "x.wav", song, RATE, subtype)
    result, warnings = read_with_warnings(tmp_path / "x.wav")
    assert np.abs(result).max() < 1
    assert result[0, 500] == 0
    assert np.count_nonzero(result == 0) <= 2
    expected = "sample(s) that are infinite, not a number, or louder than any sound; they were replaced by silence"
    assert warnings[-1].endswith(expected)


def test_floats_scaled_like_integers_are_kept(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", SONG.T * 2**15, RATE, "FLOAT")
    result, warnings = read_with_warnings(tmp_path / "x.wav")
    np.testing.assert_array_equal(result, SONG * 2**15)
    assert warnings == []


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("x.mp3", "libmp3lame", 44_100, "mono"),
        ("x.mp3", "libmp3lame", 22_050, "stereo"),
        ("x.mp3", "libmp3lame", 48_000, "mono"),
        ("x.mp2", "mp2", 22_050, "mono"),
        ("x.aac", "aac", 22_050, "mono"),
        ("x.aac", "aac", 44_100, "mono"),
        ("x.ac3", "ac3", 32_000, "mono"),
        ("x.ts", "mp2", 44_100, "mono"),
    ],
)
@pytest.mark.parametrize("jingle_first", [True, False])
def test_a_jingle_does_not_decide_rate_and_channels(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str, jingle_first: bool
) -> None:
    jingle = encode(tmp_path / f"jingle-{name}", bursts(1 if layout == "mono" else 2), codec, rate=rate, layout=layout)
    song = encode(tmp_path / f"song-{name}", SONG, codec)
    parts = [jingle, song] if jingle_first else [song, jingle]
    (tmp_path / name).write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_reader(tmp_path / name) as reader:
        assert (reader.rate, reader.channels) == (max(rate, RATE), 2)
    result, warnings = read_with_warnings(tmp_path / name)
    assert warnings == []
    expected = (SONG.shape[1] + bursts().shape[1]) * max(rate, RATE) / RATE
    assert result.shape[1] == pytest.approx(expected, abs=8_000)
    middle = result[:, 2 * RATE : 4 * RATE]
    assert np.std(middle[0] - middle[1]) > 0.5 * np.std(middle)  # stereo it is


def test_timestamps() -> None:
    timeline = Timeline(1_000, Fraction(1, 1_000), 0.01, None)
    assert timeline.hole_before(500, 0) == 0  # wherever it begins
    assert timeline.hole_before(600, 100) == 0
    assert timeline.hole_before(705, 200) == 0  # a little late
    assert timeline.hole_before(850, 300) == 50
    assert timeline.hole_before(950, 450) == 0
    assert timeline.hole_before(0, 2_000) == 0  # joined recordings
    assert timeline.hole_before(130, 2_100) == 30
    assert timeline.hole_before(10**9, 3_000) == 0  # another clock
    assert timeline.hole_before(10**9 + 130, 3_100) == 30


def test_a_hole_is_no_longer_than_the_song() -> None:
    timeline = Timeline(1_000, Fraction(1, 1_000), 0.01, 5_000)
    assert timeline.hole_before(0, 0) == 0
    assert timeline.hole_before(4_000, 100) == 3_900
    assert timeline.hole_before(9_000, 4_100) == 0
    timeline.lose(700)
    assert timeline.lost_before(4_200) == 700
    assert timeline.lost_before(4_900) == 0


def test_positions_before_the_beginning_are_ignored(tmp_path: Path) -> None:
    """FFmpeg asks for them in damaged files; an exception in its callback would be printed."""
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    with path.open("rb", buffering=0) as file:
        splice = Splice(file, b"ab", range(3, 6), b"", range(8, 10), b"yz")
        assert splice.read() == b"ab34589yz"
        assert splice.size == 9
        assert splice.seek(-1) == -1
        assert splice.seek(4) == 4
        assert splice.seek(-10, 1) == -1
        assert splice.tell() == 4
        assert splice.read(3) == b"589"
        assert splice.seek(-1, 2) == 8
        assert splice.read() == b"z"
        assert splice.read() == b""
        assert splice.seek(2**62) == 2**62
        assert splice.read() == b""


class FailingFile(io.FileIO):
    """A file on a disk that fails sooner or later."""

    fails = False

    def readinto(self, buffer: Any, /) -> int | None:
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")
        return super().readinto(buffer)


@pytest.mark.parametrize(("name", "codec"), [("x.wav", "pcm_s16le"), ("x.mp3", "libmp3lame"), ("x.ogg", "libvorbis")])
def test_a_disk_that_fails_is_told(tmp_path: Path, name: str, codec: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = encode(tmp_path / name, SONG, codec)
    with FailingFile(path) as file:
        reader = Reader(path, file, open_source(file, path))
        blocks = reader.blocks(1_000)
        next(blocks)
        file.fails = True
        with pytest.raises(AudioError, match=r"cannot read .*: Input/output error"):
            list(blocks)
        reader.close()
    assert capfd.readouterr() == ("", "")
