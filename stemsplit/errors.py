"""Every error that stemsplit raises on purpose.

* StemsplitError
  - UsageError: the request itself makes no sense (exit code 2)
  - AudioError: an audio file cannot be read or written
  - ModelError: a model is unknown, damaged, or of a kind that this version cannot run
    - UnreachableError: weights are not downloaded, and the Hub cannot be reached
  - DeviceError: a device is missing, or out of memory
  - DatasetError: training or evaluation data cannot be used

Only these are shown to a user as a sentence and a hint. Anything else is a bug and keeps its traceback, except in the
work on one song of a batch: there it fails that song, with a sentence, and `--verbose` has the traceback.
"""

from pathlib import Path


class StemsplitError(Exception):
    """An error that the user can do something about. `str(error)` is one sentence that names the file or model.

    Attributes:
        hint: What to do next, or empty.
        path: The file or folder in question, or None.
        model: The name of the model in question, or None.
        stem: The name of the stem in question, or None.
        exit_code: What the program exits with.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        path: Path | None = None,
        model: str | None = None,
        stem: str | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.path = path
        self.model = model
        self.stem = stem


class UsageError(StemsplitError):
    """The command line or the arguments contradict each other, or name something that does not exist."""

    exit_code = 2


class AudioError(StemsplitError):
    """An audio file cannot be opened, decoded or written."""


class ModelError(StemsplitError):
    """A model is unknown, or its weights are damaged or of a kind that this version cannot run."""


class UnreachableError(ModelError):
    """Weights are not downloaded, and the Hub cannot be reached, at least for now."""


class DeviceError(StemsplitError):
    """A compute device is missing or has too little memory."""


class DatasetError(StemsplitError):
    """A folder of training or evaluation data cannot be used."""
