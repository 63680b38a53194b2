"""stemsplit turns a song into stems: vocals, drums, bass, other.

The flow, in the order in which it reads (each stage is a generator over the previous one):

    audio -> resampling -> windows -> networks (stft -> masks -> inverse) -> windows -> resampling -> encoding

and `separation` is where it is put together.

Letters used everywhere: `B` batch, `S` stems, `C` channels, `N` samples, `F` bins, `T` frames of an STFT. Audio is
float32, nominally in [-1, 1], shaped `(C, N)`; stems are `(S, C, N)`; spectra are `(..., F, T)` complex64. `rate` is an
int in Hz. A length is in samples unless its name ends in `_seconds`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stemsplit.audio.formats import Format
    from stemsplit.errors import StemsplitError
    from stemsplit.separation.options import SeparationOptions
    from stemsplit.separation.outputs import Delivery
    from stemsplit.separation.render import Report
    from stemsplit.separation.separator import Separator
    from stemsplit.version import __version__

__all__ = ["Delivery", "Format", "Report", "SeparationOptions", "Separator", "StemsplitError", "__version__"]

_HOMES = {
    "Delivery": "separation.outputs",
    "Format": "audio.formats",
    "Report": "separation.render",
    "SeparationOptions": "separation.options",
    "Separator": "separation.separator",
    "StemsplitError": "errors",
    "__version__": "version",
}

if not TYPE_CHECKING:  # where types are checked, there is nothing but what was imported

    def __getattr__(name: str) -> object:
        """The names in `__all__`, imported when they are asked for: torch takes a second."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"stemsplit.{_HOMES[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
