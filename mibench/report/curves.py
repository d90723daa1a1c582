"""Privacy against utility as curves: each defense at several levels of its one knob, for each attack.

Utility is MC(all), the accuracy on private test images; the attack's side is AA. Defenses are compared where
they cost the same utility, never by a ratio of the two losses, which explodes where little is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mibench.fields import level_text
from mibench.record import Record
from mibench.report.escape import plain, slugs
from mibench.report.frame import Json, metric_infos, part
from mibench.report.places import FigureFile, Scene, defense_label, scenes_of
from mibench.report.table import Comparison, Entry, Row, comparison
from mibench.report.worst import WORST

AXES = ("mc_all", "aa")
LOSSES = (1.0, 2.0, 5.0, 10.0)  # percentage points of MC(all) at which defenses are compared
Pair = tuple[float, float]  # utility, attack accuracy
State = Literal["reached", "keeps more", "keeps less"]
_SAME = 1e-9  # percentage points: roundings of one number


@dataclass(frozen=True)
class Point:
    """A defense at one level, met by one attack.

    Args:
        label: of the defense.
        level: value of its knob as text; empty where it is no point of a curve.
        utility: MC(all), percent.
        aa: attack accuracy, percent.
    """

    label: str
    level: str
    utility: Entry
    aa: Entry

    @property
    def pair(self) -> Pair:
        """Utility and attack accuracy in percent."""
        return self.utility.value, self.aa.value


@dataclass(frozen=True)
class Meeting:
    """What a curve says at a utility.

    Args:
        state: "reached", or why not: every efficient level keeps more utility than that, or less.
        aa, low, high: percent, on the line between the neighbors, and the ends of their intervals likewise;
            those of the nearest point where it is not reached.
        points: the neighbors, the one with less utility first; one of them where it has that very utility,
            or the nearest.
    """

    state: State
    aa: float
    low: float
    high: float
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Curve:
    """A defense at several levels of its knob.

    Args:
        name: of the defense.
        knob: the field that differs.
        points: one or more, in the order of the records.
    """

    name: str
    knob: str
    points: tuple[Point, ...]

    @property
    def efficient(self) -> list[Point]:
        """Its points that no other of its points beats, from the least utility on."""
        return efficient(self.points)

    def at(self, utility: float) -> Meeting:
        """The curve at a utility in percent, without any extrapolation."""
        return meet(self.efficient, utility)

    def hypervolume(self) -> tuple[float, float, float]:
        """See `hypervolume`: its value, and with every point at the worse and at the better ends."""
        ends = (
            [point.pair for point in self.points],
            [(point.utility.low, point.aa.high) for point in self.points],
            [(point.utility.high, point.aa.low) for point in self.points],
        )
        value, low, high = (hypervolume([(u / 100, a / 100) for u, a in pairs]) for pairs in ends)
        return value, low, high


@dataclass(frozen=True)
class Sheet:
    """One attack against the curves of a scene.

    Args:
        scene: data and victim network.
        row: the attack, its view and how it is named.
        curves: of every defense with two levels or more, as far as they have numbers.
        lost: labels of levels without a number: failed, blocked or not run.
        others: points of defenses at one level.
        baseline: no defense, which is also among `others`; None where it was not run.
        file: where its figure lies.
    """

    scene: Scene
    row: Row
    curves: tuple[Curve, ...]
    lost: tuple[str, ...]
    others: tuple[Point, ...]
    baseline: Point | None
    file: FigureFile

    @property
    def front(self) -> list[Point]:
        """The points of all defenses that no other point beats, from the least utility on."""
        return efficient([*self.others, *(point for curve in self.curves for point in curve.points)])


def sheets_of(records: Iterable[Json | Record]) -> list[Sheet]:
    """A sheet for each attack of each scene in which a defense stands at two levels or more.

    Negative controls have none. The worst case has one where all attacks met the same models.
    """
    return [sheet for scene in scenes_of(records) for sheet in _sheets(scene)]


def front(pairs: Sequence[Pair]) -> list[int]:
    """Indices of the pairs that no other beats, from the least utility on; equal ones stay together.

    A pair beats another with at least its utility and at most its attack accuracy, and not both equal.
    """
    kept: list[int] = []
    for index in sorted(range(len(pairs)), key=lambda one: (-pairs[one][0], pairs[one][1])):
        if not kept or pairs[index][1] < pairs[kept[-1]][1] or pairs[index] == pairs[kept[-1]]:
            kept.append(index)
    return kept[::-1]


def efficient(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats, from the least utility on."""
    return [points[index] for index in front([point.pair for point in points])]


def meet(points: Sequence[Point], utility: float) -> Meeting:
    """Efficient points, from the least utility on, at a utility: on a straight line between two neighbors.

    A line is what a defender gets who draws one of the two models at random. There is no such line beyond the
    last point, so nothing is said there.
    """
    first, last = points[0], points[-1]
    for point in points:
        if abs(point.utility.value - utility) <= _SAME:
            return _beside("reached", point)
    if utility < first.utility.value:
        return _beside("keeps more", first)
    if utility > last.utility.value:
        return _beside("keeps less", last)
    right = next(index for index, point in enumerate(points) if point.utility.value > utility)
    low, high = points[right - 1], points[right]
    share = (utility - low.utility.value) / (high.utility.value - low.utility.value)
    ends = ((low.aa.value, high.aa.value), (low.aa.low, high.aa.low), (low.aa.high, high.aa.high))
    aa, least, most = (_between(start, end, share) for start, end in ends)
    return Meeting("reached", aa, least, most, (low, high))


