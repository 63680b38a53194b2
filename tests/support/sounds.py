"""Sounds for tests of decoders, and the encoders that write them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile  # type: ignore[import-untyped]

from stemsplit.audio.decoding import Block
from stemsplit.audio.reading import open_reader

RATE = 44_100  # Hz
LENGTH = 70_003  # samples: no multiple of any codec's frame


def bursts(channels: int = 2, length: int = LENGTH) -> Block:
    """Low-passed noise whose level changes all the time, so that its place in time is unmistakable."""
    rng = np.random.default_rng(7)
    noise = np.cumsum(rng.standard_normal((channels, length + 200)), axis=1)
    noise = noise[:, 200:] - noise[:, :-200]
    level = np.repeat(rng.uniform(0.1, 1, length // 999 + 1), 999)[:length]
    song: Block = (0.3 * level * noise / np.abs(noise).max()).astype(np.float32)
    return song


def encode(
    path: Path,
    samples: Block,
    codec: str,
    *,
    rate: int = RATE,
    layout: str = "stereo",
    bit_rate: int = 128_000,
    options: dict[str, str] | None = None,
    format: str | None = None,
    begin: int = 0,
) -> Path:
    """Write (C, N) at RATE with one of FFmpeg's encoders, or, what those in PyAV lack, libsndfile's for Vorbis.

    `begin` is the time of the first sample, in samples.
    """
    if codec == "libvorbis":
        soundfile.write(path, samples.T, RATE)
        return path
    with av.open(str(path), "w", format=format, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, options={"strict": "-2"})
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = bit_rate
        if codec == "wavpack":
            stream.format = av.AudioFormat("s16p")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T).reshape(1, -1), "flt", layout)
        frame.sample_rate = RATE
        frame.time_base = Fraction(1, RATE)
        frame.pts = begin
        fit = av.AudioResampler(stream.format, layout, rate, stream.codec_context.frame_size or None)
        for part in [*fit.resample(frame), *fit.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def read(path: Path, size: int = 65_536) -> Block:
    """All of a song."""
    return read_with_warnings(path, size)[0]


def read_with_warnings(path: Path, size: int = 65_536) -> tuple[Block, list[str]]:
    """All of a song, and what is said about it, without its name."""
    with open_reader(path) as reader:
        blocks = [np.zeros((reader.channels, 0), np.float32), *reader.blocks(size)]
        warnings = [warning.removeprefix(f"{str(path)!r} ") for warning in reader.warnings]
        about_damage = ("is damaged", "ends early")
        assert reader.incomplete is any(warning.startswith(about_damage) for warning in warnings)
        return np.concatenate(blocks, axis=1), warnings


def lag(late: Block, early: Block) -> int:
    """By how many samples the first channel of `late` comes after that of `early`."""
    size = 2 * max(late.shape[1], early.shape[1])
    product = np.fft.rfft(late[0], size) * np.conj(np.fft.rfft(early[0], size))
    best = int(np.argmax(np.fft.irfft(product, size)))
    return best if best < size // 2 else best - size
