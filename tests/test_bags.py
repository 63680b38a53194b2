"""Models as they are run: whole songs as the author of Demucs separates them, bags of networks, small devices."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from demucs.apply import BagOfModels, apply_model
from test_demucs import SMALL, STEMS, difference, noise, pair
from torch import Tensor, nn

from stemsplit import checkpoint
from stemsplit.bags import Bag, Member, load_bag
from stemsplit.checkpoint import Header, Model, new_model
from stemsplit.errors import ModelError, UsageError
from stemsplit.separation import Separator

RATE = 44_100
WINDOW = 5001
HOP = int(0.75 * WINDOW)
# Nothing, shorter than a window, about one, where a window more begins, several.
LENGTHS = (1, 301, WINDOW - 1, WINDOW, WINDOW + 1, HOP, HOP + 1, 2 * HOP + 7, 21_347)
TOLERANCE = 1e-4  # of the peak

Samples = npt.NDArray[np.float32]


def couple(name: str) -> tuple[Any, Model]:
    """A network of the demucs package, and a model of ours with the same weights."""
    family, config, _ = SMALL[name]
    theirs, ours = pair(name, stems=4, channels=2)
    theirs.segment = WINDOW / RATE
    theirs.eval()
    header = Header(family, config, STEMS[:4], rate=RATE, channels=2, length=WINDOW, hop=HOP)
    return theirs, Model(header, ours.eval())


def whole(separator: Separator, mix: Tensor) -> Tensor:
    """All stems of a song that comes in blocks of odd sizes."""
    blocks: Iterator[Samples] = iter(np.array_split(mix.numpy(), 7, axis=1))
    return torch.from_numpy(np.concatenate(list(separator.separate(blocks, RATE)), axis=-1))


@pytest.mark.parametrize("name", SMALL)
def test_whole_songs(name: str) -> None:
    theirs, model = couple(name)
    for length in LENGTHS:
        mix = noise(2, length)
        assert difference(whole(Separator(model), mix), apply_model(theirs, mix[None], shifts=0)[0]) <= TOLERANCE


@pytest.mark.parametrize("name", ["htdemucs", "hdemucs", "demucs"])
@pytest.mark.parametrize("overlap", [0, 0.1, 0.5, 0.8])
def test_whole_songs_with_other_overlaps(name: str, overlap: float) -> None:
    theirs, model = couple(name)
    mix = noise(2, 21_347)
    expected = apply_model(theirs, mix[None], shifts=0, overlap=overlap)[0]
    assert difference(whole(Separator(model, overlap=overlap), mix), expected) <= TOLERANCE


def test_shifts_are_those_of_the_authors_program(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, model = couple("htdemucs")
    separator, mix = Separator(model, shifts=3, seed=5), noise(2, 30_001)
    assert len(set(separator.leads)) == 3
    offsets = iter([RATE // 2 - lead for lead in separator.leads])
    monkeypatch.setattr("demucs.apply.random.randint", lambda low, high: next(offsets))
    expected = apply_model(theirs, mix[None], shifts=3)[0]
    assert difference(whole(separator, mix), expected) <= TOLERANCE
    assert difference(whole(Separator(model), mix), expected) > TOLERANCE


def test_the_seed_decides_the_shifts() -> None:
    _, model = couple("demucs")
    assert Separator(model, shifts=4).leads == Separator(model, shifts=4).leads
    assert Separator(model, shifts=4).leads != Separator(model, shifts=4, seed=1).leads
    state = random.getstate()
    Separator(model, shifts=4)
    assert random.getstate() == state


@pytest.mark.parametrize("length", [0, 1, 300, 21_347])
def test_shifts_keep_the_length(shares_model: Callable[..., Model], length: int) -> None:
    mix = torch.rand(2, length)
    pieces = Separator(shares_model(), shifts=3).separate([mix.numpy()], RATE)
    stems = torch.from_numpy(np.concatenate([np.zeros((4, 2, 0), np.float32), *pieces], axis=-1))
    torch.testing.assert_close(stems.sum(0), mix, rtol=0, atol=1e-5)


def test_a_bag_weighs_networks_of_different_families() -> None:
    """As `mdx` does: networks that want to see different lengths, and do not count for every stem."""
    pairs = [couple(name) for name in ("demucs", "hdemucs", "hdemucs of magnitudes")]
    weights = [[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 3.0, 1.0]]
    totals = np.sum(weights, axis=0)
    bag = Bag(
        pairs[0][1].header,
        tuple(
            Member(ours.network, tuple((s, s, row[s] / totals[s]) for s in range(4) if row[s]), WINDOW)
            for (_, ours), row in zip(pairs, weights, strict=True)
        ),
    )
    for length in LENGTHS:
        mix = noise(2, length)
        expected = apply_model(BagOfModels([theirs for theirs, _ in pairs], weights), mix[None], shifts=0)[0]
        assert difference(whole(Separator(bag), mix), expected) <= TOLERANCE


def save(path: Path, seed: int, half: bool = True, **changes: Any) -> Path:
    """A tiny HTDemucs."""
    family, config, _ = SMALL["htdemucs"]
    torch.manual_seed(seed)
    header = Header(family, config, STEMS[:4], rate=8000, channels=2, length=WINDOW, hop=HOP)
    model = new_model(Header(**{**{f: getattr(header, f) for f in header.__dataclass_fields__}, **changes}))
    checkpoint.save(Model(model.header, model.network.half() if half else model.network), path)
    return path


def run(bag: Bag, mix: Tensor) -> Tensor:
    pieces = list(Separator(bag).separate([mix.numpy()], bag.header.rate))
    return torch.from_numpy(np.concatenate(pieces, axis=-1))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [save(tmp_path / f"{seed}.safetensors", seed) for seed in range(3)]


def test_networks_for_a_stem_each_are_one_model(paths: list[Path]) -> None:
    gives = [("vocals",), ("drums", "bass"), ("other",)]
    bag, mix = load_bag(paths, gives), noise(2, 12_000)
    assert bag.header.stems == ("vocals", "drums", "bass", "other")
    one, two, three = (run(load_bag([path], [()]), mix) for path in paths)
    torch.testing.assert_close(run(bag, mix), torch.stack([one[3], two[0], two[1], three[2]]), rtol=0, atol=0)


def test_networks_of_a_shape_take_the_memory_of_one(paths: list[Path]) -> None:
    bag = load_bag(paths, [("vocals",), ("drums", "bass"), ("other",)])
    assert len({id(member.network) for member in bag.members}) == 1
    kept = [tensor for member in bag.members for tensor in (member.weights or {}).values()]
    assert {tensor.dtype for tensor in kept} == {torch.float16}


def test_what_nobody_wants_is_not_even_read(paths: list[Path]) -> None:
    gives = [("vocals",), ("drums", "bass"), ("other",)]
    alone, mix = load_bag(paths, gives, stems=["vocals"]), noise(2, 12_000)
    assert (alone.header.stems, len(alone.members)) == (("vocals",), 1)
    torch.testing.assert_close(run(alone, mix), run(load_bag(paths, gives), mix)[:1], rtol=0, atol=0)
    two = load_bag(paths, gives, stems=["other", "bass"])
    assert (two.header.stems, len(two.members)) == (("bass", "other"), 2)
    whole_network = load_bag(paths[:1], [()], stems=["bass"])
    assert whole_network.header.stems == ("bass",)
    torch.testing.assert_close(run(whole_network, mix), run(load_bag(paths[:1], [()]), mix)[1:2], rtol=0, atol=0)
    with pytest.raises(UsageError, match="no stem 'piano'") as caught:
        load_bag(paths, gives, stems=["piano"])
    assert "vocals, drums, bass, other" in caught.value.hint


def test_networks_that_do_not_go_together(paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not give 'piano'"):
        load_bag(paths[:2], [("vocals",), ("piano",)])
    other = save(tmp_path / "other.safetensors", 0, rate=44_100)
    with pytest.raises(ModelError, match="are not for the same audio"):
        load_bag([paths[0], other], [(), ()])


def test_windows_that_the_network_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="longer than the network takes"):
        save(tmp_path / "x.safetensors", 0, length=WINDOW + 1)


class Small(nn.Module):
    """A device with room for so many windows, and what it was given."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.batches: list[int] = []

    def forward(self, mix: Tensor) -> Tensor:
        self.batches.append(len(mix))
        if len(mix) > self.most:
            raise torch.OutOfMemoryError
        return mix.unsqueeze(1).expand(-1, 4, -1, -1)


