"""Many songs at once: what is to do, what is done already, and one song's failure that does not stop the others."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from stemsplit.audio.reading import Reader, open_reader
from stemsplit.batch import manifest, room
from stemsplit.batch.inputs import Failed
from stemsplit.batch.manifest import Provenance, Run
from stemsplit.batch.room import Shape
from stemsplit.batch.templates import LONGEST
from stemsplit.batch.tracks import Track, find, rename, require_different
from stemsplit.errors import AudioError
from stemsplit.files import FileStamp, check_room
from stemsplit.separation.outputs import Delivery, Rows

if TYPE_CHECKING:
    from stemsplit.separation.render import Report

__all__ = ["Done", "Failed", "Skipped", "Track", "check", "describe", "find", "rename", "run", "sort_out"]

Separate = Callable[[Path, dict[str, Path]], "Report"]


@dataclass(frozen=True, slots=True)
class Done:
    """A song that was separated, in `seconds` from opening it to closing its stems."""

    track: Track
    report: "Report"
    seconds: float


@dataclass(frozen=True, slots=True)
class Skipped:
    """A song whose stems were complete and up to date before."""

    track: Track


def sort_out(
    tracks: Iterable[Track], stems: Sequence[str], provenance: Provenance, *, overwrite: bool = False
) -> tuple[list[Track], list[Skipped], list[Failed]]:
    """The songs that are still to do, those that are done, and those with stems that somebody has changed.

    overwrite: replace even those. A song that is to do again knows why, and that its stems may be replaced.
    """
    ready: list[Track] = []
    skipped: list[Skipped] = []
    failed: list[Failed] = []
    for track in tracks:
        try:
            found = manifest.examine(track.manifest, track.source, track.outputs(stems), provenance)
        except AudioError as error:
            if overwrite:
                ready.append(replace(track, why="changed after it was written"))
            else:
                failed.append(Failed(track.label, error))
            continue
        if found.to_do == "nothing":
            skipped.append(Skipped(track))
        else:
            ready.append(replace(track, why=found.why))
    return ready, skipped, failed


def check(
    tracks: Iterable[Track],
    stems: Sequence[str],
    *,
    overwrite: bool,
    model: Sequence[str] | None = None,
    delivery: Delivery | None = None,
    others: Iterable[Track] = (),
    open_song: Callable[[Path], Reader] = open_reader,
) -> tuple[list[Track], list[Failed]]:
    """Sort out, in a moment, the songs that cannot be opened or whose stems exist already.

    stems: what is written of each song, as for `delivery.Rows`. model: the stems that the model gives, if others.
    others: songs that are not separated now, whose files stay as they are. What comes back knows its shape.
    Raises UsageError when stems of two songs would be the same file.
    """
    tracks, others, delivery = list(tracks), list(others), delivery or Delivery()
    require_different((*others, *tracks), stems)
    places = _Places()
    sources = {os.path.realpath(track.source) for track in (*tracks, *others)}
    sources |= {places.real(track.source) for track in (*tracks, *others)}
    ready: list[Track] = []
    failed: list[Failed] = []
    for track in tracks:
        paths = list(track.outputs(stems).values())
        try:
            with open_song(track.source) as reader:
                _require_short(track, paths)
                # Only made, not entered: this checks, and writes nothing.
                Rows(track.outputs(stems), stems if model is None else model).writer(
                    delivery,
                    rate=delivery.rate or reader.rate,
                    channels=reader.channels,
                    overwrite=overwrite or track.replaces,
                )
                shape = Shape(reader.rate, reader.channels, reader.length)
            for path in paths:
                if places.real(path) in sources:
                    raise AudioError(f"a stem of {track.label!r} would replace the song {str(path)!r}", "use --output")
        except AudioError as error:
            failed.append(_failed(track, error))
        else:
            ready.append(replace(track, shape=shape))
    return ready, failed


def require_room(tracks: Sequence[Track], stems: Sequence[str], delivery: Delivery, *, overwrite: bool) -> None:
    """AudioError if the disk has no room for what is written of songs that were checked."""
    replaced = [track.outputs(stems).values() for track in tracks if track.replaces or overwrite]
    shapes = [track.shape for track in tracks if track.shape]
    needed = room.estimate(shapes, len(stems), delivery.format)
    needed += room.waiting(shapes, len(stems)) if delivery.clip == "gain" else 0
    check_room(needed, tracks[0].output, replaced=replaced)


@overload
def run(
    track: Track, stems: Sequence[str], separate: Separate, *, provenance: Provenance | None = None
) -> Done | Failed: ...


@overload
def run(
    track: Track,
    stems: Sequence[str],
    separate: Separate,
    *,
    provenance: Provenance,
    skip_existing: bool,
    overwrite: bool = False,
) -> Done | Failed | Skipped: ...


def run(
    track: Track,
    stems: Sequence[str],
    separate: Separate,
    *,
    provenance: Provenance | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
) -> Done | Failed | Skipped:
    """Separate one song with `separate`, which is given its file and its outputs; an AudioError is a result, too.

    provenance: what its manifest is going to say; none is written without it. skip_existing: look once more, as in
    `sort_out`, as another program may have separated it in the meantime.
    """
    outputs = track.outputs(stems)
    began = time.monotonic()
    try:
        if skip_existing and provenance:
            _, skipped, failed = sort_out([track], stems, provenance, overwrite=overwrite)
            if skipped:
                return skipped[0]
            if failed:
                return failed[0]
        source = _stamps(track.source) if provenance else None
        report = separate(track.source, outputs)
    except AudioError as error:
        if skip_existing and provenance and sort_out([track], stems, provenance)[1]:
            return Skipped(track)
        return _failed(track, error)
    warnings = [_told(track, warning) for warning in report.warnings]
    if provenance and source:
        warnings += _record(track, outputs, provenance, report, *source)
    return Done(track, replace(report, warnings=tuple(warnings)), time.monotonic() - began)


def describe(result: Done | Failed | Skipped, stems: Sequence[str]) -> dict[str, Any]:
    """What became of a song, for JSON. `length` is in samples at `rate` Hz."""
    if isinstance(result, Failed):
        return {"song": result.source, "error": str(result.error), "hint": result.error.hint}
    outputs = {stem: str(path) for stem, path in result.track.outputs(stems).items()}
    if isinstance(result, Skipped):
        return {"song": result.track.label, "stems": outputs, "skipped": True}
    report = result.report
    return {
        "song": result.track.label,
        "stems": outputs,
        "rate": report.rate,
        "channels": report.channels,
        "length": report.length,
        "clipped": report.clipped,
        "peak": round(report.peak, 6),
        "gain": report.gain,
        "warnings": list(report.warnings),
        "elapsed_seconds": round(result.seconds, 3),
    }


class _Places:
    """Where files really are; thousands of them are in few folders."""

    def __init__(self) -> None:
        self._folders: dict[Path, str] = {}

    def real(self, path: Path) -> str:
        """The path of a file, which may be a link itself, without links in it."""
        if path.parent not in self._folders:
            self._folders[path.parent] = os.path.realpath(path.parent)
        return os.path.join(self._folders[path.parent], path.name)  # noqa: PTH118 (quicker)


def _require_short(track: Track, paths: Iterable[Path]) -> None:
    for path in paths:
        for name in path.relative_to(track.output).parts:
            if len(os.fsencode(name)) > LONGEST:
                told = f"the names of the stems of {track.label!r} are too long, as {name!r}"
                raise AudioError(told, "choose a shorter --filename")


def _stamps(song: Path) -> tuple[FileStamp, FileStamp]:
    """A song's content, and what shows later whether it has changed."""
    try:
        return manifest.stamp_source(song), FileStamp.of(song, hashed=False)
    except OSError as error:
        raise AudioError(f"cannot read {str(song)!r}: {error.strerror}", "check the disk, and try again") from error


