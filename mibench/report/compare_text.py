"""What `mibench compare` found, in words and as a table for terminals, CSV, Markdown, LaTeX and HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mibench.power import ALPHA, POWER
from mibench.report.compare import Compared, Line, Pair
from mibench.report.escape import csv_text, latex, markdown, plain
from mibench.statistics import LEVEL
from mibench.wording import counted

_RIGHT = {"AA one", "AA other", "p (Holm)"}
_CSV = (
    "line",
    "one",
    "other",
    "people",
    "aa_one",
    "aa_other",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "told_apart",
)


def sentences(found: Compared) -> list[str]:
    """What can be said of every line, then which ranks, then what so many people can show at all."""
    told = [_said(found, line) for line in found.lines]
    return [*told, _reading(found)]


def _said(found: Compared, line: Line) -> str:
    """What the tests of one line tell."""
    where = f"{'Under' if found.of == 'defense' else 'Against'} {plain(line.name, 60)}"
    apart = [pair for pair in line.pairs if pair.is_told_apart]
    if apart:
        rest = len(line.pairs) - len(apart)
        also = f" Of the other {counted(rest, 'pair')} nothing can be said." if rest else ""
        return f"{where}: {'; '.join(map(_lower, apart))}.{also} {_ranks(found, line)}"
    if all(pair.test is None for pair in line.pairs):
        return f"{where}: all are the very same run, so there is nothing to compare."
    why = (
        f"the least p after Holm that {counted(_people(line), 'person')} can give is {line.ranks.least_p:.2g}"
    )
    if line.ranks.least_p >= ALPHA:
        return (
            f"{where}: nothing can be said, and no difference could have been seen: {why}. Run more people."
        )
    return f"{where}: nothing can be said, no two can be told apart. {_ranks(found, line)}"


def _lower(pair: Pair) -> str:
    """A pair that is told apart, the lower AA first."""
    one, other, low, high = pair.one, pair.other, -pair.high, -pair.low
    if pair.difference > 0:
        one, other, low, high = pair.other, pair.one, pair.low, pair.high
    size = f"{100 * abs(pair.difference):.1f} points [{100 * low:.1f} to {100 * high:.1f}]"
    return f"{plain(one, 40)} has a lower AA than {plain(other, 40)} by {size}"


def _ranks(found: Compared, line: Line) -> str:
    """The tie groups of a line."""
    ranked = sorted(found.sides, key=lambda side: line.ranks.of[side])
    return f"Ranks: {', '.join(f'{plain(side, 40)} {line.ranks.shown(side)}' for side in ranked)}."


def _reading(found: Compared) -> str:
    """How the numbers are meant, and what could have been seen."""
    people = max(map(_people, found.lines))
    seeds = f"seed{'' if len(found.seeds) == 1 else 's'} {', '.join(map(str, found.seeds))}"
    pairs = max(line.ranks.tests for line in found.lines)
    size = f"{counted(people, 'person')} x {counted(found.images, 'image')}"
    return (
        f"AA in percent over {size}, {seeds}; difference in points with its {LEVEL:.0%} interval, bootstrap "
        "over people; p by sign flips over people, Holm over the pairs of a line; rank 1 has the lowest AA. "
        f"Smallest difference that so many people show among {counted(pairs, 'pair')} ({POWER:.0%} power, "
        f"p < {ALPHA} after Holm): {found.sight}."
    )


def _people(line: Line) -> int:
    return max(pair.people for pair in line.pairs)


def _head(found: Compared) -> list[str]:
    first = "Attack" if found.of == "defense" else "Defense"
    return [first, "One", "Other", "People", "AA one", "AA other", "Difference", "p", "p (Holm)", ""]


def _cells(line: Line) -> list[list[str]]:
    """The rows of a line as words; its name stands in the first one."""
    return [[line.name if index == 0 else "", *_row(pair)] for index, pair in enumerate(line.pairs)]


def _row(pair: Pair) -> list[str]:
    rates = [f"{100 * value:.1f}" for value in pair.aa]
    if pair.test is None:
        return [pair.one, pair.other, str(pair.people), *rates, "0", "", "", "same run"]
    gap = f"{_points(pair.difference)} [{_points(pair.low)} to {_points(pair.high)}]"
    tests = [f"{pair.test.p:.3f}", f"{pair.test.p_holm:.3f}"]
    verdict = "told apart" if pair.is_told_apart else "tie"
    return [pair.one, pair.other, str(pair.people), *rates, gap, *tests, verdict]


def _points(share: float) -> str:
    shown = f"{100 * share:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "\N{MINUS SIGN}")


def to_rich(found: Compared) -> RenderableType:
    """A table for terminals, a heading for each line, and the sentences below it.

    What the sentences say anyway, and p without Holm's correction, is left to the other formats: 80 columns
    do not hold more.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for heading in ("", "AA one", "AA other", "Difference", "p (Holm)", ""):
        table.add_column(heading, justify="right" if heading in _RIGHT else "left", overflow="fold")
    for line in found.lines:
        table.add_row(Text(plain(line.name, 60), style="italic"))
        for pair in line.pairs:
            one, other, _, *rates, gap, _, p_holm, verdict = _row(pair)
            names = f"  {plain(one, 40)} / {plain(other, 40)}"
            style = "bold" if pair.is_told_apart else ""
            table.add_row(*(Text(cell, style=style) for cell in (names, *rates, gap, p_holm, verdict)))
    return Group(table, Text(), *(Text(one) for one in sentences(found)))


