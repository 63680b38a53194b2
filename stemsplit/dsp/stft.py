"""The one short-time Fourier transform, and its inverse."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Stft(nn.Module):
    """A centred STFT with a periodic Hann window.

    Args:
        n_fft: length of a frame and of its transform, samples, even. There are `F = n_fft // 2 + 1` bins.
        hop: samples from one frame to the next, at most `n_fft // 3`: the last samples of a signal lie in one frame
            only, up to a hop from its centre, and the inverse divides by the square of the window there.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        if n_fft % 2:
            raise ValueError(f"n_fft must be even, not {n_fft}")
        if not 0 < hop <= n_fft // 3:
            raise ValueError(f"hop must be in 1..{n_fft // 3} for n_fft {n_fft}, not {hop}")
        self.n_fft, self.hop = n_fft, hop
        # Not on the meta device, where files are checked: there this function imports a compiler, for a second.
        self.register_buffer("window", torch.hann_window(n_fft, device="cpu"), persistent=False)

    @property
    def bins(self) -> int:
        """`F`, the number of frequency bins from 0 Hz to half the sample rate."""
        return self.n_fft // 2 + 1

    def forward(self, samples: Tensor) -> Tensor:
        """`(..., N)` real, N > n_fft / 2 -> `(..., F, T)` complex, T = 1 + N // hop."""
        flat = samples.reshape(-1, samples.shape[-1])
        spectrum = torch.stft(
            flat, self.n_fft, self.hop, window=self.window, center=True, pad_mode="reflect", return_complex=True
        )
        return spectrum.reshape(*samples.shape[:-1], *spectrum.shape[-2:])

    def inverse(self, spectrum: Tensor, length: int) -> Tensor:
        """`(..., F, T)` complex -> `(..., length)` real: the least-squares inverse (Griffin and Lim, 1984).

        As `torch.istft`, in about half of its time on a CPU.
        """
        return self.inverse_of_pieces([spectrum], spectrum.shape[-1], length)

    def inverse_of_pieces(self, pieces: Iterable[Tensor], frames: int, length: int) -> Tensor:
        """The same for a spectrum that comes `(..., F, t)` at a time, in so many `frames` together."""
        total, start = None, 0
        for piece in pieces:
            part = torch.fft.irfft(piece.transpose(-1, -2), n=self.n_fft).mul_(self.window)
            if total is None:
                total = self._silence(part, frames)
            self._overlap_add(part, total[..., start:, :])
            start += part.shape[-2]
        assert total is not None
        weights = self.window.square().expand(frames, -1)
        energy = self._silence(weights, frames)
        self._overlap_add(weights, energy)
        place = slice(self.n_fft // 2, self.n_fft // 2 + length)
        samples = total.flatten(-2)[..., place] / energy.flatten()[place]
        missing = length - samples.shape[-1]
        return functional.pad(samples, (0, missing)) if missing else samples

    def _silence(self, like: Tensor, frames: int) -> Tensor:
        """What so many frames are to be added to, in rows of a hop: `(..., rows, hop)`."""
        return like.new_zeros(*like.shape[:-2], frames - 1 - (-self.n_fft // self.hop), self.hop)

    def _overlap_add(self, frames: Tensor, total: Tensor) -> None:
        """Add `(..., T, n_fft)` to `(..., rows, hop)`, each frame a row after the one before."""
        if uneven := self.n_fft % self.hop:
            frames = functional.pad(frames, (0, self.hop - uneven))
        rows = frames.reshape(*frames.shape[:-1], -1, self.hop)
        count, size = rows.shape[-3:-1]
        for number in range(size):
            total[..., number : number + count, :] += rows[..., number, :]
