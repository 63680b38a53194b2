"""Running one model on a stream: it is cut into windows, which the networks separate, and cross-faded again."""

import logging
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain, groupby, islice, tee

import numpy as np
import torch
from torch import Tensor

from stemsplit import signals
from stemsplit.audio.channels import match_channels
from stemsplit.audio.decoding import Block, Stems
from stemsplit.audio.resampling import resample
from stemsplit.dsp.level import Level, LevelMeter
from stemsplit.dsp.overlap_add import Window, WindowPlan, cut, overlap_add
from stemsplit.models.ensemble import Ensemble, Mean
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.streams import aligned, mean

_log = logging.getLogger(__name__)

MAX_SHIFT_SECONDS = 0.5
BATCH_SECONDS = 32  # of windows that a GPU gets at a time by default


class EnsembleRunner:
    """Runs the networks of a model on streams.

    Attributes:
        ensemble: The networks.
        batch_size: Windows at a time; it is halved when the device runs out of memory.
        plan: The windows that a song is cut into.
        shift_offsets: Samples by which the song is delayed, one for each separation that is averaged.
        warnings: Sentences about problems that did not stop the separation, in the order in which they occurred; the
            runners of a chain share the list.
    """

    def __init__(
        self, ensemble: Ensemble, options: SeparationOptions, *, device: str, warnings: list[str] | None = None
    ) -> None:
        self.ensemble = ensemble
        self._options, self._device = options, device
        header = self.ensemble.header
        default_batch_size = 1 if device == "cpu" else max(1, round(BATCH_SECONDS * header.rate / header.length))
        self.batch_size = options.batch_size or default_batch_size
        self.plan = header.plan
        if options.overlap is not None:
            self.plan = WindowPlan(header.length, int((1 - options.overlap) * header.length) or 1)
        max_shift = int(MAX_SHIFT_SECONDS * header.rate)
        rng = random.Random(options.seed)
        self.shift_offsets = tuple(rng.randint(0, max_shift) for _ in range(options.shifts)) or (0,)
        self.warnings: list[str] = [] if warnings is None else warnings
        self._has_warned = False
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

    @property
    def runners(self) -> "list[EnsembleRunner]":
        """Itself: a single model has one runner."""
        return [self]

    def separate(self, blocks: Iterable[Block], rate: int, level: Level | None = None) -> Iterator[Stems]:
        """Separate a stream. Memory does not depend on its length.

        Args:
            blocks: The mixture, in blocks `(C, n)` of any sizes, mono or stereo.
            rate: Of the mixture, Hz.
            level: Of the whole mixture, for networks that expect it standardized; None to standardize each window by
                the level up to its end.

        Yields:
            Blocks `(S, C, n)` of the stems, with the rate and channels of the networks; together they are as long as
            the resampled mixture.
        """
        header = self.ensemble.header
        # Writable and contiguous, as torch.from_numpy requires.
        blocks = (np.require(block, np.float32, ["C", "W"]) for block in blocks)
        blocks = match_channels(blocks, header.channels)
        blocks = resample(blocks, rate, header.rate, channels=header.channels)
        if level and self.ensemble.standardized:
            blocks = map(level.standardize, blocks)
        copies = tee(map(torch.from_numpy, blocks), len(self.shift_offsets))
        delays = zip(copies, self.shift_offsets, strict=True)
        as_it_comes = self.ensemble.standardized and not level
        delayed_separations = [self._separate_once(copy, delay, as_it_comes) for copy, delay in delays]
        for stems in mean(delayed_separations):
            estimate = stems.numpy()
            yield level.restore(estimate) if level and self.ensemble.standardized else estimate

    def _separate_once(self, blocks: Iterable[Tensor], delay: int, as_it_comes: bool) -> Iterator[Tensor]:
        """Separate blocks `(C, n)`, delayed by `delay` samples, into `(S, C, n)` without the delay."""
        channels = self.ensemble.header.channels
        delayed = chain([torch.zeros(channels, delay)], blocks) if delay else blocks
        windows = cut(delayed, self.plan, channels=channels, input_length=self.ensemble.input_length)
        to_skip = delay
        estimates = self._estimate_standardized(windows, delay) if as_it_comes else self._estimate(windows)
        for stems in overlap_add(estimates, self.plan):
            skipped = min(to_skip, stems.shape[-1])
            to_skip -= skipped
            if skipped < stems.shape[-1]:
                yield stems[..., skipped:]

    def _estimate_standardized(self, windows: Iterable[Window], delay: int) -> Iterator[Window]:
        """Run the networks on windows, each of which is standardized by the level of the stream up to its end."""
        levels: deque[Level] = deque()

        def standardized() -> Iterator[Window]:
            meter, start, measured = LevelMeter(), 0, delay  # in samples of the delayed stream
            for window in windows:
                end = start + window.length
                meter.add(window.center_crop(window.length)[..., max(0, measured - start) :].numpy())
                measured = max(measured, end)
                levels.append(meter.level)
                samples = levels[-1].standardize(window.samples)
                # Beyond the ends of the stream there is silence, not its offset.
                before = (samples.shape[-1] - window.length) // 2
                samples[..., : max(0, before + delay - start)] = 0
                if window.length < self.plan.length:
                    samples[..., before + window.length :] = 0
                start += self.plan.hop
                yield Window(samples, window.length)

        for stems, length in self._estimate(standardized()):
            yield Window(levels.popleft().restore(stems), length)

    @torch.inference_mode()
    def _estimate(self, windows: Iterable[Window]) -> Iterator[Window]:
        """Run the networks on batches of windows `(C, M)`; yield windows `(S, C, length)`."""
        for _, same_length in groupby(windows, key=lambda window: window.length):
            while batch := list(islice(same_length, self.batch_size)):
                yield from self._run(batch)

    def _run(self, batch: list[Window]) -> Iterator[Window]:
        """Run the networks on a batch, or on smaller ones if the device runs out of memory."""
        done = 0
        while remaining := batch[done : done + self.batch_size]:
            try:
                stems = self._run_networks(remaining)
            except torch.OutOfMemoryError:
                if len(remaining) == 1:
                    raise
            else:
                yield from (Window(estimate, remaining[0].length) for estimate in stems)
                done += len(remaining)
                continue
            # Not in the except clause: the error keeps the tensors of its frames alive.
            self.batch_size = (len(remaining) + 1) // 2
            if self._device == "cuda":
                torch.cuda.empty_cache()
            if not self._has_warned:
                self._has_warned = True
                count = len(remaining)
                message = f"the {self._device} device has too little free memory for {count} windows at a time"
                self.warnings.append(f"{message}; using smaller batches from now on")

    def _run_networks(self, batch: list[Window]) -> Tensor:
        """Run each network on windows of one length, and add up the stems `(B, S, C, length)` by its gains."""
        header, length = self.ensemble.header, batch[0].length
        total = torch.zeros(len(batch), len(header.stems), header.channels, length)
        for member in self.ensemble.members:
            signals.check()
            mix = torch.stack([window.center_crop(member.input_length(length)) for window in batch]).to(self._device)
            with self._low_precision():
                estimate = member.prepare(wiener=self._options.wiener)(mix)
            cropped = Window(estimate, length).center_crop(length).float().cpu()
            for stem, output, gain in member.contributions:
                total[:, stem].add_(cropped[:, output], alpha=gain)
        return total

    def _low_precision(self) -> torch.autocast | nullcontext[None]:
        if self._options.precision == "full":
            return nullcontext()
        return torch.autocast(self._device, torch.bfloat16 if self._device == "cpu" else torch.float16)


