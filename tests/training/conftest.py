"""Songs to train with."""

from collections.abc import Callable

import numpy as np
import pytest
from support.songs import STEMS

from stemsplit.datasets.multitracks import Multitrack, find_songs


@pytest.fixture(scope="module")
def songs(
    tmp_path_factory: pytest.TempPathFactory, make_song: Callable[..., dict[str, np.ndarray]]
) -> list[Multitrack]:
    folder = tmp_path_factory.mktemp("songs")
    for seed in range(3):
        make_song(folder / str(seed), seed=seed)
    return find_songs(folder, STEMS)
