import numpy as np
import numpy.typing as npt
import pytest

from stemsplit.dsp.stretching import stretch

RATE = 8_000
SPEEDS = [0.25, 0.5, 0.8, 0.97, 1.25, 1.5, 3]


def play(samples: npt.NDArray[np.float32], speed: float, size: int = 10_000) -> npt.NDArray[np.float32]:
    blocks = (samples[:, start : start + size] for start in range(0, samples.shape[1], size))
    return np.concatenate(
        [samples[:, :0], *stretch(blocks, speed, rate=RATE, channels=len(samples))], axis=1, dtype=np.float32
    )


def noise(length: int, channels: int = 2) -> npt.NDArray[np.float32]:
    return np.random.default_rng(length).uniform(-0.5, 0.5, (channels, length)).astype(np.float32)


@pytest.mark.parametrize("speed", SPEEDS)
def test_lengths_are_exact(speed: float) -> None:
    for length in (0, 1, 199, 200, 201, 5_003, 20_000):
        assert play(noise(length), speed).shape == (2, round(length / speed))


def test_speed_one_changes_nothing() -> None:
    np.testing.assert_array_equal(play(noise(5_003), 1), noise(5_003))


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_cut_of_blocks_does_not_matter(speed: float) -> None:
    samples = noise(9_000)
    np.testing.assert_array_equal(play(samples, speed, 77), play(samples, speed))


@pytest.mark.parametrize("speed", SPEEDS)
def test_tones_keep_their_pitch_and_do_not_click(speed: float) -> None:
    tone = np.sin(2 * np.pi * 441.3 * np.arange(4 * RATE) / RATE).astype(np.float32)
    played = play(tone[None], speed)[0]
    spectrum = np.abs(np.fft.rfft(played * np.hanning(len(played))))
    assert np.argmax(spectrum) / len(played) * RATE == pytest.approx(441.3, abs=1.5)
    inner = played[RATE // 4 : -RATE // 4]  # without the ends of the tone, which do click
    assert np.abs(np.diff(inner, 2)).max() < 1.3 * np.abs(np.diff(tone, 2)).max()
    assert np.abs(inner).max() < 1.05


@pytest.mark.parametrize("speed", [speed for speed in SPEEDS if speed < 2])  # beyond, short sounds are left out
def test_what_happens_happens_in_time(speed: float) -> None:
    samples = np.zeros((1, 4 * RATE), np.float32)
    strokes = np.arange(1, 8) * RATE // 2
    samples[:, strokes[:, None] + np.arange(40)] = 0.8 * np.sin(np.arange(40))
    played = np.abs(play(samples, speed)[0])
    for stroke in strokes:
        middle = round(stroke / speed)
        near = played[max(0, middle - RATE // 10) : middle + RATE // 10]
        assert near.max() > 0.3


@pytest.mark.parametrize("speed", SPEEDS)
def test_channels_stay_together(speed: float) -> None:
    """Even such as are the opposite of each other, and would cancel."""
    samples = noise(2 * RATE, 1)
    played = play(np.concatenate([samples, -samples, 0.5 * samples]), speed)
    np.testing.assert_allclose(played[1], -played[0], atol=1e-6)
    np.testing.assert_allclose(played[2], 0.5 * played[0], atol=1e-6)


def test_silence_stays_silent() -> None:
    assert not play(np.zeros((2, RATE), np.float32), 0.7).any()
