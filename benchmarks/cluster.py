"""What a cluster costs beside the separation: memory of the driver, and time of each song, over the number of songs.

Songs of one second on a local cluster of two nodes, so that nearly all there is to see is what surrounds the work:

    .venv/bin/python benchmarks/cluster.py 1000 3000

Each count is a batch in a process of its own, with a network that does next to nothing. Reported are the memory of the
driver when it begins to separate and at the end, and how long a song takes, for the whole batch, in the worker, and
without a cluster.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

SECONDS, RATE, WORKERS = 1, 8_000, 2
WARM = 100  # songs after which the driver has loaded all that it ever loads


def write_songs(folder: Path, count: int) -> None:
    """Write songs of noise, in folders of a thousand."""
    rng = np.random.default_rng(1)
    for number in range(count):
        path = folder / f"{number // 1000:03d}/{number:06d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-0.3, 0.3, (SECONDS * RATE, 2)), RATE)


def write_model(path: Path) -> None:
    """Write a network that does next to nothing."""
    import torch

    from stemsplit.models import checkpoint
    from stemsplit.models.checkpoint import Header, new_model

    torch.manual_seed(1)
    config = {"n_fft": 512, "hop": 128, "bands": 24, "linear_bands": 8, "widths": [4, 6]}
    header = Header(
        "unet", config, stems=("vocals", "drums", "bass", "other"), rate=RATE, channels=2, length=4096, hop=3072
    )
    checkpoint.save(new_model(header), path)


def resident(name: str = "VmRSS") -> float:
    """Return the memory of this process in MB."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition(f"{name}:")[2].split()[0]) / 1000


def measure(songs: Path, output: Path, model: Path, address: str | None, results: Any) -> None:
    """Separate all songs in a process of its own, and put figures into a queue."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from stemsplit.batch.cluster import ClusterOptions
    from stemsplit.batch.events import Done, Event, SeparationStarted, TracksFound
    from stemsplit.batch.run import separate_batch

    figures: dict[str, float] = {}
    finished = 0
    began = time.monotonic()

    def on_event(event: Event) -> None:
        nonlocal finished
        if isinstance(event, Done):
            finished += 1
            if finished == WARM:
                figures["memory_warm"] = resident()
        elif isinstance(event, TracksFound):
            figures["found"] = time.monotonic() - began
        elif isinstance(event, SeparationStarted):
            figures["start"], figures["cpu_start"] = time.monotonic() - began, time.process_time()

    options = ClusterOptions(address=address, cpus_per_worker=1, workers=WORKERS) if address else None
    report = separate_batch(songs, output, model=model, device="cpu", cluster=options, on_event=on_event)
    wall = time.monotonic() - began - figures["start"]
    done = [result for result in report.results if isinstance(result, Done)]
    results.put(
        {
            **figures,
            "done": len(done),
            "wall": wall,
            "cpu": time.process_time() - figures["cpu_start"],
            "in_worker": sum(result.seconds for result in done),
            "memory_end": resident(),
            "memory_peak": resident("VmHWM"),
        }
    )


def main() -> None:
    """Print a row for each count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", type=int, nargs="*", default=[1000, 3000], metavar="N")
    parser.add_argument("--alone", type=int, default=300, help="how many songs are separated without a cluster")
    counts = parser.parse_args()
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_model(folder / "model.safetensors")

        def run(count: int, address: str | None) -> dict[str, float]:
            songs, output = folder / "songs", folder / "stems"
            write_songs(songs, count)
            results = context.Queue()
            arguments = (songs, output, folder / "model.safetensors", address, results)
            process = context.Process(target=measure, args=arguments)
            process.start()
            figures: dict[str, float] = results.get()
            process.join()
            assert figures["done"] == count == sum(1 for _ in output.rglob("stemsplit.json"))
            shutil.rmtree(songs)
            shutil.rmtree(output)
            return figures

        alone = run(counts.alone, None)
        print(f"alone: {alone['wall'] / counts.alone * 1e3:.1f} ms a song, {alone['memory_end']:.0f} MB", flush=True)
        same = {"worker_niceness": 0}  # workers compete with other programs as a process without a cluster does
        head = {**node, "include_dashboard": False, "_system_config": same}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(**node)
        try:
            for count in counts.counts:
                figures = run(count, cluster.address)
                each, work = figures["wall"] / count * WORKERS, figures["in_worker"] / count
                beyond, cpu = (each - work) * 1e3, figures["cpu"] / count * 1e3
                print(
                    f"{count} songs: {each * 1e3:.1f} ms a song and worker, {work * 1e3:.1f} of it separation, "
                    f"{beyond:.1f} beyond; driver: {cpu:.1f} ms of processor a song, "
                    f"{figures['memory_warm']:.0f} MB after {WARM} songs, {figures['memory_end']:.0f} at the end; "
                    f"started after {figures['start']:.1f} s",
                    flush=True,
                )
                print(json.dumps({name: round(value, 3) for name, value in figures.items()}), flush=True)
        finally:
            cluster.shutdown()


if __name__ == "__main__":
    main()
