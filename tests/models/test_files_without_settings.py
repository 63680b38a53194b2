"""Files of weights that do not say what network they are for: models.toml says it. Remainders, means and licences."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from safetensors.torch import save, save_file
from support.hub import REPO
from support.hub_server import COMMIT, Hub
from support.networks import TINY_ROFORMER, file_size
from support.program import Run
from torch import Tensor

from stemsplit import settings
from stemsplit.audio.formats import Format
from stemsplit.errors import ModelError, UsageError
from stemsplit.models import checkpoint, hub, registry
from stemsplit.models.ensemble import load_model
from stemsplit.networks.families import build
from stemsplit.separation.outputs import Delivery
from stemsplit.separation.separator import Separator
from stemsplit.training.fit import finetuning_recipe, load_start

CONFIG: dict[str, Any] = {**TINY_ROFORMER, "bands": 12, "remainder": True}
STEMS = ("vocals", "instrumental")
OURS = registry.read_bundled()
LICENSE = "unknown; nobody has said"


def weights(config: dict[str, Any] = CONFIG, *, stems: int = 2, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return build("mel_band_roformer", config, stems=stems, channels=2).state_dict()


def table(name: str, content: bytes, *, length: int = 2048, more: str = "") -> str:
    """A model in models.toml, of a file called like it."""
    config = ", ".join(f"{key} = {json.dumps(value)}" for key, value in CONFIG.items())
    sha256 = hashlib.sha256(content).hexdigest()
    return (
        f'[{name}]\nsummary = "x"\nfamily = "mel_band_roformer"\nstems = {list(STEMS)}\nlicense = "{LICENSE}"\n'
        f'repo = "{REPO}"\nrevision = "{COMMIT}"\nconfig = {{ {config} }}\n{more}\n'
        f"windows = {{ rate = 44100, channels = 2, length = {length}, hop = {length // 2} }}\n"
        f'files = [{{ name = "{name}.safetensors", size = {len(content)}, sha256 = "{sha256}" }}]\n\n'
    )


@pytest.fixture
def add(server: Hub, cache: Path, here: Path) -> Callable[..., Path]:
    """A function that puts a file on the Hub, and a model of it into own.toml, whose path it returns."""

    def add(name: str = "kim", content: bytes | None = None, **how: Any) -> Path:
        content = save(weights()) if content is None else content
        server.add(REPO, f"{name}.safetensors", content)
        path = here / "own.toml"
        path.write_text((path.read_text() if path.exists() else "") + table(name, content, **how))
        return path

    return add


def load(own: Path, name: str = "kim", stems: tuple[str, ...] = ()) -> Separator:
    return Separator(load_model(hub.download_model(name, registry=own, stems=stems)))


def noise(length: int = 9_000) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.5, 0.5, (2, length)).astype(np.float32)


@pytest.mark.full
def test_a_file_without_settings_runs(add: Callable[..., Path]) -> None:
    own, mix = add(), noise()
    separator = load(own)
    assert separator.stems == STEMS
    assert (separator.chain.header.length, separator.chain.header.hop) == (2048, 1024)
    stems = separator.separate_array(mix, 44_100)
    assert np.abs(stems["vocals"]).max() > 1e-3
    np.testing.assert_allclose(stems["vocals"] + stems["instrumental"], mix, atol=1e-6)
    for stem in STEMS:
        alone = load(own, stems=(stem,)).separate_array(mix, 44_100)
        assert list(alone) == [stem]
        np.testing.assert_allclose(alone[stem], stems[stem], atol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_vocals_and_instrumental_add_up_at_the_rate_of_the_song(
    add: Callable[..., Path], here: Path, rate: int
) -> None:
    """Even above the rate of the network: the remainder has what it did not see."""
    mix = noise(12_000)
    soundfile.write("song.wav", mix.T, rate, subtype="FLOAT")
    outputs = {stem: here / f"{stem}.wav" for stem in STEMS}

    load(add()).separate_file("song.wav", outputs, delivery=Delivery(Format.parse("wav", bits="32f")))
    total = sum(soundfile.read(path, dtype="float32")[0] for path in outputs.values())
    np.testing.assert_allclose(total, mix.T, atol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("stem", STEMS)
def test_two_stems_are_those_that_the_model_has_by_name(run: Run, add: Callable[..., Path], stem: str) -> None:
    own = add()
    soundfile.write("song.wav", noise().T, 44_100)
    code, out, err = run("song.wav", "--registry", str(own), "-m", "kim", "--two-stems", stem, model=False)
    assert code == 0, err
    assert set(out.splitlines()) == {f"separated/song/{name}.wav" for name in STEMS}
    assert run("song.wav", "--registry", str(own), "-m", "kim", "--two-stems", "bass", model=False).code == 2


@pytest.mark.parametrize("name", [name for name, spec in OURS.models.items() if spec.header])
def test_our_files_without_settings_are_as_large_as_their_networks(name: str) -> None:
    """To the byte: so names, shapes and number of the weights are right, and the stems."""
    spec = OURS.models[name]
    header = checkpoint.make_header(spec.header)
    with torch.device("meta"):
        state = checkpoint.new_model(header).network.state_dict()
    assert file_size(state) == spec.size
    assert header.stems == spec.stems
    assert header.length / header.hop in (2, 4)


def test_a_licence_that_has_to_be_accepted_belongs_to_no_default() -> None:
    assert OURS.models["bs_roformer_sw"].confirm
    for name in (OURS.default, registry.FALLBACK, *settings.PRESETS.values()):
        assert not any(part.confirm for part in OURS.models[name].parts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: save(weights({**CONFIG, "width": 16})), "has shape .* instead of"),
        (lambda: save(weights({**CONFIG, "bands": 11})), "missing or unknown, band_split.to_features.11"),
        (lambda: save(weights({**CONFIG, "mask_layers": 2})), "weights are missing or unknown, mask_estimators.0"),
        (lambda: save(weights(stems=3)), "weights are missing or unknown, mask_estimators.1"),
        (lambda: save(weights())[: file_size(weights()) // 2], "is not a readable safetensors file"),
        (lambda: save({**weights(), "one.more": torch.zeros(1)}), "1 weights are missing or unknown, one.more"),
        (lambda: save({**weights(), "final": torch.zeros(1)}), "1 weights are missing or unknown, final"),
        (lambda: save({key: value * torch.nan for key, value in weights().items()}), "not all finite numbers"),
        (lambda: b"PK" * 500, "is not a readable safetensors file"),
    ],
    ids=range(9),
)
def test_a_file_that_is_not_what_models_toml_says(
    add: Callable[..., Path], content: Callable[[], bytes], message: str
) -> None:
    own = add(content=content())
    with pytest.raises(ModelError, match=message) as caught:
        load(own)
    assert "kim.safetensors" in str(caught.value)
    fits = "readable" in message or "finite" in message
    differs = "compare config and stems of 'kim' in models.toml with the file"
    assert caught.value.hint == (checkpoint.DOWNLOAD_AGAIN if fits else differs)


def test_six_stems_of_four() -> None:
    with pytest.raises(UsageError, match="the model 'scnet_xl' has no stem 'guitar'") as caught:
        OURS.find("scnet_xl", ["vocals", "guitar"])
    assert caught.value.hint == "its stems are drums, bass, other, vocals"


GOOD = table("kim", b"x")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("windows = {", "#", "config is for .onnx files, and for files without settings of their own"),
        ("rate = 44100,", "", "windows: rate is missing"),
        ("rate = 44100", "rate = 44100.5", "windows: rate, channels, length, hop must be whole numbers above 0"),
        ("hop = 1024", "hop = 4096", "must be whole numbers above 0, and hop not above length"),
        ("hop = 1024", "hop = 1024, fade = 1", "windows: unknown key 'fade'"),
        ("windows = {", "windows = 1 #", "windows: not a table"),
        ("revision =", 'confirm = "yes"\nrevision =', "confirm must be true or false"),
        ("revision =", "remainder = 1\nrevision =", "unknown key 'remainder'"),
    ],
)
def test_a_wrong_table_is_refused(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ModelError, match=message):
        registry.parse_registry(GOOD.replace(old, new), "own.toml")


def test_settings_that_no_network_can_have(add: Callable[..., Path]) -> None:
    own = add()
    own.write_text(own.read_text().replace("head_width = 6", "head_width = 7"))
    with pytest.raises(ModelError, match="head_width must be even, not 7"):
        load(own)


# Licences


@pytest.mark.full
def test_a_licence_has_to_be_accepted_once(run: Run, server: Hub, add: Callable[..., Path]) -> None:
    own = add(more="confirm = true")
    soundfile.write("song.wav", noise().T, 44_100)
    separate = ("song.wav", "--registry", str(own), "-m", "kim")
    told = f"the licence of the model 'kim' has to be accepted, by --accept-license: {LICENSE}"
    for refused in (separate, ("models", "pull", "kim", "--registry", str(own))):
        code, out, err = run(*refused, model=False)
        assert (code, out) == (1, "")
        assert told in err
    assert server.asked("GET") == 0
    with pytest.raises(ModelError, match=f"the licence of the model 'kim' was not accepted: {LICENSE}") as caught:
        hub.download_model("kim", registry=own)
    assert "download_model('kim', accept_license=True)" in caught.value.hint
    code, _, err = run(*separate, "--accept-license", model=False)
    assert code == 0, err
    assert f"licence of its weights: {LICENSE}" in err
    assert run(*separate, "--overwrite", model=False).code == 0
    assert hub.download_model("kim", registry=own).paths


# Means


MEAN = '[both]\nsummary = "x"\nlicense = "MIT"\nstems = ["vocals", "instrumental"]\nmean = [{}]\n'


@pytest.mark.full
def test_a_mean_of_models_with_different_windows(add: Callable[..., Path]) -> None:
    add("kim")
    own = add("other", save(weights(seed=1)), length=3001)
    own.write_text(own.read_text() + MEAN.format('{ model = "kim" }, { model = "other", weight = 3 }'))
    mix = noise(20_001)
    first, second, both = (load(own, name).separate_array(mix, 44_100) for name in ("kim", "other", "both"))
    assert list(both) == list(STEMS)
    np.testing.assert_allclose(both["vocals"], 0.25 * first["vocals"] + 0.75 * second["vocals"], atol=1e-6)
    np.testing.assert_allclose(both["vocals"] + both["instrumental"], mix, atol=1e-6)
    separator = load(own, "both")
    blocks = [mix[:, start : start + 777] for start in range(0, 20_001, 777)]
    streamed = np.concatenate(list(separator.separate(blocks, 44_100)), axis=-1)
    np.testing.assert_allclose(streamed[0], both["vocals"], atol=1e-6)
    assert load(own, "both", ("instrumental",)).stems == ("instrumental",)
    spec = registry.read_registry(own).find("both")
    assert spec.size == sum(part.size or 0 for part in spec.parts)
    assert [part.name for part in spec.parts] == ["kim", "other"]


@pytest.mark.full
def test_a_chain_of_a_mean(add: Callable[..., Path]) -> None:
    add("kim")
    own = add("other", save(weights(seed=1)), length=3001)
    mean = MEAN.format('{ model = "kim" }, { model = "other" }')
    steps = '[best]\nsummary = "x"\nlicense = "MIT"\nstems = ["vocals", "drums", "bass", "other"]\nsteps = [\n'
    steps += '{ model = "both" }, { model = "mini-unet", of = "instrumental", as = { vocals = "other" } }]\n'
    own.write_text(own.read_text() + mean + steps)
    separator = load(own, "best")
    assert len(separator.runners) == 3
    mix = noise(30_000)
    stems = separator.separate_array(mix, 44_100)
    np.testing.assert_allclose(stems["vocals"], load(own, "both").separate_array(mix, 44_100)["vocals"], atol=1e-6)
    np.testing.assert_allclose(sum(stems.values()), mix, atol=1e-4)
    assert [part.name for part in registry.read_registry(own).find("best", ["vocals"]).parts] == ["kim", "other"]


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        ('{ model = "kim" }', "mean must be a list of two tables or more"),
        ('{ model = "kim" }, 1', r"mean\[1\]: not a table"),
        ('{ model = "kim" }, { model = "kin" }', r"mean\[1\]: unknown model 'kin'"),
        ('{ model = "kim" }, { model = "mini" }', "'mini' is made of several models itself"),
        ('{ model = "kim" }, { model = "kim", weight = 0 }', "weight must be a number above 0"),
        ('{ model = "kim" }, { model = "kim", weight = true }', "weight must be a number above 0"),
        ('{ model = "htdemucs" }, { model = "mini-unet" }', "none of the models gives instrumental"),
    ],
)
def test_a_wrong_mean_is_refused(mean: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        registry.parse_registry(GOOD + MEAN.format(mean), "own.toml", known=OURS.models)


# Training


@pytest.mark.full
def test_training_begins_with_a_file_without_settings(add: Callable[..., Path], here: Path) -> None:
    own = add()
    model = load_start(hub.download_model("kim", registry=own))
    recipe = finetuning_recipe(model)
    assert (recipe.family, recipe.stems, recipe.config) == ("mel_band_roformer", STEMS, CONFIG)
    stems = model.network.train()(torch.from_numpy(noise())[None])
    torch.testing.assert_close(stems.sum(1)[0], torch.from_numpy(noise()))
    checkpoint.save(model, here / "tuned.safetensors")
    assert Separator.load(here / "tuned.safetensors", device="cpu").chain.remainder == "instrumental"
    save_file(model.network.state_dict(), here / "plain.safetensors")
    assert (here / "plain.safetensors").stat().st_size == len(save(weights()))
