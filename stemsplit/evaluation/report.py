"""The report of an evaluation: one HTML page without scripts."""

from collections.abc import Mapping, Sequence
from typing import Any

from stemsplit import pages
from stemsplit.evaluation.charts import draw_boxes
from stemsplit.evaluation.score_tables import MEAN, MetricTable
from stemsplit.evaluation.significance import Comparison
from stemsplit.wording import decibels

Comparisons = Sequence[tuple[MetricTable, Mapping[str, Comparison]]]
STYLE = (pages.TEMPLATES / "evaluation" / "report.css").read_text(encoding="utf-8")


def render_evaluation(
    title: str, facts: str, tables: Sequence[MetricTable], verdicts: Sequence[str] = (), comparisons: Comparisons = ()
) -> str:
    """Return the page as HTML.

    Args:
        title: The models that were evaluated.
        facts: A line on the songs.
        tables: The metrics, in their order on the page.
        verdicts: Sentences that compare two models.
        comparisons: The figures behind them, by column of the table that they are from.
    """
    return pages.render(
        "evaluation/report.html",
        style=STYLE,
        title=title,
        facts=facts,
        verdicts=verdicts,
        comparisons=_comparison_rows(comparisons),
        metrics=[_metric(table) for table in tables],
    )


def _metric(table: MetricTable) -> dict[str, Any]:
    stems = [column for column in table.columns if column != MEAN]
    groups = {
        stem: {name: {song: row[stem] for song, row in songs.items()} for name, songs in table.songs.items()}
        for stem in stems
    }
    return {
        "table": table,
        "chart": draw_boxes(table.title, groups),
        "summary": [[name, *_cells(table, row)] for name, row in table.summary.items()],
        "songs": [
            [song, name, *_cells(table, songs[song])]
            for song in next(iter(table.songs.values()))
            for name, songs in table.songs.items()
        ],
    }


def _cells(table: MetricTable, row: Mapping[str, float]) -> list[str]:
    return [decibels(row[column]) for column in table.columns]


def _comparison_rows(comparisons: Comparisons) -> list[list[str]]:
    rows = []
    for table, by_column in comparisons:
        for column, result in by_column.items():
            figures = [f"{result.difference:+.2f}", f"{result.ahead} : {result.behind}", f"{result.p:.2g}"]
            rows.append([f"{table.title}, {column}", *(figures if result.songs else ["-"] * 3)])
    return rows
