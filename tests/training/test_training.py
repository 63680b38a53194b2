import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from support.networks import TINY_UNET
from support.songs import STEMS
from support.training import PLAIN, RECIPE, crop, same, train, weights
from torch import Tensor, nn
from torch.utils.data import DataLoader

from stemsplit.datasets.multitracks import Multitrack, find_songs
from stemsplit.dsp.stft import Stft
from stemsplit.errors import DatasetError, ModelError, UsageError
from stemsplit.evaluation.scoring import evaluate, mean_sdr, mixture, score
from stemsplit.models import checkpoint
from stemsplit.networks.masking import MaskNetwork
from stemsplit.separation.separator import Separator
from stemsplit.training.augmentation import augment, distort, equalize
from stemsplit.training.data import Crops
from stemsplit.training.fit import REPORT, STATE, WEIGHTS, fit
from stemsplit.training.loss import LOSSES, compute
from stemsplit.training.recipe import Recipe, make_recipe, read_recipe
from stemsplit.training.run import Run

MakeSong = Callable[..., dict[str, np.ndarray]]


# ---- crops


def test_a_crop_depends_on_seed_epoch_and_index_alone(songs: list[Multitrack]) -> None:
    crops, again = Crops(songs, RECIPE), Crops(songs, RECIPE)
    assert len(crops) == 6
    first = crop(crops, 3)
    assert first.shape == (4, 2, 2000)
    assert first.dtype == torch.float32
    crop(crops, 5, epoch=2)
    assert torch.equal(crop(crops, 3), first)
    assert torch.equal(crop(again, 3), first)
    assert not torch.equal(crop(crops, 4), first)
    assert not torch.equal(crop(crops, 3, epoch=1), first)
    assert not torch.equal(crop(Crops(songs, replace(RECIPE, seed=8)), 3), first)


@pytest.mark.full
@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_makes_no_difference(songs: list[Multitrack], workers: int) -> None:
    crops = Crops(songs, RECIPE)
    for epoch in (0, 1):
        crops.epoch = epoch
        alone = list(DataLoader(crops, 2, num_workers=0))
        together = list(DataLoader(crops, 2, num_workers=workers))
        assert len(alone) == len(together) == 3
        assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.fixture
def signed_songs(tmp_path: Path) -> list[Multitrack]:
    """Constant stems that tell where they are from: 0.1 x song + 0.01 x stem, left; minus that, right."""
    for song in range(1, 6):
        (tmp_path / str(song)).mkdir()
        for stem, name in enumerate(STEMS, start=1):
            samples = np.full((4000, 2), song * 0.1 + stem * 0.01, np.float32) * np.array([1, -1], np.float32)
            soundfile.write(tmp_path / str(song) / f"{name}.wav", samples, 8000, subtype="FLOAT")
    return find_songs(tmp_path, STEMS)


