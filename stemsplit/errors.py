"""Everything stemsplit can refuse to do.

* StemsplitError
  - UsageError: the request itself makes no sense (exit code 2)
  - AudioError: a file that cannot be read, or stems that cannot be written
  - ModelError: unknown, damaged or unusable weights
    - UnreachableError: weights that are not here, and no way to where they are
  - DeviceError: a device that is not there, or is out of memory
  - DatasetError: training or evaluation data that cannot be used

Only these are shown to a user as a sentence and a hint. Anything else is a bug and keeps its traceback.
"""


class StemsplitError(Exception):
    """A refusal: `str(error)` is one sentence that names the file or model, `hint` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(StemsplitError):
    """The command line or the arguments contradict themselves or name something that does not exist."""

    exit_code = 2


class AudioError(StemsplitError):
    """An audio file cannot be opened, decoded or written."""


class ModelError(StemsplitError):
    """A model is unknown, or its weights are damaged or of a kind this version cannot run."""


class UnreachableError(ModelError):
    """Weights are not on this machine, and the Hub cannot be reached, or not now."""


class DeviceError(StemsplitError):
    """A compute device is missing or has too little memory."""


class DatasetError(StemsplitError):
    """A folder of training or evaluation data cannot be used."""
