"""A Hugging Face Hub in miniature, on this machine: what the real client asks for, answered as the real Hub does.

Small files are answered at once, under an ETag that is no SHA-256; large ones are redirected to another host, with the
hash and the size in headers of their own; errors carry X-Error-Code. What goes wrong on purpose is set in `faults`.
"""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Faults:
    """What the server does wrong.

    Attributes:
        status: Status of all answers about files and repositories.
        code: X-Error-Code beside that status.
        corrupt: How many downloads have a byte changed.
        truncate: End the body early, though the stated size is right.
        cut_after: Bytes after which a connection is closed, `cuts` times.
        cuts: How many connections are closed early.
        delay_seconds: Wait before every answer.
        drip: Send a byte every tenth of a second.
        size: Size that HEAD states instead of the true one.
        commit: Commit that the server states.
        metadata: Status of the check of a model card.
        portal: What a network that wants a login answers instead of the Hub: "page", "redirect", or "json".
    """

    status: int = 0
    code: str = ""
    corrupt: int = 0
    truncate: bool = False
    cut_after: int = 0
    cuts: int = 0
    delay_seconds: float = 0.0
    drip: bool = False
    size: int = 0
    commit: str = COMMIT
    metadata: int = 200
    portal: str = ""


SMALL = 1000  # bytes; smaller files are no LFS files


