"""BSS Eval against museval, the package that defines it, on songs and on what is at the edge."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from support.museval import metrics as museval
from torch import Tensor

from stemsplit.cli.separate import DEMO
from stemsplit.evaluation import projection
from stemsplit.evaluation.bss_eval import METRICS, References, bss_eval
from stemsplit.evaluation.metrics import sdr

RATE = 1000  # Hz: seconds and filters are short
CLOSE = 0.01  # dB, between two ways to the same number


@pytest.fixture(autouse=True)
def few_taps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small equations, but for the tests that ask for those that there are."""
    if "all_taps" not in request.fixturenames:
        monkeypatch.setattr(projection, "TAPS", 64)


@pytest.fixture
def all_taps() -> None:
    assert projection.TAPS == 512


def expected(reference: Tensor, estimate: Tensor, window: int) -> npt.NDArray[np.float64]:
    """`(4, S, windows)` as museval has it, in our order."""
    true, estimated = (each.numpy().transpose(0, 2, 1).astype(np.float64) for each in (reference, estimate))
    with warnings.catch_warnings():  # of divisions by zero
        warnings.simplefilter("ignore")
        ratios: Any = museval.bss_eval(true, estimated, window=window, hop=window, filters_len=projection.TAPS)
    order = (ratios[0], ratios[2], ratios[1], ratios[3])
    return np.stack(order)


