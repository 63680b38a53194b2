"""Running stemsplit as a user does, and looking at what it leaves."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile  # type: ignore[import-untyped]
from support.songs import STEMS


class Outcome(NamedTuple):
    """What a run of the program gave."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


NAMES = [f"{stem}.wav" for stem in STEMS]


FILES = sorted([*NAMES, "stemsplit.json"])


def write_song(path: Path, *, length: int = 4_000, channels: int = 2, rate: int = 8_000, gain: float = 0.3) -> Path:
    """A song of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(1).uniform(-gain, gain, (length, channels))
    with path.open("wb") as file:  # not by name: soundfile would choose the format by its extension
        soundfile.write(file, samples, rate, format="WAV")
    return path


def files_in(folder: Path) -> list[str]:
    """Paths of all files, and of empty folders, below a folder."""
    paths = sorted(folder.rglob("*"))
    return [path.relative_to(folder).as_posix() for path in paths if path.is_file() or not any(path.iterdir())]


def start(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    """`python -m stemsplit`, in its own group, with signals as a shell leaves them."""
    command = [sys.executable, "-m", "stemsplit", *arguments, "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    streams = {"stdout": pipe, "stderr": pipe, **options}
    return subprocess.Popen(command, text=True, env=environment, start_new_session=True, **streams)


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait until something is so, or the process has ended."""
    while not condition() and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


HEAVY = {
    *("torch", "numpy", "soundfile", "soxr", "av", "safetensors", "rich", "scipy", "huggingface_hub", "jinja2"),
    *("fsspec", "aiohttp", "ray"),
}


def imported_by(code: str) -> set[str]:
    """Top-level packages that are loaded after `code` has run in a new interpreter."""
    show = "print(*{name.split('.')[0] for name in sys.modules})"
    run = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n{show}"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())
