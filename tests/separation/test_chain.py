"""Chains of models: what each step gets and gives, whatever the blocks, windows and rates are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from support.songs import STEMS

from stemsplit.errors import ModelError, UsageError
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model
from stemsplit.models.ensemble import Chain, ChainStep, chain_of, ensemble_of, load_model
from stemsplit.models.hub import download
from stemsplit.models.registry import read_bundled, read_registry
from stemsplit.separation.separator import Separator

SharesModel = Callable[..., Model]
FIRST = (0.75, 0.25)  # vocals, and drums, which stand for the accompaniment
SECOND = (0.5, 0.25, 0.25)  # of these: vocals, drums, bass


def noise(channels: int, length: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.5, 0.5, (channels, length)).astype(np.float32)


def chain(first: Model, second: Model, stems: tuple[str, ...] = ("vocals", "drums", "bass")) -> Chain:
    """The second model separates the drums of the first; its vocals are bass, too."""
    steps = (ChainStep(ensemble_of(first)), ChainStep(ensemble_of(second), "drums", {"vocals": "bass"}))
    return Chain(replace(first.header, stems=stems), steps)


@pytest.mark.parametrize("length", [1, 4096, 10_000, 30_001])
@pytest.mark.parametrize("block", [1_000, 65_536])
def test_a_step_separates_what_the_step_before_has_left(shares_model: SharesModel, length: int, block: int) -> None:
    first, second = shares_model(shares=FIRST), shares_model(shares=SECOND, length=3000, hop=1100)
    mix = noise(2, length)
    blocks = [mix[:, start : start + block] for start in range(0, length, block)]
    stems = np.concatenate(list(Separator(chain(first, second)).separate(blocks, 44_100)), axis=-1)
    assert stems.shape == (3, 2, length)
    for stem, share in zip(stems, (0.75, 0.25 * 0.25, 0.25 * 0.75), strict=True):
        np.testing.assert_allclose(stem, share * mix, atol=1e-6)


def test_a_step_of_another_rate(shares_model: SharesModel) -> None:
    first, second = shares_model(shares=FIRST), shares_model(shares=SECOND, rate=22_050)
    times = np.arange(44_100) / 44_100
    mix = np.stack([np.sin(2 * np.pi * 440 * times), np.sin(2 * np.pi * 660 * times)]).astype(np.float32)
    separator = Separator(chain(first, second))
    for length in (44_100, 43_999, 20_000):
        stems = separator.separate_array(mix[:, :length], 44_100)
        assert {stem.shape for stem in stems.values()} == {(2, length)}
        inner = slice(2_000, length - 2_000)  # resampling rings at the ends
        np.testing.assert_allclose(stems["bass"][:, inner], 0.1875 * mix[:, :length][:, inner], atol=1e-4)


def test_stems_in_another_order_and_fewer_of_them(shares_model: SharesModel) -> None:
    first, second = shares_model(shares=FIRST), shares_model(shares=SECOND)
    mix = noise(2, 10_000)
    stems = Separator(chain(first, second, ("bass", "vocals"))).separate_array(mix, 44_100)
    assert list(stems) == ["bass", "vocals"]  # without the drums they do not add up
    np.testing.assert_allclose(stems["bass"], 0.1875 * mix, atol=1e-6)


def test_a_single_model_is_a_chain_of_one(shares_model: SharesModel) -> None:
    model = shares_model()
    single = chain_of(model)
    assert single.header.stems == STEMS
    assert chain_of(single) is single
    assert chain_of(ensemble_of(model)).complete


@pytest.mark.full
def test_the_bundled_chain_adds_up(tmp_path: Path) -> None:
    spec = read_bundled().find("mini")
    assert [part.name for part in spec.parts] == ["spleeter-2stems", "mini-accompaniment"]
    separator = Separator(load_model(download(spec)))
    mix = noise(2, 20_000)
    stems = separator.separate_array(mix, 44_100)
    assert tuple(stems) == STEMS
    np.testing.assert_allclose(sum(stems.values()), mix, atol=1e-4)
    soundfile.write(tmp_path / "song.wav", mix.T, 44_100, subtype="FLOAT")
    report = separator.separate_file(tmp_path / "song.wav", {"no_vocals": tmp_path / "karaoke.flac"})
    assert report.length == 20_000


@pytest.mark.full
@pytest.mark.parametrize(
    ("stems", "needed"),
    [(["vocals"], ["spleeter-2stems"]), (["drums", "bass"], ["spleeter-2stems", "mini-accompaniment"])],
)
def test_only_the_steps_that_are_needed_run(stems: list[str], needed: list[str]) -> None:
    spec = read_bundled().find("mini", stems)
    assert [part.name for part in spec.parts] == needed
    local = download(spec)
    chain = load_model(local)
    assert [part.spec.name for part in local.components] == needed
    assert chain.header.stems == tuple(stems)
    assert not chain.complete


OWN = """
[best]
summary = "Strong vocals first"
license = "MIT"
stems = ["vocals", "drums", "bass", "other"]
steps = [{first}, {second}]
"""
GOOD = ('{ model = "spleeter-2stems" }', '{ model = "htdemucs", of = "accompaniment", as = { vocals = "other" } }')


def own(folder: Path, first: str = GOOD[0], second: str = GOOD[1]) -> Path:
    path = folder / "own.toml"
    path.write_text(OWN.replace("{first}", first).replace("{second}", second))
    return path


def test_a_chain_of_the_user(tmp_path: Path) -> None:
    spec = read_registry(own(tmp_path)).find("best")
    assert [part.name for part in spec.parts] == ["spleeter-2stems", "htdemucs"]
    assert spec.size == 84_025_440
    assert not spec.is_local


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ('{ model = "spleter" }', GOOD[1], r"steps\[0\]: unknown model 'spleter'"),
        ('{ model = "best" }', GOOD[1], r"steps\[0\]: a chain cannot be a step of itself"),
        ('{ model = "mini" }', GOOD[1], r"steps\[0\]: 'mini' is a chain itself"),
        (GOOD[0], '{ model = "htdemucs" }', r"steps\[1\]: of is missing"),
        (GOOD[0], '{ model = "htdemucs", of = "rest" }', r"steps\[1\]: of = 'rest' is not a stem"),
        ('{ model = "mini-unet", of = "vocals" }', GOOD[1], r"steps\[0\]: unknown key 'of'"),
        (GOOD[0], '{ model = "htdemucs", of = "accompaniment", as = { piano = "other" } }', "as must name stems of"),
        (GOOD[0], '{ model = "htdemucs", of = "accompaniment", as = { vocals = "a b" } }', "as must give names"),
        (GOOD[0], '{ model = "htdemucs", of = "vocals" }', "the steps give accompaniment, vocals, drums, bass, other,"),
        (GOOD[0], "3", r"steps\[1\]: not a table"),
    ],
)
def test_steps_that_do_not_fit(tmp_path: Path, first: str, second: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as refused:
        read_registry(own(tmp_path, first, second))
    assert str(tmp_path) in str(refused.value)


def test_a_stem_that_the_chain_does_not_have() -> None:
    with pytest.raises(UsageError, match="the model 'mini' has no stem 'piano'"):
        read_bundled().find("mini", ["piano"])


def test_steps_of_different_channels(tmp_path: Path, unet_model: Callable[..., Model]) -> None:
    for name, channels in (("mono", 1), ("stereo", 2)):
        checkpoint.save(unet_model(channels=channels), tmp_path / f"{name}.safetensors")
    text = "".join(
        f'[{name}]\nsummary = "x"\nlicense = "MIT"\nfamily = "unet"\nstems = {list(STEMS)}\n'
        f'bundled = "{tmp_path / name}.safetensors"\n'
        for name in ("mono", "stereo")
    )
    path = own(tmp_path, '{ model = "stereo" }', '{ model = "mono", of = "other" }')
    path.write_text(text + path.read_text())
    with pytest.raises(ModelError, match="the steps 'stereo' and 'mono' of 'best' have different numbers of channels"):
        load_model(download(read_registry(path).find("best")))
