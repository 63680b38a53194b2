"""Compose, render and mix the demo song (34 s) from a seed; nothing in it is recorded.

python recipes/demo/make_demo.py [--out stemsplit/demo.ogg] [--stems DIR] [--seed 1]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mini"))  # the synthesizers and effects are shared

import drumkit
import midi
import mido
import numpy as np
import sampler
import score
import singer
import soundfile as sf
import synths
from effects import compress, echo, high_pass, low_pass, reverberate, widen
from electronic import duck
from midi import Note
from scipy import ndimage
from songs import RATE, Audio, Song, fit

PEAK = 10 ** (-1.5 / 20)  # of full scale; Vorbis adds about half a dB
BASS = synths.Patch("saw", sub=0.9, decay=0.35, sustain=0.7, cutoff=260, sweep=2.2, sweep_time=0.14, resonance=1.1)
PAD = synths.Patch("saw", voices=7, detune=0.32, attack=0.02, sustain=0.9, release=0.35, cutoff=3800, resonance=0.7)
PLUCK = synths.Patch("square", decay=0.12, sustain=0.15, release=0.25, cutoff=1500, sweep=1.6, sweep_time=0.1)
LEAD = synths.Patch("fm", ratio=2, index=1.6, decay=0.4, sustain=0.5, release=0.3, cutoff=7000)


def _balance(audio: Audio, level: float) -> Audio:
    """Scale audio to an RMS of `level` dB over its non-silent parts."""
    sounding = audio[np.abs(audio) > 1e-3]
    return audio * np.float32(10 ** (level / 20) / max(1e-6, float(np.sqrt((sounding**2).mean()))))


def _electric_piano(font: Path) -> Audio:
    events = [midi.Event(0.0, mido.Message("program_change", program=4))]
    for note in score.piano():
        message = mido.Message("note_on", note=note.key, velocity=note.velocity)
        events += [midi.Event(note.start, message, "other"), midi.Event(note.end, message.copy(velocity=0), "other")]
    return midi.render(events, font, score.SECONDS)


def _opening(audio: Audio, seconds: float) -> Audio:
    """A low-pass that opens over the first `seconds`."""
    count = -(-audio.shape[1] // 128)
    time = np.arange(count) * 128 / RATE
    cutoff = 350 * 2 ** (5.5 * np.minimum(1, time / seconds))
    return fit(synths.sweep_filter(audio.astype(np.float64), cutoff, 0.9).astype(np.float32), audio.shape[1])


def _riser(rng: np.random.Generator) -> Audio:
    """Noise that brightens over the bar before the hook."""
    length, begin = int(score.BAR * RATE), int((score.HOOK - 1) * score.BAR * RATE)
    rise = np.linspace(0, 1, length) ** 2
    noise = rng.standard_normal((2, length)) * rise
    cutoff = 300 * 2 ** (5 * np.linspace(0, 1, -(-length // 128)))
    out = np.zeros((2, int(score.SECONDS * RATE)), np.float32)
    out[:, begin : begin + length] = synths.sweep_filter(noise, cutoff, 1.2)
    return out


def _play(patch: synths.Patch, notes: list[Note], rng: np.random.Generator) -> Audio:
    return synths.play(patch, notes, score.SECONDS, rng)


def compose(font: Path, seed: int) -> Song:
    """Render the four stems (2, N), whose sum is the song."""
    rng = np.random.default_rng(seed)
    hits = score.drums()
    kicks = [time for time, role, _ in hits if role == "kick" and time >= score.HOOK * score.BAR]
    drums = sampler.play_hits(drumkit.make_kit(rng), hits, score.SECONDS)
    drums = compress(reverberate(drums, rng, seconds=0.5, wet=0.08), ratio=3, depth=6, attack=0.012)
    bass = duck(widen(_play(BASS, score.bass(), rng), 0.1), kicks, depth=0.6, seconds=0.2)
    keys = reverberate(_electric_piano(font), rng, seconds=1.6, wet=0.2)
    pads = duck(high_pass(_play(PAD, score.pads(), rng), 180), kicks, depth=0.8, seconds=0.35)
    plucks = echo(_play(PLUCK, score.arpeggio(), rng), seconds=3 * score.STEP, feedback=0.45, wet=0.4)
    plucks = duck(_opening(plucks, score.HOOK * score.BAR), kicks, depth=0.4, seconds=0.25)
    lead = reverberate(_play(LEAD, score.lead(), rng), rng, seconds=1.8, wet=0.3)
    layers = ((keys, -25), (widen(pads, 1.2), -27), (plucks, -30), (lead, -27), (_riser(rng), -34))
    other = sum((_balance(audio, level) for audio, level in layers), np.zeros_like(keys))
    voice = high_pass(singer.perform(rng), 110)
    voice = compress(low_pass(voice, 15000), ratio=3.5, depth=12, attack=0.006, release=0.15)
    voice = echo(voice, seconds=3 * score.STEP, feedback=0.25, wet=0.12)
    voice = reverberate(voice, rng, seconds=1.7, wet=0.22)
    stems = {
        "vocals": _balance(voice, -18.5),
        "drums": _balance(drums, -17.5),
        "bass": _balance(bass, -18.5),
        "other": other.astype(np.float32),
    }
    return _master(stems)


def _master(stems: Song) -> Song:
    """Limit the song with one gain curve for all stems, so that it stays their sum; fade out the last second."""
    mixture = sum(stems.values(), np.zeros((2, 1), np.float32))
    loudness = np.abs(mixture).max(axis=0)
    drive = np.float32(PEAK / np.percentile(loudness, 99.93))
    reach = ndimage.maximum_filter1d(loudness * drive, int(0.006 * RATE))
    gain = ndimage.uniform_filter1d(np.minimum(1, PEAK / np.maximum(reach, 1e-6)), int(0.006 * RATE))
    gain *= np.minimum(1, np.arange(len(gain))[::-1] / RATE)
    limited = {name: audio * drive * gain.astype(np.float32) for name, audio in stems.items()}
    peak = float(np.abs(sum(limited.values(), np.zeros((2, 1), np.float32))).max())
    return {name: audio * np.float32(PEAK / peak) for name, audio in limited.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Compose, render and mix the demo song.")
    parser.add_argument("--out", type=Path, default=Path("stemsplit/demo.ogg"))
    parser.add_argument("--stems", type=Path, help="also write the four stems here, as WAV")
    parser.add_argument("--font", type=Path, default=Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    stems = compose(options.font, options.seed)
    mixture = sum(stems.values(), np.zeros((2, 1), np.float32))
    with sf.SoundFile(options.out, "w", RATE, 2, "VORBIS", format="OGG") as file:
        for start in range(0, mixture.shape[1], RATE):  # libsndfile's Vorbis encoder needs small blocks
            file.write(mixture[:, start : start + RATE].T)
    print(f"{options.out}: {mixture.shape[1] / RATE:.1f} s, {options.out.stat().st_size / 1024:.0f} KiB")
    if options.stems:
        options.stems.mkdir(parents=True, exist_ok=True)
        for name, audio in stems.items():
            sf.write(options.stems / f"{name}.wav", audio.T, RATE, subtype="PCM_24")


if __name__ == "__main__":
    main()
