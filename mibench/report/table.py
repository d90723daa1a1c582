"""The comparison table: rows are attacks on a dataset, column groups are defenses, sub-columns metrics.

The layout of Table II in Gong et al., "A GAN-Based Defense Framework Against Model Inversion Attacks"
(IEEE TIFS 2023), with what that table leaves out: intervals, negative controls, failed cells, and the facts
without which an attack accuracy says nothing.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from mibench.errors import RecordError
from mibench.record import Record, uncollected
from mibench.report.caption import caption, flags_of_all
from mibench.report.escape import plain
from mibench.report.frame import CellRow, Json, MetricInfo, cell_rows, estimate_rows, latest, metric_infos
from mibench.report.worst import worst_cases

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADLINE = ("mc_all", "mc_target", "aa", "fid")
"""The sub-columns of the paper's table."""

MARKS = "abcdefghijklmnoprstuvwxyz"  # no q: Unicode has no superscript of it
Place = tuple[int, int, int]  # row, defense, metric
Pair = tuple[int, int]  # row, defense
State = Literal["value", "absent", "failed", "blocked", "missing"]
WORDS: dict[State, str] = {"absent": "n/a", "failed": "failed", "blocked": "\N{EN DASH}", "missing": "·"}
"""What stands in a cell without a number; the caption explains those that occur."""


@dataclass(frozen=True)
class Row:
    """One line of the table: an attack on one scene (data and victim network) in one white-box view."""

    scene: str
    attack: str
    view: str
    access: str
    control: bool
    label: str


@dataclass(frozen=True)
class Entry:
    """One number of the table.

    Args:
        state: `value`, or why there is none.
        value, low, high: percent for percent metrics; over several seeds mean and mean -/+ deviation.
        count: the smallest number of things averaged in any seed.
        seeds: number of seeds behind the value.
        best: best for the defender among the defenses of its row.
        shown: the number or word as printed.
        extra: the interval `[41-80]` (with an en dash), the deviation `±3.1`, or nothing.
        marks: letters of footnotes.
        cell: the cell of the first seed; empty where there is none.
    """

    state: State
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    count: int = 0
    seeds: int = 0
    best: bool = False
    shown: str = ""
    extra: str = ""
    marks: str = ""
    cell: str = ""


@dataclass(frozen=True)
class Comparison:
    """The table as values; the `to_` methods print it.

    Args:
        entries: the entry of (row, defense, metric), each an index into `rows`, `defenses`, `metrics`.
        caption: the facts below the table, one sentence each.
        footnotes: (letter, text) of failed cells and flags.
    """

    rows: tuple[Row, ...]
    defenses: tuple[str, ...]
    metrics: tuple[MetricInfo, ...]
    entries: dict[Place, Entry] = field(repr=False)
    caption: tuple[str, ...]
    footnotes: tuple[tuple[str, str], ...]
    intervals: bool

    def to_rich(self, width: int = 100) -> RenderableType:
        """A rich renderable that fits `width` columns; defenses move to further blocks where it must."""
        from mibench.report.table_text import rich_table

        return rich_table(self, width)

    def to_csv(self, form: Literal["wide", "long"] = "wide") -> str:
        """Comma-separated values: `wide` as printed, `long` one line a number, as fractions."""
        from mibench.report.table_csv import long_csv, wide_csv

        return wide_csv(self) if form == "wide" else long_csv(self)

    def to_markdown(self) -> str:
        """A pipe table, defenses as columns and metrics as lines, since Markdown has no column groups."""
        from mibench.report.table_text import markdown_table

        return markdown_table(self)

    def to_latex(self, max_columns: int = 12) -> str:
        """A booktabs `table*`; defenses move to a further tabular after `max_columns` numbers in a line."""
        from mibench.report.table_latex import latex_table

        return latex_table(self, max_columns)

    def to_html(self, link: Callable[[str, str], str] | None = None) -> str:
        """A <table> in a scrolling container; `link` gives the address of (cell, metric name or nothing)."""
        from mibench.report.table_html import html_table

        return html_table(self, link)


@uncollected()
def comparison(
    records: Iterable[Json | Record], *, metrics: Sequence[str] | None = None, intervals: bool = True
) -> Comparison:
    """The comparison table of records.

    Args:
        records: records or their dicts; of records of one cell the last counts.
        metrics: names of the sub-columns; None: the headline metrics that the records hold.
        intervals: print 95 % intervals, or the deviation over seeds where there are several.

    Raises:
        RecordError: no record, a metric that no record holds, or two cells in one place of the table.
    """
    kept = latest(records)
    if not kept:
        raise RecordError("records: there are none to compare. Run the suite first: `mibench run SUITE`.")
    columns = _columns(metric_infos(kept), metrics)
    if any(column.name == "aa" for column in columns):
        kept = [*kept, *worst_cases(kept)]
    cells = cell_rows(kept)
    rows = _rows(cells)
    defenses = tuple(dict.fromkeys(cell.defense for cell in cells))
    places = _places(cells, rows, defenses)
    numbers = _aggregate(cells, places, kept, columns)
    marks, footnotes = _footnotes(cells, places)
    shape = len(rows), len(defenses), len(columns)
    entries = _entries(cells, places, numbers, marks, shape=shape, intervals=intervals)
    facts = caption(cells, entries, columns, intervals=intervals)
    return Comparison(rows, defenses, columns, entries, facts, footnotes, intervals)


