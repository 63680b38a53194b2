"""Files: complete or not at all, stamped, checked for room, and read as TOML."""

import os
import re
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from stemsplit import files
from stemsplit.errors import AudioError, ModelError, UsageError
from stemsplit.files import (
    FileStamp,
    beside,
    check_free,
    check_room,
    fold_name,
    nearest_folder,
    read_toml,
    replacing,
    sha256_of,
    sweep,
    sweep_folders,
)


def test_a_file_is_replaced_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_nothing_is_lost_or_left_when_it_does_not(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as part:
        part.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        pass


def test_the_longest_name_has_room_for_the_ending(tmp_path: Path) -> None:
    path = tmp_path / ("\N{MUSICAL SYMBOL G CLEF}" * 60 + ".wav")
    with replacing(path) as part:
        part.write_text("here")
    assert path.read_text() == "here"


def test_parts_of_killed_processes_are_swept_and_young_ones_kept(tmp_path: Path) -> None:
    path = tmp_path / "a [1].txt"
    # Named as by earlier versions, without their writers.
    old, young, of_another = (
        tmp_path / name for name in ("a [1].txt.%s.part" % ("0" * 8), "a [1].txt.00000001.part", "b.txt.00000000.part")
    )
    for part in (old, young, of_another):
        part.write_text("half")
    for part in (old, of_another):
        os.utime(part, (0, 0))
    sweep(path)
    assert sorted(tmp_path.iterdir()) == sorted([young, of_another])


# A process that leaves two temporary files and waits.
WRITER = """
import sys, time
from pathlib import Path
from stemsplit.files import beside
for name in ("a.wav", "stemsplit.json"):
    beside(Path(sys.argv[1], name)).write_text("half")
print(flush=True)
time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is writing a.wav and stemsplit.json."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.full
@pytest.mark.parametrize("age", [0, 10**6])
def test_what_is_being_written_is_never_swept_and_what_was_is_at_once(
    tmp_path: Path, writer: "subprocess.Popen[bytes]", age: int
) -> None:
    parts = sorted(tmp_path.iterdir())
    assert [part.name.partition(".")[0] for part in parts] == ["a", "stemsplit"]
    for part in parts:
        os.utime(part, (time.time() - age,) * 2)
    sweep(tmp_path / "a.wav")
    sweep_folders([tmp_path, tmp_path / "none"])
    assert sorted(tmp_path.iterdir()) == parts
    writer.kill()
    for reaped in (False, True):
        if reaped:
            writer.wait()
            for part in parts:
                part.write_text("half")
        else:
            while "Z" not in Path(f"/proc/{writer.pid}/stat").read_text().rpartition(")")[2]:
                time.sleep(0.01)
        sweep(tmp_path / "a.wav")
        assert list(tmp_path.iterdir()) == parts[1:]
        sweep_folders([tmp_path, tmp_path / "none"])
        assert not list(tmp_path.iterdir())


def test_another_process_with_the_same_number_is_not_the_writer(tmp_path: Path) -> None:
    own = beside(tmp_path / "a.wav")
    match = re.fullmatch(r"(.*\.)(\d+)-(\w+)-(\w+)-(\w+)\.part", own.name)
    assert match
    prefix, process, start, system, token = match.groups()
    assert int(process) == os.getpid()
    earlier = own.with_name(f"{prefix}{process}-{int(start, 16) - 1:x}-{system}-{token}.part")
    elsewhere = own.with_name(f"{prefix}{process}-{start}-{int(system, 16) ^ 1:08x}-{token}.part")
    abandoned = own.with_name(f"{prefix}{process}-{start}-{int(system, 16) ^ 2:08x}-{token}.part")
    foreign = own.with_name("download.part")
    for path in (own, earlier, elsewhere, abandoned, foreign):
        path.touch()
    for path in (own, abandoned, foreign):
        os.utime(path, (0, 0))
    sweep_folders([tmp_path])
    assert sorted(tmp_path.iterdir()) == sorted([own, elsewhere, foreign])


def test_without_proc_only_processes_that_are_gone_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_start_of", lambda process: None)
    running = beside(tmp_path / "a.wav")
    ended = running.with_name(running.name.replace(f".{os.getpid()}-0-", ".999999999-0-"))
    assert ended != running
    for path in (running, ended):
        path.touch()
    sweep_folders([tmp_path])
    assert list(tmp_path.iterdir()) == [running]


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("content", "kept_time", "hashed", "quickly", "matches"),
    [
        (b"abc", True, True, True, True),
        (b"abc", False, True, True, True),  # touched
        (b"abc", False, False, True, False),  # touched, and nothing tells that it is the same
        (b"abd", True, True, True, True),  # what is taken quickly is trusted
        (b"abd", True, True, False, False),
        (b"abd", False, True, True, False),
        (b"abcd", True, True, True, False),
    ],
)
def test_a_stamp_tells_whether_a_file_has_changed(
    content: bytes, kept_time: bool, hashed: bool, quickly: bool, matches: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    stamp = FileStamp.of(path, hashed=hashed)
    path.write_bytes(content)
    os.utime(path, ns=(0, stamp.mtime_ns + (0 if kept_time else 10**9)))
    assert stamp.matches(path, quickly=quickly) is matches


def test_the_nearest_folder(tmp_path: Path) -> None:
    assert nearest_folder(tmp_path) == tmp_path
    assert nearest_folder(tmp_path / "a" / "b") == tmp_path
    (tmp_path / "a").write_text("a file")
    assert nearest_folder(tmp_path / "a" / "b") == tmp_path


def test_names_that_are_one_to_some_file_systems() -> None:
    assert fold_name("Caf\N{LATIN SMALL LETTER E WITH ACUTE}") == fold_name("CAFe\N{COMBINING ACUTE ACCENT}")
    assert fold_name("a") != fold_name("b")


def test_what_is_there_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "a"
    check_free(path, overwrite=False)
    check_free(path / "b", overwrite=False)
    path.write_text("here")
    check_free(path, overwrite=True)
    with pytest.raises(AudioError, match="exists already"):
        check_free(path, overwrite=False)
    with pytest.raises(AudioError, match="is a folder"):
        check_free(tmp_path, overwrite=True)


def test_toml_is_read_or_refused_with_the_file_and_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    with pytest.raises(UsageError, match=r"cannot read the settings in '.*a\.toml': No such file") as caught:
        read_toml(path, "settings")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert caught.value.path == path
    path.write_text("one = 1")
    assert read_toml(path, "settings") == {"one": 1}
    path.write_bytes(b"one = '\xff'")
    with pytest.raises(ModelError, match=r"cannot read the models in '.*a\.toml': it is not UTF-8 text"):
        read_toml(path, "models", error=ModelError)
    path.write_text("one = ")
    with pytest.raises(UsageError, match=r"'.*a\.toml' is not valid TOML: ") as caught:
        read_toml(path, "settings", "a hint")
    assert caught.value.hint == "a hint"


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    usage = namedtuple("usage", "total used free")
    asked: list[Path] = []

    def disk_usage(path: Path) -> object:
        asked.append(path)
        return usage(10**12, 0, 2 * 10**9)

    monkeypatch.setattr("shutil.disk_usage", disk_usage)
    check_room(2 * 10**9, Path("out/of/here"))
    assert asked == [Path()]
    with pytest.raises(AudioError) as caught:
        check_room(2 * 10**9 + 1, Path("out"))
    assert str(caught.value) == "the stems need about 2.0 GB, and 'out' has room for 2.0 GB"
    assert "--output" in caught.value.hint
    # What is replaced makes room, song by song.
    for name in ("a", "b", "c"):
        Path(name).write_bytes(bytes(1_000))
    songs = [[Path("a"), Path("b")], [Path("c"), Path("none")]]
    check_room(2 * 10**9 + 1_000, Path(), replaced=songs)
    with pytest.raises(AudioError):
        check_room(2 * 10**9 + 1_001, Path(), replaced=songs)


def test_a_disk_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_usage(path: Path) -> object:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("shutil.disk_usage", disk_usage)
    check_room(10**18, Path())