def _record(
    track: Track,
    outputs: Mapping[str, Path],
    provenance: Provenance,
    report: "Report",
    source: FileStamp,
    before: FileStamp,
) -> list[str]:
    """Write the manifest; gives what the user should know about it."""
    warnings = []
    try:
        changed = FileStamp.of(track.source, hashed=False) != before
    except OSError:
        changed = True
    if changed:
        warnings.append(f"{track.label!r} was changed while it was being separated: its stems may be of no use")
    made = Run(provenance, track.label, source, report.rate, report.channels, report.length)
    try:
        manifest.record(track.manifest, made, outputs)
    except OSError as error:
        told = f"cannot write {str(track.manifest)!r}: {error.strerror}"
        warnings.append(f"{told}; --skip-existing will not know that the stems of {track.label!r} are complete")
    return warnings


def _failed(track: Track, error: AudioError) -> Failed:
    text = _told(track, str(error))
    if "'" not in text and '"' not in text and track.label != "-":  # it names no file, but among many songs it has to
        text = f"{track.label!r} cannot be separated: {text}"
    return Failed(track.label, AudioError(text, error.hint))


def _told(track: Track, text: str) -> str:
    """A sentence about a song's file, with what the user calls it instead of the name of a temporary file."""
    if track.label == str(track.source):
        return text
    return text.replace(repr(str(track.source)), "standard input")
