"""Reports of a batch, before and after: rows of text for people, objects for programs."""

from collections.abc import Callable
from typing import Any

from stemsplit.batch.events import BatchReport, Done, Planned, Result, Skipped, SongProgress, SongStarted
from stemsplit.batch.inputs import Failed
from stemsplit.batch.tracks import Track
from stemsplit.errors import StemsplitError
from stemsplit.wording import duration, size_of, speed_of, told

PLAN_COLUMNS = ("song", "length", "what", "stems")


def plan_rows(
    report: BatchReport, where: Callable[[Track], str] = lambda track: str(track.folder)
) -> list[tuple[str, str, str, str]]:
    """Return what a dry run would do, a row for each song, for the columns `PLAN_COLUMNS`.

    Args:
        report: Of the dry run.
        where: Returns where the stems of a song go.
    """
    rows = []
    for song in report.planned:
        track = song.track
        length = "?" if track.seconds is None else duration(track.seconds)
        what = f"separate again: {track.why}" if track.replaces else "separate"
        rows.append((track.name, length, what, where(track)))
    rows += [(song.track.name, "", "skip: complete", where(song.track)) for song in report.skipped]
    rows += [(song.source, "", f"fail: {told(song.error)}", "") for song in report.failed]
    return rows


def plan_summary(report: BatchReport, speed: float | None) -> str:
    """Return a sentence on what a dry run would do in all.

    Args:
        report: Of the dry run.
        speed: Of the model on this machine, in times real time, if that was measured.
    """
    count, seconds = len(report.planned), report.planned_seconds
    songs = f"{count} song{'s' if count > 1 else ''}, {duration(seconds)}, with {report.model}"
    takes = f"about {duration(seconds / speed)}" if speed else "a time that  stemsplit doctor  can find out"
    size = f", and {size_of(report.planned_bytes)} of stems" if report.planned_bytes else ""
    return f"{songs}: {takes}{size}"


def result_rows(report: BatchReport) -> list[tuple[str, str, str]]:
    """Return what was done: how many songs, how much audio, how quickly; then the failures that are out of sight."""
    rows = []
    if report.done:
        speed = speed_of(report.audio_seconds, report.elapsed_seconds)
        text = f"{duration(report.audio_seconds)} in {duration(report.elapsed_seconds)}, {speed}"
        rows.append(("done", str(len(report.done)), text))
    if report.skipped:
        rows.append(("skipped", str(len(report.skipped)), "complete before"))
    if report.failed:
        rows.append(("failed", str(len(report.failed)), ""))
        last = max((number for number, result in enumerate(report.results) if isinstance(result, Done)), default=0)
        # Those after the last song that was done have just been told.
        rows += [("", "", told(result.error)) for result in report.results[:last] if isinstance(result, Failed)]
    return rows


def plan_event(planned: Planned) -> dict[str, Any]:
    """Return the object for a song that would be separated; `why` says what is wrong with its existing stems."""
    return {
        "event": "plan",
        "song": planned.track.label,
        "stems": {stem: str(path) for stem, path in planned.outputs.items()},
        **_info(planned.track),
        "why": planned.track.why or None,
    }


def begin_event(started: SongStarted) -> dict[str, Any]:
    """Return the object for a song that has been started."""
    track = started.track
    return {
        "event": "begin",
        "song": track.label,
        "number": started.number,
        "of": started.count,
        **_info(track),
    }


def progress_event(progress: SongProgress) -> dict[str, Any]:
    """Return the object for a part of a song that is done; in samples, as in `begin_event`."""
    return {"event": "progress", "song": progress.track.label, "done": progress.done, "length": progress.total}


def result_event(result: Result, *, player: bool = False) -> dict[str, Any]:
    """Return the object for a song that is done, skipped or failed; `length` is in samples at `rate` Hz.

    Args:
        result: The result.
        player: Whether the song has a page, whose path is told.
    """
    if isinstance(result, Failed):
        return {"event": "failed", "song": result.source, "error": told(result.error), "hint": result.error.hint}
    song = {"song": result.track.label, "stems": {stem: str(path) for stem, path in result.outputs.items()}}
    song |= {"page": str(result.track.player_page)} if player else {}
    if isinstance(result, Skipped):
        return {"event": "skipped", **song, "skipped": True, "incomplete": result.incomplete}
    report = result.report
    return {
        "event": "done",
        **song,
        "rate": report.rate,
        "channels": report.channels,
        "length": report.length,
        "clipped": report.clipped,
        "peak": round(report.peak, 6),
        "gain": report.gain,
        "consistent": report.consistent,
        "incomplete": report.incomplete,
        "warnings": list(report.warnings),
        "elapsed_seconds": round(result.seconds, 3),
    }


def end_event(report: BatchReport) -> dict[str, Any]:
    """Return the last object: the model that ran, the one that it replaced, and the number of songs by result."""
    return {
        "event": "end",
        "model": report.model,
        "fallback": dict(report.fallback) if report.fallback else None,
        "done": len(report.done),
        "skipped": len(report.skipped),
        "failed": len(report.failed),
        "audio_seconds": round(report.audio_seconds, 3),
        "elapsed_seconds": round(report.elapsed_seconds, 3),
    }


def error_event(error: StemsplitError) -> dict[str, Any]:
    """Return the last object when nothing could be done at all."""
    return {"event": "error", "error": told(error), "hint": error.hint}


class Throttle:
    """Limits how often something is printed.

    Args:
        seconds: The shortest time between two prints.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds, self._next = seconds, float("-inf")

    def allows(self, now: float) -> bool:
        """Return whether to print now, a time in seconds of a monotonic clock."""
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def _info(track: Track) -> dict[str, Any]:
    info = track.info
    return {"rate": info.rate if info else None, "length": info.length if info else None}
