"""The split of a dataset into songs for training and songs for validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stemsplit.datasets.multitracks import Multitrack, find_songs
from stemsplit.errors import DatasetError

# The 14 of MUSDB18's 100 training songs that its own loader keeps for validation (sigsep/sigsep-mus-db,
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
    """A split dataset.

    Attributes:
        train: Songs to train on.
        valid: Songs to validate on.
        unused: Names of subfolders that are used for neither, such as "test".
    """

    train: list[Multitrack]
    valid: list[Multitrack]
    unused: tuple[str, ...] = ()


def split_songs(folder: Path, stems: Sequence[str], *, validate: bool = True) -> Split:
    """Split a dataset that is laid out like MUSDB18, or use any other folder for training alone.

    If there is a folder `train` beside `test`, `valid` or `validation`, only its songs are trained on. Validation uses
    `valid` or `validation`; if there is neither, it uses the songs of `train` in MUSDB18's own validation set, by name.

    Args:
        folder: The dataset.
        stems: The stems to look for.
        validate: Set songs aside for validation; otherwise all songs of `train` are for training.

    Raises:
        DatasetError: As by `find_songs`, or no song is left for training.
    """
    others = [folder / name for name in (*VALIDATIONS, TEST) if (folder / name).is_dir()]
    if not others or not (folder / TRAIN).is_dir():
        return Split(find_songs(folder, stems), [])
    songs = find_songs(folder / TRAIN, stems)
    own = [other for other in others if other.name in VALIDATIONS]
    unused = tuple(other.name for other in others if other not in own[:1] or not validate)
    if not validate:
        return Split(songs, [], unused)
    if own:
        return Split(songs, find_songs(own[0], stems), unused)
    train = [song for song in songs if Path(song.name).name not in MUSDB18_VALIDATION]
    if not train:
        raise DatasetError(
            f"{str(folder / TRAIN)!r} has only validation songs",
            "get the other songs of MUSDB18, or name the songs to validate on with --valid",
        )
    return Split(train, [song for song in songs if Path(song.name).name in MUSDB18_VALIDATION], unused)
