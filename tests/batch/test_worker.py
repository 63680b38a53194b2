"""The worker of a cluster, in this process: when it refuses, what it returns, how it goes on where another one died."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.program import FILES, files_in, write_song

from stemsplit.batch import manifest
from stemsplit.batch.events import Done, Skipped
from stemsplit.batch.inputs import Failed
from stemsplit.batch.manifest import read_manifest
from stemsplit.batch.song import Request, SongSeparator
from stemsplit.batch.tracks import Track, find_tracks
from stemsplit.batch.worker import PACKAGE, Job, Progress, SongWorker
from stemsplit.errors import ModelError, StemsplitError, UsageError
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model
from stemsplit.models.registry import read_bundled, read_spec
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.outputs import Delivery
from stemsplit.version import __version__


@pytest.fixture
def job(here: Path, unet_model: Callable[..., Model]) -> Job:
    """What a worker is told about a small model."""
    checkpoint.save(unet_model(rate=8_000), here / "model.safetensors")
    spec = read_spec(here / "model.safetensors")
    request = Request(
        stems=(),
        complement=False,
        mixture=False,
        stem_file=False,
        player=False,
        options=SeparationOptions(),
        delivery=Delivery(),
        audio_stream=1,
        skip_existing=False,
        overwrite=False,
        manifests=True,
    )
    return Job(
        request=request,
        names=request.file_names(spec.stems),
        provenance=request.provenance(manifest.describe_model(spec)),
        model=spec,
        package=PACKAGE,
        device="cpu",
        threads=1,
        landmark=here / "model.safetensors",
    )


def ready(job: Job) -> SongWorker:
    """A worker that has loaded its model."""
    loaded = SongWorker()
    _, refusal = loaded.load(__version__, job)
    assert refusal is None
    return loaded


def song(here: Path) -> Track:
    """A short song."""
    write_song(here / "in/a.wav")
    (track,), _ = find_tracks(["in/a.wav"], Path("out"))
    return replace(track, source=here / "in/a.wav", output=here / "out")


def refusal(job: Job, version: str = __version__) -> StemsplitError:
    """Why a worker does not work."""
    _, error = SongWorker().load(version, job)
    assert error
    return error


def test_another_version_is_refused(job: Job) -> None:
    error = refusal(job, "0.0.1")
    assert isinstance(error, UsageError)
    assert str(error) == f"stemsplit {__version__} is installed there, and 0.0.1 here"


def test_a_folder_of_another_machine_is_refused(job: Job, here: Path) -> None:
    error = refusal(replace(job, landmark=here / "stems/landmark"))
    assert str(error) == f"the folder {str(here / 'stems')!r} of this machine is not there"
    assert error.hint


def test_a_model_that_is_another_file_there_is_refused(job: Job, here: Path, unet_model: Callable[..., Model]) -> None:
    checkpoint.save(unet_model(rate=8_000, seed=2), here / "model.safetensors")
    assert "differ from those here" in str(refusal(job))
    (here / "model.safetensors").unlink()
    assert isinstance(refusal(replace(job, landmark=None)), ModelError)


def test_bundled_weights_are_found_where_stemsplit_is_installed_there(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_bundled().find("mini")

    def elsewhere(path: Path) -> Path:
        return Path("/opt/elsewhere/stemsplit") / path.relative_to(PACKAGE)

    there = spec.with_paths(elsewhere)
    assert not any(part.path and part.path.exists() for part in there.parts)
    provenance = replace(job.provenance, model=manifest.describe_model(spec))
    moved = replace(job, model=there, package=Path("/opt/elsewhere/stemsplit"), provenance=provenance)
    assert SongWorker().load(__version__, moved)[1] is None


def test_a_song_becomes_stems(job: Job, here: Path) -> None:
    loaded, track = ready(job), song(here)
    result = loaded.separate(track, again=False)
    assert isinstance(result, Done)
    assert loaded.progress() == Progress(4_000, 4_000)
    assert files_in(here / "out") == [f"a/{name}" for name in FILES]


def test_a_song_that_this_machine_does_not_see(job: Job, here: Path) -> None:
    loaded, track = ready(job), song(here)
    (here / "in/a.wav").unlink()
    result = loaded.separate(track, again=False)
    assert isinstance(result, Failed)
    assert "'in/a.wav' is not there on the machine" in str(result.error)
    assert not (here / "out").exists()


def test_a_worker_that_is_stopped_leaves_nothing_behind(job: Job, here: Path) -> None:
    loaded, track = ready(job), song(here)
    loaded.stop()
    assert loaded.separate(track, again=False) is None
    assert files_in(here / "out") == []


def test_stems_that_a_dead_worker_has_left_are_replaced(job: Job, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, track = ready(job), song(here)

    class Killed(BaseException):
        """Ends a worker without any of its `finally` blocks, as far as this test looks."""

    def die(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "record_run", die)
        patch.setattr(Path, "unlink", lambda *arguments, **options: None)  # nobody cleans up
        with pytest.raises(Killed):
            loaded.separate(track, again=False)
    assert "a/stemsplit.pending.json" in files_in(here / "out")
    assert not read_manifest(here / "out/a/stemsplit.json")
    assert isinstance(loaded.separate(track, again=False), Failed)  # whose are they?
    assert isinstance(loaded.separate(track, again=True), Done)
    assert files_in(here / "out") == [f"a/{name}" for name in FILES]
    assert isinstance(loaded.separate(track, again=True), Skipped)  # it died between the last stem and its answer


def test_stems_of_others_are_not_replaced_by_a_worker(job: Job, here: Path) -> None:
    loaded, track = ready(job), song(here)
    mine = here / "out/a/drums.wav"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    for again in (False, True):
        assert isinstance(loaded.separate(track, again=again), Failed)
        assert files_in(here / "out") == ["a/drums.wav"]
        assert mine.read_text() == "mine"


def test_a_worker_tells_what_concerns_all_songs(job: Job, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, track = ready(job), song(here)
    error = ModelError("the model is broken")

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(SongSeparator, "separate", fail)
    assert loaded.separate(track, again=False) is error
