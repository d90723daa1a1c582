"""Defenses compared where they cost the same utility: AA at MC(all) of no defense less some points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd
from markupsafe import Markup

from mibench.record import Record
from mibench.report.caption import chance_fact, judge_facts, seeds_fact, view_facts
from mibench.report.curves import LOSSES, Curve, Meeting, Point, Sheet, sheets_of
from mibench.report.escape import latex, markdown, plain
from mibench.report.frame import Json, cell_rows, latest
from mibench.report.table import Entry, shown
from mibench.report.table_csv import frame_csv
from mibench.report.table_html import render
from mibench.report.table_latex import MOST_LINES

NOT_REACHED = "not reached"
_READING = (
    "AA in % where every defense has the same MC(all): that of no defense less 1, 2, 5 and 10 points. It "
    "lies on the straight line between the two neighboring levels of the defense's knob, over those levels "
    "alone that no other level of it beats; bold is the lowest of its attack.",
    "Brackets are the ends of the neighbors' intervals (95 %; of several seeds the mean less and plus one "
    "standard deviation) on the same kind of line, no interval of their own; they leave the uncertainty of "
    "MC(all) out.",
    f"{NOT_REACHED.capitalize()}: no two levels have that MC(all) between them, since all keep more of it, "
    "or less. With it stands the nearest one: its MC(all), its AA. Nothing is extrapolated.",
    "Hypervolume: the share of all that lies between MC(all) 0 and 100 % and AA 0 and 100 % which the levels "
    "of a curve beat together, 1 at best; brackets with every level at the worse and at the better ends of "
    "its intervals. It grows with the number of levels, so compare curves of equally many.",
)


@dataclass(frozen=True)
class Text:
    """One printed number: itself, what stands below it, whether it is the best of its attack."""

    shown: str
    extra: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A defense against one attack: what it is called, and a text for each loss and the hypervolume."""

    label: str
    knob: str
    texts: tuple[Text, ...]


@dataclass(frozen=True)
class Group:
    """The defenses against one attack: who attacks, what no defense gives, and where that was measured."""

    scene: str
    label: str
    undefended: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class EqualUtility:
    """The comparison at equal utility as values; the `to_` methods print it.

    Args:
        groups: one an attack.
        caption: one sentence or more each.
        sheets: the curves behind it.
    """

    groups: tuple[Group, ...]
    caption: tuple[str, ...]
    sheets: tuple[Sheet, ...]

    @property
    def headings(self) -> tuple[str, ...]:
        """The heading of every text of a line."""
        minus = "\N{MINUS SIGN}"
        losses = (f"{minus}{loss:g} {'point' if loss == 1 else 'points'}" for loss in LOSSES)
        return (*losses, "Hypervolume ↑")

    def to_csv(self) -> str:
        """One line a curve and loss, fractions unrounded."""
        return frame_csv(pd.DataFrame([row for sheet in self.sheets for row in _rows(sheet)]))

    def to_markdown(self) -> str:
        """A pipe table for each scene, then the caption."""
        parts = []
        for scene, groups in groupby(self.groups, key=lambda group: group.scene):
            head = ["Attack", "Defense", *(markdown(heading) for heading in self.headings)]
            lines = [f"| {' | '.join(head)} |", f"|{'---|' * 2}{'---:|' * len(self.headings)}"]
            for group in groups:
                empty = " | ".join([""] * len(self.headings))
                lines.append(f"| **{markdown(group.label)}** | {markdown(group.undefended)} | {empty} |")
                for line in group.lines:
                    cells = ["", markdown(_called(line)), *map(_markdown_cell, line.texts)]
                    lines.append(f"| {' | '.join(cells)} |")
            parts.append(f"**{markdown(scene)}**\n\n" + "\n".join(lines))
        return "\n\n".join([*parts, markdown(" ".join(self.caption))]) + "\n"

    def to_latex(self) -> str:
        """A booktabs `table*`, and as many "continued" as pages need."""
        floats: list[list[Group]] = []
        used = MOST_LINES
        for group in self.groups:
            lines = 2 + 2 * len(group.lines)
            if used + lines > MOST_LINES:
                floats.append([])
                used = 0
            floats[-1].append(group)
            used += lines
        first = f"\\caption{{{latex(' '.join(self.caption))}}}\n\\label{{tab:equal-utility}}\n"
        heads = [first] + ["\\addtocounter{table}{-1}\n\\caption{Continued.}\n"] * (len(floats) - 1)
        parts = (
            f"\\begin{{table*}}\n\\centering\\footnotesize\n{head}\\vspace{{4pt}}\n"
            f"{self._tabular(groups)}\n\\end{{table*}}\n"
            for head, groups in zip(heads, floats)
        )
        return "% Needs \\usepackage{booktabs}.\n" + "".join(parts)

    def _tabular(self, groups: Sequence[Group]) -> str:
        """One tabular of some attacks."""
        width = 1 + len(self.headings)
        body = [f"\\begin{{tabular}}{{@{{}}l*{{{width - 1}}}{{r}}@{{}}}}", "\\toprule"]
        body.append(f"Defense & {' & '.join(map(latex, self.headings))} \\\\")
        for scene, members in groupby(groups, key=lambda group: group.scene):
            body += ["\\midrule", f"\\multicolumn{{{width}}}{{@{{}}l}}{{\\emph{{{latex(scene)}}}}} \\\\"]
            for group in members:
                title = f"\\textbf{{{latex(group.label)}}} {latex(group.undefended)}"
                body.append(f"\\multicolumn{{{width}}}{{@{{}}l}}{{{title}}} \\\\")
                for line in group.lines:
                    body += _latex_lines(line)
        return "\n".join([*body, "\\bottomrule", "\\end{tabular}"])

    def to_html(self) -> Markup:
        """A <table> in a scrolling container, escaped by its own template."""
        return Markup(render("equal_utility.html.j2", table=self))


