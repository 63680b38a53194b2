"""What all mask-estimating families share: STFT, masks on the mixture's spectrum, inverse STFT."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from stemsplit.dsp.stft import Stft
from stemsplit.dsp.wiener import refine

PIECE = 16  # frames


class MaskNetwork(nn.Module, ABC):
    """A network that estimates soft masks; the mixture's phase is reused for every stem."""

    def __init__(self, stft: Stft) -> None:
        super().__init__()
        self.stft = stft

    @property
    def masks_sum_to_one(self) -> bool:
        """Whether the masks add up to one in every bin, so that all stems together are the mixture."""
        return True

    @abstractmethod
    def masks(self, spectrum: Tensor) -> Tensor:
        """Mixture spectrum `(B, C, F, T)` complex -> masks `(B, S, C, F, T)` real, in [0, 1]."""

    def shares(self, spectrum: Tensor) -> Tensor:
        """All that the network finds out about a spectrum, in as few numbers as a family can; here it is the masks."""
        return self.masks(spectrum)

    def masks_of(self, shares: Tensor) -> Tensor:
        """The masks that shares stand for: `masks` is this, of `shares`."""
        return shares

    def error_energy(self, shares: Tensor, mix: Tensor, true: Tensor) -> Tensor:
        """Energy `(B, S)` of what masking the mixture `(B, C, F, T)` lacks of the true spectra `(B, S, C, F, T)`."""
        return energy(self.masks_of(shares) * mix.unsqueeze(1) - true)

    def masks_in_pieces(self, spectrum: Tensor) -> Iterable[Tensor]:
        """The same some frames at a time, `(B, S, C, F, t)`, for families that need not hold all of them."""
        masks = self.masks(spectrum)
        return [masks] if torch.is_grad_enabled() else torch.split(masks, PIECE, dim=-1)

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
        frames, length = spectrum.shape[-1], mix.shape[-1]
        if wiener:
            rough = self.rough_masks(spectrum) * spectrum.unsqueeze(1)
            return self.stft.inverse(_choose(refine(rough, spectrum, wiener), wanted), length)
        return self.stft.inverse_of_pieces(self._spectra(spectrum, wanted), frames, length)

    def _spectra(self, spectrum: Tensor, wanted: Sequence[int] | None) -> Iterator[Tensor]:
        """Of the stems, `(B, S, C, F, t)` at a time: what is made of few frames stays in the caches of a CPU."""
        start = 0
        for masks in self.masks_in_pieces(spectrum):
            end = start + masks.shape[-1]
            yield _choose(masks, wanted) * spectrum[..., start:end].unsqueeze(1)
            start = end


def energy(spectra: Tensor) -> Tensor:
    """`(..., C, F, T)` complex -> `(...)`."""
    return power(spectra).sum((-3, -2, -1))


def power(spectra: Tensor) -> Tensor:
    """The squared magnitude of each bin; unlike that of `abs()`, its slope is a number everywhere."""
    return spectra.real.square() + spectra.imag.square()


def _choose(stems: Tensor, wanted: Sequence[int] | None) -> Tensor:
    return stems if wanted is None else stems[:, sorted(wanted)]
