"""Places that are not as usual: no home, no folder for temporary files, no current folder, little memory."""

import errno
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.program import Run, write_song

from stemsplit import devices, settings
from stemsplit.errors import AudioError, DeviceError, ModelError
from stemsplit.models import cache


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user without a home folder, and the folder for temporary files."""
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path.replace("~", os.environ.get("HOME", "~")))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings.temporary_home.cache_clear()
    yield tmp_path
    settings.temporary_home.cache_clear()


def test_a_user_without_a_home_gets_a_temporary_one(homeless: Path) -> None:
    home = homeless / f"stemsplit-{os.getuid()}"
    assert settings.folder() == home / ".config/stemsplit"
    assert settings.cache_folder() == cache.converted_folder().parent == home / ".cache/stemsplit"
    assert os.environ["HOME"] == str(home)  # by which the Hub's client finds its cache
    assert home.stat().st_mode & 0o777 == 0o700
    settings.temporary_home.cache_clear()
    os.environ.pop("HOME")
    assert settings.temporary_home() == home  # what was downloaded is found again


def test_a_temporary_home_that_another_user_has_made_is_not_used(homeless: Path) -> None:
    planted = homeless / f"stemsplit-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    assert settings.temporary_home() not in (None, planted)


def test_neither_a_home_nor_a_temporary_folder(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", fails)
    assert settings.temporary_home() == Path(os.sep)


def test_the_lack_of_a_home_is_told_once(run: Run, homeless: Path) -> None:
    code, _, err = run("models", "path", "mini", model=False)
    assert code == 0
    told = f"warning: there is no home folder: downloads are kept in '{homeless}/stemsplit-{os.getuid()}', "
    assert err.startswith(told)
    assert err.count("\n") == 2
    assert run("--help", model=False).err == ""


@pytest.fixture
def no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**options: Any) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", fails)


@pytest.mark.usefixtures("no_temporary_folder")
def test_files_need_no_temporary_folder(run: Run, here: Path) -> None:
    write_song(here / "song.wav")
    assert run("song.wav", "--stems", "bass").code == 0


@pytest.mark.usefixtures("no_temporary_folder")
def test_pipes_say_that_they_need_a_temporary_folder(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_song(here / "song.wav")
    with (here / "song.wav").open() as song:
        monkeypatch.setattr(sys, "stdin", song)
        code, _, err = run("-")
    needs = "needs a folder for temporary files, and there is none\nhint: let the variable TMPDIR name a folder"
    assert code == 1
    assert f"the song from standard input {needs}" in err
    code, _, err = run("song.wav", "--stems", "bass", "-o", "-")
    assert code == 1
    assert f"a stem on standard output {needs}" in err


def test_a_current_folder_that_is_gone(tmp_path: Path) -> None:
    song, folder = write_song(tmp_path / "song.wav"), tmp_path / "gone"
    folder.mkdir()

    def ended(*arguments: str) -> tuple[int, str]:
        script = f'cd "{folder}" && rmdir "{folder}" 2>/dev/null; exec "$@"'
        folder.mkdir(exist_ok=True)
        command = ["sh", "-c", script, "sh", sys.executable, "-m", "stemsplit", *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        return done.returncode, done.stderr

    code, err = ended(str(song), "--model", "mini")
    assert (code, err.splitlines()[-2:]) == (
        1,
        ["stemsplit: the current folder does not exist any more", "hint: change to another one"],
    )
    assert ended("--help")[0] == 0


# Memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch.so: failed to map segment from shared object"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("can't start new thread"),
        RuntimeError("could not create a primitive"),
    ],
    ids=lambda error: str(error)[:20],
)
def test_little_memory_is_told_in_one_sentence(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write_song(here / "song.wav")

    def fails(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(devices, "choose", fails)
    code, out, err = run("song.wav")
    assert (code, out) == (1, "")
    assert err == (
        "stemsplit: there is too little free memory\nhint: close other programs, or give this one more memory\n"
    )


def test_an_error_of_ours_that_little_memory_has_caused() -> None:
    try:
        try:
            raise MemoryError
        except MemoryError as error:
            raise ModelError("'x.safetensors' is not a readable safetensors file", "download the file again") from error
    except ModelError as error:
        assert isinstance(devices.memory_error(error), DeviceError)
    assert devices.memory_error(AudioError("there is no file 'x'")) is None


def test_too_low_a_limit_of_memory_is_told_before_pytorch_would_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (8 * 10**8, 8 * 10**8))
    with pytest.raises(DeviceError, match=r"0\.8 GB of memory is the limit of this process"):
        devices.check_limit()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    devices.check_limit()


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not heed this limit")
@pytest.mark.parametrize("kilobytes", [300_000, 600_000, 800_000, 1_000_000])
def test_little_memory_in_a_program_of_its_own(tmp_path: Path, kilobytes: int) -> None:
    song = write_song(tmp_path / "song.wav")
    command = f'ulimit -v {kilobytes}; exec "$0" -m stemsplit "{song}" --model mini --device cpu -o "{tmp_path}/out"'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or (done.returncode, done.stderr.count("\n")) == (1, 2)


# Cores and threads


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "0 0\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_a_container_has_as_many_cores_as_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert devices.count_cores(tmp_path) == cores


@pytest.mark.parametrize(("cores", "own", "threads"), [(2, None, "2"), (8, None, None), (2, "5", "5")])
def test_no_more_threads_than_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, own: str | None, threads: str | None
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(devices, "count_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if own:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    devices.settle_threads()
    assert os.environ.get("OMP_NUM_THREADS") == threads
    os.environ.pop("OMP_NUM_THREADS", None)


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch comes with another OpenMP on other systems")
@pytest.mark.parametrize(
    ("own", "spins"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000")]
)
def test_threads_that_wait_let_others_work(own: dict[str, str], spins: str) -> None:
    """As the OpenMP of PyTorch says itself; it reads the environment when it is loaded."""
    code = "import sys; from stemsplit.cli import main; sys.argv[1:] = ['--version']"
    code += "\ntry: main.main()\nfinally: import torch"
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **own}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    shown = dict(re.findall(r"(\w+) ?= ?'(.*)'", done.stderr))
    assert shown["GOMP_SPINCOUNT"] == spins
