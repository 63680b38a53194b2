"""Weights from the Hub, through its real client, from a small server on this machine."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from support.hub import CONTENT, REPO, point_to, write_registry
from support.hub_server import COMMIT, Hub

from stemsplit import files
from stemsplit.errors import ModelError, UnreachableError, UsageError
from stemsplit.models import cache as store
from stemsplit.models import checkpoint, hub, publish
from stemsplit.models.checkpoint import Model
from stemsplit.models.registry import ModelSpec, Registry, WeightFile


def left_in(cache: Path) -> list[str]:
    """Files of weights in the cache, whole and partial."""
    return sorted(path.name for path in cache.rglob("*") if path.suffix in (".safetensors", ".incomplete"))


def test_a_model_is_fetched_once(server: Hub, spec: ModelSpec) -> None:
    told: list[tuple[str, int | None]] = []
    progress: list[tuple[int, int | None]] = []
    found, paths = hub.obtain(
        spec,
        on_download=lambda spec, size: told.append((spec.name, size)),
        on_progress=lambda *state: progress.append(state),
    )
    assert found == spec
    assert [path.read_bytes() for path in paths] == [file.name.encode() + CONTENT for file in spec.files]
    assert told == [("mine", spec.size)]
    done = [state[0] for state in progress]
    assert {state[1] for state in progress} == {spec.size}  # both files are one task
    assert done == sorted(done)
    assert done[-1] == spec.size
    assert len(done) >= 8
    assert server.asked("GET") == 2

    server.requests.clear()
    assert hub.obtain(spec, on_download=lambda spec, size: told.append(("again", size)))[1] == paths
    assert server.requests == []
    assert len(told) == 1


def test_only_what_the_wanted_stems_need_is_fetched(spec: ModelSpec, cache: Path) -> None:
    _, paths = hub.obtain(spec.only(["drums"]))
    assert [path.name for path in paths] == left_in(cache) == ["b.safetensors"]


def test_what_was_checked_is_not_hashed_again_until_it_changes(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    sha256 = files.sha256_of

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return sha256(path)

    monkeypatch.setattr(store, "sha256_of", counted)
    _, paths = hub.obtain(spec)
    assert hashed == ["a.safetensors", "b.safetensors"]
    hub.obtain(spec)
    assert len(hashed) == 2
    os.utime(paths[0])
    hub.obtain(spec)
    assert hashed[2:] == ["a.safetensors"]
    store.check(spec.files[1], paths[1], again=True)
    assert hashed[3:] == ["b.safetensors"]


# Content that is not what it should be


def test_a_damaged_download_is_repeated(server: Hub, spec: ModelSpec) -> None:
    server.faults.corrupt = 1
    _, paths = hub.obtain(spec)
    assert paths[0].read_bytes() == b"a.safetensors" + CONTENT
    assert server.asked("GET") == 3


def test_a_wrong_file_is_refused_and_not_kept(server: Hub, spec: ModelSpec, cache: Path) -> None:
    server.faults.corrupt = 2
    with pytest.raises(ModelError, match=r"what the Hub sends for the model 'mine' is refused: .* SHA-256"):
        hub.obtain(spec)
    assert left_in(cache) == []
    hub.obtain(spec)  # and it does not stand in the way of the right one


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b[:-1] + b"?"], ids=["shorter", "other"])
def test_a_file_that_was_changed_in_the_cache_is_fetched_again(
    spec: ModelSpec, server: Hub, change: Callable[[bytes], bytes]
) -> None:
    _, paths = hub.obtain(spec)
    good = paths[0].read_bytes()
    paths[0].resolve().write_bytes(change(good))
    os.utime(paths[0], (1, 1))
    _, paths = hub.obtain(spec)
    assert paths[0].read_bytes() == good
    assert server.asked("GET") == 3


def test_another_size_is_refused_before_the_download(server: Hub, spec: ModelSpec) -> None:
    server.faults.size = 77
    with pytest.raises(ModelError, match=r"with 77 bytes instead of \d+"):
        hub.obtain(spec)
    assert server.asked("GET") == 0


def test_another_hash_is_refused_before_the_download(server: Hub, spec: ModelSpec) -> None:
    _, paths = hub.obtain(spec)
    server.requests.clear()
    wrong = replace(spec, files=(replace(spec.files[0], sha256="0" * 64),))
    with pytest.raises(ModelError, match=r"has 'a\.safetensors' of the model 'mine' with the SHA-256") as caught:
        hub.obtain(wrong)
    assert "models.toml" in caught.value.hint
    assert server.asked("GET") == 0
    assert paths[0].exists()  # it is the table that is wrong


def test_damage_that_left_no_trace_but_one_is_not_forgotten(spec: ModelSpec, server: Hub) -> None:
    _, paths = hub.obtain(spec)
    good, status = paths[0].read_bytes(), paths[0].stat()
    paths[0].resolve().write_bytes(good[:-1] + b"?")
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(store.DamagedError):
        store.check(spec.files[0], paths[0], again=True)
    assert hub.obtain(spec)[1][0].read_bytes() == good


def test_without_any_record_a_file_is_held_to_its_name(spec: ModelSpec) -> None:
    unpinned = replace(spec, files=(WeightFile("a.safetensors"),))
    _, (path,) = hub.obtain(unpinned)
    store.forget(path)
    path.resolve().write_bytes(b"something else")
    with pytest.raises(store.DamagedError):
        store.check(unpinned.files[0], path)


def test_a_small_file_has_no_hash_on_the_hub(server: Hub, spec: ModelSpec) -> None:
    server.add(REPO, "small.safetensors", b"tiny")
    _, (path,) = hub.obtain(replace(spec, files=(WeightFile("small.safetensors"),)))
    assert path.read_bytes() == b"tiny"


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../x.safetensors", "a/../../x.safetensors", "C:/x.safetensors"])
def test_nothing_outside_the_cache_is_touched(spec: ModelSpec, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim.safetensors"
    victim.write_bytes(b"mine")
    for bad in (
        replace(spec, files=(WeightFile(str(victim)), WeightFile(name))),
        replace(spec, revision=str(tmp_path)),
    ):
        with pytest.raises(ModelError, match="leads out of the cache"):
            hub.obtain(bad)
    with pytest.raises(ModelError, match="is not in the cache of the Hub"):
        store.discard(victim)
    assert victim.read_bytes() == b"mine"


def test_the_first_download_of_an_unpinned_file_is_remembered(server: Hub, spec: ModelSpec) -> None:
    unpinned = replace(spec, files=(WeightFile("a.safetensors"),))
    _, (path,) = hub.obtain(unpinned)
    assert store.discard(path) == len(path.name) + len(CONTENT)
    server.add(REPO, "a.safetensors", CONTENT)
    with pytest.raises(ModelError, match="SHA-256"):
        hub.obtain(unpinned)
    store.forget(path)
    assert hub.obtain(unpinned)[1][0].read_bytes() == CONTENT


def test_the_hubs_own_hash_is_held_against_an_unpinned_file(server: Hub, spec: ModelSpec) -> None:
    server.faults.corrupt = 2
    with pytest.raises(ModelError, match="SHA-256"):
        hub.obtain(replace(spec, files=(WeightFile("a.safetensors"),)))


# A network, or a Hub, that is not as it should be


@pytest.mark.parametrize(
    ("status", "code", "error", "told"),
    [
        (401, "RepoNotFound", ModelError, "has no repository 'someone/mine', or not for you"),
        (404, "RepoNotFound", ModelError, "has no repository 'someone/mine', or not for you"),
        (401, "", ModelError, r"refuses access to 'someone/mine' \(401\)"),
        (403, "GatedRepo", ModelError, "wants to be asked before"),
        (403, "", ModelError, r"refuses access to 'someone/mine' \(403\)"),
        (404, "RevisionNotFound", ModelError, f"has no revision '{COMMIT}'"),
        (404, "EntryNotFound", ModelError, "has no file 'a.safetensors'"),
        (404, "", ModelError, "answers 404"),
        (410, "", ModelError, "answers 410"),
        (429, "", UnreachableError, r"wants no more requests for now \(429\)"),
        (500, "", UnreachableError, r"has a problem of its own \(500\)"),
        (503, "", UnreachableError, r"has a problem of its own \(503\)"),
    ],
)
def test_answers_of_the_hub(
    server: Hub, spec: ModelSpec, cache: Path, status: int, code: str, error: type[ModelError], told: str
) -> None:
    server.faults.status, server.faults.code = status, code
    with pytest.raises(ModelError, match=told) as caught:
        hub.obtain(spec)
    assert type(caught.value) is error
    assert caught.value.hint
    assert server.asked("HEAD") == 1  # no retries behind the user's back
    assert left_in(cache) == []


def test_no_network(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        point_to(f"http://127.0.0.1:{unused.getsockname()[1]}", monkeypatch)
        with pytest.raises(
            UnreachableError, match=r"cannot reach 127\.0\.0\.1 to get the model 'mine': Connection refused"
        ):
            hub.obtain(spec)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a system that ignores connections beyond the backlog")
def test_a_network_that_swallows_everything(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stemsplit.models.hub_client._REACH_SECONDS", 0.3)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        point_to(f"http://127.0.0.1:{deaf.getsockname()[1]}", monkeypatch)
        with pytest.raises(UnreachableError, match=r"no answer within 0\.3 s|timed out"):
            hub.obtain(spec)
        for client in waiting:
            client.close()


def test_the_way_through_a_proxy_counts(spec: ModelSpec, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"cannot reach 127\.0\.0\.1"):
        hub.obtain(spec)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    hub.obtain(spec)


def test_offline(spec: ModelSpec, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableError, match="'mine' is not on this machine, and HF_HUB_OFFLINE is set"):
        hub.obtain(spec)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.obtain(spec)
    server.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.obtain(spec)
    assert server.requests == []


def test_a_slow_hub(spec: ModelSpec, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    server.faults.delay_seconds = 1.0
    with pytest.raises(UnreachableError, match="broke off"):
        hub.obtain(spec)


def test_a_download_that_never_ends_is_given_up(
    spec: ModelSpec, server: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(hub, "SLOWEST", 1e12)
    server.faults.drip = True
    with pytest.raises(UnreachableError, match="broke off: it took more than"):
        hub.obtain(spec)
    assert left_in(cache) == []


def test_a_connection_that_is_cut_goes_on_where_it_was(spec: ModelSpec, server: Hub) -> None:
    server.faults.cuts, server.faults.cut_after = 1, 600_000
    _, paths = hub.obtain(spec)
    assert paths[0].read_bytes() == b"a.safetensors" + CONTENT
    (wanted,) = server.ranges
    assert 0 < int(wanted.removeprefix("bytes=").removesuffix("-")) <= 600_000


def test_a_hub_that_fails_between_two_tries(spec: ModelSpec, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.faults.corrupt = 1
    check = store.check

    def fails_after(*arguments: Any) -> None:
        server.faults.status = 503
        check(*arguments)

    monkeypatch.setattr(store, "check", fails_after)
    with pytest.raises(UnreachableError, match=r"has a problem of its own \(503\)|broke off"):
        hub.obtain(replace(spec, files=spec.files[:1]))


def test_a_hub_that_names_no_commit(server: Hub, spec: ModelSpec, tmp_path: Path) -> None:
    server.add(REPO, "model.safetensors", CONTENT)
    for odd in ("", str(tmp_path)):
        server.faults.commit = odd
        with pytest.raises(ModelError, match=r"is no Hub: it names no commit|broke off"):
            hub.obtain(Registry({}, "").find(f"hf://{REPO}"))


@pytest.mark.parametrize("endpoint", ["huggingface.co", "http://host:abc", "ftp://host", "http://"])
def test_an_endpoint_that_is_none(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    point_to(endpoint, monkeypatch)
    with pytest.raises(ModelError, match="HF_ENDPOINT is no address"):
        hub.obtain(spec)


@pytest.mark.parametrize("proxy", ["http://proxy:abc", "foo://proxy"])
def test_a_proxy_that_is_none(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ModelError, match="the proxy of the environment is no address"):
        hub.obtain(spec)


def test_a_listing_that_never_comes(server: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add(REPO, "odd.safetensors", CONTENT)
    monkeypatch.setattr(hub, "_PATIENCE_SECONDS", 0.5)
    server.faults.delay_seconds = 0.4
    with pytest.raises(UnreachableError, match="it took more than"):
        hub.obtain(Registry({}, "").find(f"hf://{REPO}"))


def test_a_body_that_ends_early(spec: ModelSpec, server: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client's pauses between its tries
    server.faults.truncate = True
    with pytest.raises(UnreachableError, match=r"the transfer of 'a\.safetensors' of 'mine' broke off"):
        hub.obtain(spec)
    assert left_in(cache) == []


# A disk that is not as it should be


def test_too_little_room(spec: ModelSpec, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(ModelError, match=r"needs 2 MB, and .* has 1 MB left"):
        hub.obtain(spec)
    assert server.asked("GET") == 0


def test_a_disk_that_fills_up(spec: ModelSpec, cache: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(ModelError, match="there is no room left for the model 'mine'"):
            hub.obtain(spec)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left_in(cache) == []


def test_a_cache_that_cannot_be_written(spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(ModelError, match=r"cannot keep the model 'mine': .*Not a directory"):
        hub.obtain(spec)


def test_a_shared_cache_that_is_only_read(spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the Hub's cache nor the user's own folder can be written to: what is there is used all the same."""
    _, paths = hub.obtain(spec)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for folder in (tmp_path / "hub").rglob("*"):
        if folder.is_dir():
            folder.chmod(0o555)
    try:
        assert hub.obtain(spec)[1] == paths
    finally:
        for folder in (tmp_path / "hub").rglob("*"):
            if folder.is_dir():
                folder.chmod(0o755)


