"""The comparison table: rows are attacks on a dataset, column groups are defenses, sub-columns metrics.

The layout of Table II in Gong et al., "A GAN-Based Defense Framework Against Model Inversion Attacks"
(IEEE TIFS 2023), with what that table leaves out: intervals, negative controls, failed cells, and the facts
without which an attack accuracy says nothing.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from mibench.errors import RecordError
from mibench.record import Record, uncollected
from mibench.report.caption import caption, flags_of_all
from mibench.report.escape import plain
from mibench.report.frame import Json, MetricInfo, cells_frame, estimates_frame, latest, metric_infos
from mibench.report.worst import worst_cases

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADLINE = ("mc_all", "mc_target", "aa", "fid")
"""The sub-columns of the paper's table."""

MARKS = "abcdefghijklmnoprstuvwxyz"  # no q: Unicode has no superscript of it
Place = tuple[int, int, int]  # row, defense, metric
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
    cells = cells_frame(kept)
    rows = _place(cells)
    defenses = tuple(cells["defense"].drop_duplicates())
    cells["defense_id"] = cells["defense"].map({name: i for i, name in enumerate(defenses)})
    numbers = _aggregate(cells, estimates_frame(kept, [c.name for c in columns]), columns)
    marks, footnotes = _footnotes(cells)
    shape = len(rows), len(defenses), len(columns)
    entries = _entries(cells, _numbers(numbers), marks, shape=shape, intervals=intervals)
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


def _place(cells: pd.DataFrame) -> tuple[Row, ...]:
    """Give every cell its `row_id`: scenes as they come, attacks before controls; return the rows."""
    names = ["scene", "attack", "view"]
    unique = cells[[*names, "access", "control"]].drop_duplicates(names).reset_index(drop=True)
    for name in ("scene", "attack"):
        unique[f"{name}_order"] = pd.factorize(unique[name])[0]
    unique = unique.sort_values(["scene_order", "control", "attack_order"], kind="stable", ignore_index=True)
    unique["row_id"] = unique.index
    cells["row_id"] = cells.merge(unique[[*names, "row_id"]], on=names, how="left")["row_id"].to_numpy()
    several = unique.groupby(["scene", "attack"])["view"].transform("nunique") > 1
    rows = []
    for line, has_views in zip(unique.itertuples(), several):
        label = f"{line.attack} ({line.view})" if has_views else str(line.attack)
        rows.append(
            Row(
                str(line.scene), str(line.attack), str(line.view), str(line.access), bool(line.control), label
            )
        )
    return tuple(rows)


def _aggregate(cells: pd.DataFrame, estimates: pd.DataFrame, columns: Sequence[MetricInfo]) -> pd.DataFrame:
    """Mean over seeds of every (row, defense, metric), in percent where the metric is a fraction."""
    places = cells[["row_id", "defense_id", "control"]].to_numpy()[estimates["record"].to_numpy(dtype=int)]
    frame = estimates.assign(
        row_id=places[:, 0].astype(int),
        defense_id=places[:, 1].astype(int),
        control=places[:, 2].astype(bool),
    )
    frame["metric_id"] = frame["metric"].map({c.name: i for i, c in enumerate(columns)})
    scale = frame["metric_id"].map(dict(enumerate(100.0 if c.percent else 1.0 for c in columns)))
    for name in ("value", "low", "high"):
        frame[name] = frame[name] * scale
    grouped = frame.groupby(["row_id", "defense_id", "metric_id"], sort=False)
    numbers = grouped.agg(
        value=("value", "mean"), low=("low", "first"), high=("high", "first"), spread=("value", "std"),
        least_count=("count", "min"), seeds=("value", "size"), control=("control", "first"),
    ).reset_index()  # fmt: skip
    several = numbers["seeds"] > 1
    numbers["low"] = numbers["low"].where(~several, numbers["value"] - numbers["spread"])
    numbers["high"] = numbers["high"].where(~several, numbers["value"] + numbers["spread"])
    places_shown = [_decimals(numbers.loc[numbers["metric_id"] == i, "value"], c.percent)
                    for i, c in enumerate(columns)]  # fmt: skip
    numbers["decimals"] = numbers["metric_id"].map(dict(enumerate(places_shown)))
    return numbers.assign(best=_best(numbers, columns))


def _decimals(values: pd.Series[float], percent: bool) -> int:
    """Decimals that leave about three digits of the largest value; one for a percentage."""
    largest = float(values.abs().max()) if len(values) else 0.0
    if percent or largest >= 10:
        return 1 if largest < 1000 else 0
    return 3 - max(-3, math.floor(math.log10(largest)) + 1) if largest > 0 else 1


