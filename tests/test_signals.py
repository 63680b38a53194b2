"""Stopping: in processes of their own, as a signal ends them; and the program itself, as a user stops it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.program import FILES, NAMES, Run, files_in, start, wait_for, write_song

PRELUDE = """
import os, signal, sys, threading, time
from stemsplit import signals
from stemsplit.signals import Stopped
signals.raise_on_signals()
def send(name): os.kill(os.getpid(), getattr(signal, name))
"""
STOP_SECONDS = 20  # a few in truth; tests run beside each other


def run_code(body: str, prelude: str = PRELUDE) -> tuple[int, str]:
    """Exit code and everything that was printed."""
    command = [sys.executable, "-c", prelude + body]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    return done.returncode, done.stdout


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_is_an_exception(name: str, code: int) -> None:
    body = f"try: send({name!r})\nexcept Stopped as stop: print(stop.name, stop.exit_code)"
    assert run_code(body) == (0, f"{name} {code}\n")


def test_a_deferred_signal_is_heeded_by_the_next_check() -> None:
    body = """
try:
    with signals.deferred():
        with signals.deferred(): send("SIGINT"); print("inside")
        print("between")
        signals.check()
        print("never")
except Stopped as stop: print(stop.name)
"""
    assert run_code(body) == (0, "inside\nbetween\nSIGINT\n")


def test_a_deferred_signal_is_heeded_at_the_end_of_the_block() -> None:
    body = """
try:
    with signals.deferred(): send("SIGTERM"); print("inside")
    print("never")
except Stopped as stop: print(stop.name)
"""
    assert run_code(body) == (0, "inside\nSIGTERM\n")


def test_an_error_that_a_signal_may_have_caused_is_no_error() -> None:
    body = """
try:
    with signals.deferred(): send("SIGINT"); raise ValueError("a child process died")
except Stopped as stop: print(stop.name)
"""
    assert run_code(body) == (0, "SIGINT\n")


def test_a_thread_heeds_signals() -> None:
    body = """
def work():
    try:
        with signals.deferred():
            while True: signals.check(); time.sleep(0.01)
    except Stopped as stop: print(stop.name)
thread = threading.Thread(target=work)
thread.start()
with signals.deferred():
    send("SIGINT")
    thread.join()
    os._exit(0 if sys.stdout.flush() is None else 1)
"""
    assert run_code(body) == (0, "SIGINT\n")


def test_a_second_ctrl_c_ends_a_loop_that_heeds_nothing() -> None:
    body = """
with signals.deferred():
    send("SIGINT"); print("once", flush=True)
    send("SIGINT"); print("never")
"""
    assert run_code(body) == (-signal.SIGINT, "once\n")


def test_a_second_signal_of_another_kind_does_not_disturb_cleaning_up() -> None:
    body = """
try:
    try: send("SIGHUP")
    finally: send("SIGHUP"); send("SIGTERM"); time.sleep(0.05); print("clean")
except Stopped as stop: print(stop.name)
"""
    assert run_code(body) == (0, "clean\nSIGHUP\n")


def test_what_the_caller_ignores_stays_ignored() -> None:
    prelude = "import signal\nfor s in (signal.SIGHUP, signal.SIGINT): signal.signal(s, signal.SIG_IGN)\n" + PRELUDE
    body = "send('SIGHUP'); send('SIGINT'); print('alive')\ntry: send('SIGTERM')\nexcept Stopped: send('SIGINT')"
    assert run_code(body, prelude) == (0, "alive\n")


def test_a_child_leaves_it_to_its_parent() -> None:
    body = """
with signals.deferred():
    child = os.fork()
    if not child:
        send("SIGINT"); print("alive", flush=True)
        send("SIGTERM"); print("never")
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_code(body) == (0, f"alive\n{-signal.SIGTERM}\n")


@pytest.mark.full
def test_a_library_does_not_touch_signals() -> None:
    prelude = "import signal, os\nimport stemsplit.separation.separator\n"
    body = "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\nprint('as before')"
    assert run_code(body, prelude) == (0, "as before\n")


@pytest.mark.full
@pytest.mark.parametrize(
    ("moment", "files"),
    [
        ("sweep", []),  # while the files are opened
        ("_Part.write", []),
        ("_Part.finish", ["new/a.mp3", "new/b.mp3"]),  # what is done but for its name is not thrown away
        ("_Part.publish", ["new/a.mp3", "new/b.mp3"]),
    ],
)
def test_stems_are_written_all_or_none(moment: str, files: list[str], tmp_path: Path) -> None:
    body = f"""
import numpy
from pathlib import Path
from stemsplit.audio import writing
from stemsplit.audio.formats import Format
home, _, name = {moment!r}.rpartition(".")
home = getattr(writing, home, writing)
original = getattr(home, name)
def stop(*arguments):
    setattr(home, name, original)
    send("SIGINT")
    return original(*arguments)
setattr(home, name, stop)
paths = [Path({str(tmp_path)!r}) / "new" / f"{{stem}}.mp3" for stem in "ab"]
try:
    with writing.StemWriter(paths, rate=8_000, channels=1, format=Format("mp3")) as writer:
        for _ in range(2): writer.write(numpy.zeros((2, 1, 8_000), numpy.float32))
    print("never")
except Stopped as stop: print(stop.name)
"""
    assert run_code(body) == (0, "SIGINT\n")
    assert files_in(tmp_path) == files


