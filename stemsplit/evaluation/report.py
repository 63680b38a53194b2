"""A page with the result of an evaluation: one HTML file, without scripts, that needs no network and no other file."""

import base64
import hashlib
import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stemsplit.evaluation.boxplot import draw
from stemsplit.evaluation.score_tables import MEAN, MetricTable
from stemsplit.evaluation.significance import Comparison

Comparisons = Sequence[tuple[MetricTable, Mapping[str, Comparison]]]

LEGEND = (
    "A dot is a song. A box holds the middle half of the songs, its line is their median, the number on the right; "
    "the whiskers end at the last song within 1.5 times the length of the box. More is better."
)


def page(
    title: str, facts: str, found: Sequence[MetricTable], verdicts: Sequence[str] = (), comparisons: Comparisons = ()
) -> str:
    """The HTML.

    Args:
        title, facts: what was evaluated, in a line each.
        found: the boards, in their order.
        verdicts: sentences on two models. comparisons: the figures behind them, of the boards that they are about.
    """
    style = (Path(__file__).parent / "score_page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">\n<meta name="generator" content="stemsplit">',
        f"<title>{html.escape(_plain(title))}</title>",
        f'<link rel="icon" href="data:,">\n<style>{style}</style>\n</head>\n<body>',
        f'<header>\n<h1 dir="auto">{_text(title)}</h1>\n<p>{_text(facts)}</p>\n</header>\n<main>',
        *([_versus(verdicts, comparisons)] if verdicts else []),
        f'<p class="legend">{LEGEND}</p>',
        *(_section(board) for board in found),
        "<h2>Every song</h2>",
        *(_songs(board) for board in found),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _versus(verdicts: Sequence[str], comparisons: Comparisons) -> str:
    rows = []
    for board, compared in comparisons:
        for column, result in compared.items():
            figures = [f"{result.difference:+.2f}", f"{result.ahead} : {result.behind}", f"{result.p:.2g}"]
            rows.append([f"{board.title}, {column}", *(figures if result.songs else ["-"] * 3)])
    table = _table("One against the other", ["", "typical difference, dB", "songs ahead : behind", "p"], rows)
    told = "".join(f"<p>{_text(verdict)}</p>" for verdict in verdicts)
    more = f"<details><summary>By stem</summary>{table}</details>"
    return f'<section class="verdict">\n<h2>Which is better?</h2>\n{told}\n{more}\n</section>'


def _section(board: MetricTable) -> str:
    stems = [column for column in board.columns if column != MEAN]
    groups = {
        stem: {
            _plain(name): {_plain(song): row[stem] for song, row in songs.items()}
            for name, songs in board.songs.items()
        }
        for stem in stems
    }
    rows = [[name, *(_decibels(row[column]) for column in board.columns)] for name, row in board.summary.items()]
    over = "Medians over the songs" if board.medians else "Means over the songs"
    caption = f"{over}, dB"
    return (
        f"<section>\n<h2>{_text(board.title)}</h2>\n<p>{_text(board.note)}</p>\n"
        f'<div class="picture">{_plain(draw(board.title, groups))}</div>\n'
        f"{_table(caption, ['', *board.columns], rows)}\n</section>"
    )


def _songs(board: MetricTable) -> str:
    rows = [
        [song, name, *(_decibels(row[column]) for column in board.columns)]
        for song in next(iter(board.songs.values()))
        for name, songs in board.songs.items()
        for row in [songs[song]]
    ]
    table = _table(f"{board.title}, dB", ["song", "", *board.columns], rows, names=2)
    return f"<details><summary>{_text(board.title)}</summary>{table}</details>"


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    head = "".join(f'<th scope="col">{_text(column)}</th>' if column else "<td></td>" for column in columns)
    body = "\n".join(f"<tr>{''.join(_cells(row, names))}</tr>" for row in rows)
    return (
        f'<div class="wide"><table>\n<caption>{_text(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _cells(row: Sequence[str], names: int) -> Iterator[str]:
    for number, cell in enumerate(row):
        yield f'<th scope="row">{_text(cell)}</th>' if number < names else f"<td>{_text(cell)}</td>"


def _text(value: str) -> str:
    """Text in the page, which cannot change the direction of what is beside it."""
    return f"<bdi>{html.escape(_plain(value))}</bdi>"


def _plain(value: str) -> str:
    """Without what is no character of a page: names of files can hold anything."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", value)


def _decibels(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