def _columns(infos: dict[str, MetricInfo], metrics: Sequence[str] | None) -> tuple[MetricInfo, ...]:
    """The metrics to print; where every cell failed, a lone AA whose cells say so."""
    if not infos:
        return (MetricInfo("aa", "AA", "lower", percent=True),)
    if metrics is None:
        metrics = [name for name in HEADLINE if name in infos] or list(infos)[:1]
    for name in metrics:
        if name not in infos:
            close = difflib.get_close_matches(name, infos, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise RecordError(f"table: no record has metric '{name}'.{hint} There are: {', '.join(infos)}.")
    return tuple(infos[name] for name in metrics)


def _rows(cells: Sequence[CellRow]) -> tuple[Row, ...]:
    """The lines of the table: scenes as they come, attacks before controls."""
    first: dict[tuple[str, str, str], CellRow] = {}
    views: dict[tuple[str, str], set[str]] = defaultdict(set)
    for cell in cells:
        first.setdefault((cell.scene, cell.attack, cell.view), cell)
        views[cell.scene, cell.attack].add(cell.view)
    scenes = {name: i for i, name in enumerate(dict.fromkeys(scene for scene, _, _ in first))}
    attacks = {name: i for i, name in enumerate(dict.fromkeys(attack for _, attack, _ in first))}
    ordered = sorted(
        first.values(), key=lambda cell: (scenes[cell.scene], cell.control, attacks[cell.attack])
    )
    return tuple(
        Row(
            cell.scene, cell.attack, cell.view, cell.access, cell.control,
            f"{cell.attack} ({cell.view})" if len(views[cell.scene, cell.attack]) > 1 else cell.attack,
        )
        for cell in ordered
    )  # fmt: skip


def _places(cells: Sequence[CellRow], rows: Sequence[Row], defenses: Sequence[str]) -> list[Pair]:
    """The line and the column of every cell."""
    lines = {(row.scene, row.attack, row.view): i for i, row in enumerate(rows)}
    columns = {name: i for i, name in enumerate(defenses)}
    return [(lines[cell.scene, cell.attack, cell.view], columns[cell.defense]) for cell in cells]


class _Number(NamedTuple):
    """What the seeds of one place say of one metric, in percent where it is a fraction."""

    value: float
    low: float
    high: float
    spread: float
    averaged: float
    seeds: int
    control: bool
    best: bool = False


def _aggregate(
    cells: Sequence[CellRow], places: Sequence[Pair], records: Sequence[Json], columns: Sequence[MetricInfo]
) -> dict[Place, tuple[_Number, int]]:
    """For every place with a number its mean over seeds, and its decimals."""
    metrics = {column.name: i for i, column in enumerate(columns)}
    found: dict[Place, list[tuple[float, float, float, float, bool]]] = defaultdict(list)
    for record, name, value, low, high, count in estimate_rows(records, metrics):
        scale = 100.0 if columns[metrics[name]].percent else 1.0
        line = value * scale, low * scale, high * scale, count, cells[record].control
        found[(*places[record], metrics[name])].append(line)
    numbers = {place: _mean(lines) for place, lines in found.items()}
    decimals = [
        _decimals([one.value for place, one in numbers.items() if place[2] == i], percent=column.percent)
        for i, column in enumerate(columns)
    ]
    best = _best(numbers, decimals, columns)
    return {place: (one._replace(best=place in best), decimals[place[2]]) for place, one in numbers.items()}


def _mean(lines: Sequence[tuple[float, float, float, float, bool]]) -> _Number:
    """The mean over seeds of (value, low, high, count, is a control); one seed keeps its interval."""
    values = [line[0] for line in lines]
    (_, low, high, _, control), count = lines[0], min(line[3] for line in lines)
    if len(values) == 1:
        return _Number(values[0], low, high, math.nan, count, 1, control)
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return _Number(mean, mean - spread, mean + spread, spread, count, len(values), control)


def _decimals(values: Sequence[float], *, percent: bool) -> int:
    """Decimals that leave about three digits of the largest value; one for a percentage."""
    largest = max(map(abs, values), default=0.0)
    if percent or largest >= 10:
        return 1 if largest < 1000 else 0
    return 3 - max(-3, math.floor(math.log10(largest)) + 1) if largest > 0 else 1


def _best(
    numbers: dict[Place, _Number], decimals: Sequence[int], columns: Sequence[MetricInfo]
) -> set[Place]:
    """Places of the numbers that are the defender's best of their row and metric, as printed.

    Never in a negative control, where nothing competes; nor where all are equal, nor where the counts
    differ in a metric whose bias depends on them (every metric that is no fraction, FID above all).
    """
    groups: dict[Pair, list[Place]] = defaultdict(list)
    for place in numbers:
        groups[place[0], place[2]].append(place)
    found: set[Place] = set()
    for (_, metric), places in groups.items():
        power = 10.0 ** decimals[metric]
        printed = {place: round(numbers[place].value * power) / power for place in places}
        top, bottom = max(printed.values()), min(printed.values())
        wanted = bottom if columns[metric].better == "lower" else top
        same_count = len({numbers[place].averaged for place in places}) == 1
        if top > bottom and (columns[metric].percent or same_count):
            found |= {p for p in places if printed[p] == wanted and not numbers[p].control}
    return found


def _footnotes(
    cells: Sequence[CellRow], places: Sequence[Pair]
) -> tuple[dict[Pair, str], tuple[tuple[str, str], ...]]:
    """Letters of every (row, defense) and their texts: failures and flags, equal texts under one letter.

    A flag that every measured cell carries is a sentence of the caption instead.
    """
    everywhere = flags_of_all(cells)
    marked = [(place, cell) for place, cell in zip(places, cells) if cell.status == "failed" or cell.flags]
    seeds: dict[Pair, dict[str, list[int]]] = {}  # by place and text: the seeds that it is about
    for place, cell in sorted(marked, key=lambda one: (one[0], one[1].seed)):
        failure = [f"failed: {cell.reason or 'no reason was recorded'}"] if cell.status == "failed" else []
        for text in failure or [text for text in cell.flags if text not in everywhere]:
            seeds.setdefault(place, {}).setdefault(plain(text, 240), []).append(cell.seed)
    num_seeds = Counter(places)
    letters: dict[str, str] = {}
    marks = {}
    for place, texts in seeds.items():
        notes = [_about(text, some, num_seeds[place]) for text, some in texts.items()]
        marks[place] = ",".join(letters.setdefault(note, _letter(len(letters))) for note in notes)
    return marks, tuple((mark, text) for text, mark in letters.items())


def _about(text: str, seeds: Sequence[int], num_seeds: int) -> str:
    """A footnote that says which seeds it is about where it is not about all."""
    if len(seeds) == num_seeds:
        return text[0].upper() + text[1:]
    return f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}: {text}"


