"""What is written of a song: rows of stems and mixture, levels, rates, and the next song read ahead."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from support.models import load_ensemble
from support.songs import STEMS

from stemsplit import Delivery, Format, Separator
from stemsplit.audio.decoding import Block
from stemsplit.audio.read_ahead import BLOCKS, PrefetchReader
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.errors import AudioError, UsageError
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model
from stemsplit.separation.outputs import Rows
from stemsplit.separation.streams import MixtureTap

MakeModel = Callable[..., Model]
FLOAT = Format("wav", "32f")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Float32 samples."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def paths(*names: str) -> dict[str, Path]:
    return {name: Path(f"{name}.wav") for name in names}


def write(path: Path, samples: np.ndarray, rate: int = 44_100) -> Path:
    soundfile.write(path, samples.T, rate, subtype="FLOAT")
    return path


def read(path: Path) -> np.ndarray:
    samples: np.ndarray = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    return samples


def test_rows_are_stems_the_mixture_and_what_is_left_of_it() -> None:
    stems, mixture = noise(4, 2, 100), noise(2, 100, seed=1)
    rows = Rows(paths("bass", "mixture", "no_vocals", "vocals"), STEMS)
    assert rows.needs_mixture
    bass, copy, rest, vocals = rows.mix(stems, mixture)
    assert (bass == stems[2]).all()
    assert (vocals == stems[0]).all()
    assert (copy == mixture).all()
    assert (rest == mixture - stems[0]).all()
    alone = Rows(paths("drums"), STEMS)
    assert not alone.needs_mixture
    assert (alone.mix(stems, None) == stems[1:2]).all()


def test_consistent_stems_add_up_and_are_nearer_to_the_truth() -> None:
    truth = noise(4, 2, 1000)
    mixture = truth.sum(0)
    estimate = (truth + 0.3 * noise(4, 2, 1000, seed=1)).astype(np.float32)
    rows = Rows(paths(*STEMS), STEMS, consistent=True)
    consistent = rows.mix(estimate, mixture)
    np.testing.assert_allclose(consistent.sum(0), mixture, rtol=0, atol=1e-6)
    assert np.square(consistent - truth).sum() < np.square(estimate - truth).sum()
    difference = consistent - estimate
    np.testing.assert_allclose(difference, np.broadcast_to(difference[:1], difference.shape), rtol=0, atol=1e-6)
    # Where they add up already nothing changes.
    np.testing.assert_allclose(rows.mix(truth, mixture), truth, rtol=0, atol=1e-6)


def test_a_stem_of_a_model_may_be_called_as_a_row_is() -> None:
    stems = noise(2, 2, 10)
    assert (Rows(paths("no_vocals"), ("vocals", "no_vocals")).mix(stems, None) == stems[1:]).all()


@pytest.mark.parametrize("name", ["piano", "no_piano", "no_", ""])
def test_rows_that_there_are_not(name: str) -> None:
    with pytest.raises(UsageError, match="the model has no stem"):
        Rows(paths("vocals", name), STEMS)


def test_a_stem_file_needs_all_stems() -> None:
    rows = Rows({**paths(*STEMS), "stem_file": Path("a.stem.mp4")}, STEMS)
    assert rows.names == [*STEMS, "mixture"]
    assert list(rows.paths) == list(STEMS)
    with pytest.raises(UsageError, match="holds all stems of a model"):
        Rows({**paths("vocals"), "stem_file": Path("a.stem.mp4")}, STEMS)


def test_what_passes_can_be_taken_in_other_pieces() -> None:
    samples = noise(2, 1000)
    passing = MixtureTap((samples[:, start : start + 300] for start in range(0, 1000, 300)), keep=True)
    stream = iter(passing)
    taken: list[np.ndarray] = []
    for count in (100, 0, 450, 50, 400):
        while passing.length < sum(block.shape[1] for block in taken) + count:
            next(stream)
        block = passing.take(count) if count else np.zeros((2, 0), np.float32)
        assert block is not None
        assert block.shape == (2, count)
        taken.append(block)
    assert (np.concatenate(taken, axis=1) == samples).all()
    assert MixtureTap([]).take(5) is None


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can become larger than 100 kB."""
    resource = pytest.importorskip("resource", reason="needs POSIX limits")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("length", [4_000, 100_000])  # 128 kB and 3.2 MB
def test_a_full_disk_is_noticed_by_songs_that_wait_for_their_gain(
    shares_model: MakeModel, tmp_path: Path, full_disk: None, length: int
) -> None:
    song = tmp_path / "song.flac"
    soundfile.write(song, np.zeros((length, 2)), 44_100)
    outputs = {name: tmp_path / "new" / f"{name}.flac" for name in STEMS}
    separator = Separator(shares_model())
    assert separator.separate_file(song, outputs).length == length
    with pytest.raises(AudioError, match="the disk is full") as caught:
        separator.separate_file(song, outputs, delivery=Delivery(Format("flac"), clip="gain"), overwrite=True)
    assert caught.value.hint
    assert len(list(tmp_path.rglob("*"))) == 1 + 1 + len(STEMS)


# Files


