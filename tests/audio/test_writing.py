"""Stems on disk: exact, complete or not there, never over something else."""

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile  # type: ignore[import-untyped]

import stemsplit.audio.writing
from stemsplit.audio.formats import FORMATS, Format
from stemsplit.audio.reading import open_reader
from stemsplit.audio.resampling import resample
from stemsplit.audio.stem_file import StemFile
from stemsplit.audio.tags import Picture, Tags, read_tags
from stemsplit.audio.writing import StemWriter
from stemsplit.errors import AudioError, StemsplitError, UsageError

RATE = 44_100  # Hz
Stems = npt.NDArray[np.float32]


def noise(*shape: int) -> Stems:
    return np.random.default_rng(5).uniform(-0.9, 0.9, shape).astype(np.float32)


def names(folder: Path) -> list[Path]:
    return [folder / f"{stem}.wav" for stem in ("vocals", "drums")]


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def read(path: Path) -> tuple[Stems, int]:
    """Samples (C, n) and rate of a file, as this program itself reads it."""
    with open_reader(path) as reader:
        blocks = [np.zeros((reader.channels, 0), np.float32), *reader.blocks()]
        assert reader.warnings == []
        return np.concatenate(blocks, axis=1), reader.rate


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("bits", "subtype"), [("16", "PCM_16"), ("24", "PCM_24"), ("32f", "FLOAT")])
def test_stems_are_as_written(tmp_path: Path, channels: int, bits: str, subtype: str) -> None:
    stems = noise(2, channels, 3_000)
    with StemWriter(names(tmp_path), rate=48_000, channels=channels, format=Format("wav", bits)) as writer:
        for start in range(0, 3_000, 777):
            writer.write(stems[:, :, start : start + 777])
        assert everything(tmp_path) != []
        assert not any(path.exists() for path in names(tmp_path))
    assert (writer.length, writer.clipped) == (3_000, 0)
    assert everything(tmp_path) == ["drums.wav", "vocals.wav"]
    for path, stem in zip(names(tmp_path), stems, strict=True):
        info = soundfile.info(path)
        assert (info.format, info.subtype, info.samplerate) == ("WAV", subtype, 48_000)
        result = soundfile.read(path, dtype="float64", always_2d=True)[0].T
        error = {"16": 1.5 / 2**15, "24": 0.5 / 2**23, "32f": 0}[bits]  # dither, and rounding, not truncation
        np.testing.assert_allclose(result, stem, rtol=0, atol=error * 1.000001)
        assert abs(np.mean(result - stem)) <= error / 10


def test_what_was_24_bits_stays_the_same(tmp_path: Path) -> None:
    steps = np.array([-(2**23), 1 - 2**23, -2, -1, 0, 1, 2, 2**23 - 2, 2**23 - 1])
    with StemWriter([tmp_path / "x.wav"], rate=RATE, channels=1) as writer:
        writer.write((steps / 2**23).astype(np.float32)[None, None])
    assert writer.clipped == 0
    np.testing.assert_array_equal(soundfile.read(tmp_path / "x.wav", dtype="int32")[0] >> 8, steps)


def test_full_scale_square_wave(tmp_path: Path) -> None:
    square = np.repeat([[[1.0, -1.0]]], 2, axis=0).astype(np.float32)
    with StemWriter(names(tmp_path), rate=RATE, channels=1) as writer:
        writer.write(square)
        writer.write(1.5 * square)
    assert writer.clipped == 4
    for path in names(tmp_path):
        result = soundfile.read(path)[0]
        np.testing.assert_allclose(result, [1, -1, 1, -1], rtol=0, atol=2**-23)


def test_float_keeps_what_is_beyond_full_scale(tmp_path: Path) -> None:
    with StemWriter([tmp_path / "x.wav"], rate=RATE, channels=1, format=Format("wav", "32f")) as writer:
        writer.write(np.array([[[1.5, -3.0]]], dtype=np.float32))
    assert writer.clipped == 0
    np.testing.assert_array_equal(soundfile.read(tmp_path / "x.wav")[0], [1.5, -3.0])