def equal_utility(records: Sequence[Json | Record]) -> EqualUtility | None:
    """The comparison of records at equal utility; None where no defense stands at two levels of its knob."""
    sheets = tuple(sheets_of(records))
    if not sheets:
        return None
    cells = cell_rows(latest(records))
    lost = list(dict.fromkeys(f"{label} against {s.row.label}" for s in sheets for label in s.lost))
    alone = [sheet.row.label for sheet in sheets if sheet.baseline is None]
    facts = (
        *_READING,
        f"Without a number: {', '.join(lost)}." if lost else "",
        f"Without a number of no defense, so not compared: {', '.join(alone)}." if alone else "",
        chance_fact(cells),
        *judge_facts(cells),
        seeds_fact(cells),
        *view_facts(cells),
    )
    return EqualUtility(
        tuple(_group(sheet, sheet.baseline) for sheet in sheets if sheet.baseline is not None),
        tuple(fact for fact in facts if fact),
        sheets,
    )


def curves_csv(sheets: Iterable[Sheet]) -> str:
    """Every point of every attack, one line each, fractions unrounded."""
    rows = []
    for sheet in sheets:
        front = {point.label for point in sheet.front}
        placed = [("", "", point, [point]) for point in sheet.others]
        placed += [(c.name, c.knob, point, c.efficient) for c in sheet.curves for point in c.points]
        rows += [
            {
                **_place(sheet), "defense": name or point.label, "knob": knob, "level": _value(point.level),
                "label": point.label, **_ends("mc_all", point.utility), **_ends("aa", point.aa),
                "count": point.aa.count, "seeds": point.aa.seeds, "efficient": point in efficient,
                "front": point.label in front, "cell": point.aa.cell,
            }
            for name, knob, point, efficient in placed
        ]  # fmt: skip
    return frame_csv(pd.DataFrame(rows))


def _group(sheet: Sheet, baseline: Point) -> Group:
    """The printed comparison of one attack."""
    start = baseline.utility.value
    met = [[curve.at(start - loss) for loss in LOSSES] for curve in sheet.curves]
    best = [_best([line[column] for line in met]) for column in range(len(LOSSES))]
    lines = tuple(
        Line(
            curve.name,
            curve.knob,
            (*(_text(one, best[column]) for column, one in enumerate(met[row])), _hypervolume(curve)),
        )
        for row, curve in enumerate(sheet.curves)
    )
    alone = Curve("", "", (baseline,))
    undefended = (
        f"no defense: MC(all) {shown(start, 1)}, AA {shown(baseline.aa.value, 1)}, "
        f"hypervolume {shown(alone.hypervolume()[0], 3)}"
    )
    return Group(sheet.scene.name, sheet.row.label, undefended, lines)


