"""What all mask-estimating families share: STFT, masks on the mixture's spectrum, inverse STFT."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from stemsplit.stft import Stft


class MaskNetwork(nn.Module, ABC):
    """A network that estimates soft masks; the mixture's phase is reused for every stem."""

    def __init__(self, stft: Stft) -> None:
        super().__init__()
        self.stft = stft

    @abstractmethod
    def masks(self, spectrum: Tensor) -> Tensor:
        """Mixture spectrum `(B, C, F, T)` complex -> masks `(B, S, C, F, T)` real, in [0, 1]."""

    def forward(self, mix: Tensor) -> Tensor:
        """Mixture `(B, C, N)` -> stems `(B, S, C, N)`: mask x complex mixture spectrum, then the inverse STFT."""
        spectrum = self.stft(mix)
        return self.stft.inverse(self.masks(spectrum) * spectrum.unsqueeze(1), mix.shape[-1])
