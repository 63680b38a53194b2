"""Many songs: skip what is done, check what is quick to check, separate the rest. One failure stops no other song."""

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
from stemsplit.audio.formats import Format
from stemsplit.audio.read_ahead import PrefetchReader
from stemsplit.audio.reading import AudioInfo, Reader, open_reader
from stemsplit.batch import manifest, templates
from stemsplit.batch.inputs import Failed
from stemsplit.batch.manifest import Provenance, Run
from stemsplit.batch.standard_input import StandardInput
from stemsplit.batch.templates import Template
from stemsplit.batch.tracks import Track, check_distinct, find_tracks, with_model
from stemsplit.errors import AudioError, UsageError
from stemsplit.files import FileStamp, check_free, check_room
from stemsplit.models import hub
from stemsplit.models.registry import LocalModel, ModelSpec, check_masks, read_registry
from stemsplit.player.page import write_player
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.outputs import COMPLEMENT, MIXTURE, STEM_FILE, Delivery, Rows
from stemsplit.wording import duration

if TYPE_CHECKING:
    from stemsplit.separation.render import Report
    from stemsplit.separation.separator import Separator

_log = logging.getLogger(__name__)

_FILE_OVERHEAD = 4_096  # bytes of a file besides its samples: the header, and what is left of the last block
_LOSSLESS_RATIO = 0.5  # of FLAC or ALAC to PCM; the stems of the demo song take 0.43, with 16 bits 0.30

SeparateSong = Callable[[Path, dict[str, Path]], "Report"]
"""Separates the file of a song into the files of its stems."""


@dataclass(frozen=True, slots=True)
class Done:
    """A song that was separated.

    Attributes:
        track: The song.
        outputs: Its new files, by stem.
        report: What was written.
        seconds: Time from opening the song to closing its stems.
    """

    track: Track
    outputs: Mapping[str, Path]
    report: "Report"
    seconds: float


@dataclass(frozen=True, slots=True)
class Skipped:
    """A song whose stems were complete and up to date already.

    Attributes:
        track: The song.
        outputs: Its files, by stem.
    """

    track: Track
    outputs: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Planned:
    """A song that a dry run would separate.

    Attributes:
        track: The song; `why` tells what is wrong with the stems that it has.
        outputs: Its files, by stem; empty if the stems of the model are not known before it is downloaded.
    """

    track: Track
    outputs: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class TracksFound:
    """The inputs were searched; nothing has been checked yet.

    Attributes:
        tracks: The songs.
    """

    tracks: Sequence[Track]


@dataclass(frozen=True, slots=True)
class ModelLoading:
    """The model is being loaded into memory, until `SeparationStarted`.

    Attributes:
        model: Its name.
    """

    model: str


@dataclass(frozen=True, slots=True)
class SeparationStarted:
    """The model is loaded.

    Attributes:
        tracks: The songs that are separated now.
    """

    tracks: Sequence[Track]


@dataclass(frozen=True, slots=True)
class SongStarted:
    """A song is about to be separated.

    Attributes:
        track: The song.
        number: Its number, from 1.
        count: Of all songs that are separated.
    """

    track: Track
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class SongProgress:
    """A part of a song is done.

    Attributes:
        track: The song.
        done: Samples that are separated, at the rate of the song.
        total: Samples of the song, or None if its header does not tell.
    """

    track: Track
    done: int
    total: int | None


