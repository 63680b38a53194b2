"""The command that measures models on songs with known stems."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemsplit.cli.download import obtain
from stemsplit.cli.options import Device, Json, ModelName, Overwrite, Quiet, RegistryFile
from stemsplit.errors import UsageError
from stemsplit.models.loading import LocalModel, read_registry

if TYPE_CHECKING:
    from stemsplit.cli.console import Messages
    from stemsplit.datasets.multitracks import Multitrack
    from stemsplit.evaluation.score_tables import MetricTable
    from stemsplit.evaluation.scoring import Estimator, SongScores
    from stemsplit.evaluation.significance import Comparison

COMPARED = ("sdr", "SDR")  # the boards on which two models are compared


def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder with one folder of true stems for each song.")],
    model: ModelName = None,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Another model, to find out which of the two is better.")
    ] = None,
    own: RegistryFile = None,
    bss_eval: Annotated[
        bool, typer.Option("--bss-eval", help="Measure what museval measures, too: SDR, SIR, ISR, SAR by the second.")
    ] = False,
    references: Annotated[
        bool, typer.Option(help="Score the mixture itself and the ideal ratio mask, too, for comparison.")
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where a page with box plots and all figures go."),
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on songs with known stems, or two of them.

    Prints the SDR in dB by song and stem, and its means beside those of two references: the mixture itself as every
    stem, and the ideal ratio mask.
    """
    from stemsplit.cli import console

    messages = console.Messages(quiet=quiet)
    registry = read_registry(own)
    obtained = [obtain(registry, name, messages) for name in (model, *([against] if against else []))]
    names = _names(obtained)
    stems = obtained[0].spec.stems
    with messages.progress(f"loading {' and '.join(names)}"):
        from stemsplit import devices
        from stemsplit.evaluation import museval_files, score_tables, scoring
        from stemsplit.evaluation import results as score_folder
        from stemsplit.models.ensemble import load_ensemble
        from stemsplit.separation.separator import Separator

        everyone = [*names, *(["mixture", "ideal ratio mask"] if references else [])]
        if output:
            score_folder.check_free(output, everyone, overwrite=overwrite)
        songs, errors = scoring.find_scorable(data, stems)
        chosen = devices.choose(device)
        separators = [
            Separator(load_ensemble(each.paths, each.gives, config=each.spec.config, device=chosen), device=chosen)
            for each in obtained
        ]
    own_estimators = [scoring.separated(separator) for separator in separators]
    reference_estimators = [scoring.mixture, scoring.ideal_mask] if references else []
    estimators = dict(zip(everyone, [*own_estimators, *reference_estimators], strict=True))
    for error in errors:
        messages.error(error)
    failed = [str(error) for error in errors]
    with devices.memory_checked(chosen):
        results = _score(songs, stems, estimators, messages, failed, bss_eval=bss_eval)
    found = score_tables.boards(results) if results[names[0]] else []
    versus = {
        board.key: board.compare(names[0], names[1]) for board in found if board.key in COMPARED and len(names) == 2
    }
    told: dict[str, Any] = {"model": names[0], "against": names[1] if len(names) > 1 else None}
    told |= {"fallback": obtained[0].fallback, "device": chosen, "failed": failed}
    told |= _figures(found, versus, names)
    if as_json:
        console.write_json(told)
    elif found:
        _write_tables(found, names)
        for verdict in _verdicts(versus, names):
            console.write(f"\n{verdict}")
    if output and found:
        page = _page(data, found, versus, names, len(results[names[0]]))
        files = {score_folder.REPORT: page, score_folder.SCORES: console.to_json(told)}
        files |= museval_files.files(results) if bss_eval else {}
        score_folder.write(output, files, overwrite=overwrite)
        messages.note(f"box plots and all figures: {output / score_folder.REPORT}")
    if failed:
        raise typer.Exit(1)


def _names(obtained: Sequence[LocalModel]) -> list[str]:
    """What the models are called; they must be two, and give the same stems."""
    names = [each.spec.name for each in obtained]
    if len(set(names)) < len(names):
        raise UsageError(f"the model {names[0]!r} cannot be compared with itself", "name another one with --against")
    stems = [each.spec.stems for each in obtained]
    if len({frozenset(each) for each in stems}) > 1:
        told = " and ".join(f"{name!r} gives {', '.join(each)}" for name, each in zip(names, stems, strict=True))
        raise UsageError(f"{told}: only models with the same stems can be compared", "stemsplit models  lists them")
    return names


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
            if bss_eval and not scoring.has_windows(next(iter(scores.values()))):
                reason = f"BSS Eval has no figures for {song.name!r}: there is no second in which all its stems sound"
                messages.warn(reason, "as in museval; see the SDR of the whole song")
    return results


def _write_tables(found: "Sequence[MetricTable]", names: Sequence[str]) -> None:
    from stemsplit.cli import console

    for number, board in enumerate(found):
        over = "median" if board.medians else "mean"
        summary = {f"{over}: {name}": values for name, values in board.summary.items()}
        sections = [summary]
        if board.key in COMPARED:
            songs = board.songs[names[0]]
            rows = [
                (f"{song}: {name}" if len(names) > 1 else song, board.songs[name][song])
                for song in songs
                for name in names
            ]
            sections = [dict(rows), summary]
        if number:
            console.write("")
        console.write_table(f"{board.title}, dB" if number else "SDR in dB", board.columns, sections)


def _figures(
    found: "Sequence[MetricTable]", versus: "Mapping[str, Mapping[str, Comparison]]", names: Sequence[str]
) -> dict[str, Any]:
    from stemsplit.evaluation import score_tables

    told: dict[str, Any] = {board.key: score_tables.to_json(board) for board in found if not board.medians}
    if windowed := {board.key: score_tables.to_json(board) for board in found if board.medians}:
        told["bss_eval"] = windowed
    if versus:
        comparison = {key: {name: asdict(each) for name, each in rows.items()} for key, rows in versus.items()}
        told["comparison"] = {**comparison, "verdicts": _verdicts(versus, names)}
    return told


def _verdicts(versus: "Mapping[str, Mapping[str, Comparison]]", names: Sequence[str]) -> list[str]:
    """A sentence for each board, on the mean over the stems."""
    from stemsplit.evaluation import score_tables
    from stemsplit.evaluation import significance as comparison

    told = {"sdr": "By the SDR of whole songs", "SDR": "By BSS Eval's SDR"}
    return [
        f"{told[key]}: {comparison.verdict(names[0], names[1], rows[score_tables.MEAN])}"
        for key, rows in versus.items()
    ]


def _page(
    data: Path,
    found: "Sequence[MetricTable]",
    versus: "Mapping[str, Mapping[str, Comparison]]",
    names: Sequence[str],
    songs: int,
) -> str:
    from stemsplit.evaluation import report

    title = " against ".join(names)
    facts = f"{songs} {'song' if songs == 1 else 'songs'} of {data.resolve().name}"
    comparisons = [(board, versus[board.key]) for board in found if board.key in versus]
    return report.page(title, facts, found, _verdicts(versus, names), comparisons)
