"""Text for people and programs."""

import errno
import os

import pytest

from stemsplit.wording import closest, did_you_mean, one_line


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (ValueError(), "ValueError"),
        (OSError(errno.ENOENT, os.strerror(errno.ENOENT), "a.wav"), os.strerror(errno.ENOENT)),
        (OSError("no number"), "no number"),
        (RuntimeError("x" * 1_000), "x" * 300),
    ],
)
def test_the_reason_of_an_error_is_one_line(error: Exception, text: str) -> None:
    assert one_line(error) == text


def test_suggestions() -> None:
    assert closest("modell", ["model", "shifts"]) == "model"
    assert closest("xyz", ["model", "shifts"]) is None
    assert did_you_mean("modell", ["model"]) == "did you mean model?"
    assert did_you_mean("modell", ["model"], "there is one") == "did you mean model? there is one"
    assert did_you_mean("xyz", ["model"], "there is one") == "there is one"
    assert did_you_mean("xyz", ["model"]) == ""
