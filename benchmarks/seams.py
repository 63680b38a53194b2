"""How far the windowed result is from one pass of the same network over the whole song.

In dB, the energy of the difference over the energy of the stem; and the same only where one window takes over from the
next, against elsewhere: a boundary that is heard would stand out there.
"""

import argparse

import numpy as np
import torch
from material import demo_song

from stemsplit.models import checkpoint, hub, registry
from stemsplit.separation.separator import Separator


def decibels(part: torch.Tensor, whole: torch.Tensor) -> float:
    return float(10 * torch.log10(part.square().mean() / whole.square().mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    arguments = parser.parse_args()
    model = checkpoint.load(hub.obtain(registry.read().find(arguments.model))[1][0])
    samples, rate = demo_song()
    mixture = np.ascontiguousarray(samples.T)
    windowed = torch.from_numpy(np.concatenate(list(Separator(model).separate([mixture], rate)), axis=-1))
    with torch.inference_mode():
        whole = model.network(torch.from_numpy(mixture)[None])[0]
    difference = windowed - whole
    plan = model.header.plan
    # A window begins at every multiple of the hop; from the second on it fades in where the one before fades out.
    place = torch.arange(mixture.shape[-1])
    fading = (place % plan.hop < plan.length - plan.hop) & (place >= plan.hop)
    print(f"{'stem':>8} {'all':>7} {'in cross-fades':>15} {'elsewhere':>10}   dB")
    for stem, error, true in zip(model.header.stems, difference, whole, strict=True):
        rows = (decibels(error, true), decibels(error[:, fading], true), decibels(error[:, ~fading], true))
        print(f"{stem:>8} {rows[0]:7.1f} {rows[1]:15.1f} {rows[2]:10.1f}")
    jump = windowed.diff(dim=-1).abs()
    starts = torch.arange(plan.hop, mixture.shape[-1] - 1, plan.hop) - 1
    typical = jump.flatten(0, 1).quantile(0.999, dim=-1).clamp(min=1e-6)
    largest = float((jump.flatten(0, 1)[:, starts].amax(-1) / typical).max())
    print(f"largest step between samples where a window begins: {largest:.2f} of the 99.9 % quantile elsewhere")


if __name__ == "__main__":
    main()