def test_remains_of_killed_downloads_are_swept_away(spec: ModelSpec, cache: Path) -> None:
    blobs = cache / "models--someone--mine" / "blobs"
    blobs.mkdir(parents=True)
    for name, age in (("old.incomplete", 7200), ("young.incomplete", 60)):
        (blobs / name).write_bytes(b"half")
        os.utime(blobs / name, (time.time() - age, time.time() - age))
    hub.obtain(spec)
    assert left_in(cache) == ["a.safetensors", "b.safetensors", "young.incomplete"]


def test_content_that_others_use_is_not_deleted(server: Hub, spec: ModelSpec, cache: Path) -> None:
    server.add(REPO, "copy.safetensors", server.files[REPO]["a.safetensors"])
    both = replace(spec, files=(spec.files[0], replace(spec.files[0], name="copy.safetensors")))
    _, (first, second) = hub.obtain(both)
    assert store.discard(first) == 0
    assert second.exists()
    assert store.discard(second) == spec.files[0].size
    assert store.discard(second) == 0


# Repositories that the user names


def test_a_repository_by_its_name(
    server: Hub, cache: Path, tmp_path: Path, unet_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(unet_model(stems=("a", "b")), tmp_path / "x.safetensors")
    server.add(REPO, "model.safetensors", (tmp_path / "x.safetensors").read_bytes())
    named = Registry({}, "").find("hf://someone/mine")
    found, paths = hub.obtain(named)
    assert (found.name, found.family, found.stems) == ("hf://someone/mine", "unet", ("a", "b"))
    assert (found.branch, found.revision) == ("main", COMMIT)
    checkpoint.load(paths[0])
    assert hub.obtain(Registry({}, "").find(f"hf://someone/mine@{COMMIT}"))[1] == paths
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # then what is here has to do
    assert hub.obtain(named)[1] == paths


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["odd.safetensors", "config.json"], ""),
        (["one.safetensors", "two.safetensors"], "has 2 .safetensors files"),
        (["weights.th"], "has its weights in 'weights.th': a pickle can run any program"),
        (["pytorch_model.bin"], "a pickle can run any program"),
        (["README.md"], "has no .safetensors file"),
    ],
)
def test_what_a_repository_has(
    server: Hub, cache: Path, tmp_path: Path, unet_model: Callable[..., Model], names: list[str], told: str
) -> None:
    checkpoint.save(unet_model(), tmp_path / "x.safetensors")
    for name in names:
        server.add(REPO, name, (tmp_path / "x.safetensors").read_bytes())
    named = Registry({}, "").find("hf://someone/mine")
    if told:
        with pytest.raises(ModelError, match=told):
            hub.obtain(named)
        assert left_in(cache) == []
    else:
        paths = hub.obtain(named)[1]
        assert paths[0].name == names[0]
        server.requests.clear()
        assert hub.obtain(Registry({}, "").find(f"hf://someone/mine@{COMMIT}"))[1] == paths
        assert server.requests == []


