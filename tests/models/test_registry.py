"""models.toml, and models that are files."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from stemsplit.errors import ModelError, UsageError
from stemsplit.models import checkpoint, registry
from stemsplit.models.checkpoint import Model
from stemsplit.models.registry import WeightFile

TABLE = """
[one]
summary = "A model"
family = "unet"
stems = ["vocals", "other"]
license = "MIT"
bundled = "weights/one.safetensors"
"""
COMMIT, SHA256 = "0123456789abcdef" * 2 + "01234567", "0123456789abcdef" * 4
REMOTE = f"""
[two]
summary = "A model"
family = "unet"
stems = ["vocals", "other"]
license = "MIT"
repo = "someone/two"
revision = "{COMMIT}"
files = [
    {{ name = "a.safetensors", size = 10, sha256 = "{SHA256}", gives = ["vocals"] }},
    {{ name = "sub/b.safetensors", size = 20, sha256 = "{SHA256}" }},
]
"""
ONNX = (
    REMOTE.replace('"unet"', '"spleeter"')
    .replace("a.safetensors", "a.onnx")
    .replace("sub/b.safetensors", "sub/b.onnx")
    .replace(f'"{SHA256}" }}', f'"{SHA256}", gives = ["other"] }}')
    .replace("files = [", "joint = true\nconfig = { bins = 1536, widths = [1, 2] }\nfiles = [")
)
OURS = registry.read_bundled()


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name, spec in OURS.models.items() if spec.path])
def test_a_bundled_model_is_what_models_toml_says(name: str) -> None:
    spec = OURS.models[name]
    assert spec.path
    header = checkpoint.load(spec.path).header
    assert (header.family, header.stems) == (spec.family, spec.stems)
    assert spec.path.stat().st_size <= 40e6
    assert set(spec.sdr) <= set(spec.stems)


def test_what_runs_when_nothing_is_named() -> None:
    assert OURS.find(OURS.default).name == OURS.default
    assert OURS.find(registry.FALLBACK).is_local  # needs no network


@pytest.mark.parametrize("name", [name for name, spec in OURS.models.items() if spec.files])
def test_a_model_on_the_hub_can_be_fetched_and_checked(name: str) -> None:
    spec = OURS.models[name]
    covered = {stem for file in spec.files for stem in file.gives or spec.stems}
    assert covered == set(spec.stems)
    assert all(file.size and file.size > 10**6 for file in spec.files if file.sha256)
    known_songs = any(name in spec.sdr_metric for name in ("MUSDB18", "Multisong"))
    assert spec.sdr == {} or (known_songs and spec.sdr_source)


def test_a_table_is_read() -> None:
    text = TABLE + '[one.sdr]\nvocals = 6\nother = 5.5\nmetric = "whole songs"\nsource = "somewhere"\n'
    spec = registry.parse_registry(text, "models.toml").models["one"]
    assert (spec.name, spec.summary, spec.family, spec.license) == ("one", "A model", "unet", "MIT")
    assert spec.stems == ("vocals", "other")
    assert spec.path == Path(registry.__file__).parents[1] / "weights" / "one.safetensors"
    assert (spec.sdr, spec.sdr_metric, spec.sdr_source) == ({"vocals": 6.0, "other": 5.5}, "whole songs", "somewhere")
    assert registry.parse_registry(TABLE, "models.toml").models["one"].sdr == {}


def test_files_on_the_hub_are_read() -> None:
    spec = registry.parse_registry(REMOTE, "models.toml").models["two"]
    first, second = spec.files
    assert (spec.repo, spec.revision, spec.path, spec.size) == ("someone/two", COMMIT, None, 30)
    assert first == WeightFile("a.safetensors", 10, SHA256, ("vocals",))
    assert second == WeightFile("sub/b.safetensors", 20, SHA256)
    unpinned = registry.parse_registry(
        REMOTE.replace(f'size = 20, sha256 = "{SHA256}"', 'sha256 = "unpinned"'), "m.toml"
    )
    assert unpinned.models["two"].files[1] == WeightFile("sub/b.safetensors")
    assert unpinned.models["two"].size is None


def test_files_that_make_one_network_are_read() -> None:
    spec = registry.parse_registry(ONNX, "models.toml").models["two"]
    assert (spec.joint, spec.config) == (True, {"bins": 1536, "widths": [1, 2]})
    assert spec.only(["vocals"]).files == spec.files
    assert registry.parse_registry(REMOTE, "models.toml").models["two"].config == {}
    assert OURS.models["spleeter"].config == {}
    assert OURS.models["spleeter-16k"].config == {"bins": 1536}
    assert OURS.models["spleeter-16k"].files == OURS.models["spleeter"].files


@pytest.mark.parametrize("name", ["htdemucs", "mdx", "mini", "spleeter"])
def test_what_estimates_masks_is_known(name: str) -> None:
    spec = OURS.models[name]
    if all(part.family in ("unet", "spleeter") for part in spec.parts):
        registry.check_masks(spec)
        return
    with pytest.raises(UsageError, match=f"the model '{name}' does not estimate masks") as caught:
        registry.check_masks(spec)
    assert "--wiener" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one = 1", r"m.toml, \[one\]: not a table"),
        ("[one", "m.toml is not valid TOML"),
        ('default = "none"\n' + TABLE, "m.toml: default = 'none' is none of the models"),
        (TABLE.replace("[one]", '["a/b"]'), "the name may contain letters"),
        (TABLE + "sumary = 1", r"m.toml, \[one\]: unknown key 'sumary'"),
        (TABLE.replace('license = "MIT"', ""), r"m.toml, \[one\]: license is missing"),
        (TABLE.replace('"MIT"', "1"), r"m.toml, \[one\]: license must be text"),
        (TABLE.replace('["vocals", "other"]', "[]"), r"m.toml, \[one\]: stems must be a list of names"),
        (TABLE.replace('["vocals", "other"]', "[1]"), r"m.toml, \[one\]: stems must be a list of names"),
        (TABLE.replace('["vocals", "other"]', '["../x"]'), r"m.toml, \[one\]: stems must be a list of names"),
        (TABLE + "sdr = 1", r"m.toml, \[one\]: sdr: not a table"),
        (TABLE + '[one.sdr]\nvocals = 1\nmetric = ""', r"m.toml, \[one\]: sdr: source is missing"),
        (TABLE + '[one.sdr]\nmetric = ""\nsource = ""\nbass = 1', r"\[one\]: sdr: unknown key 'bass'"),
        (TABLE + '[one.sdr]\nvocals = true\nmetric = ""\nsource = ""', r"\[one\]: sdr: vocals must be a number"),
        (TABLE + '[one.sdr]\nvocals = 1\nmetric = ""\nsource = 1', r"\[one\]: sdr: source must be text"),
        (TABLE + 'repo = "a/b"', r"\[one\]: unknown key 'repo'"),
        (REMOTE.replace("someone/two", "two"), r"\[two\]: repo must be 'owner/name'"),
        (REMOTE.replace("someone/two", "../two"), r"\[two\]: repo must be 'owner/name'"),
        (REMOTE.replace(COMMIT, "main"), r"\[two\]: revision must be a commit"),
        (REMOTE.replace("size = 10, ", ""), r"\[two\]: files\[0\]: size is missing"),
        (REMOTE.replace("size = 10", "size = 0"), r"\[two\]: files\[0\]: size must be a whole number"),
        (REMOTE.replace("size = 10", "size = 1.5"), r"\[two\]: files\[0\]: size must be a whole number"),
        (REMOTE.replace(SHA256, "abc"), r"\[two\]: files\[0\]: sha256 must be 64 hexadecimal digits"),
        (REMOTE.replace("a.safetensors", "a.th"), r"\[two\]: files\[0\]: name must be a path"),
        (REMOTE.replace("a.safetensors", "../a.safetensors"), r"\[two\]: files\[0\]: name must be a path"),
        (REMOTE.replace('gives = ["vocals"]', 'gives = ["bass"]'), r"files\[0\]: gives names a stem"),
        (REMOTE.replace('gives = ["vocals"]', "url = 1"), r"files\[0\]: unknown key 'url'"),
        (REMOTE.replace("files = [", "joint = 1\nfiles = ["), r"\[two\]: joint must be true or false"),
        (
            REMOTE.replace("files = [", "config = {bins = 1}\nfiles = ["),
            r"config is for \.onnx files, and",
        ),
        (ONNX.replace("joint = true", ""), r"\[two\]: \.onnx files need family = \"spleeter\" and joint = true"),
        (ONNX.replace('"spleeter"', '"unet"'), r"\[two\]: \.onnx files need family = \"spleeter\""),
        (ONNX.replace("b.onnx", "b.safetensors"), r"\[two\]: \.onnx files need .* and no other files"),
        (ONNX.replace(', gives = ["other"]', ""), r"\[two\]: there must be one \.onnx file for each stem"),
        (ONNX.replace('["other"] }', '["vocals"] }'), r"\[two\]: there must be one \.onnx file for each stem"),
        (ONNX.replace("{ bins = 1536, widths = [1, 2] }", "1536"), r"\[two\]: config: not a table"),
        (ONNX.replace("1536", "1979-05-27"), r"\[two\]: config: bins must be a number, text, or a list"),
        (ONNX.replace("[1, 2]", "[[1], [2]]"), r"\[two\]: config: widths must be a number, text, or a list"),
    ],
)
def test_a_wrong_table_is_refused(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        registry.parse_registry(text, "m.toml")


def test_a_family_is_no_path(tmp_path: Path) -> None:
    for family in ("../cli/models", "a" * 5000, "_masking", ""):
        text = TABLE.replace('"unet"', f'"{family}"') if family else TABLE
        spec = registry.parse_registry(text, "m.toml").models["one"]
        assert registry.is_supported(spec) == (not family)
    with pytest.raises(UsageError, match="unknown model"):
        OURS.find("m" * 5000)
    with pytest.raises(ModelError, match="cannot read the model"):
        OURS.find("m" * 5000 + ".safetensors")


def test_own_files_add_to_ours(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f'default = "one"\n{TABLE}')
    (tmp_path / "b.toml").write_text(REMOTE)
    known = OURS.extended(tmp_path / "a.toml").extended(tmp_path / "b.toml")
    assert list(known.models) == [*OURS.models, "one", "two"]
    assert known.default == "one"
    (tmp_path / "b.toml").write_text(TABLE)
    with pytest.raises(ModelError, match=r"b\.toml, \[one\]: a model of that name exists already"):
        OURS.extended(tmp_path / "a.toml").extended(tmp_path / "b.toml")
    with pytest.raises(ModelError, match=r"cannot read the models in '.*c\.toml'"):
        registry.read_registry(tmp_path / "c.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff")
    with pytest.raises(ModelError, match="not UTF-8"):
        registry.read_registry(tmp_path / "b.toml")


def test_an_unknown_name_suggests_a_known_one() -> None:
    with pytest.raises(UsageError, match="unknown model 'minni'") as caught:
        OURS.find("minni")
    assert "did you mean mini?" in caught.value.hint
    with pytest.raises(UsageError, match="unknown model 'quux'") as caught:
        OURS.find("quux")
    assert "did you mean" not in caught.value.hint
    assert "known models: mini" in caught.value.hint


def test_a_repository_is_a_model() -> None:
    spec = OURS.find("hf://some.one/my_model")
    assert (spec.repo, spec.revision, spec.files, spec.stems) == ("some.one/my_model", "main", (), ())
    assert OURS.find("hf://a/b@v1.0").revision == "v1.0"


@pytest.mark.parametrize("address", [
        "hf://", "hf://one", "hf://a/b/c", "hf://a/b@", "hf://a/b@x y", "hf://../b", "hf://a/b--c", "hf://a/b.git",
        "hf://a/b@/tmp", "hf://a/b@../../x", "hf://a/b@x/../../y",
    ],
)  # fmt: skip
def test_what_is_no_repository_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="invalid Hub address"):
        OURS.find(address)


def test_a_checkpoint_is_a_model(tmp_path: Path, unet_model: Callable[..., Model]) -> None:
    path = tmp_path / "mine.safetensors"
    checkpoint.save(unet_model(stems=("a", "b")), path)
    spec = OURS.find(str(path))
    assert (spec.name, spec.family, spec.stems, spec.path) == (str(path), "unet", ("a", "b"), path)


@pytest.mark.parametrize("name", ["model.th", "checkpoint.ckpt", "pytorch_model.bin", "x.pt", "x.pkl"])
def test_a_pickle_is_never_opened(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / name, tmp_path / "missing" / name):
        if path.parent == tmp_path:
            path.write_bytes(b"\x80\x04.")
        with pytest.raises(ModelError, match="is a pickle, which can run any program when opened") as caught:
            OURS.find(str(path))
        assert "htdemucs" in caught.value.hint


def test_one_of_several_files_is_not_run_alone(tmp_path: Path) -> None:
    (tmp_path / "vocals.onnx").write_bytes(b"?")
    with pytest.raises(ModelError, match=r"vocals\.onnx' is one of several files") as caught:
        OURS.find(str(tmp_path / "vocals.onnx"))
    assert "spleeter" in caught.value.hint


def with_header(path: Path, header: object) -> Path:
    """A file that begins like a safetensors file."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "is not a valid"),
        ({}, "has no stemsplit header"),
        ({"__metadata__": {"stemsplit": "{"}}, "is not a valid"),
        ({"__metadata__": {"stemsplit": '{"family": "unet", "stems": ["a", "a"]}'}}, "invalid model header"),
        ({"__metadata__": {"stemsplit": "[]"}}, "is not a valid"),
        ({"__metadata__": {"stemsplit": "{}"}}, "invalid model header"),
        ({"__metadata__": {"stemsplit": '{"family": "unet", "stems": ["../x"]}'}}, "invalid model header"),
        ({"__metadata__": {"stemsplit": '{"family": "unet", "stems": [1]}'}}, "invalid model header"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, header: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        OURS.find(str(with_header(tmp_path / "x.safetensors", header)))


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\xff" * 100, struct.pack("<Q", 2**40), struct.pack("<Q", 4) + b"\xff\xfe"]
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.safetensors' is not a valid \.safetensors file"):
        OURS.find(str(path))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no model file"):
        OURS.find(str(tmp_path / "x.safetensors"))
    with pytest.raises(ModelError, match="is a folder, not a model") as caught:
        OURS.find(str(tmp_path))
    assert "the .safetensors file in it" in caught.value.hint