Result = Done | Skipped | Failed
Event = TracksFound | Planned | ModelLoading | SeparationStarted | SongStarted | SongProgress | Result


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What `separate_batch` did.

    Attributes:
        results: What became of each song, in the order in which that was known.
        model: The name of the model that ran.
        planned: The songs that would be separated, after a dry run.
        fallback: If the bundled model took the place of the default one: `instead_of` and `reason`.
        wall_seconds: From the first song to the last, when several were separated at a time; else None.
    """

    results: Sequence[Result]
    model: str
    planned: Sequence[Planned] = ()
    fallback: Mapping[str, str] | None = None
    wall_seconds: float | None = None

    @property
    def done(self) -> list[Done]:
        """The songs that were separated."""
        return [result for result in self.results if isinstance(result, Done)]

    @property
    def skipped(self) -> list[Skipped]:
        """The songs whose stems were complete already."""
        return [result for result in self.results if isinstance(result, Skipped)]

    @property
    def failed(self) -> list[Failed]:
        """The inputs without stems."""
        return [result for result in self.results if isinstance(result, Failed)]

    @property
    def audio_seconds(self) -> float:
        """The total length of the songs that were separated."""
        return sum(each.report.length / each.report.rate for each in self.done)

    @property
    def elapsed_seconds(self) -> float:
        """How long it took to separate them, without downloading and loading the model."""
        return sum(each.seconds for each in self.done) if self.wall_seconds is None else self.wall_seconds


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
    filename: str = templates.DEFAULT.text,
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
    at all. A manifest beside the stems of each song tells later runs what they were made of.

    Args:
        inputs: The songs; folders are searched recursively, and mirrored in `output`.
        output: The folder of all stems.
        model: A name from models.toml, `hf://OWNER/NAME[@REVISION]` or the path of a weights file; the default model of
            models.toml if None. It is never replaced by another.
        stems: The wanted stems; all by default.
        complement: Write the mixture without the wanted stem, too, as `no_vocals`; needs exactly one in `stems`.
        mixture: Write the song itself beside its stems.
        stem_file: Write one file with all four stems for DJ software, too.
        player: Write an HTML page on which to listen to the stems.
        options: How to separate.
        delivery: How to write the stems: format, rate, clipping.
        filename: Template of the stems' names, with `{track}`, `{stem}`, `{ext}`, `{model}`, `{folder}`, `{index}`,
            `{title}` and `{artist}`.
        include: Patterns of names, such as "*.flac"; folders are searched for these only.
        exclude: Patterns of what is left out in folders.
        audio_stream: Which one of files with several, from 1.
        device: "cpu", "cuda", "mps", or "auto" for the fastest that is available.
        jobs: Songs that are separated at a time.
        skip_existing: Leave out songs whose stems are complete and up to date, and replace those that are not.
        overwrite: Replace files that exist.
        dry_run: Check everything, and separate nothing.
        manifests: Write them.
        registry: A models.toml that adds to ours and to the one in the user's configuration folder.
        download: Downloads the model, as `models.hub.download` does; a program may want to show that.
        on_event: Called with what happens, from one thread at a time, but not always the same.

    Raises:
        UsageError: The arguments contradict each other or the model, or two songs would get the same files.
        ModelError: There is no such model, it cannot be run, or not be downloaded.
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
    template = Template.parse(filename)
    with StandardInput() as stdin:  # its song is needed until the last one is done
        tracks, failed = find_tracks(
            [os.fspath(each) for each in inputs],
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
        """Return the songs that are left to separate with this model, after all checks that are quick."""
        # Hashed while torch is imported, which takes about as long for a large file.
        self._described_model = self._hashing.submit(manifest.describe_model, spec)
        self._names = self._file_names(spec.stems)
        tracks = with_model(tracks, spec.name)
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
            others=[each.track for each in skipped],
            open_song=self._open,
        )
        self.finish_all(unusable)
        for each in skipped:
            self._finish(self._with_page(each) if self.player and not dry_run else each)
        if self.player:
            ready = [track for track in ready if self._check_page(track)]
        if ready and spec.stems:
            self._check_room(ready)
        return ready

    def _file_names(self, stems: Sequence[str]) -> tuple[str, ...]:
        """Return the names of all files of a song; none as long as the stems of the model are not known."""
        if not stems:
            return ()
        names = [*stems, *(COMPLEMENT + stem for stem in stems if self.complement)]
        names += [MIXTURE] if self.mixture else []
        names += [STEM_FILE] if self.stem_file else []
        return tuple(dict.fromkeys(names))  # a model may have a stem of that name

    def plan(self, ready: Sequence[Track], spec: ModelSpec) -> BatchReport:
        """Report what would be done."""
        planned = [Planned(track, track.outputs(self._names)) for track in ready]
        for each in planned:
            self._emit(each)
        return BatchReport(self.results, spec.name, planned)

    def run(
        self, ready: Sequence[Track], expected: ModelSpec, download: Callable[[ModelSpec], LocalModel]
    ) -> BatchReport:
        """Separate the songs that `prepare` has left."""
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
        for each in failed:
            self._finish(each)

    def _load(self, model: LocalModel) -> "Separator":
        self._emit(ModelLoading(model.spec.name))
        with signals.deferred():  # these import torch, which takes seconds, and aborts if it is interrupted
            from stemsplit.models.ensemble import load_model
            from stemsplit.separation.separator import Separator

        _log.info("model %s: %s", model.spec.name, ", ".join(map(str, model.paths)))
        device = devices.choose(self.device)
        chain = load_model(model, device=device, reuse_networks=self.jobs == 1)
        return Separator(chain, self.options, device=device)

    def _separate_all(self, ready: Sequence[Track], separator: "Separator") -> float:
        """Separate songs; return how many seconds that took."""
        began = time.monotonic()
        self._emit(SeparationStarted(ready))
        separate = partial(self._separate, separator, len(ready))
        if self.jobs == 1:
            self._in_turn(ready, separate)
        else:
            self._side_by_side(ready, separate)
        return time.monotonic() - began

    def _in_turn(self, ready: Sequence[Track], separate: "_SeparateTrack") -> None:
        """Separate one song after the other, with the next one decoded ahead."""
        ahead: PrefetchReader | None = None
        try:
            for number, track in enumerate(ready, start=1):
                reader, ahead = ahead, None
                if number < len(ready):
                    ahead = PrefetchReader(ready[number].source, self._open)
                with signals.deferred():  # a song with complete stems gets its manifest, and is reported
                    self._finish(separate(track, number, reader))
        finally:
            if ahead:
                ahead.close()

    def _side_by_side(self, ready: Sequence[Track], separate: "_SeparateTrack") -> None:
        """Separate several songs at a time, each with its share of the threads."""
        jobs = min(self.jobs, len(ready))
        threads = (devices.count_threads(jobs),)
        with signals.deferred(), ThreadPoolExecutor(jobs, "song", devices.use_threads, threads) as pool:
            try:
                started = [pool.submit(separate, track, number, None) for number, track in enumerate(ready, start=1)]
                for future in as_completed(started):
                    self._finish(future.result())
            except BaseException:
                self._stopped.set()  # songs that have begun end at their next block
                pool.shutdown(cancel_futures=True)
                raise

    def _separate(
        self, separator: "Separator", count: int, track: Track, number: int, ahead: PrefetchReader | None
    ) -> Result:
        self._emit(SongStarted(track, number, count))

        def on_progress(done: int, total: int | None) -> None:
            if self._stopped.is_set():
                raise _Stop
            self._emit(SongProgress(track, done, total))

        def separate(source: Path, outputs: dict[str, Path]) -> "Report":
            with ahead if ahead and ahead.is_fresh() else self._open(source) as song:
                _log.info("%s: %s", track.name, _describe_song(song))
                return separator.separate_song(
                    song,
                    outputs,
                    delivery=self.delivery,
                    overwrite=self.overwrite or track.replaces,
                    on_progress=on_progress,
                )

        try:
            with devices.memory_checked(separator.device):
                result = separate_track(
                    track,
                    self._names,
                    separate,
                    provenance=self._provenance() if self.manifests else None,
                    skip_existing=self.skip_existing,
                    overwrite=self.overwrite,
                )
        finally:
            if ahead:
                ahead.close()
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
        """Return whether the player page can be written; if not, the song has failed."""
        try:
            check_free(track.player_page, overwrite=self.overwrite or track.replaces)
        except AudioError as error:
            self._finish(Failed(track.label, error))
            return False
        return True

    def _with_page(self, result: Result) -> Result:
        """Write the player page of a song; return its result, or why the page cannot be written."""
        if isinstance(result, Failed):
            return result
        track = result.track
        if isinstance(result, Skipped) and track.player_page.exists() and not self.overwrite:
            return result
        stems = {name: path for name, path in result.outputs.items() if name not in (MIXTURE, STEM_FILE)}
        try:
            write_player(
                track.player_page,
                str(track.values["track"]),
                stems,
                overwrite=self.overwrite or track.replaces,
            )
        except AudioError as error:
            return Failed(track.label, error)
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


def partition_existing(
    tracks: Iterable[Track], stems: Sequence[str], provenance: Provenance, *, overwrite: bool = False
) -> tuple[list[Track], list[Skipped], list[Failed]]:
    """Compare the stems that songs have with those that are wanted.

    Args:
        tracks: The songs.
        stems: The names of all files that are wanted of each.
        provenance: What they are to be made of.
        overwrite: Replace stems even if somebody has changed them.

    Returns:
        The songs that are left to separate, with `why` set if they have stems that may be replaced; those whose stems
        are complete and up to date; and those with stems that somebody has changed.
    """
    ready: list[Track] = []
    skipped: list[Skipped] = []
    failed: list[Failed] = []
    for track in tracks:
        outputs = track.outputs(stems)
        try:
            status = manifest.check_stems(track.manifest, track.source, outputs, provenance)
        except AudioError as error:
            if overwrite:
                ready.append(replace(track, why="changed after it was written"))
            else:
                failed.append(Failed(track.label, error))
            continue
        if status.to_do == "nothing":
            skipped.append(Skipped(track, outputs))
        else:
            ready.append(replace(track, why=status.why))
    return ready, skipped, failed


def partition_separable(
    tracks: Iterable[Track],
    stems: Sequence[str],
    *,
    overwrite: bool,
    model_stems: Sequence[str] | None = None,
    delivery: Delivery | None = None,
    others: Iterable[Track] = (),
    open_song: Callable[[Path], Reader] = open_reader,
) -> tuple[list[Track], list[Failed]]:
    """Find the songs that cannot be opened, or whose stems cannot be written, without separating anything.

    Args:
        tracks: The songs; the header of each is read, unless its `info` is known.
        stems: The names of all files that are written of each.
        overwrite: Whether these may exist.
        model_stems: The stems of the model, if these are others.
        delivery: How they are written.
        others: Songs that are not separated now, whose files must stay as they are.
        open_song: Opens the file of a song.

    Returns:
        The songs that can be separated, with their `info`, and the others.

    Raises:
        UsageError: Stems of two songs would be the same file.
    """
    tracks, others, delivery = list(tracks), list(others), delivery or Delivery()
    check_distinct((*others, *tracks), stems)
    links = _LinkResolver()
    sources = {os.path.realpath(track.source) for track in (*tracks, *others)}
    sources |= {links.resolve(track.source) for track in (*tracks, *others)}
    ready: list[Track] = []
    failed: list[Failed] = []
    for track in tracks:
        outputs = track.outputs(stems)
        try:
            info = track.info
            if info is None:
                with open_song(track.source) as reader:
                    info = AudioInfo(reader.rate, reader.channels, reader.length)
            _check_name_lengths(track, outputs.values())
            # Made but not entered, the writer only checks, and writes nothing.
            Rows(outputs, stems if model_stems is None else model_stems).writer(
                delivery,
                rate=delivery.rate_for(info.rate, info.rate),
                channels=info.channels,
                overwrite=overwrite or track.replaces,
            )
            for path in outputs.values():
                if links.resolve(path) in sources:
                    message = f"a stem of {track.label!r} would replace the song {str(path)!r}"
                    raise AudioError(message, "use --output", path=path)
        except AudioError as error:
            failed.append(_failure(track, error))
        else:
            ready.append(replace(track, info=info))
    return ready, failed


def separate_track(
    track: Track,
    stems: Sequence[str],
    separate: SeparateSong,
    *,
    provenance: Provenance | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
) -> Result:
    """Separate one song; an AudioError becomes a result.

    Args:
        track: The song.
        stems: The names of all files that are written of it.
        separate: Does the work.
        provenance: What the manifest is going to say; None for no manifest.
        skip_existing: Check the stems once more before, as another program may have made them in the meantime.
        overwrite: Replace even stems that somebody has changed.
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
    except AudioError as error:
        if skip_existing and provenance and partition_existing([track], stems, provenance)[1]:
            return Skipped(track, outputs)
        return _failure(track, error)
    warnings = [_with_label(track, warning) for warning in report.warnings]
    if provenance and source:
        warnings += _record(track, outputs, provenance, report, *source)
    return Done(track, outputs, replace(report, warnings=tuple(warnings)), time.monotonic() - began)