# The program

HINT = "hint: the same command with --skip-existing goes on with the songs that are left"


def stop(process: "subprocess.Popen[str]", number: signal.Signals) -> tuple[str, list[str]]:
    """Stop the program as a terminal does; gives what it has written, and the lines of its last words."""
    began = time.monotonic()
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < STOP_SECONDS
    assert process.returncode == 128 + number, err
    assert f"stemsplit: stopped by {number.name}" in err.splitlines()
    assert "Traceback" not in err
    return out, err.splitlines()


@pytest.fixture
def long_song(run: Run, here: Path) -> Path:
    """A song that takes minutes."""
    return write_song(here / "long.wav", length=8_000 * 3_600, channels=1)


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what a process has loaded")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_while_pytorch_is_imported(run: Run, here: Path, number: signal.Signals) -> None:
    write_song(here / "song.wav")
    process = start("song.wav", "--model", "model.safetensors")
    wait_for(lambda: "libtorch_cpu" in Path(f"/proc/{process.pid}/maps").read_text(), process)
    assert stop(process, number) == ("", [f"stemsplit: stopped by {number.name}"])
    assert not (here / "separated").exists()


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("options", [["-f", "mp3", "--player"], ["--stem-file"], ["--clip", "gain"]])
def test_stopping_a_song(long_song: Path, here: Path, options: list[str], number: signal.Signals) -> None:
    process = start("long.wav", "--model", "model.safetensors", *options)
    wait_for(lambda: bool(list(here.glob("separated/long/*.part"))), process)
    assert stop(process, number) == ("", [f"stemsplit: stopped by {number.name}"])
    assert not (here / "separated").exists()


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_stopping_a_batch(long_song: Path, here: Path, jobs: str, number: signal.Signals) -> None:
    songs = [f"{name}.wav" for name in "ab"]
    for name in songs:
        write_song(here / name)
    process = start(*songs, "long.wav", "--jobs", jobs, "--model", "model.safetensors")
    wait_for(lambda: len(list(here.glob("separated/long/*.part"))) == 4 and done(here, "ab"), process)
    out, err = stop(process, number)
    assert sorted(out.splitlines()) == sorted(f"separated/{song}/{name}" for song in "ab" for name in NAMES)
    assert err[-2:] == [f"stemsplit: stopped by {number.name}", HINT]
    assert files_in(here / "separated") == sorted(f"{song}/{name}" for song in "ab" for name in FILES)


def done(here: Path, songs: str) -> bool:
    """Whether these have their manifests."""
    return all((here / f"separated/{song}/stemsplit.json").exists() for song in songs)


@pytest.mark.full
def test_stopping_before_all_of_standard_input_is_there(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(here / "temporary"))
    process = start("-", "--model", "model.safetensors", stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write("x" * 2**21)
    process.stdin.flush()
    wait_for(lambda: bool(list((here / "temporary").glob("*/*"))), process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    process.stdin.close()
    assert process.stderr and process.stdout
    assert process.stderr.read() == "stemsplit: stopped by SIGINT\n"
    process.stdout.close()
    process.stderr.close()
    assert files_in(here / "temporary") == []


@pytest.mark.full
def test_a_second_ctrl_c_ends_the_program(long_song: Path, here: Path) -> None:
    process = start("long.wav", "--model", "model.safetensors")
    wait_for(lambda: bool(list(here.glob("separated/long/*.part"))), process)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.001)
    process.communicate(timeout=STOP_SECONDS)
    assert process.returncode in (130, -signal.SIGINT)


@pytest.mark.full
@pytest.mark.parametrize("module", ["typer", "stemsplit.cli.options", "stemsplit.cli.main"])
def test_stopping_while_the_program_is_imported(module: str) -> None:
    """Ctrl-C in the first tenths of a second is one line as well."""
    body = f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv[1:] = ["song.wav"]
from stemsplit.__main__ import main
main()
"""
    assert run_code(body, prelude="") == (130, "stemsplit: stopped by SIGINT\n")


@pytest.mark.full
def test_nohup(long_song: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start("long.wav", "--model", "model.safetensors")
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(lambda: bool(list(here.glob("separated/long/*.part"))), process)
    os.killpg(process.pid, signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    stop(process, signal.SIGTERM)


@pytest.mark.full
def test_stopping_a_training_within_its_first_epoch(here: Path, make_song: Callable[..., object]) -> None:
    make_song(here / "data/a")
    (here / "recipe.toml").write_text("""
config = {n_fft = 512, hop = 128, bands = 24, linear_bands = 8, widths = [4, 6]}
rate = 8000
window_seconds = 0.5
overlap_seconds = 0.1
steps = 100000
batch_size = 2
""")
    process = start("train", "data", "--recipe", "recipe.toml", "--output", "run")
    wait_for(lambda: (here / "run").exists(), process)
    time.sleep(1)  # the loader of crops takes a moment to start
    _, err = stop(process, signal.SIGTERM)
    assert err[-2:] == [
        "stemsplit: stopped by SIGTERM",
        "hint: no epoch was finished, so there is nothing to resume",
    ]
    assert files_in(here / "run") == []