@dataclass
class Hub:
    """Repositories by name, each with its files by path; `requests` has method and path of all that was asked."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    port: int = 0

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT has to be."""
        return f"http://127.0.0.1:{self.port}"

    def add(self, repo: str, path: str, content: bytes) -> str:
        """Put a file into a repository; gives its SHA-256."""
        self.files.setdefault(repo, {})[path] = content
        return hashlib.sha256(content).hexdigest()

    def asked(self, method: str) -> int:
        """How many requests of that method there were."""
        return sum(request.startswith(method + " ") for request in self.requests)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        if not self._is_portal():
            self._resolve()

    def do_GET(self) -> None:
        if self._is_portal():
            return
        if self.path.startswith("/cdn/"):
            self._send_file(*self._file(self.path.removeprefix("/cdn/")))
        elif self.path.startswith("/api/models/"):
            self._describe_repository()
        elif self.path.startswith("/api/"):  # whatever else the client is curious about
            self._fail(404, "")
        else:
            self._resolve()

    def _is_portal(self) -> bool:
        """Answer as a network that wants a login, if this is one."""
        portal = self.hub.faults.portal
        if portal == "redirect" and self.path != "/login":
            self._note()
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.hub.port}/login")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif portal:
            self._note()
            body = b'["log in"]' if portal == "json" else b"<html>log in</html>"
            self.send_response(200)
            self.send_header("Content-Type", "application/json" if portal == "json" else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)
        return bool(portal)

    def _describe_repository(self) -> None:
        """/api/models/{owner}/{name}, or that with /revision/{revision}"""
        self._note()
        faults = self.hub.faults
        owner, name, *rest = unquote(urlsplit(self.path).path).split("/")[3:]
        repo = f"{owner}/{name}"
        if faults.status:
            self._fail(faults.status, faults.code)
        elif repo not in self.hub.files:
            self._fail(401, "RepoNotFound")
        elif rest and rest[1:] not in (["main"], [COMMIT]):
            self._fail(404, "RevisionNotFound")
        else:
            siblings = [{"rfilename": path} for path in self.hub.files[repo]]
            private = repo in self.hub.private
            self._send_json({"id": repo, "sha": faults.commit, "private": private, "siblings": siblings})

    def do_POST(self) -> None:
        """Publishing: make a repository, say which files are to be sent how, take them in a commit."""
        self._note()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path).path.strip("/").split("/")
        if not self.headers.get("Authorization"):
            self._fail(401, "")
        elif parts[:2] == ["api", "repos"]:
            table = json.loads(body)
            repo = f"{table.get('organization') or 'me'}/{table['name']}"
            if repo not in self.hub.files and (table.get("private") or table.get("visibility") == "private"):
                self.hub.private.add(repo)
            self.hub.files.setdefault(repo, {})
            self._send_json({"url": f"{self.hub.endpoint}/{repo}"})
        elif parts[:2] == ["api", "validate-yaml"]:
            wrong = [] if self.hub.faults.metadata == 200 else [{"message": "odd"}]
            self._send_json({"errors": wrong, "warnings": []}, self.hub.faults.metadata)
        elif parts[4:5] == ["preupload"]:
            modes = {file["path"]: "regular" if file["size"] < SMALL else "lfs" for file in json.loads(body)["files"]}
            self._send_json(
                {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]}
            )
        elif parts[2:] == ["info", "lfs", "objects", "batch"]:
            wanted = json.loads(body)["objects"]
            for each in wanted:
                each["actions"] = {"upload": {"href": f"http://localhost:{self.hub.port}/upload/{each['oid']}"}}
            self._send_json({"transfer": "basic", "objects": wanted})
        elif parts[4:5] == ["commit"]:
            for line in map(json.loads, body.splitlines()):
                value, into = line["value"], "/".join(parts[2:4])
                if line["key"] == "file":
                    self.hub.add(into, value["path"], base64.b64decode(value["content"]))
                elif line["key"] == "lfsFile":
                    self.hub.add(into, value["path"], self.hub.uploads[value["oid"]])
            repo = "/".join(parts[2:4])
            self._send_json({"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._fail(404, "")

    def do_PUT(self) -> None:
        """A large file on its way into a commit."""
        self._note()
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.uploads[self.path.rpartition("/")[2]] = content
        self._send_json({})

    def log_message(self, format: str, *args: Any) -> None: ...

    def _note(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        if token := self.headers.get("Authorization"):
            self.hub.tokens.append(token)
        time.sleep(self.hub.faults.delay_seconds)

    def _file(self, path: str) -> tuple[str, bytes]:
        owner, name, *rest = unquote(path).split("/")
        return f"{owner}/{name}", self.hub.files[f"{owner}/{name}"]["/".join(rest)]

    def _resolve(self) -> None:
        """/{owner}/{name}/resolve/{revision}/{path}"""
        self._note()
        faults = self.hub.faults
        owner, name, _, revision, *rest = unquote(urlsplit(self.path).path).strip("/").split("/")
        repo, path = f"{owner}/{name}", "/".join(rest)
        if faults.status:
            return self._fail(faults.status, faults.code)
        if repo not in self.hub.files:
            return self._fail(401, "RepoNotFound")
        if revision not in (COMMIT, "main"):
            return self._fail(404, "RevisionNotFound")
        if path not in self.hub.files[repo]:
            return self._fail(404, "EntryNotFound")
        content = self.hub.files[repo][path]
        if len(content) < SMALL:
            self.send_response(200)
            self.send_header("X-Repo-Commit", faults.commit)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)
            return None
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.hub.port}/cdn/{repo}/{path}")
        self.send_header("X-Repo-Commit", faults.commit)
        self.send_header("X-Linked-ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(faults.size or len(content)))
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _send_file(self, repo: str, content: bytes) -> None:
        self._note()
        faults = self.hub.faults
        if faults.corrupt:
            faults.corrupt -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        if wanted := self.headers.get("Range"):
            self.hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if faults.drip:
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(0.1)
        elif faults.truncate:
            self._cut(body[: len(body) // 2])
        elif faults.cuts:
            faults.cuts -= 1
            self._cut(body[: faults.cut_after])
        else:
            self.wfile.write(body)

    def _cut(self, body: bytes) -> None:
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = True
        self.connection.close()

    def _fail(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        if code == "EntryNotFound":
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve() -> Iterator[Hub]:
    """A Hub that runs until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