class MeanRunner:
    """Runs a mean of models on streams.

    Attributes:
        ensemble: The models.
        runners: Of each of them.
    """

    def __init__(
        self, ensemble: Mean, options: SeparationOptions, *, device: str, warnings: list[str] | None = None
    ) -> None:
        self.ensemble = ensemble
        self.runners = [EnsembleRunner(each, options, device=device, warnings=warnings) for each in ensemble.ensembles]
        stems = ensemble.header.stems
        weights = np.zeros((len(self.runners), len(stems)), np.float32)
        for row, each, weight in zip(weights, ensemble.ensembles, ensemble.weights, strict=True):
            row[[stems.index(stem) for stem in each.header.stems]] = weight
        self._weights = weights / weights.sum(0)

    def separate(self, blocks: Iterable[Block], rate: int, level: Level | None = None) -> Iterator[Stems]:
        """Separate a stream, as `EnsembleRunner.separate` does; memory grows with the longest window only."""
        copies = tee(blocks, len(self.runners))
        streams = [runner.separate(copy, rate, level) for runner, copy in zip(self.runners, copies, strict=True)]
        for estimates in aligned(streams):
            yield self._mean(estimates)

    def _mean(self, estimates: Sequence[Stems]) -> Stems:
        stems = self.ensemble.header.stems
        total = np.zeros((len(stems), *estimates[0].shape[1:]), np.float32)
        for estimate, each, weights in zip(estimates, self.ensemble.ensembles, self._weights, strict=True):
            for signal, stem in zip(estimate, each.header.stems, strict=True):
                total[stems.index(stem)] += weights[stems.index(stem)] * signal
        return total


def runner_of(
    model: Ensemble | Mean, options: SeparationOptions, *, device: str, warnings: list[str] | None = None
) -> EnsembleRunner | MeanRunner:
    """Make the runner of a model that is not a chain; it adds to `warnings`."""
    if isinstance(model, Mean):
        return MeanRunner(model, options, device=device, warnings=warnings)
    return EnsembleRunner(model, options, device=device, warnings=warnings)
