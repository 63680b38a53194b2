"""The report of an evaluation in a real browser: it fits a telephone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import chromium
from support.program import Run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.full,
    pytest.mark.skipif(chromium.PROGRAM is None, reason="there is no Chromium; on Debian: apt-get install chromium"),
]


@pytest.mark.parametrize("width", [320, 400, 1200])
def test_nothing_sticks_out(
    run: Run, here: Path, make_song: Callable[..., dict[str, np.ndarray]], tmp_path: Path, width: int
) -> None:
    for seed, name in enumerate(("A song with quite a long title (and a subtitle) - remastered", "b")):
        make_song(here / "data" / name, seed=seed)
    assert run("evaluate", "data", "-o", "scores").code == 0
    (tmp_path / "profile").mkdir()
    with chromium.chromium(tmp_path / "profile") as page:
        page.resize(width, 800)
        page.open(here / "scores/report.html")
        page.run("document.querySelectorAll('details').forEach(each => { each.open = true })")
        assert page.run("document.documentElement.scrollWidth") <= width
        # What is wider than the page can be scrolled by itself, but all of its first column is in sight.
        wide = (
            "[...document.querySelectorAll('th[scope=row], tbody th')].map(each => each.getBoundingClientRect().right)"
        )
        assert max(page.run(wide)) <= width
        assert page.problems == []