def test_a_model_is_published_and_runs_from_there(
    server: Hub, cache: Path, tmp_path: Path, unet_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trained.safetensors"
    checkpoint.save(unet_model(stems=("a", "b")), path)
    with pytest.raises(ModelError, match=r"does not know who you are|refuses access") as caught:
        publish.push(path, "me/new")
    assert "HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert publish.push(path, "me/new", license="mit") == COMMIT
    card = server.files["me/new"]["README.md"].decode()
    assert "license: mit" in card
    assert "--model hf://me/new" in card
    assert server.tokens[-1] == "Bearer hf_secret"
    _, (fetched,) = hub.obtain(Registry({}, "").find("hf://me/new"))
    assert fetched.read_bytes() == path.read_bytes()
    assert any(request.startswith("PUT ") for request in server.requests)  # as a large file
    server.files["me/new"]["README.md"] = b"written by hand"
    publish.push(path, "me/new")
    assert server.files["me/new"]["README.md"] == b"written by hand"


def test_what_is_private_stays_so(
    server: Hub, cache: Path, tmp_path: Path, unet_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    path = tmp_path / "trained.safetensors"
    checkpoint.save(unet_model(), path)
    publish.push(path, "me/secret", private=True)
    assert server.private == {"me/secret"}
    publish.push(path, "me/public")
    before = dict(server.files["me/public"])
    with pytest.raises(ModelError, match="'me/public' exists, and is public"):
        publish.push(path, "me/public", private=True)
    assert server.files["me/public"] == before


def test_a_card_that_the_hub_does_not_like(
    server: Hub, cache: Path, tmp_path: Path, unet_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    path = tmp_path / "trained.safetensors"
    checkpoint.save(unet_model(), path)
    with pytest.raises(UsageError, match="'MIT License' is not the name of a licence"):
        publish.push(path, "me/new", license="MIT License")
    assert server.requests == []
    server.faults.metadata = 400
    with pytest.raises(ModelError, match=r"the Hub's client refuses 'me/new'|answers 400"):
        publish.push(path, "me/new", license="unheard-of")


def test_only_models_are_published(tmp_path: Path, cache: Path, server: Hub) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError):
        publish.push(tmp_path / "x.safetensors", "me/new")
    with pytest.raises(UsageError, match="is not the name of a repository"):
        publish.push(tmp_path / "x.safetensors", "new")
    assert server.requests == []


# Programs of their own


def program(
    server: Hub, folder: Path, *arguments: str, settings: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    """A `stemsplit` with caches of its own below `folder`."""
    homes = {"HF_HOME": folder / "hf", "XDG_CACHE_HOME": folder / "cache", "XDG_CONFIG_HOME": folder / "config"}
    env = {
        **os.environ,
        **{name: str(path) for name, path in homes.items()},
        "HF_ENDPOINT": server.endpoint,
        **(settings or {}),
    }
    command = [sys.executable, "-m", "stemsplit", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, cwd=folder)


@pytest.mark.full
def test_two_programs_at_once_download_once(server: Hub, spec: ModelSpec, tmp_path: Path) -> None:
    own = str(write_registry(tmp_path / "own.toml", spec))
    server.faults.delay_seconds = 0.3
    both = [program(server, tmp_path, "models", "pull", "mine", "--registry", own) for _ in range(2)]
    ended = [(*running.communicate(timeout=60), running.returncode) for running in both]
    assert [code for *_, code in ended] == [0, 0], ended
    assert ended[0][0] == ended[1][0]
    assert server.asked("GET") == 2
    assert left_in(tmp_path / "hf") == ["a.safetensors", "b.safetensors"]


@pytest.mark.full
def test_ctrl_c_leaves_nothing(server: Hub, spec: ModelSpec, tmp_path: Path) -> None:
    own = str(write_registry(tmp_path / "own.toml", spec))
    server.faults.drip = True
    running = program(server, tmp_path, "models", "pull", "mine", "--registry", own)
    deadline = time.monotonic() + 60
    while not server.asked("GET") and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "licence of its weights: MIT, as its author says" in err
    assert err.endswith("stemsplit: stopped by SIGINT\n")
    assert left_in(tmp_path / "hf") == []


@pytest.mark.full
def test_the_settings_of_the_client_are_heeded(server: Hub, spec: ModelSpec, tmp_path: Path) -> None:
    own = str(write_registry(tmp_path / "own.toml", spec))
    pull = ("models", "pull", "mine", "--registry", own, "--json")

    def ended(**env: str) -> tuple[int, str, str]:
        running = program(server, tmp_path, *pull, settings={"HF_HUB_CACHE": str(tmp_path / "else"), **env})
        out, err = running.communicate(timeout=60)
        return running.returncode, out, err

    code, _, err = ended(HF_HUB_OFFLINE="1")
    assert code == 1
    assert "HF_HUB_OFFLINE is set" in err
    code, out, _ = ended(HF_TOKEN="hf_mine")
    assert code == 0
    assert f"{tmp_path / 'else'}/models--someone--mine" in out
    assert "Bearer hf_mine" in server.tokens
    server.requests.clear()
    assert ended()[:2] == (0, out)
    assert ended(HF_HUB_OFFLINE="1")[:2] == (0, out)
    assert server.requests == []


def test_obtaining_in_another_thread(spec: ModelSpec) -> None:
    """Where there are no signals to keep the time with."""
    gained: list[Any] = []
    thread = threading.Thread(target=lambda: gained.append(hub.obtain(spec)))
    thread.start()
    thread.join(60)
    with suppress(IndexError):
        assert len(gained[0][1]) == 2
    assert gained
