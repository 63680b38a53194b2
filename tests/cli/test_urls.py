"""URLs on the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.program import NAMES, Run, write_song
from support.web_server import WebServer, web_server

from stemsplit.storage import requests


@pytest.fixture
def server(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A server of songs."""
    monkeypatch.setattr(requests, "PAUSES", (0.01,))
    with web_server(write_song(here / "in/song.wav").read_bytes()) as server:
        yield server


@pytest.mark.full
def test_songs_at_a_web_server(run: Run, server: WebServer, here: Path) -> None:
    secret = server.url.replace("://", "://me:hunter1@")
    urls = [f"{secret}/{way}/{way}.wav?token=hunter2" for way in ("ranges", "404", "403", "page")]
    code, out, err = run(*urls, "https://youtu.be/hunter3", "--json", "-v")
    assert code == 1
    events = {event["event"]: event for event in map(json.loads, out.splitlines())}
    assert events["done"]["song"] == f"{server.url}/ranges/ranges.wav?..."
    assert sorted(events["done"]["stems"].values()) == [str(Path("separated/ranges") / name) for name in sorted(NAMES)]
    failed = [json.loads(line)["error"] for line in out.splitlines() if '"failed"' in line and '"error"' in line]
    assert failed == [
        "stemsplit does not download from youtu.be",
        f"there is no file '{server.url}/404/404.wav?...'",
        f"cannot read '{server.url}/403/403.wav?...': permission denied",
        f"'{server.url}/page/page.wav?...' is a web page, not a song",
    ]
    assert not any(f"hunter{number}" in out + err for number in (1, 2))
    assert "hunter" not in (here / "separated/ranges/stemsplit.json").read_text()
