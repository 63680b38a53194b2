"""stemsplit turns a song into stems: vocals, drums, bass, other.

The flow, in which each stage is a generator over the one before, is put together in `stemsplit.separation`:

    decode -> resample -> cut windows -> network (STFT -> masks -> inverse) -> overlap-add -> resample -> encode

Letters used everywhere: `B` batch, `S` stems, `C` channels, `N` samples, `F` bins, `T` frames of an STFT. Audio is
float32, nominally in [-1, 1], of shape `(C, N)`; stems are `(S, C, N)`; spectra are `(..., F, T)` complex64. `rate` is
an int in Hz. Lengths are in samples unless a name ends in `_seconds`.

The library logs what it does under the name "stemsplit", through `logging`, at level INFO, and warnings at WARNING.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stemsplit.audio.formats import Format
    from stemsplit.audio.reading import open_reader
    from stemsplit.batch.cluster import ClusterOptions
    from stemsplit.batch.events import BatchReport
    from stemsplit.batch.run import separate_batch
    from stemsplit.errors import (
        AudioError,
        DatasetError,
        DeviceError,
        ModelError,
        StemsplitError,
        UnreachableError,
        UsageError,
    )
    from stemsplit.models.hub import download_model
    from stemsplit.models.registry import LocalModel, ModelSpec, list_models
    from stemsplit.separation.options import SeparationOptions
    from stemsplit.separation.outputs import Delivery, Report
    from stemsplit.separation.separator import Separator
    from stemsplit.version import __version__

logging.getLogger(__name__).addHandler(logging.NullHandler())  # quiet, unless the program wants to see it

__all__ = [
    "AudioError",
    "BatchReport",
    "ClusterOptions",
    "DatasetError",
    "Delivery",
    "DeviceError",
    "Format",
    "LocalModel",
    "ModelError",
    "ModelSpec",
    "Report",
    "SeparationOptions",
    "Separator",
    "StemsplitError",
    "UnreachableError",
    "UsageError",
    "__version__",
    "download_model",
    "list_models",
    "open_reader",
    "separate_batch",
]

_HOMES = {
    "Format": "audio.formats",
    "open_reader": "audio.reading",
    "ClusterOptions": "batch.cluster",
    "BatchReport": "batch.events",
    "separate_batch": "batch.run",
    "AudioError": "errors",
    "DatasetError": "errors",
    "DeviceError": "errors",
    "ModelError": "errors",
    "StemsplitError": "errors",
    "UnreachableError": "errors",
    "UsageError": "errors",
    "download_model": "models.hub",
    "LocalModel": "models.registry",
    "ModelSpec": "models.registry",
    "list_models": "models.registry",
    "SeparationOptions": "separation.options",
    "Delivery": "separation.outputs",
    "Report": "separation.outputs",
    "Separator": "separation.separator",
    "__version__": "version",
}

if not TYPE_CHECKING:  # where types are checked, there is nothing but what was imported

    def __getattr__(name: str) -> object:
        """Import a name of `__all__` when it is first used: torch alone takes a second."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"stemsplit.{_HOMES[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