def test_nothing_written_is_an_empty_song(tmp_path: Path) -> None:
    with StemWriter(names(tmp_path), rate=RATE, channels=2):
        pass
    assert [soundfile.info(path).frames for path in names(tmp_path)] == [0, 0]


def test_the_argument_is_not_changed(tmp_path: Path) -> None:
    stems = 2 * noise(1, 2, 100)
    before = stems.copy()
    with StemWriter([tmp_path / "x.wav"], rate=RATE, channels=2) as writer:
        writer.write(stems)
    np.testing.assert_array_equal(stems, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, AudioError, SystemExit])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def work() -> None:
        with StemWriter(names(tmp_path / "a" / "b"), rate=RATE, channels=2) as writer:
            writer.write(noise(2, 2, 100))
            assert len(everything(tmp_path)) == 4
            raise error("stop")

    with pytest.raises(error):
        work()
    assert everything(tmp_path) == []


def test_an_abandoned_generator_leaves_nothing(tmp_path: Path) -> None:
    def separate() -> Iterator[int]:
        with StemWriter(names(tmp_path / "new"), rate=RATE, channels=2) as writer:
            for _ in range(3):
                writer.write(noise(2, 2, 100))
                yield writer.length

    going = separate()
    assert next(going) == 100
    going.close()  # type: ignore[attr-defined]
    assert everything(tmp_path) == []
    assert list(separate()) == [100, 200, 300]
    assert everything(tmp_path) == ["new", "new/drums.wav", "new/vocals.wav"]


def test_folders_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()

    def work() -> None:
        with StemWriter(names(tmp_path / "old" / "new"), rate=RATE, channels=2):
            (tmp_path / "old" / "new" / "note.txt").write_text("mine")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert everything(tmp_path) == ["old", "old/new", "old/new/note.txt"]


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    names(tmp_path)[1].write_text("precious")
    with pytest.raises(AudioError, match="exists already") as caught:
        StemWriter(names(tmp_path), rate=RATE, channels=2)
    assert caught.value.hint
    assert everything(tmp_path) == ["drums.wav"]
    with StemWriter(names(tmp_path), rate=RATE, channels=2, overwrite=True) as writer:
        writer.write(noise(2, 2, 100))
        assert names(tmp_path)[1].read_text() == "precious"
    assert [soundfile.info(path).frames for path in names(tmp_path)] == [100, 100]


def test_nothing_is_overwritten_that_came_during_the_work(tmp_path: Path) -> None:
    def work() -> None:
        with StemWriter(names(tmp_path), rate=RATE, channels=2):
            names(tmp_path)[1].write_text("precious")

    with pytest.raises(AudioError, match="exists already"):
        work()
    assert everything(tmp_path) == ["drums.wav"]
    assert names(tmp_path)[1].read_text() == "precious"


def test_a_dangling_link_is_something_too(tmp_path: Path) -> None:
    names(tmp_path)[0].symlink_to("nowhere")
    with pytest.raises(AudioError, match="exists already"):
        StemWriter(names(tmp_path), rate=RATE, channels=2)


def test_two_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    loud, quiet = noise(2, 2, 100), 0.1 * noise(2, 2, 100)
    with (
        StemWriter(names(tmp_path), rate=RATE, channels=2, overwrite=True) as first,
        StemWriter(names(tmp_path), rate=RATE, channels=2, overwrite=True) as second,
    ):
        first.write(loud)
        second.write(quiet)
    np.testing.assert_allclose(soundfile.read(names(tmp_path)[0])[0].T, loud[0], rtol=0, atol=1e-6)
    assert everything(tmp_path) == ["drums.wav", "vocals.wav"]


