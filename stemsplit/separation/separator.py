"""The flow: from a stream of a mixture to streams of its stems."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy.typing as npt

from stemsplit import devices
from stemsplit.audio.decoding import Block, Stems
from stemsplit.audio.formats import Format
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.errors import UsageError
from stemsplit.models import hub
from stemsplit.models.checkpoint import Model
from stemsplit.models.ensemble import Chain, Ensemble, chain_of, load_model
from stemsplit.models.registry import check_masks, read_registry
from stemsplit.separation.chain import run_chain
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.outputs import STEM_FILE, Delivery
from stemsplit.separation.render import OnProgress, Report, write_stems
from stemsplit.separation.runner import EnsembleRunner
from stemsplit.separation.streams import blocks_of, check_array, join, match_input


class Separator:
    """A model that is ready to separate any number of songs.

    Attributes:
        chain: the models, most often one.
        runners: run the networks of each step of the chain.
        device: "cpu", "cuda" or "mps", where they are.
        options: how it separates.
    """

    def __init__(
        self, model: Model | Ensemble | Chain, options: SeparationOptions | None = None, *, device: str = "cpu"
    ) -> None:
        """Make a separator of a loaded model.

        Args:
            model: one network, several that make a model together, or a chain of models.
            options: how it separates; by default as the model's author intended.
            device: "cpu", "cuda" or "mps", where the model is.

        Raises:
            UsageError: Wiener filtering is requested of a model that estimates no masks.
        """
        self.chain = chain_of(model)
        self.options = options or SeparationOptions()
        self.device = device
        self.chain.check_wiener(self.options.wiener)
        self.runners = [EnsembleRunner(step.ensemble, self.options, device=device) for step in self.chain.steps]

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
        return cls(load_model(local, device=chosen), options, device=chosen)

    @property
    def warnings(self) -> list[str]:
        """Sentences about what went wrong, but did not keep the models from separating."""
        return [warning for runner in self.runners for warning in runner.warnings]

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the stems, in the order in which `separate` yields them."""
        return self.chain.header.stems

    @property
    def rate(self) -> int:
        """The sample rate of what `separate` yields, in Hz."""
        return self.chain.header.rate

    def separate(self, blocks: Iterable[Block], rate: int) -> Iterator[Stems]:
        """Separate a stream. Memory does not depend on its length.

        Args:
            blocks: the mixture, in blocks `(C, n)` of any sizes, mono or stereo.
            rate: of the mixture, Hz.

        Yields:
            Blocks `(S, C, n)` of the stems, with the rate and channels of the model; together they are as long as the
            resampled mixture.
        """
        yield from run_chain(self.chain, self.runners, blocks, rate)

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
        matched = match_input(stems, len(self.stems), self.chain.header, rate, channels)
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
        if delivery.consistent and not self.chain.complete:
            raise UsageError("only all stems of a model can be made to add up", "leave out --consistent, or --stems")
        consistent = delivery.consistent
        if consistent is None:  # above the model's rate, all stems would get an equal part of what it cannot separate
            consistent = self.chain.masks_sum_to_one and delivery.rate_for(reader.rate, self.rate) <= self.rate
        known_warnings = len(self.warnings)
        report = write_stems(
            reader,
            self.separate,
            self.chain.header,
            paths,
            delivery,
            consistent=consistent,
            overwrite=overwrite,
            on_progress=on_progress,
        )
        return replace(report, warnings=(*report.warnings, *self.warnings[known_warnings:]))
