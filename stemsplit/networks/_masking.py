"""What all mask-estimating families share: STFT, masks on the mixture's spectrum, inverse STFT."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from stemsplit.stft import Stft
from stemsplit.wiener import refine


class MaskNetwork(nn.Module, ABC):
    """A network that estimates soft masks; the mixture's phase is reused for every stem."""

    def __init__(self, stft: Stft) -> None:
        super().__init__()
        self.stft = stft

    @property
    def adds_up(self) -> bool:
        """Whether the masks add up to one in every bin, so that all stems together are the mixture."""
        return True

    @abstractmethod
    def masks(self, spectrum: Tensor) -> Tensor:
        """Mixture spectrum `(B, C, F, T)` complex -> masks `(B, S, C, F, T)` real, in [0, 1]."""

    def masks_in_turn(self, spectrum: Tensor) -> Iterable[Tensor]:
        """The masks of one stem after the other, `(B, C, F, T)`, for families that need not hold all of them."""
        return self.masks(spectrum).unbind(1)

    def rough_masks(self, spectrum: Tensor) -> Tensor:
        """The masks that Wiener filtering starts from, `(B, S, C, F, T)`."""
        return self.masks(spectrum)

    def forward(self, mix: Tensor, wanted: Sequence[int] | None = None, *, wiener: int = 0) -> Tensor:
        """Mixture `(B, C, N)` -> stems `(B, S, C, N)`: mask x complex mixture spectrum, then the inverse STFT.

        Args:
            wanted: the numbers of the stems to give, in ascending order; all by default. The others cost less.
            wiener: how often the masked spectra are refined by multichannel Wiener filtering, for one or two channels.
        """
        spectrum = self.stft(mix)
        spectra: Iterable[Tensor]
        if wiener:
            rough = self.rough_masks(spectrum) * spectrum.unsqueeze(1)
            spectra = _choose(refine(rough, spectrum, wiener).unbind(1), wanted)
        else:
            spectra = (mask * spectrum for mask in _choose(self.masks_in_turn(spectrum), wanted))
        # One after the other, as large tensors are slow: memory is asked for anew for each.
        return torch.stack([self.stft.inverse(part, mix.shape[-1]) for part in spectra], dim=1)


def _choose(stems: Iterable[Tensor], wanted: Sequence[int] | None) -> Iterable[Tensor]:
    return (stem for number, stem in enumerate(stems) if wanted is None or number in wanted)
