"""A web server with songs and with every fault that one can have."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import urlsplit


class WebServer(ThreadingHTTPServer):
    """Serves `content` at every path; the first folder says how.

    Attributes:
        content: What each file contains.
        requests: How often each path was asked for, by method and path.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.requests: Counter[str] = Counter()
        self.released = Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that have gone."""

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def web_server(content: bytes) -> Iterator[WebServer]:
    """Run a server within the block."""
    with WebServer(content) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: WebServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = urlsplit(self.path).path
        way = path.split("/")[1]
        key = f"{self.command} {path}"
        self.server.requests[key] += 1
        count, content = self.server.requests[key], self.server.content
        if way.isdigit():
            return self._error(int(way))
        if way == "busy" and count <= 2:
            return self._error(503)
        if way == "no-head" and not body:
            return self._error(405)
        if way == "moved":
            self.send_response(302)
            self.send_header("Location", "/plain/song.wav?token=hunter2")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if way == "silent":
            self.server.released.wait(20)
        sent, stated = content, len(content)
        if way == "cut" or (way == "cut-once" and body and count == 1):
            sent = content[: len(content) // 2]
        if way == "says-less":  # in the answer to HEAD
            stated = len(content) if body else len(content) // 2
        start, end = self._range(way, len(content))
        self.send_response(206 if (start, end) != (0, len(content)) else 200)
        if way == "ranges":
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
        if (start, end) != (0, len(content)):
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            sent, stated = sent[start:end], end - start
        if way == "unknown":
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(stated))
        self.send_header("Content-Type", "text/html" if way == "page" else "audio/wav")
        self.end_headers()
        if body:
            self.wfile.write(sent)
        if len(sent) < len(content):
            self.close_connection = True
        return None

    def _range(self, way: str, length: int) -> tuple[int, int]:
        header = self.headers.get("Range")
        if way != "ranges" or not header:
            return 0, length
        first, _, last = header.removeprefix("bytes=").partition("-")
        return int(first), min(int(last) + 1 if last else length, length)

    def _error(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