def _letter(index: int) -> str:
    """a, b, ..., z, aa, ab, ... without q."""
    high, low = divmod(index, len(MARKS))
    return (_letter(high - 1) if high else "") + MARKS[low]


def _entries(
    cells: Sequence[CellRow],
    places: Sequence[Pair],
    numbers: dict[Place, tuple[_Number, int]],
    marks: dict[Pair, str],
    *,
    shape: Place,
    intervals: bool,
) -> dict[Place, Entry]:
    """Every entry of a table of this shape, those without a number included."""
    outcome: dict[Pair, tuple[str, str]] = {}
    rank = {"ok": 2, "failed": 1}  # a number beats a failure beats a cell that makes no sense
    for pair, cell in sorted(zip(places, cells), key=lambda one: one[1].seed):
        known = outcome.get(pair)
        if known is None or rank.get(cell.status, 0) > rank.get(known[0], 0):
            outcome[pair] = (cell.status, cell.cell)
    entries = {}
    for row, defense, metric in itertools.product(*map(range, shape)):
        place = row, defense, metric
        status, name = outcome.get((row, defense), ("missing", ""))
        mark = marks.get((row, defense), "")
        if place in numbers:
            entries[place] = _number(*numbers[place], mark, name, intervals=intervals)
        else:
            state = _empty_state(status)
            entries[place] = Entry(state, shown=WORDS[state], marks=mark, cell=name)
    return entries


def _empty_state(status: str) -> State:
    """Why a cell of this status has no number."""
    known: dict[str, State] = {"ok": "absent", "failed": "failed", "blocked": "blocked"}
    return known.get(status, "missing")


def _number(line: _Number, decimals: int, mark: str, cell: str, *, intervals: bool) -> Entry:
    """The entry of one aggregated number."""
    seeds = line.seeds
    extra = ""
    if intervals and seeds > 1:
        extra = f"±{line.spread:.{decimals}f}"
    elif intervals and line.low < line.high:
        coarse = max(decimals - 1, 0)  # an end of an interval is worth one digit less than its middle
        extra = f"[{shown(line.low, coarse)}\N{EN DASH}{shown(line.high, coarse)}]"
    return Entry(
        "value", line.value, line.low, line.high, int(line.averaged), seeds, line.best,
        shown(line.value, decimals), extra, mark, cell,
    )  # fmt: skip


def shown(value: float, decimals: int) -> str:
    """The number with this many decimals; never a negative zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"
