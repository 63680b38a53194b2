"""The command that measures models on songs with known stems."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemsplit.cli.download import find_and_download
from stemsplit.cli.options import AcceptLicense, Device, Json, ModelName, Quiet, RegistryFile
from stemsplit.errors import UsageError
from stemsplit.models.registry import LocalModel, read_registry
from stemsplit.wording import to_json

if TYPE_CHECKING:
    from stemsplit.cli.console import Messages
    from stemsplit.datasets.multitracks import Multitrack
    from stemsplit.evaluation.score_tables import MetricTable
    from stemsplit.evaluation.scoring import Estimator, SongScores
    from stemsplit.evaluation.significance import Comparison

COMPARED = {"sdr": "By the SDR of whole songs", "SDR": "By BSS Eval's SDR"}
"""The metrics by which two models are compared, and how the verdict begins."""

Comparisons = Mapping[str, Mapping[str, "Comparison"]]
"""By metric and column of its table."""


def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder with one folder of true stems for each song.")],
    model: ModelName = None,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Another model, to find out which of the two is better.")
    ] = None,
    own: RegistryFile = None,
    accept_license: AcceptLicense = False,
    bss_eval: Annotated[
        bool, typer.Option("--bss-eval", help="Also measure what museval measures: SDR, SIR, ISR, SAR by the second.")
    ] = False,
    references: Annotated[
        bool, typer.Option(help="Also score the mixture itself and the ideal ratio mask, for comparison.")
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where to write a report with box plots and all scores."),
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the report and the scores that are in FOLDER.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on songs with known stems, or compare two.

    Prints the SDR in dB by song and stem, and its means beside those of two references: the mixture itself as every
    stem, and the ideal ratio mask.
    """
    from stemsplit.cli import console

    if output == Path("-"):
        raise UsageError("a report is several files, which standard output cannot have", "name a folder, or use --json")
    messages = console.Messages(quiet=quiet)
    registry = read_registry(own)
    wanted = (model, *([against] if against else []))
    with messages.loading(f"looking at {data}"):  # before anything is downloaded for it
        from stemsplit.evaluation import results, scoring

        scoring.find_scorable(data, registry.find(model).stems or registry.find().stems)
        if output:
            results.check_folder(output, [registry.find(name).name for name in wanted], overwrite=overwrite)
    models = [find_and_download(registry, name, messages, accept_license=accept_license) for name in wanted]
    names = [local.spec.name for local in models]
    _check_comparable(models)
    stems = models[0].spec.stems
    with messages.loading(f"loading {' and '.join(names)}"):
        from stemsplit import devices
        from stemsplit.evaluation import score_tables
        from stemsplit.models.ensemble import load_model
        from stemsplit.separation.options import SeparationOptions
        from stemsplit.separation.separator import Separator

        labels = [*names, *(["mixture", "ideal ratio mask"] if references else [])]
        if output:
            results.check_folder(output, labels, overwrite=overwrite)
        songs, errors = scoring.find_scorable(data, stems)
        chosen = devices.choose(device)
        options = SeparationOptions(precision="full")  # figures do not depend on the machine
        separators = [Separator(load_model(local, device=chosen), options, device=chosen) for local in models]
    estimators: list[Estimator] = [scoring.model_estimator(separator) for separator in separators]
    if references:
        estimators += [scoring.mixture, scoring.ideal_mask]
    for error in errors:
        messages.error(error)
    failed = [str(error) for error in errors]
    with devices.memory_checked(chosen):
        scores = _score(songs, stems, dict(zip(labels, estimators, strict=True)), messages, failed, bss_eval=bss_eval)
    tables = score_tables.metric_tables(scores) if scores[names[0]] else []
    comparisons = {table.key: table.compare(*names) for table in tables if table.key in COMPARED} if against else {}
    figures: dict[str, Any] = {
        "model": names[0],
        "against": names[1] if against else None,
        "fallback": models[0].fallback,
        "device": chosen,
        "failed": failed,
        **_figures(tables, comparisons, names),
    }
    if as_json:
        console.write_json(figures)
    elif tables:
        _write_tables(tables, names)
        for verdict in _verdicts(comparisons, names):
            console.write(f"\n{verdict}")
    if output and tables:
        report = _report(data, tables, comparisons, names, len(scores[names[0]]))
        texts = {results.REPORT: report, results.SCORES: to_json(figures)}
        texts |= results.museval_files(scores) if bss_eval else {}
        results.write_results(output, texts, overwrite=overwrite)
        messages.note(f"box plots and all scores: {output / results.REPORT}")
    if failed:
        raise typer.Exit(1)


