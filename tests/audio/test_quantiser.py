"""Integers from floats: exact where they can be, free of distortion where they cannot."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemsplit.audio.encoders import Quantiser

Samples = npt.NDArray[np.float32]


def steps(samples: Samples, bits: int = 16, seed: int = 0) -> npt.NDArray[np.int32]:
    """The integers as numbers of their own steps."""
    return Quantiser(bits, seed)(samples) >> (32 - bits)


def test_24_bits_are_rounded_to_the_nearest_step() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (50_000, 2)).astype(np.float32)
    error = steps(samples, 24) - samples.astype(np.float64) * 2**23
    assert np.abs(error).max() <= 0.5
    assert abs(error.mean()) < 0.01


@pytest.mark.parametrize("bits", [16, 24])
def test_what_is_on_a_step_stays_there(bits: int) -> None:
    whole = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (20_000, 2))
    np.testing.assert_array_equal(steps((whole / 2 ** (bits - 1)).astype(np.float32), bits), whole)
    assert not steps(np.zeros((20_000, 2), np.float32), bits).any()


@pytest.mark.parametrize("place", [0.1, 0.25, 0.5, 0.7, -0.3])
def test_the_error_of_16_bits_does_not_depend_on_the_signal(place: float) -> None:
    """TPDF dither of 2 steps: for every place between two steps, the error's mean is 0 and its power 1/4 of a step²."""
    samples = np.full((200_000, 1), (100 + place) / 2**15, np.float32)
    error = steps(samples) - samples.astype(np.float64) * 2**15
    assert abs(error.mean()) < 0.005
    assert abs(np.mean(error**2) - 0.25) < 0.005
    assert np.abs(error).max() <= 1.5


def test_the_errors_of_neighbours_and_stems_are_independent() -> None:
    samples = np.full((200_000, 2), 0.3 / 2**15, np.float32)
    error = steps(samples) - 0.3
    other = steps(samples, seed=1) - 0.3
    for first, second in ((error[1:, 0], error[:-1, 0]), (error[:, 0], error[:, 1]), (error[:, 0], other[:, 0])):
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.01


@pytest.mark.full
@given(st.lists(st.integers(1, 700), max_size=20), st.integers(1, 3))
def test_blocks_do_not_matter(sizes: list[int], channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (sum(sizes), channels)).astype(np.float32)
    quantiser = Quantiser(16)
    parts = [quantiser(part) for part in np.split(samples, np.cumsum(sizes))]
    np.testing.assert_array_equal(np.concatenate(parts), Quantiser(16)(samples))


@pytest.mark.full
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=20), st.sampled_from([16, 24]))
def test_full_scale_is_the_limit(values: list[float], bits: int) -> None:
    samples = np.array(values, dtype=np.float32)[:, None]
    result = Quantiser(bits)(samples) / 2**31
    np.testing.assert_allclose(result, np.clip(samples, -1, 1), rtol=0, atol=1.5 / 2 ** (bits - 1))
