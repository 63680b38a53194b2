"""How far separation in windows is from one pass of the same network over the whole song.

The figures are the energy of the difference relative to that of the stem, in dB: over the whole song, inside
cross-fades, and elsewhere. A boundary that can be heard would stand out inside the cross-fades. For models of one
network.
"""

import argparse

import numpy as np
import torch
from demo_audio import demo_song

from stemsplit.separation.separator import Separator


def decibels(part: torch.Tensor, whole: torch.Tensor) -> float:
    return float(10 * torch.log10(part.square().mean() / whole.square().mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    separator = Separator.load(parser.parse_args().model, device="cpu")
    (runner,) = separator.runners
    (member,) = runner.ensemble.members
    samples, rate = demo_song()
    mixture = np.ascontiguousarray(samples.T)
    windowed = torch.from_numpy(np.concatenate(list(separator.separate([mixture], rate)), axis=-1))
    with torch.inference_mode():
        whole = member.prepare()(torch.from_numpy(mixture)[None])[0]
    difference = windowed - whole
    plan = runner.plan
    # A window starts at every multiple of the hop; from the second on it fades in where the one before fades out.
    position = torch.arange(mixture.shape[-1])
    fading = (position % plan.hop < plan.length - plan.hop) & (position >= plan.hop)
    print(f"{'stem':>8} {'all':>7} {'in cross-fades':>15} {'elsewhere':>10}   dB")
    for stem, error, reference in zip(separator.stems, difference, whole, strict=True):
        levels = [decibels(error[:, some], reference[:, some]) for some in (slice(None), fading, ~fading)]
        print(f"{stem:>8} {levels[0]:7.1f} {levels[1]:15.1f} {levels[2]:10.1f}")
    steps = windowed.diff(dim=-1).abs()
    starts = torch.arange(plan.hop, mixture.shape[-1] - 1, plan.hop) - 1
    typical = steps.flatten(0, 1).quantile(0.999, dim=-1).clamp(min=1e-6)
    largest = float((steps.flatten(0, 1)[:, starts].amax(-1) / typical).max())
    print(f"largest step between samples where a window starts: {largest:.2f} of the 99.9 % quantile elsewhere")


if __name__ == "__main__":
    main()