def band(stems: int = 3, channels: int = 2, length: int = 5 * RATE, seed: int = 0) -> Tensor:
    """Coloured noises with a beat and a place each, in 16 bits, as songs are published."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((stems, channels + 1, length + 64))
    mixed = noise[:, :channels] * 0.4 + noise[:, channels:]  # partly the same on both sides
    filters = rng.standard_normal((stems, 64)) * np.exp(-np.arange(64) / (2 + 4 * np.arange(stems)[:, None]))
    coloured = np.stack(
        [[np.convolve(x, h)[64 : 64 + length] for x in row] for row, h in zip(mixed, filters, strict=True)]
    )
    beat = 0.2 + np.exp(-((np.arange(length) / RATE * np.arange(2, 2 + stems)[:, None]) % 1) * 4)
    return sixteen_bits(torch.from_numpy(coloured * beat[:, None] * 0.05))


def sixteen_bits(samples: Tensor) -> Tensor:
    return ((samples * 2**15).round().clamp(-(2**15), 2**15 - 1) / 2**15).float()


def separated(reference: Tensor, seed: int = 9) -> Tensor:
    """Not perfect: filtered, with something of the others and of its own."""
    generator = torch.Generator().manual_seed(seed)
    leaked = 0.8 * reference + 0.1 * reference.sum(0) + 0.1 * reference.roll(3, -1)
    return leaked + 0.003 * torch.randn(reference.shape, generator=generator)


def check(reference: Tensor, estimate: Tensor, window: int = RATE) -> Tensor:
    ratios = bss_eval(reference, estimate, window)
    np.testing.assert_allclose(ratios.numpy(), expected(reference, estimate, window), rtol=0, atol=CLOSE)
    return ratios


@pytest.mark.full
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "length",
    [5 * RATE, 5 * RATE + 1, 5 * RATE - 1, RATE + 1, RATE, RATE - 1, 600],
)
def test_against_museval(channels: int, length: int) -> None:
    reference = band(channels=channels, length=length)
    ratios = check(reference, separated(reference))
    assert ratios.shape == (4, 3, max(1, length // RATE))
    assert ratios.isfinite().all()


@pytest.mark.full
@pytest.mark.parametrize("stems", [1, 2, 4, 6])
def test_any_number_of_stems(stems: int) -> None:
    reference = band(stems, length=2 * RATE)
    ratios = bss_eval(reference, separated(reference), RATE)
    if stems == 1:  # there is nothing to interfere: museval has what is left by rounding
        exact = expected(reference, separated(reference), RATE)
        np.testing.assert_allclose(ratios[[0, 2, 3]].numpy(), exact[[0, 2, 3]], rtol=0, atol=CLOSE)
        assert (ratios[1] > 150).all()
    else:
        check(reference, separated(reference))


def demo() -> Tensor:
    """The song that comes with stemsplit, as two stems that add up to it: the middle, and the sides."""
    song, _ = soundfile.read(DEMO, 6 * 44_100 + 99, dtype="float32", always_2d=True)
    both = torch.from_numpy(song.T.copy())
    low = torch.nn.functional.avg_pool1d(both[None], 33, 1, 16)[0]
    return sixteen_bits(torch.stack([low, both - low]))


@pytest.mark.full
def test_a_real_song(all_taps: None) -> None:
    reference = demo()
    swapped = 0.7 * reference + 0.2 * reference.flip(0) + 0.1 * reference.roll(5, -1)
    estimate = sixteen_bits(swapped + 0.2 * swapped.square())
    assert check(reference, estimate, 44_100).shape == (4, 2, 6)


@pytest.mark.full
def test_windows_in_which_a_stem_is_silent() -> None:
    """museval has no ratios there, for no stem; a stem whose channels cancel each other counts as silent."""
    reference = band()
    estimate = separated(reference)
    reference[1, :, : RATE + 7] = 0  # the first
    estimate[2, :, 2 * RATE : 3 * RATE] = 0  # the third
    estimate[0, 1, 4 * RATE :] = -estimate[0, 0, 4 * RATE :]  # the last
    ratios = check(reference, estimate)
    assert ratios.isnan().all(1).tolist() == [[True, False, True, False, True]] * 4
    assert not ratios[..., [1, 3]].isnan().any()


@pytest.mark.full
def test_a_stem_that_is_not_in_the_song() -> None:
    """museval refuses it. Here the others have the ratios that they have without it."""
    reference = band()
    estimate = separated(reference)
    reference[1] = 0
    ratios = bss_eval(reference, estimate, RATE)
    assert ratios[:, 1].isnan().all()
    np.testing.assert_allclose(
        ratios[:, [0, 2]].numpy(), expected(reference[[0, 2]], estimate[[0, 2]], RATE), atol=CLOSE
    )


def test_nothing_but_silence() -> None:
    ratios = bss_eval(torch.zeros(2, 2, 3 * RATE), band(2, length=3 * RATE), RATE)
    assert ratios.shape == (4, 2, 3)
    assert ratios.isnan().all()
    assert bss_eval(band(2), torch.zeros(2, 2, 5 * RATE), RATE).isnan().all()


@pytest.mark.full
def test_stems_in_mono_and_on_one_side() -> None:
    """Equations that have many solutions, all with the same result."""
    reference = band(4)
    reference[0, 1] = reference[0, 0]
    reference[1, 1] = 0
    reference[2, 1] = reference[2, 0] * 0.5
    check(reference, separated(reference))


def test_a_perfect_estimate() -> None:
    reference = band(2)
    ratios = bss_eval(reference, reference, RATE)
    assert (ratios[0] == torch.inf).all()
    assert (ratios[1:] > 150).all()


@pytest.mark.full
def test_broken_estimates() -> None:
    """What is no number gives no ratio, and the others keep theirs."""
    reference = band()
    estimate = separated(reference)
    before = bss_eval(reference, estimate, RATE)
    estimate[1, 0, 5] = torch.nan
    ratios = bss_eval(reference, estimate, RATE)
    assert ratios[1:, 1].isnan().all()
    torch.testing.assert_close(ratios[:, [0, 2]], before[:, [0, 2]])


def without_highs() -> Tensor:
    """Stems with nothing above an eighth of the band, but what rounding to 24 bits leaves, as lossy formats give."""
    spectrum = torch.fft.rfft(band(length=6 * RATE, seed=3).double())
    spectrum[..., spectrum.shape[-1] // 8 :] = 0
    samples: Tensor = torch.fft.irfft(spectrum)
    return samples.float()


@pytest.mark.full
def test_what_rounding_would_decide_is_decided() -> None:
    """Not so in museval: with stems that a lossy format has cut off, the last bits change its ratios by several dB."""
    reference = without_highs()
    estimate = separated(reference)
    ratios = bss_eval(reference, estimate, RATE)
    nearly = reference * (1 + 1e-6)
    assert (bss_eval(nearly, estimate, RATE) - ratios).abs().max() < 0.01
    assert np.abs(expected(nearly, estimate, RATE) - expected(reference, estimate, RATE)).max() > 1
    # Those that filters do not touch are museval's, and the others are no worse than with stems of 16 bits.
    np.testing.assert_allclose(ratios[0].numpy(), expected(reference, estimate, RATE)[0], atol=CLOSE)
    assert (ratios >= bss_eval(sixteen_bits(reference), estimate, RATE) - 1).all()


@pytest.mark.full
@pytest.mark.parametrize("block", [333, 1024, 100_000])
def test_blocks_of_any_size(block: int) -> None:
    reference = band()
    estimate = separated(reference)
    with References(torch.split(reference, block, -1), RATE) as truth:
        for _ in range(2):  # any number of estimates
            torch.testing.assert_close(truth.score(torch.split(estimate, 777, -1)), bss_eval(reference, estimate, RATE))


@pytest.mark.full
def test_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is worked on at a time does not matter."""
    reference = band(length=9 * RATE + 5)
    estimate = separated(reference)
    before = bss_eval(reference, estimate, RATE)
    monkeypatch.setattr(projection, "BATCH", 1)
    monkeypatch.setattr(projection, "SPECTRUM", 2**8)
    torch.testing.assert_close(bss_eval(reference, estimate, RATE), before, rtol=0, atol=1e-6)


@pytest.mark.full
def test_the_first_ratio_is_the_sdr_of_the_window() -> None:
    reference = band(length=RATE)
    estimate = separated(reference)
    torch.testing.assert_close(bss_eval(reference, estimate, RATE)[0, :, 0], sdr(reference, estimate))
    assert METRICS[0] == "SDR"


def test_estimates_of_another_length_are_a_mistake() -> None:
    with References([band()], RATE) as truth, pytest.raises(AssertionError, match="samples estimated of 5000"):
        truth.score([band(length=RATE)])


def test_the_temporary_files_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_files: list[object] = []
    temporary_file: Callable[..., Any] = tempfile.TemporaryFile

    def opened(**options: Any) -> Any:
        open_files.append(temporary_file(**{**options, "dir": tmp_path}))
        return open_files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", opened)
    bss_eval(band(), separated(band()), RATE)

    def fail() -> Any:
        yield band()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        References(fail(), RATE)
    assert len(open_files) == 3
    assert all(file.closed for file in open_files)  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())