def test_the_rest_and_the_mixture_of_a_file(unet_model: MakeModel, tmp_path: Path) -> None:
    mixture = noise(2, 20_000)
    song = write(tmp_path / "song.wav", mixture)
    outputs = {name: tmp_path / f"{name}.wav" for name in ("vocals", "no_vocals", "mixture")}
    Separator(unet_model()).separate_file(song, outputs, delivery=Delivery(FLOAT, consistent=False))
    got = {name: read(path) for name, path in outputs.items()}
    assert (got["mixture"] == mixture).all()
    assert (got["no_vocals"] == mixture - got["vocals"]).all()
    assert np.abs(got["vocals"]).max() > 0.01


@pytest.mark.parametrize("rate", [44_100, 48_000, 22_050])
def test_consistent_files_add_up_at_any_rate(shares_model: MakeModel, tmp_path: Path, rate: int) -> None:
    mixture = noise(2, 30_001)
    song = write(tmp_path / "song.wav", mixture, rate)
    outputs = {name: tmp_path / f"{name}.wav" for name in STEMS}
    separator = Separator(shares_model(shares=(0.5, 0.2, 0.1, 0.1)))
    separator.separate_file(song, outputs, delivery=Delivery(FLOAT, consistent=True))
    np.testing.assert_allclose(sum(read(path) for path in outputs.values()), mixture, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [44_100, 96_000, 22_050])
def test_all_stems_of_any_model_add_up_by_default(
    unet_model: MakeModel, shares_model: MakeModel, tmp_path: Path, rate: int
) -> None:
    mixture = noise(2, 20_000)
    song = write(tmp_path / "song.wav", mixture, rate)
    for model in (unet_model(), shares_model(shares=(0.5, 0.4))):
        outputs = {name: tmp_path / f"{name}.wav" for name in model.header.stems}
        for wanted in (None, False):
            delivery = Delivery(FLOAT, consistent=wanted)
            report = Separator(model).separate_file(song, outputs, delivery=delivery, overwrite=True)
            missing = np.abs(sum(read(path) for path in outputs.values()) - mixture).max()
            assert report.consistent == (wanted is None)
            assert (missing < 1e-6) or not report.consistent
        assert missing > 1e-2 or (rate <= 44_100 and len(outputs) == 4)  # masks add up by themselves


def test_some_stems_are_as_the_model_gives_them(shares_model: MakeModel, tmp_path: Path) -> None:
    mixture = noise(2, 20_000)
    song, separator = write(tmp_path / "song.wav", mixture), Separator(shares_model(shares=(0.5, 0.4)))
    outputs = {name: tmp_path / f"{name}.wav" for name in ("vocals", "no_vocals")}
    assert not separator.separate_file(song, outputs, delivery=Delivery(FLOAT)).consistent
    np.testing.assert_allclose(read(outputs["vocals"]), 0.5 * mixture, atol=1e-6)
    np.testing.assert_allclose(read(outputs["no_vocals"]), 0.5 * mixture, atol=1e-6)
    # Asked for, it is done to these as well, as all stems are known.
    assert separator.separate_file(song, outputs, delivery=Delivery(FLOAT, consistent=True), overwrite=True).consistent
    np.testing.assert_allclose(read(outputs["vocals"]), 0.55 * mixture, atol=1e-6)
    np.testing.assert_allclose(read(outputs["no_vocals"]), 0.45 * mixture, atol=1e-6)


def test_stems_in_memory_add_up(shares_model: MakeModel) -> None:
    mixture, separator = noise(2, 20_000), Separator(shares_model(shares=(0.5, 0.4)))
    for channels, rate in ((2, 44_100), (1, 44_100), (2, 96_000)):
        stems = separator.separate_array(mixture[:channels], rate)
        np.testing.assert_allclose(sum(stems.values()), mixture[:channels], atol=1e-6)
    stems = separator.separate_array(mixture, 44_100, consistent=False)
    np.testing.assert_allclose(stems["drums"], 0.4 * mixture, atol=1e-6)


def test_some_stems_cannot_be_made_consistent(unet_model: MakeModel, tmp_path: Path) -> None:
    checkpoint.save(unet_model(), tmp_path / "model.safetensors")
    separator = Separator(load_ensemble([tmp_path / "model.safetensors"], [()], stems=("vocals",)))
    song = write(tmp_path / "song.wav", noise(2, 1000))
    outputs = {"vocals": tmp_path / "vocals.wav"}
    with pytest.raises(UsageError, match="only all stems"):
        separator.separate_file(song, outputs, delivery=Delivery(consistent=True))
    with pytest.raises(UsageError, match="only all stems"):
        separator.separate_array(noise(2, 1000), 44_100, consistent=True)
    assert not separator.separate_file(song, outputs).consistent
    assert outputs["vocals"].exists()


