"""Songs of which part cannot be decoded are marked, for people and for programs."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from support.program import Run
from support.sounds import bursts, encode


def write(path: Path, *, cut_off: bool = False) -> None:
    song = np.random.default_rng(0).uniform(-0.1, 0.1, (8_000, 2))
    soundfile.write(path, song, 8_000, "PCM_16")
    if cut_off:
        path.write_bytes(path.read_bytes()[:-8_000])


@pytest.mark.full
def test_a_song_that_is_cut_off_is_marked_as_incomplete(run: Run, here: Path) -> None:
    write(here / "a.wav")
    write(here / "b.wav", cut_off=True)  # opened and decoded while a.wav is separated
    outcome = run("a.wav", "b.wav", "--json", "-q")
    assert outcome.code == 0
    done = [event for line in outcome.out.splitlines() if (event := json.loads(line))["event"] == "done"]
    assert [(event["song"], event["incomplete"]) for event in done] == [("a.wav", False), ("b.wav", True)]
    assert done[1]["warnings"] == ["'b.wav' ends early: the last 0.2 s could not be decoded"]
    manifests = [json.loads((here / f"separated/{song}/stemsplit.json").read_text()) for song in "ab"]
    assert [manifest["runs"][0].get("incomplete", False) for manifest in manifests] == [False, True]

    outcome = run("a.wav", "b.wav", "--json", "-q", "--skip-existing")
    skipped = [event for line in outcome.out.splitlines() if (event := json.loads(line))["event"] == "skipped"]
    assert [(event["song"], event["incomplete"]) for event in skipped] == [("a.wav", False), ("b.wav", True)]

    write(here / "b.wav")  # downloaded again
    outcome = run("a.wav", "b.wav", "--json", "-q", "--skip-existing")
    events = [json.loads(line) for line in outcome.out.splitlines()]
    assert [(event["song"], event["incomplete"]) for event in events if event["event"] == "done"] == [("b.wav", False)]
    assert "incomplete" not in (here / "separated/b/stemsplit.json").read_text()


@pytest.mark.full
def test_an_encrypted_song_is_refused(run: Run, here: Path) -> None:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16, "encryption_kid": "a7" * 16}
    encode(here / "song.m4a", bursts(), "aac", options=key)
    outcome = run("song.m4a")
    assert outcome.code == 1
    assert "cannot decode 'song.m4a': it is encrypted" in outcome.err
    assert not (here / "separated").exists()