def origins(stems: Tensor) -> list[tuple[int, int]]:
    """The song and stem that every row is from."""
    values = (stems[:, 0, 0] * 100).round().int().tolist()
    assert torch.allclose(stems[:, 0], -stems[:, 1])
    return [(value // 10, value % 10) for value in values]


def test_remixed_stems_come_from_several_songs(signed_songs: list[Multitrack]) -> None:
    crops = Crops(signed_songs, replace(PLAIN, remix=1.0))
    drawn = [origins(crop(crops, index)) for index in range(40)]
    assert all([stem for _, stem in rows] == [1, 2, 3, 4] for rows in drawn)
    assert np.mean([len({song for song, _ in rows}) for rows in drawn]) > 2
    assert {song for rows in drawn for song, _ in rows} == {1, 2, 3, 4, 5}


def test_without_remixing_a_crop_is_one_song(signed_songs: list[Multitrack]) -> None:
    crops = Crops(signed_songs, replace(PLAIN, remix=0.0))
    drawn = [origins(crop(crops, index)) for index in range(40)]
    assert all([stem for _, stem in rows] == [1, 2, 3, 4] for rows in drawn)
    assert all(len({song for song, _ in rows}) == 1 for rows in drawn)
    assert {rows[0][0] for rows in drawn} == {1, 2, 3, 4, 5}


def test_crops_begin_anywhere(songs: list[Multitrack]) -> None:
    crops = Crops(songs, replace(PLAIN, remix=0.0, steps=50))
    assert len({float(crop(crops, index)[0, 0, 0]) for index in range(100)}) > 90


@pytest.mark.full
@pytest.mark.parametrize("remix", [0.0, 1.0])
def test_long_songs_are_drawn_more_often(tmp_path: Path, remix: float) -> None:
    """Every second of the data counts the same."""
    for name, level, length in (("long", 0.1, 27_000), ("short", 0.2, 3000)):
        (tmp_path / name).mkdir()
        for stem in STEMS:
            samples = np.full((length, 2), level, np.float32)
            soundfile.write(tmp_path / name / f"{stem}.wav", samples, 8000, subtype="FLOAT")
    crops = Crops(find_songs(tmp_path, STEMS), replace(PLAIN, remix=remix))
    long = torch.stack([crop(crops, index)[:, 0, 0] < 0.15 for index in range(200)])
    assert 0.84 < long.double().mean() < 0.96


def test_silent_places_are_mostly_avoided(tmp_path: Path) -> None:
    samples = np.zeros((40_000, 2), np.float32)
    samples[20_000:] = 0.5
    for stem in STEMS:
        soundfile.write(tmp_path / f"{stem}.wav", samples, 8000, subtype="FLOAT")
    crops = Crops(find_songs(tmp_path, STEMS), replace(PLAIN, remix=1.0))
    silent = [bool(row.abs().max() == 0) for index in range(50) for row in crop(crops, index)]
    assert 0.02 < np.mean(silent) < 0.25  # about an eighth: half of the places, three times


def test_songs_shorter_than_a_crop_are_filled_with_silence(make_song: MakeSong, tmp_path: Path) -> None:
    make_song(tmp_path, length=500)
    stems = crop(Crops(find_songs(tmp_path, STEMS), PLAIN), 0)
    assert stems.shape == (4, 2, 2000)
    assert stems[..., :500].abs().max() > 0
    assert stems[..., 500:].abs().max() == 0


def test_mono_songs_are_used_for_stereo(make_song: MakeSong, tmp_path: Path) -> None:
    make_song(tmp_path, channels=1)
    stems = crop(Crops(find_songs(tmp_path, STEMS), RECIPE), 0)
    assert stems.shape == (4, 2, 2000)
    assert torch.equal(stems[:, 0], stems[:, 1])


def test_songs_with_a_single_stem_are_only_remixed(make_song: MakeSong, tmp_path: Path) -> None:
    make_song(tmp_path / "whole", seed=1)
    make_song(tmp_path / "voice", stems=("vocals",), seed=2)
    crops = Crops(find_songs(tmp_path, STEMS), replace(PLAIN, remix=0.0))
    assert [song.name for song in crops.mixed_songs] == ["whole"]
    assert len(crops.songs_with["vocals"]) == 2
    assert all(crop(crops, index)[1:].abs().amax((1, 2)).min() > 0 for index in range(20))


@pytest.fixture
def leaky_songs(tmp_path: Path) -> list[Multitrack]:
    """Songs whose mixture has a tone beside the stems; one of them has no file with its mixture."""
    rng = np.random.default_rng(0)
    for number in range(3):
        folder = tmp_path / f"song{number}"
        folder.mkdir()
        stems = rng.uniform(-0.1, 0.1, (2, 6000, 2)).astype(np.float32)
        for name, samples in zip(("drums", "bass"), stems, strict=True):
            soundfile.write(folder / f"{name}.wav", samples, 8000, subtype="FLOAT")
        if number:
            tone = 0.05 * np.sin(2 * np.pi * 1000 * np.arange(6000) / 8000)[:, None]
            soundfile.write(folder / "mixture.wav", (stems.sum(0) + tone).astype(np.float32), 8000, subtype="FLOAT")
    return find_songs(tmp_path, ("drums", "bass"))


def tone_of(part: Tensor) -> float:
    """The amplitude of 1000 Hz."""
    return float(2 * torch.fft.rfft(part[0])[250].abs() / 2000)


def test_what_a_mixture_has_beside_its_stems_is_the_last_part(leaky_songs: list[Multitrack]) -> None:
    recipe = replace(PLAIN, stems=("drums", "bass"), mixture=1.0, remix=0.0, steps=20)
    crops = Crops(leaky_songs, recipe)
    tones = []
    for index in range(30):
        parts = crop(crops, index)
        assert parts.shape == (3, 2, 2000)
        assert parts[:2].abs().amax((1, 2)).min() > 0.05
        tones.append(tone_of(parts[2]))
        assert tones[-1] == pytest.approx(0.05, rel=1e-3) or not parts[2].any()
    assert 0 < sum(tone == 0 for tone in tones) < 20  # the song without a file of its mixture


def test_remixed_crops_have_nothing_beside_their_stems(leaky_songs: list[Multitrack]) -> None:
    crops = Crops(leaky_songs, replace(PLAIN, stems=("drums", "bass"), mixture=1.0, remix=1.0))
    assert not any(crop(crops, index)[2].any() for index in range(6))


def test_all_parts_of_a_mixture_change_together(leaky_songs: list[Multitrack]) -> None:
    """Only so does a part that is the difference of two files stay one."""
    recipe = replace(RECIPE, stems=("drums", "bass"), mixture=1.0, remix=0.0, eq_db=6.0, swap=0.5, mono=0.3, steps=30)
    crops = Crops(leaky_songs, recipe)
    plain = Crops(leaky_songs, replace(recipe, eq_db=0.0, swap=0.0, mono=0.0, gain_db=0.0))
    seen = 0
    for index in range(40):
        before, after = crop(plain, index), crop(crops, index)
        if not before[2].any():
            continue
        seen += 1
        change = torch.fft.rfft(after.mean(1)) / torch.fft.rfft(before.mean(1))
        assert change[2, 250].abs().item() == pytest.approx(change[0, 250].abs().item(), rel=1e-3)
        assert change[1, 100:900].abs().numpy() == pytest.approx(change[0, 100:900].abs().numpy(), rel=1e-2)
    assert seen > 10


def test_data_that_does_not_fit_the_recipe(songs: list[Multitrack], make_song: MakeSong, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="8000 Hz and 2 channels, not 44100 Hz"):
        Crops(songs, replace(RECIPE, rate=44_100))
    with pytest.raises(DatasetError, match="not 8000 Hz and 1 channel"):
        Crops(songs, replace(RECIPE, channels=1))
    make_song(tmp_path, stems=("vocals", "other"))
    with pytest.raises(DatasetError, match="no song has drums or bass"):
        Crops(find_songs(tmp_path, STEMS), RECIPE)


# ---- augmentation


def test_augmentation_makes_new_tensors_of_the_same_shape() -> None:
    recipe = replace(RECIPE, swap=0.5, mono=0.3, drop=0.2)
    for channels in (1, 2):
        stems = torch.randn(4, channels, 300, generator=torch.Generator().manual_seed(0))
        before = stems.clone()
        for seed in range(30):
            result = augment(stems, recipe, np.random.default_rng(seed))
            assert result.shape == stems.shape
            assert result.dtype == torch.float32
            assert result.is_contiguous()
            result += 1  # not a view of what it was given
            assert torch.equal(stems, before)


def test_augmentation_that_is_turned_off_only_lowers_the_whole() -> None:
    stems = torch.randn(4, 2, 300)
    assert torch.allclose(augment(stems, PLAIN, np.random.default_rng(0)), stems)


def test_gains_stay_in_range_and_differ() -> None:
    recipe, gains = replace(PLAIN, gain_db=6.0), []
    for seed in range(200):
        result = augment(torch.ones(4, 2, 3), recipe, np.random.default_rng(seed))
        assert torch.equal(result[:, :1, :1].expand(4, 2, 3), result)
        gains.append(20 * np.log10(result[:, 0, 0].numpy()))
    all_gains = np.array(gains)
    assert -12 - 1e-4 < all_gains.min() < -9
    assert 4 < all_gains.max() < 6 + 1e-4
    assert all_gains.std(axis=1).min() > 0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_chances(share: float) -> None:
    stems = torch.tensor([1.0, -0.5])[None, :, None].expand(4, 2, 10)

    def rate(recipe: Recipe, happened: Callable[[Tensor], Tensor]) -> float:
        results = [happened(augment(stems, recipe, np.random.default_rng(seed))) for seed in range(300)]
        return float(torch.stack(results).double().mean())

    around = pytest.approx(share, abs=0.0 if share in (0, 1) else 0.1)
    assert rate(replace(PLAIN, drop=share), lambda s: s.abs().amax((1, 2)) == 0) == around
    assert rate(replace(PLAIN, swap=share), lambda s: s[:, 0, 0] < 0) == around
    assert rate(replace(PLAIN, mono=share), lambda s: s[:, 0, 0] == s[:, 1, 0]) == around


def test_an_equalizer_changes_the_timbre_alone() -> None:
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.standard_normal((3, 2, 8001))).float()
    stems = torch.cat([noise, torch.zeros(1, 2, 8001)])
    result = equalize(stems, 8000, 9.0, rng)
    assert result.shape == stems.shape
    assert torch.allclose(result.square().sum((1, 2)), stems.square().sum((1, 2)), rtol=1e-4)
    assert not result[3].any()
    gains = 20 * (torch.fft.rfft(result[:3]).abs() / torch.fft.rfft(stems[:3]).abs()).log10()
    spread = gains.amax((1, 2)) - gains.amin((1, 2))
    assert ((spread > 2) & (spread < 18.1)).all()  # a curve of its own for every stem, within +-9 dB
    assert torch.allclose(gains[:, 0], gains[:, 1], atol=0.1)  # and for both channels the same
    turned = torch.fft.rfft(result[:3]) / torch.fft.rfft(stems[:3])
    assert turned.imag.abs().max() < 1e-2  # no phase shift: nothing moves in time


def test_distortion_adds_harmonics_and_no_energy() -> None:
    tone = (
        torch.sin(2 * np.pi * 100 * torch.arange(8000) / 8000).expand(3, 2, -1)
        * torch.tensor([1.0, 0.01, 0.0])[:, None, None]
    )
    assert torch.equal(distort(tone, 0.0, np.random.default_rng(0)), tone)
    result = distort(tone, 1.0, np.random.default_rng(0))
    assert torch.allclose(result.square().sum((1, 2)), tone.square().sum((1, 2)), rtol=1e-4)
    lines = torch.fft.rfft(result[:, 0]).abs()
    share = lines[:2, 300] / lines[:2, 100]  # of the third harmonic, at any level; 1/3 in a square wave
    assert ((share > 1e-3) & (share < 0.34)).all()
    assert lines[:2, 200].max() < 1e-2 * lines[:2, 100].min()


@pytest.mark.parametrize("semitones", [0.0, 7.0])
def test_songs_are_played_faster_and_slower(tmp_path: Path, semitones: float) -> None:
    time = np.arange(16_000) / 8000
    (tmp_path / "song").mkdir()
    for stem, pitch in zip(STEMS, (400, 600, 800, 1000), strict=True):
        soundfile.write(tmp_path / "song" / f"{stem}.wav", 0.1 * np.sin(2 * np.pi * pitch * time), 8000)
    recipe = replace(PLAIN, speed=semitones, remix=0.0, steps=20)
    crops = Crops(find_songs(tmp_path, STEMS), recipe)
    speeds = []
    for index in range(20):
        stems = crop(crops, index)
        assert stems.shape == (4, 2, recipe.length)
        heard = torch.fft.rfft(stems[:, 0], n=64_000).abs().argmax(-1) / 8
        speed = heard / torch.tensor([400, 600, 800, 1000])
        assert torch.allclose(speed, speed[:1], atol=0.01)  # all stems of an excerpt alike
        speeds.append(12 * float(speed[0].log2()))
    assert max(abs(min(speeds)), max(speeds)) <= semitones + 0.1
    assert max(speeds) - min(speeds) >= 1.2 * semitones


# ---- losses


class Masks(MaskNetwork):
    """Gives the masks that it was made with."""

    def __init__(self, shares: Tensor) -> None:
        super().__init__(Stft(64, 16))
        self.given = nn.Parameter(shares)

    def masks(self, spectrum: Tensor) -> Tensor:
        b, c, f, t = spectrum.shape
        return self.given[None, :, None, None, None].expand(b, -1, c, f, t)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_losses_are_zero_for_perfect_masks_only(loss: str) -> None:
    mix = torch.randn(2, 1, 2, 500, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([0.6, 0.3, 0.1])
    stems = mix * shares[:, None, None]
    previous = compute(loss, Masks(shares), stems).item()
    assert previous == pytest.approx(0, abs=1e-5) or (loss == "sdr" and previous < -15)
    for wrong in (0.05, 0.1, 0.2):
        network = Masks(shares + torch.tensor([-wrong, 0, wrong]))
        value = compute(loss, network, stems)
        assert value.shape == ()
        assert value.item() > previous + 0.005
        value.backward()  # type: ignore[no-untyped-call]
        assert network.given.grad is not None
        assert network.given.grad[0] < 0 < network.given.grad[2]  # downhill is towards the truth
        previous = value.item()


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_losses_of_silence_have_finite_gradients(loss: str) -> None:
    network = checkpoint.new_model(
        checkpoint.Header("unet", TINY_UNET, STEMS, rate=8000, channels=2, length=2000, hop=1500)
    ).network
    stems = torch.zeros(2, 4, 2, 2000)
    stems[0, 1] = torch.randn(2, 2000)
    compute(loss, network, stems).backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


class Listens(nn.Module):
    """Gives its input as each of two stems, and keeps it."""

    def __init__(self, standardized: bool) -> None:
        super().__init__()
        self.standardized, self.heard = standardized, torch.zeros(0)

    def forward(self, mix: Tensor) -> Tensor:
        self.heard = mix
        return torch.stack([mix, mix], dim=1)


def test_networks_learn_from_what_they_are_given_in_separation() -> None:
    mix = 1e-3 * torch.randn(3, 2, 5000, generator=torch.Generator().manual_seed(0)) + 0.02
    mix[2] = 0.1
    stems = torch.stack([mix, 0 * mix], dim=1)
    listens, as_it_is = Listens(True), Listens(False)
    losses = [compute("waveform", network, stems).item() for network in (listens, as_it_is)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # what comes out is as loud as before
    torch.testing.assert_close(as_it_is.heard, mix)
    mono = listens.heard.mean(1)
    torch.testing.assert_close(mono.mean(1), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(mono[:2].std(1), torch.ones(2), atol=1e-3, rtol=0)


def test_the_loss_on_spectra_sees_the_phase() -> None:
    """Two stems that cancel in part: magnitudes alone would want masks that are too large."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, 1, 1, 4000, generator=generator)
    stems = torch.cat([one, -0.5 * one], dim=1)  # the mixture is half of the first stem
    perfect, loud = Masks(torch.tensor([2.0, -1.0])), Masks(torch.tensor([2.0, 1.0]))
    assert compute("spectrum", perfect, stems).item() == pytest.approx(0, abs=1e-5)
    assert compute("magnitude", loud, stems).item() == pytest.approx(0, abs=1e-5)
    assert compute("spectrum", loud, stems).item() > 0.1


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_losses_count_what_the_mixture_has_beside_its_stems(loss: str) -> None:
    """No masks are perfect then, and the mixture that the network gets is that of all parts."""
    parts = torch.randn(2, 3, 2, 500, generator=torch.Generator().manual_seed(0))
    network = Masks(torch.tensor([0.5, 0.5]))
    got = compute(loss, network, parts[:, :2], parts[:, 2:])
    assert got.item() > compute(loss, network, parts[:, :2]).item()
    nothing = compute(loss, network, parts[:, :2], torch.zeros(2, 1, 2, 500))
    assert nothing.item() == pytest.approx(compute(loss, network, parts[:, :2]).item(), abs=1e-5)


# ---- training


@pytest.mark.full
def test_the_same_seed_gives_the_same_weights(songs: list[Multitrack], tmp_path: Path) -> None:
    one = train(tmp_path / "one", RECIPE, songs)
    other = train(tmp_path / "other", RECIPE, songs)
    assert [epoch.loss for epoch in one] == [epoch.loss for epoch in other]
    assert [epoch.number for epoch in one] == [1, 2, 3, 4]
    assert same(weights(tmp_path / "one"), weights(tmp_path / "other"))
    train(tmp_path / "third", replace(RECIPE, seed=8), songs)
    assert not same(weights(tmp_path / "one"), weights(tmp_path / "third"))


@pytest.mark.full
def test_every_epoch_has_crops_of_its_own(songs: list[Multitrack], tmp_path: Path) -> None:
    epochs = train(tmp_path, replace(RECIPE, learning_rate=1e-9), songs)  # the weights stay: only the data changes
    assert len({round(epoch.loss, 5) for epoch in epochs}) == 4


def test_what_is_saved_is_a_model(songs: list[Multitrack], tmp_path: Path) -> None:
    train(tmp_path, replace(RECIPE, epochs=1), songs)
    header = checkpoint.load(tmp_path / WEIGHTS).header
    assert (header.family, header.config, header.stems) == ("unet", TINY_UNET, STEMS)
    assert (header.rate, header.channels, header.length, header.hop) == (8000, 2, 2000, 1500)
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS, STATE, REPORT}


@pytest.mark.full
def test_a_tiny_network_learns_a_tiny_song(songs: list[Multitrack], tmp_path: Path) -> None:
    recipe = replace(PLAIN, epochs=8, steps=20, batch_size=4, learning_rate=1e-2, average=0.9, remix=0.0)
    epochs = train(tmp_path, recipe, songs[:1], valid=(songs[0],))
    assert epochs[-1].loss < 0.5 * epochs[0].loss
    nothing = score(songs[0], STEMS, {"mixture": mixture})["mixture"]
    assert mean_sdr(epochs[-1].scores[0].sdr) > mean_sdr(nothing.sdr) + 4
    (again,) = evaluate(Separator(checkpoint.load(tmp_path / WEIGHTS)), songs[:1])  # what was scored is what was saved
    assert again == epochs[-1].scores[0]


@pytest.mark.full
@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_loss_and_precision_trains(songs: list[Multitrack], tmp_path: Path, loss: str, precision: str) -> None:
    recipe = replace(PLAIN, epochs=3, steps=6, batch_size=4, learning_rate=1e-2, loss=loss, precision=precision)
    epochs = train(tmp_path, recipe, songs)
    assert epochs[-1].loss < epochs[0].loss
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in weights(tmp_path).values())


@pytest.mark.full
def test_validation_and_steps_are_told(songs: list[Multitrack], tmp_path: Path) -> None:
    steps: list[tuple[int, float]] = []
    run = fit(
        replace(RECIPE, epochs=5),
        songs[:2],
        songs[2:],
        tmp_path,
        workers=0,
        validate_every=2,
        on_step=lambda step, loss: steps.append((step, loss)),
    )
    epochs = list(run)
    assert [bool(epoch.scores) for epoch in epochs] == [False, True, False, True, True]
    assert [score.song for score in epochs[-1].scores] == ["2"]
    assert [step for step, _ in steps] == [1, 2, 3] * 5
    assert epochs[-1].loss == pytest.approx(np.mean([loss for _, loss in steps[-3:]]))
    assert all(epoch.seconds > 0 for epoch in epochs)


def test_the_learning_rate_rises_stays_and_falls(songs: list[Multitrack], tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=10, steps=10, warmup=0.1, cooldown=0.2, learning_rate=1.0)
    run = Run(recipe, nn.Linear(1, 1), "cpu")
    rates = []
    for run.steps in range(100):
        rates.append(run.learning_rate())
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10:79] == [1.0] * 69
    assert rates[79:] == pytest.approx(np.arange(20, -1, -1) / 20)


@pytest.mark.full
def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_been(songs: list[Multitrack], tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", RECIPE, songs)
    run = fit(RECIPE, songs, (), tmp_path / "parts", workers=0)
    first = [next(run), next(run)]
    run.close()  # type: ignore[attr-defined]
    last = train(tmp_path / "parts", RECIPE, songs, resume=True)
    assert [(epoch.number, epoch.loss) for epoch in first + last] == [(epoch.number, epoch.loss) for epoch in whole]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    one, other = (torch.load(tmp_path / name / STATE, weights_only=True) for name in ("whole", "parts"))
    assert same(one["network"], other["network"])
    assert one["steps"] == other["steps"] == 12
    assert train(tmp_path / "parts", RECIPE, songs, resume=True) == []  # nothing is left to do


@pytest.mark.full
def test_a_run_that_was_stopped_within_an_epoch_repeats_it(songs: list[Multitrack], tmp_path: Path) -> None:
    steps = 0

    def interrupt(step: int, loss: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:  # the second of the second epoch
            raise KeyboardInterrupt

    train(tmp_path / "whole", RECIPE, songs)
    with pytest.raises(KeyboardInterrupt):
        list(fit(RECIPE, songs, (), tmp_path / "parts", workers=0, on_step=interrupt))
    epochs = train(tmp_path / "parts", RECIPE, songs, resume=True)
    assert [epoch.number for epoch in epochs] == [2, 3, 4]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


SCRIPT = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from stemsplit.datasets.multitracks import find_songs
from stemsplit.training.fit import fit
from stemsplit.training.recipe import read_recipe
recipe = read_recipe(Path(sys.argv[1]))
for epoch in fit(recipe, find_songs(Path(sys.argv[2]), recipe.stems), (), Path(sys.argv[3]), workers=0,
                 on_step=lambda step, loss: time.sleep(0.1)):
    pass
"""


@pytest.mark.full
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_a_killed_process_can_be_resumed(songs: list[Multitrack], tmp_path: Path) -> None:
    recipe_file, folder = tmp_path / "recipe.toml", tmp_path / "killed"
    recipe_file.write_text(
        "rate = 8000\nwindow_seconds = 0.25\noverlap_seconds = 0.0625\nepochs = 6\nsteps = 3\nbatch_size = 2\n"
        "[config]\nn_fft = 512\nhop = 128\nbands = 24\nlinear_bands = 8\nwidths = [4, 6]\n"
    )
    data = songs[0].stems["vocals"].parents[1]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, recipe_file, data, folder], env={**os.environ})
    try:
        until = time.monotonic() + 120
        while not (folder / STATE).exists():
            assert process.poll() is None, "training ended by itself"
            assert time.monotonic() < until, "no epoch within two minutes"
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    recipe = read_recipe(recipe_file)
    epochs = train(folder, recipe, songs, resume=True)
    assert epochs[-1].number == 6
    train(tmp_path / "whole", recipe, songs)
    assert same(weights(folder), weights(tmp_path / "whole"))


@pytest.mark.full
def test_a_run_can_be_prolonged(songs: list[Multitrack], tmp_path: Path) -> None:
    train(tmp_path, replace(RECIPE, epochs=2), songs)
    assert [epoch.number for epoch in train(tmp_path, RECIPE, songs, resume=True)] == [3, 4]


@pytest.mark.full
def test_a_run_cannot_go_on_with_another_recipe(songs: list[Multitrack], tmp_path: Path) -> None:
    train(tmp_path, replace(RECIPE, epochs=1), songs)
    before = weights(tmp_path)
    with pytest.raises(UsageError, match=r"began with another loss, seed$"):
        train(tmp_path, replace(RECIPE, seed=9, loss="waveform"), songs, resume=True)
    with pytest.raises(UsageError, match=r"began with another config$"):
        train(tmp_path, replace(RECIPE, config={**TINY_UNET, "widths": [4, 7]}), songs, resume=True)
    same_config = {**TINY_UNET, "widths": (4, 6)}  # a tuple is a list in JSON
    assert train(tmp_path, replace(RECIPE, epochs=1, config=same_config), songs, resume=True) == []
    assert same(weights(tmp_path), before)


@pytest.mark.full
def test_a_run_can_begin_with_the_weights_of_another(songs: list[Multitrack], tmp_path: Path) -> None:
    train(tmp_path / "first", RECIPE, songs)
    still = replace(RECIPE, learning_rate=1e-12, seed=8, epochs=1)
    list(fit(still, songs, (), tmp_path / "second", start=checkpoint.load(tmp_path / "first" / WEIGHTS), workers=0))
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    learnt = [name for name in first if name.endswith(("weight", "bias"))]
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in learnt)


def test_a_run_cannot_begin_with_weights_that_do_not_fit(songs: list[Multitrack], tmp_path: Path) -> None:
    train(tmp_path / "first", replace(RECIPE, epochs=1), songs)
    first = checkpoint.load(tmp_path / "first" / WEIGHTS)
    wider = replace(RECIPE, config={**RECIPE.config, "widths": [5, 7]})
    swapped = replace(RECIPE, stems=STEMS[::-1])
    demucs = {"width": 8, "depth": 2, "norm_starts": 1, "memory_starts": 1}
    other = replace(RECIPE, family="demucs", config=demucs, loss="waveform")
    cases = ((wider, "do not fit"), (swapped, "the recipe other, bass"), (other, "of family 'unet', .* of 'demucs'"))
    for recipe, message in cases:
        with pytest.raises(UsageError, match=message):
            list(fit(recipe, songs, (), tmp_path / "second", start=first, workers=0))
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("left", [WEIGHTS, STATE])
def test_a_run_is_not_overwritten(songs: list[Multitrack], tmp_path: Path, left: str) -> None:
    train(tmp_path, replace(RECIPE, epochs=1), songs)
    for path in tmp_path.iterdir():
        if path.name != left:
            path.unlink()
    before = (tmp_path / left).read_bytes()
    with pytest.raises(UsageError, match="already holds a training run") as caught:
        train(tmp_path, RECIPE, songs)
    assert "--resume" in caught.value.hint
    assert (tmp_path / left).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_to_resume(songs: list[Multitrack], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no training run to resume"):
        train(tmp_path / "none", RECIPE, songs, resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_damaged_state(songs: list[Multitrack], tmp_path: Path, share: float) -> None:
    train(tmp_path, replace(RECIPE, epochs=1), songs)
    data = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UsageError, match=r"state\.pt' is damaged"):
        train(tmp_path, RECIPE, songs, resume=True)


def test_everything_is_checked_before_the_first_step(
    songs: list[Multitrack], make_song: MakeSong, tmp_path: Path
) -> None:
    make_song(tmp_path / "data" / "other rate", rate=16_000)
    other = tuple(find_songs(tmp_path / "data", STEMS))
    with pytest.raises(DatasetError, match="'other rate' have 16000 Hz"):
        train(tmp_path / "run", RECIPE, songs, valid=other)
    with pytest.raises(DatasetError, match="'other rate' have 16000 Hz"):
        train(tmp_path / "run", RECIPE, [*songs, *other])
    with pytest.raises(ModelError, match="unknown network family"):
        train(tmp_path / "run", replace(RECIPE, family="nosuch"), songs)
    with pytest.raises(ModelError, match="invalid hop"):
        train(tmp_path / "run", replace(RECIPE, overlap_seconds=0.25), songs)
    with pytest.raises(ModelError, match="shorter than STFT frames"):
        train(tmp_path / "run", replace(RECIPE, window_seconds=0.05, overlap_seconds=0.01), songs)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_ends_the_run(songs: list[Multitrack], tmp_path: Path) -> None:
    samples = np.full((4000, 2), np.nan, np.float32)
    for stem in STEMS:
        soundfile.write(tmp_path / f"{stem}.wav", samples, 8000, subtype="FLOAT")
    with pytest.raises(DatasetError, match="the loss became nan in epoch 1"):
        train(tmp_path / "run", RECIPE, find_songs(tmp_path, STEMS))
    assert not (tmp_path / "run" / WEIGHTS).exists()


# ---- recipes


def test_a_recipe_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('stems = ["vocals", "rest"]\nepochs = 3\nlearning_rate = 1\n[config]\nwidths = [4, 6]\n')
    recipe = read_recipe(path)
    assert recipe == replace(Recipe(), stems=("vocals", "rest"), epochs=3, learning_rate=1.0, config={"widths": [4, 6]})
    assert isinstance(recipe.learning_rate, float)
    path.write_text("")
    assert read_recipe(path) == Recipe()


def test_lengths_are_whole_samples() -> None:
    assert (Recipe().length, Recipe().hop) == (132_300, 99_225)
    assert (RECIPE.length, RECIPE.hop) == (2000, 1500)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown setting 'epoch'"),
        ('epochs = "3"', "epochs = '3'"),
        ("epochs = 3.5", "epochs = 3.5"),
        ("epochs = true", "epochs = True"),
        ("epochs = 0", "epochs = 0 should be from 1"),
        ("steps = -1", "steps = -1"),
        ("batch_size = 0", "batch_size = 0"),
        ("remix = 1.5", "remix = 1.5 should be from 0 to 1"),
        ("drop = nan", "drop = nan"),
        ("mixture = 2.0", "mixture = 2.0 should be from 0 to 1"),
        ("learning_rate = inf", "learning_rate = inf"),
        ("learning_rate = true", "learning_rate = True"),
        ("window_seconds = 0", "window_seconds = 0"),
        ("window_seconds = inf", "window_seconds = inf"),
        ("overlap_seconds = -1.0", "overlap_seconds = -1.0"),
        ("seed = -1", "seed = -1"),
        ('loss = "mean"', "loss = 'mean' should be one of magnitude, spectrum, distortion, waveform, stft, sdr"),
        ('precision = "float16"', "precision = 'float16' should be one of auto, float32, bfloat16"),
        ('stems = "vocals"', "stems = 'vocals'"),
        ("stems = [1, 2]", "stems = [1, 2]"),
        ("config = 3", "config = 3"),
        ("family = 3", "family = 3"),
        ("epochs = ", "is not valid TOML"),
        ("epochs = 1\nepochs = 2", "is not valid TOML"),
        ("\N{COMBINING ACUTE ACCENT}= 1", "is not valid TOML"),
    ],
)
def test_recipes_that_make_no_sense(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "my recipe.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_recipe(path)
    assert message in str(caught.value)
    assert "my recipe.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipes_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the recipe .*none"):
        read_recipe(tmp_path / "none")
    with pytest.raises(UsageError, match="cannot read the recipe"):
        read_recipe(tmp_path)
    (tmp_path / "latin").write_bytes(b"# caf\xe9\n")
    with pytest.raises(UsageError, match=r"cannot read the recipe in .*: it is not UTF-8 text"):
        read_recipe(tmp_path / "latin")


def test_an_unknown_setting_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        make_recipe({"lr": 1e-3}, "here")
    assert "learning_rate" in caught.value.hint
