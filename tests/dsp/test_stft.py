import math

import pytest
import torch

from stemsplit.dsp.stft import Stft

SIZES = [(512, 128), (512, 170), (400, 100), (254, 64), (6, 2), (4, 1), (4096, 1024)]


@pytest.mark.parametrize(("n_fft", "hop"), SIZES)
def test_round_trip(n_fft: int, hop: int) -> None:
    stft = Stft(n_fft, hop)
    for length in {
        n_fft // 2 + 1,
        n_fft,
        n_fft + 1,
        3 * n_fft,
        *(3 * n_fft // hop * hop + n for n in (-1, 1, hop - 1)),
    }:
        samples = torch.rand(2, 3, length, generator=torch.Generator().manual_seed(length)) * 2 - 1
        spectrum = stft(samples)
        assert spectrum.shape == (2, 3, n_fft // 2 + 1, 1 + length // hop)
        assert spectrum.shape[-2] == stft.bins
        result = stft.inverse(spectrum, length)
        assert result.shape == samples.shape
        torch.testing.assert_close(result, samples, rtol=0, atol=1e-5)


def test_without_a_window() -> None:
    stft, length = Stft(256, 64, torch.ones(256)), 1500
    samples = torch.randn(2, length, generator=torch.Generator().manual_seed(1))
    spectrum = stft(samples)
    expected = torch.stft(samples, 256, 64, window=torch.ones(256), return_complex=True)
    torch.testing.assert_close(spectrum, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(stft.inverse(spectrum, length), samples, rtol=0, atol=1e-5)
    changed = spectrum * torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(2))
    expected = torch.istft(changed, 256, 64, window=torch.ones(256), length=length)
    torch.testing.assert_close(stft.inverse(changed, length), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("n_fft", "hop"), SIZES)
def test_the_inverse_of_a_modified_spectrum_agrees_with_pytorch(n_fft: int, hop: int) -> None:
    """As after masking; also for shorter and longer outputs than the frames cover."""
    stft, length = Stft(n_fft, hop), 3 * n_fft + 1
    spectrum = stft(torch.randn(2, length, generator=torch.Generator().manual_seed(1)))
    spectrum = spectrum * torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(2))
    for wanted in (length, length - n_fft - 1):
        expected = torch.istft(spectrum, n_fft, hop, window=stft.window, length=wanted)
        torch.testing.assert_close(stft.inverse(spectrum, wanted), expected, rtol=0, atol=1e-5)
    longer = stft.inverse(spectrum, length + 5 * n_fft)
    torch.testing.assert_close(longer[:, :length], stft.inverse(spectrum, length), rtol=0, atol=0)
    assert longer.shape == (2, length + 5 * n_fft)
    assert longer[:, -n_fft:].abs().max() == 0


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 16), (62, 20)])
@pytest.mark.parametrize("frame", [0, 1, 5])
def test_frames_against_the_definition(n_fft: int, hop: int, frame: int) -> None:
    """Frame t is centred on sample t * hop; the signal is reflected at its start."""
    samples = torch.rand(200, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    values = []
    for k in range(n_fft // 2 + 1):
        value = 0j
        for n in range(n_fft):
            hann = 0.5 - 0.5 * math.cos(2 * math.pi * n / n_fft)
            x = float(samples[abs(frame * hop - n_fft // 2 + n)])
            angle = 2 * math.pi * k * n / n_fft
            value += x * hann * complex(math.cos(angle), -math.sin(angle))
        values.append(value)
    spectrum = Stft(n_fft, hop)(samples.float())
    torch.testing.assert_close(spectrum[:, frame], torch.tensor(values, dtype=torch.complex64), rtol=0, atol=1e-5)


def test_the_window_is_not_saved_with_the_weights() -> None:
    assert not Stft(64, 16).state_dict()


@pytest.mark.parametrize(("n_fft", "hop"), [(512, 0), (512, 171), (512, -1), (0, 0), (2, 1)])
def test_hops_without_a_stable_inverse_are_refused(n_fft: int, hop: int) -> None:
    with pytest.raises(ValueError, match="hop must be in"):
        Stft(n_fft, hop)


def test_an_odd_frame_length_is_refused() -> None:
    with pytest.raises(ValueError, match="even, not 511"):
        Stft(511, 128)
