"""Which songs of a data set are for training, and which only to see how well it goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stemsplit.datasets.multitracks import Multitrack, find_songs
from stemsplit.errors import DatasetError

# The 14 of MUSDB18's 100 training songs that its makers' own loader keeps for validation (sigsep/sigsep-mus-db,
# musdb/configs/mus.yaml, validation_tracks), so that results can be compared.
MUSDB18_VALIDATION = frozenset(
    {
        "ANiMAL - Rockshow",
        "Actions - One Minute Smile",
        "Alexander Ross - Goodbye Bolero",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Fergessen - Nos Palpitants",
        "James May - On The Line",
        "Johnny Lokke - Promises & Lies",
        "Leaf - Summerghost",
        "Meaxic - Take A Step",
        "Patrick Talbot - A Reason To Leave",
        "Skelpolu - Human Mistakes",
        "Traffic Experiment - Sirens",
        "Triviul - Angelsaint",
        "Young Griffo - Pennies",
    }
)
TRAIN, TEST, VALIDATIONS = "train", "test", ("valid", "validation")


@dataclass(frozen=True, slots=True)
class Split:
    """Songs to train on, songs to validate on, and `kept`: what the folder has that is for neither, such as "test"."""

    train: list[Multitrack]
    valid: list[Multitrack]
    kept: tuple[str, ...] = ()


def split_songs(folder: Path, stems: Sequence[str], *, validate: bool = True) -> Split:
    """The songs of a data set that is laid out as MUSDB18 is, or of any folder of songs.

    Where there is a folder `train`, beside `test`, `valid` or `validation`, only that is trained on. What is validated
    on is in `valid` or `validation`; without one it is the songs of `train` that MUSDB18's makers chose for that, by
    name. Any other folder is all for training.

    Args:
        validate: take songs out for validation; without it `train` is trained on as it is.

    Raises DatasetError as `find_songs` does, and when nothing is left to train on.
    """
    others = [folder / name for name in (*VALIDATIONS, TEST) if (folder / name).is_dir()]
    if not others or not (folder / TRAIN).is_dir():
        return Split(find_songs(folder, stems), [])
    songs = find_songs(folder / TRAIN, stems)
    own = [other for other in others if other.name in VALIDATIONS]
    kept = tuple(other.name for other in others if other not in own[:1] or not validate)
    if not validate:
        return Split(songs, [], kept)
    if own:
        return Split(songs, find_songs(own[0], stems), kept)
    train = [song for song in songs if Path(song.name).name not in MUSDB18_VALIDATION]
    if not train:
        raise DatasetError(
            f"{str(folder / TRAIN)!r} has only songs that are for validation",
            "get the other songs of MUSDB18, or name the songs to validate on with --valid",
        )
    return Split(train, [song for song in songs if Path(song.name).name in MUSDB18_VALIDATION], kept)
