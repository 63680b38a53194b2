"""Models on the command line: listed, fetched, checked, removed, published, and replaced by the bundled one."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from support.hub import REPO, write_registry
from support.hub_server import COMMIT, Hub
from support.program import Run, write_song

from stemsplit.models import checkpoint, registry
from stemsplit.models.checkpoint import Model
from stemsplit.models.registry import ModelSpec, WeightFile

OURS = registry.read_bundled().models


@pytest.fixture
def own(server: Hub, cache: Path, here: Path, unet_model: Callable[..., Model]) -> Path:
    """A models.toml with a model that runs, and is on the Hub; it is the default."""
    checkpoint.save(unet_model(stems=("vocals", "drums"), rate=8_000), here / "x.safetensors")
    content = (here / "x.safetensors").read_bytes()
    sha256 = server.add(REPO, "w.safetensors", content)
    spec = ModelSpec(name="mine", summary="", license="", stems=("vocals", "drums"), repo=REPO, revision=COMMIT)
    path = write_registry(here / "own.toml", replace(spec, files=(WeightFile("w.safetensors", len(content), sha256),)))
    path.write_text('default = "mine"\n' + path.read_text())
    return path


def test_the_list(run: Run, cache: Path) -> None:
    code, out, err = run("models", model=False)
    assert code == 0
    rows = out.splitlines()
    assert [row.split()[0] for row in rows] == ["model", *OURS]
    assert any(row.startswith("htdemucs *") for row in rows)
    assert err.startswith("* runs when no model is named")
    heads = rows[0].split()
    marks = [head.removeprefix("SDR") for head in heads if head.startswith("SDR")]
    scales = {spec.sdr_metric.replace("-HQ", "") for spec in OURS.values() if set(spec.sdr) == set(spec.stems)}
    assert len(marks) == len(scales)  # figures of different scales are never in one column
    assert [f"SDR{mark} in dB: " in err for mark in marks] == [True] * len(marks)
    cells = {row.split()[0]: row for row in rows}
    bss_eval = next(mark for mark in marks if f"SDR{mark} in dB: BSS Eval v4" in err)
    column = rows[0].index("SDR" + bss_eval)
    assert cells["htdemucs"][column:].split()[:2] == ["8.8", "(3.8)"]
    assert "for research only" in cells["htdemucs"]
    assert cells["mini"].index("4.3") < column
    assert run("models", "list", model=False).out == out
    listed = json.loads(run("models", "--json", model=False).out)
    assert json.loads(run("models", "list", "--json", model=False).out) == listed
    assert listed["default"] == "htdemucs"
    states = {model["name"]: (model["state"], model["runs"], model["size"]) for model in listed["models"]}
    assert states["mini"] == ("bundled", True, None)
    assert states["htdemucs_ft"][::2] == ("not downloaded", 4 * 84_025_440)


@pytest.mark.parametrize("name", OURS)
def test_info(run: Run, cache: Path, name: str) -> None:
    code, out, err = run("models", "info", name, model=False)
    assert (code, err) == (0, "")
    spec = OURS[name]
    assert spec.license in out
    assert all(stem in out for stem in spec.stems)
    assert all(part.license in out for part in spec.parts)
    assert all(file.name in out and file.sha256 in out for part in spec.parts for file in part.files)
    assert all(
        f"{part.repo}/tree/{part.revision}" in out if part.repo else str(part.path) in out for part in spec.parts
    )
    told = json.loads(run("models", "info", name, "--json", model=False).out)
    assert (told["license"], told["revision"]) == (spec.license, spec.revision or None)


@pytest.fixture
def ensemble(server: Hub, cache: Path, here: Path, unet_model: Callable[..., Model]) -> Path:
    """A models.toml with a model of two networks, one for each of its stems."""
    files = []
    for seed, stem in enumerate(("vocals", "drums")):
        checkpoint.save(unet_model(seed=seed, stems=("drums", "vocals"), rate=8_000), here / f"{stem}.safetensors")
        content = (here / f"{stem}.safetensors").read_bytes()
        sha256 = server.add(REPO, f"{stem}.safetensors", content)
        files.append(WeightFile(f"{stem}.safetensors", len(content), sha256, (stem,)))
    spec = ModelSpec(name="mine", summary="", license="", stems=("vocals", "drums"), repo=REPO, revision=COMMIT)
    return write_registry(here / "ensemble.toml", replace(spec, files=tuple(files)))


@pytest.mark.full
def test_what_other_stems_need_is_not_fetched(run: Run, ensemble: Path, server: Hub, here: Path) -> None:
    write_song(here / "song.wav")
    mine = ("song.wav", "--model", "mine", "--registry", str(ensemble))
    code, out, _ = run(*mine, "--stems", "drums", model=False)
    assert (code, out) == (0, "separated/song/drums.wav\n")
    assert {request.rsplit("/")[-1] for request in server.requests} == {"drums.safetensors"}
    alone = (here / "separated/song/drums.wav").read_bytes()
    code, out, _ = run(*mine, "--overwrite", "--no-consistent", model=False)
    assert (code, out.splitlines()) == (0, ["separated/song/vocals.wav", "separated/song/drums.wav"])
    assert (here / "separated/song/drums.wav").read_bytes() == alone


def test_a_stem_that_the_model_has_not(run: Run, ensemble: Path, server: Hub, here: Path) -> None:
    write_song(here / "song.wav")
    code, out, err = run(
        "song.wav", "--model", "mine", "--registry", str(ensemble), "--stems", "vocals,piano", model=False
    )
    assert (code, out, server.requests) == (2, "", [])
    assert err == "stemsplit: the model 'mine' has no stem 'piano'\nhint: its stems are vocals, drums\n"


@pytest.mark.full
def test_the_life_of_a_model(run: Run, own: Path, server: Hub, here: Path) -> None:
    mine = ("mine", "--registry", str(own))
    assert run("models", "path", *mine, model=False).code == 1
    code, out, err = run("models", "pull", *mine, model=False)
    assert code == 0
    assert err.splitlines()[2:] == ["licence of its weights: MIT, as its author says", "mine is downloaded"]
    path = Path(out.strip())
    assert path.read_bytes() == (here / "x.safetensors").read_bytes()
    assert run("models", "path", *mine, model=False).out == out

    server.requests.clear()
    assert run("models", "pull", *mine, model=False) == (0, out, "mine is downloaded\n")
    assert server.requests == []
    assert run("models", "verify", *mine, model=False) == (0, "mine: w.safetensors is good\n", "")
    assert json.loads(run("models", "path", *mine, "--json", model=False).out) == {"paths": [str(path)]}
    path.resolve().write_bytes(b"?")
    code, out, err = run("models", "verify", *mine, model=False)
    assert (code, out) == (1, "")
    assert "the model 'mine' is damaged: 'w.safetensors' has 1 bytes instead of" in err

    assert run("models", "info", *mine, "--json", model=False).out.count('"state": "damaged"') == 1
    assert "damaged" in run("models", "list", "--registry", str(own), model=False).out.splitlines()[-1]

    assert run("models", "remove", *mine, model=False) == (0, "", "mine: freed 0 MB\n")
    assert not path.exists()
    gone = "mine is not downloaded, so there is nothing to remove\n"
    assert run("models", "remove", *mine, model=False) == (0, "", gone)
    assert run("models", "verify", "--registry", str(own), model=False) == (0, "", "there are no downloads to verify\n")
    assert run("models", "verify", *mine, model=False).code == 1


@pytest.mark.full
def test_damage_of_the_same_size_is_known_once_it_was_found(run: Run, own: Path) -> None:
    mine = ("mine", "--registry", str(own))
    path = Path(run("models", "pull", *mine, model=False).out.strip())
    status = path.stat()
    content = path.read_bytes()
    path.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run("models", "verify", *mine, model=False).code == 1
    assert json.loads(run("models", "info", *mine, "--json", model=False).out)["state"] == "damaged"
    path.resolve().write_bytes(content)
    assert json.loads(run("models", "info", *mine, "--json", model=False).out)["state"] == "downloaded"


@pytest.mark.full
def test_a_repository_is_known_once_it_was_downloaded(run: Run, own: Path, here: Path) -> None:
    address = f"hf://{REPO}"
    assert "not known before it is downloaded" in run("models", "info", address, model=False).out
    path = Path(run("models", "pull", address, model=False).out.strip())
    told = json.loads(run("models", "info", address, "--json", model=False).out)
    assert (told["family"], told["stems"], told["state"]) == ("unet", ["vocals", "drums"], "downloaded")
    assert (told["size"], told["revision"], told["paths"]) == (path.stat().st_size, COMMIT, [str(path)])


@pytest.mark.full
def test_files_of_the_user_are_verified_by_loading_them(run: Run, here: Path, cache: Path) -> None:
    assert run("models", "verify", "./model.safetensors", model=False)[:2] == (0, "model.safetensors is good\n")
    assert run("models", "verify", "mini-unet", model=False)[:2] == (0, "mini-unet is good\n")
    whole = (here / "model.safetensors").read_bytes()
    (here / "cut.safetensors").write_bytes(whole[:-100])
    code, out, err = run("models", "verify", "./cut.safetensors", model=False)
    assert (code, out) == (1, "")
    assert err.startswith("stemsplit: 'cut.safetensors' is not a readable safetensors file: ")
    told = json.loads(run("models", "verify", "./cut.safetensors", "--json", model=False).out)
    assert [file["good"] for file in told["files"]] == [False]


def test_a_path_gives_its_stems_in_the_order_of_a_name(run: Run, here: Path, unet_model: Callable[..., Model]) -> None:
    checkpoint.save(
        unet_model(stems=("drums", "bass", "other", "vocals"), rate=8_000), here / "as-published.safetensors"
    )
    write_song(here / "song.wav")
    out = run("song.wav", "--model", "as-published.safetensors", model=False).out
    assert [Path(line).stem for line in out.splitlines()] == ["vocals", "drums", "bass", "other"]


def test_all_models_are_pulled_and_one_failure_stops_none(run: Run, own: Path) -> None:
    code, out, err = run("models", "pull", "--all", "--json", "--registry", str(own), model=False)
    assert code == 1  # the server has none of the real ones
    results = {result["model"]: result for result in json.loads(out)["models"]}
    assert list(results) == [*OURS, "mine"]
    assert results["htdemucs"]["error"] == "127.0.0.1 has no repository 'adefossez/HTDemucs', or it is private"
    assert len(results["mine"]["paths"]) == 1
    assert len(results["mini"]["paths"]) == 2
    assert err.count("stemsplit: ") == sum(not spec.is_local for spec in OURS.values())


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["pull"], 2, "stemsplit: no model named"),
        (["remove"], 2, "stemsplit: no model named"),
        (["pull", "mini", "--all"], 2, "stemsplit: --all does not go with names of models"),
        (["pull", "minni"], 2, "stemsplit: unknown model 'minni'\nhint: did you mean mini?"),
        (["info", "x.th"], 1, "stemsplit: 'x.th' is a pickle, which can run any program"),
        (["list", "--registry", "none.toml"], 1, "stemsplit: cannot read the models in 'none.toml'"),
        (["push", "none.safetensors", "me/new"], 1, "stemsplit: there is no model file 'none.safetensors'"),
    ],
)
def test_refusals(run: Run, cache: Path, arguments: list[str], code: int, told: str) -> None:
    outcome = run("models", *arguments, model=False)
    assert outcome.code == code
    assert outcome.err.startswith(told)


def test_the_bundled_model_is_not_removed(run: Run, cache: Path) -> None:
    code, _, err = run("models", "remove", "mini", model=False)
    assert (code, err) == (0, "mini is bundled, and stays\n")
    assert all(part.path and part.path.exists() for part in OURS["mini"].parts)


@pytest.mark.full
def test_a_model_is_fetched_when_it_is_used_first(run: Run, own: Path, here: Path) -> None:
    write_song(here / "song.wav")
    code, out, err = run("song.wav", "--registry", str(own), "--device", "cpu", model=False)
    assert code == 0
    assert out.splitlines() == ["separated/song/vocals.wav", "separated/song/drums.wav"]
    assert "licence of its weights: MIT, as its author says" in err
    again = run("song.wav", "--registry", str(own), "--device", "cpu", "--overwrite", "--json", model=False)
    assert "licence" not in again.err
    assert json.loads(again.out.splitlines()[-1])["model"] == "mine"
    assert json.loads(again.out.splitlines()[-1])["fallback"] is None


@pytest.mark.full
def test_a_repository_runs_by_its_address(run: Run, own: Path, here: Path) -> None:
    write_song(here / "song.wav")
    code, out, _ = run("song.wav", "--model", f"hf://{REPO}", "--device", "cpu", model=False)
    assert code == 0
    assert out.splitlines() == ["separated/song/vocals.wav", "separated/song/drums.wav"]
    # Which stems there will be is only known then, and those that exist are safe all the same.
    code, out, err = run("song.wav", "--model", f"hf://{REPO}", "--device", "cpu", model=False)
    assert (code, out) == (1, "")
    assert "exists" in err


def test_nothing_is_fetched_for_songs_that_cannot_be_separated(run: Run, own: Path, server: Hub) -> None:
    assert run("missing.wav", "--registry", str(own), model=False).code == 1
    assert server.requests == []


@pytest.mark.full
def test_the_bundled_model_takes_the_place_of_the_default(
    run: Run, own: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("a.wav", "b.wav"):
        write_song(here / name)
    use = ("--registry", str(own), "--device", "cpu")
    code, out, err = run("a.wav", "b.wav", *use, model=False)
    assert code == 0
    assert len(out.splitlines()) == 8
    assert err.startswith(
        "asking the Hub for mine ...\n"
        "warning: the model 'mine' is not downloaded, and HF_HUB_OFFLINE is set; "
        "using mini, which is bundled with stemsplit, instead\n"
        "hint: connect to the network once and run  stemsplit models pull mine\n"
    )
    assert err.endswith("separated with mini, not with mine\n")
    told = json.loads(run("a.wav", *use, "--overwrite", "--json", model=False).out.splitlines()[-1])
    assert told["model"] == "mini"
    assert told["fallback"]["instead_of"] == "mine"
    assert "HF_HUB_OFFLINE" in told["fallback"]["reason"]

    assert run("a.wav", *use, "--overwrite", "--model", "mine", model=False).code == 1  # never, when it was named


@pytest.mark.full
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"portal": "page"}, "what answers as 127.0.0.1 is not the Hub, so the model 'mine' cannot be downloaded"),
        ({"portal": "redirect"}, "what answers as 127.0.0.1 is not the Hub, so the model 'mine' cannot be downloaded"),
        ({"status": 401}, "127.0.0.1 denies access to 'someone/mine' (401)"),
        ({"status": 403}, "127.0.0.1 denies access to 'someone/mine' (403)"),
        ({"status": 403, "code": "GatedRepo"}, "access to 'someone/mine' must be requested on its page"),
        ({"status": 404}, "127.0.0.1: unexpected response (404) for 'w.safetensors' of 'someone/mine'"),
        ({"status": 404, "code": "RepoNotFound"}, "127.0.0.1 has no repository 'someone/mine', or it is private"),
        ({"status": 503}, "127.0.0.1: server error (503)"),
        ({"size": 25}, "'w.safetensors' of the model 'mine' differs on the Hub: 25 bytes instead of "),
        ({"corrupt": 2}, "the Hub sent a wrong file for the model 'mine': "),
    ],
    ids=str,
)
def test_the_default_is_replaced_whenever_it_is_not_to_be_had(
    run: Run, own: Path, server: Hub, here: Path, fault: dict[str, Any], told: str
) -> None:
    write_song(here / "song.wav")
    for name, value in fault.items():
        setattr(server.faults, name, value)
    code, out, err = run("song.wav", "--registry", str(own), "--device", "cpu", model=False)
    assert code == 0
    assert len(out.splitlines()) == 4
    asked, *_, warning, hint, song, summary = err.splitlines()
    assert asked == "asking the Hub for mine ..."
    assert warning.startswith(f"warning: {told}")
    assert warning.endswith("; using mini, which is bundled with stemsplit, instead")
    assert hint.startswith("hint: ")
    assert song.startswith("song.wav -> separated/song (")
    assert summary == "separated with mini, not with mine"
    named = run("song.wav", "--registry", str(own), "--model", "mine", "--overwrite", model=False)
    assert named.code == (1 if fault != {"corrupt": 2} else 0)
    assert run("song.wav", "--registry", str(own), "--stems", "drums", "--overwrite", model=False).code == 0


@pytest.mark.full
def test_what_the_bundled_model_does_not_give_is_not_replaced(run: Run, own: Path, server: Hub, here: Path) -> None:
    write_song(here / "song.wav")
    own.write_text(own.read_text().replace("'vocals'", "'guitar'"))
    server.faults.status = 503
    code, out, err = run("song.wav", "--registry", str(own), "--stems", "guitar", model=False)
    assert (code, out) == (1, "")
    assert err.splitlines()[-2].startswith("stemsplit: 127.0.0.1: server error (503)")


def test_a_network_that_this_version_does_not_have(run: Run, here: Path, server: Hub, cache: Path) -> None:
    write_song(here / "song.wav")
    (here / "own.toml").write_text(
        f'[new]\nsummary = "x"\nfamily = "newest"\nstems = ["a"]\nlicense = "MIT"\n'
        f'repo = "a/b"\nrevision = "{COMMIT}"\nfiles = [{{ name = "w.safetensors", sha256 = "unpinned" }}]\n'
    )
    code, _, err = run("song.wav", "--model", "new", "--registry", "own.toml", model=False)
    assert code == 1
    assert err.startswith(
        "stemsplit: this version of stemsplit cannot run the model 'new': unknown network family 'newest'"
    )
    assert server.requests == []


def test_models_of_the_configuration_folder(run: Run, own: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "config"))
    (here / "config" / "stemsplit").mkdir(parents=True)
    own.rename(here / "config" / "stemsplit" / "models.toml")
    listed = json.loads(run("models", "list", "--json", model=False).out)
    assert listed["default"] == "mine"
    assert listed["models"][-1]["name"] == "mine"


@pytest.mark.full
def test_publishing(run: Run, here: Path, cache: Path, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    code, out, err = run("models", "push", "model.safetensors", "me/new", "--license", "mit", model=False)
    assert (code, out) == (0, f"hf://me/new@{COMMIT}\n")
    assert err == f"run it anywhere:  stemsplit song.mp3 --model hf://me/new@{COMMIT}\n"
    write_song(here / "song.wav")
    assert run("song.wav", "--model", out.strip(), "--device", "cpu", model=False).code == 0
