"""Whether one model is better than another or only ahead by chance: a paired test, and its result in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

EXACT = 100  # songs up to which p is exact; above, the normal approximation is as good
CLEAR = 0.05  # the highest p at which one model is called better


@dataclass(frozen=True, slots=True)
class Comparison:
    """The figures of one model compared with those of another on the same songs.

    Attributes:
        songs: Number of songs with a figure of both.
        ahead: Number of them in which the first is better.
        behind: Number of them in which the first is worse.
        difference: How much better the first is in the typical song, in dB; negative if it is worse.
        p: The probability of a difference at least as clear, in either direction, by chance alone.
    """

    songs: int
    ahead: int
    behind: int
    difference: float
    p: float


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare two models with Wilcoxon's signed-rank test (Biometrics Bulletin 1, 1945).

    Songs without a difference do not take part in the test. The typical difference is the estimator that goes with it,
    the median of the means of all pairs of differences (Hodges and Lehmann, 1963). Equal infinite figures have the
    difference 0.

    Args:
        first: Figures in dB, one for each song; a song with NaN is left out.
        second: Figures of the other model for the same songs.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if not (math.isnan(a) or math.isnan(b))]
    differences = [0.0 if a == b else a - b for a, b in pairs]
    means = [(a + b) / 2 for i, a in enumerate(differences) for b in differences[i:]]
    return Comparison(
        songs=len(differences),
        ahead=sum(difference > 0 for difference in differences),
        behind=sum(difference < 0 for difference in differences),
        difference=median([mean for mean in means if not math.isnan(mean)]),
        p=signed_rank(differences),
    )


def signed_rank(differences: Sequence[float]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; 1 if there is no difference.

    It is exact for up to `EXACT` differences, also with ties.
    """
    sizes = sorted((abs(difference), difference > 0) for difference in differences if difference)
    ranks = _doubled_ranks([size for size, _ in sizes])
    total = sum(ranks)
    above = sum(rank for rank, (_, positive) in zip(ranks, sizes, strict=True) if positive)
    least = min(above, total - above)
    if not total:
        return 1.0
    if len(ranks) <= EXACT:
        ways = [1] + [0] * least  # in how many ways signs give each sum of the doubled positive ranks
        for rank in ranks:
            for rank_sum in range(least, rank - 1, -1):
                ways[rank_sum] += ways[rank_sum - rank]
        return min(1.0, float(Fraction(sum(ways), 2 ** (len(ranks) - 1))))
    deviation = math.sqrt(sum(rank**2 for rank in ranks)) / 2
    return math.erfc((total / 2 - least) / deviation / math.sqrt(2))


def median(values: Sequence[float]) -> float:
    """Return the median; NaN if there are no values."""
    return quantile(values, 0.5)


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile, linear between neighbours; NaN if there are no values.

    Args:
        values: In any order.
        share: Share of the values that lie below it, from 0 to 1.
    """
    if not values:
        return math.nan
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low, high = ordered[math.floor(position)], ordered[math.ceil(position)]
    return low if low == high else low + (high - low) * (position - math.floor(position))


def verdict(first: str, second: str, result: Comparison) -> str:
    """Say in a sentence or two what a comparison of two models shows.

    Args:
        first: Name of the first model.
        second: Name of the second model.
        result: Their comparison.
    """
    if not result.songs:
        return f"No song has a figure of both {first} and {second}."
    if not result.ahead and not result.behind:
        return f"There is no difference between {first} and {second} in any song."
    (winner, loser), wins = ((first, second), result.ahead)
    if result.difference < 0 or (result.difference == 0 and result.behind > result.ahead):
        (winner, loser), wins = ((second, first), result.behind)
    lead = (
        f"by {abs(result.difference):.2f} dB in the typical song, and ahead in {wins} of {_count(result.songs)} "
        f"(Wilcoxon signed-rank test, p = {_probability(result.p)})"
    )
    if result.p < CLEAR:
        odds = "less than one in a million" if result.p < 1e-6 else f"about one in {_odds(result.p)}"
        return (
            f"{winner} is better than {loser} {lead}. Chance alone gives a lead this clear in {odds} such comparisons."
        )
    if 2.0 ** (1 - result.ahead - result.behind) >= CLEAR:
        return (
            f"{winner} is better than {loser} {lead}. But so few songs prove nothing: by chance alone, the same model "
            "can be ahead in all of them. Use six or more."
        )
    return (
        f"No clear winner: {winner} is better than {loser} {lead}. Chance alone gives a difference like that in "
        f"{100 * result.p:.0f} of 100 such comparisons."
    )


def _doubled_ranks(ordered: Sequence[float]) -> list[int]:
    """Twice the ranks of ordered numbers: ties share the mean of their ranks, and doubled it is an integer."""
    ranks: list[int] = []
    while len(ranks) < len(ordered):
        first = len(ranks)
        ties = sum(value == ordered[first] for value in ordered[first:])
        ranks += [2 * first + ties + 1] * ties
    return ranks


def _probability(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}"


def _odds(p: float) -> str:
    """1 / p to two digits."""
    return f"{float(f'{1 / p:.2g}'):,.0f}"


def _count(songs: int) -> str:
    return f"{songs} song" if songs == 1 else f"{songs} songs"
