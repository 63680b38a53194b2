"""What can be taken away of a song: a mix of its stems, rendered by the engine, and an archive of all."""

import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from stemsplit.audio.channels import match_channels
from stemsplit.audio.decoding import Block
from stemsplit.audio.formats import Format
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.audio.resampling import resample
from stemsplit.audio.writing import StemWriter
from stemsplit.dsp.stretching import stretch
from stemsplit.errors import AudioError, UsageError

MAX_GAIN = 16.0  # 24 dB, more than the faders of the player have
SPEEDS = (0.5, 1.5)  # as in the player
SEMITONES = range(-12, 13)
_CHUNK = 2**20  # bytes


@dataclass(frozen=True, slots=True)
class Mix:
    """What is heard of a song.

    Attributes:
        gains: Factor of each stem that is heard, from 0 to MAX_GAIN.
        speed: From SPEEDS[0] to SPEEDS[1]; it does not change the pitch.
        semitones: Whole ones, by which the pitch is raised, one of SEMITONES; it does not change the speed.

    Raises:
        UsageError: A number is out of range, or nothing is heard.
    """

    gains: Mapping[str, float]
    speed: float = 1.0
    semitones: int = 0

    def __post_init__(self) -> None:
        for stem, gain in self.gains.items():
            if not 0 <= gain <= MAX_GAIN:  # nor NaN
                raise UsageError(f"the gain of {stem!r} must be from 0 to {MAX_GAIN:g}, not {gain:g}")
        if not any(self.gains.values()):
            raise UsageError("nothing is heard", "turn up a stem")
        if not SPEEDS[0] <= self.speed <= SPEEDS[1]:
            raise UsageError(f"the speed must be from {SPEEDS[0]:g} to {SPEEDS[1]:g}, not {self.speed:g}")
        if self.semitones not in SEMITONES:
            raise UsageError(f"the pitch must be from {SEMITONES[0]} to {SEMITONES[-1]}, not {self.semitones}")

    @classmethod
    def parse(cls, value: Any) -> "Mix":
        """Check a mix that came from a page.

        Raises:
            UsageError: It is not what a page would send.
        """
        given = value if isinstance(value, dict) and value.keys() <= {"gains", "speed", "semitones"} else {}
        gains, speed, semitones = given.get("gains"), given.get("speed", 1), given.get("semitones", 0)
        numbers = [speed, semitones, *gains.values()] if isinstance(gains, dict) else []
        if gains is None or not numbers or not all(type(each) in (int, float) for each in numbers):
            raise UsageError("a mix is a gain for each stem, a speed and a number of semitones", "reload the page")
        return cls(gains, speed, semitones)

    @property
    def name(self) -> str:
        """Of a file: "mix", or "mix 75 % +2"."""
        speed = "" if self.speed == 1 else f" {100 * self.speed:.0f} %"
        return f"mix{speed}{f' {self.semitones:+d}' if self.semitones else ''}"


def render_mix(
    stems: Mapping[str, Path], mix: Mix, folder: Path, format: Format, *, check: Callable[[], object] = lambda: None
) -> tuple[Path, int]:
    """Mix stems to a new file, "mix.wav" or "mix (2).wav".

    Args:
        stems: The files of the stems, of one sample rate.
        mix: What is heard of them.
        folder: Of the file.
        format: Of the file.
        check: Called now and then; an exception that it raises ends the work, and no file is left.

    Returns:
        The file, and how many of its samples were clipped.

    Raises:
        UsageError: There is no such stem.
        AudioError: A stem cannot be read, or the mix cannot be written.
    """
    if unknown := mix.gains.keys() - stems.keys():
        raise UsageError(f"there is no stem {min(unknown)!r}", f"the stems are {', '.join(stems)}")
    heard = {stem: gain for stem, gain in mix.gains.items() if gain > 0}
    path = _unused(folder, mix.name, format.extension)
    with ExitStack() as stack:
        readers = [stack.enter_context(open_reader(stems[stem])) for stem in heard]
        rate, channels = readers[0].rate, max(reader.channels for reader in readers)
        if any(reader.rate != rate for reader in readers):
            raise AudioError("the stems have different sample rates", "separate the song again", path=folder)
        lengths = [reader.length for reader in readers if reader.length is not None]
        length = round(max(lengths) / mix.speed) if lengths else None
        blocks = _sum(readers, list(heard.values()), channels)
        # Played at the rate that this leads to, the sound is higher, and faster: only the rest is left to be stretched.
        ratio = 2 ** (mix.semitones / 12)
        blocks = resample(blocks, round(1000 * rate * ratio), 1000 * rate, channels=channels)
        blocks = stretch(blocks, mix.speed / ratio, rate=rate, channels=channels)
        writer = stack.enter_context(
            StemWriter([path], rate=rate, channels=channels, format=format, expected_length=length)
        )
        for block in blocks:
            check()
            writer.write(block[None])
    return path, writer.clipped


def _sum(readers: list[Reader], gains: list[float], channels: int) -> Iterator[Block]:
    for blocks in zip_longest(*(match_channels(reader.blocks(), channels) for reader in readers)):
        mix = np.zeros((channels, max(block.shape[1] for block in blocks if block is not None)), np.float32)
        for block, gain in zip(blocks, gains, strict=True):
            if block is not None:  # it has not ended
                mix[:, : block.shape[1]] += np.float32(gain) * block
        yield mix


def stream_zip(paths: Iterable[Path]) -> Iterator[bytes]:
    """Yield an archive of files, uncompressed, as most sound cannot be compressed; it is never whole in memory."""
    written = _Written()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            info = zipfile.ZipInfo.from_file(path, path.name, strict_timestamps=False)
            with path.open("rb") as file, archive.open(info, "w", force_zip64=True) as entry:
                while block := file.read(_CHUNK):
                    entry.write(block)
                    yield written.take()
    yield written.take()


class _Written(io.RawIOBase):
    """A file that cannot seek, whose content is taken away as it is written."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        block = bytes(data)  # type: ignore[call-overload]
        self._blocks.append(block)
        return len(block)

    def take(self) -> bytes:
        block = b"".join(self._blocks)
        self._blocks.clear()
        return block


def _unused(folder: Path, name: str, extension: str) -> Path:
    path, number = folder / f"{name}{extension}", 1
    while os.path.lexists(path):
        number += 1
        path = folder / f"{name} ({number}){extension}"
    return path
