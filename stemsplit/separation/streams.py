"""Streams of samples and stems: averaged, counted, fitted to the rate and channels of the song, and joined."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stemsplit.audio.decoding import Block, Stems
from stemsplit.audio.resampling import resample
from stemsplit.errors import UsageError
from stemsplit.models.checkpoint import Header

_BLOCK = 65_536  # samples of an array at a time


def mean(passes: list[Iterator[Tensor]]) -> Iterator[Tensor]:
    """Average streams of blocks `(..., n)` that are equally long, but cut differently."""
    if len(passes) == 1:
        yield from passes[0]
        return
    waiting = [next(stream, None) for stream in passes]
    while all(piece is not None for piece in waiting):
        pieces = [piece for piece in waiting if piece is not None]
        ready = min(piece.shape[-1] for piece in pieces)
        yield torch.stack([piece[..., :ready] for piece in pieces]).mean(0)
        for number, (piece, stream) in enumerate(zip(pieces, passes, strict=True)):
            waiting[number] = piece[..., ready:] if ready < piece.shape[-1] else next(stream, None)
    assert not any(piece is not None for piece in waiting)


class MixtureTap:
    """Passes blocks `(..., n)` on, and counts their samples, as the length in a header is only an estimate.

    Attributes:
        length: samples that have passed so far.
    """

    def __init__(self, blocks: Iterable[Block], *, keep: bool = False) -> None:
        """Tap blocks; `keep` them for `take`."""
        self.length = 0
        self._blocks, self._keep = blocks, keep
        self._kept: list[Block] = []

    def __iter__(self) -> Iterator[Block]:
        for block in self._blocks:
            self.length += block.shape[-1]
            if self._keep:
                self._kept.append(block)
            yield block

    def take(self, count: int) -> Block | None:
        """Return the next `count` samples `(..., count)` of those that have passed, or None if they were not kept."""
        if not self._keep:
            return None
        taken: list[Block] = []
        while count > 0:
            block = self._kept.pop(0)
            taken.append(block[..., :count])
            if block.shape[-1] > count:
                self._kept.insert(0, block[..., count:])
            count -= taken[-1].shape[-1]
        return np.concatenate(taken, axis=-1)


def match_input(stems: Iterable[Stems], count: int, header: Header, rate: int, channels: int) -> Iterator[Stems]:
    """Give stems the rate and channels of the song.

    Args:
        stems: blocks `(S, C, n)` with the rate and channels of the model.
        count: S.
        header: of the model.
        rate: of the song, Hz.
        channels: of the song.

    Yields:
        Blocks `(S, channels, n)` at `rate`.
    """
    side_by_side = (block.reshape(-1, block.shape[-1]) for block in stems)
    for flat in resample(side_by_side, header.rate, rate, channels=count * header.channels):
        block = flat.reshape(count, header.channels, -1)
        if channels < header.channels:
            yield block.mean(1, keepdims=True)
        else:
            yield np.repeat(block, channels // header.channels, axis=1)


def check_array(mixture: npt.ArrayLike, rate: int) -> npt.NDArray[Any]:
    """Return a song in memory as an array; raise UsageError unless it is `(1, N)` or `(2, N)` finite floats."""
    samples = np.asarray(mixture)
    if rate < 1:
        raise UsageError(f"the sample rate must be at least 1 Hz, not {rate}")
    if samples.ndim != 2 or len(samples) not in (1, 2):
        message = f"a song must have the shape (1, N) or (2, N), not {samples.shape}"
        hint = "transpose an array (N, C) with .T, and give an array (N,) its channels with [None]"
        raise UsageError(message, hint)
    if not np.issubdtype(samples.dtype, np.floating):
        raise UsageError(f"samples of type {samples.dtype} are not floats", "divide 16-bit samples by 32768")
    if not np.isfinite(samples).all():
        raise UsageError("some samples are infinite or not a number", "see numpy.nan_to_num")
    return samples


def blocks_of(samples: npt.NDArray[Any]) -> Iterator[Block]:
    """Cut an array `(C, N)` into float32 blocks, which are copies."""
    for start in range(0, samples.shape[1], _BLOCK):
        yield np.array(samples[:, start : start + _BLOCK], np.float32)


def join(stems: Iterable[Stems], shape: tuple[int, int, int], on_progress: Callable[[int, int | None], None]) -> Stems:
    """Join blocks `(S, C, n)` to an array of a `shape`: resampling twice may give a sample less or more."""
    joined, done, length = np.zeros(shape, np.float32), 0, shape[-1]
    for block in stems:
        size = min(block.shape[-1], length - done)
        joined[..., done : done + size] = block[..., :size]
        done += size
        on_progress(done, length)
    return joined
