"""The flow: from a stream of a mixture to streams of its stems."""

import logging
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain, groupby, islice, tee
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stemsplit import devices, signals
from stemsplit.audio.decoding import Block, Stems
from stemsplit.audio.formats import Format
from stemsplit.audio.reading import Reader, match_channels, open_reader
from stemsplit.audio.resampling import resample
from stemsplit.dsp.overlap_add import Window, WindowPlan, cut, overlap_add
from stemsplit.errors import UsageError
from stemsplit.models import hub
from stemsplit.models.checkpoint import Model
from stemsplit.models.ensemble import Ensemble, ensemble_of, load_ensemble
from stemsplit.models.registry import check_masks, read_registry
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.outputs import STEM_FILE, Delivery
from stemsplit.separation.render import OnProgress, Report, write_stems
from stemsplit.separation.streams import blocks_of, check_array, join, match_input, mean

_log = logging.getLogger(__name__)

MAX_SHIFT_SECONDS = 0.5
BATCH_SECONDS = 32  # of windows that a GPU gets at a time by default


class Separator:
    """A model that is ready to separate any number of songs.

    Attributes:
        ensemble: the networks.
        device: "cpu", "cuda" or "mps", where they are.
        options: how it separates.
        batch_size: windows at a time; it shrinks when the device's memory is too small.
        plan: the windows that a song is cut into.
        shift_offsets: samples by which the song is delayed, one for each separation that is averaged.
        warnings: sentences about what went wrong, but did not keep it from separating.
    """

    def __init__(
        self, model: Model | Ensemble, options: SeparationOptions | None = None, *, device: str = "cpu"
    ) -> None:
        """Make a separator of a loaded model.

        Args:
            model: one network, or several that make a model together.
            options: how it separates; by default as the model's author intended.
            device: "cpu", "cuda" or "mps", where the model is.

        Raises:
            UsageError: Wiener filtering is requested of a model that estimates no masks.
        """
        self.ensemble = model if isinstance(model, Ensemble) else ensemble_of(model)
        self.options = options = options or SeparationOptions()
        self.device = device
        self.ensemble.check_wiener(options.wiener)
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

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        options: SeparationOptions | None = None,
        *,
        stems: Sequence[str] = (),
        device: str = "auto",
        registry: Path | None = None,
        on_download: hub.OnDownload = lambda spec, size: None,
        on_progress: hub.OnProgress = lambda done, total: None,
    ) -> "Separator":
        """Load a model by name; weights that are not in the cache are downloaded from the Hub and verified.

        Args:
            model: a name from models.toml, `hf://OWNER/NAME[@REVISION]` or the path of a weights file; the default
                model of models.toml if None. It is never replaced by another.
            options: how to separate; by default as the model's author intended.
            stems: the wanted stems; all by default. Weights that only other stems need are not downloaded.
            device: "cpu", "cuda", "mps", or "auto" for the fastest that is available.
            registry: a models.toml that adds to ours and to the one in the user's configuration folder.
            on_download: called once before a download, with its size in bytes or None if that is unknown.
            on_progress: called with the bytes downloaded so far and their total, or None if that is unknown.

        Raises:
            ModelError: there is no such model, or it cannot be run.
            UnreachableError: the model is not downloaded, and the Hub cannot be reached.
            UsageError: the model has no such stem, or estimates no masks for Wiener filtering.
            DeviceError: the device is not available.
        """
        options = options or SeparationOptions()
        chosen = devices.choose(device)
        spec = read_registry(registry).find(os.fspath(model) if model else None, stems)
        if options.wiener:
            check_masks(spec)
        local = hub.download(spec, stems, on_download=on_download, on_progress=on_progress)
        return cls(load_ensemble(local, device=chosen), options, device=chosen)

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the stems, in the order in which `separate` yields them."""
        return self.ensemble.header.stems

    @property
    def rate(self) -> int:
        """The sample rate of what `separate` yields, in Hz."""
        return self.ensemble.header.rate

    def separate(self, blocks: Iterable[Block], rate: int) -> Iterator[Stems]:
        """Separate a stream. Memory does not depend on its length.

        Args:
            blocks: the mixture, in blocks `(C, n)` of any sizes, mono or stereo.
            rate: of the mixture, Hz.

        Yields:
            Blocks `(S, C, n)` of the stems, with the rate and channels of the model; together they are as long as the
            resampled mixture.
        """
        header = self.ensemble.header
        blocks = (np.require(block, np.float32, ["C", "W"]) for block in blocks)  # as torch wants them
        blocks = match_channels(blocks, header.channels)
        blocks = resample(blocks, rate, header.rate, channels=header.channels)
        copies = tee(map(torch.from_numpy, blocks), len(self.shift_offsets))
        passes = [self._separate_once(copy, lead) for copy, lead in zip(copies, self.shift_offsets, strict=True)]
        for stems in mean(passes):
            yield stems.numpy()

    def separate_array(
        self,
        mixture: npt.ArrayLike,
        rate: int,
        *,
        on_progress: OnProgress = lambda done, total: None,
    ) -> dict[str, Block]:
        """Separate a song in memory.

        Args:
            mixture: `(C, N)`, mono or stereo, floats nominally in [-1, 1]; it is not changed.
            rate: of the mixture, Hz.
            on_progress: called with the samples done so far, and N.

        Returns:
            The stems by name, each `(C, N)` float32 at the same rate.

        Raises:
            UsageError: the array has another shape or type.
        """
        samples = check_array(mixture, rate)
        channels, length = samples.shape
        stems = self.separate(blocks_of(samples), rate)
        matched = match_input(stems, len(self.stems), self.ensemble.header, rate, channels)
        whole = join(matched, (len(self.stems), channels, length), on_progress)
        return dict(zip(self.stems, whole, strict=True))

    def separate_file(
        self,
        track: str | os.PathLike[str],
        outputs: Mapping[str, str | os.PathLike[str]],
        *,
        delivery: Delivery | None = None,
        overwrite: bool = False,
        on_progress: OnProgress = lambda done, total: None,
    ) -> Report:
        """Separate a file. The stems keep its length, rate, alignment and channels; surround is folded down to stereo.

        Args:
            track: the song, in any audio format.
            outputs: the file of each stem, by name; missing folders are made. Besides the stems of the model there are
                `mixture`, `no_vocals` and the like for the mixture without a stem, and `stem_file` for all stems in one
                file.
            delivery: how they are written; by default in the format that the extensions of `outputs` say.
            overwrite: replace files that exist.
            on_progress: called with the samples done so far, and with the length that the header states, or None.

        Returns:
            What was written.

        Raises:
            AudioError: the file cannot be read, or a stem not be written; then none of the outputs exists.
            UsageError: the outputs contradict each other, the model, or `delivery`.
        """
        with open_reader(Path(track)) as reader:
            return self.separate_song(reader, outputs, delivery=delivery, overwrite=overwrite, on_progress=on_progress)

    def separate_song(
        self,
        reader: Reader,
        outputs: Mapping[str, str | os.PathLike[str]],
        *,
        delivery: Delivery | None = None,
        overwrite: bool = False,
        on_progress: OnProgress = lambda done, total: None,
    ) -> Report:
        """Separate a file that is open, but of which nothing has been read yet.

        Args:
            reader: the song.
            outputs: the file of each stem, by name, as for `separate_file`.
            delivery: how they are written, as for `separate_file`.
            overwrite: replace files that exist.
            on_progress: called with the samples done so far, and with the length that the header states, or None.

        Returns:
            What was written.

        Raises:
            AudioError: the file cannot be read, or a stem not be written; then none of the outputs exists.
            UsageError: the outputs contradict each other, the model, or `delivery`.
        """
        paths = {stem: Path(path) for stem, path in outputs.items()}
        delivery = delivery or Delivery(Format.of(path for stem, path in paths.items() if stem != STEM_FILE))
        if delivery.consistent and not self.ensemble.complete:
            raise UsageError("only all stems of a model can be made to add up", "leave out --consistent, or --stems")
        consistent = delivery.consistent
        if consistent is None:  # above the model's rate, all stems would get an equal part of what it cannot separate
            consistent = self.ensemble.masks_sum_to_one and delivery.rate_for(reader.rate, self.rate) <= self.rate
        known_warnings = len(self.warnings)
        report = write_stems(
            reader,
            self.separate,
            self.ensemble.header,
            paths,
            delivery,
            consistent=consistent,
            overwrite=overwrite,
            on_progress=on_progress,
        )
        return replace(report, warnings=(*report.warnings, *self.warnings[known_warnings:]))

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
            if self.device == "cuda":
                torch.cuda.empty_cache()
            if not self.warnings:
                message = f"the {self.device} device has too little free memory for {len(rest)} windows at a time"
                self.warnings.append(f"{message}; using smaller batches from now on")

    def _run_networks(self, batch: list[Window]) -> Tensor:
        """Run each network on windows of one length, and add up the stems `(B, S, C, length)` by its gains."""
        header, length = self.ensemble.header, batch[0].length
        total = torch.zeros(len(batch), len(header.stems), header.channels, length)
        for member in self.ensemble.members:
            signals.check()
            mix = torch.stack([window.center_crop(member.input_length(length)) for window in batch]).to(self.device)
            with self._low_precision():
                estimate = member.ready(wiener=self.options.wiener)(mix)
            inner = Window(estimate, length).center_crop(length).float().cpu()
            for stem, output, gain in member.gains:
                total[:, stem].add_(inner[:, output], alpha=gain)
        return total

    def _low_precision(self) -> torch.autocast | nullcontext[None]:
        if self.options.precision == "full":
            return nullcontext()
        return torch.autocast(self.device, torch.bfloat16 if self.device == "cpu" else torch.float16)
