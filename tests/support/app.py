"""The app on this machine, and requests to it as a browser sends them."""

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stemsplit.app.guard import Guard
from stemsplit.app.queue import Queue
from stemsplit.app.server import Server, bind, build
from stemsplit.app.songs import Shelf
from stemsplit.models.registry import Registry, read_spec

PATIENCE_SECONDS = 120


def registry_of(weights: Path) -> Registry:
    """A list of one model, "tiny", in a file."""
    return Registry({"tiny": replace(read_spec(weights), name="tiny", license="none")}, "tiny")


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Running:
    """The app while it runs.

    Attributes:
        queue: Its songs.
        port: Where it listens.
    """

    def __init__(self, queue: Queue, guard: Guard, port: int) -> None:
        self.queue, self.port = queue, port
        self._guard = guard

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """The address that lets in."""
        return f"{self.origin}/?token={self._guard.token}"

    @property
    def headers(self) -> dict[str, str]:
        """What a browser sends with the requests of the app's page."""
        cookie = f"stemsplit-{self.port}={self._guard.token}"
        return {"Cookie": cookie, "Origin": self.origin, "Sec-Fetch-Site": "same-origin"}

    def ask(self, method: str, path: str, body: Any = None, **headers: str | None) -> Answer:
        """Send a request as the page does; a header that is None is left out."""
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, data, {name: value for name, value in sent.items() if value is not None})
        answer = connection.getresponse()
        result = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        connection.close()
        return result

    def upload(self, name: str, content: bytes) -> str:
        """Drop a song, and return its id."""
        answer = self.ask("PUT", "/api/songs?name=" + "".join(f"%{byte:02X}" for byte in name.encode()), content)
        assert answer.status == 201, answer
        id: str = answer.json()["id"]
        return id

    def song(self, id: str) -> dict[str, Any]:
        """What the page knows about a song."""
        songs = {song["id"]: song for song in self.ask("GET", "/api/state").json()["songs"]}
        song: dict[str, Any] = songs[id]
        return song

    def wait(self, id: str, status: str) -> dict[str, Any]:
        """Wait until a song has a status, and return it."""
        wait_for(lambda: self.song(id)["status"] in (status, "failed"))
        song = self.song(id)
        assert song["status"] == status, song
        return song

    @contextmanager
    def events(self) -> Iterator[Callable[[], Any]]:
        """A stream of events; yields a function that waits for the next one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        connection.request("GET", "/api/events", headers=self.headers)
        answer = connection.getresponse()

        def next_event() -> Any:
            while line := answer.readline():
                if line.startswith(b"data: "):
                    return json.loads(line[6:])
            return None

        try:
            yield next_event
        finally:
            connection.close()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


@contextmanager
def running(
    folder: Path,
    output: Path,
    registry: Registry,
    *,
    port: int | None = None,
    places: Mapping[str, Path] | None = None,
) -> Iterator[Running]:
    """The app in a thread; `folder` keeps its queue."""
    places = places or {"music": output, "desktop": output / "elsewhere"}
    queue = Queue(Shelf(folder), places, registry, device="cpu")
    listening = bind("127.0.0.1", port, default=0)
    guard, closing = build(queue, host="127.0.0.1", port=listening.getsockname()[1])
    server = Server(guard, closing)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    queue.start()
    thread.start()
    try:
        yield Running(queue, guard, listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        queue.close()