def _best(meetings: Sequence[Meeting]) -> float:
    """The lowest AA of several curves as printed; below every AA where nothing competes."""
    values = [round(one.aa, 1) for one in meetings if one.state == "reached"]
    return min(values) if len(set(values)) > 1 else -1.0


def _text(met: Meeting, best: float) -> Text:
    """A curve at one utility as printed."""
    if met.state == "reached":
        extra = f"[{shown(met.low, 0)}\N{EN DASH}{shown(met.high, 0)}]" if met.low < met.high else ""
        return Text(shown(met.aa, 1), extra, round(met.aa, 1) == best)
    near = met.points[0]
    return Text(NOT_REACHED, f"{near.level}: {shown(near.utility.value, 1)}, {shown(near.aa.value, 1)}")


def _hypervolume(curve: Curve) -> Text:
    value, low, high = curve.hypervolume()
    return Text(shown(value, 3), f"[{shown(low, 2)}\N{EN DASH}{shown(high, 2)}]" if low < high else "")


def _rows(sheet: Sheet) -> list[dict[str, str | float]]:
    """The lines of the table of values: one a curve and loss; none without a defense to compare with."""
    if sheet.baseline is None:
        return []
    rows: list[dict[str, str | float]] = []
    for curve in sheet.curves:
        volume, low, high = curve.hypervolume()
        for loss in LOSSES:
            utility = sheet.baseline.utility.value - loss
            met = curve.at(utility)
            is_reached = met.state == "reached"
            near = met.points[0]
            rows.append(
                _place(sheet) | {
                    "defense": curve.name, "knob": curve.knob, "loss": _fraction(loss),
                    "mc_all": _fraction(utility), "state": met.state,
                    **{
                        name: _fraction(value) if is_reached else float("nan")
                        for name, value in (("aa", met.aa), ("aa_low", met.low), ("aa_high", met.high))
                    },
                    "between": "; ".join(point.label for point in met.points) if is_reached else "",
                    "nearest": "" if is_reached else near.label,
                    "nearest_mc_all": float("nan") if is_reached else _fraction(near.utility.value),
                    "nearest_aa": float("nan") if is_reached else _fraction(near.aa.value),
                    "hypervolume": volume, "hypervolume_low": low, "hypervolume_high": high,
                }
            )  # fmt: skip
    return rows


def _place(sheet: Sheet) -> dict[str, str | float]:
    row = sheet.row
    return {"data": row.scene, "attack": row.attack, "view": row.view, "access": row.access}


def _ends(name: str, entry: Entry) -> dict[str, float]:
    """A number and the ends of its interval as fractions, named after it."""
    ends = {name: entry.value, f"{name}_low": entry.low, f"{name}_high": entry.high}
    return {one: _fraction(value) for one, value in ends.items()}


def _value(level: str) -> str | float:
    """A level as a number where it is one: a spreadsheet must not take -0.05 for a formula."""
    try:
        return float(level) if "." in level or "e" in level else int(level)
    except ValueError:
        return level


def _fraction(percent: float) -> float:
    return float(f"{percent / 100:.12g}")


def _called(line: Line) -> str:
    return plain(f"{line.label} ({line.knob})")


def _markdown_cell(text: Text) -> str:
    number = f"**{text.shown}**" if text.best else text.shown
    return f"{number} {markdown(text.extra)}" if text.extra else number


def _latex_lines(line: Line) -> list[str]:
    """The numbers of a defense, and in small print below them what belongs to them."""
    numbers = [f"\\textbf{{{latex(t.shown)}}}" if t.best else latex(t.shown) for t in line.texts]
    extras = [f"{{\\tiny {latex(text.extra)}}}" if text.extra else "" for text in line.texts]
    lines = [f"\\quad {latex(_called(line))} & {' & '.join(numbers)} \\\\"]
    return [*lines, f" & {' & '.join(extras)} \\\\[2pt]"] if any(extras) else lines
