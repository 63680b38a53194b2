"""What can be taken away of a song: a mix of its stems, rendered by the engine, and an archive of all."""

import io
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

import numpy as np

from stemsplit.audio.channels import match_channels
from stemsplit.audio.formats import Format
from stemsplit.audio.reading import open_reader
from stemsplit.audio.writing import StemWriter
from stemsplit.errors import AudioError, UsageError

MAX_GAIN = 16.0  # 24 dB, more than the faders of the player have
_CHUNK = 2**20  # bytes


def render_mix(stems: Mapping[str, Path], gains: Mapping[str, float], folder: Path, format: Format) -> Path:
    """Mix stems to a new file, "mix.wav" or "mix (2).wav".

    Args:
        stems: The files of the stems, of one sample rate.
        gains: Factor of each stem that is heard, from 0 to MAX_GAIN.
        folder: Of the file.
        format: Of the file.

    Returns:
        The file.

    Raises:
        UsageError: There is no such stem, or a gain is out of range, or nothing is heard.
        AudioError: A stem cannot be read, or the mix cannot be written.
    """
    for stem, gain in gains.items():
        if stem not in stems:
            raise UsageError(f"there is no stem {stem!r}", f"the stems are {', '.join(stems)}")
        if not (math.isfinite(gain) and 0 <= gain <= MAX_GAIN):
            raise UsageError(f"the gain of {stem!r} must be from 0 to {MAX_GAIN:g}, not {gain:g}")
    heard = {stem: gain for stem, gain in gains.items() if gain > 0}
    if not heard:
        raise UsageError("nothing is heard", "turn up a stem")
    path = _unused(folder, format.extension)
    with ExitStack() as stack:
        readers = [stack.enter_context(open_reader(stems[stem])) for stem in heard]
        channels = max(reader.channels for reader in readers)
        if len({reader.rate for reader in readers}) > 1:
            raise AudioError("the stems have different sample rates", "separate the song again", path=folder)
        lengths = [reader.length for reader in readers if reader.length is not None]
        writer = stack.enter_context(
            StemWriter(
                [path],
                rate=readers[0].rate,
                channels=channels,
                format=format,
                expected_length=max(lengths, default=None),
            )
        )
        for blocks in zip_longest(*(match_channels(reader.blocks(), channels) for reader in readers)):
            length = max(block.shape[1] for block in blocks if block is not None)
            mix = np.zeros((channels, length), np.float32)
            for block, gain in zip(blocks, heard.values(), strict=True):
                if block is not None:  # it has not ended
                    mix[:, : block.shape[1]] += np.float32(gain) * block
            writer.write(mix[None])
    return path


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


def _unused(folder: Path, extension: str) -> Path:
    path, number = folder / f"mix{extension}", 1
    while os.path.lexists(path):
        number += 1
        path = folder / f"mix ({number}){extension}"
    return path
