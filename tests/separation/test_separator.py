from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from support.songs import STEMS
from torch import Tensor, nn

from stemsplit.audio.formats import Format
from stemsplit.dsp.stft import Stft
from stemsplit.errors import AudioError, UsageError
from stemsplit.models.checkpoint import Header, Model
from stemsplit.networks.masking import MaskNetwork
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.outputs import Delivery
from stemsplit.separation.separator import Separator

Samples = npt.NDArray[np.float32]
MakeModel = Callable[..., Model]
SHARES = np.array([0.5, 0.25, 0.125, 0.125], np.float32)  # of `shares_model`


def noise(channels: int, length: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, length)).astype(np.float32)


def soft_noise(channels: int, length: int, rate: int) -> Samples:
    """Noise below 3 kHz that comes and goes slowly: what a change of the rate leaves as it is."""
    spectrum = np.fft.rfft(noise(channels, length))
    spectrum[:, np.fft.rfftfreq(length, 1 / rate) > 3000] = 0
    envelope: Samples = np.sin(np.linspace(0, np.pi, length), dtype=np.float32)
    result: Samples = (np.fft.irfft(spectrum, length) * envelope).astype(np.float32)
    return result


def blocks(samples: Samples, size: int) -> Iterator[Samples]:
    for start in range(0, samples.shape[-1], size):
        yield np.ascontiguousarray(samples[:, start : start + size])


def join(stems: Iterator[Samples], model: Model) -> Samples:
    header = model.header
    return np.concatenate([np.zeros((len(header.stems), header.channels, 0), np.float32), *stems], axis=-1)


def shares_of(mix: Samples) -> Samples:
    shares: Samples = SHARES[:, None, None] * mix
    return shares


@pytest.mark.parametrize("length", [0, 1, 2, 2999, 3000, 3001, 4095, 4096, 4097, 20_000])
@pytest.mark.parametrize("size", [1000, 4096, 65_536])
def test_known_shares_come_out(shares_model: MakeModel, length: int, size: int) -> None:
    model, mix = shares_model(), noise(2, length)
    stems = join(Separator(model).separate(blocks(mix, size), 44_100), model)
    assert stems.shape == (4, 2, length)
    assert stems.dtype == np.float32
    np.testing.assert_allclose(stems, shares_of(mix), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("length", "hop"), [(1, 1), (64, 64), (100, 33), (1000, 999), (512, 1)])
def test_any_plan(shares_model: MakeModel, length: int, hop: int) -> None:
    model, mix = shares_model(length=length, hop=hop), noise(2, 777)
    stems = join(Separator(model, SeparationOptions(batch_size=7)).separate(blocks(mix, 50), 44_100), model)
    np.testing.assert_allclose(stems, shares_of(mix), rtol=0, atol=1e-5)


def test_mono_is_given_to_both_channels(shares_model: MakeModel) -> None:
    model, mix = shares_model(), noise(1, 9000)
    stems = join(Separator(model).separate(blocks(mix, 500), 44_100), model)
    np.testing.assert_allclose(stems, shares_of(np.repeat(mix, 2, axis=0)), rtol=0, atol=1e-5)


def test_stereo_is_averaged_for_a_mono_model(shares_model: MakeModel) -> None:
    model, mix = shares_model(channels=1), noise(2, 9000)
    stems = join(Separator(model).separate(blocks(mix, 500), 44_100), model)
    np.testing.assert_allclose(stems, shares_of(mix.mean(0, keepdims=True)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000, 96_000])
