"""The buffer on the disk: what it gives back, and that nothing is left of it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from stemsplit.audio.spool import Spool


def noise(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def test_a_spool_gives_back_what_was_written_and_leaves_no_file(tmp_path: Path) -> None:
    pieces = [noise(3, 2, count, seed=count) for count in (10, 0, 1, 70_000)]
    pieces[-1][1, 0, 5] = -3
    song = np.concatenate(pieces, axis=-1)
    with Spool(tmp_path / "not yet there" / "a.wav") as spool:
        for piece in pieces:
            spool.write(piece)
        assert not list(tmp_path.iterdir())
        assert (spool.shape, spool.length) == ((3, 2), 70_011)
        np.testing.assert_array_equal(spool.peaks, np.abs(song).max((1, 2)))
        np.testing.assert_array_equal(np.concatenate(list(spool.blocks()), axis=-1), song)


def test_an_excerpt_beyond_the_ends_is_silent_there() -> None:
    song = noise(2, 1, 100)
    padded = np.pad(song, ((0, 0), (0, 0), (30, 50)))
    with Spool() as spool:
        spool.write(song)
        for start in range(-30, 110, 7):
            np.testing.assert_array_equal(spool.read(start, 40), padded[..., start + 30 : start + 70])


def test_what_is_silent_or_not_a_number_can_be_told_from_the_peaks() -> None:
    stems = np.zeros((3, 2, 10), np.float32)
    stems[1, 0, 3], stems[2, 1, 4] = 1e-30, np.nan
    with Spool() as spool:
        assert list(spool.blocks()) == []
        spool.write(stems)
        spool.write(np.zeros((3, 2, 10), np.float32))
        assert (spool.peaks != 0).tolist() == [False, True, True]
