"""How close an estimate is to the true stem, in dB."""

import torch
from torch import Tensor


class Sdr:
    """Signal-to-distortion ratio over a whole song, fed block by block.

    SDR = 10 log10(sum s^2 / sum (s - e)^2), the sums over all channels and samples of the song, as in the Music
    Demixing Challenge (Mitsufuji et al., 2022).
    """

    def __init__(self, stems: int) -> None:
        self.signal = torch.zeros(stems, dtype=torch.float64)
        self.error = torch.zeros(stems, dtype=torch.float64)

    def update(self, reference: Tensor, estimate: Tensor) -> None:
        """Add a block of true and estimated stems, both `(S, C, n)`."""
        self.signal += reference.double().square().sum((1, 2))
        self.error += (reference.double() - estimate.double()).square().sum((1, 2))

    def result(self) -> Tensor:
        """Return the SDR, `(S,)` dB.

        It is NaN for a stem that is silent in the reference, infinite for a perfect estimate, and minus infinity for an
        estimate with samples that are not finite.
        """
        ratio = 10 * torch.log10(self.signal / self.error.nan_to_num(nan=torch.inf))
        return torch.where(self.signal > 0, ratio, torch.nan)


def sdr(reference: Tensor, estimate: Tensor) -> Tensor:
    """Return the SDR of whole stems, both `(S, C, N)` -> `(S,)` dB; see `Sdr`."""
    total = Sdr(reference.shape[0])
    total.update(reference, estimate)
    return total.result()


class SiSdr:
    """Scale-invariant signal-to-distortion ratio over a whole song, fed block by block.

    With e = a s + r, and a such that the residual r is orthogonal to s: SI-SDR = 10 log10(sum (a s)^2 / sum r^2) (Le
    Roux, Wisdom, Erdogan and Hershey, "SDR - half-baked or well done?", ICASSP 2019, equations 3 and 4). The sums are
    over all channels and samples, so that a stem has one scale; the mean is not subtracted.
    """

    def __init__(self, stems: int) -> None:
        self.signal = torch.zeros(stems, dtype=torch.float64)
        self.error = torch.zeros(stems, dtype=torch.float64)
        self.product = torch.zeros(stems, dtype=torch.float64)  # signal times error: exact for estimates close to s

    def update(self, reference: Tensor, estimate: Tensor) -> None:
        """Add a block of true and estimated stems, both `(S, C, n)`."""
        true = reference.double()
        error = estimate.double() - true
        self.signal += true.square().sum((1, 2))
        self.error += error.square().sum((1, 2))
        self.product += (true * error).sum((1, 2))

    def result(self) -> Tensor:
        """Return the SI-SDR, `(S,)` dB.

        It is NaN for a stem that is silent in the reference, infinite for a perfect estimate at any level, and minus
        infinity for an estimate that has nothing of the stem, or samples that are not finite.
        """
        share = self.product / self.signal
        target = (1 + share).square() * self.signal
        residual = (self.error - share * self.product).clamp(min=0)
        ratio = 10 * torch.log10(target / residual)
        ratio = torch.where((target > 0) & residual.isfinite(), ratio, -torch.inf)
        return torch.where(self.signal > 0, ratio, torch.nan)
