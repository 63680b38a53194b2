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
from support.demucs_files import publish as publish_demucs
from support.hub import CONTENT, REPO, point_to, write_registry
from support.hub_server import COMMIT, Hub

from stemsplit import files
from stemsplit.errors import ModelError, UnreachableError, UsageError
from stemsplit.models import cache as store
from stemsplit.models import checkpoint, hub, publish
from stemsplit.models.checkpoint import Model
from stemsplit.models.registry import ModelSpec, Registry, Step, WeightFile, read_bundled


def left_in(cache: Path) -> list[str]:
    """Files of weights in the cache, whole and partial."""
    return sorted(path.name for path in cache.rglob("*") if path.suffix in (".safetensors", ".incomplete"))


def test_a_model_is_fetched_once(server: Hub, spec: ModelSpec) -> None:
    told: list[tuple[str, int | None]] = []
    progress: list[tuple[int, int | None]] = []
    local = hub.download(
        spec,
        on_download=lambda spec, size: told.append((spec.name, size)),
        on_progress=lambda *state: progress.append(state),
    )
    assert local.spec == spec
    paths = local.paths
    assert [path.read_bytes() for path in paths] == [file.name.encode() + CONTENT for file in spec.files]
    assert told == [("mine", spec.size)]
    done = [state[0] for state in progress]
    assert {state[1] for state in progress} == {spec.size}  # both files are one task
    assert done == sorted(done)
    assert done[-1] == spec.size
    assert len(done) >= 8
    assert server.asked("GET") == 2

    server.requests.clear()
    assert hub.download(spec, on_download=lambda spec, size: told.append(("again", size))).paths == paths
    assert server.requests == []
    assert len(told) == 1


def test_only_what_the_wanted_stems_need_is_fetched(spec: ModelSpec, cache: Path) -> None:
    paths = hub.download(spec.only(["drums"])).paths
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
    paths = hub.download(spec).paths
    assert hashed == ["a.safetensors", "b.safetensors"]
    hub.download(spec)
    assert len(hashed) == 2
    os.utime(paths[0])
    hub.download(spec)
    assert hashed[2:] == ["a.safetensors"]
    store.check_file(spec.files[1], paths[1], again=True)
    assert hashed[3:] == ["b.safetensors"]


# Content that is not what it should be


def test_a_damaged_download_is_repeated(server: Hub, spec: ModelSpec) -> None:
    server.faults.corrupt = 1
    paths = hub.download(spec).paths
    assert paths[0].read_bytes() == b"a.safetensors" + CONTENT
    assert server.asked("GET") == 3


def test_a_wrong_file_is_refused_and_not_kept(server: Hub, spec: ModelSpec, cache: Path) -> None:
    server.faults.corrupt = 2
    with pytest.raises(ModelError, match=r"the Hub sent a wrong file for the model 'mine': .* SHA-256"):
        hub.download(spec)
    assert left_in(cache) == []
    hub.download(spec)  # and it does not stand in the way of the right one


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b[:-1] + b"?"], ids=["shorter", "other"])
def test_a_file_that_was_changed_in_the_cache_is_fetched_again(
    spec: ModelSpec, server: Hub, change: Callable[[bytes], bytes]
) -> None:
    paths = hub.download(spec).paths
    good = paths[0].read_bytes()
    paths[0].resolve().write_bytes(change(good))
    os.utime(paths[0], (1, 1))
    paths = hub.download(spec).paths
    assert paths[0].read_bytes() == good
    assert server.asked("GET") == 3


def test_another_size_is_refused_before_the_download(server: Hub, spec: ModelSpec) -> None:
    server.faults.size = 77
    with pytest.raises(ModelError, match=r"differs on the Hub: 77 bytes instead of \d+"):
        hub.download(spec)
    assert server.asked("GET") == 0


def test_another_hash_is_refused_before_the_download(server: Hub, spec: ModelSpec) -> None:
    paths = hub.download(spec).paths
    server.requests.clear()
    wrong = replace(spec, files=(replace(spec.files[0], sha256="0" * 64),))
    with pytest.raises(ModelError, match=r"'a\.safetensors' of the model 'mine' differs on the Hub: SHA-256") as caught:
        hub.download(wrong)
    assert "models.toml" in caught.value.hint
    assert server.asked("GET") == 0
    assert paths[0].exists()  # it is the table that is wrong


