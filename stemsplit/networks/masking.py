"""The base of all families that estimate masks: STFT, masks on the mixture's spectrum, inverse STFT.

A stem's spectrum is the mixture's complex spectrum times a real mask in [0, 1], so each stem has the mixture's phase. A
family implements `masks`. The other methods have defaults that a family overrides where it can do the same for less
memory or time.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from stemsplit.dsp.stft import Stft, energy, squared_magnitude
from stemsplit.dsp.wiener import refine

CHUNK_FRAMES = 16  # of masks at a time: few enough to stay in a CPU's cache


class MaskNetwork(nn.Module, ABC):
    """A network that estimates a soft mask for every stem and channel.

    Args:
        stft: The transform in which it works.
    """

    def __init__(self, stft: Stft) -> None:
        super().__init__()
        self.stft = stft

    @abstractmethod
    def masks(self, spectrum: Tensor) -> Tensor:
        """Estimate the masks.

        Args:
            spectrum: Of the mixture, `(B, C, F, T)` complex.

        Returns:
            `(B, S, C, F, T)` real, in [0, 1].
        """

    def masks_in_chunks(self, spectrum: Tensor) -> Iterable[Tensor]:
        """Estimate the masks, and give them a few frames at a time.

        Args:
            spectrum: Of the mixture, `(B, C, F, T)` complex.

        Returns:
            Masks `(B, S, C, F, t)`, consecutive in time; a single chunk while gradients are recorded.
        """
        masks = self.masks(spectrum)
        return [masks] if torch.is_grad_enabled() else torch.split(masks, CHUNK_FRAMES, dim=-1)

    def coarse_masks(self, spectrum: Tensor) -> Tensor:
        """Estimate the masks at the frequency resolution of the network, which may be coarser than the STFT's.

        `masks(x)` equals `expand_masks(coarse_masks(x))`. By default both resolutions are the same.

        Args:
            spectrum: Of the mixture, `(B, C, F, T)` complex.

        Returns:
            `(B, S, C, bands, T)` real, in [0, 1].
        """
        return self.masks(spectrum)

    def expand_masks(self, coarse: Tensor) -> Tensor:
        """Bring masks from the resolution of the network to that of the STFT.

        Args:
            coarse: From `coarse_masks`, `(B, S, C, bands, T)`.

        Returns:
            `(B, S, C, F, T)`.
        """
        return coarse

    def error_energy(self, coarse: Tensor, mixture: Tensor, stems: Tensor) -> Tensor:
        """Energy of the difference between the masked mixture and the true stems, for training.

        Args:
            coarse: From `coarse_masks`, `(B, S, C, bands, T)`.
            mixture: Its spectrum, `(B, C, F, T)` complex.
            stems: The true spectra, `(B, S, C, F, T)` complex.

        Returns:
            `(B, S)`.
        """
        # |m x - y|^2 = m^2 |x|^2 - 2 m Re(conj(x) y) + |y|^2, where only m has a gradient: a third of the work.
        with torch.autocast(mixture.device.type, enabled=False):  # small differences of large numbers
            masks = self.expand_masks(coarse)
            power = squared_magnitude(mixture).unsqueeze(1)
            in_phase = mixture.real.unsqueeze(1) * stems.real + mixture.imag.unsqueeze(1) * stems.imag
            error: Tensor = (masks * (masks * power - 2 * in_phase)).sum((-3, -2, -1)) + energy(stems)
            return error

    def wiener_masks(self, spectrum: Tensor) -> Tensor:
        """Estimate the masks that Wiener filtering starts from; by default `masks`.

        Args:
            spectrum: Of the mixture, `(B, C, F, T)` complex.

        Returns:
            `(B, S, C, F, T)` real, in [0, 1].
        """
        return self.masks(spectrum)

    def forward(self, mix: Tensor, stem_indices: Sequence[int] | None = None, *, wiener: int = 0) -> Tensor:
        """Separate a mixture.

        Args:
            mix: `(B, C, N)`, N > n_fft / 2.
            stem_indices: Which stems to return; all by default. The inverse STFT of the others is not computed.
            wiener: Iterations of multichannel Wiener filtering on the masked spectra, see `stemsplit.dsp.wiener`.

        Returns:
            Stems `(B, S, C, N)`, in ascending order of their indices.

        Raises:
            ValueError: Wiener filtering of more than two channels.
        """
        spectrum = self.stft(mix)
        frames, length = spectrum.shape[-1], mix.shape[-1]
        if wiener:
            masked = self.wiener_masks(spectrum) * spectrum.unsqueeze(1)
            return self.stft.inverse(_select(refine(masked, spectrum, wiener), stem_indices), length)
        return self.stft.inverse_in_chunks(self._masked_chunks(spectrum, stem_indices), frames, length)

    def _masked_chunks(self, spectrum: Tensor, stem_indices: Sequence[int] | None) -> Iterator[Tensor]:
        """The spectra of the stems, `(B, S, C, F, t)` at a time."""
        start = 0
        for masks in self.masks_in_chunks(spectrum):
            end = start + masks.shape[-1]
            yield _select(masks, stem_indices) * spectrum[..., start:end].unsqueeze(1)
            start = end


def _select(stems: Tensor, indices: Sequence[int] | None) -> Tensor:
    return stems if indices is None else stems[:, sorted(indices)]
