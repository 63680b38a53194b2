"""One model at work: a stream is cut into windows, which its networks separate, and cross-faded again."""

import logging
import random
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import chain, groupby, islice, tee

import numpy as np
import torch
from torch import Tensor

from stemsplit import signals
from stemsplit.audio.decoding import Block, Stems
from stemsplit.audio.reading import match_channels
from stemsplit.audio.resampling import resample
from stemsplit.dsp.overlap_add import Window, WindowPlan, cut, overlap_add
from stemsplit.models.ensemble import Ensemble
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.streams import mean

_log = logging.getLogger(__name__)

MAX_SHIFT_SECONDS = 0.5
BATCH_SECONDS = 32  # of windows that a GPU gets at a time by default


class EnsembleRunner:
    """Runs the networks of a model on streams.

    Attributes:
        ensemble: the networks.
        batch_size: windows at a time; it shrinks when the device's memory is too small.
        plan: the windows that a song is cut into.
        shift_offsets: samples by which the song is delayed, one for each separation that is averaged.
        warnings: sentences about what went wrong, but did not keep it from separating.
    """

    def __init__(self, ensemble: Ensemble, options: SeparationOptions, *, device: str) -> None:
        self.ensemble = ensemble
        self._options, self._device = options, device
        header = self.ensemble.header
        usual = 1 if device == "cpu" else max(1, round(BATCH_SECONDS * header.rate / header.length))
        self.batch_size = options.batch_size or usual
        self.plan = header.plan
        if options.overlap is not None:
            self.plan = WindowPlan(header.length, int((1 - options.overlap) * header.length) or 1)
        latest = int(MAX_SHIFT_SECONDS * header.rate)
        rng = random.Random(options.seed)
        self.shift_offsets = tuple(rng.randint(0, latest) for _ in range(options.shifts)) or (0,)
        self.warnings: list[str] = []
        count, windows = len(self.ensemble.members), self.plan
        _log.info(
            "%d network%s on %s, precision %s, windows of %.2f s, a new one every %.2f s, %d at a time",
            count,
            "s" if count > 1 else "",
            device,
            options.precision,
            windows.length / header.rate,
            windows.hop / header.rate,
            self.batch_size,
        )

    def separate(self, blocks: Iterable[Block], rate: int) -> Iterator[Stems]:
        """Separate a stream. Memory does not depend on its length.

        Args:
            blocks: the mixture, in blocks `(C, n)` of any sizes, mono or stereo.
            rate: of the mixture, Hz.

        Yields:
            Blocks `(S, C, n)` of the stems, with the rate and channels of the networks; together they are as long as
            the resampled mixture.
        """
        header = self.ensemble.header
        blocks = (np.require(block, np.float32, ["C", "W"]) for block in blocks)  # as torch wants them
        blocks = match_channels(blocks, header.channels)
        blocks = resample(blocks, rate, header.rate, channels=header.channels)
        copies = tee(map(torch.from_numpy, blocks), len(self.shift_offsets))
        passes = [self._separate_once(copy, lead) for copy, lead in zip(copies, self.shift_offsets, strict=True)]
        for stems in mean(passes):
            yield stems.numpy()

    def _separate_once(self, blocks: Iterable[Tensor], lead: int) -> Iterator[Tensor]:
        """Separate blocks `(C, n)` into `(S, C, n)`, delayed by `lead` samples that are removed again."""
        channels = self.ensemble.header.channels
        later = chain([torch.zeros(channels, lead)], blocks) if lead else blocks
        windows = cut(later, self.plan, channels=channels, input_length=self.ensemble.input_length)
        for stems in overlap_add(self._estimate(windows), self.plan):
            skipped = min(lead, stems.shape[-1])
            lead -= skipped
            if skipped < stems.shape[-1]:
                yield stems[..., skipped:]

    @torch.inference_mode()
    def _estimate(self, windows: Iterable[Window]) -> Iterator[Window]:
        """Run the networks on batches of windows `(C, M)`; yield windows `(S, C, length)`."""
        for _, alike in groupby(windows, key=lambda window: window.length):
            while batch := list(islice(alike, self.batch_size)):
                yield from self._run(batch)

    def _run(self, batch: list[Window]) -> Iterator[Window]:
        """Run the networks on a batch, or on smaller ones if the memory of the device does not suffice."""
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
            # Not in the except clause: the error keeps the tensors of its frames alive.
            self.batch_size = (len(rest) + 1) // 2
            if self._device == "cuda":
                torch.cuda.empty_cache()
            if not self.warnings:
                message = f"the {self._device} device has too little free memory for {len(rest)} windows at a time"
                self.warnings.append(f"{message}; using smaller batches from now on")

    def _run_networks(self, batch: list[Window]) -> Tensor:
        """Run each network on windows of one length, and add up the stems `(B, S, C, length)` by its gains."""
        header, length = self.ensemble.header, batch[0].length
        total = torch.zeros(len(batch), len(header.stems), header.channels, length)
        for member in self.ensemble.members:
            signals.check()
            mix = torch.stack([window.center_crop(member.input_length(length)) for window in batch]).to(self._device)
            with self._low_precision():
                estimate = member.ready(wiener=self._options.wiener)(mix)
            inner = Window(estimate, length).center_crop(length).float().cpu()
            for stem, output, gain in member.gains:
                total[:, stem].add_(inner[:, output], alpha=gain)
        return total

    def _low_precision(self) -> torch.autocast | nullcontext[None]:
        if self._options.precision == "full":
            return nullcontext()
        return torch.autocast(self._device, torch.bfloat16 if self._device == "cpu" else torch.float16)
