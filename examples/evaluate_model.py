"""Score a model on songs whose stems are known: SDR in dB for each song, and the means.

DATA has one folder for each song, with vocals.wav, drums.wav, bass.wav and other.wav in it.

python examples/evaluate_model.py DATA [MODEL]
"""

import sys
from pathlib import Path

from stemsplit import Separator, StemsplitError
from stemsplit.evaluation.scoring import evaluate, find_scorable, mean_scores


def main(data: str, model: str = "mini") -> None:
    separator = Separator.load(model)
    songs, errors = find_scorable(Path(data), separator.stems)
    for error in errors:
        print(error, file=sys.stderr)
    scores = []
    for score in evaluate(separator, songs):
        print(score.song, *(f"{stem} {decibels:.2f}" for stem, decibels in score.sdr.items()))
        scores.append(score)
    print("mean", *(f"{stem} {decibels:.2f}" for stem, decibels in mean_scores(scores).items()))


if __name__ == "__main__":
    if not 1 <= len(sys.argv) - 1 <= 2:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except StemsplitError as error:
        sys.exit(f"{error} ({error.hint})")
