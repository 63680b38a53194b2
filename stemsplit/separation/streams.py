"""Streams of samples and of stems: joined, averaged, counted, and given the shape of what they were made from."""

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
    """The mean of streams `(..., n)` that are equally long, cut differently."""
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
    """An iterable of blocks that counts what passes: a header's length is only an estimate. It may keep it as well."""

    def __init__(self, blocks: Iterable[Block], *, keep: bool = False) -> None:
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
        """The next `count` of the samples `(C, count)` that have passed; None if they were not kept."""
        if not self._keep:
            return None
        taken: list[Block] = []
        while count > 0:
            block = self._kept.pop(0)
            taken.append(block[:, :count])
            if block.shape[1] > count:
                self._kept.insert(0, block[:, count:])
            count -= taken[-1].shape[1]
        return np.concatenate(taken, axis=1)


def as_the_input(stems: Iterable[Stems], count: int, header: Header, rate: int, channels: int) -> Iterator[Stems]:
    """Stems at the model's rate and channels -> at `rate` Hz in `channels`, resampled side by side in one stream."""
    side_by_side = (block.reshape(-1, block.shape[-1]) for block in stems)
    for flat in resample(side_by_side, header.rate, rate, channels=count * header.channels):
        block = flat.reshape(count, header.channels, -1)
        if channels < header.channels:
            yield block.mean(1, keepdims=True)
        else:
            yield np.repeat(block, channels // header.channels, axis=1)


def check_array(mixture: npt.ArrayLike, rate: int) -> npt.NDArray[Any]:
    """A song in memory, if it is `(C, N)` with one or two channels, of floats, and finite; UsageError otherwise."""
    samples = np.asarray(mixture)
    if rate < 1:
        raise UsageError(f"the sample rate must be at least 1 Hz, not {rate}")
    if samples.ndim != 2 or len(samples) not in (1, 2):
        shape = f"an array of the shape {samples.shape} is no song, which has (1, N) or (2, N)"
        raise UsageError(
            shape, "if it is (N, C), as from libraries that read files, pass its .T; if it is (N,), [None]"
        )
    if not np.issubdtype(samples.dtype, np.floating):
        raise UsageError(f"samples of the type {samples.dtype} are no floats", "divide those of 16 bits by 32768")
    if not np.isfinite(samples).all():
        raise UsageError("there are samples that are infinite or not a number", "see numpy.nan_to_num")
    return samples


def blocks_of(samples: npt.NDArray[Any]) -> Iterator[Block]:
    """An array `(C, N)` in blocks of float32, which are copies."""
    for start in range(0, samples.shape[1], _BLOCK):
        yield np.array(samples[:, start : start + _BLOCK], np.float32)


def join(stems: Iterable[Stems], shape: tuple[int, int, int], on_progress: Callable[[int, int | None], None]) -> Stems:
    """Blocks `(S, C, n)` as one array of a `shape`: resampling there and back may end a sample early, or late."""
    whole, done, length = np.zeros(shape, np.float32), 0, shape[-1]
    for block in stems:
        size = min(block.shape[-1], length - done)
        whole[..., done : done + size] = block[..., :size]
        done += size
        on_progress(done, length)
    return whole