def test_impossible_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "vocals.wav").mkdir()
    for paths in ([tmp_path / "file" / "x.wav"], [tmp_path / "file" / "new" / "x.wav"], names(tmp_path)):
        for overwrite in (False, True):
            with (
                pytest.raises(AudioError) as caught,
                StemWriter(paths, rate=RATE, channels=2, overwrite=overwrite),
            ):
                pass
            assert caught.value.hint
            assert str(tmp_path) in str(caught.value)
    with pytest.raises(AudioError, match="cannot write"):
        StemWriter([tmp_path / f"{'x' * 300}.wav"], rate=RATE, channels=2)
    with pytest.raises(UsageError):
        StemWriter([tmp_path / "x.wav"] * 2, rate=RATE, channels=2)
    assert everything(tmp_path) == ["file", "vocals.wav"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65_534)  # root may write everywhere
    try:
        for folder in (tmp_path, tmp_path / "new"):
            with (
                pytest.raises(AudioError, match="cannot write") as caught,
                StemWriter(names(folder), rate=RATE, channels=2),
            ):
                pass
            assert caught.value.hint
    finally:
        os.seteuid(me)
        tmp_path.chmod(0o755)
    assert everything(tmp_path) == []


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from stemsplit.audio.writing import StemWriter
from stemsplit.errors import AudioError
from stemsplit.audio.formats import Format
from stemsplit.audio.stem_file import StemFile
folder, format, limit, length = Path(sys.argv[1], "new"), Format(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
together = StemFile(folder / "x.stem.mp4", 0, dict(a=1, b=2, c=3, d=4), format) if format.name == "alac" else None
noise = np.random.default_rng(3).uniform(-0.5, 0.5, (5 if together else 1, 2, 1_000)).astype(np.float32)
try:
    paths = [] if together else [folder / "x"]
    with StemWriter(paths, rate=48_000, channels=2, format=format, stem_file=together) as writer:
        for _ in range(length // 1_000):
            writer.write(noise)
except AudioError as error:
    print(error)
    assert error.hint
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
@pytest.mark.parametrize(
    ("name", "limit"),
    [("wav", limit) for limit in (0, 44, 6_044, 60_043)]
    # Before the beginning, and after it: in the middle, and shortly before the end.
    + [("ogg", 0), ("ogg", 3_000), ("ogg", 90_000), ("flac", 0), ("flac", 200_000), ("mp3", 0), ("mp3", 70_000)]
    + [("opus", 0), ("opus", 66_000), ("m4a", 66_000), ("alac", 66_000), ("alac", 2_000_000)],
)
def test_a_full_disk_is_noticed(tmp_path: Path, name: str, limit: int) -> None:
    length = "10000" if name == "wav" else "200000"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), name, str(limit), length],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the disk is full" in done.stdout
    assert str(tmp_path / "new") in done.stdout
    assert done.stderr == ""
    assert everything(tmp_path) == []


def test_a_stem_that_lost_its_end_is_noticed(tmp_path: Path) -> None:
    def work() -> None:
        with StemWriter(names(tmp_path), rate=RATE, channels=2) as writer:
            writer.write(noise(2, 2, 1_000))
            os.truncate(next(tmp_path.glob("drums*.part")), 3_000)

    with pytest.raises(AudioError, match="the disk is full"):
        work()
    assert everything(tmp_path) == []


@pytest.mark.full
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_disk_that_is_just_large_enough(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FULL, str(tmp_path), "wav", str(60_000 + 200), "10000"], check=True)
    assert soundfile.info(tmp_path / "new" / "x").frames == 10_000


def test_long_songs_become_rf64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stemsplit.audio.writing, "WAV_LIMIT", 6_000)
    stems = noise(2, 2, 2_000)
    with StemWriter(names(tmp_path), rate=RATE, channels=2, expected_length=2_000) as writer:
        writer.write(stems)
    for path, stem in zip(names(tmp_path), stems, strict=True):
        assert path.read_bytes()[:4] == b"RF64"
        np.testing.assert_allclose(soundfile.read(path)[0].T, stem, rtol=0, atol=2**-24)
        with av.open(str(path)) as container:
            assert sum(frame.samples for frame in container.decode(audio=0)) == 2_000


