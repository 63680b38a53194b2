"""The events of a batch, which `separate_batch` reports as they happen; among them the result of each song."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stemsplit.batch.inputs import Failed
from stemsplit.batch.tracks import Track
from stemsplit.separation.outputs import Report
from stemsplit.storage.location import Location


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
    outputs: Mapping[str, Path | Location]
    report: Report
    seconds: float


@dataclass(frozen=True, slots=True)
class Skipped:
    """A song whose stems were complete and up to date already.

    Attributes:
        track: The song.
        outputs: Its files, by stem.
        incomplete: Whether part of the song could not be decoded when they were made.
    """

    track: Track
    outputs: Mapping[str, Path | Location]
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """A song that a dry run would separate.

    Attributes:
        track: The song; `why` says what is wrong with its existing stems.
        outputs: Its files, by stem; empty if the stems of the model are not known before it is downloaded.
    """

    track: Track
    outputs: Mapping[str, Path | Location]


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
        count: How many songs are separated in all.
    """

    track: Track
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class SongProgress:
    """Another part of a song has been separated.

    Attributes:
        track: The song.
        done: Samples separated so far, at the rate of the song.
        total: Samples of the song, or None if its header does not state the length.
    """

    track: Track
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class PageProgress:
    """Another part of the page on which to listen to a song has been written; its stems are complete.

    Attributes:
        track: The song.
        done: Samples of the stems in the page so far, at their rate.
        total: Samples of the stems, or None if their headers do not state the length.
    """

    track: Track
    done: int
    total: int | None


Result = Done | Skipped | Failed
Event = TracksFound | Planned | ModelLoading | SeparationStarted | SongStarted | SongProgress | PageProgress | Result


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What `separate_batch` did.

    Attributes:
        results: The result of each song, in the order in which they were finished.
        model: The name of the model that ran.
        planned: After a dry run, the songs that would be separated.
        planned_bytes: After a dry run, about how much room their stems would take; 0 if that is not known.
        fallback: If the bundled model replaced the default one: `instead_of` and `reason`.
        wall_seconds: Time from the first song to the last if several were separated at a time, else None.
    """

    results: Sequence[Result]
    model: str
    planned: Sequence[Planned] = ()
    planned_bytes: int = 0
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
    def planned_seconds(self) -> float:
        """The total length of the songs that a dry run would separate, as far as their headers state it."""
        return sum(song.track.seconds or 0.0 for song in self.planned)

    @property
    def audio_seconds(self) -> float:
        """The total length of the songs that were separated."""
        return sum(result.report.length / result.report.rate for result in self.done)

    @property
    def elapsed_seconds(self) -> float:
        """How long it took to separate them, without downloading and loading the model."""
        return sum(result.seconds for result in self.done) if self.wall_seconds is None else self.wall_seconds
