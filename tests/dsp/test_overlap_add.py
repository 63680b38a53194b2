from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from stemsplit.dsp.overlap_add import Window, WindowPlan, cut, overlap_add

PLANS = [(1, 1), (2, 1), (7, 1), (7, 3), (7, 5), (8, 4), (10, 10), (12, 3), (64, 48), (100, 33), (1000, 750)]


def stream(length: int, channels: int = 2) -> Tensor:
    return torch.rand(channels, length, generator=torch.Generator().manual_seed(length)) * 2 - 1


def blocks(samples: Tensor, size: int) -> Iterator[Tensor]:
    for start in range(0, samples.shape[-1], size):
        yield samples[:, start : start + size]


def without_context(windows: Iterable[Window]) -> Iterator[Window]:
    for window in windows:
        yield Window(window.center_crop(window.length), window.length)


def round_trip(samples: Tensor, plan: WindowPlan, size: int) -> Tensor:
    windows = without_context(cut(blocks(samples, size), plan, channels=len(samples)))
    output = list(overlap_add(windows, plan))
    assert all(0 < block.shape[-1] <= plan.hop for block in output)
    return torch.cat([samples[:, :0], *output], dim=-1)


@pytest.mark.full
@pytest.mark.parametrize(("length", "hop"), PLANS)
def test_cut_and_overlap_add_give_back_the_stream(length: int, hop: int) -> None:
    plan = WindowPlan(length, hop)
    lengths = {0, 1, 2, hop - 1, hop, hop + 1, length - 1, length, length + 1, length + hop, 3 * length + hop // 2 + 1}
    for samples in map(stream, sorted(lengths)):
        for size in {1, 3, hop, length, length + 1, 10_000}:
            result = round_trip(samples, plan, size)
            assert result.shape == samples.shape
            torch.testing.assert_close(result, samples, rtol=0, atol=1e-5)


def test_an_empty_stream_has_no_windows() -> None:
    plan = WindowPlan(10, 4)
    for empty in ([], [torch.zeros(2, 0)]):
        assert not list(cut(empty, plan, channels=2))
        assert not list(overlap_add(without_context(cut(empty, plan, channels=2)), plan))


def test_block_sizes_make_no_difference() -> None:
    plan, samples = WindowPlan(50, 37), stream(333)
    borders = [0, 0, 1, 101, 101, 108, 308, 333, 333]
    irregular = [samples[:, start:end] for start, end in pairwise(borders)]
    expected = list(cut([samples], plan, channels=2))
    for window, other in zip(cut(irregular, plan, channels=2), expected, strict=True):
        assert window.length == other.length
        assert torch.equal(window.samples, other.samples)


INPUT_LENGTHS: dict[str, Callable[[int], int]] = {
    "no context": lambda length: length,
    "constant context": lambda length: length + 3,
    "multiples of 16": lambda length: -(-length // 16) * 16,
}


@pytest.mark.parametrize(("length", "hop"), PLANS)
@pytest.mark.parametrize("total", [1, 5, 64, 333, 2500])
@pytest.mark.parametrize("input_length", [None, *INPUT_LENGTHS.values()], ids=["default", *INPUT_LENGTHS])
def test_positions_and_context_of_windows(
    length: int, hop: int, total: int, input_length: Callable[[int], int] | None
) -> None:
    """Window k starts after k hops, in the centre of its context; beyond the ends of the stream are zeros."""
    plan, samples, margin = WindowPlan(length, hop), stream(total), length + 16
    padded = torch.nn.functional.pad(samples, (margin, margin))
    windows = list(cut(blocks(samples, 64), plan, channels=2, input_length=input_length))
    assert len(windows) == -(-total // hop)
    for start, window in zip(range(0, total, hop), windows, strict=True):
        assert window.length == min(length, total - start)
        size = input_length(window.length) if input_length else length
        first = margin + start - (size - window.length) // 2
        assert torch.equal(window.samples, padded[:, first : first + size])
        assert torch.equal(window.center_crop(size), window.samples)
        assert torch.equal(window.center_crop(window.length), samples[:, start : start + length])


def test_a_center_crop_equals_a_window_with_less_context() -> None:
    samples = stream(100)
    narrow = cut([samples], WindowPlan(10, 7), channels=2, input_length=lambda length: length + 3)
    wide = cut([samples], WindowPlan(10, 7), channels=2, input_length=lambda length: length + 8)
    for one, other in zip(narrow, wide, strict=True):
        assert torch.equal(one.samples, other.center_crop(one.length + 3))


@pytest.mark.parametrize(("length", "hop"), PLANS)
def test_overlap_add_against_a_loop(length: int, hop: int) -> None:
    plan, total = WindowPlan(length, hop), 3 * length + 1
    generator = torch.Generator().manual_seed(0)
    windows = [
        Window(torch.rand(4, 2, window.length, generator=generator), window.length)
        for window in cut([stream(total)], plan, channels=2)
    ]
    slow, weights = torch.zeros(4, 2, total), torch.zeros(total)
    for start, window in zip(range(0, total, hop), windows, strict=True):
        place, fade = slice(start, start + window.length), plan.fade()[: window.length]
        slow[..., place] += window.samples * fade
        weights[place] += fade
    torch.testing.assert_close(torch.cat(list(overlap_add(windows, plan)), dim=-1), slow / weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 132_300, 343_980])
def test_the_fade_is_a_triangle(length: int) -> None:
    fade = WindowPlan(length, 1).fade()
    assert fade.shape == (length,)
    assert fade.min() > 0
    assert fade.max() == 1
    assert torch.equal(fade, fade.flip(0))
    torch.testing.assert_close(fade.diff().abs()[: length // 2 - 1], fade[0].expand(max(length // 2 - 1, 0)))


def test_the_cross_fade_is_linear() -> None:
    plan = WindowPlan(4000, 3000)
    windows = [Window(torch.full((1, 4000), float(k % 2)), 4000) for k in range(4)]
    result = torch.cat(list(overlap_add(windows, plan)), dim=-1)[0]
    assert result[:3000].abs().max() == 0
    torch.testing.assert_close(result[3000:4000], (torch.arange(1000) + 1) / 1001, rtol=0, atol=1e-6)
    torch.testing.assert_close(result[4000:6000], torch.ones(2000))


def test_without_overlap_there_is_no_fade() -> None:
    plan, samples = WindowPlan(9, 9), stream(30)
    torch.testing.assert_close(round_trip(samples, plan, 9), samples, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("length", "hop"), PLANS)
@pytest.mark.parametrize("size", [1, 16, 700])
def test_cut_reads_no_further_than_the_end_of_the_window(length: int, hop: int, size: int) -> None:
    allowed = 0

    def source() -> Iterator[Tensor]:
        for start in range(0, 4 * length, size):
            assert start < allowed, "read too far ahead"
            yield torch.ones(1, size)

    plan, windows = WindowPlan(length, hop), 0
    reader = cut(source(), plan, channels=1)
    while True:
        allowed = windows * hop + length  # where this window ends in the stream
        if allowed > 4 * length:
            break
        next(reader)
        windows += 1
    assert windows >= 4


def test_overlap_add_gives_a_block_for_every_window() -> None:
    plan, taken = WindowPlan(10, 6), 0

    def source() -> Iterator[Window]:
        nonlocal taken
        for window in without_context(cut([torch.ones(1, 60)], plan, channels=1)):
            taken += 1
            yield window

    for given, _ in enumerate(overlap_add(source(), plan), start=1):
        assert taken == given


def test_the_source_may_reuse_the_memory_of_its_blocks() -> None:
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
def test_impossible_plans_are_refused(length: int, hop: int) -> None:
    with pytest.raises(ValueError, match="hop must be in"):
        WindowPlan(length, hop)
