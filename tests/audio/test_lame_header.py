"""An MP3 is as long as its song, whatever its encoder has added."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stemsplit.audio.formats import Format
from stemsplit.audio.lame_header import checksum, write_padding
from stemsplit.audio.reading import open_reader
from stemsplit.audio.writing import StemWriter


def written(length: int, *, rate: int = 44_100, channels: int = 2) -> bytes:
    """An MP3 of noise as FFmpeg leaves it."""
    file = io.BytesIO()
    layout = "stereo" if channels == 2 else "mono"
    with av.open(file, "w", format="mp3") as container:
        container.metadata["title"] = "x" * 300  # the note of the length is farther back
        stream = container.add_stream("libmp3lame", rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, (channels, length)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, "fltp", layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def test_the_checksum_is_the_one_that_ffmpeg_writes() -> None:
    mp3 = written(5_000)
    note = mp3.index(b"Info")
    frame = note - 36  # stereo: 4 bytes of header, 32 of side information
    assert mp3[frame : frame + 2] == b"\xff\xfb"
    assert checksum(mp3[frame : note + 154]) == int.from_bytes(mp3[note + 154 : note + 156], "big")


def test_a_right_note_stays_as_it_is() -> None:
    file = io.BytesIO(written(5_000))
    before = file.getvalue()
    write_padding(file, 5_000)
    assert file.getvalue() == before
    write_padding(file, 4_999)
    note = before.index(b"Info")
    assert [i - note for i in range(len(before)) if file.getvalue()[i] != before[i]] == [143, 154, 155]


@pytest.mark.full
@pytest.mark.parametrize(("rate", "frame"), [(44_100, 1152), (22_050, 576), (8_000, 576)])
def test_every_length_comes_back(tmp_path: Path, rate: int, frame: int) -> None:
    path = tmp_path / "x.mp3"
    # FFmpeg's decoder adds 529 samples to songs shorter than 47 at these rates, whoever has written them.
    shortest = 1 if rate > 32_000 else 47
    for length in [*range(shortest, 60, 5), *range(5 * frame - 25, 5 * frame + 60, 5), 7 * frame]:
        song = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 1, length)).astype(np.float32)
        with StemWriter([path], rate=rate, channels=1, format=Format("mp3"), overwrite=True) as writer:
            writer.write(song)
        with open_reader(path) as reader:
            assert sum(block.shape[1] for block in reader.blocks()) == length


def test_what_it_was_needed_for() -> None:
    """Without it, some lengths come back too long; if that is no longer so, the module has nothing to do."""
    length = 5 * 1152 + 10
    file = io.BytesIO(written(length))

    def decoded() -> int:
        file.seek(0)
        with av.open(file, "r") as container:
            return sum(frame.samples for frame in container.decode(audio=0))

    assert decoded() > length
    write_padding(file, length)
    assert decoded() == length


@pytest.mark.parametrize("content", [b"", b"ID3", b"\xff\xfb" + bytes(1_000), b"RIFF1234WAVE"])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="without a Xing header"):
        write_padding(io.BytesIO(content), 100)


@pytest.mark.parametrize("length", [0, 100, 8_000, 10**9])
def test_lengths_that_cannot_be_are_refused(length: int) -> None:
    before = written(5_000)
    file = io.BytesIO(before)
    with pytest.raises(ValueError, match="cannot be of"):
        write_padding(file, length)
    assert file.getvalue() == before
