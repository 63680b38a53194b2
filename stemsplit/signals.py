"""Stopping on Ctrl-C and its kin, so that nothing half-written is left behind.

The first signal raises Stopped at once where nothing can be left half-written. Inside `deferred()` it only asks to
stop, and `check()`, which long work calls between its blocks, raises Stopped instead: in every thread, though Python
delivers signals to the main one alone. Either way ordinary `with` and `finally` blocks clean up. A second Ctrl-C ends
the process at once, whatever it is doing.

Nothing of this happens unless a program calls `raise_on_signals()`: a library leaves signals to its caller.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")

_handled: list[signal.Signals] = []
_requested: int | None = None  # the signal that asked to stop
_depth = 0  # how many deferred blocks the main thread is in


class Stopped(BaseException):
    """A signal asked to stop. Like KeyboardInterrupt it is no Exception, so that no handler takes it for a failure.

    Attributes:
        name: The signal's name, such as "SIGINT".
        exit_code: 128 plus the signal's number, as shells expect: 130 for Ctrl-C.
        hint: What the user can do next.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number
        self.hint = ""


def raise_on_signals() -> None:
    """From now on let SIGINT, SIGTERM and SIGHUP raise Stopped, except those that the caller ignores, as nohup does."""
    for name in _NAMES:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _on_signal)
            _handled.append(number)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_defer_to_parent)


def check() -> None:
    """Raise Stopped if a signal has asked to stop; call this between the blocks of long work, in any thread."""
    if _requested is not None:
        raise Stopped(_requested)


@contextmanager
def deferred() -> Iterator[None]:
    """While files are being written, let signals wait for the next `check()` or the end of the block."""
    global _depth
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            check()  # even after an error: the signal may have caused it, by ending a child process, say


@contextmanager
def kept() -> Iterator[None]:
    """Put the handlers of signals back at the end of the block, in which a library may set its own."""
    numbers = [number for name in _NAMES if (number := getattr(signal, name, None))]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _requested
    _requested = number
    for each in _handled:
        # Closing a terminal or a session often sends SIGHUP and SIGTERM twice; only a second Ctrl-C means "now".
        signal.signal(each, signal.SIG_DFL if each == signal.SIGINT else signal.SIG_IGN)
    if hasattr(signal, "SIGCHLD"):  # workers may end by the same signal, which PyTorch's handler takes for a crash
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
    if not _depth:
        raise Stopped(number)


def _defer_to_parent() -> None:
    """Workers of a training end when their parent does; Ctrl-C in a terminal reaches them as well."""
    global _requested, _depth
    _requested, _depth = None, 0
    for each in _handled:
        signal.signal(each, signal.SIG_IGN if each == signal.SIGINT else signal.SIG_DFL)
