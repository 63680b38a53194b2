"""Hybrid Demucs: two U-Nets, on the spectrogram and on the samples, that share their deepest layers.

Défossez, "Hybrid Spectrogram and Waveform Source Separation" (MDX workshop at ISMIR 2021). The layer that brings
frequency to one bin is also the one at which the samples have one step for each STFT frame. There the feature maps of
both are summed, and the layers below are common to both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from stemsplit.networks._checks import check_flags, check_sizes
from stemsplit.networks._demucs_hybrid import BANDED_LAYERS, HybridNetwork
from stemsplit.networks._demucs_layers import KERNEL, NEVER, STRIDE, check_widths


@dataclass(frozen=True, slots=True)
class Config:
    """Shape of the network.

    Attributes:
        n_fft: Samples of an STFT frame: 64, 256, 1024, 4096 or 16384. The hop is a quarter of it.
        width: Feature maps after the first layer; every further one doubles them.
        depth: Layers; the first 1 + log4(n_fft / 16) of them stride along frequency, the others along time.
        compress: How many times narrower the residual branches are.
        norm_starts: The first layer with normalizations; 999 for none.
        memory_starts: The first layer whose residual branches have an LSTM and attention; 999 for none.
        magnitude: Whether to work on magnitudes and reuse the mixture's phase, not on real and imaginary parts.
        bands: Where to split the spectrum for the two outermost layers, as fractions of it, ascending; none by default.
        zero_padding: See HybridNetwork.

    Raises:
        ValueError: A setting is impossible.
    """

    n_fft: int = 4096
    width: int = 48
    depth: int = 6
    compress: int = 4
    norm_starts: int = 4
    memory_starts: int = 4
    magnitude: bool = False
    bands: Sequence[float] = ()
    zero_padding: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", tuple(self.bands))
        starts = {"norm_starts": (0, NEVER), "memory_starts": (0, NEVER)}
        check_sizes(self, {"n_fft": (64, 16384), "width": (1, 1024), "depth": (1, 10), "compress": (1, 1024), **starts})
        check_flags(self, "magnitude", "zero_padding")
        levels = [levels for levels in range(2, 7) if 2 * KERNEL * STRIDE ** (levels - 1) == self.n_fft]
        if not levels:
            raise ValueError(f"n_fft must be 64, 256, 1024, 4096 or 16384, not {self.n_fft}")
        if self.depth < levels[0]:
            raise ValueError(f"n_fft {self.n_fft} needs {levels[0]} layers or more, not {self.depth}")
        check_widths(
            self.width,
            self.depth,
            self.compress,
            norm_starts=self.norm_starts,
            memory_starts=self.memory_starts,
        )
        if not all(type(fraction) is float for fraction in self.bands) or len(self.bands) > KERNEL:
            raise ValueError(f"bands must be at most {KERNEL} numbers between 0 and 1")
        if not all(below < above for below, above in pairwise([0.0, *self.bands, 1.0])):
            raise ValueError("bands must ascend between 0 and 1")
        if self.bands and (self.norm_starts < BANDED_LAYERS or levels[0] <= BANDED_LAYERS):
            raise ValueError(
                "layers that bring frequency to one bin, or have normalizations, cannot be split into bands"
            )


class Network(HybridNetwork):
    """Hybrid Demucs. It takes mixtures of any length.

    Args:
        config: The shape of the network.
        stems: S, the number of stems.
        channels: C, of the mixture and of each stem.
    """

    def __init__(self, config: Config, *, stems: int, channels: int) -> None:
        super().__init__(
            stems=stems,
            channels=channels,
            n_fft=config.n_fft,
            width=config.width,
            depth=config.depth,
            compress=config.compress,
            norm_starts=config.norm_starts,
            memory_starts=config.memory_starts,
            magnitude=config.magnitude,
            bands=config.bands,
            zero_padding=config.zero_padding,
        )

    def input_length(self, length: int) -> int:
        """Samples that the network needs to separate `length` of them: no more than these."""
        return length
