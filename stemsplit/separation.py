"""The flow: a stream of a mixture -> a stream of its stems."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, groupby, islice, tee
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stemsplit.audio import Block, match_channels, open_reader
from stemsplit.bags import Bag, bag_of
from stemsplit.checkpoint import Header, Model
from stemsplit.encoding import StemWriter
from stemsplit.errors import UsageError
from stemsplit.resampling import resample
from stemsplit.windows import Window, WindowPlan, cut, overlap_add

Stems = npt.NDArray[np.float32]  # (S, C, n)

LARGEST_SHIFT_SECONDS = 0.5
BATCH_SECONDS = 32  # of windows that a GPU is given at once, if nobody says how many
MOST_OVERLAP = 0.95
PRECISIONS = ("full", "half")


@dataclass(frozen=True, slots=True)
class Report:
    """What `Separator.separate_file` did.

    Args:
        rate: Hz. channels: of each stem. length: samples of each stem.
        clipped: samples beyond full scale, over all stems.
        warnings: sentences about what was folded down, missing or damaged in the input, and about memory.
    """

    rate: int
    channels: int
    length: int
    clipped: int
    warnings: tuple[str, ...]


class Separator:
    """A model that is ready to separate any number of songs.

    Args:
        device: "cpu", "cuda" or "mps", where the model is. batch_size: windows at a time; one by default on a CPU, as
            many as BATCH_SECONDS hold elsewhere. When the device's memory is too small for them, half as many are
            taken from then on.
        precision: "full" is float32; "half" computes in 16 bits what bears it, float16 on GPUs and bfloat16 on CPUs.
        overlap: share of a window that the next one covers, in [0, MOST_OVERLAP]; by default as the model has it.
        shifts: separate each song so many times, each time later by up to half a second, and take the mean; 0 for
            once, as it is. Défossez et al., "Music Source Separation in the Waveform Domain" (2019), section 4.4.
        seed: decides by how much.
        wiener: refine what a network of masks gives so many times, by what the channels of each window have in common.

    Raises UsageError when one of these is out of range.
    """

    def __init__(
        self,
        model: Model | Bag,
        *,
        device: str = "cpu",
        batch_size: int | None = None,
        precision: str = "full",
        overlap: float | None = None,
        shifts: int = 0,
        seed: int = 0,
        wiener: int = 0,
    ) -> None:
        self.bag = model if isinstance(model, Bag) else bag_of(model)
        self.device, self.precision = device, precision
        header = self.bag.header
        if batch_size is None:
            batch_size = 1 if device == "cpu" else max(1, round(BATCH_SECONDS * header.rate / header.length))
        if batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, not {batch_size}")
        if precision not in PRECISIONS:
            raise UsageError(f"there is no precision {precision!r}", f"one of {', '.join(PRECISIONS)}")
        if overlap is not None and not 0 <= overlap <= MOST_OVERLAP:
            raise UsageError(f"the overlap must be from 0 to {MOST_OVERLAP}, not {overlap:g}")
        if shifts < 0:
            raise UsageError(f"the number of shifts must not be negative, as {shifts} is")
        self.bag.check_wiener(wiener)
        self.wiener = wiener
        self.batch_size = batch_size
        self.plan = (
            header.plan if overlap is None else WindowPlan(header.length, int((1 - overlap) * header.length) or 1)
        )
        latest = int(LARGEST_SHIFT_SECONDS * header.rate)
        rng = random.Random(seed)
        self.leads = tuple(rng.randint(0, latest) for _ in range(shifts)) or (0,)
        self.warnings: list[str] = []

    def separate(self, blocks: Iterable[Block], rate: int) -> Iterator[Stems]:
        """Blocks `(C, n)` of a mixture at `rate` Hz -> blocks `(S, C, n)` of its stems at the rate of the model.

        Together they are as long as the resampled mixture. Memory does not depend on its length.
        """
        header = self.bag.header
        blocks = match_channels(blocks, header.channels)
        blocks = resample(blocks, rate, header.rate, channels=header.channels)
        copies = tee(map(torch.from_numpy, blocks), len(self.leads))
        passes = [self._separate_once(copy, lead) for copy, lead in zip(copies, self.leads, strict=True)]
        for stems in _mean(passes):
            yield stems.numpy()

    def separate_file(
        self,
        track: Path,
        outputs: Mapping[str, Path],
        *,
        overwrite: bool = False,
        on_progress: Callable[[int, int | None], None] = lambda done, total: None,
    ) -> Report:
        """Separate one file. The stems keep its length, rate, alignment and channels (more than two are folded to two).

        Args:
            track: any audio file. outputs: where each stem of the model that is wanted goes, by name; the folders are
                made.
            overwrite: replace files that exist.
            on_progress: called with the samples written so far and the file's own estimate of its length, if it has
                one.

        Raises AudioError when the file cannot be read or a stem not be written; then none of the outputs is there.
        """
        header = self.bag.header
        unknown = sorted(set(outputs) - set(header.stems))
        if unknown:
            raise UsageError(f"the model has no stem {unknown[0]!r}", f"its stems are {', '.join(header.stems)}")
        rows = [header.stems.index(stem) for stem in outputs]
        told = len(self.warnings)
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
            wanted = (stems[rows] for stems in self.separate(mixture, reader.rate))
            for block in _as_the_input(wanted, len(rows), header, reader.rate, reader.channels):
                writer.write(block[..., : mixture.length - writer.length])
                on_progress(writer.length, reader.length)
            # Resampling there and back may end a sample early.
            writer.write(np.zeros((len(rows), reader.channels, mixture.length - writer.length), np.float32))
            warnings = (*reader.warnings, *self.warnings[told:])
            return Report(reader.rate, reader.channels, writer.length, writer.clipped, warnings)

    def _separate_once(self, blocks: Iterable[Tensor], lead: int) -> Iterator[Tensor]:
        """`(C, n)` -> `(S, C, n)`, with `lead` zeros before the stream that are taken away again."""
        channels = self.bag.header.channels
        later = chain([torch.zeros(channels, lead)], blocks) if lead else blocks
        windows = cut(later, self.plan, channels=channels, room=self.bag.room)
        for stems in overlap_add(self._estimate(windows), self.plan):
            skipped = min(lead, stems.shape[-1])
            lead -= skipped
            if skipped < stems.shape[-1]:
                yield stems[..., skipped:]

    @torch.inference_mode()
    def _estimate(self, windows: Iterable[Window]) -> Iterator[Window]:
        """Run the networks on batches of windows: `(C, M)` -> `(S, C, length)`."""
        for _, alike in groupby(windows, key=lambda window: window.length):
            while batch := list(islice(alike, self.batch_size)):
                yield from self._run(batch)

    def _run(self, batch: list[Window]) -> Iterator[Window]:
        """The same for one batch, in smaller ones if it has to be."""
        done = 0
        while rest := batch[done : done + self.batch_size]:
            try:
                stems = self._run_networks(rest)
            except torch.OutOfMemoryError:
                if len(rest) == 1:
                    raise
            else:
                yield from (Window(estimate, rest[0].length) for estimate in stems)
                done += len(rest)
                continue
            # Not above: while the error is known, so are the tensors of where it happened.
            self.batch_size = (len(rest) + 1) // 2
            if self.device == "cuda":
                torch.cuda.empty_cache()
            if not self.warnings:
                told = f"the {self.device} device has too little free memory for {len(rest)} windows at a time"
                self.warnings.append(f"{told}; fewer are taken from now on")

    def _run_networks(self, batch: list[Window]) -> Tensor:
        """Windows of the same length -> `(B, S, C, length)`: each stem from the networks with a share in it."""
        header, length = self.bag.header, batch[0].length
        total = torch.zeros(len(batch), len(header.stems), header.channels, length)
        for member in self.bag.members:
            mix = torch.stack([window.seen(member.room(length)) for window in batch]).to(self.device)
            with self._low_precision():
                estimate = member.ready(wiener=self.wiener)(mix)
            inner = Window(estimate, length).seen(length).float().cpu()
            for stem, row, share in member.shares:
                total[:, stem].add_(inner[:, row], alpha=share)
        return total

    def _low_precision(self) -> torch.autocast | nullcontext[None]:
        if self.precision == "full":
            return nullcontext()
        return torch.autocast(self.device, torch.bfloat16 if self.device == "cpu" else torch.float16)


def _mean(passes: list[Iterator[Tensor]]) -> Iterator[Tensor]:
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


class _Counted:
    """An iterable of blocks that knows how many samples have passed: a header's length is only an estimate."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self.blocks, self.length = blocks, 0

    def __iter__(self) -> Iterator[Block]:
        for block in self.blocks:
            self.length += block.shape[-1]
            yield block


def _as_the_input(stems: Iterable[Stems], count: int, header: Header, rate: int, channels: int) -> Iterator[Stems]:
    """Stems at the model's rate and channels -> at `rate` Hz in `channels`, resampled side by side in one stream."""
    side_by_side = (block.reshape(-1, block.shape[-1]) for block in stems)
    for flat in resample(side_by_side, header.rate, rate, channels=count * header.channels):
        block = flat.reshape(count, header.channels, -1)
        if channels < header.channels:
            yield block.mean(1, keepdims=True)
        else:
            yield np.repeat(block, channels // header.channels, axis=1)
