"""What a batch is going to do and what it has done: as rows of words for people, and as objects for programs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stemsplit.audio.reading import Reader
from stemsplit.batch import run
from stemsplit.batch.run import Done, Failed, Skipped, Track
from stemsplit.cli.console import duration
from stemsplit.errors import StemsplitError

if TYPE_CHECKING:
    from stemsplit.separation.separator import Separator

PLAN_COLUMNS = ("song", "length", "what", "stems")


def describe_song(label: str, song: Reader) -> str:
    """What is in a file, in a line."""
    length = "of unknown length" if song.length is None else duration(song.length / song.rate)
    return f"{label}: {song.rate} Hz, {'mono' if song.channels == 1 else 'stereo'}, {length}"


def describe_separator(separator: "Separator") -> str:
    """How songs are going to be separated, in a line."""
    header, plan, count = separator.ensemble.header, separator.plan, len(separator.ensemble.members)
    windows = f"windows of {plan.length / header.rate:.2f} s, a new one every {plan.hop / header.rate:.2f} s"
    networks = f"{count} network{'s' if count > 1 else ''}"
    how = f"{networks} on {separator.device}, precision {separator.options.precision}, {windows}"
    return f"{how}, {separator.batch_size} at a time"


def plan_rows(
    ready: Iterable[Track],
    skipped: Iterable[Skipped],
    failed: Iterable[Failed],
    where: Callable[[Track], str] = lambda track: str(track.folder),
) -> list[tuple[str, str, str, str]]:
    """What would be done, a row a song, for the columns PLAN_COLUMNS; songs that were checked know their length.

    where: what is told of where a song's stems go.
    """
    rows = []
    for track in ready:
        length = "?" if track.seconds is None else duration(track.seconds)
        what = f"separate again: {track.why}" if track.replaces else "separate"
        rows.append((track.name, length, what, where(track)))
    rows += [(song.track.name, "", "skip: complete", where(song.track)) for song in skipped]
    rows += [(song.source, "", f"fail: {song.error}", "") for song in failed]
    return rows


def result_rows(
    results: Sequence[Done | Failed | Skipped], took_seconds: float | None = None
) -> list[tuple[str, str, str]]:
    """What was done: how many songs, how much, how quickly; then every failure with its reason.

    took_seconds: from the first to the last, if songs were separated side by side; the sum of their times by default.
    """
    done = [result for result in results if isinstance(result, Done)]
    skipped = [result for result in results if isinstance(result, Skipped)]
    failed = [result for result in results if isinstance(result, Failed)]
    length_seconds, sum_seconds = _seconds(done)
    took_seconds = sum_seconds if took_seconds is None else took_seconds
    rows = []
    if done:
        speed = f"{length_seconds / max(took_seconds, 1e-3):.1f} x real time"
        rows.append(("done", str(len(done)), f"{duration(length_seconds)} in {duration(took_seconds)}, {speed}"))
    if skipped:
        rows.append(("skipped", str(len(skipped)), "complete before"))
    if failed:
        rows.append(("failed", str(len(failed)), ""))
        rows += [("", "", str(result.error)) for result in failed]
    return rows


def plan_event(track: Track, stems: Sequence[str]) -> dict[str, Any]:
    """The object for a song that would be separated; why: what is wrong with the stems that it has, if it has any."""
    shape = track.shape
    return {
        "event": "plan",
        "song": track.label,
        "stems": {stem: str(path) for stem, path in track.outputs(stems).items()},
        "rate": shape.rate if shape else None,
        "length": shape.length if shape else None,
        "why": track.why or None,
    }


def begin_event(track: Track, number: int, count: int) -> dict[str, Any]:
    """The object for a song that is begun, the `number`th of `count`."""
    shape = track.shape
    return {
        "event": "begin",
        "song": track.label,
        "number": number,
        "of": count,
        "rate": shape.rate if shape else None,
        "length": shape.length if shape else None,
    }


def progress_event(track: Track, done: int, total: int | None) -> dict[str, Any]:
    """The object for how far a song is; samples, as in `begin_event`."""
    return {"event": "progress", "song": track.label, "done": done, "length": total}


def result_event(result: Done | Failed | Skipped, stems: Sequence[str]) -> dict[str, Any]:
    """The object for a song that is done, skipped or failed, with all that `batch.describe` says."""
    kind = {Done: "done", Skipped: "skipped", Failed: "failed"}[type(result)]
    return {"event": kind, **run.describe(result, stems)}


def end_event(
    results: Sequence[Done | Failed | Skipped],
    model: str,
    fallback: Mapping[str, str] | None,
    took_seconds: float | None = None,
) -> dict[str, Any]:
    """The last object: the model that ran, in whose place, and how many songs became what, as in `result_rows`."""
    length_seconds, sum_seconds = _seconds([result for result in results if isinstance(result, Done)])
    return {
        "event": "end",
        "model": model,
        "fallback": dict(fallback) if fallback else None,
        **{kind.__name__.lower(): sum(isinstance(r, kind) for r in results) for kind in (Done, Skipped, Failed)},
        "audio_seconds": round(length_seconds, 3),
        "elapsed_seconds": round(sum_seconds if took_seconds is None else took_seconds, 3),
    }


def error_event(error: StemsplitError) -> dict[str, Any]:
    """The last object when nothing could be done at all."""
    return {"event": "error", "error": str(error), "hint": error.hint}


class Throttle:
    """Lets through what comes at least so many seconds after the last one: samples are written often."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds, self._next = seconds, float("-inf")

    def allows(self, now: float) -> bool:
        """Whether it is time again; `now` is a time in seconds, of a clock that does not go back."""
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def _seconds(done: Iterable[Done]) -> tuple[float, float]:
    """How much sound there was, and how long it took."""
    done = list(done)
    return sum(each.report.length / each.report.rate for each in done), sum(each.seconds for each in done)
