"""`stemsplit data`: commands for datasets, songs whose stems are known."""

from pathlib import Path
from typing import Annotated

import typer

from stemsplit.cli import help
from stemsplit.cli.options import Json, Quiet
from stemsplit.errors import UsageError
from stemsplit.wording import duration, printable

STEMS = "vocals,drums,bass,other"

app = help.Commands(help="Inspect datasets: songs whose stems are known.", no_args_is_help=True)


@app.callback()
def common() -> None:
    """Inspect datasets: songs whose stems are known."""


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Songs as folders of stems, or as .stem.mp4 files.")],
    stems: Annotated[
        str, typer.Option("--stems", metavar="NAMES", help="The stems that every song should have.")
    ] = STEMS,
    quick: Annotated[bool, typer.Option("--quick", help="Read headers only, not the samples.")] = False,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Do not report stems that are missing or silent.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find problems in a dataset: one line for each, and exit code 1 if there are any.

    Reported are lengths, sample rates and channels that differ, stems that are missing or silent, files that are
    damaged or truncated, and stems that do not add up to the mixture.
    """
    from stemsplit.cli import console

    names = tuple(dict.fromkeys(name.strip() for name in stems.split(",") if name.strip()))
    if not names:
        raise UsageError("--stems is empty", f"for instance --stems {STEMS}")
    messages = console.Messages(quiet=quiet)
    with messages.loading("starting"):
        from stemsplit.datasets.check import inspect_dataset
    with messages.progress(f"checking {folder}") as on_progress:
        report = inspect_dataset(folder, names, thorough=not quick, missing_ok=missing_ok, on_progress=on_progress)
    if as_json:
        rows = [{"song": issue.song, "kind": issue.kind, "told": issue.message} for issue in report.issues]
        console.write_json({"found": report.found, "songs": report.songs, "seconds": report.seconds, "faults": rows})
    else:
        for issue in report.issues:
            console.write(printable(f"{issue.song}: {issue.message}"))
        affected = len({issue.song for issue in report.issues})
        unusable = f", {report.found - report.songs} of them unusable" if report.found > report.songs else ""
        summary = f"{report.found} song{'s' if report.found != 1 else ''}{unusable}, {duration(report.seconds)}"
        messages.note(f"{summary}; {affected} with issues" if affected else f"{summary}; no issues found")
    if report.issues:
        raise typer.Exit(1)
