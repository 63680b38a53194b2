"""What all decoders have in common: the arrays that they yield, and the protocol behind a `Reader`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stemsplit.errors import AudioError

Block = npt.NDArray[np.float32]
"""Samples of a song, `(C, n)`: contiguous, nominally in [-1, 1]."""
Stems = npt.NDArray[np.float32]
"""Samples of several stems, `(S, C, n)`."""


@dataclass(slots=True)
class Damage:
    """What could not be decoded of a song so far.

    Attributes:
        holes: For each place where silence stands in for what is lost: its position and length, samples.
        failures: Packets or blocks that could not be decoded.
        successes: Those that could.
        is_cut_off: Whether the end of the file is missing, though nothing says how much it is.
    """

    holes: list[tuple[int, int]] = field(default_factory=list)
    failures: int = 0
    successes: int = 0
    is_cut_off: bool = False

    @property
    def silence(self) -> int:
        """Samples of silence that stand in."""
        return sum(length for _, length in self.holes)


class Source(Protocol):
    """A decoder with a song in it.

    Attributes:
        rate: Hz.
        channels: As `blocks` gives them.
        downmixed_from: Number of channels in the file if it was more than two and they are downmixed, else None.
        estimated_length: Samples, or None if not even an estimate is known.
        exact_length: Samples, if a header gives them exactly, else None.
        stated_length: Samples according to a header that can be trusted, even if the file is truncated, or None.
        tolerance: By how much the stated length may be wrong, seconds.
        damage: What could not be decoded so far.
    """

    rate: int
    channels: int
    downmixed_from: int | None
    estimated_length: int | None
    exact_length: int | None
    stated_length: int | None
    tolerance: float
    damage: Damage

    @property
    def error(self) -> OSError | None:
        """Why the file cannot be read any further, or None."""

    def blocks(self) -> Iterator[Block]:
        """Yield blocks `(channels, n)` at `rate`, as far as the file can be decoded."""

    def excerpt(self, start: int, length: int) -> Block:
        """Return samples `(channels, n)` from `start` on; `n < length` at the end of the song.

        Raises:
            AudioError: Part of the excerpt cannot be decoded.
        """

    def close(self) -> None:
        """Close the decoder, not the file; a second call does nothing."""


def undecodable(path: Path, reason: str = "it is damaged, or not audio") -> AudioError:
    """Return the error for a file, or a part of it, that no decoder can read."""
    hint = "if a player can play it, convert it first, for instance with  ffmpeg -i SONG song.flac"
    return AudioError(f"cannot decode {str(path)!r}: {reason}", hint, path=path)


def encrypted(path: Path) -> AudioError:
    """Return the error for a file that only the programs of a shop or of a streaming service can play."""
    return AudioError(f"cannot decode {str(path)!r}: it is encrypted", "name a copy without copy protection", path=path)
