"""Several recordings in one file, read one after the other."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from stemsplit.audio.channels import match_channels
from stemsplit.audio.decoding import Block, Damage, Source
from stemsplit.audio.resampling import resample
from stemsplit.errors import AudioError


class ChainSource:
    """The recordings of a chain, at the highest sample rate of them, and in stereo if one of them is.

    Args:
        links: Open each recording; those without sound, and those that cannot be decoded, are left out.

    Attributes:
        rate: Hz.
        channels: 1 or 2.
        downmixed_from: Number of channels in the file if it was more than two, else None.
        estimated_length: Samples, or None if that of a recording is not known.
        exact_length: None.
        stated_length: Samples according to all headers, or None.
        tolerance: By how much the stated length may be wrong, seconds.
        damage: What could not be decoded so far.

    Raises:
        AudioError: None of the recordings can be decoded.
    """

    exact_length: int | None = None

    def __init__(self, links: Sequence[Callable[[], Source]]) -> None:
        self.damage = Damage()
        self._error: OSError | None = None
        self._links: list[Callable[[], Source]] = []
        lengths: list[tuple[int | None, int | None, int]] = []  # estimated, stated, rate
        self.rate = self.channels = 0
        self.downmixed_from: int | None = None
        self.tolerance = 0.0
        refusal: AudioError | None = None
        for link in links:
            try:
                source = link()
            except AudioError as error:
                refusal = error
                self.damage.failures += 1
                continue
            self._links.append(link)
            lengths.append((source.estimated_length, source.stated_length, source.rate))
            self.rate, self.channels = max(self.rate, source.rate), max(self.channels, source.channels)
            self.downmixed_from = max(self.downmixed_from or 0, source.downmixed_from or 0) or None
            self.tolerance += source.tolerance
            source.close()
        if not self._links and refusal:
            raise refusal
        self.estimated_length = self._total([(estimated, rate) for estimated, _, rate in lengths])
        self.stated_length = self._total([(stated, rate) for _, stated, rate in lengths])

    @property
    def error(self) -> OSError | None:
        """Why the file cannot be read any further, or None."""
        return self._error

    def blocks(self) -> Iterator[Block]:
        """Yield blocks `(channels, n)` at `rate`, as far as the file can be decoded."""
        position = 0
        for link in self._links:
            source = link()
            try:
                resampled = resample(source.blocks(), source.rate, self.rate, channels=source.channels)
                start = position
                for block in match_channels(resampled, self.channels):
                    position += block.shape[1]
                    yield block
                self._add(source, start)
            finally:
                source.close()

    def excerpt(self, start: int, length: int) -> Block:
        """Return samples `(channels, n)` from `start` on, which takes decoding all before them.

        Raises:
            AudioError: Never; what cannot be decoded is silent.
        """
        parts = [np.zeros((self.channels, 0), np.float32)]
        position = 0
        for block in self.blocks():
            parts.append(block[:, max(0, start - position) : max(0, start + length - position)])
            position += block.shape[1]
            if position >= start + length:
                break
        return np.concatenate(parts, axis=1)

    def close(self) -> None:
        """Do nothing: recordings are closed when they have been read."""

    def _total(self, lengths: Sequence[tuple[int | None, int]]) -> int | None:
        total = 0
        for length, rate in lengths:
            if length is None:
                return None
            total += round(length * self.rate / rate)
        return total

    def _add(self, source: Source, start: int) -> None:
        """Count the damage of a recording that begins at a sample of the chain."""
        scale = self.rate / source.rate
        self._error = self._error or source.error
        self.damage.failures += source.damage.failures
        self.damage.successes += source.damage.successes
        self.damage.is_cut_off |= source.damage.is_cut_off
        self.damage.holes += [
            (start + round(position * scale), round(length * scale)) for position, length in source.damage.holes
        ]
