"""Mel-Band RoFormer: transformers over overlapping bands that are equally wide on the mel scale.

Wang, Lu and Won, "Mel-Band RoFormer for music source separation" (2023). The mask of a bin is the mean of those that
its bands give it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stemsplit.networks._checks import check_sizes
from stemsplit.networks._roformer import RoformerConfig, RoformerNetwork

LINEAR_HERTZ = 200 / 3  # of one mel, below the break
BREAK_HERTZ = 1000.0
LOG_STEP = np.log(6.4) / 27  # natural logarithm of the ratio of frequencies one mel apart, above the break


@dataclass(frozen=True, slots=True)
class Config(RoformerConfig):
    """Shape of the network; see `RoformerConfig` for what Band-Split RoFormer has as well.

    Attributes:
        bands: How many bands there are.
        rate: Sample rate that their frequencies are computed for, Hz.

    Raises:
        ValueError: A setting is impossible.
    """

    hop: int = 441
    width: int = 384
    depth: int = 6
    mask_layers: int = 3
    bands: int = 60
    rate: int = 44_100

    def __post_init__(self) -> None:
        RoformerConfig.__post_init__(self)  # without arguments, `super` does not work in a class with slots
        check_sizes(self, {"bands": (1, 1024), "rate": (8_000, 192_000)})


class Network(RoformerNetwork):
    """Mel-Band RoFormer. It takes mixtures of more than `n_fft // 2` samples.

    Args:
        config: The shape of the network.
        stems: S, the number of stems.
        channels: C, of the mixture and of each stem.
    """

    def __init__(self, config: Config, *, stems: int, channels: int) -> None:
        bands = mel_bands(config.bands, n_fft=config.n_fft, rate=config.rate)
        super().__init__(config, bands, norm_each=True, stems=stems, channels=channels)


def mel_bands(count: int, *, n_fft: int, rate: int) -> list[Sequence[int]]:
    """Find the bins of bands on the mel scale: those with a weight in triangular filters that overlap by half.

    The scale is that of Slaney, "Auditory Toolbox" (1998), linear up to 1 kHz and logarithmic above. The lowest and
    the highest bin, where the outer filters are zero, are in the outer bands.

    Args:
        count: Number of bands.
        n_fft: Samples of an STFT frame.
        rate: Sample rate, Hz.

    Returns:
        Indices of bins for each band, ascending; consecutive ones.

    Raises:
        ValueError: A band is too narrow for the spectrum.
    """
    highest_mel = BREAK_HERTZ / LINEAR_HERTZ + np.log(rate / 2 / BREAK_HERTZ) / LOG_STEP
    mels = np.linspace(0.0, highest_mel, count + 2)
    above = BREAK_HERTZ * np.exp(LOG_STEP * (mels - BREAK_HERTZ / LINEAR_HERTZ))
    edges = np.where(mels * LINEAR_HERTZ < BREAK_HERTZ, mels * LINEAR_HERTZ, above)
    hertz = np.linspace(0.0, rate / 2, n_fft // 2 + 1)
    inside = (hertz > edges[:-2, None]) & (hertz < edges[2:, None])
    inside[0, 0] = inside[-1, -1] = True
    if not inside.any(1).all():
        raise ValueError(f"a band has no bins: {count} bands are too many for frames of {n_fft} samples")
    return [np.flatnonzero(band).tolist() for band in inside]