def _check_comparable(models: Sequence[LocalModel]) -> None:
    """Raise UsageError unless the models are different ones with the same stems."""
    names = [local.spec.name for local in models]
    if len(set(names)) < len(names):
        message = f"the model {names[0]!r} cannot be compared with itself"
        raise UsageError(message, "name another one with --against", model=names[0])
    stems = [local.spec.stems for local in models]
    if len({frozenset(each) for each in stems}) > 1:
        both = " and ".join(f"{name!r} gives {', '.join(each)}" for name, each in zip(names, stems, strict=True))
        raise UsageError(f"{both}: only models with the same stems can be compared", "stemsplit models  lists them")


def _score(
    songs: "Sequence[Multitrack]",
    stems: tuple[str, ...],
    estimators: "Mapping[str, Estimator]",
    messages: "Messages",
    failed: list[str],
    *,
    bss_eval: bool,
) -> "dict[str, list[SongScores]]":
    """The scores by estimator; songs that cannot be scored are reported, and added to `failed`."""
    from stemsplit.errors import AudioError, DatasetError
    from stemsplit.evaluation import scoring

    results: dict[str, list[SongScores]] = {name: [] for name in estimators}
    total = sum(song.length for song in songs) * len(estimators)
    done = 0
    with messages.progress("scoring") as on_progress:

        def watched(estimator: "Estimator") -> "Estimator":
            def estimate(song: "Multitrack", stems: tuple[str, ...]) -> Iterator[Any]:
                nonlocal done
                for block in estimator(song, stems):
                    done += block.shape[-1]
                    on_progress(done, total)
                    yield block

            return estimate

        shown = {name: watched(estimator) for name, estimator in estimators.items()}
        for song in songs:
            try:
                scores = scoring.score(song, stems, shown, bss_eval=bss_eval)
            except (AudioError, DatasetError) as error:
                messages.error(error)
                failed.append(str(error))
                continue
            for name, score in scores.items():
                results[name].append(score)
            if bss_eval and not next(iter(scores.values())).has_windows:
                reason = f"BSS Eval has no figures for {song.name!r}: there is no second in which all its stems sound"
                messages.warn(reason, "as in museval; see the SDR of the whole song")
    return results


def _write_tables(tables: "Sequence[MetricTable]", names: Sequence[str]) -> None:
    from stemsplit.cli import console

    for number, table in enumerate(tables):
        summary = {f"{table.average}: {name}": values for name, values in table.summary.items()}
        sections = [summary]
        if table.key in COMPARED:
            rows = {
                f"{song}: {name}" if len(names) > 1 else song: table.songs[name][song]
                for song in table.songs[names[0]]
                for name in names
            }
            sections = [rows, summary]
        if number:
            console.write("")
        console.write_table(f"{table.title}, dB" if number else "SDR in dB", table.columns, sections)


def _figures(tables: "Sequence[MetricTable]", comparisons: Comparisons, names: Sequence[str]) -> dict[str, Any]:
    """The figures for JSON."""
    figures: dict[str, Any] = {table.key: table.to_json() for table in tables if not table.medians}
    if windowed := {table.key: table.to_json() for table in tables if table.medians}:
        figures["bss_eval"] = windowed
    if comparisons:
        by_metric = {key: {name: asdict(result) for name, result in rows.items()} for key, rows in comparisons.items()}
        figures["comparison"] = {**by_metric, "verdicts": _verdicts(comparisons, names)}
    return figures


def _verdicts(comparisons: Comparisons, names: Sequence[str]) -> list[str]:
    """A sentence for each metric that is compared, on the mean over the stems."""
    from stemsplit.evaluation.score_tables import MEAN
    from stemsplit.evaluation.significance import verdict

    return [f"{COMPARED[key]}: {verdict(names[0], names[1], rows[MEAN])}" for key, rows in comparisons.items()]


def _report(
    data: Path, tables: "Sequence[MetricTable]", comparisons: Comparisons, names: Sequence[str], songs: int
) -> str:
    from stemsplit.evaluation.report import render_evaluation

    facts = f"{songs} {'song' if songs == 1 else 'songs'} of {data.resolve().name}"
    compared = [(table, comparisons[table.key]) for table in tables if table.key in comparisons]
    return render_evaluation(" against ".join(names), facts, tables, _verdicts(comparisons, names), compared)
