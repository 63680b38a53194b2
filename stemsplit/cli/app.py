"""The command that serves a page in the browser, for people who do not use a terminal."""

import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from stemsplit.cli.options import Device, RegistryFile
from stemsplit.errors import UsageError
from stemsplit.wording import one_line

PORT = 8017
NEEDED = ("starlette", "uvicorn", "filelock")


def app(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where the stems go; else the page offers folders, first the folder stemsplit in your Music folder.",
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help=f"By default {PORT}, or any that is free.")] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; other than by default, others may reach it.")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    device: Device = "auto",
    own: RegistryFile = None,
) -> None:
    """Open a page in the browser on which to separate songs and listen to their stems.

    Nothing leaves this machine. Writes the address of the page to standard output; Ctrl-C ends it, and the next start
    goes on with the songs that are left.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        message = f"the app needs the {'library' if len(missing) == 1 else 'libraries'} {', '.join(missing)}"
        raise UsageError(message, "pip install 'stemsplit-audio[app]'")
    from filelock import FileLock, Timeout

    from stemsplit.app import server
    from stemsplit.app.guard import is_loopback
    from stemsplit.app.queue import Queue
    from stemsplit.app.songs import Shelf
    from stemsplit.cli import console
    from stemsplit.models.registry import read_registry

    messages = console.Messages()
    registry = read_registry(own)
    places = offered_places(output)
    if output and output.is_file():
        raise UsageError(f"the output {str(output)!r} is a file", "name a folder with --output", path=output)
    folder = platformdirs.user_data_path("stemsplit") / "app"
    try:
        shelf = Shelf(folder)
    except OSError as error:
        message = f"cannot write to {str(folder)!r}: {one_line(error)}"
        raise UsageError(message, "make room, or change its permissions", path=folder) from error
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UsageError("the app runs already", "open the address that it printed, or end it with Ctrl-C") from error
    with lock:
        listening = server.bind(host, port, default=PORT)
        if not is_loopback(host):
            messages.warn(
                f"others in the network can reach {host}, and what is sent is not encrypted",
                "leave out --host, unless you trust everyone in it",
            )

        queue = Queue(shelf, places, registry, place="output" if output else "", device=device)

        def on_start(address: str) -> None:
            console.write(address)
            messages.note(f"The stems go to {queue.places[queue.choices.place].absolute()}. Ctrl-C ends the app.")
            if browser:
                webbrowser.open(address)

        server.serve(queue, listening, on_start)


def offered_places(output: Path | None) -> dict[str, Path]:
    """Return the folders that the page offers for stems, by the names that it knows them by; the first is the default.

    The page sends such a name, never a path, so nothing that drives it can make the app write elsewhere.
    """
    folders = {
        "desktop": platformdirs.user_desktop_path(),
        "downloads": platformdirs.user_downloads_path(),
        "documents": platformdirs.user_documents_path(),
    }
    places = {"output": output} if output else {}
    places |= {"music": platformdirs.user_music_path() / "stemsplit"}
    return places | {name: folder / "stemsplit" for name, folder in folders.items() if folder.is_dir()}