def test_damage_that_left_no_trace_but_one_is_not_forgotten(spec: ModelSpec, server: Hub) -> None:
    paths = hub.download(spec).paths
    good, status = paths[0].read_bytes(), paths[0].stat()
    paths[0].resolve().write_bytes(good[:-1] + b"?")
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(store.DamagedError):
        store.check_file(spec.files[0], paths[0], again=True)
    assert hub.download(spec).paths[0].read_bytes() == good


def test_without_any_record_a_file_is_held_to_its_name(spec: ModelSpec) -> None:
    unpinned = replace(spec, files=(WeightFile("a.safetensors"),))
    (path,) = hub.download(unpinned).paths
    store.forget(path)
    path.resolve().write_bytes(b"something else")
    with pytest.raises(store.DamagedError):
        store.check_file(unpinned.files[0], path)


def test_a_small_file_has_no_hash_on_the_hub(server: Hub, spec: ModelSpec) -> None:
    server.add(REPO, "small.safetensors", b"tiny")
    (path,) = hub.download(replace(spec, files=(WeightFile("small.safetensors"),))).paths
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
            hub.download(bad)
    with pytest.raises(ModelError, match="is not in the cache of the Hub"):
        store.remove_file(victim)
    assert victim.read_bytes() == b"mine"


def test_the_first_download_of_an_unpinned_file_is_remembered(server: Hub, spec: ModelSpec) -> None:
    unpinned = replace(spec, files=(WeightFile("a.safetensors"),))
    (path,) = hub.download(unpinned).paths
    assert store.remove_file(path) == len(path.name) + len(CONTENT)
    server.add(REPO, "a.safetensors", CONTENT)
    with pytest.raises(ModelError, match="SHA-256"):
        hub.download(unpinned)
    store.forget(path)
    assert hub.download(unpinned).paths[0].read_bytes() == CONTENT


def test_the_hubs_own_hash_is_held_against_an_unpinned_file(server: Hub, spec: ModelSpec) -> None:
    server.faults.corrupt = 2
    with pytest.raises(ModelError, match="SHA-256"):
        hub.download(replace(spec, files=(WeightFile("a.safetensors"),)))


# A network, or a Hub, that is not as it should be


@pytest.mark.parametrize(
    ("status", "code", "error", "told"),
    [
        (401, "RepoNotFound", ModelError, "has no repository 'someone/mine', or it is private"),
        (404, "RepoNotFound", ModelError, "has no repository 'someone/mine', or it is private"),
        (401, "", ModelError, r"denies access to 'someone/mine' \(401\)"),
        (403, "GatedRepo", ModelError, "must be requested on its page"),
        (403, "", ModelError, r"denies access to 'someone/mine' \(403\)"),
        (404, "RevisionNotFound", ModelError, f"has no revision '{COMMIT}'"),
        (404, "EntryNotFound", ModelError, "has no file 'a.safetensors'"),
        (404, "", ModelError, r"unexpected response \(404\)"),
        (410, "", ModelError, r"unexpected response \(410\)"),
        (429, "", UnreachableError, r"too many requests \(429\)"),
        (500, "", UnreachableError, r"server error \(500\)"),
        (503, "", UnreachableError, r"server error \(503\)"),
    ],
)
def test_answers_of_the_hub(
    server: Hub, spec: ModelSpec, cache: Path, status: int, code: str, error: type[ModelError], told: str
) -> None:
    server.faults.status, server.faults.code = status, code
    with pytest.raises(ModelError, match=told) as caught:
        hub.download(spec)
    assert type(caught.value) is error
    assert caught.value.hint
    assert caught.value.model == "mine"
    assert server.asked("HEAD") == 1  # no retries behind the user's back
    assert left_in(cache) == []