def hypervolume(pairs: Sequence[Pair]) -> float:
    """Share of the unit square that fractions (utility, attack accuracy) beat, from 0 to 1.

    The reference is the worst that there can be, utility 0 and attack accuracy 1, for every record: a curve
    of 1 would lose nothing and give nothing away. Zitzler and Thiele, IEEE TEC 3 (1999).
    """
    volume, done = 0.0, 0.0
    clipped = [(min(max(u, 0.0), 1.0), min(max(a, 0.0), 1.0)) for u, a in pairs]
    for index in front(clipped):
        utility, aa = clipped[index]
        volume += (utility - done) * (1 - aa)
        done = utility
    return volume


def _between(start: float, end: float, share: float) -> float:
    """On the way from start to end; rounding never leaves the two."""
    value = start + share * (end - start)
    return min(max(value, min(start, end)), max(start, end))


def _beside(state: State, point: Point) -> Meeting:
    return Meeting(state, point.aa.value, point.aa.low, point.aa.high, (point,))


@dataclass(frozen=True)
class _Level:
    """Of which curve a label is a point, and where on it."""

    curve: str
    knob: str
    text: str


def _levels(records: Iterable[Json]) -> dict[str, _Level]:
    """The labels that differ from another of their plugin in its knob alone, with their places."""
    groups: dict[str, dict[str, tuple[str, str]]] = {}
    for record in records:
        defense = part(record, "defense")
        params, knob = dict(part(defense, "params")), str(defense.get("strength") or "")
        if knob in params:
            level = plain(level_text(params.pop(knob)), 20)
            rest = json.dumps([defense.get("name"), knob, params], sort_keys=True, default=str)
            groups.setdefault(rest, {}).setdefault(level, (defense_label(record), knob))
    found: dict[str, _Level] = {}
    taken: dict[str, int] = {}
    for rest, places in groups.items():
        if len(places) < 2:
            continue
        stems = {label.rpartition("@")[0] for label, _ in places.values()}
        name = stems.pop() if len(stems) == 1 else ""
        name = name or plain(json.loads(rest)[0], 40)
        taken[name] = taken.get(name, 0) + 1
        name += f" ({taken[name]})" if taken[name] > 1 else ""
        found |= {label: _Level(name, knob, level) for level, (label, knob) in places.items()}
    return found


def _sheets(scene: Scene) -> list[Sheet]:
    """The sheets of one scene; none without a curve or without both axes."""
    levels = _levels(scene.records)
    if not levels or not set(AXES) <= metric_infos(scene.records).keys():
        return []
    table = comparison(scene.records, metrics=AXES)
    undefended = {defense_label(r) for r in scene.records if part(r, "defense").get("acts") == "nothing"}
    rows = [index for index, row in enumerate(table.rows) if not row.control]
    names = slugs([table.rows[index].label for index in rows])
    sheets = []
    for index in rows:
        row = table.rows[index]
        points = _points(table, index, levels)
        others = tuple(p for p in points.values() if p.label not in levels)
        curves = _curves(points, levels)
        if curves:
            baseline = next((point for point in others if point.label in undefended), None)
            lost = tuple(label for label in levels if label not in points)
            file = _file(scene, row.label, names[row.label])
            sheets.append(Sheet(scene, row, curves, lost, others, baseline, file))
    return sheets


def _points(table: Comparison, row: int, levels: Mapping[str, _Level]) -> dict[str, Point]:
    """The point of every defense that one attack has numbers for."""
    points = {}
    for index, label in enumerate(table.defenses):
        utility, aa = utility_of(table, row, index), table.entries[row, index, 1]
        if utility.state == "value" and aa.state == "value":
            level = levels[label].text if label in levels else ""
            points[label] = Point(label, level, utility, aa)
    return points


def utility_of(table: Comparison, row: int, defense: int) -> Entry:
    """The utility of a model, the table's first metric; of the worst case that which all attacks agree on."""
    own = table.entries[row, defense, 0]
    if own.state == "value" or not table.rows[row].attack.startswith(WORST):
        return own
    found = [table.entries[other, defense, 0] for other in range(len(table.rows))]
    values = [entry for entry in found if entry.state == "value"]
    return values[0] if len({entry.value for entry in values}) == 1 else own


def _curves(points: Mapping[str, Point], levels: Mapping[str, _Level]) -> tuple[Curve, ...]:
    """The curves that the levels make up."""
    found: dict[tuple[str, str], list[Point]] = {}
    for label, level in levels.items():
        if label in points:
            found.setdefault((level.curve, level.knob), []).append(points[label])
    return tuple(Curve(name, knob, tuple(own)) for (name, knob), own in found.items())


def _file(scene: Scene, label: str, name: str) -> FigureFile:
    return FigureFile(
        f"curve-{name}{scene.ending}",
        f"Privacy against utility: {label}",
        f"Curves, {scene.name}: the classifier's accuracy across, attack accuracy of {label} upwards, a line "
        "for each defense through the levels of its knob. The numbers are in tables/curves.csv.",
    )
