"""Signals, each in a process of its own."""

import subprocess
import sys

import pytest

PRELUDE = """
import os, signal, sys, time
from stemsplit.signals import Stopped, raise_on_signals
raise_on_signals()
def send(name): os.kill(os.getpid(), getattr(signal, name))
"""


def run(body: str, prelude: str = PRELUDE) -> tuple[int, str]:
    """Exit code and everything that was printed."""
    command = [sys.executable, "-c", prelude + body]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    return done.returncode, done.stdout


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_is_an_exception(name: str, code: int) -> None:
    body = f"try: send({name!r})\nexcept Stopped as stop: print(stop.name, stop.exit_code)"
    assert run(body) == (0, f"{name} {code}\n")


def test_a_second_signal_does_not_disturb_cleaning_up() -> None:
    body = """
try:
    try: send("SIGINT")
    finally: send("SIGINT"); send("SIGTERM"); time.sleep(0.05); print("clean")
except Stopped as stop: print(stop.name)
"""
    assert run(body) == (0, "clean\nSIGINT\n")


def test_a_signal_while_an_object_is_deleted_is_not_lost() -> None:
    body = """
class Slow:
    def __del__(self): send("SIGINT"); time.sleep(0.05); raise AssertionError
try:
    Slow()
    time.sleep(1000)
except Stopped as stop: print(stop.name)
"""
    assert run(body) == (0, "SIGINT\n")


def test_what_the_caller_ignores_stays_ignored() -> None:
    prelude = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + PRELUDE
    assert run("send('SIGHUP'); print('alive')", prelude) == (0, "alive\n")