@pytest.mark.parametrize("expected", [None, 900])
def test_too_long_for_wav_is_refused_before_it_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: int | None
) -> None:
    monkeypatch.setattr(stemsplit.audio.writing, "WAV_LIMIT", 6_000)
    with (
        pytest.raises(AudioError, match="too long for WAV") as caught,
        StemWriter(names(tmp_path), rate=RATE, channels=2, expected_length=expected) as writer,
    ):
        writer.write(noise(2, 2, 1_000))
        writer.write(noise(2, 2, 1))
    assert caught.value.hint
    assert everything(tmp_path) == []


def test_values_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    stems = noise(2, 2, 10)
    stems[1, 0, 3] = np.nan
    with (
        pytest.raises(StemsplitError, match="not finite"),
        StemWriter(names(tmp_path), rate=RATE, channels=2) as writer,
    ):
        writer.write(stems)
    assert everything(tmp_path) == []


@pytest.mark.parametrize("shape", [(1, 2, 5), (2, 1, 5), (3, 2, 5)])
def test_other_shapes_are_a_bug(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="shape"), StemWriter(names(tmp_path), rate=RATE, channels=2) as writer:
        writer.write(noise(*shape))
    assert everything(tmp_path) == []


@pytest.mark.parametrize("name", ["a song [live].wav", "🎵.wav", "two\nlines.wav", "é" * 125 + ".wav", "no ending"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    with StemWriter([tmp_path / name], rate=RATE, channels=2) as writer:
        writer.write(noise(1, 2, 10))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(AudioError) as caught:
        StemWriter([tmp_path / name], rate=RATE, channels=2)
    assert str(caught.value).isprintable()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.wav"))
    with StemWriter([odd], rate=RATE, channels=2) as writer:
        writer.write(noise(1, 2, 10))
    assert odd.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_stems_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with StemWriter([tmp_path / "x.wav"], rate=RATE, channels=2):
        pass
    assert (tmp_path / "x.wav").stat().st_mode == (tmp_path / "usual").stat().st_mode


# Other formats


ALL = [
    *(Format(name) for name in FORMATS),
    Format("wav", "16"),
    Format("wav", "32f"),
    Format("flac", "16"),
    Format("alac", "16"),
    Format("mp3", bitrate=96_000),
    Format("mp3", quality=2),
    Format("ogg", quality=3),
    Format("opus", bitrate=64_000),
]


def bursts(channels: int, length: int) -> Stems:
    """A sine and low-passed noise whose level changes all the time, so that its place in time is unmistakable."""
    random = np.random.default_rng(7)
    rough = np.cumsum(random.standard_normal((channels, length + 50)), axis=1)
    smooth = rough[:, 50:] - rough[:, :-50]
    level = np.repeat(random.uniform(0.1, 1, length // 999 + 1), 999)[:length]
    tone = 0.2 * np.sin(np.arange(length) / 16)
    song: Stems = (0.3 * level * smooth / np.abs(smooth).max() + tone).astype(np.float32)
    return song


def lag(late: Stems, early: Stems) -> int:
    """By how many samples the first channel of `late` comes after that of `early`."""
    size = 2 * max(late.shape[1], early.shape[1])
    product = np.fft.rfft(late[0], size) * np.conj(np.fft.rfft(early[0], size))
    best = int(np.argmax(np.fft.irfft(product, size)))
    return best if best < size // 2 else best - size


def write(
    path: Path, song: Stems, format: Format, *, rate: int = RATE, size: int = 20_011, **options: Any
) -> StemWriter:
    with StemWriter([path], rate=rate, channels=len(song), format=format, **options) as writer:
        for start in range(0, song.shape[1], size):
            writer.write(song[None, :, start : start + size])
    return writer


@pytest.mark.parametrize(("rate", "channels", "length"), [(44_100, 2, 70_003), (48_000, 1, 30_000), (22_050, 2, 9_999)])
@pytest.mark.parametrize("format", ALL, ids=str)
def test_formats_keep_length_place_and_sound(
    tmp_path: Path, format: Format, rate: int, channels: int, length: int
) -> None:
    song = bursts(channels, length)
    path = tmp_path / f"x{format.extension}"
    writer = write(path, song, format, rate=rate)
    assert everything(tmp_path) == [path.name]
    assert (writer.length, writer.clipped) == (length, 0)
    result, new_rate = read(path)
    assert new_rate == format.rate_for(rate)
    assert bool(writer.warnings) == (new_rate != rate)
    expected = np.concatenate([*resample([song], rate, new_rate, channels=channels)], axis=1)
    # FFmpeg's decoder of AAC does not cut the last frame, though the file says where the song ends.
    padding = -length % 1024 if format.name == "m4a" else 0
    assert result.shape[1] - expected.shape[1] in (0, padding)
    assert lag(result, expected) == 0
    error = result[:, : expected.shape[1]] - expected
    snr = 10 * np.log10(np.sum(expected**2) / np.sum(error**2)) if error.any() else np.inf
    assert snr > {"16": 75, "24": 125, "32f": 150, None: 15}[format.bits]


@pytest.mark.parametrize("name", ["flac", "mp3", "opus", "ogg"])
def test_another_decoder_agrees(tmp_path: Path, name: str) -> None:
    song = bursts(2, 70_003)
    write(tmp_path / "x", song, Format(name), rate=48_000)
    if name == "ogg":  # which libsndfile has written itself
        with av.open(str(tmp_path / "x")) as container:
            result = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    else:
        result = soundfile.read(tmp_path / "x", dtype="float32")[0].T
    assert lag(result, song) == 0
    assert result.shape == song.shape


def test_an_m4a_says_where_its_song_begins_and_ends(tmp_path: Path) -> None:
    write(tmp_path / "x.m4a", bursts(2, 70_003), Format("m4a"))
    with av.open(str(tmp_path / "x.m4a")) as container:
        stream = container.streams.audio[0]
        assert (stream.start_time, stream.duration, stream.time_base) == (0, 70_003, Fraction(1, RATE))


@pytest.mark.parametrize("format", ALL, ids=str)
def test_the_same_song_gives_the_same_bytes_however_it_is_cut(tmp_path: Path, format: Format) -> None:
    song = bursts(2, 30_000)
    write(tmp_path / "a", song, format, tags=TAGS[:1])
    write(tmp_path / "b", song, format, tags=TAGS[:1], size=1_000)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("format", [*ALL, *(Format(name, "16") for name in ("wav", "flac", "alac"))], ids=str)
def test_silence_stays_silence(tmp_path: Path, format: Format) -> None:
    write(tmp_path / "x", np.zeros((2, 5_000), np.float32), format)
    assert not read(tmp_path / "x")[0].any()


@pytest.mark.parametrize("name", ["wav", "flac", "alac"])
def test_what_was_16_bits_stays_the_same(tmp_path: Path, name: str) -> None:
    steps = np.random.default_rng(0).integers(-(2**15), 2**15, (2, 9_000)).astype(np.float32)
    write(tmp_path / "x", steps / np.float32(2**15), Format(name, "16"))
    np.testing.assert_array_equal(read(tmp_path / "x")[0] * 2**15, steps)


def test_stems_do_not_share_their_dither(tmp_path: Path) -> None:
    stems = np.repeat(noise(1, 1, 20_000), 2, axis=0)
    with StemWriter(names(tmp_path), rate=RATE, channels=1, format=Format("wav", "16")) as writer:
        writer.write(stems)
    first, second = (soundfile.read(path, dtype="float32")[0] - stems[0, 0] for path in names(tmp_path))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.4  # what is left is the error of rounding the same samples


@pytest.mark.parametrize("format", ALL, ids=str)
def test_what_is_beyond_full_scale(tmp_path: Path, format: Format) -> None:
    song = 4 * bursts(2, 20_000)
    writer = write(tmp_path / "x", song, format, rate=48_000)
    assert writer.peak == np.abs(song).max()
    assert writer.clipped == (np.count_nonzero(np.abs(song) > 1) if format.clips else 0)
    loudest = np.abs(read(tmp_path / "x")[0]).max()
    assert (loudest <= 1) == (format.lossless and format.clips)


@pytest.mark.full
@pytest.mark.parametrize("format", ALL, ids=str)
@pytest.mark.parametrize("scale", [1e4, 3e38])
def test_no_encoder_breaks_at_absurd_values(tmp_path: Path, format: Format, scale: float) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; import numpy as np; from stemsplit.audio.writing import StemWriter\n"
            "from stemsplit.audio.formats import Format\n"
            "song = np.random.default_rng(1).uniform(-1, 1, (1, 2, 30_000)).astype(np.float32)\n"
            f"with StemWriter([Path(sys.argv[1])], rate=48_000, channels=2, format={format!r}) as writer:\n"
            f"    writer.write(song * np.float32({scale}))",
            str(tmp_path / "x"),
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert np.isfinite(soundfile.read(tmp_path / "x")[0] if format.bits == "32f" else read(tmp_path / "x")[0]).all()


@pytest.mark.parametrize("format", ALL, ids=str)
def test_an_empty_song(tmp_path: Path, format: Format) -> None:
    if format.name in ("wav", "flac", "ogg"):
        write(tmp_path / "x", noise(2, 0), format)
        assert read(tmp_path / "x")[0].shape == (2, 0)
    else:
        with pytest.raises(AudioError, match="the song is empty") as caught:
            write(tmp_path / "x", noise(2, 0), format)
        assert caught.value.hint
        assert everything(tmp_path) == []


@pytest.mark.parametrize("format", ALL, ids=str)
def test_a_song_of_one_sample(tmp_path: Path, format: Format) -> None:
    write(tmp_path / "x", noise(1, 1), format, rate=48_000)
    assert read(tmp_path / "x")[0].shape == (1, 1024 if format.name == "m4a" else 1)


def test_a_rate_that_a_format_does_not_have(tmp_path: Path) -> None:
    song = bursts(2, 96_000)
    writer = write(tmp_path / "x.mp3", song, Format("mp3"), rate=96_000)
    assert writer.warnings == ["MP3 has no sample rate of 96000 Hz, so it is written at 48000 Hz"]
    assert writer.length == 96_000  # as it was given
    assert read(tmp_path / "x.mp3")[0].shape == (2, 48_000)
    with pytest.raises(AudioError, match="FLAC has no sample rate of 2000000 Hz"):
        StemWriter([tmp_path / "x.flac"], rate=2_000_000, channels=2, format=Format("flac"))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_odd_names_in_every_format(tmp_path: Path, name: str) -> None:
    for odd in ("http:x %d?#.x", "two\nlines", os.fsdecode(b"\xff\xfe.x")):
        write(tmp_path / odd, noise(2, 5_000), Format(name))
        assert [path.name for path in tmp_path.iterdir()] == [odd]
        (tmp_path / odd).unlink()


def test_too_many_channels_for_a_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 channels"):
        StemWriter([tmp_path / "x"], rate=RATE, channels=3, format=Format("mp3"))


# Tags


def png(size: int) -> bytes:
    """A square PNG of noise."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b"".join(
        b"\0" + line.tobytes() for line in np.random.default_rng(0).integers(0, 256, (size, 3 * size), "u1")
    )
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


COVER = Picture(png(20), "png", 20, 20)
TEXTS = {
    "title": "Söng \U0001f3b5 (vocals)",
    "artist": "Ärtist; Other",
    "album_artist": "Various",
    "album": 'The "Album"',
    "composer": "A = B",
    "track": "3/12",
    "disc": "1/2",
    "date": "2020-05-17",
    "genre": "Drum & Bass",
    "comment": "two\nlines",
    "copyright": "© 2020",
    "publisher": "Label",
    "bpm": "128",
    "key": "Am",
}
TAGS = [Tags(TEXTS, COVER), Tags()]
LOST = {
    # The tempo is there, but FFmpeg does not read it.
    "m4a": {"publisher", "bpm", "key"},
    "alac": {"publisher", "bpm", "key"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_tags_and_cover_are_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"x{Format(name).extension}"
    write(path, bursts(2, 5_000), Format(name), tags=TAGS[:1])
    found = read_tags(path)
    assert found.fields == {key: text for key, text in TEXTS.items() if key not in LOST.get(name, ())}
    assert found.picture == COVER
    assert read(path)[0].shape[1] >= 5_000


@pytest.mark.full
@pytest.mark.parametrize("name", FORMATS)
def test_large_and_odd_tags_do_no_harm(tmp_path: Path, name: str) -> None:
    cover = Picture(png(600), "png", 600, 600)
    assert len(cover.data) > 2**20
    texts = {"title": "a\0b", "artist": "\udcff\ud800", "comment": "x" * 10**6, "album": "", "unknown": "x"}
    write(tmp_path / "x", bursts(2, 5_000), Format(name), tags=[Tags(texts, cover)], rate=48_000)
    assert read(tmp_path / "x")[0].shape[1] in (5_000, 5_120)
    found = read_tags(tmp_path / "x")
    assert found.fields == {"title": "a b", "artist": "??", "comment": "x" * 1_000}
    assert found.picture == cover


def test_rf64_has_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stemsplit.audio.writing, "WAV_LIMIT", 6_000)
    write(tmp_path / "x", bursts(2, 5_000), Format("wav", "32f"), tags=TAGS[:1], expected_length=5_000)
    assert (tmp_path / "x").read_bytes()[:4] == b"RF64"
    assert read_tags(tmp_path / "x") == TAGS[0]
    assert soundfile.info(tmp_path / "x").frames == 5_000


# Stem files


def together(folder: Path, **options: Any) -> StemFile:
    return StemFile(folder / "song.stem.mp4", 4, {"vocals": 0, "drums": 1, "bass": 2, "other": 3}, **options)


def test_a_stem_file_beside_stems(tmp_path: Path) -> None:
    rows = noise(5, 2, 5_000)
    with StemWriter(names(tmp_path), rate=RATE, channels=2, stem_file=together(tmp_path)) as writer:
        writer.write(rows)
        assert not any(path.exists() for path in [*names(tmp_path), together(tmp_path).path])
    assert everything(tmp_path) == ["drums.wav", "song.stem.mp4", "vocals.wav"]
    np.testing.assert_allclose(soundfile.read(names(tmp_path)[0])[0].T, rows[0], rtol=0, atol=1e-6)
    with (
        pytest.raises(ValueError, match="5 rows"),
        StemWriter([], rate=RATE, channels=2, stem_file=together(tmp_path), overwrite=True) as writer,
    ):
        writer.write(rows[:4])
    with pytest.raises(AudioError, match="exists already"):
        StemWriter([], rate=RATE, channels=2, stem_file=together(tmp_path))
    with pytest.raises(UsageError, match="the same file"):
        StemWriter([tmp_path / "song.stem.mp4"], rate=RATE, channels=2, stem_file=together(tmp_path))


def test_what_counts_as_clipped_with_a_stem_file(tmp_path: Path) -> None:
    rows = np.zeros((5, 2, 3_000), np.float32)
    rows[0, 0, :10] = 2
    rows[4, :, :100] = -3  # the mixture, which is no stem
    format = Format("wav", "32f")
    for paths, all_of_them, clipped in (
        (names(tmp_path), None, 0),
        ([], together(tmp_path), 10),
        (names(tmp_path), together(tmp_path), 10),
    ):
        with StemWriter(paths, rate=RATE, channels=2, format=format, stem_file=all_of_them, overwrite=True) as writer:
            writer.write(rows if all_of_them else rows[:2])
        assert (writer.clipped, writer.peak) == (clipped, 2)
