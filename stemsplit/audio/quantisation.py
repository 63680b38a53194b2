"""Float samples to integer ones: rounded, and with dither where the steps are coarse enough to be heard."""

import numpy as np
import numpy.typing as npt

DITHERED_BITS = 16


class Quantiser:
    """Rounds one stream of samples to integers of `bits` bits, 1.0 being 2^(bits - 1) steps, limited to full scale.

    24 bits are rounded to the nearest step: the error is at -146 dB of full scale, below any noise. 16 bits get TPDF
    dither of 2 steps peak to peak first, which makes the error's mean and power independent of the signal (Lipshitz,
    Wannamaker and Vanderkooy, "Quantization and dither: a theoretical survey", JAES 40, 1992).

    Samples that are on a step already get no dither: they need none, as nothing is rounded. So digital silence stays
    digital silence, and what was read from a file of 16 bits, such as a mixture, is written back bit for bit. A stem
    is hardly ever on a step elsewhere, so that the noise does not come and go with it.

    The dither is the same for the same `seed`, however the stream is cut into blocks; streams of different seeds have
    different dither, so that it does not add up in their sum more than noise does.
    """

    def __init__(self, bits: int, seed: int = 0) -> None:
        self._bits = bits
        self._random = np.random.Generator(np.random.PCG64(seed)) if bits <= DITHERED_BITS else None

    def __call__(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Samples (n, C), the next ones of the stream, as integers in the upper bits of 32."""
        full = 2 ** (self._bits - 1)
        if self._random is None:  # in single precision: a factor of a power of two changes the exponent only
            steps = np.clip(samples, -1, 1) * np.float32(full)
            np.minimum(np.rint(steps, out=steps), full - 1, out=steps)
        else:
            fine = samples * np.float64(full)
            first, second = np.moveaxis(self._random.random((*samples.shape, 2), dtype=np.float32), -1, 0)
            nearest = np.rint(fine)
            nearest = np.where(nearest == fine, fine, np.rint(fine + (first - second)))
            steps = np.clip(nearest, -full, full - 1)
        limited: npt.NDArray[np.int32] = steps.astype(np.int32)
        limited <<= 32 - self._bits
        return limited
