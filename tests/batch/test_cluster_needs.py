"""What a worker of a cluster takes of its machines, and how many have room."""

import pytest

from stemsplit.batch.cluster import ClusterOptions, Needs
from stemsplit.errors import DeviceError, UsageError

SMALL, LARGE, CARDS = {"CPU": 2.0}, {"CPU": 30.0, "memory": 1e9}, {"CPU": 16.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("machines", "device", "options", "cpus", "gpus", "runs_on", "room"),
    [
        ([SMALL, SMALL], "auto", {}, 2, 0, "cpu", [1, 1]),
        ([SMALL, LARGE], "auto", {}, 4, 0, "cpu", [0, 7]),
        ([SMALL, LARGE], "auto", {"cpus_per_worker": 1}, 1, 0, "cpu", [2, 30]),
        ([SMALL, CARDS], "auto", {}, 1, 1, "cuda", [0, 2]),
        ([SMALL, CARDS], "cpu", {}, 4, 0, "cpu", [0, 4]),
        ([CARDS], "cuda", {"gpus_per_worker": 0.5}, 1, 0.5, "cuda", [4]),
        ([CARDS], "auto", {"gpus_per_worker": 0.6}, 1, 0.6, "cuda", [2]),
        ([CARDS], "auto", {"gpus_per_worker": 0.1, "cpus_per_worker": 2}, 2, 0.1, "cuda", [8]),
        ([SMALL], "cuda", {"workers": 3}, 1, 1, "cuda", [0]),  # machines with GPUs will come
        ([], "auto", {"workers": 3}, 1, 0, "cpu", []),
    ],
)
def test_workers_get_a_gpu_where_there_is_one(
    machines: list[dict[str, float]],
    device: str,
    options: dict[str, float],
    cpus: int,
    gpus: float,
    runs_on: str,
    room: list[int],
) -> None:
    needs = Needs.of(ClusterOptions(address="auto", **options), device, machines)  # type: ignore[arg-type]
    assert needs == Needs(cpus, gpus, runs_on)
    assert [needs.met_by(machine) for machine in machines] == room


@pytest.mark.parametrize(
    ("device", "options", "what"),
    [("cuda", {}, "1 core and 1 of a GPU"), ("auto", {"cpus_per_worker": 3}, "3 cores")],
)
def test_a_cluster_without_room(device: str, options: dict[str, int], what: str) -> None:
    with pytest.raises(DeviceError, match=f"has room for a worker, which takes {what}$"):
        Needs.of(ClusterOptions(address="auto", **options), device, [SMALL])


@pytest.mark.parametrize(
    "options", [{"gpus_per_worker": 0}, {"gpus_per_worker": 1.5}, {"cpus_per_worker": 0}, {"workers": 0}]
)
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        ClusterOptions(address="auto", **options)  # type: ignore[arg-type]
