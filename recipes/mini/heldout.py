"""Test songs from arrangements that are never trained on, with voices that are never trained on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import arrangements
import midi
import numpy as np
import voices
from composing import MINOR, Piece
from effects import produce
from songs import RATE, Audio, Job, Song, fit, read, stereo
from vocals import sung

SECONDS = 30.0
RECORDED = "vocals/vocadito_ccby4/vocadito_10.wav"


def _recorded(path: Path) -> Audio:
    """The recorded singer twice, with a pause."""
    audio, rate = read(path)
    assert rate == RATE
    voice = fit(stereo(audio), int(13 * RATE))
    return fit(np.concatenate([np.zeros((2, 2 * RATE), np.float32), voice, voice], axis=1), int(SECONDS * RATE))


def _synthetic(rng: np.random.Generator) -> Audio:
    piece = Piece(100.0, int(rng.integers(12)), MINOR, (0, 5, 2, 6, 0, 5, 2, 6, 0, 5, 2, 6, 0))
    return fit(sung(piece, voices.test_voice(rng), rng, rest=0.15), int(SECONDS * RATE))


def _song(name: str, sources: Path, font: Path, recorded: bool, rng: np.random.Generator) -> Song:
    path = sources / "midi" / "freedoom" / "musics" / f"{name}.mid"
    events = arrangements.excerpt_of(path, rng, SECONDS, varied=False)
    stems = sorted({event.stem for event in events if midi.is_start(event)})
    song = {stem: produce(stem, midi.render(events, font, SECONDS, stem=stem), rng) for stem in stems}
    voice = _recorded(sources / RECORDED) if recorded else _synthetic(rng)
    return song | {"vocals": produce("vocals", voice, rng)}


def jobs(sources: Path, fonts: Path) -> list[Job]:
    """A song for each held-out arrangement; the first has the recorded singer."""
    return [
        Job("test", f"freedoom-{name}", partial(_song, name, sources, fonts / midi.SOUND_FONTS[i % 2], i == 0))
        for i, name in enumerate(arrangements.HELD_OUT)
    ]
