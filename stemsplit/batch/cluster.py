"""A batch on a cluster of Ray: which machine separates which song.

Each worker is an actor, a process that has loaded the model and has at most one song at a time, so that neither this
process nor the object store of Ray grows with the number of songs. What a song needs is known to `song` alone.

Actors, and not Ray Data, whose blocks of rows would have to be tuned to one song each, and which tells neither how far
a song is nor which song killed its worker. Ray restarts no actor by itself (`max_restarts` stays 0), as it would
repeat the song that killed it there and then.
"""

import logging
import os
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stemsplit import signals
from stemsplit.audio.writing import reporting
from stemsplit.batch.events import Done, PageProgress, Result, Skipped, SongProgress, SongStarted
from stemsplit.batch.inputs import Failed
from stemsplit.batch.tracks import Track
from stemsplit.batch.worker import Job, SongWorker
from stemsplit.errors import AudioError, DeviceError, StemsplitError, UsageError
from stemsplit.files import beside, sweep
from stemsplit.storage.location import Location
from stemsplit.storage.redaction import redact
from stemsplit.version import DISTRIBUTION, __version__
from stemsplit.wording import one_line

_log = logging.getLogger(__name__)

DEATHS = 3
"""Of workers while they separate the same song, after which it is not tried again."""

_USUAL_CORES = 4  # of a worker without a GPU: with more of them, a song is hardly any faster
_POLL_SECONDS = 0.2  # how long Ctrl-C may wait
_PROGRESS_SECONDS = 1.0  # between two questions to a worker
_QUESTIONS = 50  # a second to all workers together
_RECOUNT_SECONDS = 5.0  # between two looks at which machines there are
_ROOM_SECONDS = 30.0  # without any worker, after which that is told
_STOP_SECONDS = 10.0  # for songs in progress to end in order
_CONNECT_SECONDS = 10.0
_LOSSES = 20  # workers that die, without one song done in between, after which no more are started
_START = "start one with  ray start --head,  or use --cluster local"
_AT_A_TIME = 3  # calls of a worker: a song, how far it is, and that it should stop
_LANDMARK = "cluster"  # the beginning of its name
_OBJECT_STORE = 100 * 2**20  # bytes: it has hardly any use here, and Ray would take a third of the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Where a batch runs, if not in this process.

    Attributes:
        address: Of a cluster of Ray: "auto" for the one that this machine belongs to or that `RAY_ADDRESS` names,
            "HOST:PORT", "ray://HOST:PORT"; or "local" for the processes of this machine alone.
        gpus_per_worker: The share of a GPU that a worker has, above 0 and at most 1.
        cpus_per_worker: How many cores a worker has; None for one beside a GPU, else for four, or as many as there are.
        workers: How many songs are separated at a time, at most; None for as many as there is room for.

    Raises:
        UsageError: A value is out of range.
    """

    address: str
    gpus_per_worker: float = 1.0
    cpus_per_worker: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.gpus_per_worker <= 1:
            raise UsageError(
                f"a worker can have a GPU or a share of one, not {self.gpus_per_worker:g}", "such as 1, 0.5 or 0.25"
            )
        if self.cpus_per_worker is not None and self.cpus_per_worker < 1:
            raise UsageError(f"a worker needs at least one core, not {self.cpus_per_worker}")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"the number of workers must be at least 1, not {self.workers}")


@contextmanager
def landmark(folder: Path | Location) -> Iterator[Path | None]:
    """Yield a file in the folder of all stems, which machines that see the same folder see as well; none at a URL.

    Raises:
        AudioError: It cannot be written.
    """
    if isinstance(folder, Location):
        yield None
        return
    path = beside(folder.absolute() / _LANDMARK)
    with reporting(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder / _LANDMARK)
        path.touch()
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink()
            folder.rmdir()  # if it has no stems


@contextmanager
def connected(options: ClusterOptions) -> Iterator[None]:
    """Be connected to a cluster within the block; a program that is connected already stays so.

    Raises:
        StemsplitError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        with signals.deferred():
            import ray
    except ImportError:
        hint = f"pip install '{DISTRIBUTION}[cluster]'"
        raise StemsplitError("--cluster needs Ray, which is not installed", hint) from None
    if ray.is_initialized():
        yield
        return
    printing = ray._private.worker.print_to_stdstream
    ray._private.worker.print_to_stdstream = _log_message
    try:
        with signals.deferred(), signals.kept():
            _connect(ray, options.address)
        yield
    finally:
        with signals.deferred():
            ray.shutdown()
        ray._private.worker.print_to_stdstream = printing


