"""Separating many songs: find them, skip complete ones, check the others, and separate those here or on a cluster.

A song that fails does not stop the others.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from stemsplit import devices, signals
from stemsplit.audio.read_ahead import PrefetchReader
from stemsplit.batch import manifest, playlists, templates
from stemsplit.batch.checks import (
    check_free_at,
    estimate_size,
    estimate_spool,
    outputs_listed,
    partition_existing,
    partition_separable,
)
from stemsplit.batch.cluster import ClusterOptions, WorkerPool, connected, landmark
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
from stemsplit.batch.manifest import Provenance
from stemsplit.batch.song import Request, SongSeparator, with_page
from stemsplit.batch.standard_input import StandardInput
from stemsplit.batch.templates import Template
from stemsplit.batch.tracks import Track, find_tracks, with_model
from stemsplit.batch.worker import PACKAGE, Job
from stemsplit.errors import AudioError, UsageError
from stemsplit.files import check_free, check_room, sweep_folders
from stemsplit.models import hub
from stemsplit.models.registry import LocalModel, ModelSpec, read_registry, resolve_complement
from stemsplit.separation.options import Precision, SeparationOptions
from stemsplit.separation.outputs import Delivery
from stemsplit.storage.location import Location, is_url

_log = logging.getLogger(__name__)


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
    cluster: ClusterOptions | None = None,
    registry: Path | None = None,
    download: Callable[[ModelSpec], LocalModel] | None = None,
    on_event: Callable[[Event], object] = lambda event: None,
) -> BatchReport:
    """Separate many songs: files, folders, patterns, playlists, URLs of these, "-" for standard input.

    A song that cannot be separated is a result, not an exception, and the others go on. Files appear complete or not
    at all. A manifest beside the stems of each song tells later runs how they were made.

    Args:
        inputs: The songs; folders are searched recursively, and mirrored in `output`.
        output: The folder of all stems, which may be at a URL, such as "s3://bucket/stems".
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
        cluster: Separate the songs on the machines of a cluster, and not in this process. All of them must see the
            songs and the folder of the stems, unless these are at URLs. `jobs` has no meaning then.
        registry: A models.toml that adds to the bundled one and to the one in the user's configuration folder.
        download: Downloads the model, as `models.hub.download` does; a program may want to show its progress.
        on_event: Called with each event, from one thread at a time, but not always the same one.

    Raises:
        UsageError: The arguments contradict each other or the model, or two songs would get the same files.
        ModelError: The model is unknown, or it cannot be downloaded or run.
        DeviceError: The device is not available, or out of memory.
        AudioError: The disk has no room for the stems.
        StemsplitError: The cluster cannot be reached, or none of its machines can separate songs.
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
    request = Request(
        stems=tuple(stems),
        complement=complement,
        mixture=mixture,
        stem_file=stem_file,
        player=player,
        options=options or SeparationOptions(),
        delivery=delivery or Delivery(),
        audio_stream=audio_stream,
        skip_existing=skip_existing,
        overwrite=overwrite,
        manifests=manifests,
    )
    if cluster and "-" in inputs:
        raise UsageError("the machines of a cluster cannot read the standard input of this one", "store it in a file")
    batch = _Batch(request=request, device=device, jobs=jobs, cluster=cluster, on_event=on_event)
    request.check(model)
    template = Template.parse(filename) if isinstance(filename, str) else filename
    with (
        connected(cluster) if cluster and not dry_run else nullcontext(),
        StandardInput() as stdin,  # its song is needed until the last one is done
    ):
        tracks, failed = find_tracks(
            [os.fspath(path) for path in inputs],
            location_of(output),
            include=include,
            exclude=exclude,
            stdin=stdin,
            template=template,
            extension=request.delivery.format.extension.removeprefix("."),
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

    request: Request
    device: str
    jobs: int
    cluster: ClusterOptions | None
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

    def prepare(self, tracks: Sequence[Track], spec: ModelSpec, *, dry_run: bool = False) -> list[Track]:
        """Return the songs that still need separating with this model, after all quick checks."""
        # Hashed while torch is imported, which takes about as long for a large file.
        self._described_model = self._hashing.submit(manifest.describe_model, spec)
        self._names = self.request.file_names(spec.stems)
        tracks = with_model(tracks, spec.name)
        if not dry_run:  # what killed runs have left, beside the stems of songs that are skipped as well
            files = (path for track in tracks for path in (track.manifest, *track.outputs(self._names).values()))
            sweep_folders(dict.fromkeys(path.parent for path in files if isinstance(path, Path)))
        with outputs_listed(tracks):
            return self._partition(tracks, spec, dry_run=dry_run)

    def _partition(self, tracks: Sequence[Track], spec: ModelSpec, *, dry_run: bool) -> list[Track]:
        skipped: list[Skipped] = []
        if self.request.skip_existing and spec.stems:
            tracks, skipped, changed = partition_existing(
                tracks, self._names, self._provenance(), overwrite=self.request.overwrite
            )
            self.finish_all(changed)
        ready, unusable = partition_separable(
            tracks,
            self._names,
            overwrite=self.request.overwrite,
            model_stems=spec.stems,
            delivery=self.request.delivery,
            kept=[result.track for result in skipped],
            open_song=self.request.open_song,
        )
        self.finish_all(unusable)
        for result in skipped:
            if self.request.player and not dry_run:
                self._finish(with_page(result, self.request, partial(self._show_page, result.track)))
            else:
                self._finish(result)
        if self.request.player:
            ready = [track for track in ready if self._check_page(track)]
        if ready and spec.stems and isinstance(ready[0].output, Path):
            self._check_room(ready, ready[0].output)
        return ready

    def plan(self, ready: Sequence[Track], spec: ModelSpec) -> BatchReport:
        """Report what would be done."""
        planned = [Planned(track, track.outputs(self._names)) for track in ready]
        for event in planned:
            self._emit(event)
        infos = [track.info for track in ready if track.info]
        size = estimate_size(infos, len(self._names), self.request.delivery.format)
        return BatchReport(self.results, spec.name, planned, planned_bytes=size)

    def run(
        self, ready: Sequence[Track], expected: ModelSpec, download: Callable[[ModelSpec], LocalModel]
    ) -> BatchReport:
        """Separate the songs that `prepare` returned."""
        if not ready:
            return BatchReport(self.results, expected.name)
        model = download(expected)
        spec = model.spec
        self.request.check(spec)  # the stems of a repository are known only now
        if (spec.stems, spec.repo, spec.revision) != (expected.stems, expected.repo, expected.revision):
            ready = self.prepare(ready, spec)
        seconds = self._separate_all(ready, model) if ready else 0.0
        return BatchReport(
            self.results,
            spec.name,
            fallback=model.fallback,
            wall_seconds=seconds if ready and (self.jobs > 1 or self.cluster) else None,
        )

    def finish_all(self, failed: Iterable[Failed]) -> None:
        """Report inputs without stems."""
        for failure in failed:
            self._finish(failure)

    def _separate_all(self, ready: Sequence[Track], model: LocalModel) -> float:
        """Separate songs; return how long it took, in seconds."""
        self._emit(ModelLoading(model.spec.name))
        if self.cluster:
            return self._separate_on_cluster(ready, model, self.cluster)
        separator = SongSeparator.load(
            self.request,
            self._names,
            self._provenance,
            model,
            device=self.device,
            reuse_networks=self.jobs == 1,
        )
        separate = partial(self._separate, separator, len(ready))
        began = time.monotonic()
        self._emit(SeparationStarted(ready))
        if self.jobs == 1:
            self._separate_in_turn(ready, separate)
        else:
            self._separate_in_parallel(ready, separate)
        return time.monotonic() - began

    def _separate_on_cluster(self, ready: Sequence[Track], model: LocalModel, options: ClusterOptions) -> float:
        """Separate songs on other machines; return how long it took, in seconds."""
        with signals.deferred(), landmark(ready[0].output) as path, WorkerPool(options, self.device) as pool:
            request = self.request
            if request.options.precision == "auto":  # each machine would decide for itself
                precision: Precision = "half" if pool.device == "cuda" else "full"
                request = replace(request, options=replace(request.options, precision=precision))
            job = Job(
                request=request,
                names=self._names,
                provenance=self._provenance(),
                model=model.spec.with_paths(Path.absolute),
                package=PACKAGE,
                device=pool.device,
                threads=pool.threads,
                landmark=path,
            )
            pool.start(job, len(ready))
            began = time.monotonic()
            self._emit(SeparationStarted(ready))
            for event in pool.separate(ready):
                if isinstance(event, (Done, Skipped, Failed)):
                    self._finish(event)
                else:
                    self._emit(event)
            return time.monotonic() - began

    def _separate_in_turn(self, ready: Sequence[Track], separate: "_SeparateTrack") -> None:
        """Separate one song after the other, prefetching the next one."""
        prefetched: PrefetchReader | None = None
        try:
            for number, track in enumerate(ready, start=1):
                reader, prefetched = prefetched, None
                if number < len(ready) and isinstance(source := ready[number].source, Path):
                    prefetched = PrefetchReader(source, self.request.open_song)
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
        self, separator: SongSeparator, count: int, track: Track, number: int, prefetched: PrefetchReader | None
    ) -> Result:
        self._emit(SongStarted(track, number, count))

        def on_progress(done: int, total: int | None) -> None:
            self._check_stopped()
            try:
                self._emit(SongProgress(track, done, total))
            except Exception as error:  # of the caller, and no failure of the song
                raise _EventError(error) from error

        try:
            return separator.separate(
                track,
                prefetched,
                on_progress=on_progress,
                on_page=partial(self._show_page, track),
                check=self._check_stopped,
            )
        except _EventError as raised:
            raise raised.error from None
        finally:
            if prefetched:
                prefetched.close()

    def _show_page(self, track: Track, done: int, total: int | None) -> None:
        self._check_stopped()
        self._emit(PageProgress(track, done, total))

    def _check_stopped(self) -> None:
        signals.check()
        if self._stopped.is_set():
            raise _Stop

    def _provenance(self) -> Provenance:
        return self.request.provenance(self._described_model.result())

    def _check_room(self, ready: Sequence[Track], output: Path) -> None:
        infos = [track.info for track in ready if track.info]
        needed = estimate_size(infos, len(self._names), self.request.delivery.format)
        if self.request.delivery.clip == "gain":
            needed += estimate_spool(infos, len(self._names))
        again = [track for track in ready if track.replaces or self.request.overwrite]
        replaced = [[path for path in track.outputs(self._names).values() if isinstance(path, Path)] for track in again]
        check_room(needed, output, replaced=replaced)

    def _check_page(self, track: Track) -> bool:
        """Return whether the player page can be written; if not, report the song as failed."""
        try:
            if isinstance(page := track.player_page, Path):
                check_free(page, overwrite=self.request.overwrite or track.replaces)
            else:
                check_free_at([page], overwrite=self.request.overwrite or track.replaces)
        except (AudioError, OSError) as error:
            self._finish(track.failure(error))
            return False
        return True

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


def location_of(output: str | os.PathLike[str]) -> Path | Location:
    """Return the folder of all stems, on this machine or at a URL.

    Raises:
        UsageError: Nothing can be written to such URLs.
    """
    text = os.fspath(output)
    if not is_url(text) or os.path.lexists(text):
        return Path(text)
    try:
        text = playlists.path_of(text)
        if not is_url(text):
            return Path(text)
        location = Location.parse(text)
    except AudioError as error:
        raise UsageError(str(error), error.hint) from None
    if location.is_web:
        raise UsageError(f"web servers take no stems, as {str(location)!r} would have to", "name a folder, or a bucket")
    return location
