"""The options of a separation: overlap, shifts, Wiener filtering, precision and batch size. Does not import torch."""

import numbers
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stemsplit.errors import UsageError

Precision = Literal["auto", "full", "half"]

MAX_OVERLAP = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparationOptions:
    """How a `Separator` separates; the defaults are those of the model.

    Attributes:
        overlap: Share of a window that the next one covers, in [0, `MAX_OVERLAP`]; None for that of the model.
        shifts: Average this many separations, each delayed by a random time of up to half a second; 0 for a single
            one without delay. Défossez et al., "Music Source Separation in the Waveform Domain" (2019), section 4.4.
        seed: Of the random delays.
        wiener: Iterations of Wiener filtering, for networks that estimate masks only.
        precision: "full" computes in float32; "half" uses 16 bits where that is safe, float16 on GPUs and bfloat16 on
            CPUs; "auto" is "half" on devices that compute it faster, see `stemsplit.devices.choose_precision`.
        batch_size: Windows at a time; None for one on a CPU and about 32 s of audio elsewhere. It is halved
            permanently when the device runs out of memory.

    Raises:
        UsageError: A value is out of range.
    """

    overlap: float | None = None
    shifts: int = 0
    seed: int = 0
    wiener: int = 0
    precision: Precision = "auto"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.overlap is not None and not 0 <= self.overlap <= MAX_OVERLAP:
            raise UsageError(f"the overlap must be from 0 to {MAX_OVERLAP}, not {self.overlap:g}")
        if self.shifts < 0:
            raise UsageError(f"the number of shifts must not be negative, got {self.shifts}")
        if self.wiener < 0:
            raise UsageError(f"the number of Wiener iterations must not be negative, got {self.wiener}")
        if self.precision not in get_args(Precision):
            raise UsageError(f"unknown precision {self.precision!r}", f"one of {', '.join(get_args(Precision))}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, not {self.batch_size}")

    def settings(self) -> dict[str, Any]:
        """Return the options that affect how the stems sound, for a manifest; the batch size only affects the speed."""
        settings = {
            "overlap": self.overlap,
            "shifts": self.shifts,
            "wiener": self.wiener,
            "precision": self.precision,
        }
        # Manifests of earlier versions do not have it, and are still valid for the default.
        return {**settings, "seed": self.seed} if self.seed else settings


def check_rate(rate: object) -> None:
    """Raise UsageError unless a sample rate is a whole number of Hz."""
    if not isinstance(rate, numbers.Real) or rate % 1 or rate < 1:
        raise UsageError(f"a sample rate must be a whole number of Hz, at least 1, not {rate!r}", "such as 44100")
