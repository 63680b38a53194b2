"""Where frames belong in a song, according to their timestamps."""

from fractions import Fraction

_LONGEST_HOLE = 60.0  # seconds, in a song of unknown length; more is a clock that was set, and not a loss


class Timeline:
    """Finds holes in a song: frames whose timestamps are ahead of the samples decoded so far.

    Timestamps that jump back, as where recordings were joined, or that are far ahead, count from anew.

    Args:
        rate: Hz.
        time_base: Unit of the timestamps, seconds.
        tolerance: By how much timestamps may be off, seconds.
        length: Samples of the song, or None if it is not known.
    """

    def __init__(self, rate: int, time_base: Fraction, tolerance: float, length: int | None) -> None:
        self._rate = rate
        self._scale = time_base * rate  # samples per tick
        self._tolerance = tolerance * rate
        self._length = length
        self._origin: Fraction | None = None  # timestamp of the first sample
        self._lost = 0.0  # samples

    def hole_before(self, timestamp: int, position: int, *, certain: bool = False) -> int:
        """Return how many samples are missing before a frame with this timestamp, given those decoded so far.

        If it is certain that something is missing, timestamps need not be off by more than a tick.
        """
        start = timestamp - position / self._scale
        if self._origin is None:
            self._origin = start
        missing = round((start - self._origin) * self._scale)
        if missing < -self._rate or missing > self._longest(position):
            self._origin = start
            return 0
        return missing if missing > (self._scale if certain else self._tolerance) else 0

    def lose(self, ticks: float) -> None:
        """Count something as lost before the next frame, where timestamps do not tell."""
        self._lost += ticks * float(self._scale)

    def lost_before(self, position: int) -> int:
        """Return how many samples were counted as lost before a frame, given those decoded so far."""
        missing, self._lost = round(self._lost), 0.0
        return missing if missing <= self._longest(position) else 0

    def _longest(self, position: int) -> float:
        if self._length is None:
            return _LONGEST_HOLE * self._rate
        return self._length + self._tolerance - position
