"""Models as they are run: whole songs as the author of Demucs separates them, bags of networks, small devices."""

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from demucs.apply import BagOfModels, apply_model
from demucs.demucs import Demucs
from demucs.hdemucs import HDemucs
from safetensors import safe_open
from safetensors.torch import save_file
from support.demucs import SMALL, STEMS, difference, noise, pair
from support.demucs_files import BOMB, NETWORKS, as_json, reference
from support.models import load_ensemble
from torch import Tensor, nn

from stemsplit.dsp.level import Level
from stemsplit.errors import ModelError, UsageError
from stemsplit.models import checkpoint, headers, registry
from stemsplit.models.checkpoint import Header, Model, new_model
from stemsplit.models.ensemble import Chain, ChainStep, Contribution, Ensemble, EnsembleMember, ensemble_of
from stemsplit.networks.families import build
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.separator import Separator

RATE = 44_100
WINDOW = 5001
HOP = int(0.75 * WINDOW)
# Nothing, shorter than a window, about one, where a window more begins, several.
LENGTHS = (1, 301, WINDOW - 1, WINDOW, WINDOW + 1, HOP, HOP + 1, 2 * HOP + 7, 21_347)
TOLERANCE = 1e-4  # of the peak

Samples = npt.NDArray[np.float32]
AS_IT_IS = Level(0.0, 1.0)  # as `apply_model` takes it; see tests/separation/test_standardized.py


def couple(name: str) -> tuple[Any, Model]:
    """A network of the demucs package, and a model of ours with the same weights."""
    family, config, _ = SMALL[name]
    theirs, ours = pair(name, stems=4, channels=2)
    theirs.segment = WINDOW / RATE
    theirs.eval()
    header = Header(family, config, STEMS[:4], rate=RATE, channels=2, length=WINDOW, hop=HOP)
    return theirs, Model(header, ours.eval())


def whole(separator: Separator, mix: Tensor) -> Tensor:
    """All stems of a song that comes in blocks of odd sizes, and is not standardized."""
    blocks: Iterator[Samples] = iter(np.array_split(mix.numpy(), 7, axis=1))
    return torch.from_numpy(np.concatenate(list(separator.separate(blocks, RATE, level=AS_IT_IS)), axis=-1))


@pytest.mark.full
@pytest.mark.parametrize("name", SMALL)
def test_whole_songs(name: str) -> None:
    theirs, model = couple(name)
    for length in LENGTHS:
        mix = noise(2, length)
        assert difference(whole(Separator(model), mix), apply_model(theirs, mix[None], shifts=0)[0]) <= TOLERANCE


@pytest.mark.full
@pytest.mark.parametrize("name", ["htdemucs", "hdemucs", "demucs"])
@pytest.mark.parametrize("overlap", [0, 0.1, 0.5, 0.8])
def test_whole_songs_with_other_overlaps(name: str, overlap: float) -> None:
    theirs, model = couple(name)
    mix = noise(2, 21_347)
    expected = apply_model(theirs, mix[None], shifts=0, overlap=overlap)[0]
    assert difference(whole(Separator(model, SeparationOptions(overlap=overlap)), mix), expected) <= TOLERANCE


