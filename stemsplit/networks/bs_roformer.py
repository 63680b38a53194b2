"""Band-Split RoFormer: transformers over bands that do not overlap, narrow below and wide above.

Lu, Wang, Kong and Hung, "Music source separation with Band-Split RoPE Transformer" (ICASSP 2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from stemsplit.networks._roformer import RoformerConfig, RoformerNetwork

MAX_BANDS = 1024
BANDS = (*[2] * 24, *[4] * 12, *[12] * 8, *[24] * 8, *[48] * 8, 128, 129)  # of the published networks, for n_fft 2048


@dataclass(frozen=True, slots=True)
class Config(RoformerConfig):
    """Shape of the network; see `RoformerConfig` for what Mel-Band RoFormer has as well.

    Attributes:
        bands: Bins of each band, from the lowest; all `n_fft // 2 + 1` together.

    Raises:
        ValueError: A setting is impossible.
    """

    bands: Sequence[int] = BANDS

    def __post_init__(self) -> None:
        RoformerConfig.__post_init__(self)  # without arguments, `super` does not work in a class with slots
        object.__setattr__(self, "bands", tuple(self.bands))
        if not 0 < len(self.bands) <= MAX_BANDS or not all(type(n) is int and 0 < n <= self.n_fft for n in self.bands):
            raise ValueError(f"bands must be 1 to {MAX_BANDS} whole numbers of bins")
        if sum(self.bands) != self.n_fft // 2 + 1:
            raise ValueError(f"the bands have {sum(self.bands)} bins, not the {self.n_fft // 2 + 1} of the spectrum")


class Network(RoformerNetwork):
    """Band-Split RoFormer. It takes mixtures of more than `n_fft // 2` samples.

    Args:
        config: The shape of the network.
        stems: S, the number of stems.
        channels: C, of the mixture and of each stem.
    """

    def __init__(self, config: Config, *, stems: int, channels: int) -> None:
        bands = [range(end - size, end) for size, end in zip(config.bands, accumulate(config.bands), strict=True)]
        super().__init__(config, bands, norm_each=False, stems=stems, channels=channels)
