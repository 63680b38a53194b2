"""Channels: mono to stereo and back, and downmixing to stereo."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from stemsplit.audio.decoding import Block

_HALF_POWER = 0.5**0.5  # -3 dB
_LEFT, _RIGHT = (1.0, 0.0), (0.0, 1.0)
_FRONT = {"FL": _LEFT, "FLC": _LEFT, "DL": _LEFT, "WL": _LEFT, "FR": _RIGHT, "FRC": _RIGHT, "DR": _RIGHT, "WR": _RIGHT}


def match_channels(blocks: Iterable[Block], channels: int) -> Iterator[Block]:
    """Convert mono to stereo, by repeating it, or stereo to mono, by averaging.

    Args:
        blocks: `(C, n)`, C being 1 or 2.
        channels: 1 or 2; blocks that already have this many are passed on.

    Yields:
        `(channels, n)`.

    Raises:
        ValueError: Another number of channels.
    """
    for block in blocks:
        if block.shape[0] == channels:
            yield block
        elif (block.shape[0], channels) == (1, 2):
            yield np.repeat(block, 2, axis=0)
        elif (block.shape[0], channels) == (2, 1):
            yield block.mean(axis=0, keepdims=True, dtype=np.float32)
        else:
            raise ValueError(f"cannot turn {block.shape[0]} channels into {channels}")


def downmix_matrix(names: Sequence[str]) -> Block:
    """Return the matrix that downmixes channels to stereo, as in Recommendation ITU-R BS.775.

    Centre and surround get -3 dB, a single rear channel -6 dB on each side, and LFE is left out. Height channels have
    the gains of surround and rear, unknown ones those of a single rear channel, so that none is lost. The matrix is
    scaled so that the result cannot clip, as FFmpeg does for integer samples.

    Args:
        names: FFmpeg's names of the channels: "FL", "FC", "LFE", "BL" and so on.

    Returns:
        `(2, C)`.
    """
    matrix: Block = np.array([_gains(name) for name in names], dtype=np.float32).T
    matrix /= max(1.0, float(matrix.sum(axis=1).max()))
    return matrix


def _gains(name: str) -> tuple[float, float]:
    """Return a channel's gains on the left and on the right."""
    if name in _FRONT:
        return _FRONT[name]
    if name == "FC":
        return _HALF_POWER, _HALF_POWER
    if name.startswith("LFE"):
        return 0.0, 0.0
    if name.endswith("L"):
        return _HALF_POWER, 0.0
    if name.endswith("R"):
        return 0.0, _HALF_POWER
    return 0.5, 0.5
