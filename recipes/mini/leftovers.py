"""Give songs a singer, and write what `spleeter-2stems` leaves when it takes the singing out again.

    python recipes/mini/leftovers.py SOURCES DATA/train [--seed 1] [--only PATTERN]

Writes `mixture.wav` beside the stems of every song in which drums, bass and other instruments play: the accompaniment
as the second step of `mini` gets it, with traces of the voice, and holes where it was. One song in five has no singing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile
from effects import produce
from songs import RATE, Audio, fit, generator, read, resample, stereo

from stemsplit.separation.separator import Separator

STEMS = ("drums", "bass", "other")
UNSUNG = 0.2  # share of the songs
CHANT = 0.2  # of the sung ones: one style, and with noise
LEVEL_DB = (-4.0, 5.0)  # of the voice, relative to the accompaniment


def singing(sources: Path) -> tuple[list[Path], list[Path]]:
    """Files with singing, and those of them that are chant."""
    songs = [sources / "songs" / name / "vocals.ogg" for name in ("lithium", "rubidium", "hydrogen")]
    names = (
        "vocadito_ccby4/vocadito_1.wav",
        "vocadito_ccby4/vocadito_14.wav",
        "oatsu_mit/antagata_dokosa_denoise.flac",
    )
    chant = sorted((sources / "more" / "repleatur" / "vocals").glob("*.ogg"))
    return [*songs, *(sources / "vocals" / name for name in names)], chant


def sung(files: list[Path], length: int, rng: np.random.Generator) -> Audio:
    """Excerpts of files, one after another, somewhat faster or slower, through a production chain."""
    parts, missing = [], length
    path = files[int(rng.integers(len(files)))]
    while missing > 0:
        audio, rate = read(path)
        audio = stereo(resample(audio, rate * rng.uniform(0.85, 1.2)))
        start = int(rng.integers(max(1, audio.shape[1] - missing)))
        parts.append(audio[:, start : start + missing])
        missing -= parts[-1].shape[1]
    return fit(produce("vocals", np.concatenate(parts, axis=1), rng), length)


def mixed(stems: list[Audio], files: tuple[list[Path], list[Path]], rng: np.random.Generator) -> Audio:
    """The sum of the stems, and of a voice in most songs."""
    accompaniment = np.sum(stems, axis=0)
    if rng.random() < UNSUNG:
        return np.asarray(accompaniment)
    others, chant = files
    voice = sung(chant if rng.random() < CHANT else others, accompaniment.shape[1], rng)
    level = 10 ** (rng.uniform(*LEVEL_DB) / 20) * float(accompaniment.std()) / max(1e-6, float(voice.std()))
    return np.asarray(accompaniment + np.float32(0.5 * level) * voice)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write what spleeter-2stems leaves of sung songs.")
    parser.add_argument("sources", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="*", help="a pattern for the names of songs")
    options = parser.parse_args()
    separator, files = Separator.load("spleeter-2stems"), singing(options.sources)
    for folder in sorted(options.train.glob(options.only)):
        paths = [folder / f"{stem}.wav" for stem in STEMS]
        target = folder / "mixture.wav"
        if target.exists() or sum(path.exists() for path in paths) < 2:
            continue
        stems = [stereo(read(path)[0]) for path in paths if path.exists()]
        mixture = mixed(stems, files, generator(options.seed, folder.name))
        left = separator.separate_array(mixture, RATE)["accompaniment"]
        soundfile.write(folder / ".mixture.wav", left.T, RATE, subtype="FLOAT")
        (folder / ".mixture.wav").rename(target)
        print(folder.name, flush=True)


if __name__ == "__main__":
    main()