def to_csv(found: Compared) -> str:
    """One row a pair; fractions in [0, 1]; without sentences."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV)
    for line in found.lines:
        for pair in line.pairs:
            numbers = [pair.people, *pair.aa, pair.difference, pair.low, pair.high]
            p_values = ["", ""] if pair.test is None else [pair.test.p, pair.test.p_holm]
            names = map(csv_text, (line.name, pair.one, pair.other))
            writer.writerow([*names, *numbers, *p_values, int(pair.is_told_apart)])
    return text.getvalue()


def to_markdown(found: Compared) -> str:
    """A pipe table, and the sentences below it."""
    rules = ["---", "---", "---", *["---:"] * 6, "---"]
    rows = [_head(found), *(row for line in found.lines for row in _cells(line))]
    lines = [f"| {' | '.join(map(markdown, row))} |" for row in rows]
    lines.insert(1, f"|{'|'.join(rules)}|")
    return "\n".join([*lines, "", *(f"{markdown(one)}\n" for one in sentences(found))])


def to_latex(found: Compared) -> str:
    """A tabular with booktabs, and the sentences as its caption."""
    rows = [f"{' & '.join(map(latex, row))} \\\\" for row in _numbered(found)]
    head = f"{' & '.join(map(latex, _head(found)))} \\\\"
    caption = latex(" ".join(sentences(found)))
    return "\n".join([
        "% Needs \\usepackage{booktabs}.", "\\begin{table}", "\\centering\\footnotesize",
        f"\\caption{{{caption}}}",
        "\\begin{tabular}{@{}lllrrrlrrl@{}}", "\\toprule", head, "\\midrule", *rows, "\\bottomrule",
        "\\end{tabular}", "\\end{table}", "",
    ])  # fmt: skip


def _numbered(found: Compared) -> list[list[str]]:
    return [row for line in found.lines for row in _cells(line)]


def to_html(found: Compared) -> str:
    """A <figure> with the table, and the sentences as its caption; everything in it is escaped."""
    head = _html_row(_head(found), "th")
    body = "\n".join(_html_row(row, "td") for row in _numbered(found))
    caption = "\n".join(f"<p>{escape(one)}</p>" for one in sentences(found))
    return (
        f"<figure>\n<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
        f"<figcaption>\n{caption}\n</figcaption>\n</figure>\n"
    )


def _html_row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(plain(cell))}</{tag}>' for cell in cells)}</tr>"
