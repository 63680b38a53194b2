"""The last part of the flow: stems and mixture, as they come -> rows -> files."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stemsplit.audio.decoding import Block, Stems
from stemsplit.audio.reading import Reader
from stemsplit.audio.resampling import resample
from stemsplit.audio.spool import Spool
from stemsplit.audio.tags import Tags, read_tags
from stemsplit.models.checkpoint import Header
from stemsplit.separation.outputs import Delivery, Rows
from stemsplit.separation.streams import MixtureTap, as_the_input

OnProgress = Callable[[int, int | None], None]
Separate = Callable[[Iterable[Block], int], Iterator[Stems]]


@dataclass(frozen=True, slots=True)
class Report:
    """What `Separator.separate_file` did.

    Args:
        rate: Hz. channels: of each stem. length: samples of each stem.
        clipped: samples beyond full scale, over all stems.
        warnings: sentences about what was folded down, missing or damaged in the input, and about memory.
        peak: the greatest magnitude of a sample before anything was clipped or turned down, over all stems.
        gain: the factor by which all stems were turned down, so that none clips; 1 if they were not.
    """

    rate: int
    channels: int
    length: int
    clipped: int
    warnings: tuple[str, ...]
    peak: float = 0.0
    gain: float = 1.0


def write_stems(
    reader: Reader,
    separate: Separate,
    header: Header,
    outputs: Mapping[str, Path],
    delivery: Delivery,
    *,
    consistent: bool,
    overwrite: bool,
    on_progress: OnProgress,
) -> Report:
    """Separate one song into files; `Separator.separate_file` says how. separate: blocks at a rate -> stems."""
    rows = Rows(outputs, header.stems, consistent=consistent)
    rate = delivery.rate_for(reader.rate, header.rate)
    scale = rate / reader.rate
    expected = None if reader.length is None else round(reader.length * scale)
    tags = _tags(reader) if delivery.tags else None
    with ExitStack() as stack:
        writer = stack.enter_context(
            rows.writer(
                delivery,
                rate=rate,
                channels=reader.channels,
                expected_length=expected,
                tags=tags,
                overwrite=overwrite,
            )
        )
        near = next(iter(outputs.values()))
        spool = stack.enter_context(Spool(near)) if delivery.clip == "gain" else None
        write = spool.write if spool else writer.write
        length = 0
        for block in _rows_of(rows, reader, rate, separate, header):
            write(block)
            length += block.shape[-1]
            on_progress(round(length / scale), reader.length)
        gain = 1.0
        if spool:
            gain = 1 / max(1.0, float(spool.peaks.max(initial=0)))
            for block in spool.blocks():
                writer.write(block if gain == 1 else block * np.float32(gain))
        peak = float(spool.peaks.max(initial=0)) if spool else writer.peak
        told = (*reader.warnings, *writer.warnings)
        return Report(rate, reader.channels, writer.length, writer.clipped, told, peak, gain)


def _rows_of(rows: Rows, reader: Reader, rate: int, separate: Separate, header: Header) -> Iterator[Stems]:
    """Blocks `(R, C, n)` at `rate`, together as long as the song is then."""
    resampled = resample(reader.blocks(), reader.rate, rate, channels=reader.channels)
    mixture = MixtureTap(resampled, keep=rows.need_mixture)
    done, count = 0, len(header.stems)
    for stems in as_the_input(separate(mixture, rate), count, header, rate, reader.channels):
        stems = stems[..., : mixture.length - done]
        done += stems.shape[-1]
        yield rows.mix(stems, mixture.take(stems.shape[-1]))
    # Resampling there and back may end a sample early.
    if missing := mixture.length - done:
        yield rows.mix(np.zeros((count, reader.channels, missing), np.float32), mixture.take(missing))


def _tags(reader: Reader) -> Tags | None:
    try:
        return read_tags(reader.path)
    except OSError:  # the song is open, but its file is gone
        return None
