"""What a reader withstands: odd, damaged and impossible files."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from stemsplit.audio.channels import match_channels
from stemsplit.audio.decoding import Block
from stemsplit.audio.reading import _regroup, open_reader
from stemsplit.errors import AudioError

RATE = 44_100  # Hz


def noise(channels: int, length: int) -> Block:
    return np.random.default_rng(3).uniform(-0.5, 0.5, (channels, length)).astype(np.float32)


def write(path: Path, samples: Block, rate: int = RATE, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples.T, rate, subtype=subtype)
    return path


def read(path: Path, size: int = 65_536) -> tuple[Block, list[str]]:
    with open_reader(path) as reader:
        blocks = [np.zeros((reader.channels, 0), np.float32), *reader.blocks(size)]
        return np.concatenate(blocks, axis=1), reader.warnings


def refusal(path: Path) -> str:
    """What is said when `path` is opened, or at the latest while it is read."""
    with pytest.raises(AudioError) as caught:
        read(path)
    assert caught.value.hint
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("size", [1, 777, 65_536, 1_000_000])
def test_blocks_of_any_size_are_the_same_song(tmp_path: Path, size: int) -> None:
    song = noise(2, 3_001)
    result, warnings = read(write(tmp_path / "x.wav", song), size)
    np.testing.assert_array_equal(result, song)
    assert warnings == []


@pytest.mark.full
@given(st.lists(st.integers(0, 40)), st.integers(1, 50))
def test_regrouping(lengths: list[int], size: int) -> None:
    song = noise(2, sum(lengths))
    blocks = np.split(song, np.cumsum(lengths[:-1], dtype=int), axis=1) if lengths else []
    regrouped = list(_regroup(blocks, size))
    assert all(block.shape[1] == size for block in regrouped[:-1])
    assert all(0 < block.shape[1] <= size for block in regrouped[-1:])
    np.testing.assert_array_equal(np.concatenate([song[:, :0], *regrouped], axis=1), song)


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("name", ["x.wav", "x.aiff", "x.ogg"])
def test_next_to_nothing(tmp_path: Path, name: str, length: int) -> None:
    soundfile.write(tmp_path / name, np.zeros((length, 1)), 48_000)
    with open_reader(tmp_path / name) as reader:
        assert (reader.rate, reader.channels, reader.length or 0) == (48_000, 1, length)
        assert [block.shape for block in reader.blocks()] == [(1, 1)] * length
        assert reader.warnings == []


def test_flac_without_samples(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.flac", np.zeros((1, 2)), RATE)
    head = bytearray((tmp_path / "x.flac").read_bytes()[: 4 + 4 + 34])
    head[4] |= 0x80  # the last block of metadata
    head[8 + 13 : 8 + 18] = bytes([head[8 + 13] & 0xF0, 0, 0, 0, 0])  # total samples
    (tmp_path / "x.flac").write_bytes(head)
    with open_reader(tmp_path / "x.flac") as reader:
        assert (reader.rate, reader.channels, list(reader.blocks())) == (RATE, 2, [])


def test_beyond_full_scale_is_kept(tmp_path: Path) -> None:
    song = 5 * noise(2, 100)
    np.testing.assert_array_equal(read(write(tmp_path / "x.wav", song))[0], song)


@pytest.mark.parametrize("channels", [2, 6])
def test_what_is_not_a_number_becomes_silence(tmp_path: Path, channels: int) -> None:
    song = noise(channels, 1_000)
    song[0, 10], song[1, 20], song[0, 999] = np.nan, np.inf, -np.inf
    result, warnings = read(write(tmp_path / "x.wav", song), 100)
    assert np.isfinite(result).all()
    assert result[0, 10] == result[1, 20] == result[0, 999] == 0
    assert np.count_nonzero(result) >= result.size - 6
    assert len(warnings) == 1 + (channels > 2)  # and that it is downmixed
    assert "not a number" in warnings[-1]
    if channels == 2:
        assert " 3 sample(s)" in warnings[-1]


def test_a_double_too_large_for_a_float_becomes_silence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.array([0.5, 1e300]), RATE, subtype="DOUBLE")
    result, warnings = read(tmp_path / "x.wav")
    np.testing.assert_array_equal(result, [[0.5, 0]])
    assert len(warnings) == 1


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("x.mp3", None),
        ("x.wav", "PCM_16"),
        ("x.wav", "PCM_24"),
        ("x.aiff", "PCM_16"),
        ("x.flac", "PCM_16"),
        ("x.ogg", "VORBIS"),
        ("x.ogg", "OPUS"),
    ],
)
def test_what_is_left_of_a_truncated_file_is_read(tmp_path: Path, name: str, subtype: str | None) -> None:
    rate, length = 48_000, 480_000
    soundfile.write(tmp_path / name, noise(2, length).T, rate, subtype=subtype)
    whole, warnings = read(tmp_path / name)
    assert whole.shape == (2, length)
    assert warnings == []
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) * 6 // 10])
    result, warnings = read(tmp_path / name)
    assert 0.45 * length < result.shape[1] < 0.65 * length
    np.testing.assert_allclose(result, whole[:, : result.shape[1]], rtol=0, atol=1e-3 if subtype is None else 0)
    if subtype not in ("VORBIS", "OPUS"):  # they tell their length at the end, which is gone
        missing = (length - result.shape[1]) / rate
        assert warnings == [f"{str(tmp_path / name)!r} ends early: the last {missing:.1f} s could not be decoded"]


def test_nothing_left_of_a_truncated_file(tmp_path: Path) -> None:
    write(tmp_path / "x.wav", noise(2, RATE))
    (tmp_path / "x.wav").write_bytes((tmp_path / "x.wav").read_bytes()[:80])
    assert "cannot decode" in refusal(tmp_path / "x.wav")


@pytest.mark.full
def test_only_the_headers_of_a_song_are_left(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.ogg", noise(2, 10 * RATE).T, RATE)
    content = bytearray((tmp_path / "x.ogg").read_bytes())
    pages = [place for place in range(len(content)) if content.startswith(b"OggS", place)]
    content[pages[2] : pages[-1]] = bytes(pages[-1] - pages[2])
    content[pages[-1] + 200 :] = bytes(len(content) - pages[-1] - 200)
    (tmp_path / "x.ogg").write_bytes(content)
    assert "cannot decode" in refusal(tmp_path / "x.ogg")


def test_tags_in_another_encoding(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "x.flac", "w", RATE, 2) as file:
        file.title = "HERE"
        file.write(noise(2, 100).T)
    content = (tmp_path / "x.flac").read_bytes()
    assert b"HERE" in content
    (tmp_path / "x.flac").write_bytes(content.replace(b"HERE", b"\xe4\xff\xfe\x80"))
    assert read(tmp_path / "x.flac")[0].shape == (2, 100)


@pytest.mark.parametrize("announced", [0, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_length_that_nobody_went_back_to_correct(tmp_path: Path, announced: int) -> None:
    """As written by programs that were killed, or that wrote into a pipe."""
    song = noise(1, 5_000)
    write(tmp_path / "x.wav", song, subtype="PCM_16")
    content = bytearray((tmp_path / "x.wav").read_bytes())
    place = content.index(b"data") + 4
    content[4:8] = content[place : place + 4] = announced.to_bytes(4, "little")
    (tmp_path / "x.wav").write_bytes(content)
    result, warnings = read(tmp_path / "x.wav")
    np.testing.assert_allclose(result, song, rtol=0, atol=2**-15)
    assert warnings == []


@pytest.mark.full
@pytest.mark.parametrize("name", ["x.mp3", "x.flac", "x.ogg"])
def test_damage_in_the_middle_is_skipped(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, noise(2, 300_000).T, RATE)
    content = bytearray((tmp_path / name).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = random.Random(5).randbytes(20_000)
    (tmp_path / name).write_bytes(content)
    result, warnings = read(tmp_path / name)
    assert 100_000 < result.shape[1] <= 300_000
    assert np.isfinite(result).all()
    assert result.shape[1] > 275_000 or warnings


def test_impossible_files(tmp_path: Path) -> None:
    (tmp_path / "text.mp3").write_text("This is a text. " * 500)
    (tmp_path / "short.wav").write_bytes(b"RIFF")
    (tmp_path / "garbage.mp3").write_bytes(random.Random(1).randbytes(100_000))
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "folder.mp3").mkdir()
    (tmp_path / "link.mp3").symlink_to("nowhere.mp3")
    os.mkfifo(tmp_path / "pipe.mp3")
    said = {path.stem: refusal(path) for path in sorted(tmp_path.iterdir())}
    expected = {
        "text": "cannot decode",
        "short": "cannot decode",
        "garbage": "cannot decode",
        "empty": "is empty",
        "folder": "is a folder",
        "link": "is a link to a missing file",
        "pipe": "is not a regular file",
    }
    assert said.keys() == expected.keys()
    assert [(name, said[name]) for name in said if expected[name] not in said[name]] == []
    assert "there is no file" in refusal(tmp_path / "missing.mp3")
    assert "cannot read" in refusal(tmp_path / "text.mp3" / "x.mp3")
    assert "cannot read" in refusal(tmp_path / ("x" * 300))
    assert "cannot read" in refusal(Path("null\0character"))
    assert "is not a regular file" in refusal(Path("/dev/zero"))


def test_pictures_have_no_sound(tmp_path: Path) -> None:
    picture = b"P6 16 16 255\n" + bytes(16 * 16 * 3)
    (tmp_path / "x.ppm").write_bytes(picture)
    assert "has no audio" in refusal(tmp_path / "x.ppm")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_no_permission(tmp_path: Path) -> None:
    write(tmp_path / "x.wav", noise(1, 10)).chmod(0)
    me = os.geteuid()
    if me == 0:
        tmp_path.chmod(0o755)
        os.seteuid(65_534)  # root may read everything
    try:
        with pytest.raises(AudioError, match="cannot read"):
            open_reader(tmp_path / "x.wav")
    finally:
        os.seteuid(me)


NAMES = [
    "a song [live] (2).wav",
    "50% off: 'x' \"y\" $HOME.wav",
    "🎵 𝄞.wav",
    "two\nlines\t\x1b[31m.wav",
    "x.raw",
    "-.mp3",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])  # one decoder, the other
def test_odd_names(tmp_path: Path, name: str, channels: int) -> None:
    write(tmp_path / "plain.wav", noise(channels, 100)).rename(tmp_path / name)
    assert read(tmp_path / name)[0].shape[1] == 100
    (tmp_path / name).write_text("no song")
    assert refusal(tmp_path / name)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("channels", [1, 3])
def test_names_that_are_not_utf8(tmp_path: Path, channels: int) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.wav"))
    write(tmp_path / "plain.wav", noise(channels, 100)).rename(odd)
    assert read(odd)[0].shape[1] == 100


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.mp3"])
def test_closing_in_the_middle(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, noise(2, 200_000).T, RATE)
    with open_reader(tmp_path / name) as reader:
        assert next(reader.blocks(100)).shape == (2, 100)
        file = reader._file
    reader.close()
    assert file.closed


@pytest.mark.full
def test_decoders_are_quiet_and_ffmpeg_is_not_loaded_for_wav(tmp_path: Path) -> None:
    for name in ["x.wav", "x.mp3", "x.flac"]:
        soundfile.write(tmp_path / name, noise(2, 100_000).T, RATE)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-10_000])
    program = """
import sys
from pathlib import Path
from stemsplit.audio.reading import open_reader
for name in sys.argv[1:]:
    with open_reader(Path(name)) as reader:
        for block in reader.blocks():
            pass
    assert ("av" in sys.modules) == (not name.endswith(".wav")), name
assert not {"torch", "soxr"} & set(sys.modules)
"""
    names = [str(tmp_path / name) for name in ["x.wav", "x.mp3", "x.flac"]]
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_match_channels() -> None:
    mono, stereo = noise(1, 5), noise(2, 7)
    both = [mono, stereo]
    np.testing.assert_array_equal(next(match_channels([mono], 2)), np.concatenate([mono, mono]))
    np.testing.assert_allclose(next(match_channels([stereo], 1)), (stereo[:1] + stereo[1:]) / 2, rtol=1e-6)
    assert [block.shape for block in match_channels(both, 2)] == [(2, 5), (2, 7)]
    assert next(match_channels([stereo], 2)) is stereo
    assert all(block.flags.c_contiguous for channels in (1, 2) for block in match_channels(both, channels))
    with pytest.raises(ValueError, match="3 channels"):
        next(match_channels([noise(3, 1)], 2))
