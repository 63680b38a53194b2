"""Multichannel Wiener filtering: what the channels have in common is used to refine spectra of stems.

Every stem is a Gaussian process with a power that changes in time and frequency and, for each frequency, one covariance
of the channels: Duong, Vincent and Gribonval, "Under-determined reverberant audio source separation using a full-rank
spatial covariance model" (IEEE TASLP 18(7), 2010). Both are measured on the estimates, and the mixture is filtered
anew: Nugraha, Liutkus and Vincent, "Multichannel audio source separation with deep neural networks" (IEEE/ACM TASLP
24(9), 2016), as in the package norbert.
"""

from itertools import product

import torch
from torch import Tensor

NOISE = 2.0**-23  # power that is in every covariance; for a mixture whose highest magnitude is at most LOUDEST
LOUDEST = 10.0
BINS_AT_ONCE = 64  # what is worked on has to stay in the cache


def refine(stems: Tensor, mixture: Tensor, iterations: int) -> Tensor:
    """Spectra of stems and of their mixture, one or two channels -> better spectra of the stems.

    All frames together give the covariances. Afterwards the stems add up to the mixture, but for a little noise.

    Args:
        stems: `(B, S, C, F, T)` complex. mixture: `(B, C, F, T)` complex.
        iterations: how often to measure and to filter; with 0 the stems are given back as they are.
    """
    if mixture.shape[1] not in (1, 2):
        raise ValueError(f"Wiener filtering is for one or two channels, not {mixture.shape[1]}")
    # The covariances are next to singular for a sound from one direction, so the numbers need double precision, which
    # Apple's devices do not have.
    place = torch.device("cpu") if mixture.device.type == "mps" else mixture.device
    scale = (mixture.abs().amax(dim=(1, 2, 3), keepdim=True) / LOUDEST).clamp(min=1).to(place, torch.float64)
    pieces = []
    for first in range(0, mixture.shape[2], BINS_AT_ONCE):
        band = slice(first, first + BINS_AT_ONCE)
        x = mixture[:, :, band].to(place, torch.complex128) / scale
        y = stems[:, :, :, band].to(place, torch.complex128) / scale.unsqueeze(1)
        for _ in range(iterations):
            y = _filter(y, x)
        pieces.append((y * scale.unsqueeze(1)).to(stems.device, stems.dtype))
    return torch.cat(pieces, dim=3)


def _filter(y: Tensor, x: Tensor) -> Tensor:
    """One iteration: `(B, S, C, f, T)` and `(B, C, f, T)`, complex -> the stems anew."""
    channels = range(x.shape[1])
    power = (y.real.square() + y.imag.square()).mean(2)  # (B, S, f, T)
    total = power.sum(-1, keepdim=True) + NOISE
    # What of a stem's power is common to two channels, (B, S, f, 1); and the mixture's covariance, (B, f, T).
    spatial = {
        (a, b): (y[:, :, a] * y[:, :, b].conj()).sum(-1, keepdim=True) / total for a, b in product(channels, repeat=2)
    }
    mixed = {key: (power * common).sum(1) for key, common in spatial.items()}
    whitened = _solve({(a, b): value + (a == b) * NOISE**0.5 for (a, b), value in mixed.items()}, x)
    filtered = [torch.stack([spatial[a, b] * whitened[b].unsqueeze(1) for b in channels]).sum(0) for a in channels]
    return power.unsqueeze(2) * torch.stack(filtered, dim=2)


def _solve(matrix: dict[tuple[int, int], Tensor], x: Tensor) -> list[Tensor]:
    """z of `matrix` z = x in every bin of every frame; x is `(B, C, f, T)`, z one `(B, f, T)` a channel."""
    if x.shape[1] == 1:
        return [x[:, 0] / (matrix[0, 0] + NOISE)]
    determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    return [
        (matrix[1, 1] * x[:, 0] - matrix[0, 1] * x[:, 1]) / determinant,
        (matrix[0, 0] * x[:, 1] - matrix[1, 0] * x[:, 0]) / determinant,
    ]
