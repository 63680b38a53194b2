"""What errors carry for programs, and that the library does not write by itself."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from stemsplit import errors
from stemsplit.errors import AudioError, StemsplitError, UsageError

CLASSES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, StemsplitError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_fields(kind: type[StemsplitError]) -> None:
    error = kind("cannot read 'a.wav'", "try again", path=Path("a.wav"), model="mini", stem="vocals")
    assert (str(error), error.hint) == ("cannot read 'a.wav'", "try again")
    assert (error.path, error.model, error.stem) == (Path("a.wav"), "mini", "vocals")
    bare = kind("no")
    assert (bare.hint, bare.path, bare.model, bare.stem) == ("", None, None, None)
    assert error.exit_code == (2 if kind is UsageError else 1)


def test_errors_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(AudioError("no", "a hint", path=Path("a.wav"))))
    assert (type(error), str(error), error.hint, error.path) == (AudioError, "no", "a hint", Path("a.wav"))


def test_the_library_logs_quietly() -> None:
    code = "import stemsplit, logging; logging.getLogger('stemsplit.batch').warning('nobody asked')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
