"""The flow: a stream of a mixture -> a stream of its stems."""

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain, groupby, islice, tee
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stemsplit import devices
from stemsplit.audio.decoding import Block, Stems
from stemsplit.audio.formats import Format
from stemsplit.audio.reading import Reader, match_channels, open_reader
from stemsplit.audio.resampling import resample
from stemsplit.dsp.overlap_add import Window, WindowPlan, cut, overlap_add
from stemsplit.errors import UsageError
from stemsplit.models import hub, loading
from stemsplit.models.checkpoint import Model
from stemsplit.models.ensemble import Ensemble, ensemble_of, load_ensemble
from stemsplit.models.registry import ModelSpec
from stemsplit.separation.outputs import STEM_FILE, Delivery
from stemsplit.separation.render import OnProgress, Report, write_stems
from stemsplit.separation.streams import as_the_input, blocks_of, check_array, join, mean

LARGEST_SHIFT_SECONDS = 0.5
BATCH_SECONDS = 32  # of windows that a GPU is given at once, if nobody says how many
MOST_OVERLAP = 0.95
PRECISIONS = ("full", "half")


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
        model: Model | Ensemble,
        *,
        device: str = "cpu",
        batch_size: int | None = None,
        precision: str = "full",
        overlap: float | None = None,
        shifts: int = 0,
        seed: int = 0,
        wiener: int = 0,
    ) -> None:
        self.ensemble = model if isinstance(model, Ensemble) else ensemble_of(model)
        self.device, self.precision = device, precision
        header = self.ensemble.header
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
        self.ensemble.check_wiener(wiener)
        self.wiener = wiener
        self.batch_size = batch_size
        self.plan = (
            header.plan if overlap is None else WindowPlan(header.length, int((1 - overlap) * header.length) or 1)
        )
        latest = int(LARGEST_SHIFT_SECONDS * header.rate)
        rng = random.Random(seed)
        self.shift_offsets = tuple(rng.randint(0, latest) for _ in range(shifts)) or (0,)
        self.warnings: list[str] = []

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        stems: Sequence[str] = (),
        device: str = "auto",
        batch_size: int | None = None,
        precision: str = "full",
        overlap: float | None = None,
        shifts: int = 0,
        wiener: int = 0,
        seed: int = 0,
        registry: Path | None = None,
        on_download: Callable[[ModelSpec, int | None], None] = lambda spec, size: None,
        on_progress: hub.Progress = lambda done, total: None,
    ) -> "Separator":
        """Load a model by its name; its weights are fetched from the Hub, and checked, unless they are here.

        Args:
            model: a name of the list, `hf://OWNER/NAME[@REVISION]` or a file of weights; by default the one that the
                list says. None is ever replaced by another.
            stems: those that are wanted; all by default. What only others need is neither fetched nor loaded.
            device: "cpu", "cuda", "mps", or "auto" for the fastest there is.
            registry: a models.toml that adds to ours and to that of the user's configuration folder.
            on_download: called once before anything is fetched, with the size in bytes if it is known.
            on_progress: called with the bytes that are here and those that there will be.

        The others are those of the class. Raises ModelError when there is no such model or it cannot be run,
        UnreachableError when it is neither here nor to be had, UsageError for a stem that it does not have or an option
        out of range, and DeviceError when there is no such device.
        """
        chosen = devices.choose(device)
        spec = loading.find(loading.read_registry(registry), os.fspath(model) if model else None, stems)
        fetch = partial(hub.obtain, on_download=on_download, on_progress=on_progress)
        obtained = loading.obtain(spec, stems, fetch)
        spec = obtained.spec
        ensemble = load_ensemble(obtained.paths, obtained.gives, config=spec.config, stems=spec.stems, device=chosen)
        return cls(
            ensemble,
            device=chosen,
            batch_size=batch_size,
            precision=precision,
            overlap=overlap,
            shifts=shifts,
            wiener=wiener,
            seed=seed,
        )

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the stems, in the order in which `separate` gives them."""
        return self.ensemble.header.stems

    @property
    def rate(self) -> int:
        """Hz, of what `separate` gives."""
        return self.ensemble.header.rate

    def separate(self, blocks: Iterable[Block], rate: int) -> Iterator[Stems]:
        """Blocks `(C, n)` of a mixture at `rate` Hz -> blocks `(S, C, n)` of its stems at the rate of the model.

        Together they are as long as the resampled mixture. Memory does not depend on its length.
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
        """Separate a song that is in memory: `(C, N)`, mono or stereo, floats nominally in [-1, 1], at `rate` Hz.

        Gives the stems by name, each `(C, N)` float32 at the same rate. The mixture stays as it is.

        Args:
            on_progress: called with the samples done so far, and N.

        Raises UsageError when the array is not of this kind.
        """
        samples = check_array(mixture, rate)
        channels, length = samples.shape
        stems = self.separate(blocks_of(samples), rate)
        fitting = as_the_input(stems, len(self.stems), self.ensemble.header, rate, channels)
        whole = join(fitting, (len(self.stems), channels, length), on_progress)
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
        """Separate one file. The stems keep its length, rate, alignment and channels (more than two are folded to two).

        Args:
            track: any audio file.
            outputs: where each stem goes, by name; the folders are made. Besides the stems of the model there are
                `mixture`, `no_vocals` and the like, which is the mixture without a stem, and `stem_file`, which is all
                of them in one file.
            delivery: how they are written; by default in the format that the outputs' names end in.
            overwrite: replace files that exist.
            on_progress: called with the samples done so far and the file's own estimate of its length, if it has one.

        Raises AudioError when the file cannot be read or a stem not be written; then none of the outputs is there.
        UsageError when the outputs, or they and `delivery`, do not go together.
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
        """The same for a file that is open already, of which nothing has been read."""
        paths = {stem: Path(path) for stem, path in outputs.items()}
        delivery = delivery or Delivery(Format.of(path for stem, path in paths.items() if stem != STEM_FILE))
        if delivery.consistent and not self.ensemble.complete:
            raise UsageError("only all stems of a model can be made to add up", "leave out --consistent, or --stems")
        consistent = delivery.consistent
        if consistent is None:  # else what the model cannot hear, as it is too high, would be in all stems alike
            consistent = self.ensemble.masks_sum_to_one and (delivery.rate or reader.rate) <= self.rate
        told = len(self.warnings)
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
        return replace(report, warnings=(*report.warnings, *self.warnings[told:]))

    def _separate_once(self, blocks: Iterable[Tensor], lead: int) -> Iterator[Tensor]:
        """`(C, n)` -> `(S, C, n)`, with `lead` zeros before the stream that are taken away again."""
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
        header, length = self.ensemble.header, batch[0].length
        total = torch.zeros(len(batch), len(header.stems), header.channels, length)
        for member in self.ensemble.members:
            mix = torch.stack([window.center_crop(member.input_length(length)) for window in batch]).to(self.device)
            with self._low_precision():
                estimate = member.ready(wiener=self.wiener)(mix)
            inner = Window(estimate, length).center_crop(length).float().cpu()
            for stem, row, share in member.shares:
                total[:, stem].add_(inner[:, row], alpha=share)
        return total

    def _low_precision(self) -> torch.autocast | nullcontext[None]:
        if self.precision == "full":
            return nullcontext()
        return torch.autocast(self.device, torch.bfloat16 if self.device == "cpu" else torch.float16)
