"""What `separate` and `demo` do: songs and a request -> stems, one song after the other or several at a time."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stemsplit import devices
from stemsplit.audio.read_ahead import PrefetchReader
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.batch import manifest, run
from stemsplit.batch.run import Done, Failed, Skipped, Track
from stemsplit.cli import console, pages, reporting
from stemsplit.cli.console import Messages, SongsProgress
from stemsplit.cli.download import obtain
from stemsplit.cli.requests import Request
from stemsplit.errors import AudioError
from stemsplit.models.loading import LocalModel, find
from stemsplit.models.registry import ModelSpec, Registry

if TYPE_CHECKING:
    from stemsplit.separation.render import Report
    from stemsplit.separation.separator import Separator

Result = Done | Skipped | Failed


def separate_all(
    tracks: Sequence[Track], failed: Sequence[Failed], known: Registry, request: Request, messages: Messages
) -> tuple[str, ...]:
    """Separate songs, and tell about it; gives the stems of the model that ran, and exits with 1 if any song failed."""
    work = _Batch(request, messages)
    # Songs that cannot be opened cost no download, and stems that exist neither where it is known what they will be.
    spec = find(known, request.model, request.stems)
    work.fail_all(failed)
    ready = work.prepare(tracks, spec)
    if request.dry_run:
        work.show_plan(ready)
    fallback = None
    if ready:
        obtained = obtain(known, request.model, messages, request.stems)
        fallback, before, spec = obtained.fallback, spec, obtained.spec
        request.check(spec)
        if (spec.stems, spec.repo, spec.revision) != (before.stems, before.repo, before.revision):
            ready = work.prepare(ready, spec)
        if ready:
            work.separate(ready, _load(obtained, request, messages))
    work.finish(spec, fallback)
    return spec.stems


def _load(obtained: LocalModel, request: Request, messages: Messages) -> "Separator":
    # Only now, as torch takes seconds to import.
    with messages.progress(f"loading {obtained.spec.name}"):
        devices.keep_freed_memory()
        from stemsplit.models.ensemble import load_ensemble
        from stemsplit.separation.separator import Separator

        device = devices.choose(request.device)
        spec, alone = obtained.spec, request.jobs == 1
        ensemble = load_ensemble(
            obtained.paths, obtained.gives, config=spec.config, stems=spec.stems, device=device, shared=alone
        )
        separator = Separator(ensemble, request.options, device=device)
    messages.detail(f"model {obtained.spec.name}: {', '.join(map(str, obtained.paths))}")
    messages.detail(reporting.describe_separator(separator))
    return separator


class _Batch:
    """The songs of one run, and what became of them."""

    def __init__(self, request: Request, messages: Messages) -> None:
        self.request, self.messages = request, messages
        self.results: list[Result] = []
        self._began = 0.0
        self._names: tuple[str, ...] = ()
        self._beside = ThreadPoolExecutor(1, "model")
        self._described: Future[dict[str, Any]] = Future()
        self._open: Callable[[Path], Reader] = partial(open_reader, track=request.track)
        self._delivery = replace(request.delivery, rate=request.rate if isinstance(request.rate, int) else None)
        self._stopped = threading.Event()
        self._writing = threading.Lock()

    def prepare(self, tracks: Sequence[Track], spec: ModelSpec) -> list[Track]:
        """The songs that are left to do with this model, checked as far as that is quick."""
        request = self.request
        # Beside the import of torch, which takes as long as to hash a large file.
        self._described = self._beside.submit(manifest.describe_model, spec)
        self._names = request.names(spec.stems)
        skipped: list[Skipped] = []
        tracks = run.rename(tracks, spec.name)
        if request.skip_existing and spec.stems:
            made = manifest.Provenance(self._described.result(), request.settings)
            tracks, skipped, refused = run.sort_out(tracks, self._names, made, overwrite=request.overwrite)
            self.fail_all(refused)
        ready, unusable = run.check(
            tracks,
            self._names,
            overwrite=request.overwrite,
            model=spec.stems,
            delivery=self._delivery,
            others=[each.track for each in skipped],
            open_song=self._open,
        )
        self.fail_all(unusable)
        for each in skipped:
            self._tell(self._with_page(each) if request.player and not request.dry_run else each)
        ready = [track for track in ready if self._page_is_free(track)]
        if ready and spec.stems:
            run.require_room(ready, self._names, request.delivery, overwrite=request.overwrite)
        return ready

    def show_plan(self, ready: Sequence[Track]) -> None:
        """Show what would be done, and exit."""
        skipped = [result for result in self.results if isinstance(result, Skipped)]
        refused = [result for result in self.results if isinstance(result, Failed)]
        if self.request.as_json:
            for track in ready:
                self._write_event(reporting.plan_event(track, self._names))
        elif rows := reporting.plan_rows(ready, skipped, refused, self._where):
            console.write_rows(reporting.PLAN_COLUMNS, rows)
        raise typer.Exit(1 if refused else 0)

    def separate(self, ready: Sequence[Track], separator: "Separator") -> None:
        """Separate what is ready."""
        self._began = time.monotonic()  # to load the model, or even to fetch it, is no part of the speed
        if self.request.rate == "model":
            self._delivery = replace(self._delivery, rate=separator.rate)
        with self.messages.songs([track.seconds for track in ready]) as progress:
            one = partial(self._separate_one, separator=separator, progress=progress, count=len(ready))
            if self.request.jobs == 1:
                self._in_turn(ready, one, progress)
            else:
                self._side_by_side(ready, one, progress)

    def finish(self, spec: ModelSpec, fallback: Mapping[str, str] | None) -> None:
        """Say what became of all songs; exit with 1 if any of them failed."""
        took = time.monotonic() - self._began if self.request.jobs > 1 and self._began else None
        if self.request.as_json:
            console.write_json_line(reporting.end_event(self.results, spec.name, fallback, took))
        if len(self.results) > 1:
            for kind, count, text in reporting.result_rows(self.results, took):
                self.messages.note(f"{kind:<8} {count:>5}  {text}".rstrip())
            if fallback:
                self.messages.note(f"separated with {spec.name}, not with {fallback['instead_of']}")
        if any(isinstance(result, Failed) for result in self.results):
            raise typer.Exit(1)

    def fail_all(self, failed: Sequence[Failed]) -> None:
        """Tell about songs of which there will be no stems."""
        for failure in failed:
            self._tell(failure)

    def _tell(self, result: Result) -> None:
        self.results.append(result)
        if isinstance(result, Failed):
            self.messages.error(result.error)
        elif isinstance(result, Done):
            track = result.track
            self.messages.separated(track.name, self._where(track), result.report, result.seconds)
        elif not self.request.dry_run:  # the plan has it as well
            track = result.track
            self.messages.note(f"{track.name}: skipped, its stems in {track.folder} are complete")
        if self.request.as_json:
            self._write_event(reporting.result_event(result, self._names))
        elif isinstance(result, Done) and self.request.keep:
            for path in result.track.outputs(self._names).values():
                console.write(str(path))
            if self.request.player:
                console.write(str(pages.path(result.track)))

    def _where(self, track: Track) -> str:
        """Where its stems are, for people."""
        return str(track.folder) if self.request.keep else "standard output"

    def _in_turn(self, ready: Sequence[Track], one: "_One", progress: SongsProgress) -> None:
        ahead: PrefetchReader | None = None
        try:
            for number, track in enumerate(ready):
                reader, ahead = ahead, None
                if number + 1 < len(ready):
                    ahead = PrefetchReader(ready[number + 1].source, self._open)
                result = one(track, number + 1, reader)
                with progress.hidden():
                    self._tell(result)
        finally:
            if ahead:
                ahead.close()

    def _side_by_side(self, ready: Sequence[Track], one: "_One", progress: SongsProgress) -> None:

        jobs = min(self.request.jobs, len(ready))
        with ThreadPoolExecutor(jobs, "song", devices.use_threads, (devices.count_threads(jobs),)) as pool:
            try:
                started = [pool.submit(one, track, number, None) for number, track in enumerate(ready, start=1)]
                for future in as_completed(started):
                    result = future.result()
                    with progress.hidden():
                        self._tell(result)
            except BaseException:
                self._stopped.set()  # the songs that have begun end when they next tell how far they are
                pool.shutdown(cancel_futures=True)
                raise

    def _separate_one(
        self,
        track: Track,
        number: int,
        reader: PrefetchReader | None,
        *,
        separator: "Separator",
        progress: SongsProgress,
        count: int,
    ) -> Result:

        request, pace = self.request, reporting.Throttle()
        label = track.name if count == 1 else f"{number}/{count} {os.path.basename(track.name)}"  # noqa: PTH119
        if request.as_json:
            self._write_event(reporting.begin_event(track, number, count))
        with progress.song(label, track.seconds) as show, devices.memory_checked(separator.device):

            def on_progress(done: int, total: int | None) -> None:
                if self._stopped.is_set():
                    raise _Stop
                show(done, total)
                if request.as_json and pace.allows(time.monotonic()):
                    self._write_event(reporting.progress_event(track, done, total))

            def work(source: Path, outputs: dict[str, Path]) -> "Report":
                with reader if reader and reader.is_fresh() else self._open(source) as song:
                    self.messages.detail(reporting.describe_song(track.name, song))
                    overwrite = request.overwrite or track.replaces
                    return separator.separate_song(
                        song, outputs, delivery=self._delivery, overwrite=overwrite, on_progress=on_progress
                    )

            try:
                result: Result
                if request.keep:
                    result = run.run(
                        track,
                        self._names,
                        work,
                        provenance=manifest.Provenance(self._described.result(), request.settings),
                        skip_existing=request.skip_existing,
                        overwrite=request.overwrite,
                    )
                else:
                    result = run.run(track, self._names, work)
            finally:
                if reader:
                    reader.close()
            return self._with_page(result) if request.player else result

    def _page_is_free(self, track: Track) -> bool:
        """Whether its page can be written; if not, the song has failed."""
        try:
            if self.request.player:
                pages.check(track, overwrite=self.request.overwrite)
        except AudioError as error:
            self._tell(Failed(track.label, error))
            return False
        return True

    def _with_page(self, result: Result) -> Result:
        """The same result once the page to listen on is there, or what kept it from being written."""
        if isinstance(result, Failed):
            return result
        if isinstance(result, Skipped) and pages.path(result.track).exists() and not self.request.overwrite:
            return result
        try:
            pages.write(result.track, self._names, overwrite=self.request.overwrite)
        except AudioError as error:
            return Failed(result.track.label, error)
        return result

    def _write_event(self, event: Mapping[str, Any]) -> None:
        with self._writing:
            console.write_json_line(event)


_One = Callable[[Track, int, PrefetchReader | None], Result]


class _Stop(BaseException):
    """Ends the work on a song in a thread, as Ctrl-C does in the main one."""
