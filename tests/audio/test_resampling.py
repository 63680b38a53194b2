"""Streaming resampling: the same whatever the blocks, exact in length, without delay, clean."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemsplit.audio.decoding import Block
from stemsplit.audio.resampling import resample

RATES = [8_000, 11_025, 22_050, 44_099, 44_100, 48_000, 96_000, 192_000]  # Hz


def noise(channels: int, length: int) -> Block:
    return np.random.default_rng(11).uniform(-0.5, 0.5, (channels, length)).astype(np.float32)


def joined(blocks: list[Block], old: int, new: int, channels: int = 2) -> Block:
    return np.concatenate([np.zeros((channels, 0), np.float32), *resample(blocks, old, new, channels=channels)], axis=1)


def cut(song: Block, size: int) -> list[Block]:
    return [song[:, start : start + size] for start in range(0, song.shape[1], size)]


@pytest.mark.full
@settings(deadline=None)
@given(st.sampled_from(RATES), st.sampled_from(RATES), st.integers(0, 5_000), st.integers(1, 5_000))
def test_length_is_rounded_half_up_and_blocks_do_not_matter(old: int, new: int, length: int, size: int) -> None:
    song = noise(2, length)
    result = joined(cut(song, max(size, length // 50)), old, new)
    assert result.shape == (2, (2 * length * new + old) // (2 * old))
    np.testing.assert_array_equal(result, joined([song], old, new))


@pytest.mark.parametrize("size", [1, 777, 65_536])
def test_block_sizes(size: int) -> None:
    song = noise(8, 9_999)  # four stems, two channels
    np.testing.assert_array_equal(
        joined(cut(song, size), 48_000, 44_100, channels=8), joined([song], 48_000, 44_100, channels=8)
    )


@pytest.mark.parametrize("empty", [[], [noise(2, 0)], [noise(2, 0), noise(2, 0)]])
def test_nothing_stays_nothing(empty: list[Block]) -> None:
    assert joined(empty, 48_000, 44_100).shape == (2, 0)


def test_equal_rates_pass_the_blocks_through() -> None:
    blocks = [noise(2, 5), noise(2, 7)]
    assert all(a is b for a, b in zip(resample(blocks, 48_000, 48_000, channels=2), blocks, strict=True))


def test_blocks_are_contiguous_and_come_early() -> None:
    song = cut(noise(2, 480_000), 48_000)
    taken = 0

    def source() -> Iterator[Block]:
        nonlocal taken
        for block in song:
            taken += 1
            yield block

    for block in resample(source(), 48_000, 44_100, channels=2):
        assert block.dtype == np.float32
        assert block.flags.c_contiguous
        assert block.shape[1] > 0
        if taken == 2:
            break
    else:
        raise AssertionError("nothing came before the song was over")


# Rates, the tone in Hz, the largest error. Tones are far below the lower Nyquist frequency.
TONES = [
    (48_000, 44_100, 997, 1e-6),
    (44_100, 48_000, 15_000, 1e-5),
    (8_000, 44_100, 1_000, 1e-6),
    (192_000, 44_100, 10_000, 1e-6),
    (44_099, 44_100, 997, 1e-6),
]


@pytest.mark.parametrize(("old", "new", "tone", "error"), TONES)
def test_a_tone_survives_in_place(old: int, new: int, tone: int, error: float) -> None:
    def sine(rate: int) -> Block:
        wave: Block = 0.5 * np.sin(2 * np.pi * tone * np.arange(rate) / rate).astype(np.float32)[None]
        return wave

    result = joined(cut(sine(old), 4_096), old, new, channels=1)
    middle = slice(new // 4, 3 * new // 4)
    np.testing.assert_allclose(result[:, middle], sine(new)[:, middle], rtol=0, atol=error)


def test_there_and_back_keeps_the_length() -> None:
    for length in [1, 999, 48_000, 48_001, 123_457]:
        there = joined([noise(2, length)], 48_000, 44_100)
        assert joined([there], 44_100, 48_000).shape == (2, length)
