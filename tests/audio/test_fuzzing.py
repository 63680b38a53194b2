"""Songs damaged at random: they are read, or refused with a sentence, within bounds; nothing else happens."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.mutations import mutate
from support.sounds import RATE, bursts, encode

from stemsplit.audio.formats import Format
from stemsplit.audio.reading import open_reader
from stemsplit.audio.tags import Picture, Tags, read_tags
from stemsplit.audio.writing import StemWriter
from stemsplit.errors import AudioError

CASES = 40  # of each format
CPU_SECONDS = 20  # for one of them; a hundred times what is usual
SAMPLES = 20_000_000
MEGABYTES = 600

FORMATS = [
    ("x.wav", "pcm_s16le"),
    ("surround.wav", "pcm_s24le"),
    ("float.wav", "pcm_f32le"),
    ("x.w64", "pcm_s16le"),
    ("x.aiff", "pcm_s16be"),
    ("x.caf", "pcm_s16le"),
    ("x.mp3", "libmp3lame"),
    ("x.flac", "flac"),
    ("x.ogg", "libvorbis"),
    ("x.opus", "libopus"),
    ("x.m4a", "aac"),
    ("alac.m4a", "alac"),
    ("x.aac", "aac"),
    ("x.mka", "aac"),
    ("x.wma", "wmav2"),
]
TAGGED = ["wav", "mp3", "flac", "ogg", "opus", "m4a"]


def peak_memory() -> float:
    """The most memory that this process has had, in MB; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0.0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def assert_is_survived(path: Path) -> None:
    began, count = time.process_time(), 0
    try:
        with open_reader(path) as reader:
            for block in reader.blocks():
                assert np.isfinite(block).all()
                assert block.shape[0] == reader.channels in (1, 2)
                count += block.shape[1]
                assert count < SAMPLES
            assert all(warning.isprintable() for warning in reader.warnings)
    except AudioError as error:
        assert str(error).isprintable()
        assert error.hint
    for text in read_tags(path).fields.values():
        assert text.encode()
    assert time.process_time() - began < CPU_SECONDS


@pytest.mark.full
@pytest.mark.parametrize(("name", "codec"), FORMATS)
def test_decoders(tmp_path: Path, name: str, codec: str, capfd: pytest.CaptureFixture[str]) -> None:
    layout = "5.1" if "surround" in name else "stereo"
    rate = 48_000 if codec == "libopus" else RATE
    path = encode(tmp_path / name, bursts(6 if layout == "5.1" else 2, 12_000), codec, rate=rate, layout=layout)
    content = path.read_bytes()
    before = peak_memory()
    for seed in range(CASES):
        path.write_bytes(mutate(content, seed))
        assert_is_survived(path)
    assert peak_memory() - before < MEGABYTES
    assert capfd.readouterr() == ("", "")


@pytest.mark.full
@pytest.mark.parametrize("format", TAGGED)
def test_tags(tmp_path: Path, format: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"x{Format(format).extension}"
    tags = Tags({"title": "Löng title " * 5, "comment": "x" * 300, "date": "2020", "bpm": "120"}, picture())
    with StemWriter([path], rate=48_000, channels=2, format=Format(format), tags=[tags]) as writer:
        writer.write(bursts(length=2_000)[None])
    content = path.read_bytes()
    for seed in range(CASES):
        path.write_bytes(mutate(content, seed))
        assert_is_survived(path)
    assert capfd.readouterr() == ("", "")


def picture() -> Picture:
    """The smallest PNG: a pixel."""
    data = bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154"
        "789c63f8cfc000000301010018dd8db00000000049454e44ae426082"
    )
    return Picture(data, "png", 1, 1)
