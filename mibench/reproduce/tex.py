"""A table made again as LaTeX: booktabs, measured numbers over reported ones, then the claims."""

from __future__ import annotations

from collections.abc import Sequence

from mibench.report.escape import latex
from mibench.reproduce.compared import Number, Verdict
from mibench.reproduce.result import Reproduction
from mibench.reproduce.sheet import Sheet, evidence_text, measured_text, reported_text, sheet

_MOST_COLUMNS = 24  # numbers in a line of a landscape page
_SIGNS: dict[Verdict, str] = {
    "match": "$\\surd$", "differs": "$\\times$", "not shown": "$\\circ$", "not comparable": "--",
}  # fmt: skip

PAGE = """\\documentclass[a4paper,landscape]{article}
\\usepackage[margin=15mm]{geometry}
\\usepackage{booktabs}
\\usepackage{longtable}
\\begin{document}
\\input{table}
\\end{document}
"""
"""A document of `table.tex` alone."""


def to_latex(found: Reproduction) -> str:
    """The table and its claims, to be read into a document with booktabs and longtable."""
    table = sheet(found)
    parts = [
        "% Needs \\usepackage{booktabs,longtable}; table_page.tex is a document of it.",
        f"\\section*{{{latex(found.title)}}}",
        f"{latex(found.summary)}\\par\\medskip",
        "\\noindent\\begingroup\\footnotesize\\setlength{\\tabcolsep}{3pt}",
        *(f"{_tabular(table, part)}\\par\\medskip" for part in _parts(table)),
        "\\endgroup",
    ]
    parts += [f"\\par\\noindent{{\\scriptsize {latex(note)}}}" for note in found.notes]
    return "\n".join([*parts, *_claims(found), ""])


def _parts(table: Sheet) -> list[Sequence[int]]:
    """Column groups for each tabular, of even number."""
    most = max(1, _MOST_COLUMNS // max(len(names) for _, names in table.groups))
    count = -(-len(table.groups) // most)
    size = -(-len(table.groups) // count)
    return [range(start, min(start + size, len(table.groups))) for start in range(0, len(table.groups), size)]


def _tabular(table: Sheet, groups: Sequence[int]) -> str:
    starts = [sum(len(names) for _, names in table.groups[:group]) for group in groups]
    picked = [
        start + place for start, group in zip(starts, groups) for place in range(len(table.groups[group][1]))
    ]
    heads, rules, names, column = [], [], [], 2
    for group in groups:
        heading, own = table.groups[group]
        heads.append(f"\\multicolumn{{{len(own)}}}{{c}}{{{latex(heading)}}}")
        rules.append(f"\\cmidrule(lr){{{column}-{column + len(own) - 1}}}")
        names += [latex(name) for name in own]
        column += len(own)
    lines = [f"\\begin{{tabular}}{{@{{}}l*{{{len(picked)}}}{{r}}@{{}}}}", "\\toprule"]
    lines += [f" & {' & '.join(heads)} \\\\", " ".join(rules), f" & {' & '.join(names)} \\\\"]
    for block in table.blocks:
        lines.append("\\midrule")
        if block.heading:
            lines.append(f"\\multicolumn{{{column - 1}}}{{@{{}}l}}{{\\emph{{{latex(block.heading)}}}}} \\\\")
        for row in block.rows:
            own_entries = [row.entries[place] for place in picked]
            lines.append(f"{latex(row.label)} & {' & '.join(map(_measured, own_entries))} \\\\")
            lines.append(f" & {' & '.join(map(_reported, own_entries))} \\\\[2pt]")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def _measured(number: Number | None) -> str:
    if number is None:
        return ""
    mark = "" if number.verdict == "not comparable" else f"\\textsuperscript{{{_SIGNS[number.verdict]}}}"
    return latex(measured_text(number)) + mark


def _reported(number: Number | None) -> str:
    return "" if number is None else f"{{\\tiny {latex(reported_text(number))}}}"


def _claims(found: Reproduction) -> list[str]:
    if not found.claims:
        return []
    head = "& Claim & Measured & Verdict \\\\"
    lines = [
        "\\par\\medskip\\begingroup\\footnotesize",
        "\\begin{longtable}{@{}lp{0.36\\linewidth}p{0.24\\linewidth}p{0.3\\linewidth}@{}}",
        "\\toprule", head, "\\midrule\\endhead", "\\bottomrule\\endfoot",
    ]  # fmt: skip
    lines += [
        f"{_SIGNS[one.verdict]} & {latex(one.claim.sentence)} & {latex(evidence_text(one))} & "
        f"{latex(f'{one.verdict}: {one.why}')} \\\\"
        for one in found.claims
    ]
    return [*lines, "\\end{longtable}", "\\endgroup"]
