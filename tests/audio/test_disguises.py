"""Compressed sound in files that claim to hold PCM is decoded as what it is, or refused; it is never noise."""

import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from support.sounds import RATE, bursts, encode, lag, read, read_with_warnings

from stemsplit.errors import AudioError

SONG = bursts(length=3 * RATE)


def label_as_pcm(path: Path, data: bytes, *, rate: int = 48_000, width: int = 2) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((2, width, rate, 0, "NONE", ""))
        file.writeframes(data + bytes(-len(data) % (2 * width)))


@pytest.mark.parametrize("silence", [0, 2_048])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("x.ac3", "ac3"), ("x.mp3", "libmp3lame"), ("x.aac", "aac"), ("x.flac", "flac")],
)
def test_frames_are_decoded(tmp_path: Path, name: str, codec: str, silence: int) -> None:
    options = {"write_xing": "0", "id3v2_version": "0"} if name == "x.mp3" else None
    path = encode(tmp_path / name, SONG, codec, rate=48_000, bit_rate=192_000, options=options)
    expected = read(path)
    label_as_pcm(tmp_path / "x.wav", bytes(silence) + path.read_bytes())
    result, warnings = read_with_warnings(tmp_path / "x.wav")
    assert warnings == []
    np.testing.assert_allclose(result[:, : expected.shape[1]], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("swapped", [False, True])
def test_bursts_for_receivers_are_decoded(tmp_path: Path, swapped: bool) -> None:
    path = encode(tmp_path / "x.ac3", SONG, "ac3", rate=48_000, bit_rate=192_000)
    bursts = io.BytesIO()
    with av.open(str(path)) as source, av.open(bursts, "w", format="spdif") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    data = bursts.getvalue()
    if swapped:
        data = np.frombuffer(data, "<u2").byteswap().tobytes()
    label_as_pcm(tmp_path / "x.wav", data)
    try:
        result = read(tmp_path / "x.wav")
    except AudioError as error:
        assert "compressed in a way that cannot be read there" in str(error)  # FFmpeg has no reader for that order
    else:
        assert abs(lag(result, read(path))) <= 1536
        assert np.abs(result).max() < 0.6


# Of IEC 61937 in 24 and 32 bits, and of DTS in 16 and 14 bits; PyAV has no encoder for DTS.
SYNCS = ["72f8001f4e", "72f800001f4e", "7ffe8001", "fe7f0180", "1fffe800", "ff1f00e8"]


@pytest.mark.parametrize("sync", SYNCS)
def test_what_cannot_be_read_there_is_refused(tmp_path: Path, sync: str) -> None:
    burst = bytes.fromhex(sync) + np.random.default_rng(0).bytes(6_000)
    label_as_pcm(tmp_path / "x.wav", burst * 40, width=3)
    with pytest.raises(AudioError, match="it claims to be PCM, but its sound is compressed"):
        read(tmp_path / "x.wav")


@pytest.mark.full
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_noise_is_noise(tmp_path: Path, subtype: str) -> None:
    noise = np.random.default_rng(1).uniform(-1, 1, (10 * RATE, 2)).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", noise, RATE, subtype)
    np.testing.assert_allclose(read(tmp_path / "x.wav"), noise.T, rtol=0, atol=2**-15)
