"""Ctrl-C and its kin: one exception that unwinds the work, so that nothing half-written stays behind."""

import _thread
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_RETRY_SECONDS = 0.02


class Stopped(KeyboardInterrupt):
    """A signal asked to stop; `hint` is what the user can do next."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number  # as shells expect it: 130 for Ctrl-C
        self.hint = ""


def raise_on_signals() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP raise Stopped, unless the caller has them ignored, as nohup does."""
    for number in _SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for each in _SIGNALS:  # what is cleaned up from now on is cleaned up completely
        signal.signal(each, signal.SIG_IGN)
    sys.unraisablehook = _retry
    raise Stopped(number)


def _retry(unraisable: "UnraisableHookArgs") -> None:
    """Stop a little later if the signal came while an object was being deleted, where exceptions get lost.

    Others are not worth a word any more: objects that were just being made, such as torch's loaders, complain when they
    are deleted.
    """
    if isinstance(unraisable.exc_value, Stopped):
        number = unraisable.exc_value.number
        signal.signal(number, _stop)
        threading.Timer(_RETRY_SECONDS, _send, [number]).start()


def _send(number: int) -> None:
    """The signal once more, to the main thread, where it wakes who waits for something."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:  # on Windows this is noticed when the waiting is over
        _thread.interrupt_main(signal.Signals(number))
