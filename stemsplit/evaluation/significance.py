"""Whether one model is better than another, or was lucky with the songs: a paired test, and its result in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

EXACT = 100  # songs; with more the normal distribution is as good
CLEAR = 0.05  # how probable luck may be for a lead that is called one


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two series of figures of the same songs, the first against the second.

    Args:
        songs: that have a figure in both. ahead, behind: in how many the first is better, or worse.
        difference: dB by which the first is better in the typical song, negative if it is worse.
        p: how probable so clear a difference is, in either direction, where only luck makes one.
    """

    songs: int
    ahead: int
    behind: int
    difference: float
    p: float


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare figures in dB, a pair for each song; songs without a figure in one of them, NaN, are left out.

    The test is Wilcoxon's for signed ranks (Biometrics Bulletin 1, 1945), in which pairs without a difference do not
    take part; the typical difference is the estimate that belongs to it, the median of the means of all pairs of
    differences (Hodges and Lehmann, 1963). Equal infinite figures have the difference 0.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if not (math.isnan(a) or math.isnan(b))]
    differences = [0.0 if a == b else a - b for a, b in pairs]
    means = [(a + b) / 2 for i, a in enumerate(differences) for b in differences[i:]]
    return Comparison(
        songs=len(differences),
        ahead=sum(each > 0 for each in differences),
        behind=sum(each < 0 for each in differences),
        difference=median([mean for mean in means if not math.isnan(mean)]),
        p=signed_rank(differences),
    )


def signed_rank(differences: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 where nothing differs.

    Exact up to `EXACT` differences, whether or not some are alike.
    """
    sizes = sorted((abs(each), each > 0) for each in differences if each)
    ranks = _doubled_ranks([size for size, _ in sizes])
    total = sum(ranks)
    above = sum(rank for rank, (_, positive) in zip(ranks, sizes, strict=True) if positive)
    least = min(above, total - above)
    if not total:
        return 1.0
    if len(ranks) <= EXACT:
        ways = [1] + [0] * least  # in how many ways signs give each sum of the doubled ranks of the positive ones
        for rank in ranks:
            for at in range(least, rank - 1, -1):
                ways[at] += ways[at - rank]
        return min(1.0, float(Fraction(sum(ways), 2 ** (len(ranks) - 1))))
    deviation = math.sqrt(sum(rank**2 for rank in ranks)) / 2
    return math.erfc((total / 2 - least) / deviation / math.sqrt(2))


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle; NaN of nothing."""
    return quantile(values, 0.5)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies, linear between two neighbours; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low if low == high else low + (high - low) * (place - math.floor(place))


def verdict(first: str, second: str, result: Comparison) -> str:
    """What a comparison says, in a sentence or two."""
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
        return f"{winner} is better than {loser} {lead}. Luck alone gives so clear a lead in {odds} such comparisons."
    if 2.0 ** (1 - result.ahead - result.behind) >= CLEAR:
        return (
            f"{winner} is better than {loser} {lead}. But so few songs prove nothing: luck alone can put the same "
            "model ahead in all of them. Take six or more."
        )
    return (
        f"No clear winner: {winner} is better than {loser} {lead}. Luck alone gives a difference like that in "
        f"{100 * result.p:.0f} of 100 such comparisons."
    )


def _doubled_ranks(ordered: Sequence[float]) -> list[int]:
    """Twice the ranks of ordered numbers; those that are alike share the mean of theirs, so these are whole."""
    ranks: list[int] = []
    while len(ranks) < len(ordered):
        first = len(ranks)
        alike = sum(each == ordered[first] for each in ordered[first:])
        ranks += [2 * first + alike + 1] * alike
    return ranks


def _probability(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}"


def _odds(p: float) -> str:
    """1 / p to two digits."""
    return f"{float(f'{1 / p:.2g}'):,.0f}"


def _count(songs: int) -> str:
    return f"{songs} song" if songs == 1 else f"{songs} songs"
