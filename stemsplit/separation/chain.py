"""Running a chain of models on a stream: each step separates a stem of an earlier step, block by block."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from stemsplit.audio.decoding import Block, Stems
from stemsplit.dsp.level import Level
from stemsplit.models.ensemble import Chain, ChainStep
from stemsplit.separation.runner import EnsembleRunner, MeanRunner
from stemsplit.separation.streams import MixtureTap, match_input, match_length


def run_chain(
    chain: Chain,
    runners: Sequence[EnsembleRunner | MeanRunner],
    blocks: Iterable[Block],
    rate: int,
    level: Level | None = None,
) -> Iterator[Stems]:
    """Separate a stream with all steps of a chain. Memory does not depend on its length.

    What the steps after the first one separate exists only as a stream, so those whose networks expect it standardized
    go by its level so far.

    Args:
        chain: The steps.
        runners: Of the step of the same index.
        blocks: The mixture, in blocks `(C, n)` of any sizes, mono or stereo.
        rate: Of the mixture, Hz.
        level: Of the whole mixture, for the first step; see `EnsembleRunner.separate`.

    Yields:
        Blocks `(S, C, n)` of the stems of the chain, with its rate and channels; together they are as long as the
        resampled mixture.
    """
    names = chain.steps[0].stems
    stems = runners[0].separate(blocks, rate, level)
    for step, runner in zip(chain.steps[1:], runners[1:], strict=True):
        stems = _separate_stem(stems, names, step, runner, chain)
        names = (*(name for name in names if name != step.of), *step.stems)
    if names == chain.header.stems:
        yield from stems
    else:
        for block in stems:
            yield _sum_by_name(names, block, chain.header.stems)


def _separate_stem(
    stems: Iterable[Stems], names: Sequence[str], step: ChainStep, runner: EnsembleRunner | MeanRunner, chain: Chain
) -> Iterator[Stems]:
    """Replace one of the stems in blocks `(S, C, n)`, called `names`, by the stems that a step separates it into."""
    tap = MixtureTap(stems, keep=True)
    source = names.index(step.of)
    rate, channels = chain.header.rate, chain.header.channels
    count = len(step.stems)
    separated = runner.separate((block[source] for block in tap), rate)
    matched = match_input(separated, count, runner.ensemble.header, rate, channels)
    for added in match_length(matched, tap, count, channels):
        previous = tap.take(added.shape[-1])
        assert previous is not None
        yield np.concatenate([np.delete(previous, source, axis=0), added])


def _sum_by_name(names: Sequence[str], signals: Stems, stem_names: Sequence[str]) -> Stems:
    """Sum the signals `(R, C, n)` of each name in `stem_names`; those of other names are dropped."""
    stems = np.zeros((len(stem_names), *signals.shape[1:]), np.float32)
    for name, signal in zip(names, signals, strict=True):
        if name in stem_names:
            stems[stem_names.index(name)] += signal
    return stems
