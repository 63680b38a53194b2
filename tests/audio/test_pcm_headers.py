"""Uncompressed files whose headers state no size, a wrong one, or more than there is."""

from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from support.sounds import RATE, bursts, read_with_warnings

from stemsplit.audio.pcm_headers import read_pcm_header
from stemsplit.audio.reading import open_reader
from stemsplit.audio.splice import whole
from stemsplit.errors import AudioError

FORMATS = ["WAV", "RF64", "W64", "AIFF", "AU", "CAF"]
SONG = bursts(length=3 * RATE)


def write(path: Path, format: str, channels: int = 2) -> bytearray:
    soundfile.write(
        path, SONG[:channels].T if channels < 3 else np.zeros((RATE, channels)), RATE, "PCM_16", format=format
    )
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("missing", [0.02, 0.3, 2.0])
def test_what_is_cut_off_is_told(tmp_path: Path, format: str, missing: float) -> None:
    path = tmp_path / "song"
    content = write(path, format)
    path.write_bytes(content[: -round(missing * RATE) * 4])
    result, warnings = read_with_warnings(path)
    assert result.shape[1] == pytest.approx(SONG.shape[1] - missing * RATE, abs=30)  # libsndfile pads some formats
    shown = f"{missing:.2f}" if missing < 0.1 else f"{missing:.1f}"
    assert warnings == [f"ends early: the last {shown} s could not be decoded"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", ["nothing", "all ones", "signed maximum"])
def test_a_size_that_nobody_went_back_to_write(tmp_path: Path, format: str, size: str) -> None:
    path = tmp_path / "song"
    content = write(path, format)
    order = "little" if format in ("WAV", "RF64", "W64") else "big"
    bits = 64 if format in ("RF64", "W64", "CAF") else 32
    value = {"nothing": 0, "all ones": 2**bits - 1, "signed maximum": 2 ** (bits - 1) - 1}[size]
    places = {
        "WAV": [4, content.find(b"data") + 4],
        "RF64": [20, 28],  # in ds64: that of the file, and that of the samples
        "W64": [16, content.find(b"data") + 16],
        "AIFF": [4, content.find(b"SSND") + 4],
        "AU": [8],
        "CAF": [content.find(b"data") + 4],
    }[format]
    for place in places:
        content[place : place + bits // 8] = value.to_bytes(bits // 8, order)
    path.write_bytes(content)
    result, warnings = read_with_warnings(path)
    assert warnings == []
    assert 0 <= result.shape[1] - SONG.shape[1] < 10  # what follows the samples in some formats
    np.testing.assert_allclose(result[:, : SONG.shape[1]], SONG, rtol=0, atol=2**-15)


@pytest.mark.parametrize("format", ["WAV", "RF64", "W64", "AIFF", "CAF"])
def test_surround_without_a_size(tmp_path: Path, format: str) -> None:
    path = tmp_path / "song"
    content = write(path, format, channels=6)
    data, sound = content.find(b"data"), content.find(b"SSND")
    place = {"WAV": data + 4, "RF64": 28, "W64": data + 16, "AIFF": sound + 4, "CAF": data + 4}[format]
    size = 4 if format in ("WAV", "AIFF") else 8
    content[place : place + size] = bytes(size)
    path.write_bytes(content)
    result, warnings = read_with_warnings(path)
    assert result.shape == (2, RATE)
    assert warnings == ["has 6 channels, which are downmixed to 2"]


@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU"])
def test_sizes_of_32_bits_that_have_wrapped(tmp_path: Path, format: str) -> None:
    path = tmp_path / "song"
    content = write(path, format)
    place = {"WAV": content.find(b"data") + 4, "AIFF": content.find(b"SSND") + 4, "AU": 8}[format]
    head = {"WAV": place + 4, "AIFF": place + 12, "AU": 24 if format == "AU" else 0}[format]
    size = 2**32 + 40_000_000
    stated = size + (8 if format == "AIFF" else 0)
    content[place : place + 4] = (stated % 2**32).to_bytes(4, "little" if format == "WAV" else "big")
    with path.open("wb") as file:  # sparse
        file.write(content)
        file.truncate(head + size)
    with open_reader(path) as reader:
        assert reader.length == size // 4
        np.testing.assert_allclose(next(reader.blocks()), SONG[:, :65_536], rtol=0, atol=2**-15)


def test_an_empty_song_with_tags_behind_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    with soundfile.SoundFile(path, "w", RATE, 2) as file:
        file.title = "title"
    path.write_bytes(path.read_bytes() + b"LIST\4\0\0\0INFO")
    result, warnings = read_with_warnings(path)
    assert (result.shape, warnings) == ((2, 0), [])


@pytest.mark.parametrize("size", [2**50, 2**63 - 1, 2**63, 2**64 - 2**40])
def test_an_implausible_size_counts_as_unknown(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.w64"
    content = write(path, "W64")
    place = content.find(b"data") + 16
    content[place : place + 8] = size.to_bytes(8, "little")
    path.write_bytes(content)
    with path.open("rb") as file:
        header = read_pcm_header(file, whole(file))
    assert header
    assert header.stated_length is None
    result, warnings = read_with_warnings(path)
    np.testing.assert_allclose(result[:, : SONG.shape[1]], SONG, rtol=0, atol=2**-15)
    assert warnings == []


def test_compressed_sound_in_wav_is_told_when_it_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, SONG.T, RATE, "MS_ADPCM")
    path.write_bytes(path.read_bytes()[:80_000])
    _, warnings = read_with_warnings(path)
    assert len(warnings) == 1
    assert warnings[0].startswith("ends early: the last 1.")


@pytest.mark.parametrize("content", [b"RIFF\0\0\0\0WAVEfmt ", b"RIFF" + b"\xff" * 4 + b"WAVE" * 9, b"caff"])
def test_damaged_headers_are_left_to_the_decoders(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert read_pcm_header(file, whole(file)) is None
    with pytest.raises(AudioError, match="cannot decode"):
        open_reader(path)