def small(most: int, length: int = 100) -> Model:
    return Model(Header("any", {}, STEMS[:4], rate=RATE, channels=2, length=length, hop=length), Small(most))


def test_too_little_memory_halves_the_batch_for_good() -> None:
    model, mix = small(3), torch.rand(2, 2000)
    separator = Separator(model, batch_size=8)
    torch.testing.assert_close(whole(separator, mix), mix.expand(4, 2, -1), rtol=0, atol=1e-6)
    assert model.network.batches == [8, 4, *[2] * 10]
    whole(separator, mix)
    assert model.network.batches[12:] == [2] * 10
    assert len(separator.warnings) == 1
    assert "too little free memory for 8 windows" in separator.warnings[0]


def test_too_little_memory_for_one_window() -> None:
    separator = Separator(small(0), batch_size=4)
    with pytest.raises(torch.OutOfMemoryError):
        whole(separator, torch.rand(2, 2000))


def test_it_is_said_once_with_the_song(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "song.wav", np.zeros((2000, 2)), RATE)
    separator = Separator(small(3), batch_size=8)
    outputs = {stem: tmp_path / f"{stem}.wav" for stem in STEMS[:4]}
    warnings = [separator.separate_file(tmp_path / "song.wav", outputs, overwrite=True).warnings for _ in range(2)]
    assert [len(each) for each in warnings] == [1, 0]


