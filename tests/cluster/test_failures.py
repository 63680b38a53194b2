"""A long batch in the middle of which workers, a node and the command itself are killed, again and again."""

import hashlib
import os
import signal
import time
from pathlib import Path

import pytest
from support.program import FILES, Run, files_in, start, write_song
from support.ray_cluster import machines

SONGS = 200


def stems_in(folder: Path) -> dict[str, str]:
    """Hashes of all stems."""
    names = [name for name in files_in(folder) if name.endswith(".wav")]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.slow
def test_every_stem_is_there_once_whatever_is_killed(run: Run, here: Path) -> None:
    for number in range(SONGS):
        write_song(here / f"in/{number:03d}.wav", length=4_000 + 40 * number)
    plan = ["worker", "node", "command", "worker", "command", "node", "worker", "command"]

    def done() -> int:
        return len(list((here / "out").glob("*/stemsplit.json")))

    with machines() as nodes:
        arguments = ["in", "-o", "out", "-m", "model.safetensors", "--cluster", nodes.address, "--cpus-per-worker", "1"]
        node, code = nodes.add(), -1
        while code < 0:
            process = start(*arguments, "--skip-existing", "-q")
            while plan and process.poll() is None:
                goal = done() + 8
                while process.poll() is None and not (done() >= goal and nodes.busy_workers()):
                    time.sleep(0.05)
                match plan.pop(0):
                    case "worker":
                        for pid in nodes.busy_workers()[:1]:
                            os.kill(pid, signal.SIGKILL)
                    case "node":
                        nodes.kill(node)
                        node = nodes.add()
                    case "command":
                        process.kill()
                        break
            _, err = process.communicate()
            code = process.returncode
    assert not plan, err
    assert code == 0
    assert files_in(here / "out") == [f"{number:03d}/{name}" for number in range(SONGS) for name in FILES]
    assert run("in", "-o", "alone", "-q").code == 0
    assert stems_in(here / "out") == stems_in(here / "alone")
