"""Comments in Ogg files: as they were given, with every sample in its place."""

import base64
import io
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from stemsplit.audio import vorbis_comments
from stemsplit.audio.ogg_pages import checksum
from stemsplit.audio.tags import Picture, Tags

RATE = 44_100


def vorbis(length: int = 30_000, channels: int = 2) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (length, channels))
    soundfile.write(file, noise, RATE, format="OGG", subtype="VORBIS")
    return file.getvalue()


def pages(file: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(file):
        assert file[at : at + 4] == b"OggS"
        count = file[at + 26]
        size = 27 + count + sum(file[at + 27 : at + 27 + count])
        yield file[at : at + size]
        at += size


def retagged(file: bytes, comments: dict[str, str]) -> bytes:
    target = io.BytesIO()
    vorbis_comments.retag(io.BytesIO(file), target, comments)
    return target.getvalue()


def test_the_checksum_is_the_one_that_libogg_writes() -> None:
    for page in pages(vorbis()):
        expected = int.from_bytes(page[22:26], "little")
        assert checksum(page[:22] + bytes(4) + page[26:]) == expected


@pytest.mark.parametrize("length", [0, 1, 100, 30_000])
@pytest.mark.parametrize("size", [1, 100, 254, 255, 256, 4_000, 64_000, 65_025, 500_000])
def test_sound_stays_and_comments_change(length: int, size: int) -> None:
    before = vorbis(length)
    after = retagged(before, {"TITLE": "Söng", "LONG": "x" * size})
    for original, number in zip(pages(after), range(10**6), strict=False):
        assert struct.unpack_from("<II", original, 14) == (1, number)
        assert checksum(original[:22] + bytes(4) + original[26:]) == int.from_bytes(original[22:26], "little")
    old, _ = soundfile.read(io.BytesIO(before))
    with soundfile.SoundFile(io.BytesIO(after)) as new:
        assert new.title == "Söng"
        np.testing.assert_array_equal(new.read(), old)
    if length == 30_000:
        with av.open(io.BytesIO(after), "r") as container:
            assert container.streams.audio[0].metadata == {"TITLE": "Söng", "LONG": "x" * size}
            assert sum(frame.samples for frame in container.decode(audio=0)) == length


def test_the_random_serial_number_goes() -> None:
    first, second = vorbis(), vorbis()
    assert first != second
    assert retagged(first, {}) == retagged(second, {})


@pytest.mark.full
@given(
    st.lists(st.binary(max_size=3_000) | st.sampled_from([b"x" * n for n in (255, 510, 65_025, 70_000)]), min_size=2)
)
def test_packets_survive_being_split(packets: list[bytes]) -> None:
    split = list(vorbis_comments._split(packets))
    assert all(len(page.segments) == 255 for page in split[:-1])
    assert all(len(page.body) == sum(page.segments) for page in split)
    for page, before in zip(split[1:], split, strict=False):
        assert (page.flags == 1) == (before.segments[-1] == 255)
    if len(packets) == 2:
        assert vorbis_comments._read_header_packets(iter(split)) == tuple(packets)


def test_a_picture_is_a_flac_block() -> None:
    block = base64.b64decode(vorbis_comments.picture_comment(Picture(b"data", "mjpeg", 640, 480)))
    kind, size = struct.unpack_from(">II", block)
    assert (kind, block[8 : 8 + size]) == (3, b"image/jpeg")
    assert struct.unpack_from(">IIIIII", block, 8 + size) == (0, 640, 480, 24, 0, 4)
    assert block[8 + size + 24 :] == b"data"


def test_names_of_comments() -> None:
    tags = Tags({"title": "a", "album_artist": "b", "track": "3/12", "key": "Am"})
    assert vorbis_comments.comments(tags) == {
        "TITLE": "a",
        "ALBUMARTIST": "b",
        "TRACKNUMBER": "3/12",
        "INITIALKEY": "Am",
    }


@pytest.mark.parametrize("cut", [0, 10, 40, 60, 3_000, -1])
def test_incomplete_files_are_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="Ogg"):
        retagged(vorbis()[:cut], {})


def test_other_files_are_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.ogg"), "w") as container:
        stream = container.add_stream("libopus", rate=48_000)
        assert isinstance(stream, av.AudioStream)
        container.start_encoding()
        container.mux(stream.encode(None))
    for content in (b"RIFF" + bytes(100), (tmp_path / "x.ogg").read_bytes()):
        with pytest.raises(ValueError, match="Ogg"):
            retagged(content, {})
