"""One song of a batch: what is asked of it, and how a loaded model does that, with manifest and player page."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit import devices, signals
from stemsplit.audio.read_ahead import PrefetchReader
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.batch import manifest
from stemsplit.batch.checks import partition_existing
from stemsplit.batch.events import Done, Result, Skipped
from stemsplit.batch.inputs import Failed
from stemsplit.batch.manifest import Provenance, Run
from stemsplit.batch.staging import at_hand, separate_at_url
from stemsplit.batch.tracks import Track
from stemsplit.errors import AudioError, UsageError
from stemsplit.files import FileStamp
from stemsplit.models.registry import LocalModel, ModelSpec, check_masks
from stemsplit.player.page import write_player
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.outputs import COMPLEMENT, MIXTURE, STEM_FILE, Delivery, Report
from stemsplit.wording import duration, one_line

if TYPE_CHECKING:
    from stemsplit.separation.separator import Separator

_log = logging.getLogger(__name__)

OnProgress = Callable[[int, int | None], None]
SeparateSong = Callable[[Path, dict[str, Path]], Report]
"""Separates the file of a song into the files of its stems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of every song of a batch; the attributes are those of `separate_batch`."""

    stems: tuple[str, ...]
    complement: bool
    mixture: bool
    stem_file: bool
    player: bool
    options: SeparationOptions
    delivery: Delivery
    audio_stream: int
    skip_existing: bool
    overwrite: bool
    manifests: bool

    def check(self, spec: ModelSpec) -> None:
        """Raise UsageError if it contradicts itself or the model, as far as that is known."""
        if self.complement and len(self.stems) != 1:
            raise UsageError("--two-stems takes one stem", "such as  --two-stems vocals")
        if self.stem_file and (self.stems or len(spec.stems) not in (0, 4)):
            hint = "leave out --stems and --two-stems, and choose a model of four stems"
            raise UsageError("a stem file holds exactly four stems", hint, model=spec.name)
        if self.options.wiener:
            check_masks(spec)
        if self.delivery.consistent and self.stems:
            raise UsageError("only all stems of a model can be made to add up", "leave out --consistent, or --stems")

    def file_names(self, stems: Sequence[str]) -> tuple[str, ...]:
        """Return the names of all files of a song; none until the stems of the model are known."""
        if not stems:
            return ()
        wanted = set(self.stems) if self.stems and not self.complement else {*stems, *self.stems}
        names = [stem for stem in stems if stem in wanted]
        names += [COMPLEMENT + stem for stem in stems if self.complement or COMPLEMENT + stem in wanted]
        names += [MIXTURE] if self.mixture else []
        names += [STEM_FILE] if self.stem_file else []
        return tuple(dict.fromkeys(names))  # a model may have a stem of that name

    def provenance(self, model: Mapping[str, Any]) -> Provenance:
        """Return what a manifest says about stems that a model makes, as `manifest.describe_model` describes it."""
        settings = {**self.options.settings(), **self.delivery.settings(), "track": self.audio_stream}
        return Provenance(model, settings)

    def open_song(self, path: Path) -> Reader:
        """Open the file of a song."""
        return open_reader(path, self.audio_stream)


class SongSeparator:
    """A model that is loaded, and does what is asked of each song.

    Args:
        request: What is asked.
        names: Of all files that are written of a song.
        provenance: Returns what to write to the manifests.
        separator: The model.
    """

    def __init__(
        self,
        request: Request,
        names: Sequence[str],
        provenance: Callable[[], Provenance],
        separator: "Separator",
    ) -> None:
        self._request, self._names, self._provenance, self._separator = request, names, provenance, separator

    @classmethod
    def load(
        cls,
        request: Request,
        names: Sequence[str],
        provenance: Callable[[], Provenance],
        model: LocalModel,
        *,
        device: str,
        reuse_networks: bool,
    ) -> "SongSeparator":
        """Load a model; `reuse_networks` only if one song is separated at a time.

        Raises:
            ModelError: It cannot be run.
            DeviceError: The device is not available.
        """
        devices.check_limit()
        with signals.deferred():  # importing torch takes seconds, and it aborts if it is interrupted
            from stemsplit.models.ensemble import load_model
            from stemsplit.separation.separator import Separator

        _log.info("model %s: %s", model.spec.name, ", ".join(map(str, model.paths)))
        device = devices.choose(device)
        chain = load_model(model, device=device, reuse_networks=reuse_networks)
        return cls(request, names, provenance, Separator(chain, request.options, device=device))

    def separate(
        self,
        track: Track,
        prefetched: PrefetchReader | None = None,
        *,
        on_progress: OnProgress,
        on_page: OnProgress = lambda done, total: None,
        check: Callable[[], None] = signals.check,
        announced: bool = False,
    ) -> Result:
        """Separate a song.

        Args:
            track: The song.
            prefetched: Its open file, if that was opened ahead.
            on_progress: Called with the samples done so far, and their number if the header states it.
            on_page: Called likewise while the player page is written.
            check: Called during transfers; it raises whatever ends them.
            announced: As for `separate_track`.

        Raises:
            DeviceError: The device is out of memory.
        """
        request = self._request
        provenance = self._provenance() if request.manifests else None

        def separate(source: Path, outputs: dict[str, Path]) -> Report:
            opened = prefetched if prefetched and prefetched.is_fresh() else request.open_song(source)
            with devices.memory_checked(self._separator.device), opened as song:
                _log.info("%s: %s", track.name, _describe_song(song))
                return self._separator.separate_song(
                    song,
                    outputs,
                    delivery=request.delivery,
                    overwrite=request.overwrite or track.replaces,
                    on_progress=on_progress,
                )

        def separate_locally(local: Track) -> Result:
            result = separate_track(
                local,
                self._names,
                separate,
                provenance=provenance,
                skip_existing=request.skip_existing,
                overwrite=request.overwrite,
                announced=announced and local.output == track.output,
            )
            return with_page(result, request, on_page) if request.player else result

        if track.is_local:
            return separate_locally(track)
        return separate_at_url(
            track,
            self._names,
            separate_locally,
            provenance=provenance if request.skip_existing else None,
            overwrite=request.overwrite,
            check=check,
        )


def separate_track(
    track: Track,
    stems: Sequence[str],
    separate: SeparateSong,
    *,
    provenance: Provenance | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
    announced: bool = False,
) -> Result:
    """Separate one song; any error that concerns it alone becomes a result.

    Args:
        track: The song, which is on this machine, as its stems will be.
        stems: The names of all files that are written of it.
        separate: Separates the file of the song into the files of its stems.
        provenance: The model and settings, for the manifest; None for no manifest.
        skip_existing: Check the stems again first, as another process may have written them in the meantime.
        overwrite: Replace stems even if they were edited.
        announced: Say beside the stems which are about to appear, as a process should that may well be killed.
    """
    outputs = track.outputs(stems)
    began = time.monotonic()
    with ExitStack() as stack:
        try:
            if skip_existing and provenance:
                _, skipped, failed = partition_existing([track], stems, provenance, overwrite=overwrite)
                if skipped:
                    return skipped[0]
                if failed:
                    return failed[0]
            assert isinstance(track.source, Path)
            files = track.local_outputs(stems)
            source = _stamp_source(track.source) if provenance else None
            replaces = overwrite or track.replaces
            if announced and provenance and (replaces or not any(map(os.path.lexists, files.values()))):
                stack.enter_context(manifest.announced(track.manifest, files.values()))
            report = separate(track.source, files)
        except Exception as error:
            if skip_existing and provenance and partition_existing([track], stems, provenance)[1]:
                return Skipped(track, outputs)
            return track.failure(error)
        warnings = [track.with_label(warning) for warning in report.warnings]
        if provenance and source:
            warnings += _record(track, files, provenance, report, *source, overwrite=overwrite)
    return Done(track, outputs, replace(report, warnings=tuple(warnings)), time.monotonic() - began)


def with_page(result: Result, request: Request, on_progress: OnProgress) -> Result:
    """Write the player page of a song; return its result, or a failure if the page cannot be written."""
    if isinstance(result, Failed):
        return result
    track = result.track
    overwrite = request.overwrite or track.replaces
    try:
        if isinstance(result, Skipped) and track.player_page.exists() and not request.overwrite:
            return result
        stems = {name: path for name, path in result.outputs.items() if name not in (MIXTURE, STEM_FILE)}
        with at_hand(stems, track.player_page) as (files, page):
            write_player(
                page,
                track.title,
                files,
                song=track.source if isinstance(track.source, Path) else None,
                on_progress=on_progress,
                overwrite=overwrite,
            )
    except Exception as error:
        return track.failure(error)
    return result


def _describe_song(song: Reader) -> str:
    length = "of unknown length" if song.length is None else duration(song.length / song.rate)
    return f"{song.rate} Hz, {'mono' if song.channels == 1 else 'stereo'}, {length}"


def _stamp_source(song: Path) -> tuple[FileStamp, FileStamp]:
    """Return two stamps of a song: of its content, and a quick one to tell later whether it has changed."""
    try:
        return manifest.stamp_source(song), FileStamp.of(song, hashed=False)
    except OSError as error:
        message = f"cannot read {str(song)!r}: {error.strerror}"
        raise AudioError(message, "check the disk, and try again", path=song) from error


def _record(
    track: Track,
    outputs: Mapping[str, Path],
    provenance: Provenance,
    report: Report,
    source: FileStamp,
    before: FileStamp,
    *,
    overwrite: bool,
) -> list[str]:
    """Write the manifest, and delete stems in other formats if they are replaced; return warnings."""
    warnings = []
    try:
        changed = FileStamp.of(track.source, hashed=False) != before
    except OSError:
        changed = True
    if changed:
        warnings.append(f"{track.label!r} was changed while it was being separated: its stems may be of no use")
    run = Run(
        provenance.decided(report.precision),
        track.label,
        source,
        report.rate,
        report.channels,
        report.length,
        consistent=report.consistent,
        incomplete=report.incomplete,
    )
    try:
        manifest.record_run(track.manifest, run, outputs)
        if overwrite:
            manifest.discard_replaced(track.manifest, outputs)
    except Exception as error:
        message = f"cannot write {str(track.manifest)!r}: {one_line(error)}"
        warnings.append(f"{message}; --skip-existing will not know that the stems of {track.label!r} are complete")
    return warnings
