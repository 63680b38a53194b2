import math

import numpy as np
import pytest
import torch

from stemsplit.evaluation.metrics import Sdr, SiSdr, sdr


def pair(stems: int = 3, channels: int = 2, length: int = 5000) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(stems, channels, length, generator=generator)
    return reference, reference + torch.randn(stems, channels, length, generator=generator) * 0.3


def si_sdr(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    total = SiSdr(len(reference))
    total.update(reference, estimate)
    return total.result()


def test_against_the_formula() -> None:
    reference, estimate = pair()
    s, e = reference.double().numpy(), estimate.double().numpy()
    expected = 10 * np.log10((s**2).sum((1, 2)) / ((s - e) ** 2).sum((1, 2)))
    np.testing.assert_allclose(sdr(reference, estimate).numpy(), expected, rtol=1e-9)


@pytest.mark.full
@pytest.mark.parametrize("size", [1, 999, 1000, 5000])
def test_blocks_give_the_same_as_the_whole(size: int) -> None:
    reference, estimate = pair()
    total = Sdr(3)
    for start in range(0, 5000, size):
        total.update(reference[..., start : start + size], estimate[..., start : start + size])
    torch.testing.assert_close(total.result(), sdr(reference, estimate), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("gain", "expected"), [(0.0, 0.0), (0.5, 6.0206), (2.0, 0.0), (0.9, 20.0), (-1.0, -6.0206)])
def test_scaled_estimates(gain: float, expected: float) -> None:
    """An estimate g s has the error (1 - g) s: its SDR is -20 log10 |1 - g|, whatever the stem."""
    reference, _ = pair()
    assert sdr(reference, reference * gain).tolist() == pytest.approx([expected] * 3, abs=1e-4)


def test_the_level_of_both_does_not_matter() -> None:
    reference, estimate = pair()
    torch.testing.assert_close(sdr(reference * 1e-3, estimate * 1e-3), sdr(reference, estimate), rtol=0, atol=1e-3)


def test_extremes() -> None:
    reference, estimate = pair(stems=4)
    reference[1] = 0
    estimate[2] = reference[2]
    estimate[3, 0, 17] = math.nan
    result = sdr(reference, estimate).tolist()
    assert 8 < result[0] < 13
    assert math.isnan(result[1])  # a silent stem: no figure
    assert result[2] == math.inf
    assert result[3] == -math.inf  # not hidden among the silent ones


def test_nothing_at_all_is_silence() -> None:
    assert Sdr(2).result().isnan().all()


def test_long_songs_are_summed_precisely() -> None:
    """Small blocks after a loud one still count."""
    total = Sdr(1)
    total.update(torch.full((1, 1, 1), 1e4), torch.full((1, 1, 1), 1e4))
    for _ in range(1000):
        total.update(torch.full((1, 1, 1), 1e-1), torch.zeros(1, 1, 1))
    assert total.signal.item() == pytest.approx(1e8 + 10, abs=1e-3)
    assert total.error.item() == pytest.approx(10, rel=1e-6)


def test_si_sdr_against_its_definition() -> None:
    """Le Roux et al., 2019: the estimate's part along the reference over the rest, as one vector of all samples."""
    reference, estimate = pair()
    for s, e, actual in zip(reference.double(), estimate.double(), si_sdr(reference, estimate * 0.3), strict=True):
        target = (e * s).sum() / (s * s).sum() * s
        expected = 20 * torch.log10(target.norm() / (e - target).norm())
        assert actual.item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("size", [1, 999, 5000])
def test_si_sdr_in_blocks(size: int) -> None:
    reference, estimate = pair()
    total = SiSdr(3)
    for start in range(0, 5000, size):
        total.update(reference[..., start : start + size], estimate[..., start : start + size])
    torch.testing.assert_close(total.result(), si_sdr(reference, estimate), rtol=1e-9, atol=0)


def test_si_sdr_extremes() -> None:
    reference, estimate = pair(stems=5)
    reference[1] = 0
    estimate[2] = reference[2]
    estimate[3, 0, 17] = math.nan
    estimate[4] = 0
    result = si_sdr(reference, estimate).tolist()
    assert 8 < result[0] < 13
    assert math.isnan(result[1])
    assert result[2:] == [math.inf, -math.inf, -math.inf]
    assert min(si_sdr(reference[:1], reference[:1] * 0.37).tolist()) > 130
