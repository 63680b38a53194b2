"""A server that speaks the protocol of S3, by moto, on this machine."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Faults:
    """Answers some requests in place of the server.

    Attributes:
        answer: Returns the status and the code of an error for a method and a path, or None for a real answer.
        log: The method and the path of each request.
    """

    def __init__(self, application: Any) -> None:
        self.answer: Callable[[str, str], tuple[str, str] | None] = lambda method, path: None
        self.log: list[str] = []
        self._application = application

    def __call__(self, environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environment["REQUEST_METHOD"], environment["PATH_INFO"]
        self.log.append(f"{method} {path}?{environment['QUERY_STRING']}")
        if error := self.answer(method, path):
            status, code = error
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [] if method == "HEAD" else [body]
        result: Iterable[bytes] = self._application(environment, start_response)
        return result


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """Run a server with the bucket `bucket` within the block, and let the environment name it."""
    import fsspec  # type: ignore[import-untyped]
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    assert server._server
    faults = Faults(server._server.app)
    server._server.app = faults
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs = fsspec.get_filesystem_class("s3")
    s3fs.clear_instance_cache()
    try:
        fsspec.filesystem("s3").mkdir("bucket")
        yield faults
    finally:
        s3fs.clear_instance_cache()
        server.stop()
