"""How long tasks take, judged by what such tasks took before and by how much work they are.

Within a kind of task, seconds are taken to grow as a power of the work: log seconds = a + b log work. The
intercept a is the plugin's own, the slope b one for each stage, by least squares with a prior at 1, since
with a single size nothing can be known of it (ridge regression: Hoerl and Kennard, Technometrics 1970).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from mibench.key import Key, canonical
from mibench.store import Store
from mibench.task import Task
from mibench.workload import WORK_VERSION, Description, work_of

# shares of time where neither the work nor the stage is known; only ratios count
_GUESS = {
    "data": 1,
    "judge": 20,
    "prior": 60,
    "train": 20,
    "adapt": 10,
    "invert": 15,
    "public_net": 10,
    "embedder": 15,
}
# units of work a second, where nothing ran: a core as the judges of the suite `quick` needed it, and a GPU
# as a fiftieth of what an H100 can do in bfloat16 (`mibench.peaks`): nets that need one fill it by a part
_RATE = {"cpu": 2e10, "cuda": 1e13}
_PRIOR_WEIGHT = 4.0  # of the slope 1, in squared logarithms of work: as much as two tasks a factor 17 apart
_SLOPES = 0.3, 1.2  # slower growth than 0.3 would be mere overhead, faster than linear is no task of ours
_SAME_WORK = 0.01  # tasks of equal parameters whose inputs differ in work are not the same
_SPREAD = {"same": 1.3, "like": 1.7, "stage": 3.0, "guess": 5.0}  # factors, where too few ran to tell

Basis = Literal["same", "like", "stage", "guess"]


@dataclass(frozen=True)
class Past:
    """What a task took.

    Args:
        stage: of the task.
        plugin: of the task.
        seconds: wall time.
        params: as canonical JSON; empty where unknown.
        work: see `mibench.workload`; None where unknown.
        peak_mib: peak memory; 0 where unknown.
        device: type of the device; empty where unknown.
        key: of the task; empty where unknown.
        is_here: whether it ran on this machine, as far as one can tell.
    """

    stage: str
    plugin: str
    seconds: float
    params: str = ""
    work: float | None = None
    peak_mib: float = 0.0
    device: str = ""
    key: Key = ""
    is_here: bool = True


@dataclass(frozen=True)
class Expected:
    """What a task will probably take.

    Args:
        seconds: the estimate.
        spread: factor by which about two thirds of such tasks stay within the estimate.
        peak_mib: the most that a task of the kind took; 0 where unknown.
        basis: the same task before, others of its plugin, others of its stage, or a guess.
        is_here: whether the past that it is judged by is that of this machine.
    """

    seconds: float
    spread: float
    peak_mib: float
    basis: Basis
    is_here: bool = True


class Estimates:
    """Seconds by kind of task and work; grows with every task that is learned.

    Args:
        device: type of device to judge for, `cpu` or `cuda`; empty takes the past of all.
    """

    def __init__(self, device: str = "") -> None:
        self.device = device
        self._descriptions: dict[Key, Description] = {}
        self._works: dict[Key, float | None] = {}
        self._kinds: dict[tuple[str, str], list[Past]] = defaultdict(list)
        self._stages: dict[str, list[Past]] = defaultdict(list)
        self._by_key: dict[Key, Past] = {}
        self._abroad: dict[Key, float] = {}
        self._expected: dict[Key, Expected] = {}
        self._fits: dict[str, tuple[float, float | None]] = {}
        self._scale: float | None = None

    @classmethod
    def of_store(
        cls,
        store: Store,
        *,
        device: str = "",
        results: Path | None = None,
        tasks: Mapping[Key, Task] | None = None,
    ) -> Estimates:
        """What all tasks in a store took, and where it knows too little those of the results beside it.

        Args:
            store: of this machine.
            device: see the class.
            results: parent of the results folders, whose `costs.jsonl` may come from another machine.
            tasks: those to be judged.
        """
        estimates = cls(device)
        estimates.meet(tasks or {})
        found = list(store.past())
        estimates._descriptions.update((key, task) for key, task, _ in found if key)
        for key, task, cost in found:
            estimates._take(_of_cost(task, cost, key, estimates.work(key, task)))
        if results is not None:
            estimates.take(past_of_results(results))
        return estimates

    def meet(self, tasks: Mapping[Key, Task]) -> None:
        """Know tasks by their keys: the work of one hangs on those that it reads."""
        self._descriptions.update((key, task.description()) for key, task in tasks.items())
        self._works.clear()
        self._expected.clear()

    def take(self, past: Iterable[Past]) -> None:
        """Take more of the past into account; what is known of a task from here stays."""
        for one in past:
            if one.key in self._by_key and self._by_key[one.key].is_here and not one.is_here:
                self._abroad[one.key] = one.seconds
            else:
                self._take(one)
        self._forget()

    def learn(self, task: Task, seconds: float) -> None:
        """Take a finished task into account."""
        work = self.work(task.key, task.description())
        params = canonical(task.params)
        self._take(Past(task.stage, task.plugin, seconds, params, work, device=self.device, key=task.key))
        self._forget()

    def known(self, task: Task) -> float | None:
        """Seconds of such tasks, scaled by work: of equal ones, else of the same plugin; None if unknown."""
        found = self.expect(task)
        return found.seconds if found.basis in {"same", "like"} else None

    def seconds(self, task: Task) -> float | None:
        """As `known`, or by the stage, or a guess; None while no task at all is known."""
        return self.expect(task).seconds if self._kinds else None

    def expect(self, task: Task) -> Expected:
        """What a task will probably take; always something, with what it is judged by."""
        key = task.key
        if key not in self._expected:
            self._expected[key] = self._judge(task)
        return self._expected[key]

    def work(self, key: Key, task: Description) -> float | None:
        """Work of a task, see `mibench.workload.work_of`; its inputs must be known."""
        if key not in self._works:
            self._works[key] = work_of(task, self._descriptions.get)
        return self._works[key]

    def _judge(self, task: Task) -> Expected:
        work = self.work(task.key, task.description())
        kind = self._kinds.get((task.stage, task.plugin), [])
        params = canonical(task.params)
        same = [one for one in kind if one.params == params and _is_near(one.work, work)]
        if task.key in self._by_key:
            same = [self._by_key[task.key]]
        groups: Sequence[tuple[Basis, list[Past]]] = (
            ("same", same),
            ("like", _comparable(kind, work)),
            ("stage", _comparable(self._stages.get(task.stage, []), work)),
        )
        for basis, group in groups:
            if group:
                local = [one for one in group if one.is_here]
                seconds = self._mean(local or group, work, task.stage)
                peak = max(one.peak_mib for one in group)
                return Expected(seconds, self._spread(basis, task.stage), peak, basis, bool(local))
        return Expected(self._guess(task, work), _SPREAD["guess"], 0.0, "guess")

    def _mean(self, group: Sequence[Past], work: float | None, stage: str) -> float:
        """Mean seconds, each scaled to the work in question; those of nearly as much work count most."""
        slope = self._fit(stage)[0]
        total = weights = 0.0
        for one in group:
            apart = math.log(work / one.work) if work and one.work else 0.0
            weight = 1 / (1 + apart * apart)
            pace = 1.0 if one.is_here else self._pace()
            total += weight * pace * one.seconds * math.exp(slope * apart)
            weights += weight
        return total / weights

    def _fit(self, stage: str) -> tuple[float, float | None]:
        """Slope of log seconds over log work within the plugins of a stage, and the spread around it."""
        if stage not in self._fits:
            points = [
                (math.log(one.work / mean_work), math.log(one.seconds / mean_seconds))
                for (of, _), kind in self._kinds.items()
                if of == stage
                for usable in [[one for one in kind if one.work and one.seconds > 0]]
                if usable
                for mean_work in [math.exp(fmean(math.log(one.work or 1) for one in usable))]
                for mean_seconds in [math.exp(fmean(math.log(one.seconds) for one in usable))]
                for one in usable
                if one.work
            ]
            across = sum(x * x for x, _ in points)
            slope = (_PRIOR_WEIGHT + sum(x * y for x, y in points)) / (_PRIOR_WEIGHT + across)
            slope = min(max(slope, _SLOPES[0]), _SLOPES[1])
            rest = [y - slope * x for x, y in points]
            spread = math.exp(math.sqrt(fmean(r * r for r in rest))) if len(rest) > 2 else None
            self._fits[stage] = slope, spread
        return self._fits[stage]

    def _spread(self, basis: Basis, stage: str) -> float:
        found = self._fit(stage)[1]
        return max(_SPREAD["same"], found) if basis == "like" and found else _SPREAD[basis]

    def _pace(self) -> float:
        """Seconds here for a second of the other machine, by the tasks that ran on both; 1 if none did."""
        if self._scale is None:
            both = [(self._by_key[key].seconds, there) for key, there in self._abroad.items()]
            ratios = [here / there for here, there in both if here > 0 and there > 0]
            self._scale = median(ratios) if ratios else 1.0
        return self._scale

    def _guess(self, task: Task, work: float | None) -> float:
        if work is not None:
            return work / _RATE.get(self.device, _RATE["cpu"])
        all_past = [one for kind in self._kinds.values() for one in kind]
        guessed = sum(_GUESS.get(one.stage, 1) for one in all_past)
        share = sum(one.seconds for one in all_past) / guessed if guessed else 1.0
        return _GUESS.get(task.stage, 1) * share

    def _take(self, one: Past) -> None:
        if self.device and one.device and one.device != self.device:
            return
        if one.key:
            self._by_key[one.key] = one
        if one.work is not None or one.params:  # else nothing but its own key says what it was
            self._kinds[one.stage, one.plugin].append(one)
            self._stages[one.stage].append(one)

    def _forget(self) -> None:
        self._expected.clear()
        self._fits.clear()
        self._scale = None


def past_of_results(results: Path) -> Iterator[Past]:
    """What the tasks of the results folders below a folder took, perhaps on another machine.

    A line without work, or with that of other formulas, tells of that very task alone.
    """
    for file in sorted(results.glob("*/costs.jsonl")):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for line in lines:
            try:
                cost = json.loads(line)
                work = cost.get("work") if cost.get("work_version") == WORK_VERSION else None
                yield _of_cost({**cost, "params": None}, cost, cost["key"], work, is_here=False)
            except (ValueError, KeyError, TypeError):  # a line that a killed run left
                continue


def _of_cost(
    task: Description, cost: Mapping[str, Any], key: Key, work: float | None, *, is_here: bool = True
) -> Past:
    params = task["params"]
    return Past(
        task["stage"],
        task["plugin"],
        float(cost["wall_s"]),
        "" if params is None else canonical(params),
        None if work is None else float(work),
        float(cost.get("peak_mib", 0.0)),
        str(cost.get("device", "")),
        key,
        is_here,
    )


def _comparable(group: list[Past], work: float | None) -> list[Past]:
    """Those whose work is known, if that of the task is: seconds of another size must not stand unscaled."""
    if work is None:
        return group
    return [one for one in group if one.work is not None]


def _is_near(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= _SAME_WORK * max(one, other)
