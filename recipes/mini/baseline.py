"""Separation without learning: harmonic/percussive separation, and a split by frequency.

    python recipes/mini/baseline.py DATA

Median filters over time and over frequency separate steady from sudden sounds (Fitzgerald, "Harmonic/percussive
separation using median filtering", DAFx 2010): the sudden part is the drums. Of the steady part, everything below
160 Hz is the bass, what is between 160 Hz and 8 kHz and alike in both channels is the vocals, and the rest is other.
This is the baseline for the model. It uses the same windows, and the same code scores it.
"""

import argparse
from pathlib import Path

import torch
from scipy.ndimage import median_filter
from torch import Tensor

from stemsplit.datasets.multitracks import find_songs
from stemsplit.dsp.stft import Stft
from stemsplit.evaluation.scoring import evaluate, mean_scores, mean_sdr
from stemsplit.models.checkpoint import Header, Model
from stemsplit.networks.masking import MaskNetwork
from stemsplit.separation.separator import Separator

STEMS = ("vocals", "drums", "bass", "other")
RATE = 44_100  # Hz
BASS, VOICE = (0, 160), (160, 8_000)  # Hz
STEADY, SUDDEN = 19, 31  # frames and bins the median filters look at: 0.44 s and 330 Hz


class Heuristic(MaskNetwork):
    """No weights: masks from median filters and bands."""

    def masks(self, spectrum: Tensor) -> Tensor:
        """`(B, 2, F, T)` complex -> `(B, 4, 2, F, T)`, adding up to one over the stems."""
        magnitude = spectrum.abs()
        steady = torch.from_numpy(median_filter(magnitude.numpy(), (1, 1, 1, STEADY))).square()
        sudden = torch.from_numpy(median_filter(magnitude.numpy(), (1, 1, SUDDEN, 1))).square()
        drums = sudden / (steady + sudden).clamp(min=1e-12)
        left, right = spectrum[:, :1], spectrum[:, 1:]
        alike = (2 * (left * right.conj()).abs() / (left.abs().square() + right.abs().square()).clamp(min=1e-12)).clamp(
            0, 1
        )
        hertz = torch.linspace(0, RATE / 2, self.stft.bins)[:, None]
        bass = ((hertz >= BASS[0]) & (hertz < BASS[1])).float()
        voice = ((hertz >= VOICE[0]) & (hertz < VOICE[1])).float() * alike
        vocals = (1 - drums) * voice
        bass = (1 - drums) * bass
        return torch.stack([vocals, drums, bass, 1 - drums - vocals - bass], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of songs as folders of stems")
    songs = find_songs(parser.parse_args().data, STEMS)
    header = Header("", {}, STEMS, RATE, 2, length=3 * RATE, hop=9 * RATE // 4)
    scores = list(evaluate(Separator(Model(header, Heuristic(Stft(4096, 1024)))), songs))
    for score in scores:
        cells = "  ".join(f"{stem} {value:6.2f}" for stem, value in score.sdr.items())
        print(f"{score.song:24} {cells}  mean {mean_sdr(score.sdr):6.2f}")
    means = mean_scores(scores)
    print(
        f"{'mean':24} "
        + "  ".join(f"{stem} {value:6.2f}" for stem, value in means.items())
        + f"  {mean_sdr(means):6.2f}"
    )


if __name__ == "__main__":
    main()
