"""Several recordings in one file, whatever they are, are one song; and what damaged pages of Ogg cost."""

from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from support.sounds import RATE, bursts, encode, lag, read, read_with_warnings

from stemsplit.audio.links import find_links
from stemsplit.audio.ogg_pages import checksum, page_size
from stemsplit.audio.reading import open_reader
from stemsplit.audio.splice import whole

CODECS = [("libvorbis", RATE), ("libopus", 48_000), ("flac", RATE)]


def pages(content: bytes | bytearray) -> list[int]:
    return [place for place in range(len(content)) if content.startswith(b"OggS\0", place)]


def summed(content: bytes | bytearray) -> bytes:
    """The same pages with right checksums."""
    changed = bytearray(content)
    for place in pages(changed):
        changed[place + 22 : place + 26] = bytes(4)
        page = bytes(changed[place : place + page_size(changed[place:])])
        changed[place + 22 : place + 26] = checksum(page).to_bytes(4, "little")
    return bytes(changed)


def with_serial(content: bytes, serial: int) -> bytes:
    """The same stream with another serial number."""
    changed = bytearray(content)
    for place in pages(content):
        changed[place + 14 : place + 18] = serial.to_bytes(4, "little")
    return summed(changed)


@pytest.mark.parametrize("same_serial", [True, False])
@pytest.mark.parametrize(("codec", "rate"), CODECS)
def test_a_chain_is_read_to_its_end(tmp_path: Path, codec: str, rate: int, same_serial: bool) -> None:
    path = tmp_path / "x.ogg"
    one = with_serial(encode(path, bursts(), codec, rate=rate).read_bytes(), 7)
    expected = read(path)
    path.write_bytes(one + with_serial(one, 7 if same_serial else 8) + one)
    with path.open("rb") as file:
        assert find_links(file, whole(file)) == [
            range(start, start + len(one)) for start in (0, len(one), 2 * len(one))
        ]
    result, warnings = read_with_warnings(path)
    assert warnings == []
    np.testing.assert_array_equal(result, np.concatenate([expected] * 3, axis=1))
    with open_reader(path) as reader:
        assert reader.length == pytest.approx(3 * expected.shape[1], abs=3 * 960)
    with open_reader(path, random_access=True) as reader:
        assert reader.exact_length() == result.shape[1]
    with open_reader(path, random_access=True) as reader:
        np.testing.assert_array_equal(reader.excerpt(100_000, 5_000), result[:, 100_000:105_000])


def test_recordings_that_differ_become_alike(tmp_path: Path) -> None:
    jingle = encode(tmp_path / "jingle.ogg", bursts(1), "flac", rate=22_050, layout="mono").read_bytes()
    song = encode(tmp_path / "song.ogg", bursts(), "libopus", rate=48_000).read_bytes()
    (tmp_path / "x.ogg").write_bytes(jingle + song)
    with open_reader(tmp_path / "x.ogg") as reader:
        assert (reader.rate, reader.channels) == (48_000, 2)
    result, expected = read(tmp_path / "x.ogg"), read(tmp_path / "song.ogg")
    np.testing.assert_array_equal(result[:, -expected.shape[1] :], expected)
    assert result.shape[1] - expected.shape[1] == pytest.approx(bursts().shape[1] * 48_000 / RATE, abs=2)
    np.testing.assert_array_equal(result[0, :50_000], result[1, :50_000])


@pytest.mark.parametrize("tags", [b"", b"ID3\3\0\0\0\0\0\x20" + bytes(32)])
def test_joined_flac_is_read_to_its_end(tmp_path: Path, tags: bytes) -> None:
    jingle = encode(tmp_path / "jingle.flac", bursts(1), "flac", rate=22_050, layout="mono").read_bytes()
    song = encode(tmp_path / "song.flac", bursts(), "flac").read_bytes()
    (tmp_path / "x.flac").write_bytes(jingle + tags + song)
    result, warnings = read_with_warnings(tmp_path / "x.flac")
    expected = read(tmp_path / "song.flac")
    assert warnings == []
    assert result.shape == (2, pytest.approx(2 * expected.shape[1], abs=4))
    np.testing.assert_array_equal(result[:, -expected.shape[1] :], expected)


def test_a_recording_that_cannot_be_decoded_is_told(tmp_path: Path) -> None:
    one = encode(tmp_path / "x.ogg", bursts(), "libvorbis").read_bytes()
    expected = read(tmp_path / "x.ogg")
    broken = bytearray(one)
    broken[28:60] = bytes(32)  # its first header
    (tmp_path / "x.ogg").write_bytes(one + broken + one)
    result, warnings = read_with_warnings(tmp_path / "x.ogg")
    np.testing.assert_array_equal(result, np.concatenate([expected] * 2, axis=1))
    assert warnings == ["is damaged: 1 block(s) could not be decoded and were skipped"]


@pytest.mark.parametrize(("codec", "rate"), CODECS)
def test_the_time_of_the_first_sample_is_no_part_of_the_length(tmp_path: Path, codec: str, rate: int) -> None:
    hour = tmp_path / "hour.ogg"
    if codec == "libvorbis":
        content = bytearray(encode(hour, bursts(), codec).read_bytes())
        for place in pages(content)[2:]:
            position = int.from_bytes(content[place + 6 : place + 14], "little") + 3600 * RATE
            content[place + 6 : place + 14] = position.to_bytes(8, "little")
        hour.write_bytes(summed(content))
    else:
        encode(hour, bursts(), codec, rate=rate, begin=3600 * RATE)
    result, warnings = read_with_warnings(hour)
    assert warnings == []
    if codec != "flac":  # where FFmpeg takes the first sample to be at 0
        with open_reader(hour) as reader:
            assert reader.length == pytest.approx(result.shape[1], abs=4_000)
    assert result.shape[1] == pytest.approx(bursts().shape[1] * rate / RATE, abs=2_000)


@pytest.mark.parametrize("position", [0, 1, -1, 2**62])
def test_a_wrong_last_position_costs_nothing(tmp_path: Path, position: int) -> None:
    path = tmp_path / "x.ogg"
    soundfile.write(path, bursts().T, RATE)
    expected = read(path)
    content = bytearray(path.read_bytes())
    last = pages(content)[-1]
    content[last + 6 : last + 14] = position.to_bytes(8, "little", signed=True)
    path.write_bytes(summed(content))
    result, warnings = read_with_warnings(path)
    assert warnings == []
    assert expected.shape[1] <= result.shape[1] <= expected.shape[1] + 2_048  # the end of its last block
    np.testing.assert_allclose(result[:, : expected.shape[1]], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("codec", "rate"), CODECS)
def test_a_song_that_ends_within_a_page_is_cut_off(tmp_path: Path, codec: str, rate: int) -> None:
    path = tmp_path / "x.ogg"
    content = encode(path, bursts(), codec, rate=rate).read_bytes()
    path.write_bytes(content[: pages(content)[-1] + 40])
    result, warnings = read_with_warnings(path)
    assert result.shape[1] > 0
    assert warnings == ["ends early: the file was cut off"]


def test_sound_beside_pictures_is_one_recording(tmp_path: Path) -> None:
    one = encode(tmp_path / "x.ogg", bursts(), "libvorbis").read_bytes()
    begin = pages(one)[1]
    other = with_serial(one, 99)
    (tmp_path / "x.ogg").write_bytes(one[:begin] + other[:begin] + one[begin:])
    with (tmp_path / "x.ogg").open("rb") as file:
        assert len(find_links(file, whole(file))) == 1
    assert lag(read(tmp_path / "x.ogg"), bursts()) == 0