@pytest.mark.parametrize("portal", ["page", "redirect", "json"])
@pytest.mark.parametrize("named", [False, True])
def test_a_network_that_wants_a_login(server: Hub, spec: ModelSpec, cache: Path, portal: str, named: bool) -> None:
    server.faults.portal = portal
    with pytest.raises(UnreachableError, match=r"what answers as 127\.0\.0\.1 is not the Hub") as caught:
        hub.download(Registry({}, "").find(f"hf://{REPO}") if named else spec)
    assert "does the network ask for a login?" in caught.value.hint
    assert left_in(cache) == []


def test_damage_is_not_called_absence(spec: ModelSpec, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = hub.download(spec).paths
    paths[0].resolve().write_bytes(b"?")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told = r"the model 'mine' is damaged: 'a\.safetensors' has 1 bytes instead of \d+, and HF_HUB_OFFLINE is set"
    with pytest.raises(UnreachableError, match=told):
        hub.download(spec)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(UnreachableError, match=r"is damaged: .* bytes instead of \d+; cannot reach 127\.0\.0\.1"):
        hub.download(spec)


def test_what_is_asked_and_fetched_of_a_chain_is_told_once(spec: ModelSpec, server: Hub) -> None:
    first, second = (replace(spec, name=file.name, files=(file,), stems=file.gives) for file in spec.files)
    chain = ModelSpec(
        name="chain",
        summary="",
        license="MIT",
        stems=("vocals", "kick"),
        steps=(Step(first), Step(second, "vocals", {"drums": "kick"})),
    )
    told: list[object] = []
    progress: list[tuple[int, int | None]] = []
    local = hub.download(
        replace(chain, stems=("kick",)),
        on_ask=lambda spec: told.append(spec.name),
        on_download=lambda spec, size: told.append((spec.name, size)),
        on_progress=lambda *state: progress.append(state),
    )
    assert len(local.paths) == len(local.components) == 2
    assert told == ["chain", ("chain", spec.size)]
    assert {total for _, total in progress} == {spec.size}
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert progress[-1][0] == spec.size
    hub.download(chain, on_ask=lambda spec: told.append("again"))
    assert len(told) == 2


def test_a_repository_that_was_downloaded_is_described(
    server: Hub, cache: Path, tmp_path: Path, unet_model: Callable[..., Model]
) -> None:
    checkpoint.save(unet_model(stems=("bass", "vocals")), tmp_path / "x.safetensors")
    server.add(REPO, "model.safetensors", (tmp_path / "x.safetensors").read_bytes())
    named, told = Registry({}, "").find(f"hf://{REPO}"), []
    assert store.described(named) == named
    local = hub.download(named, on_ask=lambda spec: told.append(spec.name))
    assert told == [f"hf://{REPO}"]
    found = store.described(named)
    assert (found.family, found.stems, found.revision) == ("unet", ("vocals", "bass"), COMMIT)  # in their usual order
    assert found.size == local.paths[0].stat().st_size


def test_no_network(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        point_to(f"http://127.0.0.1:{unused.getsockname()[1]}", monkeypatch)
        with pytest.raises(
            UnreachableError, match=r"cannot reach 127\.0\.0\.1 to download the model 'mine': Connection refused"
        ):
            hub.download(spec)


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="needs a system that ignores connections beyond the backlog")
def test_a_network_that_swallows_everything(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stemsplit.models.hub_client._CONNECT_SECONDS", 0.3)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        point_to(f"http://127.0.0.1:{deaf.getsockname()[1]}", monkeypatch)
        with pytest.raises(UnreachableError, match=r"no answer within 0\.3 s|timed out"):
            hub.download(spec)
        for client in waiting:
            client.close()


def test_the_way_through_a_proxy_counts(spec: ModelSpec, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"cannot reach 127\.0\.0\.1"):
        hub.download(spec)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    hub.download(spec)


def test_offline(spec: ModelSpec, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableError, match="'mine' is not downloaded, and HF_HUB_OFFLINE is set"):
        hub.download(spec)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.download(spec)
    server.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.download(spec)
    assert server.requests == []


def test_a_slow_hub(spec: ModelSpec, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    server.faults.delay_seconds = 1.0
    with pytest.raises(UnreachableError, match=r"the download of .* failed"):
        hub.download(spec)


@pytest.mark.full
def test_a_hub_that_accepts_and_never_answers(spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stemsplit.models.hub_client._ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_to(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        for model in (spec, Registry({}, "").find(f"hf://{REPO}")):
            with pytest.raises(UnreachableError, match="timed out"):
                hub.download(model)


@pytest.mark.full
def test_a_connection_that_is_cut_goes_on_where_it_was(spec: ModelSpec, server: Hub) -> None:
    server.faults.cuts, server.faults.cut_after = 1, 600_000
    paths = hub.download(spec).paths
    assert paths[0].read_bytes() == b"a.safetensors" + CONTENT
    (wanted,) = server.ranges
    assert 0 < int(wanted.removeprefix("bytes=").removesuffix("-")) <= 600_000


@pytest.mark.full
def test_a_hub_that_fails_between_two_tries(spec: ModelSpec, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.faults.corrupt = 1
    check = store.check_file

    def fails_after(*arguments: Any) -> None:
        server.faults.status = 503
        check(*arguments)

    monkeypatch.setattr(store, "check_file", fails_after)
    with pytest.raises(UnreachableError, match=r"server error \(503\)|failed"):
        hub.download(replace(spec, files=spec.files[:1]))


def test_a_hub_that_names_no_commit(server: Hub, spec: ModelSpec, tmp_path: Path) -> None:
    server.add(REPO, "model.safetensors", CONTENT)
    for odd in ("", str(tmp_path)):
        server.faults.commit = odd
        with pytest.raises(ModelError, match=r"did not state the commit|failed"):
            hub.download(Registry({}, "").find(f"hf://{REPO}"))


@pytest.mark.parametrize("endpoint", ["huggingface.co", "http://host:abc", "ftp://host", "http://"])
def test_an_endpoint_that_is_none(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    point_to(endpoint, monkeypatch)
    with pytest.raises(ModelError, match="HF_ENDPOINT is not a valid URL"):
        hub.download(spec)


@pytest.mark.parametrize("proxy", ["http://proxy:abc", "foo://proxy"])
def test_a_proxy_that_is_none(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ModelError, match="the proxy in the environment is not a valid URL"):
        hub.download(spec)


def test_a_body_that_ends_early(spec: ModelSpec, server: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client's pauses between its tries
    server.faults.truncate = True
    with pytest.raises(UnreachableError, match=r"the download of 'a\.safetensors' of 'mine' failed"):
        hub.download(spec)
    assert left_in(cache) == []


# A disk that is not as it should be


def test_too_little_room(spec: ModelSpec, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(ModelError, match=r"needs 2 MB, and .* has 1 MB left"):
        hub.download(spec)
    assert server.asked("GET") == 0


def test_a_disk_that_fills_up(spec: ModelSpec, cache: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(ModelError, match="no space left for the model 'mine'"):
            hub.download(spec)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left_in(cache) == []


def test_a_cache_that_cannot_be_written(spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(ModelError, match=r"cannot store the model 'mine': .*Not a directory"):
        hub.download(spec)


def test_a_shared_cache_that_is_only_read(spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the Hub's cache nor the user's own folder can be written to: what is there is used all the same."""
    paths = hub.download(spec).paths
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for folder in (tmp_path / "hub").rglob("*"):
        if folder.is_dir():
            folder.chmod(0o555)
    try:
        assert hub.download(spec).paths == paths
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
    hub.download(spec)
    assert left_in(cache) == ["a.safetensors", "b.safetensors", "young.incomplete"]


def test_content_that_others_use_is_not_deleted(server: Hub, spec: ModelSpec, cache: Path) -> None:
    server.add(REPO, "copy.safetensors", server.files[REPO]["a.safetensors"])
    both = replace(spec, files=(spec.files[0], replace(spec.files[0], name="copy.safetensors")))
    (first, second) = hub.download(both).paths
    assert store.remove_file(first) == 0
    assert second.exists()
    assert store.remove_file(second) == spec.files[0].size
    assert store.remove_file(second) == 0


# Repositories that the user names


def test_a_repository_by_its_name(
    server: Hub, cache: Path, tmp_path: Path, unet_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(unet_model(stems=("a", "b")), tmp_path / "x.safetensors")
    server.add(REPO, "model.safetensors", (tmp_path / "x.safetensors").read_bytes())
    named = Registry({}, "").find("hf://someone/mine")
    local = hub.download(named)
    found, paths = local.spec, local.paths
    assert (found.name, found.family, found.stems) == ("hf://someone/mine", "unet", ("a", "b"))
    assert (found.branch, found.revision) == ("main", COMMIT)
    checkpoint.load(paths[0])
    assert hub.download(Registry({}, "").find(f"hf://someone/mine@{COMMIT}")).paths == paths
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # then what is here has to do
    assert hub.download(named).paths == paths


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
            hub.download(named)
        assert left_in(cache) == []
    else:
        paths = hub.download(named).paths
        assert paths[0].name == names[0]
        server.requests.clear()
        assert hub.download(Registry({}, "").find(f"hf://someone/mine@{COMMIT}")).paths == paths
        assert server.requests == []


@pytest.mark.full
def test_a_model_is_published_and_runs_from_there(
    server: Hub, cache: Path, tmp_path: Path, unet_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trained.safetensors"
    checkpoint.save(unet_model(stems=("a", "b")), path)
    with pytest.raises(ModelError, match=r"not logged in|denies access") as caught:
        publish.push(path, "me/new")
    assert "HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert publish.push(path, "me/new", license="mit") == COMMIT
    card = server.files["me/new"]["README.md"].decode()
    assert "license: mit" in card
    assert "--model hf://me/new" in card
    assert server.tokens[-1] == "Bearer hf_secret"
    (fetched,) = hub.download(Registry({}, "").find("hf://me/new")).paths
    assert fetched.read_bytes() == path.read_bytes()
    assert any(request.startswith("PUT ") for request in server.requests)  # as a large file
    server.files["me/new"]["README.md"] = b"written by hand"
    publish.push(path, "me/new")
    assert server.files["me/new"]["README.md"] == b"written by hand"


@pytest.mark.full
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
    with pytest.raises(ModelError, match="'me/public' exists and is public"):
        publish.push(path, "me/public", private=True)
    assert server.files["me/public"] == before


@pytest.mark.full
def test_a_card_that_the_hub_does_not_like(
    server: Hub, cache: Path, tmp_path: Path, unet_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    path = tmp_path / "trained.safetensors"
    checkpoint.save(unet_model(), path)
    with pytest.raises(UsageError, match="'MIT License' is not a licence name"):
        publish.push(path, "me/new", license="MIT License")
    assert server.requests == []
    server.faults.metadata = 400
    with pytest.raises(ModelError, match=r"the Hub's client rejects 'me/new'|unexpected response \(400\)"):
        publish.push(path, "me/new", license="unheard-of")


def test_only_what_stemsplit_has_trained_is_published(tmp_path: Path, cache: Path, server: Hub) -> None:
    demucs = publish_demucs("htdemucs", tmp_path / "955717e8.safetensors")
    bundled = read_bundled().find("spleeter-2stems").path  # converted, by another program
    assert bundled
    for path in (demucs, bundled):
        with pytest.raises(ModelError, match="was not trained by stemsplit, so its licence is not yours to give"):
            publish.push(path, "me/new", license="mit")
    assert server.requests == []


def test_publishing_without_a_network(
    tmp_path: Path, cache: Path, unet_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(unet_model(), tmp_path / "x.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableError, match="'me/new' cannot be published, and HF_HUB_OFFLINE is set") as caught:
        publish.push(tmp_path / "x.safetensors", "me/new")
    assert caught.value.hint == "unset HF_HUB_OFFLINE"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(UnreachableError, match=r"cannot reach 127\.0\.0\.1 to publish 'me/new': "):
        publish.push(tmp_path / "x.safetensors", "me/new")


def test_only_models_are_published(tmp_path: Path, cache: Path, server: Hub) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError):
        publish.push(tmp_path / "x.safetensors", "me/new")
    with pytest.raises(UsageError, match="invalid repository name"):
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


def test_a_download_in_another_thread(spec: ModelSpec) -> None:
    """Where no signals arrive."""
    gained: list[Any] = []
    thread = threading.Thread(target=lambda: gained.append(hub.download(spec)))
    thread.start()
    thread.join(60)
    with suppress(IndexError):
        assert len(gained[0].paths) == 2
    assert gained