@pytest.mark.full
def test_shifts_are_those_of_the_authors_program(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, model = couple("htdemucs")
    separator, mix = Separator(model, SeparationOptions(shifts=3, seed=5)), noise(2, 30_001)
    assert len(set(separator.runners[0].shift_offsets)) == 3
    offsets = iter([RATE // 2 - lead for lead in separator.runners[0].shift_offsets])
    monkeypatch.setattr("demucs.apply.random.randint", lambda low, high: next(offsets))
    expected = apply_model(theirs, mix[None], shifts=3)[0]
    assert difference(whole(separator, mix), expected) <= TOLERANCE
    assert difference(whole(Separator(model), mix), expected) > TOLERANCE


def test_the_seed_decides_the_shifts() -> None:
    _, model = couple("demucs")
    assert (
        Separator(model, SeparationOptions(shifts=4)).runners[0].shift_offsets
        == Separator(model, SeparationOptions(shifts=4)).runners[0].shift_offsets
    )
    assert (
        Separator(model, SeparationOptions(shifts=4)).runners[0].shift_offsets
        != Separator(model, SeparationOptions(shifts=4, seed=1)).runners[0].shift_offsets
    )
    state = random.getstate()
    Separator(model, SeparationOptions(shifts=4))
    assert random.getstate() == state


@pytest.mark.parametrize("length", [0, 1, 300, 21_347])
def test_shifts_keep_the_length(shares_model: Callable[..., Model], length: int) -> None:
    mix = torch.rand(2, length)
    pieces = Separator(shares_model(), SeparationOptions(shifts=3)).separate([mix.numpy()], RATE)
    stems = torch.from_numpy(np.concatenate([np.zeros((4, 2, 0), np.float32), *pieces], axis=-1))
    torch.testing.assert_close(stems.sum(0), mix, rtol=0, atol=1e-5)


@pytest.mark.full
def test_a_bag_weighs_networks_of_different_families() -> None:
    """As `mdx` does: networks that want to see different lengths, and do not count for every stem."""
    pairs = [couple(name) for name in ("demucs", "hdemucs", "hdemucs of magnitudes")]
    weights = [[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 3.0, 1.0]]
    totals = np.sum(weights, axis=0)
    ensemble = Ensemble(
        pairs[0][1].header,
        tuple(
            EnsembleMember(
                ours.network, tuple(Contribution(s, s, row[s] / totals[s]) for s in range(4) if row[s]), WINDOW
            )
            for (_, ours), row in zip(pairs, weights, strict=True)
        ),
    )
    for length in LENGTHS:
        mix = noise(2, length)
        expected = apply_model(BagOfModels([theirs for theirs, _ in pairs], weights), mix[None], shifts=0)[0]
        assert difference(whole(Separator(ensemble), mix), expected) <= TOLERANCE


def save(path: Path, seed: int, half: bool = True, **changes: Any) -> Path:
    """A tiny HTDemucs."""
    family, config, _ = SMALL["htdemucs"]
    torch.manual_seed(seed)
    header = Header(family, config, STEMS[:4], rate=8000, channels=2, length=WINDOW, hop=HOP)
    model = new_model(Header(**{**{f: getattr(header, f) for f in header.__dataclass_fields__}, **changes}))
    checkpoint.save(Model(model.header, model.network.half() if half else model.network), path)
    return path


def run(ensemble: Ensemble, mix: Tensor) -> Tensor:
    pieces = list(Separator(ensemble).separate([mix.numpy()], ensemble.header.rate, level=AS_IT_IS))
    return torch.from_numpy(np.concatenate(pieces, axis=-1))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [save(tmp_path / f"{seed}.safetensors", seed) for seed in range(3)]


@pytest.mark.full
def test_networks_for_a_stem_each_are_one_model(paths: list[Path]) -> None:
    gives = [("vocals",), ("drums", "bass"), ("other",)]
    ensemble, mix = load_ensemble(paths, gives), noise(2, 12_000)
    assert ensemble.header.stems == ("vocals", "drums", "bass", "other")
    one, two, three = (run(load_ensemble([path], [()]), mix) for path in paths)
    torch.testing.assert_close(run(ensemble, mix), torch.stack([one[3], two[0], two[1], three[2]]), rtol=0, atol=0)


@pytest.mark.full
def test_networks_of_a_shape_take_the_memory_of_one(paths: list[Path]) -> None:
    ensemble = load_ensemble(paths, [("vocals",), ("drums", "bass"), ("other",)])
    assert len({id(member.network) for member in ensemble.members}) == 1
    kept = [tensor for member in ensemble.members for tensor in (member.weights or {}).values()]
    assert {tensor.dtype for tensor in kept} == {torch.float16}


@pytest.mark.full
def test_what_nobody_wants_is_not_even_read(paths: list[Path]) -> None:
    gives = [("vocals",), ("drums", "bass"), ("other",)]
    alone, mix = load_ensemble(paths, gives, stems=["vocals"]), noise(2, 12_000)
    assert (alone.header.stems, len(alone.members)) == (("vocals",), 1)
    torch.testing.assert_close(run(alone, mix), run(load_ensemble(paths, gives), mix)[:1], rtol=0, atol=0)
    two = load_ensemble(paths, gives, stems=["other", "bass"])
    assert (two.header.stems, len(two.members)) == (("other", "bass"), 2)
    whole_network = load_ensemble(paths[:1], [()], stems=["bass"])
    assert whole_network.header.stems == ("bass",)
    torch.testing.assert_close(run(whole_network, mix), run(load_ensemble(paths[:1], [()]), mix)[1:2], rtol=0, atol=0)
    with pytest.raises(UsageError, match="no stem 'piano'") as caught:
        load_ensemble(paths, gives, stems=["piano"])
    assert "vocals, drums, bass, other" in caught.value.hint


@pytest.mark.full
def test_networks_that_do_not_go_together(paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not give 'piano'"):
        load_ensemble(paths[:2], [("vocals",), ("piano",)])
    other = save(tmp_path / "other.safetensors", 0, rate=44_100)
    with pytest.raises(ModelError, match="differ in sample rate"):
        load_ensemble([paths[0], other], [(), ()])


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
    separator = Separator(model, SeparationOptions(batch_size=8))
    torch.testing.assert_close(whole(separator, mix), mix.expand(4, 2, -1), rtol=0, atol=1e-6)
    assert model.network.batches == [8, 4, *[2] * 10]
    whole(separator, mix)
    assert model.network.batches[12:] == [2] * 10
    assert len(separator.warnings) == 1
    assert "too little free memory for 8 windows" in separator.warnings[0]


def test_too_little_memory_for_one_window() -> None:
    separator = Separator(small(0), SeparationOptions(batch_size=4))
    with pytest.raises(torch.OutOfMemoryError):
        whole(separator, torch.rand(2, 2000))


def test_it_is_said_once_with_the_song(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "song.wav", np.zeros((2000, 2)), RATE)
    separator = Separator(small(3), SeparationOptions(batch_size=8))
    outputs = {stem: tmp_path / f"{stem}.wav" for stem in STEMS[:4]}
    warnings = [separator.separate_file(tmp_path / "song.wav", outputs, overwrite=True).warnings for _ in range(2)]
    assert [len(each) for each in warnings] == [1, 0]


def test_each_song_has_the_warnings_of_its_own_time(tmp_path: Path) -> None:
    """Whichever step of a chain they are of."""
    soundfile.write(tmp_path / "song.wav", np.zeros((2000, 2)), RATE)
    first, second = small(9), small(3)
    steps = (ChainStep(ensemble_of(first)), ChainStep(ensemble_of(second), STEMS[0], {STEMS[0]: STEMS[0]}))
    separator = Separator(Chain(first.header, steps), SeparationOptions(batch_size=8))
    told = []
    for most in (9, 1, 1):
        assert isinstance(first.network, Small)
        first.network.most = most
        report = separator.separate_file(tmp_path / "song.wav", {STEMS[0]: tmp_path / "a.wav"}, overwrite=True)
        told.append(len(report.warnings))
        assert list(report.warnings) == separator.warnings[len(separator.warnings) - len(report.warnings) :]
    assert told == [1, 1, 0]


@pytest.mark.full
def test_half_precision_is_near() -> None:
    for name in ("htdemucs", "hdemucs", "demucs"):
        _, model = couple(name)
        mix = noise(2, 12_000)
        full, half = whole(Separator(model), mix), whole(Separator(model, SeparationOptions(precision="half")), mix)
        assert half.dtype == torch.float32
        assert TOLERANCE < difference(half, full) < 0.1


def test_more_windows_for_gpus() -> None:
    assert Separator(small(9)).runners[0].batch_size == 1
    assert Separator(small(9, length=4 * RATE), device="cuda").runners[0].batch_size == 8
    assert Separator(small(9, length=44 * RATE), device="cuda").runners[0].batch_size == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch_size": 0}, "at least 1, not 0"),
        ({"precision": "double"}, "unknown precision 'double'"),
        ({"overlap": 1.0}, "from 0 to 0.95, not 1"),
        ({"overlap": -0.1}, "from 0 to 0.95, not -0.1"),
        ({"shifts": -1}, "must not be negative, got -1"),
        ({"wiener": -1}, "must not be negative, got -1"),
        ({"wiener": 1}, "needs a model that estimates masks"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Separator(small(1), SeparationOptions(**options))


def bag_file(path: Path, names: Sequence[str], shares: Any = None, **changes: str) -> Path:
    """Networks in one file, as github.com/set-soft/AudioSeparation writes them."""
    signatures = [f"{index:08x}" for index in range(len(names))]
    metadata = {"signatures": json.dumps(signatures), "params": "1", "is_bag_of_models": "true"}
    tensors: dict[str, Tensor] = {}
    for signature, name in zip(signatures, names, strict=True):
        kind, kwargs = NETWORKS[name]
        table = {"class_module": f"source.{kind}", "class_name": kind, "args": [], "kwargs": kwargs}
        metadata[signature] = json.dumps(table, default=as_json)
        tensors |= {f"{signature}.{key}": tensor.half() for key, tensor in reference(name).state_dict().items()}
    if shares is not None:
        metadata["weights"] = json.dumps(shares)
    save_file(tensors, path, {**metadata, **changes})
    return path


MIXED = ["demucs", "demucs with rewriting", "hdemucs of magnitudes", "hdemucs in bands"]
WEIGHTS = [[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.5, 1.0]]


@pytest.mark.full
def test_a_bag_in_one_file(tmp_path: Path) -> None:
    path = bag_file(tmp_path / "x.safetensors", MIXED, WEIGHTS)
    ensemble = load_ensemble([path], [()])
    theirs = [reference(name) for name in MIXED]
    for length in (301, 21_347):
        mix = noise(2, length)
        expected = apply_model(BagOfModels(theirs, WEIGHTS), mix[None], shifts=0)[0]
        assert difference(run(ensemble, mix), expected) <= TOLERANCE
    assert ensemble.header.stems == ("drums", "bass", "other", "vocals")
    assert registry.read_spec(path).stems == ("vocals", "drums", "bass", "other")
    assert len(load_ensemble([path], [()], stems=["vocals"]).members) == 2
    assert len(load_ensemble([path], [()], stems=["bass"]).members) == 2


@pytest.mark.full
def test_without_weights_all_networks_count_the_same(tmp_path: Path) -> None:
    ensemble = load_ensemble([bag_file(tmp_path / "x.safetensors", ["demucs", "hdemucs"])], [()])
    mix = noise(2, 9000)
    expected = apply_model(BagOfModels([reference("demucs"), reference("hdemucs")]), mix[None], shifts=0)[0]
    assert difference(run(ensemble, mix), expected) <= TOLERANCE


@pytest.mark.full
def test_the_window_of_a_bag_comes_before_those_of_its_networks(tmp_path: Path) -> None:
    assert load_ensemble([bag_file(tmp_path / "x.safetensors", ["hdemucs"], segment="2")], [()]).header.length == 16_000
    with pytest.raises(ModelError, match="differ in sample rate"):  # one of them takes no more than its own
        load_ensemble([bag_file(tmp_path / "y.safetensors", ["demucs", "htdemucs"], segment="44")], [()])


PAIR = [[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("weights", "changes", "told"),
    [
        (PAIR[:1], {}, "must be 4 numbers for each of 2"),
        ([*PAIR, PAIR[0]], {}, "must be 4 numbers for each of 2"),
        ([PAIR[0], PAIR[1][:3]], {}, "must be 4 numbers for each of 2"),
        ([PAIR[0], [0.0, 1.0, 0.0, 0.0]], {}, "has no gain in any network"),
        ([PAIR[0], [0.0, 1.0, -1.0, 0.0]], {}, "must be numbers from 0"),
        ([PAIR[0], [0.0, 1.0, math.nan, 0.0]], {}, "must be numbers from 0"),
        ([PAIR[0], [0.0, 1.0, 1e30, 0.0]], {}, "must be numbers from 0"),
        ([PAIR[0], [0.0, 1.0, True, 0.0]], {}, "must be numbers from 0"),
        ([PAIR[0], ["0"] * 4], {}, "must be numbers from 0"),
        ("1", {}, "invalid"),
        (1, {}, "invalid"),
        ({"drums": 1}, {}, "invalid"),
        (PAIR, {"weights": "["}, "invalid"),
        (PAIR, {"weights": BOMB}, "invalid"),
        (PAIR, {"signatures": "{}"}, "no list of 1 to 32"),
        (PAIR, {"signatures": "[]"}, "no list of 1 to 32"),
        (PAIR, {"signatures": json.dumps(["00000000"] * 2)}, "no list of 1 to 32"),
        (PAIR, {"signatures": json.dumps([str(n) for n in range(33)])}, "no list of 1 to 32"),
        (PAIR, {"signatures": "[[], {}]"}, "invalid"),
        (PAIR, {"signatures": '["unheard"]'}, "'unheard'"),
        (PAIR, {"signatures": BOMB}, "invalid"),
        (PAIR[:1], {"signatures": '["00000000"]'}, "invalid|belong to none"),
        (PAIR, {"00000001": "[]"}, "invalid"),
        (PAIR, {"00000001": BOMB}, "invalid"),
        (PAIR, {"00000001": json.dumps({"class_name": "Popen", "args": [], "kwargs": {}})}, "'Popen'"),
        (PAIR, {"segment": "inf"}, "invalid"),
        (PAIR, {"segment": "nan"}, "invalid"),
        (PAIR, {"segment": "a while"}, "invalid"),
    ],
)
def test_bad_bags_are_refused(tmp_path: Path, weights: Any, changes: dict[str, str], told: str) -> None:
    path = bag_file(tmp_path / "x.safetensors", ["demucs", "hdemucs"], weights, **changes)
    with pytest.raises(ModelError, match=told) as caught:
        load_ensemble([path], [()])
    assert "x.safetensors" in str(caught.value)
    assert len(str(caught.value)) < 600
    assert caught.value.hint


@pytest.mark.full
def test_a_bag_with_weights_of_another_shape(tmp_path: Path) -> None:
    path = bag_file(tmp_path / "x.safetensors", ["demucs", "hdemucs"])
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for change, told in (
        ({"00000001.novel": torch.zeros(1)}, "1 weights are missing or unknown"),
        ({"novel": torch.zeros(1)}, "belong to none of its networks"),
        ({"00000001.encoder.0.conv.bias": torch.zeros(3)}, "has shape"),
        ({"00000001.encoder.0.conv.bias": tensors["00000001.encoder.0.conv.bias"] * math.nan}, "not all finite"),
    ):
        save_file({**tensors, **change}, path, metadata)
        with pytest.raises(ModelError, match=told):
            load_ensemble([path], [()])


# Of the published networks: class, arguments that make a difference here, tensors, values, and bytes of the author's
# own file, in half precision, on https://dl.fbaipublicfiles.com/demucs/.
PUBLISHED: dict[str, tuple[Any, dict[str, Any], int, int, int]] = {
    "75fc33f5": (HDemucs, {}, 395, 83_637_832, 167_407_275),
    "0d19c1c6": (Demucs, {"rewrite": False}, 252, 88_984_040, 178_048_329),
    "7ecf8ec1": (Demucs, {"rewrite": False}, 252, 88_984_040, 178_048_329),
    "c511e2ab": (HDemucs, {"cac": False, "norm_starts": 999}, 377, 83_607_872, 167_334_095),
    "7d865c68": (HDemucs, {"multi_freqs": [0.1, 0.3], "norm_starts": 999}, 481, 83_884_248, 167_918_783),
}
BAGS = {"hdemucs_mmi": ["75fc33f5"], "mdx": ["0d19c1c6", "7ecf8ec1", "c511e2ab", "7d865c68"]}


@pytest.mark.full
@pytest.mark.parametrize("name", BAGS)
def test_the_networks_of_published_bags_have_as_many_values(name: str) -> None:
    total = 0
    for signature in BAGS[name]:
        kind, kwargs, tensors, values, size = PUBLISHED[signature]
        table = headers.translate_class(kind.__name__, [], {"sources": [*STEMS[:4]], "segment": 44, **kwargs})
        with torch.device("meta"):
            state = build(table["family"], table["config"], stems=4, channels=2).state_dict()
        assert (len(state), sum(map(Tensor.numel, state.values()))) == (tensors, values)
        assert 0 < size - 2 * values < 400 * tensors  # names and the like
        assert (table["length"], table["rate"]) == (1_940_400, 44_100)
        total += 2 * values
    (file,) = registry.read_bundled().find(name).files
    assert file.size is not None
    assert 0 < file.size - total < 200 * sum(PUBLISHED[signature][2] for signature in BAGS[name])
