"""The best that masks can reach with an STFT and a number of bands, measured to choose both.

    python recipes/mini/ceiling.py DATA/train/lithium DATA/train/rubidium

The ideal ratio mask, |s|^2 / sum |s|^2, of the true stems, once in every bin and once gathered into bands and spread
back as the network does; SDR in dB of one minute of every song.
"""

import argparse
from itertools import product
from pathlib import Path

from torch import Tensor

from stemsplit.datasets.multitracks import find_songs, read_stems
from stemsplit.dsp.stft import Stft
from stemsplit.evaluation.metrics import sdr
from stemsplit.networks.unet import band_weights

STEMS = ("vocals", "drums", "bass", "other")
LINEAR_HZ = 1500  # below this, a band a bin
MINUTE = (100, 60)  # seconds: where it begins, how long it is


def ceiling(stems: Tensor, stft: Stft, bands: int | None, rate: int) -> Tensor:
    """SDR of the ideal ratio mask, stems `(S, C, N)` -> `(S,)` dB."""
    spectra = stft(stems)
    power = spectra.abs().square()
    if bands:
        weights = band_weights(stft.bins, bands, round(LINEAR_HZ * stft.n_fft / rate))
        power = weights.T @ power
    masks = power / power.sum(0).clamp(min=1e-20)
    return sdr(stems, stft.inverse((weights @ masks if bands else masks) * spectra.sum(0), stems.shape[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("songs", nargs="+", type=Path, help="folders of stems")
    songs = [song for folder in parser.parse_args().songs for song in find_songs(folder, STEMS)]
    print(f"{'n_fft':>6} {'hop':>5} {'bands':>6}   " + "   ".join(f"{song.name}: {' '.join(STEMS)}" for song in songs))
    for (n_fft, hop), bands in product([(2048, 512), (4096, 1024), (6144, 1024)], [None, 256, 320, 448]):
        if bands and round(LINEAR_HZ * n_fft / songs[0].rate) > 0.8 * bands:
            continue
        cells = []
        for song in songs:
            stems = read_stems(song, STEMS, MINUTE[0] * song.rate, MINUTE[1] * song.rate)
            cells.append(" ".join(f"{value:5.1f}" for value in ceiling(stems, Stft(n_fft, hop), bands, song.rate)))
        print(f"{n_fft:6} {hop:5} {bands or 'bins':>6}   " + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()
