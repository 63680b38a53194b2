"""The beats of a song, for loops and for counting in: onsets, a tempo, and the chain of onsets that keeps to it best.

Ellis, "Beat Tracking by Dynamic Programming", Journal of New Music Research 36(1), 2007.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

N_FFT = 1024  # samples
HOP_SECONDS = 0.0116
SLOWEST_BPM, USUAL_BPM, FASTEST_BPM = 40.0, 120.0, 240.0
OCTAVES = 0.9  # deviation of tempi from the usual one, of the Gaussian by which they are weighted
TIGHTNESS = 400.0  # how much a beat at twice the distance costs, in units of the deviation of the onsets
LEAST_DEVIATION = 0.02  # of the onsets of a song that does not just sound steadily
LEAST_CLARITY = 0.15  # autocorrelation at the period, below which a song has no beat that one could count


class BeatTracker:
    """Finds the beats of a stream; memory grows by 4 bytes for every 12 ms.

    Args:
        rate: Hz.
    """

    def __init__(self, rate: int) -> None:
        self._rate, self._hop = rate, round(rate * HOP_SECONDS)
        self._window = np.hanning(N_FFT).astype(np.float32)
        self._buffered = np.zeros(N_FFT // 2, np.float32)
        self._last: Floats | None = None
        self._onsets: list[Floats] = []

    def add(self, samples: Floats) -> None:
        """Add the next samples of a mono signal, `(n,)`."""
        samples = np.concatenate([self._buffered, samples])
        count = max(0, (len(samples) - N_FFT) // self._hop + 1)
        self._buffered = samples[count * self._hop :].copy()
        if not count:
            return
        frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[:: self._hop][:count]
        loudness = np.log1p(100 * np.abs(np.fft.rfft(frames * self._window))).astype(np.float32)
        before = loudness[:1] if self._last is None else self._last
        rises = np.diff(np.concatenate([before, loudness]), axis=0)
        self._onsets.append(np.maximum(0, rises).mean(axis=1))
        self._last = loudness[-1:]

    def finish(self) -> list[int]:
        """Return the beats in samples; none if the song has no clear beat."""
        onsets = np.concatenate(self._onsets) if self._onsets else np.zeros(0, np.float32)
        if len(onsets) < 4 * self._frames(SLOWEST_BPM) or (deviation := float(onsets.std())) < LEAST_DEVIATION:
            return []
        onsets = (onsets - onsets.mean()) / deviation
        period, clarity = self._tempo(onsets)
        if clarity < LEAST_CLARITY:
            return []
        return [round(frame * self._hop) for frame in _chain(onsets, period)]

    def _frames(self, bpm: float) -> int:
        return round(60 / bpm * self._rate / self._hop)

    def _tempo(self, onsets: Floats) -> tuple[float, float]:
        """Return the period of the beats in frames, and the autocorrelation there."""
        size = 1 << (2 * len(onsets) - 1).bit_length()
        spectrum = np.fft.rfft(onsets, size)
        likeness = np.fft.irfft(np.abs(spectrum) ** 2, size)[: 2 * self._frames(SLOWEST_BPM)] / len(onsets)
        lags = np.arange(self._frames(FASTEST_BPM), self._frames(SLOWEST_BPM) + 1)
        octaves = np.log2(lags / self._frames(USUAL_BPM)) / OCTAVES
        weighted = np.exp(-0.5 * octaves**2) * likeness[lags]
        best = int(lags[weighted.argmax()])
        left, middle, right = likeness[best - 1 : best + 2]
        bend = left - 2 * middle + right
        return best + (0.5 * (left - right) / bend if bend < 0 else 0.0), float(middle)


def _chain(onsets: Floats, period: float) -> list[int]:
    """Return the frames of the beats: of all chains, the one with the strongest onsets at the most even distances."""
    longest, shortest = round(2 * period), max(1, round(period / 2))
    distances = np.arange(longest, shortest - 1, -1)
    costs = TIGHTNESS * np.log(distances / period) ** 2
    scores = np.array(onsets, np.float64)
    previous = np.full(len(onsets), -1)
    for frame in range(shortest, len(onsets)):
        skip = max(0, longest - frame)
        candidates = scores[frame - distances[skip] : frame - shortest + 1] - costs[skip:]
        best = int(candidates.argmax())
        if candidates[best] > 0 or frame >= longest:
            scores[frame] += candidates[best]
            previous[frame] = frame - distances[skip + best]
    last = len(scores) - round(period) + int(scores[-round(period) :].argmax())
    beats = [last]
    while previous[beats[-1]] >= 0:
        beats.append(int(previous[beats[-1]]))
    return beats[::-1]
