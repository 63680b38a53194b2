"""Models in a row: a step separates a stem that an earlier step gave, as it comes."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from stemsplit.audio.decoding import Block, Stems
from stemsplit.models.ensemble import Chain, ChainStep
from stemsplit.separation.runner import EnsembleRunner
from stemsplit.separation.streams import MixtureTap, match_input


def run_chain(chain: Chain, runners: Sequence[EnsembleRunner], blocks: Iterable[Block], rate: int) -> Iterator[Stems]:
    """Separate a stream by the steps of a chain. Memory does not depend on its length.

    Args:
        chain: the steps.
        runners: of the step of the same index.
        blocks: the mixture, in blocks `(C, n)` of any sizes, mono or stereo.
        rate: of the mixture, Hz.

    Yields:
        Blocks `(S, C, n)` of the stems of the chain, with its rate and channels; together they are as long as the
        resampled mixture.
    """
    names = chain.steps[0].stems
    stems = runners[0].separate(blocks, rate)
    for step, runner in zip(chain.steps[1:], runners[1:], strict=True):
        stems = _separate_stem(stems, names, step, runner, chain)
        names = (*(name for name in names if name != step.of), *step.stems)
    if names == chain.header.stems:
        yield from stems
    else:
        for block in stems:
            yield _sum_by_name(names, block, chain.header.stems)


def _separate_stem(
    stems: Iterable[Stems], names: Sequence[str], step: ChainStep, runner: EnsembleRunner, chain: Chain
) -> Iterator[Stems]:
    """Replace one of the stems in blocks `(S, C, n)`, whose `names` are given, by what a step makes of it."""
    tap = MixtureTap(stems, keep=True)
    source = names.index(step.of)
    rate, channels = chain.header.rate, chain.header.channels

    def replaced(added: Stems) -> Stems:
        others = tap.take(added.shape[-1])
        assert others is not None
        return np.concatenate([np.delete(others, source, axis=0), added])

    done = 0
    added = runner.separate((block[source] for block in tap), rate)
    for block in match_input(added, len(step.stems), runner.ensemble.header, rate, channels):
        block = block[..., : tap.length - done]
        done += block.shape[-1]
        yield replaced(block)
    # Resampling to the rate of the step and back can end a sample early.
    if missing := tap.length - done:
        yield replaced(np.zeros((len(step.stems), channels, missing), np.float32))


def _sum_by_name(names: Sequence[str], rows: Stems, wanted: Sequence[str]) -> Stems:
    """Rows `(R, C, n)` called `names` as one for each wanted name: rows of the same name add up, others are dropped."""
    stems = np.zeros((len(wanted), *rows.shape[1:]), np.float32)
    for name, row in zip(names, rows, strict=True):
        if name in wanted:
            stems[wanted.index(name)] += row
    return stems
