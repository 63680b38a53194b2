"""Streams of samples and stems: averaged, counted, fitted to the rate and channels of the song, and joined."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stemsplit.audio.decoding import Block, Stems
from stemsplit.audio.resampling import resample
from stemsplit.errors import UsageError
from stemsplit.models.checkpoint import Header
from stemsplit.separation.options import check_rate

_BLOCK_SAMPLES = 65_536
_Samples = TypeVar("_Samples", Tensor, Stems)


def mean(streams: list[Iterator[Tensor]]) -> Iterator[Tensor]:
    """Average streams of blocks `(..., n)` that are equally long, but cut differently."""
    if len(streams) == 1:
        yield from streams[0]
        return
    for blocks in aligned(streams):
        yield torch.stack(blocks).mean(0)


def aligned(streams: Sequence[Iterator[_Samples]]) -> Iterator[list[_Samples]]:
    """Cut streams that are equally long in the same places: yield lists of a block `(..., n)` of each."""
    heads = [next(stream, None) for stream in streams]
    while all(block is not None for block in heads):
        blocks = [block for block in heads if block is not None]
        ready = min(block.shape[-1] for block in blocks)
        yield [block[..., :ready] for block in blocks]
        for number, (block, stream) in enumerate(zip(blocks, streams, strict=True)):
            heads[number] = block[..., ready:] if ready < block.shape[-1] else next(stream, None)
    assert not any(block is not None for block in heads)


class MixtureTap:
    """Passes blocks `(..., n)` on and counts their samples, as the length in a header is only an estimate.

    Attributes:
        length: Samples that have passed so far.
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
        stems: Blocks `(S, C, n)` with the rate and channels of the model.
        count: S.
        header: Of the model.
        rate: Of the song, Hz.
        channels: Of the song.

    Yields:
        Blocks `(S, channels, n)` at `rate`.
    """
    flattened = (block.reshape(-1, block.shape[-1]) for block in stems)
    for flat in resample(flattened, header.rate, rate, channels=count * header.channels):
        block = flat.reshape(count, header.channels, -1)
        if channels < header.channels:
            yield block.mean(1, keepdims=True)
        else:
            yield np.repeat(block, channels // header.channels, axis=1)


def match_length(stems: Iterable[Stems], tap: MixtureTap, count: int, channels: int) -> Iterator[Stems]:
    """Make stems as long as the tapped stream that they were separated from.

    Resampling to the model's rate and back can end one sample early or late.

    Args:
        stems: Blocks `(S, C, n)` at the rate of the tapped stream.
        tap: The stream, which has passed all samples when `stems` ends.
        count: S.
        channels: C.

    Yields:
        The blocks, the last one cut if there are too many samples, or followed by silence if there are too few.
    """
    done = 0
    for block in stems:
        block = block[..., : tap.length - done]
        done += block.shape[-1]
        if block.shape[-1]:
            yield block
    if missing := tap.length - done:
        yield np.zeros((count, channels, missing), np.float32)


def check_array(mixture: npt.ArrayLike, rate: int) -> npt.NDArray[Any]:
    """Return a song in memory as an array; raise UsageError unless it is `(1, N)` or `(2, N)` finite floats."""
    samples = np.asarray(mixture)
    check_rate(rate)
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
    for start in range(0, samples.shape[1], _BLOCK_SAMPLES):
        yield np.array(samples[:, start : start + _BLOCK_SAMPLES], np.float32)


def join(stems: Iterable[Stems], shape: tuple[int, int, int], on_progress: Callable[[int, int | None], None]) -> Stems:
    """Join blocks `(S, C, n)` into an array of a given shape; resampling twice may give one sample less or more."""
    joined, done, length = np.zeros(shape, np.float32), 0, shape[-1]
    for block in stems:
        size = min(block.shape[-1], length - done)
        joined[..., done : done + size] = block[..., :size]
        done += size
        on_progress(done, length)
    return joined
