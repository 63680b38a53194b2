"""The last part of the flow: blocks of stems are mixed to rows, at the rate of the files, and written.

A row is the signal of one output file: a stem, the mixture, or the mixture without a stem (see `outputs`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from stemsplit.audio.decoding import Block, Stems
from stemsplit.audio.reading import Reader
from stemsplit.audio.resampling import resample
from stemsplit.audio.spool import Spool
from stemsplit.audio.tags import Tags, read_tags
from stemsplit.models.checkpoint import Header
from stemsplit.separation.outputs import Delivery, Report, Rows
from stemsplit.separation.streams import MixtureTap, match_input, match_length

OnProgress = Callable[[int, int | None], None]
Separate = Callable[[Iterable[Block], int], Iterator[Stems]]


def write_stems(
    reader: Reader,
    separate: Separate,
    header: Header,
    outputs: Mapping[str, Path],
    delivery: Delivery,
    *,
    consistent: bool,
    remainder: str,
    overwrite: bool,
    on_progress: OnProgress,
) -> Report:
    """Separate a song into files, for `Separator.separate_song`.

    Args:
        reader: The song, of which nothing has been read.
        separate: Turns blocks `(C, n)` at a rate into blocks `(S, C, n)` at the model's rate.
        header: Of the model.
        outputs: The file of each row, by name.
        delivery: How they are written.
        consistent: Make the stems add up to the mixture.
        remainder: The stem that is the mixture minus all others; empty if there is none.
        overwrite: Replace files that exist.
        on_progress: Called with the samples of the song done so far, and their number if the header states it.

    Raises:
        AudioError: The song cannot be read, or a stem cannot be written.
        UsageError: The outputs contradict the model or `delivery`.
    """
    rows = Rows(outputs, header.stems, consistent=consistent, remainder=remainder)
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
        spool = stack.enter_context(Spool(next(iter(outputs.values())))) if delivery.clip == "gain" else None
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
        untagged = tags.warnings if tags else ()
        warnings = (*reader.warnings, *(f"{str(reader.path)!r} {what}" for what in untagged), *writer.warnings)
        return Report(
            rate=rate,
            channels=reader.channels,
            length=writer.length,
            clipped=writer.clipped,
            warnings=warnings,
            peak=peak,
            gain=gain,
            consistent=consistent,
            incomplete=reader.incomplete,
        )


def _rows_of(rows: Rows, reader: Reader, rate: int, separate: Separate, header: Header) -> Iterator[Stems]:
    """Yield blocks `(R, C, n)` at `rate`, together as long as the song is at that rate."""
    resampled = resample(reader.blocks(), reader.rate, rate, channels=reader.channels)
    mixture = MixtureTap(resampled, keep=rows.needs_mixture)
    count = len(header.stems)
    matched = match_input(separate(mixture, rate), count, header, rate, reader.channels)
    for stems in match_length(matched, mixture, count, reader.channels):
        yield rows.mix(stems, mixture.take(stems.shape[-1]))


def _tags(reader: Reader) -> Tags | None:
    try:
        return read_tags(reader.path)
    except OSError:  # the file was deleted after it was opened
        return None
