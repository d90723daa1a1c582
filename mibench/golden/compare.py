"""Two snapshots side by side: equal bit for bit, within what other kernels may do, or departed, and where.

What may differ. Other kernels add the same numbers in another order, so that single results move by the
rounding of a float32 (6e-8). Training and search carry that on. Measured on one machine by taking kernels
away (torch 2.15, AVX-512 against `ATEN_CPU_CAPABILITY=avx2`, and against `ATEN_CPU_CAPABILITY=default` with
`ONEDNN_MAX_CPU_ISA=SSE41` and `MKL_CBWR=COMPATIBLE`): data equal; weights of nets and priors up to 0.0094
apart, relative; no accuracy of a net on test images moved; fractions of images moved by up to 2 of 32, no
reconstruction changed sides; distances between images up to 0.020, relative. The bounds below are several
times that.

Adapted priors, answers and reconstructions have no bound of their own: an attack that keeps the best of many
starts may keep another one of two that are equally good. Where it does, the images are others, and distances
of so few are others too (by up to 0.5, relative), so only fractions are held to their bound there.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import Any, Literal

from mibench.golden.snapshot import Outcome, Print, Snapshot, as_probes
from mibench.key import Key
from mibench.record import Json

Status = Literal["same", "within", "departed", "stale"]
STAGES = (
    *("data", "judge", "embedder", "public_net", "prior", "train", "output"),
    *("answer", "adapt", "invert", "measure"),
)
"""In the order in which data flows through them."""
GRAYS = 1  # gray levels of 255: what rounding to a byte can do
LEARNED = 0.1  # relative distance of weights, ten times what was measured
FRACTION = 1 / 8  # of the images that a fraction counts may change sides, and one always: twice the measured
OTHER = 0.1  # relative, for distances, where reconstructions are near: five times what was measured
NEAR = 16  # gray levels: reconstructions that are farther apart are those of another start
_FREE = ("answer", "adapt", "invert", "measure")


@dataclass(frozen=True)
class Line:
    """One stage, or the cells: how it compares, in words."""

    status: Status
    what: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """How a run compares with the golden one.

    Args:
        lines: stages in the order in which data flows through them, then the cells.
        is_home: whether platform, CPU and libraries are those of the golden run, so that bits must be equal.
    """

    lines: tuple[Line, ...]
    is_home: bool

    @property
    def status(self) -> Status:
        """The worst of the lines."""
        order: tuple[Status, ...] = ("stale", "departed", "within", "same")
        found = {line.status for line in self.lines}
        return next(status for status in order if status in found)

    @property
    def first(self) -> Line | None:
        """The first line that departed or is stale; None where none did."""
        return next((line for line in self.lines if line.status in {"departed", "stale"}), None)

    @property
    def text(self) -> str:
        """The verdict in one sentence."""
        if self.status == "same":
            return "same, bit for bit"
        if self.first is None:
            return "not the same bits, as on another platform, CPU or torch; within the stated tolerance"
        if self.status == "stale":
            return "made for another state of the suite or the plugins"
        ground = " on the very platform that the golden numbers are from" if self.is_home else ""
        return f"departed{ground}, first in {self.first.what}: {self.first.text}"


def compare(golden: Snapshot, now: Snapshot) -> Verdict:
    """Hold a snapshot against the golden one.

    Where all that is known to decide the bits is equal (`made`), anything but equal bits has departed.
    """
    is_home = golden.made == now.made
    if [one.key for one in golden.prints] != [one.key for one in now.prints]:
        return Verdict((_stale(golden, now),), is_home)
    pairs = sorted(zip(golden.prints, now.prints), key=lambda pair: _place(pair[0].stage))
    lines = [
        _stage(name, list(members), is_home=is_home)
        for name, members in groupby(pairs, key=lambda pair: pair[0].stage)
    ]
    return Verdict((*lines, _cells(golden, now, is_home=is_home)), is_home)


def _place(stage: str) -> tuple[int, str]:
    """Sorts stages by STAGES; one that it does not have comes last."""
    return (STAGES.index(stage) if stage in STAGES else len(STAGES)), stage


def _stale(golden: Snapshot, now: Snapshot) -> Line:
    """That other tasks were done, and the first of them."""
    known = {one.key for one in golden.prints}
    new = [one for one in now.prints if one.key not in known]
    ran = {one.key for one in now.prints}
    gone = [one for one in golden.prints if one.key not in ran]
    first = f"; the first: {(new or gone)[0].title}" if new or gone else ""
    return Line(
        "stale", "tasks", f"{len(new)} of {len(now.prints)} are new, {len(gone)} are no longer there{first}"
    )


def _stage(name: str, pairs: Sequence[tuple[Print, Print]], *, is_home: bool) -> Line:
    """All artifacts of one stage."""
    moved = [(old, new) for old, new in pairs if old.digest != new.digest]
    if not moved:
        return Line("same", name, f"{len(pairs)} of {len(pairs)} artifacts bit for bit")
    found = [(old, *_departure(old, new)) for old, new in moved]
    worst, allowed, distance, unit = max(found, key=lambda one: (not one[1], one[2]))
    status: Status = "departed" if is_home or not allowed else "within"
    text = f"{len(pairs) - len(moved)} of {len(pairs)} artifacts bit for bit"
    if distance:  # else it is too small for the numbers that are kept
        text += f"; the farthest, {worst.title}, is {distance:.2g} {unit} away"
    return Line(status, name, text)


def _departure(old: Print, new: Print) -> tuple[bool, float, str]:
    """Whether the difference of two artifacts is allowed, how large it is, and in which unit."""
    sizes = [{kind: part["count"] for kind, part in one.kinds.items()} for one in (old, new)]
    if sizes[0] != sizes[1]:
        return False, math.inf, "(other shapes or types)"
    if (old.accuracy is None) != (new.accuracy is None):
        return False, math.inf, "(an accuracy came or went)"
    if old.accuracy is not None and new.accuracy is not None:
        gap = abs(old.accuracy - new.accuracy)
        if gap > FRACTION + 1e-9:
            return False, gap, "in accuracy"
    steps = [_distance(kind, old.kinds[kind], new.kinds[kind]) for kind in old.kinds]
    if not steps:
        return True, 0.0, ""
    distance, bound, unit = max(steps, key=lambda step: step[0] / step[1])
    return old.stage in _FREE or distance <= bound, distance, unit


def _distance(kind: str, old: Json, new: Json) -> tuple[float, float, str]:
    """How far the probes of one type are apart, how far they may be, and in which unit."""
    before, after = as_probes(old), as_probes(new)
    pairs = [(a, b) for a, b in zip(before, after) if not (math.isnan(a) and math.isnan(b))]
    if any(math.isnan(a) or math.isnan(b) for a, b in pairs):
        return math.inf, LEARNED, "(a number is no longer finite)"
    gaps = [abs(a - b) for a, b in pairs]
    if kind == "uint8":
        return max(gaps, default=0.0), GRAYS, "gray levels"
    if "int" in kind or kind == "bool":
        return float(sum(gap > 0 for gap in gaps)), 0.5, "whole numbers"
    size = math.hypot(*(a for a, _ in pairs)) or 1.0
    return math.hypot(*gaps) / size, LEARNED, "(relative)"


def _cells(golden: Snapshot, now: Snapshot, *, is_home: bool) -> Line:
    """The estimates and hits of all cells."""
    what = "cells"
    if [one.name for one in golden.cells] != [one.name for one in now.cells]:
        return Line("stale", what, f"{len(now.cells)} cells, not the golden {len(golden.cells)}")
    moved = [(old, new) for old, new in zip(golden.cells, now.cells) if old != new]
    same = f"{len(golden.cells) - len(moved)} of {len(golden.cells)} with equal numbers"
    if not moved:
        return Line("same", what, same)
    others = _other_starts(golden, now)
    sizes = _sizes(golden)
    faults = [
        fault
        for old, new in moved
        for fault in _faults(old, new, golden.percent, {} if others.intersection(old.inverts) else sizes)
    ]
    if chosen := sum(bool(others.intersection(old.inverts)) for old, _ in moved):
        same += f"; {chosen} cells kept other starts"
    if faults:
        return Line("departed", what, f"{same}; {faults[0]}" + _more(len(faults) - 1))
    return Line("departed" if is_home else "within", what, same)


def _more(count: int) -> str:
    return f", and {count} more" if count else ""


def _other_starts(golden: Snapshot, now: Snapshot) -> set[Key]:
    """Keys of the inversions whose images are not near the golden ones."""
    return {
        old.key
        for old, new in zip(golden.prints, now.prints)
        if old.stage == "invert"
        and "uint8" in old.kinds
        and _distance("uint8", old.kinds["uint8"], new.kinds["uint8"])[0] > NEAR
    }


def _sizes(golden: Snapshot) -> dict[str, float]:
    """The usual size of each metric: the median of its absolute value over the cells."""
    values: dict[str, list[float]] = defaultdict(list)
    for cell in golden.cells:
        for name, estimate in cell.estimates.items():
            if estimate is not None and estimate["value"] is not None:
                values[name].append(abs(estimate["value"]))
    return {name: median(found) for name, found in values.items()}


def _faults(old: Outcome, new: Outcome, percent: Sequence[str], sizes: Mapping[str, float]) -> list[str]:
    """What of a cell is farther away than it may be, one sentence each.

    Args:
        old: the golden cell.
        new: the same cell.
        percent: names of the metrics that are fractions.
        sizes: the usual size of the others; those that it lacks are not compared.
    """
    if old.status != new.status:
        return [f"{old.name}: {new.status}, golden {old.status}"]
    texts = [
        f"{old.name}: {name} {_shown(new.estimates.get(name))}, golden {_shown(old.estimates[name])}"
        for name in old.estimates
        if (name in percent or name in sizes)
        and not _is_near(
            old.estimates[name], new.estimates.get(name), size=None if name in percent else sizes[name]
        )
    ]
    for label, hits in old.hits.items():
        flips = sum(a != b for a, b in zip(hits, new.hits.get(label, "")))
        if len(hits) != len(new.hits.get(label, "")) or flips > _flips(len(hits)):
            texts.append(f"{old.name}: hits {new.hits.get(label, '')} of label {label}, golden {hits}")
    return texts


def _is_near(old: Any, new: Any, *, size: float | None) -> bool:  # noqa: ANN401 - an estimate's JSON, or None
    """Whether an estimate is as close to the golden one as it must be; fractions have no size."""
    is_fraction = size is None
    if old is None or new is None:
        # a share of successes has no value where there are none, and one image may decide that
        return old is new or is_fraction
    before: float | None = old["value"]
    after: float | None = new["value"]
    if before is None or after is None:
        return before is after
    if is_fraction:  # of so many images
        count = max(int(old["count"]), 1)
        return abs(before - after) <= _flips(count) / count + 1e-9
    return abs(before - after) <= OTHER * max(abs(before), abs(after), size or 0.0)


def _flips(count: int) -> int:
    """How many of so many images may change sides."""
    return max(1, int(count * FRACTION))


def _shown(estimate: Any) -> str:  # noqa: ANN401 - an estimate's JSON, or None
    if estimate is None:
        return "n/a"
    return "not finite" if estimate["value"] is None else f"{estimate['value']:.4g}"
