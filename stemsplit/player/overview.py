"""The overview of a song: peaks and spectrograms of its stems, in a bounded number of columns for any length."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

N_FFT = 2048  # samples
HOP = 1024  # samples
BANDS = 96
LOWEST_HZ, HIGHEST_HZ = 30.0, 16_000.0
RANGE_DB = 100.0  # below full scale; anything softer counts as silence
# A wide screen has about 4000 pixels. A song has between half of these columns and all, unless it is short.
PEAK_COLUMNS, POWER_COLUMNS = 8192, 2048
SHORTEST_PEAK = 64  # samples


@dataclass(frozen=True, slots=True)
class Picture:
    """The overview of a song's stems, in 8-bit numbers. The last column may stand for fewer samples than the others.

    Attributes:
        peak_samples: Samples in a column of `lows` and `highs`.
        lows: Lowest sample in each column over all channels, `(S, columns)`; 127 is the peak of all stems.
        highs: Highest sample likewise, `(S, columns)`.
        power_samples: Samples in a column of `powers`.
        powers: Power in each band, from the lowest, `(S, columns, BANDS)`; 255 is a full-scale sine in all channels,
            and 0 is RANGE_DB below it, or less.
    """

    peak_samples: int
    lows: npt.NDArray[np.int8]
    highs: npt.NDArray[np.int8]
    power_samples: int
    powers: npt.NDArray[np.uint8]


class Overview:
    """Computes the `Picture` of a stream of stems; memory does not grow with its length.

    Args:
        stems: How many.
        channels: Of each stem.
        rate: Hz.
    """

    def __init__(self, stems: int, channels: int, rate: int) -> None:
        self._lows = _Columns(np.minimum, PEAK_COLUMNS, SHORTEST_PEAK, (stems,))
        self._highs = _Columns(np.maximum, PEAK_COLUMNS, SHORTEST_PEAK, (stems,))
        self._powers = _Columns(np.add, POWER_COLUMNS, 1, (stems, BANDS))
        self._bands = mel_bands(rate).T
        self._window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)  # periodic
        # Frame t is centred on the samples from t * HOP to (t + 1) * HOP.
        self._buffered = np.zeros((stems, channels, (N_FFT - HOP) // 2), np.float32)
        self._length = self._frames = 0

    def add(self, stems: Floats) -> None:
        """Add the next samples, `(S, C, n)`."""
        self._length += stems.shape[-1]
        self._lows.add(stems.min(axis=1).T)
        self._highs.add(stems.max(axis=1).T)
        self._add_powers(stems)

    def finish(self) -> Picture:
        """Return the picture of everything added."""
        missing = -(-self._length // HOP) - self._frames
        self._add_powers(np.zeros((*self._buffered.shape[:-1], missing * HOP), np.float32))
        (lows, _), (highs, _), (sums, counts) = self._lows.finish(), self._highs.finish(), self._powers.finish()
        peak = float(max(highs.max(initial=0), -lows.min(initial=0)))
        steps = 127 / (peak or 1)
        decibels = 10 * np.log10(np.maximum(sums / counts[:, None, None], 10 ** (-RANGE_DB / 10)))
        powers = np.rint(255 * (1 + decibels / RANGE_DB)).clip(0, 255).astype(np.uint8)
        return Picture(
            peak_samples=self._lows.span,
            lows=np.rint(lows.T * steps).astype(np.int8),
            highs=np.rint(highs.T * steps).astype(np.int8),
            power_samples=self._powers.span * HOP,
            powers=powers.transpose(1, 0, 2),
        )

    def _add_powers(self, stems: Floats) -> None:
        samples = np.concatenate([self._buffered, stems], axis=-1)
        count = max(0, (samples.shape[-1] - N_FFT) // HOP + 1)
        self._buffered = samples[..., count * HOP :].copy()
        if not count:
            return
        frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT, axis=-1)[..., ::HOP, :]
        spectrum = np.fft.rfft(frames * self._window)  # (S, C, count, F)
        powers = (spectrum.real**2 + spectrum.imag**2).mean(axis=1) @ self._bands
        # By Parseval's theorem, the bins of a full-scale sine under a Hann window sum to 3/32 n_fft^2.
        self._powers.add((powers / (3 / 32 * N_FFT**2)).transpose(1, 0, 2).astype(np.float32))
        self._frames += count


def mel_bands(rate: int) -> Floats:
    """Return weights that divide the power of each bin between the two nearest bands.

    The bands are evenly spaced on the mel scale, 2595 log10(1 + f / 700 Hz) (O'Shaughnessy, 1987), from LOWEST_HZ to
    HIGHEST_HZ or half the sample rate.

    Args:
        rate: Hz.

    Returns:
        `(BANDS, F)`. The weights of a bin sum to 1, or to 0 outside of that range.
    """
    highest = min(HIGHEST_HZ, rate / 2)
    frequencies = np.fft.rfftfreq(N_FFT, 1 / rate)
    first, last = _mel(LOWEST_HZ), _mel(highest)
    positions = (_mel(frequencies) - first) / (last - first) * (BANDS - 1)
    weights: Floats = np.maximum(0, 1 - np.abs(positions - np.arange(BANDS)[:, None])).astype(np.float32)
    weights[:, (frequencies < LOWEST_HZ) | (frequencies > highest)] = 0
    return weights


def _mel(frequency: Any) -> Any:
    return 2595 * np.log10(1 + frequency / 700)


class _Columns:
    """Values over time, combined in columns that double in width whenever there are `limit`, an even number.

    `finish` may return one more, for values that do not fill a column.
    """

    def __init__(self, combine: np.ufunc, limit: int, span: int, shape: tuple[int, ...]) -> None:
        self.span = span  # values in a column
        self._combine = combine
        self._columns = np.empty((limit, *shape), np.float32)
        self._count = 0
        self._pending = np.empty((0, *shape), np.float32)

    def add(self, values: Floats) -> None:
        """Add values, `(n, ...)`."""
        pending = np.concatenate([self._pending, values])
        while len(pending) >= self.span:
            if self._count == len(self._columns):
                self._count //= 2
                self._columns[: self._count] = self._joined(self._columns, 2)
                self.span *= 2
                continue
            new = min(len(pending) // self.span, len(self._columns) - self._count)
            self._columns[self._count : self._count + new] = self._joined(pending[: new * self.span], self.span)
            self._count += new
            pending = pending[new * self.span :]
        self._pending = pending

    def finish(self) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return all columns, and the number of values in each."""
        columns, counts = self._columns[: self._count], np.full(self._count, self.span)
        if len(self._pending):
            columns = np.concatenate([columns, self._joined(self._pending, len(self._pending))])
            counts = np.append(counts, len(self._pending))
        return columns, counts

    def _joined(self, values: Floats, count: int) -> Floats:
        groups = values.reshape(-1, count, *values.shape[1:])
        joined: Floats = self._combine.reduce(groups, axis=1)
        return joined
