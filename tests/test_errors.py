"""Errors carry what a program needs to know about them."""

import pickle
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