def test_half_precision_is_near() -> None:
    for name in ("htdemucs", "hdemucs", "demucs"):
        _, model = couple(name)
        mix = noise(2, 12_000)
        full, half = whole(Separator(model), mix), whole(Separator(model, precision="half"), mix)
        assert half.dtype == torch.float32
        assert TOLERANCE < difference(half, full) < 0.1


def test_more_windows_for_gpus() -> None:
    assert Separator(small(9)).batch_size == 1
    assert Separator(small(9, length=4 * RATE), device="cuda").batch_size == 8
    assert Separator(small(9, length=44 * RATE), device="cuda").batch_size == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch_size": 0}, "at least 1, not 0"),
        ({"precision": "double"}, "no precision 'double'"),
        ({"overlap": 1.0}, "from 0 to 0.95, not 1"),
        ({"overlap": -0.1}, "from 0 to 0.95, not -0.1"),
        ({"shifts": -1}, "must not be negative"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Separator(small(1), **options)


@pytest.mark.parametrize("name", ["htdemucs", "hdemucs", "demucs"])
@pytest.mark.parametrize(("level", "tolerance"), [(0.1, 1e-4), (0.01, 1e-3)])
def test_scaling_the_song_first_would_change_nothing(name: str, level: float, tolerance: float) -> None:
    """The author's program does that with the whole song's mean and deviation; his networks do it to every window.

    What differs is 1e-5 that they add to each deviation, and a constant offset where zeros are beyond a song's ends.
    """
    theirs, model = couple(name)
    mix = level * torch.randn(2, 21_347, generator=torch.Generator().manual_seed(0))
    mix -= mix.mean()
    deviation = mix.mean(0).std() + 1e-8
    expected = apply_model(theirs, (mix / deviation)[None], shifts=0)[0] * deviation
    assert difference(whole(Separator(model), mix), expected) <= tolerance
