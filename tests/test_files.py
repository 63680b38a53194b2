"""Files that appear complete or not at all."""

import os
from pathlib import Path

import pytest

from stemsplit.files import beside, replacing, sweep


def test_a_file_is_replaced_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_nothing_is_lost_or_left_when_it_does_not(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as part:
        part.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        pass


def test_the_longest_name_has_room_for_the_ending(tmp_path: Path) -> None:
    path = tmp_path / ("\N{MUSICAL SYMBOL G CLEF}" * 60 + ".wav")
    with replacing(path) as part:
        part.write_text("here")
    assert path.read_text() == "here"


def test_parts_of_killed_processes_are_swept_and_young_ones_kept(tmp_path: Path) -> None:
    path = tmp_path / "a [1].txt"
    old, young, of_another = beside(path), beside(path), beside(tmp_path / "b.txt")
    for part in (old, young, of_another):
        part.write_text("half")
    for part in (old, of_another):
        os.utime(part, (0, 0))
    sweep(path)
    assert sorted(tmp_path.iterdir()) == sorted([young, of_another])
