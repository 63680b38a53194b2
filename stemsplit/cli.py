"""The command line: parse, check what is cheap, call one function. Nothing heavy is imported before it is needed."""

import difflib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from stemsplit import __version__, registry
from stemsplit.errors import StemsplitError, UsageError
from stemsplit.interruption import Stopped, raise_on_signals

if TYPE_CHECKING:
    from stemsplit.batch import Failed, Track
    from stemsplit.console import Messages

DEMO = Path(__file__).parent / "demo.ogg"


class Commands(TyperGroup):
    """The commands, with `separate` for whatever does not begin with the name of one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `separate` in front of songs and of its options; a misspelt command is no song, though."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names, "--version"):
            close = difflib.get_close_matches(args[0], self.commands, n=1, cutoff=0.75)
            if close and not Path(args[0]).exists():
                raise UsageError(f"there is no command and no song {args[0]!r}", f"did you mean  stemsplit {close[0]}")
            args = ["separate", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; when it is told to stop, end with one line and the exit code that shells expect."""
        try:
            return super().invoke(ctx)
        except Stopped as stop:
            print(
                f"stemsplit: stopped by {stop.name}",
                *([f"hint: {stop.hint}"] if stop.hint else []),
                sep="\n",
                file=sys.stderr,
            )
            raise typer.Exit(stop.exit_code) from None


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    subcommand_metavar="COMMAND | SONG...",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Output = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the stems go.")]
ModelName = Annotated[
    str, typer.Option("--model", "-m", metavar="MODEL", help="A model's name, or the path of a .safetensors file.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where the network runs; auto takes the fastest there is.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace stems that exist.")]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON object to standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stemsplit {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Turn songs into stems: vocals, drums, bass, other.

    Without a command songs are separated: stemsplit song.mp3 is short for stemsplit separate song.mp3.
    """


@app.command()
def separate(
    songs: Annotated[list[str], typer.Argument(metavar="SONG", help="Audio files, and folders of them.")],
    output: Output = Path("separated"),
    model: ModelName = registry.DEFAULT,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Separate songs into stems.

    Writes FOLDER/<song>/<stem>.wav, and the paths of the stems to standard output. Folders are searched for songs
    recursively, and mirrored in FOLDER.
    """
    from stemsplit import batch
    from stemsplit.console import Messages

    spec = registry.find(model)
    tracks, failed = batch.find(songs, output)
    _separate(tracks, failed, spec, device, overwrite=overwrite, as_json=as_json, messages=Messages(quiet=quiet))


@app.command()
def demo(
    output: Output = Path("separated"),
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Separate the song that comes with stemsplit.

    Writes FOLDER/demo/<stem>.wav, with the model that comes with stemsplit as well.
    """
    from stemsplit import batch
    from stemsplit.console import Messages

    tracks, failed = batch.find([str(DEMO)], output)
    spec, messages = registry.find("mini"), Messages()
    _separate(tracks, failed, spec, device, overwrite=overwrite, as_json=False, messages=messages)
    messages.note(f"The song is {DEMO}, its stems are in {tracks[0].folder.absolute()}: listen to them.")


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder with one folder of true stems for each song.")],
    model: ModelName = registry.DEFAULT,
    device: Device = "auto",
    references: Annotated[
        bool, typer.Option(help="Score the mixture itself and the ideal ratio mask, too, for comparison.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on songs with known stems.

    Prints the SDR in dB by song and stem, and its means beside those of two references: the mixture itself as every
    stem, and the ideal ratio mask.
    """
    from stemsplit import console

    messages = console.Messages(quiet=quiet)
    spec = registry.find(model)
    with messages.progress(f"loading {spec.name}"):
        from stemsplit import checkpoint, devices, evaluation
        from stemsplit.songs import find_songs

        found = find_songs(data, spec.stems)
        chosen = devices.choose(device)
        loaded = checkpoint.load(spec.path, chosen)
    scorers = {spec.name: evaluation.evaluate(loaded, found, device=chosen)}
    if references:
        scorers["mixture"] = evaluation.evaluate_mixture(found, spec.stems)
        scorers["ideal ratio mask"] = evaluation.evaluate_ideal_mask(found, spec.stems)
    tables: dict[str, list[evaluation.SongScores]] = {name: [] for name in scorers}
    for name, rows in tables.items():
        with messages.progress(f"scoring: {name}") as on_progress, devices.memory_checked(chosen):
            for row in scorers[name]:
                rows.append(row)
                on_progress(len(rows), len(found))
    songs = {name: {row.song: _with_mean(row.sdr) for row in rows} for name, rows in tables.items()}
    means = {name: _with_mean(evaluation.mean_scores(rows)) for name, rows in tables.items()}
    if as_json:
        sdr = {name: {"songs": songs[name], "mean": means[name]} for name in tables}
        console.write_json({"model": spec.name, "device": chosen, "sdr": sdr})
    else:
        means = {f"mean: {name}": values for name, values in means.items()}
        console.write_table("SDR in dB", [*spec.stems, "mean"], [songs[spec.name], means])


@app.command()
def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder with one folder of stems for each song.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where weights and state go.")],
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings in TOML; without it, the defaults.")
    ] = None,
    valid: Annotated[Path | None, typer.Option(metavar="DATA", help="Songs to validate on, never trained on.")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Begin with these weights, not with random ones.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last epoch in FOLDER.")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="How many in all, instead of the recipe's.")] = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that read and mix the songs.")] = 1,
    validate_every: Annotated[int, typer.Option(min=1, help="Validate after every so many epochs.")] = 1,
) -> None:
    """Train a network on songs with known stems.

    Stop it with Ctrl-C at any time, and go on with --resume.
    """
    from stemsplit import console

    messages = console.Messages()
    with messages.progress("starting"):
        from stemsplit import devices, evaluation
        from stemsplit.songs import find_songs
        from stemsplit.training import fit
        from stemsplit.training.recipe import Recipe, load_recipe

        settings = Recipe() if recipe is None else load_recipe(recipe)
        if epochs is not None:
            settings = replace(settings, epochs=epochs)
        songs = find_songs(data, settings.stems)
        valid_songs = [] if valid is None else find_songs(valid, settings.stems)
        chosen = devices.choose(device)
    messages.note(f"{len(songs)} songs to train on, {len(valid_songs)} to validate on, device {chosen}")
    try:
        with messages.training(settings.epochs, settings.steps) as progress, devices.memory_checked(chosen):
            run = partial(fit.fit, start=start, resume=resume, device=chosen, workers=workers)
            on_step = progress.step
            for epoch in run(settings, songs, valid_songs, output, validate_every=validate_every, on_step=on_step):
                scores = _with_mean(evaluation.mean_scores(epoch.scores)) if epoch.scores else {}
                progress.finish(epoch.number, epoch.loss, scores, epoch.seconds)
    except Stopped as stop:
        command = shlex.join(["stemsplit", *sys.argv[1:], *([] if resume else ["--resume"])])
        saved = (output / fit.STATE).exists()
        stop.hint = f"go on with  {command}" if saved else "no epoch was finished, so there is nothing to go on from"
        raise
    console.write(str(output / fit.WEIGHTS))


def _separate(
    tracks: Sequence["Track"],
    failed: Sequence["Failed"],
    spec: registry.ModelSpec,
    device: str,
    *,
    overwrite: bool,
    as_json: bool,
    messages: "Messages",
) -> None:
    """What `separate` and `demo` share; exits with 1 if any song failed."""
    from stemsplit import batch, console

    ready, refused = batch.check(tracks, spec.stems, overwrite=overwrite)
    results: list[batch.Done | batch.Failed] = [*failed, *refused]
    for failure in (*failed, *refused):
        messages.error(failure.error)
    if ready:
        # Only now, as torch takes seconds to import.
        with messages.progress(f"loading {spec.name}"):
            from stemsplit import checkpoint, devices
            from stemsplit.separation import separate_file

            chosen = devices.choose(device)
            model = checkpoint.load(spec.path, chosen)
    for number, track in enumerate(ready, start=1):
        label = track.source.name if len(ready) == 1 else f"{number}/{len(ready)} {track.source.name}"
        with messages.progress(label) as on_progress, devices.memory_checked(chosen):
            work = partial(separate_file, model=model, device=chosen, overwrite=overwrite, on_progress=on_progress)
            result = batch.run(track, spec.stems, work)
        results.append(result)
        if isinstance(result, batch.Failed):
            messages.error(result.error)
            continue
        messages.separated(track.source, track.folder, result.report, result.seconds)
        if not as_json:
            for path in track.outputs(spec.stems).values():
                console.write(str(path))
    if as_json:
        console.write_json({"model": spec.name, "songs": [batch.describe(result, spec.stems) for result in results]})
    broken = sum(isinstance(result, batch.Failed) for result in results)
    if len(results) > 1:
        messages.note(f"{len(results) - broken} of {len(results)} songs separated, {broken} failed")
    if broken:
        raise typer.Exit(1)


def _with_mean(sdr: Mapping[str, float]) -> dict[str, float]:
    from stemsplit.evaluation import mean_sdr

    return {**sdr, "mean": mean_sdr(sdr)}


def main() -> None:
    """The one place where errors become messages and exit codes; what is not ours is a bug and keeps its traceback."""
    raise_on_signals()
    try:
        app()
    except StemsplitError as error:
        from stemsplit.console import Messages

        Messages().error(error)
        sys.exit(error.exit_code)
