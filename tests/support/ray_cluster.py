"""A cluster of Ray in the processes of this machine, the workers of which can be killed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SYSTEM = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
    "worker_niceness": 0,  # else they starve beside other tests
}


class Machines:
    """Two nodes with a core each, to which others can be added."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": _SYSTEM, **_small()}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.add()

    @property
    def address(self) -> str:
        """What --cluster takes."""
        return str(self._cluster.address)

    def add(self) -> Any:
        """Add a node with one core."""
        return self._cluster.add_node(num_cpus=1, **_small())

    def kill(self, node: Any) -> None:
        """Kill a node, with all that runs on it, as if its power were cut."""
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self) -> None:
        """End all processes."""
        self._cluster.shutdown()

    def busy_workers(self) -> list[int]:
        """Return the processes that separate a song just now."""
        raylets = {
            info.process.pid for node in self._cluster.list_all_nodes() for info in node.all_processes.get("raylet", [])
        }
        shown = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
        rows = [line.split(maxsplit=2) for line in shown.splitlines()]
        return [
            int(pid) for pid, parent, *name in rows if name == ["ray::SongWorker.separate"] and int(parent) in raylets
        ]

    def kill_busy_worker(self, song: Path) -> None:
        """Kill the worker that separates a song, once it writes to the folder of its stems."""
        wait_until(lambda: any(song.glob("*.part")) and len(self.busy_workers()) > 0)
        for pid in self.busy_workers():
            os.kill(pid, signal.SIGKILL)


def _small() -> dict[str, Any]:
    """Return how little memory a node takes, and where, if there is no shared one."""
    place = {} if os.access("/dev/shm", os.W_OK) else {"_plasma_directory": "/tmp"}
    return {"object_store_memory": 80 * 2**20, **place}


@contextmanager
def machines() -> Iterator[Machines]:
    """Run a cluster within the block."""
    running = Machines()
    try:
        yield running
    finally:
        running.stop()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something is so, for a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