def _connect(ray: Any, address: str) -> None:
    arguments: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody unasked
        # Ray starts workers with a niceness of 15, with which they hardly get ahead beside other programs.
        os.environ.setdefault("RAY_worker_niceness", "0")
        arguments |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
        if not os.access("/dev/shm", os.W_OK):
            arguments["_plasma_directory"] = tempfile.gettempdir()
    else:
        _check_answers(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
    try:
        ray.init(address, **arguments)
    except ImportError as error:
        message = f"{address!r} needs the client of Ray, which is not installed"
        raise StemsplitError(message, "pip install 'ray[client]'") from error
    except Exception as error:  # of many classes, by the reason
        reason = redact(one_line(error))
        if "ersion mismatch" in reason:
            hint = "install the versions of Ray and of Python that the cluster has"
            raise StemsplitError(f"the cluster {address!r} runs another version: {reason}", hint) from error
        hint = "if it asks for a token, set RAY_AUTH_MODE=token" if "RAY_AUTH_MODE" not in os.environ else _START
        raise StemsplitError(f"cannot connect to the cluster {address!r}: {reason}", hint) from error


def _log_message(data: dict[str, Any], *arguments: Any, **options: Any) -> None:
    """Log what Ray says of its machines, which it would print to standard output, where the paths of the stems go."""
    for line in data["lines"]:
        _log.info("%s", line)


def _check_answers(address: str) -> None:
    """Raise an error if nobody listens at an address, for which Ray itself would wait for minutes."""
    if address == "auto":
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port or (10001 if parts.scheme == "ray" else None)
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in ("", "ray"):
        raise UsageError(
            f"{address!r} is not the address of a cluster", "write auto, local, HOST:PORT or ray://HOST:PORT"
        )
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise StemsplitError(f"cannot connect to the cluster {address!r}: {one_line(error)}", _START) from None


@dataclass(eq=False, slots=True)
class _Song:
    """A song that is to be separated."""

    track: Track
    number: int
    deaths: int = 0


@dataclass(eq=False, slots=True)
class _Worker:
    """An actor, and what it does."""

    actor: Any
    loading: bool = True
    song: _Song | None = None
    asked: bool = False  # how far the song is
    refused: bool = False  # to separate songs; it keeps its place, so that no other worker is started there


@dataclass(eq=False, slots=True)
class _Call:
    """A call to a worker that has not returned yet."""

    worker: _Worker
    kind: str
    song: _Song | None = None


@dataclass(frozen=True, slots=True)
class Needs:
    """What a worker takes of a machine.

    Attributes:
        cpus: Cores.
        gpus: The share of a GPU, or 0.
        device: What it runs on.
    """

    cpus: int
    gpus: float
    device: str

    @classmethod
    def of(cls, options: ClusterOptions, device: str, machines: Sequence[Mapping[str, float]]) -> "Needs":
        """Return what each worker takes: a GPU if the cluster has any, unless another device is asked for.

        Machines without a GPU do nothing then, as stems that a processor makes differ in the last bits.

        Args:
            options: What the user says about it.
            device: As of `separate_batch`.
            machines: What each machine of the cluster has: "CPU", "GPU".

        Raises:
            DeviceError: No machine has that, and no number of workers says that others will come.
        """
        with_gpus = any(machine.get("GPU", 0) > 0 for machine in machines)
        if device == "cuda" or (device == "auto" and with_gpus):
            needs = cls(options.cpus_per_worker or 1, options.gpus_per_worker, "cuda")
        else:
            largest = int(max((machine.get("CPU", 0) for machine in machines), default=0))
            cores = options.cpus_per_worker or max(1, min(_USUAL_CORES, largest))
            needs = cls(cores, 0, "cpu" if device == "auto" else device)
        if not options.workers and not any(map(needs.met_by, machines)):
            hint = "ask for less, or say with --jobs how many workers there will be when the cluster has grown"
            raise DeviceError(f"no machine of the cluster has room for a worker, which takes {needs}", hint)
        return needs

    def __str__(self) -> str:
        cores = f"{self.cpus} core{'s' if self.cpus > 1 else ''}"
        return f"{cores} and {self.gpus:g} of a GPU" if self.gpus else cores

    def met_by(self, machine: Mapping[str, float]) -> int:
        """Return how many workers a machine has room for."""
        by_cpus = int(machine.get("CPU", 0) // self.cpus)
        # Whole shares of each GPU: with 0.6 of one, two GPUs have room for two workers.
        return min(by_cpus, int(machine.get("GPU", 0)) * int(1 / self.gpus + 1e-6)) if self.gpus else by_cpus


class WorkerPool:
    """The workers of a cluster that is connected; a context manager that ends them.

    Args:
        options: How many there are, and how large.
        device: What to run on, as of `separate_batch`.
    """

    def __init__(self, options: ClusterOptions, device: str) -> None:
        import ray

        self._ray, self._options = ray, options
        self._needs = Needs.of(options, device, _machines(ray))
        self._job: Job | None = None
        self._actors: Any = ray.remote(
            num_cpus=self._needs.cpus, num_gpus=self._needs.gpus, max_restarts=0, max_concurrency=_AT_A_TIME
        )(SongWorker)
        self._workers: list[_Worker] = []
        self._calls: dict[Any, _Call] = {}
        self._refusals: list[StemsplitError] = []
        self._losses = self._most = 0
        self._recount = float("-inf")

    @property
    def device(self) -> str:
        """What each worker runs on."""
        return self._needs.device

    @property
    def threads(self) -> int:
        """How many threads each of them uses on the processor."""
        return self._needs.cpus

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *error: object) -> None:
        with signals.deferred():
            for _ in self._stop():
                pass  # nobody listens any more
            for worker in self._workers:
                with suppress(Exception):
                    self._ray.kill(worker.actor)

    def start(self, job: Job, songs: int) -> None:
        """Start workers for a number of songs, and wait until one of them has loaded the model.

        Raises:
            StemsplitError: No worker can.
        """
        self._job = job
        patience = time.monotonic() + _ROOM_SECONDS
        while not any(not worker.loading and not worker.refused for worker in self._workers):
            signals.check()
            self._fill(songs)
            for _ in self._collect():
                pass
            if time.monotonic() > patience:
                patience = float("inf")
                _log.warning("the cluster has no room for a worker yet: waiting until it has")

    def separate(self, tracks: Sequence[Track]) -> Iterator[SongStarted | SongProgress | PageProgress | Result]:
        """Separate songs, each by the next worker that is free; yield what happens, and the result of each song.

        Raises:
            StemsplitError: Of a worker, if it concerns every song; or no worker can go on.
            Stopped: A signal asks to stop; songs in progress were ended in order.
        """
        waiting = deque(_Song(track, number) for number, track in enumerate(tracks, start=1))
        left, ask = len(waiting), time.monotonic() + _PROGRESS_SECONDS
        try:
            while left:
                signals.check()
                self._fill(left)
                for worker in self._workers:
                    if waiting and not (worker.loading or worker.refused or worker.song):
                        song = waiting.popleft()
                        yield SongStarted(song.track, song.number, len(tracks))
                        self._begin(worker, song)
                for event in self._collect(waiting):
                    left -= isinstance(event, (Done, Skipped, Failed))
                    yield event
                if time.monotonic() >= ask:
                    # Each question takes the driver a few milliseconds, which hundreds of workers must not use up.
                    ask = time.monotonic() + max(_PROGRESS_SECONDS, len(self._workers) / _QUESTIONS)
                    self._ask()
        except signals.Stopped:
            yield from self._stop()
            raise

    def _fill(self, songs: int) -> None:
        """Start as many workers as there is room for, but no more than there are songs."""
        if time.monotonic() < self._recount:
            return
        self._recount = time.monotonic() + _RECOUNT_SECONDS
        room = self._options.workers or sum(map(self._needs.met_by, _machines(self._ray)))
        while len(self._workers) < min(room, songs):
            worker = _Worker(self._actors.remote())
            self._workers.append(worker)
            self._calls[worker.actor.load.remote(__version__, self._job)] = _Call(worker, "load")
        self._most = max(self._most, len(self._workers))

    def _begin(self, worker: _Worker, song: _Song) -> None:
        worker.song = song
        call = worker.actor.separate.remote(_absolute(song.track), again=song.deaths > 0)
        self._calls[call] = _Call(worker, "separate", song)

    def _ask(self) -> None:
        """Ask busy workers how far they are."""
        for worker in self._workers:
            if worker.song and not worker.asked:
                worker.asked = True
                call = worker.actor.progress.remote()
                self._calls[call] = _Call(worker, "progress", worker.song)

    def _collect(self, waiting: "deque[_Song] | None" = None) -> Iterator[SongProgress | PageProgress | Result]:
        """Wait a little for calls to return, and yield what they say; songs of dead workers wait again."""
        if not self._calls:
            time.sleep(_POLL_SECONDS)
            return
        ready, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=_POLL_SECONDS)
        for reference in ready:
            call = self._calls.pop(reference)
            if call.worker not in self._workers:  # it has been given up
                continue
            try:
                value = self._ray.get(reference)
            except self._ray.exceptions.RayActorError as error:
                yield from self._lose(call.worker, waiting, error)
            except self._ray.exceptions.RayTaskError as error:  # a bug
                raise error.cause if isinstance(error.cause, Exception) else error from error
            else:
                yield from self._take(call, value, waiting)

    def _take(self, call: _Call, value: Any, waiting: "deque[_Song] | None") -> Iterator[Any]:
        """Yield what a worker has said."""
        worker, song = call.worker, call.song
        if call.kind == "load":
            worker.loading = False
            host, refusal = value
            if refusal:
                self._refuse(worker, host, refusal)
            return
        assert song
        if call.kind == "progress":
            worker.asked = False
            if worker.song is song and value.done:
                kind = PageProgress if value.on_page else SongProgress
                yield kind(song.track, value.done, value.total)
            return
        if isinstance(value, DeviceError):  # such as too little memory, which another one may have
            yield from self._lose(worker, waiting, value)
            return
        worker.song = None
        if isinstance(value, StemsplitError):
            raise value
        if value is not None:
            self._losses = 0
            yield _result(value, song.track)

    def _refuse(self, worker: _Worker, host: str, refusal: StemsplitError) -> None:
        worker.refused = True
        self._refusals.append(refusal)
        if all(other.refused for other in self._workers):
            first = self._refusals[0]
            raise type(first)(f"no worker of the cluster can separate songs: on {host!r}, {first}", first.hint)
        _log.warning("the worker on %r is not used: %s", host, refusal)

    def _lose(self, worker: _Worker, waiting: "deque[_Song] | None", reason: Exception) -> Iterator[Result]:
        """Give up a worker, and let its song be tried again unless it has killed too many."""
        self._workers.remove(worker)
        with suppress(Exception):  # if it is only out of reach, it must not go on
            self._ray.kill(worker.actor)
        self._recount = float("-inf")
        self._losses += 1
        _log.info("a worker is lost: %s", reason)
        if getattr(reason, "actor_init_failed", False) or self._losses >= max(_LOSSES, 2 * self._most):
            raise self._hopeless(reason)
        if song := worker.song:
            song.deaths += 1
            if song.deaths < DEATHS and waiting is not None:
                _log.warning("a worker died while it separated %r: another one tries it again", song.track.name)
                waiting.appendleft(song)
            elif waiting is not None:
                yield Failed(song.track.label, _deadly(song, reason))

    def _hopeless(self, reason: Exception) -> StemsplitError:
        if "ModuleNotFoundError" in str(reason) or "failed to import" in str(reason):
            message = "the machines of the cluster cannot import stemsplit"
            return StemsplitError(message, f"install {DISTRIBUTION} {__version__} on all of them")
        message = f"{self._losses} workers died one after the other, and no song was separated in between"
        return StemsplitError(f"{message}: {one_line(reason)}", "the logs of Ray on those machines say more")

    def _stop(self) -> Iterator[Result]:
        """Let workers end their songs at the next block; yield the results of those that were complete by then."""
        for worker in self._workers:
            if worker.song:
                with suppress(Exception):
                    worker.actor.stop.remote()
        end = time.monotonic() + _STOP_SECONDS
        while any(worker.song for worker in self._workers) and time.monotonic() < end:
            try:
                for event in self._collect():
                    if isinstance(event, (Done, Skipped, Failed)):
                        yield event
            except StemsplitError:
                continue
            except Exception:  # the cluster is gone, say
                return


def _result(result: Result, track: Track) -> Result:
    """Return a result with the paths as the user typed them."""
    if isinstance(result, Failed):
        return result
    return replace(result, track=track, outputs=track.outputs(list(result.outputs)))


def _absolute(track: Track) -> Track:
    """Return a song for a process that has another current folder."""
    source, output = track.source, track.output
    return replace(
        track,
        source=source.absolute() if isinstance(source, Path) else source,
        output=output.absolute() if isinstance(output, Path) else output,
    )


def _deadly(song: _Song, reason: Exception) -> AudioError:
    why = f": {reason}" if isinstance(reason, StemsplitError) else ""
    message = f"{song.track.name!r} cannot be separated: {song.deaths} workers died while they tried{why}"
    return AudioError(message, "the logs of Ray say why; too little memory is the usual reason")


def _machines(ray: Any) -> list[dict[str, float]]:
    """Return what each machine of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
