"""The comparison table as LaTeX: column groups of booktabs, intervals in small print below the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from mibench.report.escape import latex, slug

if TYPE_CHECKING:
    from mibench.report.table import Comparison, Entry


MOST_LINES = 60  # printed lines of a float: more run off the foot of a page


def latex_table(table: Comparison, max_columns: int) -> str:
    """A tabular for every `max_columns` numbers in a line, in as many `table*` as they need; needs booktabs.

    Caption and label stand in the first float, further ones are "continued", footnotes in the last.
    """
    most = max(max_columns // len(table.metrics), 1)
    num_blocks = -(-len(table.defenses) // most)
    blocks = np.array_split(np.arange(len(table.defenses)), num_blocks)  # of even width
    floats: list[list[str]] = []
    used = MOST_LINES
    for block in blocks:
        tabular = _tabular(table, block.tolist())
        lines = tabular.count("\\\\")
        if used + lines > MOST_LINES:
            floats.append([])
            used = 0
        floats[-1].append(tabular)
        used += lines
    notes = "".join(f"\\par\\textsuperscript{{{mark}}} {latex(text)}\n" for mark, text in table.footnotes)
    label = slug(table.rows[0].scene)
    first = f"\\caption{{{latex(' '.join(table.caption))}}}\n\\label{{tab:{label}}}\n"
    heads = [first] + ["\\addtocounter{table}{-1}\n\\caption{Continued.}\n"] * (len(floats) - 1)
    tails = [""] * (len(floats) - 1) + [f"\\par\\medskip\\raggedright\\scriptsize\n{notes}" if notes else ""]
    parts = (_float(*part) for part in zip(heads, floats, tails))
    return "% Needs \\usepackage{booktabs}.\n" + "".join(parts)


def _float(head: str, tabulars: Sequence[str], tail: str) -> str:
    """One `table*`: caption, tabulars below each other, footnotes."""
    body = "\n\\par\\medskip\n".join(tabulars)
    return (
        "\\begin{table*}\n\\centering\\footnotesize\n\\setlength{\\tabcolsep}{3.5pt}\n"
        f"{head}\\vspace{{4pt}}\n{body}\n{tail}\\end{{table*}}\n"
    )


def _tabular(table: Comparison, defenses: Sequence[int]) -> str:
    """One tabular of some defenses."""
    width = len(table.metrics)
    columns = 1 + width * len(defenses)
    groups, rules = [], []
    for place, defense in enumerate(defenses):
        start = 2 + place * width
        groups.append(f"\\multicolumn{{{width}}}{{c}}{{{latex(table.defenses[defense])}}}")
        rules.append(f"\\cmidrule(lr){{{start}-{start + width - 1}}}")
    heads = [latex(metric.heading) for metric in table.metrics] * len(defenses)
    lines = [f"\\begin{{tabular}}{{@{{}}l*{{{columns - 1}}}{{r}}@{{}}}}", "\\toprule"]
    lines += [f" & {' & '.join(groups)} \\\\", " ".join(rules)]
    lines.append(f"Attack & {' & '.join(heads)} \\\\")
    scenes = groupby(range(len(table.rows)), key=lambda index: table.rows[index].scene)
    for scene, rows in scenes:
        lines += ["\\midrule", f"\\multicolumn{{{columns}}}{{@{{}}l}}{{\\emph{{{latex(scene)}}}}} \\\\"]
        lines += _rows(table, list(rows), defenses)
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def _rows(table: Comparison, rows: Sequence[int], defenses: Sequence[int]) -> list[str]:
    """The lines of one scene; a rule before its negative controls."""
    lines = []
    for before, row in zip([None, *rows], rows):
        line = table.rows[row]
        if line.control and before is not None and not table.rows[before].control:
            lines.append(f"\\cmidrule{{1-{1 + len(table.metrics) * len(defenses)}}}")
        numbers, extras = [latex(line.label)], [""]
        for defense in defenses:
            entries = [table.entries[row, defense, metric] for metric in range(len(table.metrics))]
            numbers += _numbers(entries)
            extras += [f"{{\\tiny {latex(e.extra)}}}" if e.extra else "" for e in entries]
        lines.append(f"{' & '.join(numbers)} \\\\")
        if any(extras):
            lines.append(f"{' & '.join(extras)} \\\\[2pt]")
    return lines


def _numbers(entries: Sequence[Entry]) -> list[str]:
    """The numbers of one defense; one word across all its columns where it has none."""
    states = {entry.state for entry in entries}
    if len(states) == 1 and entries[0].state in {"failed", "blocked", "missing"}:
        return [f"\\multicolumn{{{len(entries)}}}{{c}}{{{_number(entries[0])}}}"]
    return [_number(entry) for entry in entries]


def _number(entry: Entry) -> str:
    """One number or word with its footnote letters."""
    text = f"\\textbf{{{latex(entry.shown)}}}" if entry.best else latex(entry.shown)
    return text + (f"\\textsuperscript{{{entry.marks}}}" if entry.marks else "")
