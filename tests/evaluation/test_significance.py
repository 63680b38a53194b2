import itertools
import math

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from stemsplit.evaluation import significance
from stemsplit.evaluation.significance import Comparison, compare, median, quantile, signed_rank, verdict

NAN = math.nan


def differences(count: int, *, shift: float = 0.3, digits: int = 9, seed: int = 0) -> list[float]:
    values = np.random.default_rng(seed).normal(shift, 1, count).round(digits)
    return [float(value) for value in values]


@pytest.mark.parametrize("count", [1, 2, 5, 6, 16, 50])
@pytest.mark.parametrize("seed", range(3))
def test_against_scipy(count: int, seed: int) -> None:
    sample = differences(count, seed=seed)
    assert signed_rank(sample) == pytest.approx(stats.wilcoxon(sample, method="exact").pvalue, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_ties_are_exact_too(seed: int) -> None:
    """All signs that there could be, one by one."""
    sample = [each for each in differences(10, digits=0, seed=seed) if each]
    ranks = stats.rankdata(np.abs(sample))
    middle = ranks.sum() / 2
    off = abs(ranks[np.array(sample) > 0].sum() - middle)
    signs = itertools.product((0, 1), repeat=len(sample))
    expected = np.mean([abs(np.dot(sign, ranks) - middle) >= off - 1e-9 for sign in signs])
    assert signed_rank(sample) == pytest.approx(expected, rel=1e-12)
    assert signed_rank([*sample, 0.0, 0.0]) == signed_rank(sample)  # what does not differ takes no part


@pytest.mark.full
@pytest.mark.parametrize("digits", [9, 0])
def test_many_songs(digits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = [each for each in differences(400, shift=0.1, digits=digits) if each]
    approximate = signed_rank(sample)
    assert approximate == pytest.approx(stats.wilcoxon(sample, method="approx").pvalue, rel=1e-9)
    monkeypatch.setattr(significance, "EXACT", 1000)
    assert signed_rank(sample) == pytest.approx(approximate, rel=0.1)


def test_nothing_differs() -> None:
    assert signed_rank([]) == 1
    assert signed_rank([0.0, 0.0]) == 1


def test_two_series() -> None:
    result = compare([1.0, 2.0, NAN, 4.0, 5.0, math.inf], [0.0, 3.0, 1.0, 1.0, NAN, math.inf])
    assert (result.songs, result.ahead, result.behind) == (4, 2, 1)  # differences 1, -1, 3, 0
    assert result.difference == 0.75  # of the means -1, -0.5, 0, 0, 0.5, 1, 1, 1.5, 2, 3
    assert result.p == signed_rank([1, -1, 3])
    assert compare([], []).songs == 0
    assert math.isnan(compare([NAN], [1.0]).difference)


def test_shifted_series_differ_by_the_shift() -> None:
    first = differences(20)
    result = compare([each + 1.25 for each in first], first)
    assert result.difference == pytest.approx(1.25)
    assert (result.ahead, result.behind) == (20, 0)
    assert result.p == pytest.approx(2 / 2**20)


def test_quantiles() -> None:
    values = differences(23)
    for share in (0, 0.1, 0.25, 0.5, 0.75, 1):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share))
    assert math.isnan(median([]))
    assert median([math.inf, math.inf]) == math.inf


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (
            Comparison(16, 14, 2, 0.8, 0.004),
            "new is better than old by 0.80 dB in the typical song, and ahead in 14 of 16 songs (Wilcoxon signed-rank "
            "test, p = 0.004). Chance alone gives a lead this clear in about one in 250 such comparisons.",
        ),
        (Comparison(16, 2, 14, -0.8, 0.004), "old is better than new by 0.80 dB in the typical song, and ahead in 14"),
        (
            Comparison(50, 50, 0, 2.0, 1.8e-15),
            "p = 2e-15). Chance alone gives a lead this clear in less than one in a mill",
        ),
        (
            Comparison(16, 9, 7, 0.1, 0.6),
            "No clear winner: new is better than old by 0.10 dB in the typical song, and ahead in 9 of 16 songs "
            "(Wilcoxon signed-rank test, p = 0.6). Chance alone gives a difference like that in 60 of 100 such ",
        ),
        (Comparison(5, 5, 0, 3.0, 0.0625), "But so few songs prove nothing"),
        (Comparison(1, 1, 0, 3.0, 1.0), "ahead in 1 of 1 song ("),
        (Comparison(3, 0, 0, 0.0, 1.0), "There is no difference between new and old in any song."),
        (Comparison(0, 0, 0, NAN, 1.0), "No song has a figure of both new and old."),
    ],
)
def test_words(result: Comparison, sentence: str) -> None:
    assert sentence in verdict("new", "old", result)
