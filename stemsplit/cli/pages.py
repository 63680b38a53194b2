"""The page to listen on, beside the stems of a song."""

from collections.abc import Sequence
from pathlib import Path

from stemsplit.batch.tracks import Track
from stemsplit.files import check_free
from stemsplit.player.page import write_player
from stemsplit.separation.outputs import MIXTURE, STEM_FILE


def path(track: Track) -> Path:
    """Where the page of a song is."""
    return track.file("player", "html")


def check(track: Track, *, overwrite: bool) -> None:
    """AudioError if it is there already and may not be replaced."""
    check_free(path(track), overwrite=overwrite or track.replaces)


def write(track: Track, names: Sequence[str], *, overwrite: bool) -> None:
    """Write it. names: of all that was written of the song. AudioError: that is not possible."""
    stems = [name for name in names if name not in (MIXTURE, STEM_FILE)]
    title = str(track.values["track"])
    write_player(path(track), title, track.outputs(stems), overwrite=overwrite or track.replaces)
