"""Separating many songs: find them, skip complete ones, check the others, and separate those one by one or in parallel.

A song that fails does not stop the others.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit import devices, signals
from stemsplit.audio.read_ahead import PrefetchReader
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.batch import manifest, templates
from stemsplit.batch.checks import estimate_size, estimate_spool, partition_existing, partition_separable
from stemsplit.batch.events import (
    BatchReport,
    Done,
    Event,
    ModelLoading,
    PageProgress,
    Planned,
    Result,
    SeparationStarted,
    Skipped,
    SongProgress,
    SongStarted,
    TracksFound,
)
from stemsplit.batch.inputs import Failed
from stemsplit.batch.manifest import Provenance, Run
from stemsplit.batch.standard_input import StandardInput
from stemsplit.batch.templates import Template
from stemsplit.batch.tracks import Track, find_tracks, with_model
from stemsplit.errors import AudioError, UsageError
from stemsplit.files import FileStamp, check_free, check_room, sweep_folders
from stemsplit.models import hub
from stemsplit.models.registry import LocalModel, ModelSpec, check_masks, read_registry, resolve_complement
from stemsplit.player.page import write_player
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.outputs import COMPLEMENT, MIXTURE, STEM_FILE, Delivery
from stemsplit.wording import duration, one_line

if TYPE_CHECKING:
    from stemsplit.separation.render import Report
    from stemsplit.separation.separator import Separator

_log = logging.getLogger(__name__)

SeparateSong = Callable[[Path, dict[str, Path]], "Report"]
"""Separates the file of a song into the files of its stems."""


def separate_batch(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str] = "separated",
    *,
    model: str | os.PathLike[str] | ModelSpec | None = None,
    stems: Sequence[str] = (),
    complement: bool = False,
    mixture: bool = False,
    stem_file: bool = False,
    player: bool = False,
    options: SeparationOptions | None = None,
    delivery: Delivery | None = None,
    filename: str | Template = templates.DEFAULT,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    audio_stream: int = 1,
    device: str = "auto",
    jobs: int = 1,
    skip_existing: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    manifests: bool = True,
    registry: Path | None = None,
    download: Callable[[ModelSpec], LocalModel] | None = None,
    on_event: Callable[[Event], object] = lambda event: None,
) -> BatchReport:
    """Separate many songs: files, folders, patterns, playlists, "-" for standard input.

    A song that cannot be separated is a result, not an exception, and the others go on. Files appear complete or not
    at all. A manifest beside the stems of each song tells later runs how they were made.

    Args:
        inputs: The songs; folders are searched recursively, and mirrored in `output`.
        output: The folder of all stems.
        model: A name from models.toml, `hf://OWNER/NAME[@REVISION]` or the path of a weights file; the default model of
            models.toml if None. It is never replaced by another.
        stems: The requested stems, among them `no_vocals` and the like for the mixture without one; all by default.
        complement: Also write the mixture without the requested stem, as `no_vocals`, or by the name that the model has
            for it, such as `instrumental`; needs exactly one in `stems`.
        mixture: Write the song itself beside its stems.
        stem_file: Also write one file with all four stems for DJ software.
        player: Write an HTML page on which to listen to the stems.
        options: How to separate.
        delivery: How to write the stems: format, rate, clipping.
        filename: Template of the stems' names, with `{track}`, `{stem}`, `{ext}`, `{model}`, `{folder}`, `{index}`,
            `{title}` and `{artist}`.
        include: Patterns of names, such as "*.flac"; folders are searched for these only.
        exclude: Patterns of what is left out in folders.
        audio_stream: Which audio stream of files with several, from 1.
        device: "cpu", "cuda", "mps", or "auto" for the fastest that is available.
        jobs: How many songs to separate at a time.
        skip_existing: Skip songs whose stems are complete and up to date, and replace stems that are not.
        overwrite: Replace files that exist.
        dry_run: Check everything, and separate nothing.
        manifests: Write the manifests.
        registry: A models.toml that adds to the bundled one and to the one in the user's configuration folder.
        download: Downloads the model, as `models.hub.download` does; a program may want to show its progress.
        on_event: Called with each event, from one thread at a time, but not always the same one.

    Raises:
        UsageError: The arguments contradict each other or the model, or two songs would get the same files.
        ModelError: The model is unknown, or it cannot be downloaded or run.
        DeviceError: The device is not available, or out of memory.
        AudioError: The disk has no room for the stems.
    """
    if jobs < 1:
        raise UsageError(f"the number of jobs must be at least 1, not {jobs}")
    if audio_stream < 1:
        raise UsageError(f"audio streams are numbered from 1, and there is no {audio_stream}")
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    if not isinstance(model, ModelSpec):
        model = read_registry(registry).find(os.fspath(model) if model else None, stems)
    model, stems, complement = resolve_complement(model, stems, complement)
    batch = _Batch(
        stems=stems,
        complement=complement,
        mixture=mixture,
        stem_file=stem_file,
        player=player,
        options=options or SeparationOptions(),
        delivery=delivery or Delivery(),
        audio_stream=audio_stream,
        device=device,
        jobs=jobs,
        skip_existing=skip_existing,
        overwrite=overwrite,
        manifests=manifests,
        on_event=on_event,
    )
    batch.check_request(model)
    template = Template.parse(filename) if isinstance(filename, str) else filename
    with StandardInput() as stdin:  # its song is needed until the last one is done
        tracks, failed = find_tracks(
            [os.fspath(path) for path in inputs],
            Path(output),
            include=include,
            exclude=exclude,
            stdin=stdin,
            template=template,
            extension=batch.delivery.format.extension.removeprefix("."),
            model=model.name,
        )
        on_event(TracksFound(tracks))
        with batch:
            batch.finish_all(failed)
            # A song that cannot be opened costs no download, and neither do stems that are up to date.
            tracks = batch.prepare(tracks, model, dry_run=dry_run)
            if dry_run:
                return batch.plan(tracks, model)
            return batch.run(tracks, model, download or (lambda spec: hub.download(spec, stems)))


@dataclass(kw_only=True)
class _Batch:
    """One run of `separate_batch`, which has the meaning of the fields; a context manager."""

    stems: Sequence[str]
    complement: bool
    mixture: bool
    stem_file: bool
    player: bool
    options: SeparationOptions
    delivery: Delivery
    audio_stream: int
    device: str
    jobs: int
    skip_existing: bool
    overwrite: bool
    manifests: bool
    on_event: Callable[[Event], object]
    results: list[Result] = field(default_factory=list)
    _names: tuple[str, ...] = ()
    _hashing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "model"))
    _described_model: Future[dict[str, Any]] = field(default_factory=Future)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _emitting: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "_Batch":
        return self

    def __exit__(self, *error: object) -> None:
        self._hashing.shutdown(wait=False, cancel_futures=True)

    def check_request(self, spec: ModelSpec) -> None:
        """Raise UsageError if the request contradicts itself or the model, as far as that is known."""
        if self.complement and len(self.stems) != 1:
            raise UsageError("--two-stems takes one stem", "such as  --two-stems vocals")
        if self.stem_file and (self.stems or len(spec.stems) not in (0, 4)):
            hint = "leave out --stems and --two-stems, and choose a model of four stems"
            raise UsageError("a stem file holds exactly four stems", hint, model=spec.name)
        if self.options.wiener:
            check_masks(spec)
        if self.delivery.consistent and self.stems:
            raise UsageError("only all stems of a model can be made to add up", "leave out --consistent, or --stems")

    def prepare(self, tracks: Sequence[Track], spec: ModelSpec, *, dry_run: bool = False) -> list[Track]:
        """Return the songs that still need separating with this model, after all quick checks."""
        # Hashed while torch is imported, which takes about as long for a large file.
        self._described_model = self._hashing.submit(manifest.describe_model, spec)
        self._names = self._file_names(spec.stems)
        tracks = with_model(tracks, spec.name)
        if not dry_run:  # what killed runs have left, beside the stems of songs that are skipped as well
            files = (path for track in tracks for path in (track.manifest, *track.outputs(self._names).values()))
            sweep_folders(dict.fromkeys(path.parent for path in files))
        skipped: list[Skipped] = []
        if self.skip_existing and spec.stems:
            tracks, skipped, changed = partition_existing(
                tracks, self._names, self._provenance(), overwrite=self.overwrite
            )
            self.finish_all(changed)
        ready, unusable = partition_separable(
            tracks,
            self._names,
            overwrite=self.overwrite,
            model_stems=spec.stems,
            delivery=self.delivery,
            kept=[result.track for result in skipped],
            open_song=self._open,
        )
        self.finish_all(unusable)
        for result in skipped:
            self._finish(self._with_page(result) if self.player and not dry_run else result)
        if self.player:
            ready = [track for track in ready if self._check_page(track)]
        if ready and spec.stems:
            self._check_room(ready)
        return ready

    def _file_names(self, stems: Sequence[str]) -> tuple[str, ...]:
        """Return the names of all files of a song; none until the stems of the model are known."""
        if not stems:
            return ()
        wanted = set(self.stems) if self.stems and not self.complement else {*stems, *self.stems}
        names = [stem for stem in stems if stem in wanted]
        names += [COMPLEMENT + stem for stem in stems if self.complement or COMPLEMENT + stem in wanted]
        names += [MIXTURE] if self.mixture else []
        names += [STEM_FILE] if self.stem_file else []
        return tuple(dict.fromkeys(names))  # a model may have a stem of that name

    def plan(self, ready: Sequence[Track], spec: ModelSpec) -> BatchReport:
        """Report what would be done."""
        planned = [Planned(track, track.outputs(self._names)) for track in ready]
        for event in planned:
            self._emit(event)
        infos = [track.info for track in ready if track.info]
        size = estimate_size(infos, len(self._names), self.delivery.format)
        return BatchReport(self.results, spec.name, planned, planned_bytes=size)

    def run(
        self, ready: Sequence[Track], expected: ModelSpec, download: Callable[[ModelSpec], LocalModel]
    ) -> BatchReport:
        """Separate the songs that `prepare` returned."""
        if not ready:
            return BatchReport(self.results, expected.name)
        model = download(expected)
        spec = model.spec
        self.check_request(spec)  # the stems of a repository are known only now
        if (spec.stems, spec.repo, spec.revision) != (expected.stems, expected.repo, expected.revision):
            ready = self.prepare(ready, spec)
        seconds = self._separate_all(ready, self._load(model)) if ready else 0.0
        return BatchReport(
            self.results,
            spec.name,
            fallback=model.fallback,
            wall_seconds=seconds if ready and self.jobs > 1 else None,
        )

    def finish_all(self, failed: Iterable[Failed]) -> None:
        """Report inputs without stems."""
        for failure in failed:
            self._finish(failure)

    def _load(self, model: LocalModel) -> "Separator":
        devices.check_limit()
        self._emit(ModelLoading(model.spec.name))
        with signals.deferred():  # importing torch takes seconds, and it aborts if it is interrupted
            from stemsplit.models.ensemble import load_model
            from stemsplit.separation.separator import Separator

        _log.info("model %s: %s", model.spec.name, ", ".join(map(str, model.paths)))
        device = devices.choose(self.device)
        chain = load_model(model, device=device, reuse_networks=self.jobs == 1)
        return Separator(chain, self.options, device=device)

    def _separate_all(self, ready: Sequence[Track], separator: "Separator") -> float:
        """Separate songs; return how long it took, in seconds."""
        began = time.monotonic()
        self._emit(SeparationStarted(ready))
        separate = partial(self._separate, separator, len(ready))
        if self.jobs == 1:
            self._separate_in_turn(ready, separate)
        else:
            self._separate_in_parallel(ready, separate)
        return time.monotonic() - began

    def _separate_in_turn(self, ready: Sequence[Track], separate: "_SeparateTrack") -> None:
        """Separate one song after the other, prefetching the next one."""
        prefetched: PrefetchReader | None = None
        try:
            for number, track in enumerate(ready, start=1):
                reader, prefetched = prefetched, None
                if number < len(ready):
                    prefetched = PrefetchReader(ready[number].source, self._open)
                with signals.deferred():  # a song with complete stems gets its manifest, and is reported
                    self._finish(separate(track, number, reader))
        finally:
            if prefetched:
                prefetched.close()

    def _separate_in_parallel(self, ready: Sequence[Track], separate: "_SeparateTrack") -> None:
        """Separate several songs at a time, each with an equal share of the threads."""
        jobs = min(self.jobs, len(ready))
        threads = (devices.count_threads(jobs),)
        with signals.deferred(), ThreadPoolExecutor(jobs, "song", devices.use_threads, threads) as pool:
            try:
                started = [pool.submit(separate, track, number, None) for number, track in enumerate(ready, start=1)]
                for future in as_completed(started):
                    self._finish(future.result())
            except BaseException:
                self._stopped.set()  # songs in progress end at their next block
                pool.shutdown(cancel_futures=True)
                raise

    def _separate(
        self, separator: "Separator", count: int, track: Track, number: int, prefetched: PrefetchReader | None
    ) -> Result:
        self._emit(SongStarted(track, number, count))

        def on_progress(done: int, total: int | None) -> None:
            if self._stopped.is_set():
                raise _Stop
            try:
                self._emit(SongProgress(track, done, total))
            except Exception as error:  # of the caller, and no failure of the song
                raise _EventError(error) from error

        def separate(source: Path, outputs: dict[str, Path]) -> "Report":
            opened = prefetched if prefetched and prefetched.is_fresh() else self._open(source)
            with devices.memory_checked(separator.device), opened as song:
                _log.info("%s: %s", track.name, _describe_song(song))
                return separator.separate_song(
                    song,
                    outputs,
                    delivery=self.delivery,
                    overwrite=self.overwrite or track.replaces,
                    on_progress=on_progress,
                )

        try:
            result = separate_track(
                track,
                self._names,
                separate,
                provenance=self._provenance() if self.manifests else None,
                skip_existing=self.skip_existing,
                overwrite=self.overwrite,
            )
        except _EventError as raised:
            raise raised.error from None
        finally:
            if prefetched:
                prefetched.close()
        return self._with_page(result) if self.player else result

    def _open(self, path: Path) -> Reader:
        return open_reader(path, self.audio_stream)

    def _provenance(self) -> Provenance:
        settings = {**self.options.settings(), **self.delivery.settings(), "track": self.audio_stream}
        return Provenance(self._described_model.result(), settings)

    def _check_room(self, ready: Sequence[Track]) -> None:
        infos = [track.info for track in ready if track.info]
        needed = estimate_size(infos, len(self._names), self.delivery.format)
        if self.delivery.clip == "gain":
            needed += estimate_spool(infos, len(self._names))
        replaced = [track.outputs(self._names).values() for track in ready if track.replaces or self.overwrite]
        check_room(needed, ready[0].output, replaced=replaced)

    def _check_page(self, track: Track) -> bool:
        """Return whether the player page can be written; if not, report the song as failed."""
        try:
            check_free(track.player_page, overwrite=self.overwrite or track.replaces)
        except (AudioError, OSError) as error:
            self._finish(track.failure(error))
            return False
        return True

    def _with_page(self, result: Result) -> Result:
        """Write the player page of a song; return its result, or a failure if the page cannot be written."""
        if isinstance(result, Failed):
            return result
        track = result.track
        if isinstance(result, Skipped) and track.player_page.exists() and not self.overwrite:
            return result
        stems = {name: path for name, path in result.outputs.items() if name not in (MIXTURE, STEM_FILE)}

        def on_progress(done: int, total: int | None) -> None:
            if self._stopped.is_set():
                raise _Stop
            self._emit(PageProgress(track, done, total))

        try:
            write_player(
                track.player_page,
                track.title,
                stems,
                song=track.source,
                on_progress=on_progress,
                overwrite=self.overwrite or track.replaces,
            )
        except Exception as error:
            return track.failure(error)
        return result

    def _finish(self, result: Result) -> None:
        self.results.append(result)
        self._emit(result)

    def _emit(self, event: Event) -> None:
        with self._emitting:
            self.on_event(event)


_SeparateTrack = Callable[[Track, int, PrefetchReader | None], Result]


class _Stop(BaseException):
    """Ends the work on a song in a thread after an error in the main one."""


class _EventError(BaseException):
    """Carries an error of `on_event` through the work on a song, which takes an Exception for a failure of its own."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def separate_track(
    track: Track,
    stems: Sequence[str],
    separate: SeparateSong,
    *,
    provenance: Provenance | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
) -> Result:
    """Separate one song; any error that concerns it alone becomes a result.

    Args:
        track: The song.
        stems: The names of all files that are written of it.
        separate: Separates the file of the song into the files of its stems.
        provenance: The model and settings, for the manifest; None for no manifest.
        skip_existing: Check the stems again first, as another process may have written them in the meantime.
        overwrite: Replace stems even if they were edited.
    """
    outputs = track.outputs(stems)
    began = time.monotonic()
    try:
        if skip_existing and provenance:
            _, skipped, failed = partition_existing([track], stems, provenance, overwrite=overwrite)
            if skipped:
                return skipped[0]
            if failed:
                return failed[0]
        source = _stamp_source(track.source) if provenance else None
        report = separate(track.source, outputs)
    except Exception as error:
        if skip_existing and provenance and partition_existing([track], stems, provenance)[1]:
            return Skipped(track, outputs)
        return track.failure(error)
    warnings = [track.with_label(warning) for warning in report.warnings]
    if provenance and source:
        warnings += _record(track, outputs, provenance, report, *source, overwrite=overwrite)
    return Done(track, outputs, replace(report, warnings=tuple(warnings)), time.monotonic() - began)


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
    report: "Report",
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
        provenance,
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
