"""Real recordings: songs that came as stems, and solo singing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from effects import produce
from songs import RATE, STEMS, Job, Song, at_level, fit, read, resample, stereo

HELD_OUT = ("caesium", "sodium")
SPEEDS = (1.0, 0.84, 0.89, 0.94, 1.06, 1.12, 1.19)
# The stems that are used of each training song and the speeds it is played at. hydrogen ends at 8.8 kHz: only its
# vocals are worth having, and mostly sped up. rubidium has no `other`.
TRAINING = {
    "lithium": (STEMS, SPEEDS),
    "rubidium": (("vocals", "drums", "bass"), SPEEDS),
    "hydrogen": (("vocals",), (1.0, 1.12, 1.19)),
}
SOLOS = ("vocadito_ccby4/vocadito_1.wav", "vocadito_ccby4/vocadito_14.wav", "oatsu_mit/antagata_dokosa_denoise.flac")
SOLO_SPEEDS = (1.0, 0.8, 0.86, 0.92, 1.08, 1.16, 1.25)


def _song(folder: Path, stems: tuple[str, ...], speed: float, _: np.random.Generator) -> Song:
    song = {}
    for stem in stems:
        audio, rate = read(folder / f"{stem}.ogg")
        song[stem] = resample(stereo(audio), rate * speed)
    if stems == ("vocals",):
        song["vocals"] = at_level(song["vocals"], -22)
    return song


def _solo(path: Path, speed: float, rng: np.random.Generator) -> Song:
    audio, rate = read(path)
    voice = stereo(resample(audio[:1], rate * speed))
    voice = fit(voice, voice.shape[1] + RATE)  # room for the reverberation
    return {"vocals": produce("vocals", voice, rng)}


def _found(paths: dict[str, Path], _: np.random.Generator) -> Song:
    song = {stem: stereo(resample(*read(path))) for stem, path in paths.items()}
    length = min(audio.shape[1] for audio in song.values())
    return {stem: fit(audio, length) for stem, audio in song.items()}


def found_jobs(sources: Path) -> list[Job]:
    """A funk song as stems, and the guitars of four metal songs."""
    funk = sources / "more" / "mdn_multitrack"
    metal = sorted((sources / "more" / "fof_sectoid").glob("*/other.ogg"))
    songs = {"funk": {stem: funk / f"{stem}.ogg" for stem in STEMS[1:]}}
    songs |= {f"metal-{path.parent.name}": {"other": path} for path in metal}
    return [Job("train", name, partial(_found, paths)) for name, paths in songs.items()]


def song_jobs(sources: Path) -> list[Job]:
    """The held-out songs, and the training songs at several speeds ("varispeed": pitch and tempo together)."""
    jobs = [Job("test", name, partial(_song, sources / "songs" / name, STEMS, 1.0)) for name in HELD_OUT]
    for speed in SPEEDS:
        for name, (stems, speeds) in TRAINING.items():
            if speed in speeds:
                label = name if speed == 1.0 else f"{name}@{speed:.2f}"
                jobs.append(Job("train", label, partial(_song, sources / "songs" / name, stems, speed)))
    return jobs


def solo_jobs(sources: Path) -> list[Job]:
    """Solo singing at several speeds, each produced in its own random way."""
    return [
        Job("train", f"solo-{Path(path).stem}@{speed:.2f}", partial(_solo, sources / "vocals" / path, speed))
        for speed in SOLO_SPEEDS
        for path in SOLOS
    ]
