"""What is done already: manifests, and what a later run makes of them."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from stemsplit import files
from stemsplit.batch import checks, manifest
from stemsplit.batch import song as batch
from stemsplit.batch.events import Done, Skipped
from stemsplit.batch.inputs import Failed
from stemsplit.batch.manifest import Provenance
from stemsplit.batch.templates import Template
from stemsplit.batch.tracks import Track, find_tracks
from stemsplit.errors import AudioError, ModelError
from stemsplit.models import registry
from stemsplit.models.registry import ModelSpec
from stemsplit.separation.outputs import Report
from stemsplit.version import __version__

STEMS = ("vocals", "drums")
MADE = Provenance({"name": "mini", "sha256": "ab" * 32}, {"overlap": None, "format": "WAV, 24 bits", "leads": [0]})


@dataclass
class Batch:
    """One song, and what happens to it; files of stems hold what they were made of."""

    track: Track
    made: Provenance = MADE
    stems: Sequence[str] = STEMS
    runs: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def separate(self, source: Path, outputs: dict[str, Path]) -> Report:
        """Instead of a Separator."""
        self.runs += 1
        for stem, path in outputs.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read_bytes() + f"{stem} {self.made}".encode())
        return Report(8_000, 2, 4_000, 0, (), consistent=True)

    def run(self, **options: Any) -> Done | Failed | Skipped:
        return batch.separate_track(self.track, self.stems, self.separate, provenance=self.made, **options)

    def done(self) -> "Batch":
        assert isinstance(self.run(), Done)
        return self

    def sort_out(self, **options: Any) -> str:
        """What there is to do: "skip", "make", why it is to do again, or why it is refused."""
        ready, skipped, failed = checks.partition_existing([self.track], self.stems, self.made, **options)
        assert len(ready) + len(skipped) + len(failed) == 1
        if failed:
            assert failed[0].source == "song.wav"
            assert failed[0].error.hint
            return f"refuse: {failed[0].error}"
        if skipped:
            assert skipped[0].track == self.track
            return "skip"
        assert replace(ready[0], why="") == self.track
        assert ready[0].replaces == bool(ready[0].why)
        return ready[0].why or "make"

    def file(self, stem: str = "vocals") -> Path:
        return Path(str(self.track.outputs(self.stems)[stem]))

    @property
    def manifest(self) -> Path:
        return Path(str(self.track.manifest))

    def table(self) -> Any:
        return json.loads(self.manifest.read_text(encoding="utf-8"))

    def run_table(self) -> Any:
        (table,) = self.table()["runs"]
        return table


@pytest.fixture
def song(here: Path) -> Batch:
    (here / "song.wav").write_bytes(b"a song")
    os.utime("song.wav", (1e9, 1e9))
    (track,), _ = find_tracks(["song.wav"], Path("out"))
    return Batch(track)


def names_in(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def forbid_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr(files, "sha256_of", fail)


def edit(path: Path, *, keep_time: bool = False) -> None:
    """Another content of the same size."""
    status = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    shift = 0 if keep_time else 10**10
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + shift))


# What is in it


def test_a_manifest_says_all(song: Batch) -> None:
    result = song.run()
    assert isinstance(result, Done)
    assert result.report.warnings == ()
    assert names_in("out/song") == ["drums.wav", "stemsplit.json", "vocals.wav"]
    table = song.table()
    runs = table.pop("runs")
    assert table == {"manifest": 1, "stemsplit": __version__}
    assert runs == [
        {
            "model": {"name": "mini", "sha256": "ab" * 32},
            "settings": {"overlap": None, "format": "WAV, 24 bits", "leads": [0]},
            "song": {"name": "song.wav", "size": 6, "mtime_ns": 10**18, "sha256": sha256(Path("song.wav"))},
            "rate": 8_000,
            "channels": 2,
            "length": 4_000,
            "consistent": True,
            "stems": {
                stem: {
                    "file": f"{stem}.wav",
                    "size": song.file(stem).stat().st_size,
                    "mtime_ns": song.file(stem).stat().st_mtime_ns,
                    "sha256": sha256(song.file(stem)),
                }
                for stem in STEMS
            },
        }
    ]


def test_without_provenance_there_is_no_manifest(song: Batch) -> None:
    assert isinstance(batch.separate_track(song.track, STEMS, song.separate), Done)
    assert names_in("out/song") == ["drums.wav", "vocals.wav"]


def test_names_of_any_bytes(here: Path) -> None:
    Path("\udcff\n.wav").write_bytes(b"x")
    (track,), _ = find_tracks(["\udcff\n.wav"], Path("o\udcfeut"), template=Template.parse("{track} {stem}"))
    odd = Batch(track).done()
    assert odd.run_table()["song"]["name"] == "\udcff\n.wav"
    assert checks.partition_existing([track], STEMS, MADE)[1] == [Skipped(track, track.outputs(STEMS))]


def test_a_folder_with_its_manifests_can_move(song: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    song.done()
    Path("out").rename("elsewhere")
    song.track = replace(song.track, output=Path("elsewhere").absolute())
    forbid_hashing(monkeypatch)
    assert song.sort_out() == "skip"


def test_several_songs_in_a_folder(here: Path) -> None:
    for name in ("a.wav", "b.wav"):
        Path(name).write_bytes(name.encode())
    tracks, _ = find_tracks(["a.wav", "b.wav"], Path("out"), template=Template.parse("{stem}/{track}"))
    for track in tracks:
        Batch(track).done()
    assert sorted(path.as_posix() for path in Path("out").rglob("*.json")) == [
        "out/stemsplit/a.json",
        "out/stemsplit/b.json",
    ]
    assert len(checks.partition_existing(tracks, STEMS, MADE)[1]) == 2
    (entry,) = manifest.read_manifest(tracks[0].manifest)
    assert entry.stems["vocals"][0] == "../vocals/a.wav"


def test_models_are_known_by_what_they_are(here: Path) -> None:
    Path("m.safetensors").write_bytes(b"weights")
    local = ModelSpec(name="m.safetensors", summary="", license="", path=Path("m.safetensors"))
    assert manifest.describe_model(local) == {"name": "m.safetensors", "sha256": sha256(Path("m.safetensors"))}
    hub = registry.read_bundled().find("htdemucs")
    assert manifest.describe_model(hub) == {"name": "htdemucs", "repo": hub.repo, "revision": hub.revision}
    known = registry.read_bundled()
    narrow, wide = (manifest.describe_model(known.find(name)) for name in ("spleeter", "spleeter-16k"))
    assert {**narrow, "name": "", "config": {}} == {**wide, "name": "", "config": {}}
    assert narrow.get("config") != wide["config"]
    Path("m.safetensors").unlink()
    with pytest.raises(ModelError, match=r"cannot read the model 'm\.safetensors'"):
        manifest.describe_model(local)


def test_a_bundled_model_has_a_hash() -> None:
    described = manifest.describe_model(registry.read_bundled().find("mini-unet"))
    assert described["name"] == "mini-unet"
    assert registry.SHA256.fullmatch(described["sha256"])


def test_every_step_of_a_chain_is_described() -> None:
    described = manifest.describe_model(registry.read_bundled().find("mini"))
    first, second = described["steps"]
    assert (described["name"], first["name"], second["name"]) == ("mini", "spleeter-2stems", "mini-accompaniment")
    assert (second["of"], second["as"]) == ("accompaniment", {})
    assert registry.SHA256.fullmatch(first["sha256"])
    # Stems that were made of the whole chain are up to date for who wants some of them.
    assert manifest.describe_model(registry.read_bundled().find("mini", ["vocals"])) == described


# What there is to do


def test_what_is_complete_is_skipped_without_reading_it(song: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    assert song.sort_out() == "make"
    song.done()
    forbid_hashing(monkeypatch)
    assert song.sort_out() == song.sort_out(overwrite=True) == "skip"


def test_names_of_models_do_not_matter(song: Batch) -> None:
    song.done()
    song.made = replace(MADE, model={**MADE.model, "name": "other"})
    assert song.sort_out() == "skip"


def test_settings_are_compared_as_json(song: Batch) -> None:
    song.done()
    song.made = replace(MADE, settings={"leads": (0,), "format": "WAV, 24 bits", "overlap": None})
    assert song.sort_out() == "skip"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (replace(MADE, model={"name": "mini", "sha256": "cd" * 32}), "made by another model"),
        (replace(MADE, model={"name": "mini", "repo": "a/b", "revision": "1"}), "made by another model"),
        (replace(MADE, settings={**MADE.settings, "overlap": 0.5}), "made with another overlap"),
        (replace(MADE, settings={**MADE.settings, "x": None, "leads": []}), "made with another leads, x"),
    ],
)
def test_what_was_made_otherwise_is_made_again(song: Batch, made: Provenance, why: str) -> None:
    song.done()
    song.made = made
    assert song.sort_out() == why
    song.done()
    assert song.sort_out() == "skip"
    assert song.run_table()["settings"] == json.loads(json.dumps(dict(made.settings)))


@pytest.mark.parametrize(
    ("recorded", "ran", "wanted", "why"),
    [
        (None, True, None, "skip"),
        (None, False, None, "skip"),  # the default has changed
        (None, True, True, "skip"),
        (None, False, False, "skip"),
        (None, False, True, "made with another consistent"),
        (None, True, False, "made with another consistent"),
        (False, False, None, "made with another consistent"),
        (None, ..., None, "skip"),  # of an earlier version
        (None, ..., True, "made with another consistent"),
    ],
)
def test_stems_that_add_up_and_those_that_do_not(song: Batch, recorded: Any, ran: Any, wanted: Any, why: str) -> None:
    song.made = replace(MADE, settings={**MADE.settings, "consistent": recorded})
    song.done()
    path = Path("out/song/stemsplit.json")
    table = json.loads(path.read_text())
    assert table["runs"][0]["consistent"] is True
    if ran is ...:
        del table["runs"][0]["consistent"]
    else:
        table["runs"][0]["consistent"] = ran
    path.write_text(json.dumps(table))
    song.made = replace(MADE, settings={**MADE.settings, "consistent": wanted})
    assert song.sort_out() == why


def test_a_song_that_has_changed_is_separated_again(song: Batch) -> None:
    song.done()
    edit(Path("song.wav"))
    assert song.sort_out() == "made of another version of the song"
    Path("song.wav").write_bytes(b"longer than before")
    assert song.sort_out() == "made of another version of the song"
    Path("song.wav").unlink()
    assert song.sort_out() == "made of another version of the song"


def test_a_song_that_was_only_touched_is_not_separated_again(song: Batch) -> None:
    song.done()
    os.utime("song.wav", (2e9, 2e9))
    assert song.sort_out() == "skip"


def test_a_song_that_changes_within_a_step_of_its_clock(song: Batch) -> None:
    now = time.time()
    os.utime("song.wav", (now, now))
    song.done()
    assert song.run_table()["song"]["mtime_ns"] == 0
    assert song.sort_out() == "skip"
    edit(Path("song.wav"), keep_time=True)
    assert song.sort_out() == "made of another version of the song"


def test_a_song_under_another_name(song: Batch) -> None:
    song.done()
    Path("song.wav").rename("song.flac")
    (track,), _ = find_tracks(["song.flac"], Path("out"))
    song.track = track
    assert song.sort_out() == "skip"


@pytest.mark.parametrize("missing", STEMS)
def test_a_stem_that_is_missing(song: Batch, missing: str) -> None:
    song.done()
    song.file(missing).unlink()
    assert song.sort_out() == f"{missing} is missing"
    song.done()
    assert song.sort_out() == "skip"


def test_all_stems_are_missing(song: Batch) -> None:
    song.done()
    for stem in STEMS:
        song.file(stem).unlink()
    assert song.sort_out() == "make"


@pytest.mark.parametrize("other", [False, True])
def test_what_somebody_has_changed_is_not_replaced(song: Batch, other: bool) -> None:
    song.done()
    edit(song.file())
    if other:
        song.made = replace(MADE, settings={})
    assert song.sort_out() == "refuse: 'out/song/vocals.wav' was changed after stemsplit wrote it"
    assert song.sort_out(overwrite=True) == "changed after it was written"
    song.file().write_bytes(b"")
    assert song.sort_out() == "refuse: 'out/song/vocals.wav' was changed after stemsplit wrote it"


def test_a_stem_that_was_only_touched_is_ours(song: Batch) -> None:
    song.done()
    os.utime(song.file(), (1e9, 1e9))
    assert song.sort_out() == "skip"


def test_what_is_going_to_be_replaced_is_looked_at_closely(song: Batch) -> None:
    song.done()
    edit(song.file(), keep_time=True)
    song.made = replace(MADE, settings={})
    assert song.sort_out() == "refuse: 'out/song/vocals.wav' was changed after stemsplit wrote it"


def test_a_folder_in_the_place_of_a_stem(song: Batch) -> None:
    song.done()
    song.file().unlink()
    song.file().mkdir()
    assert song.sort_out().startswith("refuse: 'out/song/vocals.wav' was changed")


def test_a_link_that_leads_nowhere_in_the_place_of_a_stem(song: Batch) -> None:
    song.done()
    song.file().unlink()
    song.file().symlink_to("nowhere")
    assert song.sort_out() == "refuse: cannot read 'out/song/vocals.wav': No such file or directory"


def test_files_that_no_manifest_knows(song: Batch) -> None:
    song.done()
    song.manifest.unlink()
    assert song.sort_out() == "make"


DAMAGED: list[Callable[[Any], Any]] = [
    lambda table: None,
    lambda table: [],
    lambda table: 7,
    lambda table: {**table, "manifest": 2},
    lambda table: {**table, "runs": None},
    lambda table: {**table, "runs": [[]]},
    lambda table: {**table, "runs": [{**table["runs"][0], "stems": []}]},
    lambda table: {**table, "runs": [{**table["runs"][0], "stems": {"vocals": {}}}]},
    lambda table: {**table, "runs": [{**table["runs"][0], "model": 3}]},
    lambda table: {**table, "runs": [{**table["runs"][0], "rate": "x"}]},
    lambda table: {**table, "runs": [{**table["runs"][0], "song": "x"}]},
]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_manifest_is_none(song: Batch, damage: Callable[[Any], Any]) -> None:
    song.done()
    song.manifest.write_text(json.dumps(damage(song.table())))
    assert manifest.read_manifest(song.track.manifest) == []
    assert song.sort_out() == "make"
    song.done()
    assert song.sort_out() == "skip"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"\0" * 100, b"[" * 100_000, b'{"manifest": 1}'])
def test_what_is_no_manifest(song: Batch, content: bytes) -> None:
    song.done()
    song.manifest.write_bytes(content)
    assert song.sort_out() == "make"


def test_paths_in_a_manifest_lead_nowhere(song: Batch) -> None:
    Path("mine.wav").write_text("mine")
    song.done()
    table = song.table()
    table["runs"][0]["stems"]["vocals"]["file"] = "../../mine.wav"
    song.manifest.write_text(json.dumps(table))
    assert song.sort_out() == "make"
    song.done()
    assert Path("mine.wav").read_text() == "mine"


# Runs for other stems, in other formats


def test_stems_of_several_runs(song: Batch) -> None:
    song.stems = ("vocals",)
    song.done()
    song.stems = ("vocals", "drums")
    assert song.sort_out() == "drums is missing"
    song.stems = ("drums",)
    assert song.sort_out() == "make"
    song.done()
    song.stems = ("vocals", "drums")
    assert song.sort_out() == "skip"
    song.stems = ("drums",)
    assert song.sort_out() == "skip"


def test_formats_beside_each_other(song: Batch) -> None:
    song.done()
    wav, track = song.made, song.track
    song.made = replace(MADE, settings={**MADE.settings, "format": "FLAC"})
    song.track = replace(track, values={**track.values, "ext": "flac"})
    assert song.sort_out() == "make"
    song.done()
    assert song.sort_out() == "skip"
    song.track, song.made = track, wav
    assert song.sort_out() == "skip"
    assert len(song.table()["runs"]) == 2
    song.done()
    assert len(song.table()["runs"]) == 2


def test_a_new_model_for_some_of_the_stems(song: Batch) -> None:
    song.done()
    song.made, song.stems = replace(MADE, model={"name": "new", "sha256": "ef" * 32}), ("drums",)
    song.done()
    song.stems = STEMS
    assert song.sort_out() == "made by another model"
    song.made = MADE
    assert song.sort_out() == "made by another model"


# When things go wrong


def test_what_is_killed_while_it_hashes_is_complete(song: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    hashing = files.sha256_of

    def stop(path: Path) -> str:
        if path.suffix == ".wav" and path.parent.name == "song":
            raise KeyboardInterrupt
        return hashing(path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "sha256_of", stop)
        with pytest.raises(KeyboardInterrupt):
            song.run()
    assert names_in("out/song") == ["drums.wav", "stemsplit.json", "vocals.wav"]
    assert song.run_table()["stems"]["vocals"]["sha256"] == ""
    assert song.sort_out() == "skip"
    song.made = replace(MADE, settings={})
    assert song.sort_out() == "made with another format, leads, overlap"
    edit(song.file())
    assert song.sort_out().startswith("refuse: ")
    song.made = MADE
    assert song.sort_out().startswith("refuse: ")


def test_a_manifest_is_complete_or_not_there(song: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    song.done()
    before = song.manifest.read_bytes()

    def stop(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        song.run()
    assert names_in("out/song") == ["drums.wav", "stemsplit.json", "vocals.wav"]
    assert song.manifest.read_bytes() == before


def test_a_manifest_that_cannot_be_written_is_told(song: Batch) -> None:
    song.manifest.mkdir(parents=True)
    result = song.run()
    assert isinstance(result, Done)
    (warning,) = result.report.warnings
    assert warning.startswith("cannot write 'out/song/stemsplit.json': ")
    assert warning.endswith("--skip-existing will not know that the stems of 'song.wav' are complete")
    assert names_in("out/song") == ["drums.wav", "stemsplit.json", "vocals.wav"]


@pytest.mark.parametrize("vanishes", [False, True])
def test_a_song_that_changes_while_it_is_separated(song: Batch, vanishes: bool) -> None:
    separate = song.separate

    def change(source: Path, outputs: dict[str, Path]) -> Report:
        report = separate(source, outputs)
        edit(source)
        if vanishes:
            source.unlink()
        return report

    result = batch.separate_track(song.track, STEMS, change, provenance=MADE)
    assert isinstance(result, Done)
    assert result.report.warnings == (
        "'song.wav' was changed while it was being separated: its stems may be of no use",
    )
    assert song.sort_out() == "made of another version of the song"


def test_a_song_that_is_gone(song: Batch) -> None:
    Path("song.wav").unlink()
    result = song.run()
    assert isinstance(result, Failed)
    assert str(result.error) == "cannot read 'song.wav': No such file or directory"
    assert not song.runs


# Two programs at once


def test_what_another_program_has_done_in_the_meantime_is_skipped(song: Batch) -> None:
    other = Batch(song.track).done()
    assert song.run(skip_existing=True) == Skipped(song.track, song.track.outputs(STEMS))
    assert (song.runs, other.runs) == (0, 1)
    edit(song.file())
    refused = song.run(skip_existing=True)
    assert isinstance(refused, Failed)
    assert "was changed after stemsplit wrote it" in str(refused.error)
    assert isinstance(song.run(skip_existing=True, overwrite=True), Done)


def test_what_another_program_has_done_while_we_did_it(song: Batch) -> None:
    def collide(source: Path, outputs: dict[str, Path]) -> Report:
        Batch(song.track).done()
        raise AudioError("'out/song/vocals.wav' exists already", "")

    assert batch.separate_track(song.track, STEMS, collide, provenance=MADE, skip_existing=True) == Skipped(
        song.track, song.track.outputs(STEMS)
    )
    failed = batch.separate_track(song.track, STEMS, collide, provenance=MADE)
    assert isinstance(failed, Failed)
