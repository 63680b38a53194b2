"""The server of the app: a page, an interface for it, and a stream of what changes."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from stemsplit import settings
from stemsplit.app.downloads import Mix, render_mix, stream_zip
from stemsplit.app.guard import PAGE_POLICY, Guard
from stemsplit.app.queue import Change, Queue
from stemsplit.app.songs import Choices, Song
from stemsplit.audio.formats import FORMATS, Format
from stemsplit.batch.inputs import SUFFIXES
from stemsplit.errors import AudioError, StemsplitError, UsageError
from stemsplit.models import cache
from stemsplit.models.registry import FALLBACK, ModelSpec, is_supported
from stemsplit.version import __version__

FOLDER = Path(__file__).parent
STATIC = {
    "app.css": "text/css",
    "app.js": "text/javascript",
    "strings.js": "text/javascript",
}
PRESETS = {
    "four": "",
    "karaoke": settings.PRESETS["karaoke"],
    "vocals": settings.PRESETS["vocals"],
    "best": settings.PRESETS["best"],
    "quick": FALLBACK,
}
"""Models by what they are good for; the first is the default model of models.toml."""

ROOM = 256 * 2**20  # bytes that an upload leaves free on the disk
LARGEST_JSON = 2**16  # bytes
_CHECK_EVERY = 16 * 2**20  # bytes
_ALIVE_SECONDS = 15  # between two signs of life on a quiet stream


@dataclass(frozen=True)
class App:
    """What answers the requests, for a queue.

    Attributes:
        queue: The songs.
        closing: Set when the server ends, so that streams end.
    """

    queue: Queue
    closing: asyncio.Event

    def routes(self) -> list[Route]:
        """Return all addresses."""
        song = "/api/songs/{id:str}"
        return [
            Route("/", self.page),
            Route("/static/{name:str}", self.static),
            Route("/api/state", self.state),
            Route("/api/events", self.events),
            Route("/api/choices", self.choose, methods=["PATCH"]),
            Route("/api/songs", self.upload, methods=["PUT"]),
            Route(song, self.remove, methods=["DELETE"]),
            Route(f"{song}/cancel", self.cancel, methods=["POST"]),
            Route(f"{song}/retry", self.retry, methods=["POST"]),
            Route(f"{song}/mix", self.mix, methods=["POST"]),
            Route(f"{song}/folder", self.open_folder, methods=["POST"]),
            Route(f"{song}/player", self.player),
            Route(f"{song}/zip", self.archive),
            Route(f"{song}/files/{{name:str}}", self.file),
        ]

    async def page(self, request: Request) -> Response:
        return FileResponse(FOLDER / "app.html", media_type="text/html; charset=utf-8")

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404)
        return FileResponse(FOLDER / name, media_type=f"{STATIC[name]}; charset=utf-8")

    # What there is

    async def state(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._state))

    def _state(self) -> dict[str, Any]:
        registry = self.queue.registry
        presets = [{"id": id, "model": name or registry.default} for id, name in PRESETS.items()]
        return {
            "version": __version__,
            "places": [{"id": id, "path": str(path.absolute())} for id, path in self.queue.places.items()],
            "suffixes": sorted(SUFFIXES),
            "formats": [{"name": name, "label": Format(name).label} for name in FORMATS],
            "presets": [each for each in presets if each["model"] in registry.models],
            "models": [describe_model(spec) for spec in registry.models.values() if is_supported(spec)],
            "choices": asdict(self.queue.choices),
            "songs": [song.public() for song in self.queue.songs()],
        }

    async def events(self, request: Request) -> Response:
        """A stream of server-sent events: the state, then every change. A page that reconnects gets the state anew."""
        loop, changes = asyncio.get_running_loop(), asyncio.Queue[Change]()

        def listener(change: Change) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(changes.put_nowait, change)

        async def stream() -> AsyncIterator[str]:
            stop = self.queue.listen(listener)
            closing = asyncio.ensure_future(self.closing.wait())
            try:
                yield _event({"state": await run_in_threadpool(self._state)})
                while not self.closing.is_set():
                    waiting = asyncio.ensure_future(changes.get())
                    await asyncio.wait((waiting, closing), timeout=_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    if waiting.done():
                        yield _event(waiting.result())
                    else:
                        waiting.cancel()
                        yield ": still here\n\n"
            finally:
                closing.cancel()
                stop()

        return StreamingResponse(stream(), media_type="text/event-stream")

    # What is to be done

    async def choose(self, request: Request) -> Response:
        """Change some of the choices, and keep the others."""
        changes = await _json(request)
        if not isinstance(changes, dict):
            raise UsageError("the choices are not those of this version", "reload the page")
        now = asdict(self.queue.choices)
        choices = {**now, "stems": list(now["stems"]), **changes}
        self.queue.choose(Choices.parse(choices, self.queue.registry, self.queue.places))
        return Response(status_code=204)

    async def upload(self, request: Request) -> Response:
        """Take a song: its bytes are the body, as they are; its name, which is for people, is a parameter."""
        name = request.query_params.get("name", "")
        song, path = await run_in_threadpool(self.queue.new_upload, name)
        complete = False
        try:
            await _receive(request, path)
            complete = True
        except ClientDisconnect:
            return Response(status_code=400)  # nobody hears it
        finally:
            if not complete:
                await run_in_threadpool(self.queue.discard, song)
        await run_in_threadpool(self.queue.add, song)
        return JSONResponse({"id": song.id}, 201)

    async def remove(self, request: Request) -> Response:
        await run_in_threadpool(self.queue.remove, self._song(request).id)
        return Response(status_code=204)

    async def cancel(self, request: Request) -> Response:
        self.queue.cancel(self._song(request).id)
        return Response(status_code=204)

    async def retry(self, request: Request) -> Response:
        wanted = await _json(request)
        model = wanted.get("model", "") if isinstance(wanted, dict) else None
        if (model and model not in self.queue.registry.models) or not isinstance(model, str):
            raise UsageError("there is no such model", "choose one of the list")
        self.queue.retry(self._song(request).id, model)
        return Response(status_code=204)

    async def mix(self, request: Request) -> Response:
        """Write a mix beside the stems; return its name, and how many of its samples were clipped."""
        song, mix = self._done(request), Mix.parse(await _json(request))
        stems = {stem: Path(path) for stem, path in song.stems.items()}
        format = Format(song.choices.format)

        def check() -> None:
            if self.closing.is_set():
                raise UsageError("stemsplit was ended before the mix was complete", "start it, and save the mix again")

        path, clipped = await run_in_threadpool(render_mix, stems, mix, Path(song.folder), format, check=check)
        return JSONResponse({"name": path.name, "clipped": clipped}, 201)

    async def open_folder(self, request: Request) -> Response:
        opened = await run_in_threadpool(open_in_file_manager, Path(self._done(request).folder))
        return JSONResponse({"opened": opened})

    # What can be taken away

    async def player(self, request: Request) -> Response:
        song = self._done(request)
        if not Path(song.page).is_file():
            raise HTTPException(404)
        headers = {"Content-Security-Policy": PAGE_POLICY, "Cross-Origin-Resource-Policy": "same-origin"}
        return FileResponse(song.page, media_type="text/html; charset=utf-8", headers=headers)

    async def archive(self, request: Request) -> Response:
        song = self._done(request)
        stream = stream_zip([Path(path) for path in song.stems.values()])
        name = f"{Path(song.folder).name}.zip"
        return StreamingResponse(stream, media_type="application/zip", headers=_as_file(name))

    async def file(self, request: Request) -> Response:
        """A stem by its name, or a mix by that of its file: looked up, never joined to a path."""
        song, name = self._done(request), request.path_params["name"]
        files = {stem: Path(path) for stem, path in song.stems.items()}
        files |= {path.name: path for path in Path(song.folder).glob("mix*") if path.suffix != ".part"}
        if name not in files or not files[name].is_file():
            raise HTTPException(404)
        return FileResponse(files[name], headers=_as_file(f"{Path(song.folder).name} - {files[name].name}"))

    def _song(self, request: Request) -> Song:
        song = self.queue.find(request.path_params["id"])
        if song is None:
            raise HTTPException(404)
        return song

    def _done(self, request: Request) -> Song:
        song = self._song(request)
        if song.status != "done":
            raise HTTPException(404)
        return song


def build(queue: Queue, *, host: str, port: int) -> tuple[Guard, asyncio.Event]:
    """Return the application, and an event to set when the server ends.

    Args:
        queue: The songs.
        host: Address that the server listens at.
        port: Its port.
    """
    closing = asyncio.Event()
    handlers: dict[Any, Any] = {StemsplitError: _explain, HTTPException: _explain_status}
    return Guard(
        Starlette(routes=App(queue, closing).routes(), exception_handlers=handlers), host=host, port=port
    ), closing


def bind(host: str, port: int | None, *, default: int) -> socket.socket:
    """Return a listening socket: at `port`, or else at the default one, or else at any that is free.

    Raises:
        UsageError: The port is taken, or the address is not one of this machine.
    """
    for attempt in [port] if port is not None else [default, 0]:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, attempt), family=family)
        except OSError as error:
            problem = error
    reason = problem.strerror or str(problem)
    raise UsageError(
        f"cannot listen at {host}, port {port or default}: {reason.lower()}", "choose another --port, or leave it out"
    )


def serve(queue: Queue, listening: socket.socket, on_start: Callable[[str], object]) -> None:
    """Serve until a signal ends it; `on_start` is called with the address that lets in."""
    host, port = listening.getsockname()[:2]
    guard, closing = build(queue, host=host, port=port)
    server = Server(guard, closing)
    queue.start()
    try:
        name = f"[{host}]" if ":" in host else host
        on_start(f"http://{name}:{port}/?token={guard.token}")
        server.run(sockets=[listening])
    finally:
        queue.close()


class Server(uvicorn.Server):
    """Answers requests over HTTP until it is told to exit; then streams end at once.

    Args:
        guard: The application, from `build`.
        closing: The event, from `build`.
    """

    def __init__(self, guard: Guard, closing: asyncio.Event) -> None:
        super().__init__(
            uvicorn.Config(
                guard,
                log_level="error",
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=2,
            )
        )
        self._closing = closing

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, end all streams, and wait for the answers that are on their way."""
        self._closing.set()
        await super().shutdown(sockets)


