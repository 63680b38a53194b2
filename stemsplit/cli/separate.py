"""The commands that separate songs: from what the user typed to a Request."""

import os
import shutil
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from stemsplit.models.loading import find, read_registry
from stemsplit.models.registry import FALLBACK
from stemsplit.separation.options import SeparationOptions
from stemsplit.signals import Stopped

if TYPE_CHECKING:
    from stemsplit.batch.tracks import Track
    from stemsplit.cli.requests import Request

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
    from stemsplit.batch import run
    from stemsplit.batch.standard_input import StandardInput
    from stemsplit.batch.templates import Template
    from stemsplit.cli.batch import separate_all
    from stemsplit.cli.console import Messages
    from stemsplit.cli.requests import Request
    from stemsplit.separation.outputs import Delivery

    context.meta["events"] = as_json and output != STDOUT
    bars = not (as_json and sys.stdout is not None and sys.stdout.isatty())  # both would go to the same terminal
    messages, known = Messages(quiet=quiet, verbose=verbose, bars=bars), read_registry(own)
    named = prevailing(context, "stems", "two_stems")
    rest = named == "two_stems"
    chosen = Format.parse(format, bits=bits, bitrate=bitrate, quality=quality)
    request = Request(
        model=choose_model(context, model, preset),
        stems=_parse_names(two_stems if rest else stems),
        rest=rest,
        mixture=mixture,
        stem_file=stem_file,
        player=player,
        delivery=Delivery(chosen, consistent=consistent, clip=clip, tags=tags),
        rate=_parse_rate(sample_rate),
        device=device,
        options=SeparationOptions(
            overlap=overlap, shifts=shifts, wiener=wiener, precision=precision, batch_size=batch_size
        ),
        track=track,
        jobs=jobs,
        overwrite=overwrite,
        skip_existing=skip_existing,
        dry_run=dry_run,
        as_json=as_json,
    )
    spec = find(known, request.model, request.stems)  # a wrong name is told before anything else
    request.check(spec)
    template = Template.parse(filename)
    # The file of a song from standard input is needed until the last one is done.
    to_stdout = output == STDOUT
    temporary = tempfile.TemporaryDirectory(prefix="stemsplit-") if to_stdout else nullcontext(output)
    with StandardInput() as stdin, temporary as folder:
        tracks, failed = run.find(
            songs,
            Path(folder),
            include=include or (),
            exclude=exclude or (),
            stdin=stdin,
            template=template,
            extension=chosen.extension.removeprefix("."),
            model=spec.name,
        )
        if not to_stdout:
            try:
                separate_all(tracks, failed, known, request, messages)
            except Stopped as stop:
                if len(tracks) > 1:
                    stop.hint = "the same command with --skip-existing goes on with the songs that are left"
                raise
            return
        _require_one(tracks, request)
        done = separate_all(tracks, failed, known, request.without_files(), messages)
        _write_out(next(iter(tracks[0].outputs(request.names(done)).values())))


def demo(
    output: Output = Path("separated"),
    device: Device = "auto",
    player: Player = False,
    overwrite: Overwrite = False,
) -> None:
    """Separate the song that comes with stemsplit.

    Writes FOLDER/demo/<stem>.wav, with the model that comes with stemsplit as well.
    """
    from stemsplit.batch import run
    from stemsplit.cli.batch import separate_all
    from stemsplit.cli.console import Messages
    from stemsplit.cli.requests import Request

    tracks, failed = run.find([str(DEMO)], output)
    messages = Messages()
    request = Request(model=FALLBACK, device=device, player=player, overwrite=overwrite)
    separate_all(tracks, failed, read_registry(None), request, messages)
    messages.note(f"The song is {DEMO}, its stems are in {tracks[0].folder.absolute()}: listen to them.")


def _parse_names(text: str | None) -> tuple[str, ...]:
    """`"a, b"` -> `("a", "b")`."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def _parse_rate(text: str) -> int | str | None:
    """Hz, "model", or None for that of the song."""
    if text in ("song", "model"):
        return None if text == "song" else text
    if text.isascii() and text.isdigit() and 1_000 <= int(text) <= 768_000:
        return int(text)
    raise UsageError(f"{text!r} is no sample rate", "write song, model, or a number of Hz such as 48000")


def _require_one(tracks: "list[Track]", request: "Request") -> None:
    """Standard output has room for one file."""
    if not request.one_file:
        hint = "name it, as in  --stems vocals,  and leave out --two-stems, --mixture, --stem-file and --player"
        raise UsageError("standard output has room for one stem", hint)
    if len(tracks) > 1:
        raise UsageError("standard output has room for one song", "name a folder with --output")
    if request.as_json:
        raise UsageError("standard output cannot have both a stem and JSON", "leave out --json, or name a folder")
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("a stem should not be written to a terminal", "send it to a file or a program:  > vocals.wav")


def _write_out(path: Path) -> None:
    """A file to standard output."""
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what could not be written is not tried again
        if isinstance(error, BrokenPipeError):
            raise
        raise StemsplitError(f"cannot write to standard output: {error.strerror}", "make room") from error
