"""The commands `separate` and `demo`: they turn the options into one call of `separate_batch`."""

import os
import shutil
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from stemsplit.cli.defaults import Preset, choose_model, prevailing
from stemsplit.cli.options import (
    BatchSize,
    Bitrate,
    Bits,
    Clip,
    Consistent,
    Device,
    DryRun,
    Exclude,
    Filename,
    FormatName,
    Include,
    Jobs,
    Json,
    Mixture,
    ModelName,
    Output,
    OutputFolder,
    Overlap,
    Overwrite,
    Player,
    Precision,
    Quality,
    Quiet,
    RegistryFile,
    SampleRate,
    Shifts,
    SkipExisting,
    SoundTrack,
    StemFile,
    Stems,
    Tags,
    TwoStems,
    Verbose,
    Wiener,
)
from stemsplit.errors import StemsplitError, UsageError
from stemsplit.files import make_temporary_folder
from stemsplit.models.registry import FALLBACK, read_registry
from stemsplit.separation.options import SeparationOptions
from stemsplit.signals import Stopped

DEMO = Path(__file__).parent.parent / "demo.ogg"
STDOUT = Path("-")


def separate(
    context: typer.Context,
    songs: Annotated[
        list[str],
        typer.Argument(
            metavar="SONG", help="Audio files and films, folders, playlists, patterns; - is standard input."
        ),
    ],
    output: Output = Path("separated"),
    model: ModelName = None,
    preset: Preset = None,
    own: RegistryFile = None,
    stems: Stems = None,
    two_stems: TwoStems = None,
    mixture: Mixture = False,
    stem_file: StemFile = False,
    player: Player = False,
    format: FormatName = "wav",
    bits: Bits = None,
    bitrate: Bitrate = None,
    quality: Quality = None,
    sample_rate: SampleRate = "song",
    clip: Clip = "clamp",
    consistent: Consistent = None,
    tags: Tags = True,
    filename: Filename = "{track}/{stem}.{ext}",
    include: Include = None,
    exclude: Exclude = None,
    track: SoundTrack = 1,
    skip_existing: SkipExisting = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    device: Device = "auto",
    jobs: Jobs = 1,
    overlap: Overlap = None,
    shifts: Shifts = 0,
    wiener: Wiener = 0,
    precision: Precision = "full",
    batch_size: BatchSize = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Separate songs into stems.

    Writes FOLDER/<song>/<stem>.wav, and the paths of the stems to standard output. Folders are searched for songs
    recursively, and mirrored in FOLDER.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose contradict each other", "leave one of them out")
    from stemsplit.audio.formats import Format
    from stemsplit.batch.run import separate_batch
    from stemsplit.cli.batch import BatchPrinter
    from stemsplit.cli.console import Messages
    from stemsplit.cli.download import download
    from stemsplit.separation.outputs import Delivery

    to_stdout = output == STDOUT
    context.meta["events"] = as_json and not to_stdout
    bars = not (as_json and sys.stdout is not None and sys.stdout.isatty())  # both would go to the same terminal
    messages, registry = Messages(quiet=quiet, verbose=verbose, bars=bars), read_registry(own)
    complement = prevailing(context, "stems", "two_stems") == "two_stems"
    delivery = Delivery(
        Format.parse(format, bits=bits, bitrate=bitrate, quality=quality),
        rate=_parse_rate(sample_rate),
        consistent=consistent,
        clip=clip,
        tags=tags,
    )
    named, wanted = choose_model(context, model, preset), _parse_names(two_stems if complement else stems)
    spec = registry.find(named, wanted)
    fallback = None if named else registry.find(FALLBACK)
    if to_stdout:
        _check_stdout(one_stem=len(wanted) == 1 and not (complement or mixture or stem_file or player), json=as_json)
    printer = BatchPrinter(messages, as_json=as_json, to_stdout=to_stdout, player=player, dry_run=dry_run)
    with make_temporary_folder("a stem on standard output") if to_stdout else nullcontext(output) as folder:
        try:
            with printer, messages.log_shown():
                report = separate_batch(
                    songs,
                    folder,
                    model=spec,
                    stems=wanted,
                    complement=complement,
                    mixture=mixture,
                    stem_file=stem_file,
                    player=player,
                    options=SeparationOptions(
                        overlap=overlap, shifts=shifts, wiener=wiener, precision=precision, batch_size=batch_size
                    ),
                    delivery=delivery,
                    filename=filename,
                    include=include or (),
                    exclude=exclude or (),
                    audio_stream=track,
                    device=device,
                    jobs=jobs,
                    skip_existing=skip_existing and not to_stdout,
                    overwrite=overwrite,
                    dry_run=dry_run,
                    manifests=not to_stdout,
                    download=partial(download, messages=messages, stems=wanted, fallback=fallback),
                    on_event=printer,
                )
        except Stopped as stop:
            if printer.count > 1:
                stop.hint = "the same command with --skip-existing goes on with the songs that are left"
            raise
        printer.close(report)
        if to_stdout:
            for song in report.done:
                _write_out(*song.outputs.values())


def demo(
    output: OutputFolder = Path("separated"),
    device: Device = "auto",
    player: Player = False,
    overwrite: Overwrite = False,
) -> None:
    """Separate the song that comes with stemsplit.

    Writes FOLDER/demo/<stem>.wav, with the model that comes with stemsplit as well.
    """
    from stemsplit.batch.run import separate_batch
    from stemsplit.cli.batch import BatchPrinter
    from stemsplit.cli.console import Messages

    if output == STDOUT:
        raise UsageError("standard output has room for one stem, and the demo writes four", "name a folder")
    messages = Messages()
    printer = BatchPrinter(messages, player=player)
    with printer:
        report = separate_batch(
            DEMO, output, model=FALLBACK, player=player, device=device, overwrite=overwrite, on_event=printer
        )
    printer.close(report)
    track = report.done[0].track
    messages.note(f"The song is {DEMO}. Its stems are in {track.folder.absolute()}.")
    if player:
        messages.note(f"To listen to them, open {track.player_page.absolute()} in a browser.")


def _parse_names(text: str | None) -> tuple[str, ...]:
    """Split `"a, b"` into `("a", "b")`."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def _parse_rate(text: str) -> int | Literal["model"] | None:
    """Return a rate in Hz, "model", or None for that of the song."""
    if text == "song":
        return None
    if text == "model":
        return "model"
    if text.isascii() and text.isdigit() and 1_000 <= int(text) <= 768_000:
        return int(text)
    raise UsageError(f"invalid sample rate {text!r}", "write song, model, or a number of Hz such as 48000")


def _check_stdout(*, one_stem: bool, json: bool) -> None:
    """Raise UsageError if the request cannot be written to standard output."""
    if not one_stem:
        hint = "name it, as in  --stems vocals,  and leave out --two-stems, --mixture, --stem-file and --player"
        raise UsageError("standard output has room for one stem", hint)
    if json:
        raise UsageError("standard output cannot have both a stem and JSON", "leave out --json, or name a folder")
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("a stem should not be written to a terminal", "send it to a file or a program:  > vocals.wav")


def _write_out(path: Path) -> None:
    """Copy a file to standard output."""
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python does not try again at exit
        if isinstance(error, BrokenPipeError):
            raise
        raise StemsplitError(f"cannot write to standard output: {error.strerror}", "make room") from error