def _best(numbers: pd.DataFrame, columns: Sequence[MetricInfo]) -> pd.Series[bool]:
    """Whether a number is the defender's best of its row and metric, as printed.

    Never in a negative control, where nothing competes; nor where all are equal, nor where the counts
    differ in a metric whose bias depends on them (every metric that is no fraction, FID above all).
    """
    lower = numbers["metric_id"].map(dict(enumerate(c.better == "lower" for c in columns))).astype(bool)
    percent = numbers["metric_id"].map(dict(enumerate(c.percent for c in columns))).astype(bool)
    power = 10.0 ** numbers["decimals"].astype(float)
    score = np.rint(numbers["value"] * power) / power * np.where(lower, -1.0, 1.0)
    groups = [numbers["row_id"], numbers["metric_id"]]
    top = score.groupby(groups).transform("max")
    bottom = score.groupby(groups).transform("min")
    same_count = numbers["least_count"].groupby(groups).transform("nunique") == 1
    best: pd.Series[bool] = (score == top) & (top > bottom) & ~numbers["control"] & (percent | same_count)
    return best


def _footnotes(cells: pd.DataFrame) -> tuple[dict[tuple[int, int], str], tuple[tuple[str, str], ...]]:
    """Letters of every (row, defense) and their texts: failures and flags, equal texts under one letter.

    A flag that every measured cell carries is a sentence of the caption instead.
    """
    everywhere = flags_of_all(cells)
    marked = cells[(cells["status"] == "failed") | (cells["flags"].map(len) > 0)]
    names = ["row_id", "defense_id", "seed", "status", "reason", "flags"]
    ordered = marked.sort_values(names[:3], kind="stable")
    seeds: dict[tuple[int, int], dict[str, list[int]]] = {}  # by place and text: the seeds that it is about
    for row, defense, seed, status, why, flags in zip(*(ordered[name].tolist() for name in names)):
        failure = [f"failed: {why or 'no reason was recorded'}"] if status == "failed" else []
        for text in failure or [text for text in flags if text not in everywhere]:
            seeds.setdefault((row, defense), {}).setdefault(plain(text, 240), []).append(seed)
    num_seeds = cells.groupby(["row_id", "defense_id"]).size().to_dict()
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


class _Number(NamedTuple):
    """One line of the aggregated numbers."""

    value: float
    low: float
    high: float
    spread: float
    least_count: float
    seeds: int
    decimals: int
    best: bool


def _numbers(frame: pd.DataFrame) -> dict[Place, _Number]:
    """The aggregated numbers by their place: row, defense, metric."""
    places = zip(*(frame[name].tolist() for name in ("row_id", "defense_id", "metric_id")))
    columns = zip(*(frame[name].tolist() for name in _Number._fields))
    return dict(zip(places, (_Number(*line) for line in columns)))


def _entries(
    cells: pd.DataFrame,
    numbers: dict[Place, _Number],
    marks: dict[tuple[int, int], str],
    *,
    shape: Place,
    intervals: bool,
) -> dict[Place, Entry]:
    """Every entry of a table of this shape, those without a number included."""
    outcome: dict[tuple[int, int], tuple[str, str]] = {}
    rank = {"ok": 2, "failed": 1}  # a number beats a failure beats a cell that makes no sense
    order = cells.sort_values("seed", kind="stable")
    names = ("row_id", "defense_id", "status", "cell")
    for row, defense, status, cell in zip(*(order[name].tolist() for name in names)):
        known = outcome.get((row, defense))
        if known is None or rank.get(status, 0) > rank.get(known[0], 0):
            outcome[row, defense] = (status, cell)
    entries = {}
    for row, defense, metric in itertools.product(*map(range, shape)):
        place = row, defense, metric
        status, cell = outcome.get((row, defense), ("missing", ""))
        mark = marks.get((row, defense), "")
        if place in numbers:
            entries[place] = _number(numbers[place], mark, cell, intervals=intervals)
        else:
            state = _empty_state(status)
            entries[place] = Entry(state, shown=WORDS[state], marks=mark, cell=cell)
    return entries


def _empty_state(status: str) -> State:
    """Why a cell of this status has no number."""
    known: dict[str, State] = {"ok": "absent", "failed": "failed", "blocked": "blocked"}
    return known.get(status, "missing")


def _number(line: _Number, mark: str, cell: str, *, intervals: bool) -> Entry:
    """The entry of one line of the aggregated numbers."""
    decimals, seeds = line.decimals, line.seeds
    extra = ""
    if intervals and seeds > 1:
        extra = f"±{line.spread:.{decimals}f}"
    elif intervals and line.low < line.high:
        coarse = max(decimals - 1, 0)  # an end of an interval is worth one digit less than its middle
        extra = f"[{shown(line.low, coarse)}\N{EN DASH}{shown(line.high, coarse)}]"
    return Entry(
        "value", line.value, line.low, line.high, int(line.least_count), seeds, line.best,
        shown(line.value, decimals), extra, mark, cell,
    )  # fmt: skip


def shown(value: float, decimals: int) -> str:
    """The number with this many decimals; never a negative zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"
