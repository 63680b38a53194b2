"""`Separator`, the entry to separation: a loaded model that separates streams, arrays and files.

What it does with a stream is in `runner` (one model) and `chain` (several in a row); how files are written, in
`render`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stemsplit import devices
from stemsplit.audio.decoding import Block, Stems
from stemsplit.audio.formats import Format
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.audio.resampling import resample
from stemsplit.dsp.level import Level
from stemsplit.errors import UsageError
from stemsplit.models import hub
from stemsplit.models.checkpoint import Model
from stemsplit.models.ensemble import Chain, Ensemble, Mean, chain_of, load_model
from stemsplit.models.registry import check_masks, read_registry
from stemsplit.separation.chain import run_chain
from stemsplit.separation.options import SeparationOptions, check_rate
from stemsplit.separation.outputs import STEM_FILE, Delivery, Report
from stemsplit.separation.render import OnProgress, write_stems
from stemsplit.separation.runner import runner_of
from stemsplit.separation.streams import blocks_of, check_array, join, match_input


class Separator:
    """A model that is ready to separate any number of songs.

    Attributes:
        chain: The models, most often one.
        runners: Run the networks: of the first step of the chain, then of the next.
        device: "cpu", "cuda" or "mps", where they are.
        options: How to separate; its precision is the one that was chosen for the device, "full" or "half".
        warnings: Sentences about problems that did not stop the separation, in the order in which they occurred.
    """

    def __init__(
        self, model: Model | Ensemble | Mean | Chain, options: SeparationOptions | None = None, *, device: str = "cpu"
    ) -> None:
        """Make a separator of a loaded model.

        Args:
            model: One network, several that make a model together, a mean of models, or a chain of models.
            options: How to separate; by default as the model's author intended.
            device: "cpu", "cuda" or "mps", where the model is.

        Raises:
            UsageError: Wiener filtering is requested of a model that does not estimate masks.
        """
        self.chain = chain_of(model)
        options = options or SeparationOptions()
        if options.precision == "auto":
            options = replace(options, precision=devices.choose_precision(device))
        self.options = options
        self.device = device
        self.chain.check_wiener(self.options.wiener)
        self.warnings: list[str] = []
        self._steps = [
            runner_of(step.ensemble, self.options, device=device, warnings=self.warnings) for step in self.chain.steps
        ]
        self.runners = [runner for step in self._steps for runner in step.runners]

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        options: SeparationOptions | None = None,
        *,
        stems: Sequence[str] = (),
        device: str = "auto",
        registry: Path | None = None,
        accept_license: bool = False,
        on_download: hub.OnDownload = lambda spec, size: None,
        on_progress: hub.OnProgress = lambda done, total: None,
    ) -> "Separator":
        """Load a model by name; weights that are not in the cache are downloaded from the Hub and verified.

        Args:
            model: A name from models.toml, `hf://OWNER/NAME[@REVISION]` or the path of a weights file; the default
                model of models.toml if None. It is never replaced by another.
            options: How to separate; by default as the model's author intended.
            stems: The requested stems; all by default. Weights that only other stems need are not downloaded.
            device: "cpu", "cuda", "mps", or "auto" for the fastest that is available.
            registry: A models.toml that adds to the bundled one and to the one in the user's configuration folder.
            accept_license: Accept the licence of a model that asks for it before its first download.
            on_download: Called once before a download, with its size in bytes or None if that is unknown.
            on_progress: Called with the bytes downloaded so far and their total, or None if that is unknown.

        Raises:
            ModelError: The model is unknown, or it cannot be run.
            UnreachableError: The model is not downloaded, and the Hub cannot be reached.
            UsageError: The model has no such stem, or does not estimate masks, as Wiener filtering requires.
            DeviceError: The device is not available.
        """
        options = options or SeparationOptions()
        chosen = devices.choose(device)
        spec = read_registry(registry).find(os.fspath(model) if model else None, stems)
        if options.wiener:
            check_masks(spec)
        local_model = hub.download(
            spec, stems, accept_license=lambda spec: accept_license, on_download=on_download, on_progress=on_progress
        )
        return cls(load_model(local_model, device=chosen), options, device=chosen)

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the stems, in the order in which `separate` yields them."""
        return self.chain.header.stems

    @property
    def rate(self) -> int:
        """The sample rate of what `separate` yields, in Hz."""
        return self.chain.header.rate

    def measure(self, blocks: Iterable[Block], rate: int) -> Level | None:
        """Measure the level of a song that `separate` needs to do exactly what the model's author does.

        Args:
            blocks: The whole song, in blocks `(C, n)` of any sizes, mono or stereo.
            rate: Of the song, Hz.

        Returns:
            The level at the rate of the model; None, without reading any of the blocks, for models that take songs as
            they are.
        """
        if not self.chain.steps[0].ensemble.standardized:
            return None
        mono = (block.mean(axis=0, keepdims=True, dtype=np.float32) for block in blocks)
        return Level.of(resample(mono, rate, self.rate, channels=1))

    def separate(self, blocks: Iterable[Block], rate: int, *, level: Level | None = None) -> Iterator[Stems]:
        """Separate a stream. Memory does not depend on its length.

        The stems are as the networks give them, and do not add up to the mixture exactly.

        Args:
            blocks: The mixture, in blocks `(C, n)` of any sizes, mono or stereo.
            rate: Of the mixture, Hz.
            level: Of the whole mixture, from `measure`. Some models (those of Demucs) expect songs of zero mean and
                unit deviation. Without a level, as of a live stream, each window is standardized by the level of the
                stream up to its end, which is not quite what their author does.

        Yields:
            Blocks `(S, C, n)` of the stems, with the rate and channels of the model; together they are as long as the
            resampled mixture.

        Raises:
            UsageError: The rate is not a whole number of Hz.
        """
        check_rate(rate)
        yield from run_chain(self.chain, self._steps, blocks, rate, level)

    def separate_array(
        self,
        mixture: npt.ArrayLike,
        rate: int,
        *,
        consistent: bool | None = None,
        on_progress: OnProgress = lambda done, total: None,
    ) -> dict[str, Block]:
        """Separate a song in memory.

        Args:
            mixture: `(C, N)`, mono or stereo, floats nominally in [-1, 1]; it is not changed.
            rate: Of the mixture, Hz.
            consistent: Make the stems add up to the mixture, by spreading the difference over them; None does so unless
                only some of the model's stems were loaded.
            on_progress: Called with the samples done so far, and N.

        Returns:
            The stems by name, each `(C, N)` float32 at the same rate.

        Raises:
            UsageError: The array has another shape or type, or only some stems of a model should add up.
        """
        consistent = self._check_consistent(consistent, self.stems)
        samples = check_array(mixture, rate)
        channels, length = samples.shape
        level = self.measure(blocks_of(samples), rate)
        stems = self.separate(blocks_of(samples), rate, level=level)
        matched = match_input(stems, len(self.stems), self.chain.header, rate, channels)
        joined = join(matched, (len(self.stems), channels, length), on_progress)
        if consistent:
            missing = samples - joined.sum(0)
            if self.chain.remainder:
                joined[self.stems.index(self.chain.remainder)] += missing
            else:
                joined += missing / len(joined)
        return dict(zip(self.stems, joined, strict=True))

    def separate_file(
        self,
        track: str | os.PathLike[str],
        outputs: Mapping[str, str | os.PathLike[str]],
        *,
        delivery: Delivery | None = None,
        overwrite: bool = False,
        on_progress: OnProgress = lambda done, total: None,
    ) -> Report:
        """Separate a file. The stems keep its length, rate, alignment and channels; surround is downmixed to stereo.

        Args:
            track: The song, in any audio format.
            outputs: The file of each stem, by name; missing folders are created. Besides the stems of the model there
                are `mixture`, `no_vocals` and the like for the mixture without a stem, and `stem_file` for all stems in
                one file.
            delivery: How they are written; by default in the format of the extensions in `outputs`.
            overwrite: Replace files that exist.
            on_progress: Called with the samples done so far, and with the length that the header states, or None.

        Returns:
            What was written.

        Raises:
            AudioError: The file cannot be read, or a stem not be written; then none of the outputs exists.
            UsageError: The outputs contradict each other, the model, or `delivery`.
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
        """Separate an open file of which nothing has been read yet.

        Args:
            reader: The song.
            outputs: The file of each stem, by name, as for `separate_file`.
            delivery: How they are written, as for `separate_file`.
            overwrite: Replace files that exist.
            on_progress: Called with the samples done so far, and with the length that the header states, or None.

        Returns:
            What was written.

        Raises:
            AudioError: The file cannot be read, or a stem not be written; then none of the outputs exists.
            UsageError: The outputs contradict each other, the model, or `delivery`.
        """
        paths = {stem: Path(path) for stem, path in outputs.items()}
        delivery = delivery or Delivery(Format.of(path for stem, path in paths.items() if stem != STEM_FILE))
        known_warnings = len(self.warnings)

        def separate(blocks: Iterable[Block], rate: int) -> Iterator[Stems]:
            # A first pass over the song, if the model needs one, once it is known that the stems can be written.
            yield from self.separate(blocks, rate, level=self._measure_song(reader, on_progress))

        report = write_stems(
            reader,
            separate,
            self.chain.header,
            paths,
            delivery,
            consistent=self._check_consistent(delivery.consistent, paths),
            remainder=self.chain.remainder,
            overwrite=overwrite,
            on_progress=on_progress,
        )
        warnings = (*report.warnings, *self.warnings[known_warnings:])
        return replace(report, warnings=warnings, precision=self.options.precision)

    def _check_consistent(self, wanted: bool | None, names: Iterable[str]) -> bool:
        """Return whether stems are made to add up: by default if all those of the model are among `names`."""
        if wanted and not self.chain.complete:
            raise UsageError("only all stems of a model can be made to add up", "leave out --consistent, or --stems")
        return self.chain.complete and set(self.stems) <= set(names) if wanted is None else wanted

    def _measure_song(self, reader: Reader, on_progress: OnProgress) -> Level | None:
        """Measure a song by reading it once more, from its start to its end, if the model needs it."""
        if not self.chain.steps[0].ensemble.standardized:
            return None
        with reader.reopen() as first_pass:

            def blocks() -> Iterator[Block]:
                for block in first_pass.blocks():
                    on_progress(0, reader.length)
                    yield block

            return self.measure(blocks(), first_pass.rate)