def estimate_size(infos: Iterable[AudioInfo], files: int, format: Format) -> int:
    """Estimate how much the stems of songs take.

    Args:
        infos: What the headers of the songs say; those of unknown length count as empty.
        files: Stems of each song.
        format: Of the stems.

    Returns:
        Bytes.
    """
    ratio = _LOSSLESS_RATIO if format.lossless and format.name != "wav" else 1.0
    total = 0
    for info in infos:
        seconds = (info.length or 0) / info.rate
        total += files * (round(seconds * format.bytes_per_second(info.rate, info.channels) * ratio) + _FILE_OVERHEAD)
    return total


def estimate_spool(infos: Iterable[AudioInfo], files: int) -> int:
    """Return the bytes that the longest song takes in float32 until its gain is known; `files` of each song."""
    return max((files * 4 * info.channels * (info.length or 0) for info in infos), default=0)


class _LinkResolver:
    """Resolves symbolic links quickly: thousands of files are in few folders."""

    def __init__(self) -> None:
        self._folders: dict[Path, str] = {}

    def resolve(self, path: Path) -> str:
        """Return a path without links in its folders; the file may be one itself."""
        if path.parent not in self._folders:
            self._folders[path.parent] = os.path.realpath(path.parent)
        return os.path.join(self._folders[path.parent], path.name)  # noqa: PTH118 (quicker)


