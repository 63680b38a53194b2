"""The commands `separate` and `demo`: they turn the options into one call of `separate_batch`."""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stemsplit import devices
from stemsplit.cli.defaults import Preset, choose_model, is_typed, prevailing
from stemsplit.cli.options import (
    FORMATS,
    AcceptLicense,
    BatchSize,
    Bitrate,
    Bits,
    Clip,
    Cluster,
    Consistent,
    CpusPerWorker,
    Device,
    DryRun,
    Exclude,
    Filename,
    FormatName,
    GpusPerWorker,
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
    Print0,
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
from stemsplit.models.registry import COMPLEMENT, FALLBACK, read_registry, resolve_complement
from stemsplit.separation.options import SeparationOptions
from stemsplit.signals import Stopped
from stemsplit.storage.redaction import redact

if TYPE_CHECKING:
    from stemsplit.batch.templates import Template

DEMO = Path(__file__).parent.parent / "demo.ogg"
STDOUT = "-"


def separate(
    context: typer.Context,
    songs: Annotated[
        list[str],
        typer.Argument(
            metavar="SONG", help="Audio files and films, folders, playlists, patterns, URLs; - is standard input."
        ),
    ],
    output: Output = "separated",
    model: ModelName = None,
    preset: Preset = None,
    own: RegistryFile = None,
    accept_license: AcceptLicense = False,
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
    cluster: Cluster = None,
    gpus_per_worker: GpusPerWorker = 1.0,
    cpus_per_worker: CpusPerWorker = None,
    overlap: Overlap = None,
    shifts: Shifts = 0,
    wiener: Wiener = 0,
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    as_json: Json = False,
    print0: Print0 = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Separate songs into stems.

    Writes FOLDER/<song>/<stem>.wav, and the paths of the stems to standard output. Folders are searched for songs
    recursively, and mirrored in FOLDER.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose contradict each other", "leave one of them out")
    devices.check_limit()
    from stemsplit.audio.formats import Format
    from stemsplit.batch.cluster import ClusterOptions
    from stemsplit.batch.run import separate_batch
    from stemsplit.cli.batch import BatchPrinter
    from stemsplit.cli.console import Messages
    from stemsplit.cli.download import download
    from stemsplit.separation.outputs import Delivery

    registry = read_registry(own)
    named = choose_model(context, model, preset)
    spec = registry.find(named)
    place = _Place.of(context, output, format)
    context.meta["events"] = as_json and output != STDOUT
    bars = not (as_json and sys.stdout is not None and sys.stdout.isatty())  # both would go to the same terminal
    messages = Messages(quiet=quiet, verbose=verbose, bars=bars)
    complement = prevailing(context, "stems", "two_stems") == "two_stems"
    delivery = Delivery(
        Format.parse(place.format, bits=bits, bitrate=bitrate, quality=quality),
        rate=_parse_rate(sample_rate),
        consistent=consistent,
        clip=clip,
        tags=tags,
    )
    wanted = _parse_names(two_stems if complement else stems, spec.stems)
    if place.single:
        if len(wanted) != 1 or mixture or stem_file or player:
            hint = (
                "name it, as in  --stems vocals,  and leave out --mixture, --stem-file and --player; or name a folder"
            )
            raise UsageError(f"{place.single} has room for one stem", hint)
        complement = False  # the first of the two stems
    if spec.stems:
        spec, wanted, complement = resolve_complement(spec.only(wanted), wanted, complement)
    if output == STDOUT:
        _check_stdout(json=as_json)
    machines = None
    if cluster:
        if output == STDOUT:
            raise UsageError(
                "the machines of a cluster cannot write to the standard output of this one", "name a folder"
            )
        machines = ClusterOptions(
            address=cluster,
            gpus_per_worker=gpus_per_worker,
            cpus_per_worker=cpus_per_worker,
            workers=jobs if is_typed(context, "jobs") else None,
        )
    printer = BatchPrinter(
        messages, as_json=as_json, single=place.single, player=player, dry_run=dry_run, end=b"\0" if print0 else b"\n"
    )
    temporary = make_temporary_folder("a stem on standard output") if output == STDOUT else nullcontext(place.folder)
    with temporary as folder:
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
                    filename=place.template(filename),
                    include=include or (),
                    exclude=exclude or (),
                    audio_stream=track,
                    device=device,
                    jobs=jobs,
                    skip_existing=skip_existing and not place.single,
                    overwrite=overwrite,
                    dry_run=dry_run,
                    manifests=not place.single,
                    cluster=machines,
                    download=partial(
                        download,
                        messages=messages,
                        stems=wanted,
                        accept_license=accept_license,
                        fallback=None if named else registry.find(FALLBACK),
                    ),
                    on_event=printer,
                )
        except Stopped as stop:
            if printer.count > 1:
                stop.hint = "the same command with --skip-existing goes on with the songs that are left"
            raise
        printer.close(report)
        if output == STDOUT:
            for song in report.done:
                _write_out(*(path for path in song.outputs.values() if isinstance(path, Path)))


def demo(
    output: OutputFolder = Path("separated"),
    device: Device = "auto",
    player: Player = False,
    overwrite: Overwrite = False,
) -> None:
    """Separate the song that comes with stemsplit.

    Writes FOLDER/demo/<stem>.wav, with the model that comes with stemsplit as well.
    """
    devices.check_limit()
    from stemsplit.batch.run import separate_batch
    from stemsplit.cli.batch import BatchPrinter
    from stemsplit.cli.console import Messages

    if str(output) == STDOUT:
        raise UsageError("standard output has room for one stem, and the demo writes four", "name a folder")
    messages = Messages()
    printer = BatchPrinter(messages, player=player)
    with printer, messages.log_shown():
        report = separate_batch(
            DEMO,
            output,
            model=FALLBACK,
            player=player,
            device=device,
            skip_existing=not overwrite,
            overwrite=overwrite,
            on_event=printer,
        )
    printer.close(report)
    track = (report.done[0] if report.done else report.skipped[0]).track  # a failure has ended the program
    messages.note(f"The song is {DEMO}. Its stems are in {Path(str(track.folder)).absolute()}.")
    if player:
        messages.note(f"To listen to them, open {Path(str(track.player_page)).absolute()} in a browser.")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where stems go: a folder, or one place for the only stem of the only song.

    Attributes:
        folder: The folder; that of the file, if it is one.
        format: Of the stems.
        single: The name of the place in messages, if it has room for one stem; else empty.
        file: The name of the file; empty if it is a folder or standard output.
    """

    folder: str
    format: str
    single: str = ""
    file: str = ""

    @classmethod
    def of(cls, context: typer.Context, output: str, format: str) -> "_Place":
        """Return the place that --output and --format name; a name that ends like an audio file is one, unless a folder
        has it.

        Raises:
            UsageError: They contradict each other.
        """
        if output == STDOUT:
            return cls(output, format, "standard output")
        name = output.rstrip("/").rpartition("/")[2] if "://" in output else Path(output).name
        suffix = Path(name).suffix.lower().removeprefix(".")
        if suffix not in FORMATS or os.path.isdir(output):  # noqa: PTH112 (never raises)
            return cls(output, format)
        shown = repr(redact(output))
        if is_typed(context, "format"):
            if format != suffix and (format, suffix) != ("alac", "m4a"):
                raise UsageError(f"--format {format} and the name {shown} contradict each other", "leave one out")
        else:
            format = suffix
        if is_typed(context, "filename"):
            raise UsageError(f"--filename and the file {shown} contradict each other", "name a folder")
        above = output[: -len(name)] if "://" in output else str(Path(output).parent)
        return cls(above, format, shown, name)

    def template(self, text: str) -> "str | Template":
        """Return how files are named: by a template as the user typed it, unless it is one file."""
        from stemsplit.batch.templates import Template

        return Template.of_one_file(self.file) if self.file else text


def _parse_names(text: str | None, known: Sequence[str]) -> tuple[str, ...]:
    """Split `"a, b"` into `("a", "b")`, spelt as the stems of the model, if these are known."""
    spellings = {name.casefold(): name for name in (*(COMPLEMENT + stem for stem in known), *known)}
    names = [name.strip() for name in text.split(",") if name.strip()] if text else []
    return tuple(dict.fromkeys(spellings.get(name.casefold(), name) for name in names))


def _parse_rate(text: str) -> int | Literal["model"] | None:
    """Return a rate in Hz, "model", or None for that of the song."""
    if text.lower() == "song":
        return None
    if text.lower() == "model":
        return "model"
    if number := re.fullmatch(r"(\d{1,7}(?:\.\d{1,3})?) ?(k?)(?:hz)?", text.strip().lower()):
        rate = float(number[1]) * (1000 if number[2] else 1)
        if rate.is_integer() and 1_000 <= rate <= 768_000:
            return int(rate)
    raise UsageError(f"invalid sample rate {text!r}", "write song, model, or a number of Hz such as 48000 or 48k")


def _check_stdout(*, json: bool) -> None:
    """Raise UsageError if a stem cannot be written to standard output."""
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