def test_one_gain_for_all_stems(shares_model: MakeModel, tmp_path: Path) -> None:
    mixture = 4 * noise(2, 30_000)
    mixture[0, 100] = 2.5
    song = write(tmp_path / "song.wav", mixture)
    outputs = {name: tmp_path / f"{name}.wav" for name in STEMS}
    separator = Separator(shares_model())
    kept = separator.separate_file(song, outputs)
    assert kept.clipped > 0
    assert kept.gain == 1
    assert kept.peak == pytest.approx(1.25, abs=1e-5)
    report = separator.separate_file(song, outputs, delivery=Delivery(clip="gain"), overwrite=True)
    assert (report.clipped, report.length) == (0, 30_000)
    assert report.gain == pytest.approx(1 / 1.25, abs=1e-5)
    assert report.peak == kept.peak
    for share, path in zip((0.5, 0.25, 0.125, 0.125), outputs.values(), strict=True):
        np.testing.assert_allclose(read(path), mixture * share * report.gain, rtol=0, atol=1e-5)
    quiet = write(tmp_path / "quiet.wav", noise(2, 5000))
    assert separator.separate_file(quiet, outputs, delivery=Delivery(clip="gain"), overwrite=True).gain == 1
    np.testing.assert_allclose(read(outputs["vocals"]), noise(2, 5000) / 2, rtol=0, atol=1e-6)


def test_another_sample_rate(shares_model: MakeModel, tmp_path: Path) -> None:
    rate, length = 22_050, 22_050
    time_ = np.arange(length) / rate
    mixture = np.stack([np.sin(2 * np.pi * 440 * time_), np.sin(2 * np.pi * 1000 * time_)]).astype(np.float32) / 2
    song = write(tmp_path / "song.wav", mixture, rate)
    outputs = {name: tmp_path / f"{name}.wav" for name in ("vocals", "mixture")}
    report = Separator(shares_model()).separate_file(song, outputs, delivery=Delivery(FLOAT, rate=48_000))
    assert (report.rate, report.length) == (48_000, 48_000)
    assert soundfile.info(outputs["vocals"]).samplerate == 48_000
    time_ = np.arange(48_000) / 48_000
    expected = np.stack([np.sin(2 * np.pi * 440 * time_), np.sin(2 * np.pi * 1000 * time_)]) / 2
    np.testing.assert_allclose(read(outputs["mixture"])[:, 500:-500], expected[:, 500:-500], rtol=0, atol=1e-3)
    np.testing.assert_allclose(read(outputs["vocals"]), read(outputs["mixture"]) / 2, rtol=0, atol=2e-3)


def test_files_are_in_the_format_of_their_names(shares_model: MakeModel, tmp_path: Path) -> None:
    song = write(tmp_path / "song.wav", noise(2, 5000))
    separator = Separator(shares_model())
    separator.separate_file(song, {"vocals": tmp_path / "a.flac"})
    assert soundfile.info(tmp_path / "a.flac").format == "FLAC"
    for outputs in ({"vocals": "a.txt"}, {"vocals": "b.wav", "drums": "b.flac"}):
        with pytest.raises(UsageError, match="mixed or unknown extensions"):
            separator.separate_file(song, outputs)


# Reading ahead


def test_reading_ahead_gives_what_a_reader_gives(tmp_path: Path) -> None:
    song = write(tmp_path / "song.wav", noise(2, 65_536 * (BLOCKS + 3) + 17))
    with open_reader(song) as reader, PrefetchReader(song) as ahead:
        assert (ahead.rate, ahead.channels, ahead.length) == (reader.rate, reader.channels, reader.length)
        for one, other in zip(reader.blocks(), ahead.blocks(), strict=True):
            assert (one == other).all()


def test_reading_ahead_stops_when_nobody_wants_it(tmp_path: Path) -> None:
    decoded = 0

    class Endless(Reader):
        def blocks(self, size: int = 65_536) -> Iterator[Block]:
            nonlocal decoded
            while True:
                decoded += 1
                yield np.zeros((2, size), np.float32)

    def open_song(path: Path) -> Reader:
        reader = open_reader(path)
        reader.__class__ = Endless
        return reader

    before = threading.active_count()
    ahead = PrefetchReader(write(tmp_path / "song.wav", noise(2, 10)), open_song)
    while decoded < BLOCKS:
        time.sleep(0.01)
    time.sleep(0.05)
    assert decoded <= BLOCKS + 2
    ahead.close()
    ahead.close()
    assert threading.active_count() == before


def test_errors_ahead_are_raised_where_they_belong(tmp_path: Path) -> None:
    ahead = PrefetchReader(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="there is no file"), ahead:
        pass
    ahead.close()
    song = tmp_path / "cut.flac"
    soundfile.write(song, noise(2, 400_000).T, 44_100)
    song.write_bytes(song.read_bytes()[: len(song.read_bytes()) // 2])
    with PrefetchReader(song) as ahead:
        assert sum(block.shape[1] for block in ahead.blocks()) < 400_000
        assert any("ends early" in warning for warning in ahead.warnings)


def test_a_song_that_was_changed_after_it_was_opened_is_not_fresh(tmp_path: Path) -> None:
    song = write(tmp_path / "song.wav", noise(2, 1_000))
    with PrefetchReader(song) as ahead:
        assert ahead.is_fresh()
        write(tmp_path / "new.wav", noise(2, 1_000)).replace(song)
        assert not ahead.is_fresh()
        song.unlink()
        assert not ahead.is_fresh()
