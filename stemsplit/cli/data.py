"""The commands for folders of songs with known stems."""

from pathlib import Path
from typing import Annotated

import typer

from stemsplit.cli.options import Json, Quiet
from stemsplit.errors import UsageError

USUAL = "vocals,drums,bass,other"

app = typer.Typer(help="Look after songs with known stems.", no_args_is_help=True)


@app.callback()
def common() -> None:
    """Look after songs with known stems."""


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Songs as folders of stems, or as .stem.mp4 files.")],
    stems: Annotated[str, typer.Option("--stems", metavar="NAMES", help="The stems that a song has.")] = USUAL,
    quick: Annotated[bool, typer.Option("--quick", help="Look at headers only, and do not listen.")] = False,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Stems that are missing or silent are not wrong.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is wrong with songs: a line for each fault, and exit code 1 if there is one.

    Lengths, rates and channels that differ, stems that are missing or silent, files that are damaged or cut off, and
    stems that do not add up to the mixture.
    """
    from stemsplit.cli import console

    names = tuple(dict.fromkeys(name.strip() for name in stems.split(",") if name.strip()))
    if not names:
        raise UsageError("--stems names none", f"for instance --stems {USUAL}")
    messages = console.Messages(quiet=quiet)
    with messages.loading("starting"):
        from stemsplit.datasets import check as faults
    with messages.progress(f"checking {folder}") as on_progress:
        survey = faults.survey(folder, names, thorough=not quick, missing_ok=missing_ok, on_progress=on_progress)
    if as_json:
        rows = [{"song": fault.song, "kind": fault.kind, "told": fault.told} for fault in survey.faults]
        console.write_json({"songs": survey.songs, "seconds": survey.seconds, "faults": rows})
    else:
        for fault in survey.faults:
            console.write(console.printable(f"{fault.song}: {fault.told}"))
        wrong = len({fault.song for fault in survey.faults})
        told = f"{survey.songs} songs, {console.duration(survey.seconds)}"
        messages.note(f"{told}; something is wrong with {wrong}" if wrong else f"{told}; nothing is wrong")
    if survey.faults:
        raise typer.Exit(1)