def test_stems_are_at_the_models_rate(shares_model: MakeModel, rate: int) -> None:
    model, mix = shares_model(), soft_noise(2, rate // 2, rate)
    stems = join(Separator(model).separate(blocks(mix, 4000), rate), model)
    assert stems.shape == (4, 2, 22_050)
    assert stems.sum(0).std() == pytest.approx(mix.std(), rel=0.01)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_neither_blocks_nor_batches_matter(unet_model: MakeModel, rate: int) -> None:
    model, mix = unet_model(), noise(2, 30_001)
    whole = join(Separator(model, SeparationOptions(batch_size=8)).separate([mix], rate), model)
    assert whole.std() > 0.01
    for size, batch_size in ((777, 1), (65_536, 3), (4096, 100)):
        stems = join(
            Separator(model, SeparationOptions(batch_size=batch_size)).separate(blocks(mix, size), rate), model
        )
        np.testing.assert_allclose(stems, whole, rtol=0, atol=2e-6)


def test_the_network_gets_the_batches_that_were_asked_for(shares_model: MakeModel) -> None:
    model = shares_model(length=100, hop=100)
    list(Separator(model, SeparationOptions(batch_size=4)).separate([noise(2, 1000)], 44_100))
    assert model.network.batches == [4, 4, 2]


def test_a_batch_must_have_a_window(shares_model: MakeModel) -> None:
    with pytest.raises(UsageError, match="at least 1, not 0"):
        list(Separator(shares_model(), SeparationOptions(batch_size=0)).separate([noise(2, 1000)], 44_100))


def test_nothing_is_read_ahead(shares_model: MakeModel) -> None:
    """One window of future, and the batch: what keeps memory constant."""
    model, read = shares_model(length=400, hop=300), 0

    def source() -> Iterator[Samples]:
        nonlocal read
        for block in blocks(noise(2, 20_000), 100):
            read += 100
            yield block

    given = 0
    for stems in Separator(model, SeparationOptions(batch_size=2)).separate(source(), 44_100):
        given += stems.shape[-1]
        assert read <= given + 400 + 300


def test_silence_stays_silent(unet_model: MakeModel) -> None:
    model = unet_model()
    stems = join(Separator(model).separate([np.zeros((2, 10_000), np.float32)], 44_100), model)
    assert stems.shape == (4, 2, 10_000)
    assert not stems.any()


@pytest.mark.parametrize("finish", ["exhausted", "closed", "dropped"])
def test_inference_mode_does_not_leak(unet_model: MakeModel, finish: str) -> None:
    model = unet_model()
    stems = Separator(model).separate(blocks(noise(2, 30_000), 1000), 44_100)
    for _ in range(2):
        next(stems)
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    if finish == "exhausted":
        list(stems)
    elif finish == "closed":
        stems.close()  # type: ignore[attr-defined]
    else:
        del stems
    assert not torch.is_inference_mode_enabled()
    assert torch.ones(1, requires_grad=True).sum().requires_grad


def test_no_gradients_are_kept_while_separating(unet_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = unet_model(), []
    forward = type(model.network).forward

    def spy(network: nn.Module, mix: Tensor) -> Tensor:
        seen.append(torch.is_inference_mode_enabled())
        return forward(network, mix)  # type: ignore[no-any-return]

    monkeypatch.setattr(type(model.network), "forward", spy)
    list(Separator(model).separate([noise(2, 9000)], 44_100))
    assert set(seen) == {True}


class FixedMasks(MaskNetwork):
    """A filter for every stem that is the same at all times: its result should not know of windows."""

    def __init__(self) -> None:
        super().__init__(Stft(512, 128))
        self.filters = (torch.randn(4, 257, generator=torch.Generator().manual_seed(0)) * 2).softmax(0)

    def masks(self, spectrum: Tensor) -> Tensor:
        b, c, f, t = spectrum.shape
        return self.filters[None, :, None, :, None].expand(b, 4, c, f, t)


def seam_error(model: Model, length: int, hop: int) -> tuple[float, float]:
    """Windowed result against one pass: the difference in dB, and its roughness at the seams relative to elsewhere."""
    samples = 60_000
    swell = 0.3 + np.abs(np.sin(np.arange(samples) / 9000))
    mix = noise(2, samples) * swell.astype(np.float32)
    header = Header("any", {}, STEMS, rate=44_100, channels=2, length=length, hop=hop)
    windowed = join(Separator(Model(header, model.network)).separate(blocks(mix, 5000), 44_100), model)
    with torch.no_grad():
        whole = model.network(torch.from_numpy(mix)[None])[0].numpy()
    inside = slice(1024, -1024)  # the ends of the song have other neighbours: zeros here, a mirror image there
    error = (windowed - whole)[..., inside]
    decibels = 10 * np.log10((error**2).mean() / (whole[..., inside] ** 2).mean())
    steps = np.abs(np.diff(error)).mean((0, 1))
    seams = {k * hop + n - 1024 - 1 for k in range(samples // hop) for n in (0, length - hop)}
    at_seams = [steps[n] for n in seams if 0 <= n < len(steps)]
    return float(decibels), float(np.mean(at_seams) / steps.mean())


@pytest.mark.parametrize(("length", "hop"), [(16_384, 12_288), (8192, 4096), (4096, 3072)])
def test_windows_of_a_filter_leave_no_seam(unet_model: MakeModel, length: int, hop: int) -> None:
    filters = Model(unet_model().header, FixedMasks())
    decibels, roughness = seam_error(filters, length, hop)
    assert decibels < -39
    assert roughness < 1
    assert seam_error(filters, length, length)[0] > -30  # without overlap there is one


@pytest.mark.full
@pytest.mark.parametrize(("length", "hop"), [(16_384, 12_288), (8192, 4096)])
def test_windows_of_a_unet_leave_no_seam(unet_model: MakeModel, length: int, hop: int) -> None:
    model = unet_model()
    decibels, roughness = seam_error(model, length, hop)
    assert decibels < -30
    assert roughness < 2
    assert seam_error(model, length, length)[1] > 2.5  # without overlap it is heard


def outputs_in(folder: Path, stems: tuple[str, ...] = STEMS) -> dict[str, Path]:
    return {stem: folder / f"{stem}.wav" for stem in stems}


def write(path: Path, samples: Samples, rate: int = 44_100) -> Path:
    soundfile.write(path, samples.T, rate, subtype="FLOAT")
    return path


def read(outputs: dict[str, Path]) -> Samples:
    """`(S, C, N)`."""
    return np.stack([soundfile.read(path, dtype="float32", always_2d=True)[0].T for path in outputs.values()])


@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_is_separated(shares_model: MakeModel, tmp_path: Path, channels: int) -> None:
    mix, outputs, seen = noise(channels, 100_000), outputs_in(tmp_path / "new" / "a [b] song"), []
    report = Separator(shares_model(), SeparationOptions(batch_size=3)).separate_file(
        write(tmp_path / "song.wav", mix),
        outputs,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    np.testing.assert_allclose(read(outputs), shares_of(mix), rtol=0, atol=1e-5)
    assert (report.rate, report.channels, report.length) == (44_100, channels, 100_000)
    assert (report.clipped, report.warnings) == (0, ())
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (100_000, 100_000)
    assert len(seen) > 10


def test_mono_stems_are_the_mean_of_the_models_channels(unet_model: MakeModel, tmp_path: Path) -> None:
    mix, outputs, model = noise(1, 9000), outputs_in(tmp_path), unet_model()
    Separator(model).separate_file(write(tmp_path / "song.wav", mix), outputs)
    stems = join(Separator(model).separate([mix], 44_100), model)
    assert np.abs(stems[:, 0] - stems[:, 1]).max() > 1e-3
    np.testing.assert_allclose(read(outputs), stems.mean(1, keepdims=True), rtol=0, atol=1e-6)


def test_a_mono_model_gives_a_stereo_song_stereo_stems(shares_model: MakeModel, tmp_path: Path) -> None:
    mix, outputs = noise(2, 9000), outputs_in(tmp_path)
    song, separator = write(tmp_path / "song.wav", mix), Separator(shares_model(channels=1))
    report = separator.separate_file(song, outputs, delivery=Delivery(Format("wav", "32f"), consistent=False))
    assert report.channels == 2
    middle = np.repeat(mix.mean(0, keepdims=True), 2, axis=0)
    np.testing.assert_allclose(read(outputs), shares_of(middle), rtol=0, atol=1e-5)
    # What it does not hear, the difference between the channels, is shared equally if the stems are to add up.
    separator.separate_file(song, outputs, overwrite=True)
    np.testing.assert_allclose(read(outputs), shares_of(middle) + (mix - middle) / 4, rtol=0, atol=1e-5)


@pytest.mark.parametrize("wanted", [("bass",), ("other", "vocals")])
@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_only_the_stems_that_are_wanted(
    unet_model: MakeModel, tmp_path: Path, wanted: tuple[str, ...], rate: int
) -> None:
    track = write(tmp_path / "song.wav", noise(2, 20_000), rate)
    every, some = outputs_in(tmp_path / "all"), outputs_in(tmp_path / "some", wanted)
    Separator(unet_model()).separate_file(track, every, delivery=Delivery(Format("wav", "32f"), consistent=False))
    Separator(unet_model()).separate_file(track, some)
    assert {path.name for path in (tmp_path / "some").iterdir()} == {f"{stem}.wav" for stem in wanted}
    np.testing.assert_allclose(read(some), read({stem: every[stem] for stem in wanted}), rtol=0, atol=1e-6)


def test_a_stem_that_the_model_has_not(shares_model: MakeModel, tmp_path: Path) -> None:
    track = write(tmp_path / "song.wav", noise(2, 100))
    with pytest.raises(UsageError, match="no stem 'piano'") as caught:
        Separator(shares_model()).separate_file(track, outputs_in(tmp_path / "out", ("vocals", "piano")))
    assert "vocals, drums, bass, other" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_length_rate_and_channels_are_kept(shares_model: MakeModel, tmp_path: Path, rate: int, channels: int) -> None:
    # From 48, 96 and 192 kHz, 6 or 8 samples become more on the way to 44.1 kHz and back, and 1 or 31 become fewer.
    for length in (0, 1, 2, 6, 8, 31, 4097, 12_347):
        mix, outputs = noise(channels, length), outputs_in(tmp_path / str(length))
        report = Separator(shares_model()).separate_file(write(tmp_path / "song.wav", mix, rate), outputs)
        assert report.length == length
        for path in outputs.values():
            info = soundfile.info(path)
            assert (info.samplerate, info.channels, info.frames) == (rate, channels, length)


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000, 96_000, 192_000])
def test_other_rates_there_and_back(shares_model: MakeModel, tmp_path: Path, rate: int) -> None:
    """At the place where it was: a shift by one sample would be an error of several percent."""
    mix, outputs = soft_noise(2, rate, rate), outputs_in(tmp_path)
    Separator(shares_model()).separate_file(write(tmp_path / "song.wav", mix, rate), outputs)
    np.testing.assert_allclose(read(outputs), shares_of(mix), rtol=0, atol=1e-4 * np.abs(mix).max())


def test_silent_files_stay_silent(unet_model: MakeModel, tmp_path: Path) -> None:
    outputs = outputs_in(tmp_path)
    Separator(unet_model()).separate_file(write(tmp_path / "song.wav", np.zeros((2, 9999), np.float32)), outputs)
    stems = read(outputs)
    assert stems.shape == (4, 2, 9999)
    assert not stems.any()


def test_loud_files_are_clipped_and_counted(shares_model: MakeModel, tmp_path: Path) -> None:
    mix = np.full((2, 5000), 0.5, np.float32)
    mix[:, 100:110] = 3.0
    outputs = outputs_in(tmp_path)
    report = Separator(shares_model()).separate_file(write(tmp_path / "song.wav", mix), outputs)
    assert report.clipped == 20  # 10 samples of 2 channels in the stem that has half of the mixture
    assert read(outputs)[0].max() <= 1


def test_what_is_odd_about_a_file_is_reported(shares_model: MakeModel, tmp_path: Path) -> None:
    mix = noise(2, 5000)
    mix[0, 77] = np.nan
    report = Separator(shares_model()).separate_file(write(tmp_path / "song.wav", mix), outputs_in(tmp_path))
    assert len(report.warnings) == 1
    assert "not a number" in report.warnings[0]


def test_nothing_is_overwritten_unasked(shares_model: MakeModel, tmp_path: Path) -> None:
    track, outputs = write(tmp_path / "song.wav", noise(2, 5000)), outputs_in(tmp_path / "out")
    outputs["bass"].parent.mkdir()
    outputs["bass"].write_text("mine")
    with pytest.raises(AudioError, match=r"bass\.wav"):
        Separator(shares_model()).separate_file(track, outputs)
    assert outputs["bass"].read_text() == "mine"
    assert len(list((tmp_path / "out").iterdir())) == 1
    Separator(shares_model()).separate_file(track, outputs, overwrite=True)
    assert read(outputs).shape == (4, 2, 5000)


class Breaks(nn.Module):
    """Works three times."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, mix: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 3:
            raise ZeroDivisionError("a bug")
        return mix.unsqueeze(1).expand(-1, 4, -1, -1)


def test_a_failure_midway_leaves_nothing(shares_model: MakeModel, tmp_path: Path) -> None:
    track = write(tmp_path / "song.wav", noise(2, 100_000))
    with pytest.raises(ZeroDivisionError):
        Separator(Model(shares_model().header, Breaks())).separate_file(track, outputs_in(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]


def test_an_interruption_leaves_nothing(shares_model: MakeModel, tmp_path: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done > 20_000:
            raise KeyboardInterrupt

    track = write(tmp_path / "song.wav", noise(2, 100_000))
    with pytest.raises(KeyboardInterrupt):
        Separator(shares_model()).separate_file(track, outputs_in(tmp_path / "out"), on_progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]
    assert not torch.is_inference_mode_enabled()


def test_a_file_that_is_no_song(shares_model: MakeModel, tmp_path: Path) -> None:
    track = tmp_path / "song.wav"
    track.write_text("not a song at all")
    with pytest.raises(AudioError, match=r"song\.wav"):
        Separator(shares_model()).separate_file(track, outputs_in(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]


@pytest.mark.parametrize("rate", ["44100", None, 0, -1, 44_100.5, float("nan")])
def test_a_rate_that_is_none(shares_model: Callable[..., Model], rate: Any) -> None:
    separator = Separator(shares_model())
    with pytest.raises(UsageError, match="a sample rate must be a whole number of Hz"):
        list(separator.separate([np.zeros((2, 100), np.float32)], rate))
    with pytest.raises(UsageError, match="a sample rate must be a whole number of Hz"):
        separator.separate_array(np.zeros((2, 100), np.float32), rate)
    if rate is not None:  # that of the song
        with pytest.raises(UsageError, match="a sample rate must be a whole number of Hz"):
            Delivery(rate=rate)
