"""The command that serves the app, as a user starts and ends it."""

import os
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support.program import Run, start


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the app keeps goes here."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data/stemsplit/app"


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_it_serves_until_ctrl_c(own_data: Path, tmp_path: Path, run: Run) -> None:
    process = start("app", "--no-browser", "--output", str(tmp_path / "stems"))
    assert process.stdout and process.stderr
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(address) as page:
            assert page.url == address.partition("?")[0]
            assert b"<title>stemsplit</title>" in page.read()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address.partition("?")[0])
        again = run("app", "--no-browser", "--output", str(tmp_path / "stems"), model=False)
        assert (again.code, again.err.splitlines()[0]) == (2, "stemsplit: the app runs already")
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert f"The stems go to {tmp_path / 'stems'}." in err
    assert err.splitlines()[-1] == "stemsplit: stopped by SIGINT"
    assert not (tmp_path / "stems").exists()
    assert oct((own_data / "uploads").stat().st_mode)[-3:] == "700"


def test_what_it_cannot_do_is_a_sentence(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").touch()
    outcome = run("app", "--no-browser", "--output", str(tmp_path / "file"), model=False)
    assert outcome.code == 2
    assert outcome.err.startswith(f"stemsplit: the output '{tmp_path / 'file'}' is a file\nhint: name a folder")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = run("app", "--no-browser", "--output", str(tmp_path / "x"), "--port", str(port), model=False)
    assert outcome.code == 2
    assert f"stemsplit: cannot listen at 127.0.0.1, port {port}: address already in use" in outcome.err


def test_what_is_missing_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from stemsplit.cli import app

    monkeypatch.setattr(app, "NEEDED", ("starlette", "no_such_library"))
    outcome = run("app", "--no-browser", model=False)
    assert outcome.err == (
        "stemsplit: the app needs the library no_such_library\nhint: pip install 'stemsplit-audio[app]'\n"
    )