def describe_model(spec: ModelSpec) -> dict[str, Any]:
    """Return what a page shows of a model; `size` is what is left to download, in bytes."""
    missing = [
        file.size
        for part in spec.parts
        if part.path is None
        for file in part.files
        if cache.find_file(part, file) is None
    ]
    return {
        "name": spec.name,
        "summary": spec.summary,
        "license": spec.license,
        "stems": list(spec.stems),
        "here": not missing,
        "confirm": any(part.confirm for part in spec.parts),
        "size": None if None in missing else sum(size or 0 for size in missing),
    }


def open_in_file_manager(folder: Path) -> bool:
    """Show a folder as the desktop does; return whether that was possible."""
    program = {"darwin": "open", "win32": "explorer"}.get(sys.platform, "xdg-open")
    if not folder.is_dir() or not shutil.which(program):
        return False
    quiet = subprocess.DEVNULL
    subprocess.Popen([program, str(folder)], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    return True


async def _receive(request: Request, path: Path) -> None:
    """Write the body of a request to a new file, as long as the disk has room."""
    stated = request.headers.get("content-length", "")
    expected = int(stated) if stated.isdecimal() else None
    _check_room(path, expected or 0)
    count = checked = 0
    try:
        with path.open("xb") as file:
            async for chunk in request.stream():
                await run_in_threadpool(file.write, chunk)
                count += len(chunk)
                if count - checked >= _CHECK_EVERY:
                    checked = count
                    _check_room(path, 0)
    except OSError as error:
        raise _full(path) from error
    if expected is not None and count != expected:
        raise ClientDisconnect
    if not count:
        raise AudioError(
            f"{request.query_params.get('name', '')!r} is empty (0 bytes)", "drop a file that has sound in it"
        )


def _check_room(path: Path, needed: int) -> None:
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:  # not known on some file systems
        return
    if needed + ROOM > free:
        raise _full(path)


def _full(path: Path) -> AudioError:
    return AudioError("the disk has no room for this song", "make room, and drop it again", path=path)


async def _json(request: Request) -> Any:
    """Return the body of a request, which must be JSON and small."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_JSON:
            raise HTTPException(413)
    try:
        return json.loads(body or b"{}")
    except ValueError as error:
        raise HTTPException(400) from error


def _event(value: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _as_file(name: str) -> dict[str, str]:
    """Return the header that makes a browser save what it gets, under a name of any letters (RFC 6266)."""
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}


async def _explain(request: Request, error: Exception) -> Response:
    """Answer with the sentence and the hint of an error."""
    assert isinstance(error, StemsplitError)
    full = isinstance(error, AudioError) and request.method == "PUT"
    return JSONResponse({"error": str(error), "hint": error.hint}, 507 if full else 400)


async def _explain_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail, "hint": ""}, error.status_code)
