from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from stemsplit.windows import Window, WindowPlan, cut, overlap_add

PLANS = [(1, 1), (2, 1), (7, 1), (7, 3), (7, 5), (8, 4), (10, 10), (12, 3), (64, 48), (100, 33), (1000, 750)]


def stream(length: int, channels: int = 2) -> Tensor:
    return torch.rand(channels, length, generator=torch.Generator().manual_seed(length)) * 2 - 1


def blocks(samples: Tensor, size: int) -> Iterator[Tensor]:
    for start in range(0, samples.shape[-1], size):
        yield samples[:, start : start + size]


def there_and_back(samples: Tensor, plan: WindowPlan, size: int) -> Tensor:
    pieces = list(overlap_add(cut(blocks(samples, size), plan, channels=len(samples)), plan))
    assert all(0 < piece.shape[-1] <= plan.hop for piece in pieces)
    return torch.cat([samples[:, :0], *pieces], dim=-1)


@pytest.mark.parametrize(("length", "hop"), PLANS)
def test_what_is_cut_and_added_is_the_stream(length: int, hop: int) -> None:
    plan = WindowPlan(length, hop)
    lengths = {0, 1, 2, hop - 1, hop, hop + 1, length - 1, length, length + 1, length + hop, 3 * length + hop // 2 + 1}
    for samples in map(stream, sorted(lengths)):
        for size in {1, 3, hop, length, length + 1, 10_000}:
            result = there_and_back(samples, plan, size)
            assert result.shape == samples.shape
            torch.testing.assert_close(result, samples, rtol=0, atol=1e-5)


def test_an_empty_stream_has_no_windows() -> None:
    plan = WindowPlan(10, 4)
    for nothing in ([], [torch.zeros(2, 0)]):
        assert not list(cut(nothing, plan, channels=2))
        assert not list(overlap_add(cut(nothing, plan, channels=2), plan))


def test_irregular_and_empty_blocks_make_no_difference() -> None:
    plan, samples = WindowPlan(50, 37), stream(333)
    borders = [0, 0, 1, 101, 101, 108, 308, 333, 333]
    pieces = [samples[:, start:end] for start, end in pairwise(borders)]
    expected = list(cut([samples], plan, channels=2))
    for window, other in zip(cut(pieces, plan, channels=2), expected, strict=True):
        assert window.keep == other.keep
        assert torch.equal(window.samples, other.samples)


@pytest.mark.parametrize(("length", "hop"), PLANS)
@pytest.mark.parametrize("total", [1, 5, 64, 333, 2500])
def test_windows_are_where_the_plan_says(length: int, hop: int, total: int) -> None:
    """Window k begins `lead` samples before k hops; zeros stand in for what lies outside the stream."""
    plan, samples = WindowPlan(length, hop), stream(total)
    lead = length - hop
    padded = torch.nn.functional.pad(samples, (lead, length))
    windows = list(cut(blocks(samples, 64), plan, channels=2))
    for k, window in enumerate(windows):
        assert torch.equal(window.samples, padded[:, k * hop : k * hop + length])
        real = [n for n in range(hop) if 0 <= k * hop - lead + n < total]
        assert list(range(hop))[window.keep] == real
    assert (len(windows) - 1) * hop - lead < total <= len(windows) * hop - lead  # neither too few nor too many


@pytest.mark.parametrize(("length", "hop"), PLANS)
def test_overlap_add_against_a_loop(length: int, hop: int) -> None:
    plan, total = WindowPlan(length, hop), 3 * length + 1
    generator = torch.Generator().manual_seed(0)
    windows = [
        Window(torch.rand(4, 2, length, generator=generator), window.keep)
        for window in cut([stream(total)], plan, channels=2)
    ]
    slow = torch.zeros(4, 2, len(windows) * hop + length)
    for k, window in enumerate(windows):
        slow[..., k * hop : k * hop + length] += window.samples * plan.fade()
    slow = slow[..., plan.lead : plan.lead + total]
    torch.testing.assert_close(torch.cat(list(overlap_add(windows, plan)), dim=-1), slow, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("length", "hop"), [*PLANS, (132_300, 99_225)])
def test_the_weights_of_a_sample_add_up_to_one(length: int, hop: int) -> None:
    fade = WindowPlan(length, hop).fade()
    assert fade.shape == (length,)
    assert fade.min() > 0
    for n in {0, 1, hop // 3, hop - 1} & set(range(hop)):
        assert fade[n::hop].double().sum().item() == pytest.approx(1, abs=1e-6)


def test_the_fade_is_smooth_and_starts_near_zero() -> None:
    fade = WindowPlan(4000, 3000).fade()
    assert fade[0] < 1e-5
    assert fade.diff().abs().max() < 2 / 1000  # a raised cosine over 1000 samples: pi / 2 / 1000 at its steepest
    assert torch.equal(fade[1000:3000], torch.ones(2000))


def test_without_overlap_there_is_no_fade() -> None:
    assert torch.equal(WindowPlan(9, 9).fade(), torch.ones(9))


@pytest.mark.parametrize(("length", "hop"), PLANS)
@pytest.mark.parametrize("size", [1, 16, 700])
def test_cut_reads_no_further_than_the_window_it_gives(length: int, hop: int, size: int) -> None:
    allowed = 0

    def source() -> Iterator[Tensor]:
        for start in range(0, 4 * length, size):
            assert start < allowed, "read ahead"
            yield torch.ones(1, size)

    plan, windows = WindowPlan(length, hop), 0
    reader = cut(source(), plan, channels=1)
    while True:
        allowed = (windows + 1) * hop  # where this window ends in the stream
        if allowed > 4 * length:
            break
        next(reader)
        windows += 1
    assert windows >= 4


def test_overlap_add_takes_one_window_at_a_time() -> None:
    plan, taken = WindowPlan(10, 6), 0

    def source() -> Iterator[Window]:
        nonlocal taken
        for window in cut([torch.ones(1, 60)], plan, channels=1):
            taken += 1
            yield window

    for given, _ in enumerate(overlap_add(source(), plan), start=1):
        assert taken == given


def test_windows_keep_their_samples_when_the_source_reuses_its_block() -> None:
    plan, samples = WindowPlan(7, 5), stream(60)

    def source() -> Iterator[Tensor]:
        shared = torch.empty(2, 4)
        for block in blocks(samples, 4):
            shared.copy_(block)
            yield shared

    windows = list(cut(source(), plan, channels=2))
    for window, other in zip(windows, cut([samples], plan, channels=2), strict=True):
        assert torch.equal(window.samples, other.samples)


@pytest.mark.parametrize(("length", "hop"), [(10, 0), (10, 11), (10, -1), (0, 0)])
def test_impossible_plans(length: int, hop: int) -> None:
    with pytest.raises(ValueError, match="hop must be in"):
        WindowPlan(length, hop)