def _describe_song(song: Reader) -> str:
    length = "of unknown length" if song.length is None else duration(song.length / song.rate)
    return f"{song.rate} Hz, {'mono' if song.channels == 1 else 'stereo'}, {length}"


def _check_name_lengths(track: Track, paths: Iterable[Path]) -> None:
    for path in paths:
        for name in path.relative_to(track.output).parts:
            if len(os.fsencode(name)) > templates.MAX_NAME_BYTES:
                message = f"the names of the stems of {track.label!r} are too long, as {name!r}"
                raise AudioError(message, "choose a shorter --filename", path=path)


def _stamp_source(song: Path) -> tuple[FileStamp, FileStamp]:
    """Return a song's content, and what shows later whether it has changed."""
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
) -> list[str]:
    """Write the manifest; return warnings."""
    warnings = []
    try:
        changed = FileStamp.of(track.source, hashed=False) != before
    except OSError:
        changed = True
    if changed:
        warnings.append(f"{track.label!r} was changed while it was being separated: its stems may be of no use")
    run = Run(provenance, track.label, source, report.rate, report.channels, report.length)
    try:
        manifest.record_run(track.manifest, run, outputs)
    except OSError as error:
        message = f"cannot write {str(track.manifest)!r}: {error.strerror}"
        warnings.append(f"{message}; --skip-existing will not know that the stems of {track.label!r} are complete")
    return warnings


def _failure(track: Track, error: AudioError) -> Failed:
    """Return a failure whose message names the song."""
    text = _with_label(track, str(error))
    if "'" not in text and '"' not in text and track.label != "-":  # it names no file, but among many songs it has to
        text = f"{track.label!r} cannot be separated: {text}"
    return Failed(track.label, AudioError(text, error.hint, path=error.path, model=error.model, stem=error.stem))


def _with_label(track: Track, text: str) -> str:
    """Replace the name of a temporary file in a sentence by what the user calls the song."""
    if track.label == str(track.source):
        return text
    return text.replace(repr(str(track.source)), "standard input")
