"""The flow: a stream of a mixture -> a stream of its stems."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from stemsplit.audio import Block, match_channels, open_reader
from stemsplit.checkpoint import Model
from stemsplit.encoding import StemWriter
from stemsplit.errors import UsageError
from stemsplit.resampling import resample
from stemsplit.windows import Window, cut, overlap_add

Stems = npt.NDArray[np.float32]  # (S, C, n)


def separate(
    blocks: Iterable[Block], rate: int, model: Model, *, device: str = "cpu", batch_size: int = 1
) -> Iterator[Stems]:
    """Blocks `(C, n)` of a mixture at `rate` Hz -> blocks `(S, C, n)` of its stems at the model's rate and channels.

    Together they are as long as the resampled mixture. Memory does not depend on its length.
    """
    header = model.header
    blocks = match_channels(blocks, header.channels)
    blocks = resample(blocks, rate, header.rate, channels=header.channels)
    windows = cut(map(torch.from_numpy, blocks), header.plan, channels=header.channels)
    estimates = _estimate(windows, model, device, batch_size)
    for stems in overlap_add(estimates, header.plan):
        yield stems.numpy()


@torch.inference_mode()
def _estimate(windows: Iterable[Window], model: Model, device: str, batch_size: int) -> Iterator[Window]:
    """Run the network on batches of windows: `(C, length)` -> `(S, C, length)`."""
    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")
    windows = iter(windows)
    while batch := list(islice(windows, batch_size)):
        mix = torch.stack([window.samples for window in batch]).to(device)
        for stems, window in zip(model.network(mix).cpu(), batch, strict=True):
            yield Window(stems, window.keep)


@dataclass(frozen=True, slots=True)
class Report:
    """What `separate_file` did.

    Args:
        rate: Hz. channels: of each stem. length: samples of each stem.
        clipped: samples beyond full scale, over all stems.
        warnings: sentences about what was folded down, missing or damaged in the input.
    """

    rate: int
    channels: int
    length: int
    clipped: int
    warnings: tuple[str, ...]


def separate_file(
    track: Path,
    outputs: Mapping[str, Path],
    model: Model,
    *,
    device: str = "cpu",
    batch_size: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Report:
    """Separate one file. The stems keep its length, rate, alignment and channels (more than two are folded to two).

    Args:
        track: any audio file. outputs: where each stem of the model that is wanted goes, by name; the folders are made.
        overwrite: replace files that exist.
        on_progress: called with the samples written so far and the file's own estimate of its length, if it has one.

    Raises AudioError when the file cannot be read or a stem not be written; then none of the outputs is there.
    """
    unknown = sorted(set(outputs) - set(model.header.stems))
    if unknown:
        raise UsageError(f"the model has no stem {unknown[0]!r}", f"its stems are {', '.join(model.header.stems)}")
    rows = [model.header.stems.index(stem) for stem in outputs]
    with (
        open_reader(track) as reader,
        StemWriter(
            list(outputs.values()),
            rate=reader.rate,
            channels=reader.channels,
            overwrite=overwrite,
            expected_length=reader.length,
        ) as writer,
    ):
        mixture = _Counted(reader.blocks())
        stems = separate(mixture, reader.rate, model, device=device, batch_size=batch_size)
        wanted = (block[rows] for block in stems)
        for block in _as_the_input(wanted, len(rows), model, reader.rate, reader.channels):
            writer.write(block[..., : mixture.length - writer.length])
            on_progress(writer.length, reader.length)
        # Resampling there and back may end a sample early.
        writer.write(np.zeros((len(rows), reader.channels, mixture.length - writer.length), np.float32))
        return Report(reader.rate, reader.channels, writer.length, writer.clipped, tuple(reader.warnings))


class _Counted:
    """An iterable of blocks that knows how many samples have passed: a header's length is only an estimate."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self.blocks, self.length = blocks, 0

    def __iter__(self) -> Iterator[Block]:
        for block in self.blocks:
            self.length += block.shape[-1]
            yield block


def _as_the_input(stems: Iterable[Stems], count: int, model: Model, rate: int, channels: int) -> Iterator[Stems]:
    """Stems at the model's rate and channels -> at `rate` Hz in `channels`, resampled side by side in one stream."""
    side_by_side = (block.reshape(-1, block.shape[-1]) for block in stems)
    for flat in resample(side_by_side, model.header.rate, rate, channels=count * model.header.channels):
        block = flat.reshape(count, model.header.channels, -1)
        if channels < model.header.channels:
            yield block.mean(1, keepdims=True)
        else:
            yield np.repeat(block, channels // model.header.channels, axis=1)
