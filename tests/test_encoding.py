"""Stems on disk: exact, complete or not there, never over something else."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

import stemsplit.encoding
from stemsplit.encoding import StemWriter
from stemsplit.errors import AudioError, StemsplitError, UsageError

RATE = 44_100  # Hz
Stems = npt.NDArray[np.float32]


def noise(*shape: int) -> Stems:
    return np.random.default_rng(5).uniform(-0.9, 0.9, shape).astype(np.float32)


def names(folder: Path) -> list[Path]:
    return [folder / f"{stem}.wav" for stem in ("vocals", "drums")]


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("subtype", "bits"), [("PCM_16", 16), ("PCM_24", 24), ("PCM_32", 32), ("FLOAT", 0)])
def test_stems_are_as_written(tmp_path: Path, channels: int, subtype: str, bits: int) -> None:
    stems = noise(2, channels, 3_000)
    with StemWriter(names(tmp_path), rate=48_000, channels=channels, subtype=subtype) as writer:
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
        half_step = 0.5 / 2 ** (bits - 1) if bits else 0  # rounding, not truncation
        np.testing.assert_allclose(result, stem, rtol=0, atol=half_step * 1.000001)
        if bits == 16:
            assert abs(np.mean(result - stem)) < half_step / 10


def test_what_was_24_bits_stays_the_same(tmp_path: Path) -> None:
    steps = np.array([-(2**23), 1 - 2**23, -2, -1, 0, 1, 2, 2**23 - 2, 2**23 - 1])
    with StemWriter([tmp_path / "x.wav"], rate=RATE, channels=1) as writer:
        writer.write((steps / 2**23).astype(np.float32)[None, None])
    assert writer.clipped == 0
    np.testing.assert_array_equal(soundfile.read(tmp_path / "x.wav", dtype="int32")[0] >> 8, steps)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=20))
def test_clipping_clips_and_is_counted(values: list[float]) -> None:
    folder = Path(stemsplit.encoding.__file__).parent  # never written to: the quantisation alone
    writer = StemWriter([folder / "not there.wav"], rate=RATE, channels=1, subtype="PCM_16")
    samples = np.array(values, dtype=np.float32)
    result = writer._quantised(samples) / 2**31
    assert writer.clipped == sum(abs(value) > 1 for value in values)
    np.testing.assert_allclose(result, np.clip(samples, -1, 1), rtol=0, atol=2**-15)


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
    with StemWriter([tmp_path / "x.wav"], rate=RATE, channels=1, subtype="FLOAT") as writer:
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


def test_ctrl_c_at_any_line_leaves_all_or_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with StemWriter(names(tmp_path / "new/song"), rate=RATE, channels=1) as writer:
            writer.write(noise(2, 1, 10))

    def stop_at(line: int) -> bool:
        """Whether there was such a line to be stopped at."""
        count = 0

        def trace(frame: FrameType, event: str, argument: object) -> "Callable[..., Any] | None":
            nonlocal count
            if frame.f_code.co_filename != stemsplit.encoding.__file__:
                return None
            count += event == "line"
            if event == "line" and count == line:
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            write()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    line, seen = 1, set()
    while stop_at(line):
        seen.add(tuple(everything(tmp_path)))
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        line += 1
    assert line > 50
    assert seen == {()}


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
    with pytest.raises(UsageError):
        StemWriter([tmp_path / "x.wav"], rate=RATE, channels=2, subtype="MP3")
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
from stemsplit.encoding import StemWriter
from stemsplit.errors import AudioError
limit, length = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with StemWriter([Path(sys.argv[1], "new", "x.wav")], rate=44_100, channels=2) as writer:
        for _ in range(length // 1_000):
            writer.write(np.zeros((1, 2, 1_000), np.float32))
except AudioError as error:
    print(error)
    assert error.hint
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
@pytest.mark.parametrize("limit", [0, 44, 6_044, 60_043])
def test_a_full_disk_is_noticed(tmp_path: Path, limit: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(limit), "10000"], capture_output=True, text=True, check=True
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


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_disk_that_is_just_large_enough(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FULL, str(tmp_path), str(60_000 + 200), "10000"], check=True)
    assert soundfile.info(tmp_path / "new" / "x.wav").frames == 10_000


def test_long_songs_become_rf64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stemsplit.encoding, "WAV_LIMIT", 6_000)
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
    monkeypatch.setattr(stemsplit.encoding, "WAV_LIMIT", 6_000)
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
        pytest.raises(StemsplitError, match="not numbers"),
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
