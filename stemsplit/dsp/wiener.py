"""Multichannel Wiener filtering: refine estimated stems by where they are in the stereo image.

In bin f and frame t, stem j is modelled as a zero-mean complex Gaussian vector over the channels, with covariance
`v_j(f, t) R_j(f)`: a power that changes over time and frequency, and a spatial covariance for each frequency (Duong,
Vincent and Gribonval, "Under-determined reverberant audio source separation using a full-rank spatial covariance
model", IEEE TASLP 18(7), 2010). Both are estimated from the current stems y_j, and the mixture x is filtered with them
(Nugraha, Liutkus and Vincent, "Multichannel audio source separation with deep neural networks", IEEE/ACM TASLP 24(9),
2016):

    v_j(f, t) = mean over channels of |y_j(f, t)|^2
    R_j(f)    = sum over t of y_j(f, t) y_j(f, t)^H / (sum over t of v_j(f, t) + EPSILON)
    y_j(f, t) = v_j(f, t) R_j(f) [sum over i of v_i(f, t) R_i(f) + sqrt(EPSILON) I]^-1 x(f, t)

The regularization and the scaling of the mixture are those of the package norbert.
"""

from itertools import product

import torch
from torch import Tensor

from stemsplit.dsp.stft import squared_magnitude

EPSILON = 2.0**-23  # power added to every covariance; relative to a mixture scaled to at most MAX_MAGNITUDE
MAX_MAGNITUDE = 10.0
BINS_AT_ONCE = 64  # few enough that the intermediate results stay in a CPU's cache


def refine(stems: Tensor, mixture: Tensor, iterations: int) -> Tensor:
    """Refine the spectra of stems by Wiener filtering of their mixture.

    The spatial covariances are estimated over all frames given. The result sums to the mixture, up to the
    regularization.

    Args:
        stems: `(B, S, C, F, T)` complex, the initial estimates; C is 1 or 2.
        mixture: `(B, C, F, T)` complex.
        iterations: How often to estimate the covariances and filter; 0 returns the stems unchanged.

    Returns:
        `(B, S, C, F, T)` complex, in the precision and on the device of `stems`.

    Raises:
        ValueError: There are more than two channels.
    """
    if mixture.shape[1] not in (1, 2):
        raise ValueError(f"Wiener filtering is for one or two channels, not {mixture.shape[1]}")
    # The covariance of a source that comes from one direction is nearly singular, so double precision is needed, which
    # Apple's GPUs do not have.
    device = torch.device("cpu") if mixture.device.type == "mps" else mixture.device
    scale = (mixture.abs().amax(dim=(1, 2, 3), keepdim=True) / MAX_MAGNITUDE).clamp(min=1).to(device, torch.float64)
    chunks = []
    for first in range(0, mixture.shape[2], BINS_AT_ONCE):
        band = slice(first, first + BINS_AT_ONCE)
        x = mixture[:, :, band].to(device, torch.complex128) / scale
        y = stems[:, :, :, band].to(device, torch.complex128) / scale.unsqueeze(1)
        for _ in range(iterations):
            y = _filter(y, x)
        chunks.append((y * scale.unsqueeze(1)).to(stems.device, stems.dtype))
    return torch.cat(chunks, dim=3)


def _filter(y: Tensor, x: Tensor) -> Tensor:
    """One iteration on stems `(B, S, C, F, T)` and mixture `(B, C, F, T)`."""
    channels = range(x.shape[1])
    power = squared_magnitude(y).mean(2)  # v, (B, S, F, T)
    total = power.sum(-1, keepdim=True) + EPSILON
    spatial = {  # R by pairs of channels, (B, S, F, 1)
        (a, b): (y[:, :, a] * y[:, :, b].conj()).sum(-1, keepdim=True) / total for a, b in product(channels, repeat=2)
    }
    covariance = {pair: (power * r).sum(1) for pair, r in spatial.items()}  # of the mixture, (B, F, T)
    whitened = _solve({(a, b): value + (a == b) * EPSILON**0.5 for (a, b), value in covariance.items()}, x)
    filtered = [torch.stack([spatial[a, b] * whitened[b].unsqueeze(1) for b in channels]).sum(0) for a in channels]
    return power.unsqueeze(2) * torch.stack(filtered, dim=2)


def _solve(matrix: dict[tuple[int, int], Tensor], x: Tensor) -> list[Tensor]:
    """Solve `matrix` z = x in every bin: x is `(B, C, F, T)`, z one `(B, F, T)` for each channel."""
    if x.shape[1] == 1:
        return [x[:, 0] / (matrix[0, 0] + EPSILON)]
    determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    return [
        (matrix[1, 1] * x[:, 0] - matrix[0, 1] * x[:, 1]) / determinant,
        (matrix[0, 0] * x[:, 1] - matrix[1, 0] * x[:, 0]) / determinant,
    ]
