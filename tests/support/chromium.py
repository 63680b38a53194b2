"""A headless Chromium for tests, controlled over a pair of pipes: no port, no network, no other package.

The protocol is https://chromedevtools.github.io/devtools-protocol/: JSON objects, each followed by a zero byte.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = [
    "--headless=new",
    "--no-sandbox",  # tests may run as root in a container
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
]
START = """
import os, sys
for wanted, passed in enumerate(sys.argv[1:3], 3):
    os.dup2(int(passed), wanted)
os.nice(19)
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE_SECONDS = 60


class Page:
    """A tab.

    Attributes:
        problems: errors and warnings of the page.
        requests: addresses that the page requested.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", reading: int, writing: int) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._process, self._reading, self._writing = process, reading, writing
        self._received = b""
        self._count = 0
        self._session = ""
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: Any) -> Any:
        """Send a command, and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._count:
            self._notice(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, path: Path) -> None:
        """Open a file, and wait until it is loaded."""
        self.command("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def visit(self, address: str) -> None:
        """Open an address, and wait until its page is loaded."""
        self.command("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.protocol === 'http:'")

    @contextmanager
    def other_tab(self, address: str) -> Iterator[None]:
        """Act on another tab, with the same cookies, for the time of a context."""
        target = self.command("Target.createTarget", url=address)["targetId"]
        with self._attached(target):
            self.wait("document.readyState === 'complete' && location.protocol === 'http:'")
            yield
        self.command("Target.closeTarget", targetId=target)

    @contextmanager
    def inside(self, address: str) -> Iterator[None]:
        """Act on the document in a frame without an origin for the time of a context; `address` is where it ends."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not (found := [each for each in self._targets() if each["url"].endswith(address)]):
            assert time.monotonic() < end, f"no frame is at {address}: {self._targets()}"
            time.sleep(0.02)
        with self._attached(found[0]["targetId"]):
            yield

    def _targets(self) -> list[dict[str, Any]]:
        targets: list[dict[str, Any]] = self.command("Target.getTargets")["targetInfos"]
        return targets

    @contextmanager
    def _attached(self, target: str) -> Iterator[None]:
        outer = self._session
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        try:
            for domain in ("Runtime", "Log"):
                self.command(f"{domain}.enable")
            yield
        finally:
            self._session = outer

    def drop(self, element: str, *paths: Path) -> None:
        """Drop files and folders on the middle of an element."""
        x, y = self.run(
            "(({left, top, width, height}) => [left + width / 2, top + height / 2])"
            f"(document.querySelector({element!r}).getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.command("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def choose(self, element: str, *paths: Path) -> None:
        """Choose files in a file input."""
        document = self.command("DOM.getDocument")["root"]["nodeId"]
        node = self.command("DOM.querySelector", nodeId=document, selector=element)["nodeId"]
        self.command("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def run(self, script: str) -> Any:
        """Return the value of an expression, or of the promise that it returns."""
        done = self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not self.run(condition):
            assert time.monotonic() < end, f"never came true: {condition}"
            time.sleep(0.02)

    def press(self, key: str, code: str = "", *, shift: bool = False) -> None:
        """Press and release a key."""
        text = key if len(key) == 1 else {"Enter": "\r"}.get(key, "")
        virtual = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "Home": 36, "End": 35}.get(key, 0)
        common = {"key": key, "code": code or key, "modifiers": 8 * shift, "windowsVirtualKeyCode": virtual}
        self.command("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.command("Input.dispatchKeyEvent", type="keyUp", **common)

    def point(self, kind: str, x: float, y: float) -> None:
        """Send a mouse event: pressed, moved or released."""
        button = {"button": "left", "buttons": int(kind != "released"), "clickCount": 1}
        self.command("Input.dispatchMouseEvent", type=f"mouse{kind.capitalize()}", x=x, y=y, **button)

    def drag(self, element: str, start: float, end: float) -> None:
        """Drag the mouse along an element between two fractions of its width; click if they are equal."""
        left, top, width, height = self.run(
            f"(({{x, y, width, height}}) => [x, y, width, height])(document.querySelector({element!r})"
            ".getBoundingClientRect())"
        )
        middle = top + height / 2
        self.point("pressed", left + start * width, middle)
        if start != end:
            self.point("moved", left + (start + end) / 2 * width, middle)
            self.point("moved", left + end * width, middle)
        self.point("released", left + end * width, middle)

    def click(self, element: str) -> None:
        """Click the middle of an element."""
        self.run(f"document.querySelector({element!r}).scrollIntoView({{block: 'center'}})")
        self.drag(element, 0.5, 0.5)

    def resize(self, width: int, height: int, *, dark: bool = False, scale: float = 1) -> None:
        """Set the size of the window in CSS pixels, the colour scheme, and the device pixels in a CSS pixel."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        # The page draws in the frame after it is resized.
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def picture(self) -> bytes:
        """Return a screenshot as PNG."""
        return base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._reading], [], [], PATIENCE_SECONDS)
            assert ready, "Chromium does not answer"
            part = os.read(self._reading, 2**20)
            assert part, f"Chromium has ended: {self._process.poll()}"
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _notice(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.problems.append(str(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.problems.append(str(parameters["entry"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])


@contextmanager
def chromium(profile: Path, *options: str) -> Iterator[Page]:
    """Run Chromium for the time of a context, and open a tab; `profile` is an empty folder for its settings and log."""
    assert PROGRAM
    from_us, writing = os.pipe()
    reading, to_us = os.pipe()
    # Chromium expects the pipes at 3 and 4, so these numbers must be free.
    passed = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (from_us, to_us)]
    command = [*map(str, passed), PROGRAM, *OPTIONS, f"--user-data-dir={profile}", *options]
    with (profile / "messages.txt").open("wb") as messages:
        process = subprocess.Popen(
            [sys.executable, "-c", START, *command],
            pass_fds=passed,
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
        )
    for each in passed:
        os.close(each)
    os.close(from_us)
    os.close(to_us)
    try:
        page = Page(process, reading, writing)
        yield page
        page._session = ""
        page.command("Browser.close")
    finally:
        os.close(writing)  # this ends it, too
        os.close(reading)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
