"""Bands of sampled basses and guitars with one-shot drums, playing what the MIDI arrangements play."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import arrangements
import midi
import numpy as np
import sampler
from effects import produce, reverberate, saturate
from songs import Job, Song

_BASSES = (
    "electric-bass-YR/FingerBassYR 20190930", "electric-bass-YR/PickedBassYR 20190930",
    "karoryfer.growlybass/growlybass_clean", "karoryfer.growlybass/growlybass_dirty",
    "karoryfer.growlybass/growlybass_angry", "karoryfer.swagbass/swagbass_clean", "karoryfer.swagbass/swagbass_shiny",
)  # fmt: skip
_GUITARS = (
    "karoryfer.emilyguitar/emily_clean", "karoryfer.emilyguitar/emily_three_voice",
    "spanish-classical-guitar/SpanishClassicalGuitar-20190618",
)  # fmt: skip
SECONDS = 45.0


def _instrument(sources: Path, names: tuple[str, ...], rng: np.random.Generator) -> list[sampler.Zone]:
    return sampler.read_instrument(sources / "samples" / f"{names[int(rng.integers(len(names)))]}.sfz")


def _song(path: Path, sources: Path, font: Path, rng: np.random.Generator) -> Song:
    events = arrangements.excerpt_of(path, rng, SECONDS, varied=True)
    song: dict[str, np.typing.NDArray[np.float32]] = {}
    drums, bass, others = (midi.notes_of(events, stem) for stem in ("drums", "bass", "other"))
    if drums:
        song["drums"] = sampler.play_drums(sampler.random_kit(sources, rng), drums, SECONDS, rng)
    if bass:
        song["bass"] = sampler.play_notes(_instrument(sources, _BASSES, rng), bass, SECONDS, rng)
        if rng.random() < 0.3:
            song["bass"] = saturate(song["bass"], rng.uniform(2, 10))
    guitars = [note for note in others if note.program < 32]  # keyboards, mallets, organs, guitars
    if guitars:
        played = sampler.play_notes(_instrument(sources, _GUITARS, rng), guitars, SECONDS, rng)
        if rng.random() < 0.35:  # through an amplifier
            played = saturate(played, rng.uniform(3, 30))
        song["other"] = played
    if len(guitars) < len(others):
        kept = [event for event in events if event.stem in ("", "other")]
        rest = reverberate(midi.render(kept, font, SECONDS), rng, seconds=rng.uniform(0.3, 2), wet=0.2)
        rest = rest * np.float32(0.1 / max(1e-4, float(rest.std())))
        guitar = song.get("other", np.zeros_like(rest))
        song["other"] = rest + guitar * np.float32(0.1 / max(1e-4, float(guitar.std())))
    return {stem: produce(stem, audio, rng) for stem, audio in song.items()}


def jobs(sources: Path, fonts: Path, *, count: int) -> list[Job]:
    """`count` arrangements, in a fixed shuffled order."""
    paths = [path for path in arrangements.files(sources) if path.stem not in arrangements.HELD_OUT]
    order = np.random.default_rng(1).permutation(len(paths))[:count]
    font = fonts / midi.SOUND_FONTS[0]
    return [Job("train", f"band-{paths[i].stem}", partial(_song, paths[i], sources, font)) for i in order]
