"""Models that come as ONNX files, one for each stem: fetched, converted once, run, checked and removed by users."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from huggingface_hub import constants
from support.hub import REPO
from support.hub_server import COMMIT, Hub
from support.models import load_ensemble
from support.program import Run
from support.songs import STEMS
from support.spleeter import CONFIG, anonymous, model, network, of_stem

from stemsplit.errors import ModelError
from stemsplit.models import cache as store
from stemsplit.models import checkpoint, spleeter_onnx
from stemsplit.models.ensemble import Ensemble
from stemsplit.models.registry import ModelSpec, WeightFile
from stemsplit.networks.spleeter import Network
from stemsplit.separation.separator import Separator

GIVES = [(stem,) for stem in STEMS]
SETTINGS = asdict(CONFIG)
TESTS = str(Path(__file__).parents[1])
LENGTH = 12_000  # samples of a song, several windows of the small network


@pytest.fixture
def made() -> Network:
    return network(4)


@pytest.fixture
def paths(made: Network, tmp_path: Path, cache: Path) -> list[Path]:
    """A file for each stem, and an empty cache."""
    found = []
    for number, stem in enumerate(STEMS):
        found.append(tmp_path / f"{stem}.onnx")
        found[-1].write_bytes(model(of_stem(made, number)).SerializeToString())
    return found


def song(seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((2, LENGTH))).astype(np.float32)


def separate(ensemble: Ensemble) -> np.ndarray:
    return np.concatenate(list(Separator(ensemble).separate([song()], 44_100)), axis=-1)


def converted() -> list[Path]:
    return sorted((Path(os.environ["XDG_CACHE_HOME"]) / "stemsplit" / "converted").iterdir())


# The file


@pytest.mark.full
def test_what_is_made_of_them_is_the_network(paths: list[Path], made: Network) -> None:
    found = checkpoint.load(spleeter_onnx.convert(paths, GIVES, SETTINGS))
    assert found.header.stems == STEMS
    assert found.header.length == found.header.plan.length == 63 * 128 - 512
    mix = torch.from_numpy(song())[None]
    with torch.no_grad():
        assert torch.equal(found.network(mix), made(mix))


@pytest.mark.full
def test_it_is_made_once(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = spleeter_onnx.convert(paths, GIVES, SETTINGS)
    assert converted() == [first]
    before = first.stat()
    monkeypatch.setattr(spleeter_onnx, "read_weights", None)
    assert spleeter_onnx.convert(paths, GIVES, SETTINGS) == first
    assert first.stat() == before


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def forgotten(path: Path) -> None:
    store.forget(path)


@pytest.mark.full
@pytest.mark.parametrize("change", [damaged, cut_short, Path.unlink, forgotten])
def test_it_is_made_anew_when_it_is_not_as_it_was(paths: list[Path], change: Callable[[Path], None]) -> None:
    path = spleeter_onnx.convert(paths, GIVES, SETTINGS)
    content = path.read_bytes()
    change(path)
    assert not store.is_unchanged(path)
    assert spleeter_onnx.convert(paths, GIVES, SETTINGS) == path
    assert path.read_bytes() == content
    assert store.is_unchanged(path)


@pytest.mark.full
def test_other_files_stems_and_settings_are_another_one(paths: list[Path]) -> None:
    wider = {**SETTINGS, "bins": 192}
    one = spleeter_onnx.convert(paths, GIVES, SETTINGS)
    others = {
        spleeter_onnx.convert(paths, GIVES, wider),
        spleeter_onnx.convert(paths, GIVES[::-1], SETTINGS),
        spleeter_onnx.convert(paths[::-1], GIVES, SETTINGS),
    }
    assert len({one, *others}) == 4
    paths[0].write_bytes(model(of_stem(network(1, seed=5), 0)).SerializeToString())
    assert spleeter_onnx.convert(paths, GIVES, SETTINGS) not in {one, *others}


@pytest.mark.full
def test_half_precision_stays_half_as_large(paths: list[Path], made: Network) -> None:
    full = spleeter_onnx.convert(paths, GIVES, SETTINGS)
    for number, path in enumerate(paths):
        halved = {name: value.astype(np.float16) for name, value in of_stem(made, number).items()}
        path.write_bytes(model(halved, rename=anonymous).SerializeToString())
    half = spleeter_onnx.convert(paths, GIVES, SETTINGS)
    assert half.stat().st_size < 0.75 * full.stat().st_size  # of which some is names
    one, other = (separate(load_ensemble([path], [()])) for path in (full, half))
    assert 0 < np.abs(one - other).max() < 0.01 * np.abs(one).max()


@pytest.mark.full
def test_nothing_is_left_of_what_fails(paths: list[Path]) -> None:
    paths[2].write_bytes(b"?")
    with pytest.raises(ModelError, match="bass"):
        spleeter_onnx.convert(paths, GIVES, SETTINGS)
    assert not store.converted_folder().exists()
    with pytest.raises(ModelError, match="no setting"):
        spleeter_onnx.convert(paths, GIVES, {"bands": 3})
    with pytest.raises(ModelError, match="cannot read the model file"):
        spleeter_onnx.convert([*paths[:3], paths[3].with_name("none.onnx")], GIVES, SETTINGS)


@pytest.mark.full
def test_a_folder_that_cannot_be_written(paths: list[Path]) -> None:
    own = Path(os.environ["XDG_CACHE_HOME"])
    own.mkdir(exist_ok=True)
    (own / "stemsplit").write_text("in the way")
    with pytest.raises(ModelError, match="cannot write") as caught:
        spleeter_onnx.convert(paths, GIVES, SETTINGS)
    assert caught.value.hint


@pytest.mark.full
def test_what_was_killed_is_swept_away(paths: list[Path]) -> None:
    path = spleeter_onnx.convert(paths, GIVES, SETTINGS)
    old, young = (path.with_name(f"{path.name}.{number}") for number in (1, 2))
    for part in (old, young):
        part.write_bytes(b"part")
    os.utime(old, (0, 0))
    path.unlink()
    spleeter_onnx.convert(paths, GIVES, SETTINGS)
    assert converted() == [path, young]


@pytest.mark.full
def test_two_processes_at_once(paths: list[Path]) -> None:
    code = f"import sys, json; sys.path.insert(0, {TESTS!r}); from pathlib import Path; "
    code += "from support.models import load_ensemble; "
    code += "gives, config = json.loads(sys.argv[1]); "
    code += "load_ensemble([Path(p) for p in sys.argv[2:]], gives, config=config)"
    command = [sys.executable, "-c", code, json.dumps([GIVES, SETTINGS]), *map(str, paths)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    (path,) = converted()
    assert store.is_unchanged(path)


@pytest.mark.full
def test_later_starts_do_not_import_onnx(paths: list[Path]) -> None:
    spleeter_onnx.convert(paths, GIVES, SETTINGS)
    code = f"import sys; sys.path.insert(0, {TESTS!r}); from pathlib import Path; "
    code += "from support.models import load_ensemble; sys.modules['onnx'] = None; "
    code += f"load_ensemble([Path(p) for p in sys.argv[1:]], {GIVES!r}, config={SETTINGS!r})"
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True, timeout=120)


# An ensemble


@pytest.mark.full
def test_one_stem_is_what_it_is_with_all(paths: list[Path]) -> None:
    every = separate(load_ensemble(paths, GIVES, config=SETTINGS))
    some = load_ensemble(paths, GIVES, config=SETTINGS, stems=["bass", "vocals"])
    assert some.header.stems == ("bass", "vocals")
    asked: list[object] = []
    some.members[0].network.register_forward_hook(lambda module, given, result: asked.append(result.shape[1]))
    np.testing.assert_array_equal(separate(some), every[[2, 0]])
    assert set(asked) == {2}  # nothing is inverted in vain


@pytest.mark.full
def test_stems_add_up_to_the_song(paths: list[Path]) -> None:
    stems = separate(load_ensemble(paths, GIVES, config=SETTINGS))
    np.testing.assert_allclose(stems.sum(0), song(), atol=1e-5)


# The command line


@pytest.fixture
def own(paths: list[Path], server: Hub, here: Path) -> Path:
    """A models.toml with two models of the same files, on the Hub, which differ in their settings."""
    files = []
    for stem, path in zip(STEMS, paths, strict=True):
        sha256 = server.add(REPO, path.name, path.read_bytes())
        files.append(
            f'{{ name = "{path.name}", size = {path.stat().st_size}, sha256 = "{sha256}", gives = ["{stem}"] }}'
        )
    text = ""
    for name, bins in (("mine", CONFIG.bins), ("wide", 192)):
        config = ", ".join(f"{key} = {json.dumps(value)}" for key, value in {**SETTINGS, "bins": bins}.items())
        text += f'[{name}]\nsummary = "x"\nfamily = "spleeter"\nstems = {list(STEMS)}\nlicense = "MIT"\n'
        text += f'repo = "{REPO}"\nrevision = "{COMMIT}"\njoint = true\nconfig = {{ {config} }}\n'
        text += f"files = [{', '.join(files)}]\n"
    (here / "own.toml").write_text(text)
    soundfile.write(here / "song.wav", song().T, 44_100, "FLOAT")
    return here / "own.toml"


def arguments(own: Path, *more: str, name: str = "mine") -> list[str]:
    return ["song.wav", "--model", name, "--registry", str(own), "--device", "cpu", *more]


@pytest.mark.full
def test_the_life_of_such_a_model(
    run: Run, own: Path, here: Path, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run(*arguments(own, "--no-consistent"), model=False)
    assert (code, len(out.splitlines())) == (0, 4)
    assert "licence of its weights: MIT" in err
    first = (here / "separated/song/vocals.wav").read_bytes()
    (path,) = converted()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    assert run(*arguments(own, "--overwrite", "--two-stems", "vocals", "--no-consistent"), model=False).code == 0
    assert (here / "separated/song/vocals.wav").read_bytes() == first
    assert server.requests == []

    assert run(*arguments(own, "--overwrite", name="wide"), model=False).code == 0
    assert (here / "separated/song/vocals.wav").read_bytes() != first
    assert len(converted()) == 2

    mine = ("mine", "--registry", str(own))
    listed = json.loads(run("models", "list", "--registry", str(own), "--json", model=False).out)["models"]
    states = {entry["name"]: (entry["state"], len(entry["paths"])) for entry in listed}
    assert (states["mine"], states["wide"], states["spleeter"]) == (
        ("downloaded", 6),
        ("downloaded", 6),
        ("not downloaded", 0),
    )
    assert str(path) in run("models", "info", *mine, model=False).out
    assert str(path) in run("models", "path", *mine, model=False).out

    code, out, err = run("models", "verify", *mine, model=False)
    assert (code, len(out.splitlines()), err) == (0, 6, "")
    damaged(path)
    code, _, err = run("models", "verify", *mine, model=False)
    assert code == 1
    assert "the model 'mine' is damaged: '" in err
    assert run(*arguments(own, "--overwrite", "--no-consistent"), model=False).code == 0
    assert (here / "separated/song/vocals.wav").read_bytes() == first

    removed = json.loads(run("models", "remove", *mine, "--json", model=False).out)["removed"]
    assert len(removed) == 6
    assert all(entry["freed"] > 0 for entry in removed)
    assert converted() == []
    assert run(*arguments(own, "--overwrite"), model=False).code == 1


@pytest.mark.full
@pytest.mark.parametrize(
    ("content", "told"),
    [(b"?", "not a valid ONNX file|is missing|Conv nodes"), (None, "conv.weight has shape")],
)
def test_files_that_are_no_such_network(
    run: Run, own: Path, here: Path, server: Hub, content: bytes | None, told: str
) -> None:
    """What models.toml pins may be the wrong thing, too."""
    if content is None:
        text = own.read_text().replace("widths = [2, 3", "widths = [3, 3")
    else:
        sha256 = server.add(REPO, "bass.onnx", content * 2000)
        old = next(line for line in own.read_text().split("{ ") if line.startswith('name = "bass.onnx"'))
        text = own.read_text().replace(
            old, f'name = "bass.onnx", size = 2000, sha256 = "{sha256}", gives = ["bass"] }}, '
        )
    own.write_text(text)
    code, out, err = run(*arguments(own, "--no-consistent"), model=False)
    assert (code, out) == (1, "")
    assert "cannot use the ONNX file" in err
    assert not (here / "separated").exists()
    assert any(each in err for each in told.split("|"))


@pytest.mark.full
def test_a_download_that_is_damaged_on_its_way(run: Run, own: Path, server: Hub) -> None:
    server.faults.corrupt = 1
    assert run(*arguments(own), model=False).code == 0  # asked for once more
    run("models", "remove", "mine", "--registry", str(own), model=False)
    server.faults.corrupt = 2
    code, _, err = run(*arguments(own, "--overwrite"), model=False)
    assert code == 1
    assert "the Hub sent a wrong file for the model 'mine': 'vocals.onnx'" in err
    assert converted() == []


@pytest.mark.full
def test_wiener_filtering(run: Run, own: Path, here: Path) -> None:
    assert run(*arguments(own), model=False).code == 0
    plain = (here / "separated/song/vocals.wav").read_bytes()
    assert run(*arguments(own, "--overwrite", "--wiener", "1"), model=False).code == 0
    refined = (here / "separated/song/vocals.wav").read_bytes()
    assert refined != plain
    assert run(*arguments(own, "--overwrite", "--wiener", "2", "--stems", "vocals"), model=False).code == 0
    assert (here / "separated/song/vocals.wav").read_bytes() not in (plain, refined)


def test_wiener_filtering_of_a_file_of_ones_own(run: Run, here: Path) -> None:
    soundfile.write(here / "song.wav", song().T, 8_000, "FLOAT")
    assert run("song.wav", "--wiener", "1").code == 0


@pytest.mark.full
def test_wiener_filtering_of_what_is_no_mask(run: Run, own: Path, server: Hub) -> None:
    code, out, err = run("song.wav", "--model", "htdemucs", "--wiener", "1", model=False)
    assert (code, out, server.requests) == (2, "", [])
    assert err == (
        "stemsplit: the model 'htdemucs' does not estimate masks, which Wiener filtering needs\n"
        "hint: leave --wiener out, or choose mini, spleeter or spleeter-16k\n"
    )


@pytest.mark.full
def test_evaluation_has_the_settings(run: Run, own: Path, make_song: Callable[..., object], here: Path) -> None:
    make_song(here / "data" / "one", rate=44_100)
    told = [
        json.loads(
            run(
                "evaluate", "data", "--model", name, "--registry", str(own), "--no-references", "--json", model=False
            ).out
        )["sdr"][name]
        for name in ("mine", "wide")
    ]
    assert told[0] != told[1]


@pytest.mark.full
def test_a_model_is_found_by_what_is_downloaded(paths: list[Path]) -> None:
    files = tuple(WeightFile(path.name, sha256=store.hash_of(path)) for path in paths)
    spec = ModelSpec(name="x", summary="", license="", repo=REPO, revision=COMMIT, files=files)
    assert store.find_converted(spec) == []
    path = spleeter_onnx.convert(paths, GIVES, SETTINGS)
    assert store.find_converted(spec) == [(WeightFile(path.name), path)]
    assert store.remove_file(path) > 0
    assert store.remove_file(path) == 0
    assert store.find_converted(spec) == []
