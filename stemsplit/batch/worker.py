"""A worker of a cluster: a process that loads the model once, and then separates one song after the other.

This is a plain class, of which `cluster` makes an actor. What it is told and what it returns is small, and can be
pickled: names of songs, and results; sound goes from the disk or the server to the worker and back.
"""

import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stemsplit import devices
from stemsplit.batch import manifest
from stemsplit.batch.checks import partition_existing
from stemsplit.batch.events import Result
from stemsplit.batch.manifest import Provenance
from stemsplit.batch.song import Request, SongSeparator
from stemsplit.batch.tracks import Track
from stemsplit.errors import AudioError, ModelError, StemsplitError, UsageError
from stemsplit.models import hub
from stemsplit.models.registry import ModelSpec
from stemsplit.version import __version__

PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all workers of a batch are told.

    Attributes:
        request: What is asked of each song.
        names: Of all files that are written of a song.
        provenance: What the stems are made with.
        model: The model; the paths of its files are absolute.
        package: Where stemsplit is on the machine that gives the job: bundled files of the model are below it.
        device: What to run on.
        threads: How many a worker uses on the processor.
        landmark: A file in the folder of all stems, by which a worker can tell that it sees the same one; None if that
            is at a URL.
    """

    request: Request
    names: tuple[str, ...]
    provenance: Provenance
    model: ModelSpec
    package: Path
    device: str
    threads: int
    landmark: Path | None


class Progress(NamedTuple):
    """How far a song is: samples done and their number, if that is known, of the song, or of its page."""

    done: int = 0
    total: int | None = None
    on_page: bool = False


class SongWorker:
    """Separates songs in a process of its own. What concerns its owner is returned, not raised."""

    def __init__(self) -> None:
        self._separator: SongSeparator | None = None
        self._job: Job | None = None
        self._progress = Progress()
        self._stopped = threading.Event()

    def load(self, version: str, job: Job) -> tuple[str, StemsplitError | None]:
        """Get ready; return the name of this machine, and why it cannot separate songs, unless it can."""
        host = socket.gethostname()
        if version != __version__:  # the first argument in any version, as all the others may change
            message = f"stemsplit {__version__} is installed there, and {version} here"
            return host, UsageError(message, "install the same version on all machines of the cluster")
        try:
            self._load(job)
        except StemsplitError as error:
            return host, error
        return host, None

    def _load(self, job: Job) -> None:
        if job.landmark and not job.landmark.exists():
            hint = "name a folder that all machines of the cluster share, or a URL"
            raise UsageError(f"the folder {str(job.landmark.parent)!r} of this machine is not there", hint)
        devices.keep_freed_memory()

        def place(path: Path) -> Path:
            return PACKAGE / path.relative_to(job.package) if path.is_relative_to(job.package) else path

        spec = job.model.with_paths(place)
        if manifest.describe_model(spec) != job.provenance.model:
            message = f"the weights of the model {spec.name!r} differ from those here"
            raise ModelError(message, "copy the file to all machines of the cluster", model=spec.name)
        # The licence was accepted where the batch was started.
        model = hub.download(spec, accept_license=lambda part: True)
        self._job = job
        self._separator = SongSeparator.load(
            job.request, job.names, lambda: job.provenance, model, device=job.device, reuse_networks=True
        )

    def separate(self, track: Track, *, again: bool) -> Result | StemsplitError | None:
        """Separate a song.

        Args:
            track: The song; its paths are absolute.
            again: Whether a worker has died of it, which may have left some stems, or all of them.

        Returns:
            The result; what is wrong with this worker or with all songs; or None if it was stopped.
        """
        separator, job = self._separator, self._job
        assert separator
        assert job
        self._progress = Progress()
        devices.use_threads(job.threads)  # of this thread, which is not that of `load`
        if isinstance(track.source, Path) and not track.source.exists():
            message = f"{track.label!r} is not there on the machine {socket.gethostname()!r} of the cluster"
            return track.failure(AudioError(message, "songs have to be on a disk that all machines share, or at URLs"))

        if again and job.request.manifests:
            ready, skipped, failed = partition_existing(
                [track], job.names, job.provenance, overwrite=job.request.overwrite
            )
            if not ready:
                return skipped[0] if skipped else failed[0]
            track = ready[0]

        def show(done: int, total: int | None) -> None:
            self._check()
            self._progress = Progress(done, total)

        def show_page(done: int, total: int | None) -> None:
            self._check()
            self._progress = Progress(done, total, on_page=True)

        try:
            return separator.separate(track, on_progress=show, on_page=show_page, check=self._check, announced=True)
        except _Stop:
            return None
        except StemsplitError as error:
            return error

    def progress(self) -> Progress:
        """Return how far the song is."""
        return self._progress

    def stop(self) -> None:
        """End the work on the song at its next block; nothing of it is left behind."""
        self._stopped.set()

    def _check(self) -> None:
        if self._stopped.is_set():
            raise _Stop


class _Stop(BaseException):
    """Ends the work on a song, which takes an Exception for a failure of its own."""
