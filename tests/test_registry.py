"""models.toml, and models that are files."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from stemsplit import checkpoint, registry
from stemsplit.checkpoint import Model
from stemsplit.errors import ModelError

TABLE = """
[one]
summary = "A model"
family = "unet"
stems = ["vocals", "other"]
license = "MIT"
bundled = "weights/one.safetensors"
"""


@pytest.mark.parametrize("spec", registry.specs().values(), ids=registry.specs())
def test_a_bundled_model_is_what_models_toml_says(spec: registry.ModelSpec) -> None:
    header = checkpoint.load(spec.path).header
    assert (header.family, header.stems) == (spec.family, spec.stems)
    assert spec.path.stat().st_size <= 16e6
    assert set(spec.sdr) <= set(spec.stems)


def test_the_default_is_known() -> None:
    assert registry.find(registry.DEFAULT).name == registry.DEFAULT


def test_a_table_is_read() -> None:
    text = TABLE + '[one.sdr]\nvocals = 6\nother = 5.5\nsource = "somewhere"\n'
    spec = registry.parse(text, "models.toml")["one"]
    assert (spec.name, spec.summary, spec.family, spec.license) == ("one", "A model", "unet", "MIT")
    assert spec.stems == ("vocals", "other")
    assert spec.path == Path(registry.__file__).parent / "weights" / "one.safetensors"
    assert (spec.sdr, spec.sdr_source) == ({"vocals": 6.0, "other": 5.5}, "somewhere")
    assert registry.parse(TABLE, "models.toml")["one"].sdr == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one = 1", r"m.toml, \[one\]: not a table"),
        ("[one", "m.toml is not valid TOML"),
        (TABLE + "sumary = 1", r"m.toml, \[one\]: unknown key 'sumary'"),
        (TABLE.replace('license = "MIT"', ""), r"m.toml, \[one\]: license is missing"),
        (TABLE.replace('"MIT"', "1"), r"m.toml, \[one\]: license must be a string"),
        (TABLE.replace('["vocals", "other"]', "[]"), r"m.toml, \[one\]: stems must be a list of names"),
        (TABLE.replace('["vocals", "other"]', "[1]"), r"m.toml, \[one\]: stems must be a list of names"),
        (TABLE + "sdr = 1", r"m.toml, \[one\]: sdr: not a table"),
        (TABLE + "[one.sdr]\nvocals = 1\nother = 1", r"m.toml, \[one\]: sdr: source is missing"),
        (TABLE + '[one.sdr]\nvocals = 1\nother = 1\nsource = ""\nbass = 1', r"\[one\]: sdr: unknown key 'bass'"),
        (TABLE + '[one.sdr]\nvocals = true\nother = 1\nsource = ""', r"\[one\]: sdr: vocals must be a number"),
        (TABLE + "[one.sdr]\nvocals = 1\nother = 1\nsource = 1", r"\[one\]: sdr: source must be a string"),
    ],
)
def test_a_wrong_table_is_refused(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        registry.parse(text, "m.toml")


def test_an_unknown_name_suggests_a_known_one() -> None:
    with pytest.raises(ModelError, match="there is no model 'minni'") as caught:
        registry.find("minni")
    assert "did you mean mini?" in caught.value.hint
    with pytest.raises(ModelError, match="there is no model 'quux'") as caught:
        registry.find("quux")
    assert "did you mean" not in caught.value.hint
    assert "known models: mini" in caught.value.hint


def test_a_checkpoint_is_a_model(tmp_path: Path, unet_model: Callable[..., Model]) -> None:
    path = tmp_path / "mine.safetensors"
    checkpoint.save(unet_model(stems=("a", "b")), path)
    spec = registry.find(str(path))
    assert (spec.name, spec.family, spec.stems, spec.path) == (str(path), "unet", ("a", "b"), path)


def with_header(path: Path, header: object) -> Path:
    """A file that begins like a safetensors file."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "is damaged"),
        ({}, "has no stemsplit header"),
        ({"__metadata__": {"stemsplit": "{"}}, "is damaged"),
        ({"__metadata__": {"stemsplit": "{}"}}, "is damaged"),
        ({"__metadata__": {"stemsplit": '{"family": "unet", "stems": ["../x"]}'}}, "is damaged"),
        ({"__metadata__": {"stemsplit": '{"family": "unet", "stems": [1]}'}}, "is damaged"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, header: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        registry.find(str(with_header(tmp_path / "x.safetensors", header)))


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\xff" * 100, struct.pack("<Q", 2**40), struct.pack("<Q", 4) + b"\xff\xfe"]
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.safetensors' is not a \.safetensors file"):
        registry.find(str(path))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model file"):
        registry.find(str(tmp_path / "x.safetensors"))
    with pytest.raises(ModelError, match="is a folder, not a model") as caught:
        registry.find(str(tmp_path))
    assert "the .safetensors file in it" in caught.value.hint
