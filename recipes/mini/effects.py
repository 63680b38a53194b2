"""Production effects on stems (2, N), and random chains of them for each kind of stem."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import signal
from songs import RATE, Audio, at_level

# Active RMS in dB of a produced stem: mean and spread. The real songs' stems lie between -17 and -37 dB, with drums and
# bass loudest; the means are nearer to each other here because training draws further gains anyway.
LEVELS = {"vocals": (-21.0, 2.5), "drums": (-19.5, 2.0), "bass": (-20.5, 2.5), "other": (-22.5, 3.0)}


def _shelf(frequency: float, gain: float, *, high: bool) -> NDArray[np.float64]:
    """Second-order shelf of slope 1 (Bristow-Johnson, Audio EQ Cookbook), `gain` in dB."""
    a, w = 10 ** (gain / 40), 2 * np.pi * frequency / RATE
    cos, alpha, s = np.cos(w), np.sin(w) / np.sqrt(2), -1.0 if high else 1.0
    root = 2 * np.sqrt(a) * alpha
    b0 = a * ((a + 1) - s * (a - 1) * cos + root)
    b1 = s * 2 * a * ((a - 1) - s * (a + 1) * cos)
    b2 = a * ((a + 1) - s * (a - 1) * cos - root)
    a0 = (a + 1) + s * (a - 1) * cos + root
    a1 = -s * 2 * ((a - 1) + s * (a + 1) * cos)
    a2 = (a + 1) + s * (a - 1) * cos - root
    return np.asarray(np.array([b0, b1, b2, a0, a1, a2]) / a0, dtype=np.float64)


def _bell(frequency: float, gain: float, q: float) -> NDArray[np.float64]:
    """Peaking filter (Audio EQ Cookbook), `gain` in dB."""
    a, w = 10 ** (gain / 40), 2 * np.pi * frequency / RATE
    alpha = np.sin(w) / (2 * q)
    b = [1 + alpha * a, -2 * np.cos(w), 1 - alpha * a]
    return np.asarray(np.array([*b, 1 + alpha / a, -2 * np.cos(w), 1 - alpha / a]) / (1 + alpha / a), dtype=np.float64)


def filter_with(sections: NDArray[np.float64], audio: Audio) -> Audio:
    """Audio through second-order sections."""
    return np.asarray(signal.sosfilt(sections, audio, axis=-1), dtype=np.float32)


def equalize(audio: Audio, rng: np.random.Generator, *, depth: float = 4.0) -> Audio:
    """Two shelves and two bells, each of about `depth` dB."""
    sections = [
        _shelf(rng.uniform(60, 300), rng.normal(0, depth), high=False),
        _shelf(rng.uniform(2500, 9000), rng.normal(0, depth), high=True),
        _bell(np.exp(rng.uniform(np.log(150), np.log(900))), rng.normal(0, depth), rng.uniform(0.5, 2)),
        _bell(np.exp(rng.uniform(np.log(900), np.log(7000))), rng.normal(0, depth), rng.uniform(0.5, 2)),
    ]
    return filter_with(np.array(sections), audio)


def low_pass(audio: Audio, frequency: float, order: int = 2) -> Audio:
    return filter_with(signal.butter(order, min(frequency, 0.49 * RATE), fs=RATE, output="sos"), audio)


def high_pass(audio: Audio, frequency: float, order: int = 2) -> Audio:
    return filter_with(signal.butter(order, frequency, "highpass", fs=RATE, output="sos"), audio)


def compress(audio: Audio, *, ratio: float, depth: float, attack: float = 0.005, release: float = 0.12) -> Audio:
    """Feed-forward compressor, channels linked; the threshold lies `depth` dB under the loudest parts. Times in s."""
    hop = 64
    count = -(-audio.shape[1] // hop)
    padded = np.pad(audio, ((0, 0), (0, count * hop - audio.shape[1])))
    level = 10 * np.log10((padded.reshape(len(audio), count, hop) ** 2).mean(axis=(0, 2)) + 1e-9)
    wanted = np.minimum(0, (np.percentile(level, 98) - depth - level) * (1 - 1 / ratio))
    rise, fall = (float(np.exp(-hop / (seconds * RATE))) for seconds in (attack, release))
    gain, now = np.empty(count), 0.0
    for index, target in enumerate(wanted.tolist()):
        keep = rise if target < now else fall
        now = keep * now + (1 - keep) * target
        gain[index] = now
    curve = np.interp(np.arange(audio.shape[1]), np.arange(count) * hop + hop / 2, 10 ** (gain / 20))
    return audio * curve.astype(np.float32)


def saturate(audio: Audio, drive: float) -> Audio:
    """Soft clipping; `drive` 1 is gentle, 8 a distortion. Keeps the peak."""
    peak = float(np.abs(audio).max(initial=1e-9))
    return np.asarray(np.tanh(audio * (drive / peak)) * (peak / np.tanh(drive)), dtype=np.float32)


def reverberate(audio: Audio, rng: np.random.Generator, *, seconds: float, wet: float) -> Audio:
    """Reverb of decaying noise, independent in each channel, whose treble decays first; `seconds` is its RT60."""
    length = int(seconds * RATE)
    time = np.arange(length) / RATE
    noise = rng.standard_normal((2, length))
    dark = signal.sosfilt(signal.butter(1, rng.uniform(1000, 4000), fs=RATE, output="sos"), noise, axis=-1)
    room = dark * np.exp(-6.9 * time / seconds) + 0.5 * (noise - dark) * np.exp(-6.9 * time / (0.45 * seconds))
    room = signal.sosfilt(signal.butter(1, rng.uniform(80, 300), "highpass", fs=RATE, output="sos"), room, axis=-1)
    room /= np.sqrt((room**2).sum(axis=1, keepdims=True))
    delay = int(rng.uniform(0, 0.04) * RATE)
    tail = signal.oaconvolve(audio, room.astype(np.float32), axes=-1)[:, : audio.shape[1]]
    tail = np.pad(tail, ((0, 0), (delay, 0)))[:, : audio.shape[1]]
    return np.asarray(audio + wet * tail, dtype=np.float32)


def echo(audio: Audio, *, seconds: float, feedback: float, wet: float, crossed: bool = True) -> Audio:
    """Echoes `seconds` apart, each darker and quieter by the factor `feedback`; `crossed` ones alternate sides."""
    step, out, repeat, gain = int(seconds * RATE), audio.copy(), audio, wet
    while gain > 0.02 and step < audio.shape[1]:
        repeat = low_pass(np.pad(repeat, ((0, 0), (step, 0)))[:, : audio.shape[1]], 5000, 1)
        repeat = repeat[::-1] if crossed else repeat
        out += np.float32(gain) * repeat
        gain *= feedback
    return out


def widen(audio: Audio, width: float) -> Audio:
    """Scale the side signal: 0 is mono, 1 unchanged."""
    middle, side = audio.mean(axis=0), (audio[0] - audio[1]) / 2 * np.float32(width)
    return np.stack([middle + side, middle - side])


def pan(audio: Audio, place: float) -> Audio:
    """Constant-power balance; `place` goes from -1 (left) to 1 (right), and 0 keeps the levels."""
    angle = (place + 1) * np.pi / 4
    gains = np.array([[np.cos(angle)], [np.sin(angle)]]) * np.sqrt(2)
    return np.asarray(audio * gains, dtype=np.float32)


def detune_double(audio: Audio, rng: np.random.Generator, *, depth: float = 0.004) -> Audio:
    """Chorus: a copy on each side, whose delay is modulated by `depth` seconds."""
    time = np.arange(audio.shape[1])
    out = audio.copy()
    for channel in range(len(audio)):
        sway = 1 + np.sin(2 * np.pi * rng.uniform(0.2, 1.2) * time / RATE + rng.uniform(0, 6.28))
        place = time - (0.006 + depth * sway / 2) * RATE
        out[channel] += 0.7 * np.interp(place, time, audio[channel]).astype(np.float32)
    return out


def produce(stem: str, audio: Audio, rng: np.random.Generator) -> Audio:
    """Apply a random production chain for this kind of stem, ending at a typical level."""
    audio = high_pass(audio, 20)  # some samples have a DC offset, which an equalizer would raise further
    audio = equalize(audio, rng, depth=2.5 if stem == "vocals" else 3.5)
    if stem == "vocals":
        audio = high_pass(audio, rng.uniform(60, 140))
        # Singers in real mixes have about 10 dB more above 8 kHz than these voices.
        audio = filter_with(_shelf(rng.uniform(4000, 8000), rng.uniform(2, 14), high=True)[None], audio)
    if rng.random() < {"vocals": 0.8, "drums": 0.5, "bass": 0.6, "other": 0.3}[stem]:
        audio = compress(
            audio, ratio=rng.uniform(2, 6), depth=rng.uniform(4, 16),
            attack=rng.uniform(0.002, 0.03), release=rng.uniform(0.05, 0.3),
        )  # fmt: skip
    if rng.random() < {"vocals": 0.2, "drums": 0.3, "bass": 0.4, "other": 0.25}[stem]:
        audio = saturate(audio, rng.uniform(1, 4))
    if stem == "other" and rng.random() < 0.25:
        audio = detune_double(audio, rng)
    if rng.random() < {"vocals": 0.3, "drums": 0.05, "bass": 0.02, "other": 0.25}[stem]:
        audio = echo(audio, seconds=rng.uniform(0.15, 0.6), feedback=rng.uniform(0.2, 0.5), wet=rng.uniform(0.1, 0.35))
    if stem == "bass":
        audio = widen(audio, rng.uniform(0, 0.8))
    elif rng.random() < {"vocals": 0.75, "drums": 0.4, "other": 0.6}[stem]:
        longest = 0.9 if stem == "drums" else 2.8
        seconds = float(np.exp(rng.uniform(np.log(0.2), np.log(longest))))
        audio = reverberate(audio, rng, seconds=seconds, wet=rng.uniform(0.05, 0.45))
    if stem in ("drums", "other"):
        audio = widen(audio, rng.uniform(0.3, 1.4) if stem == "drums" else rng.uniform(0.6, 1.8))
    if stem == "other":
        audio = pan(audio, float(np.clip(rng.normal(0, 0.15), -0.6, 0.6)))
    audio = high_pass(audio, 20)  # saturation adds new offsets
    return at_level(audio, rng.normal(*LEVELS[stem]))
