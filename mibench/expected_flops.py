"""Operations of a suite that never ran: its counted work, times what torch counted for a unit elsewhere.

The work of `mibench.workload` grows with sizes as the operations do, up to a factor that is the plugin's own.
That factor is taken from the profile of a suite of the same plugins and another size.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mibench.counting import FLOAT32, TENSOR_FLOAT
from mibench.errors import ProfileError
from mibench.peaks import Peak
from mibench.plan import Plan
from mibench.profiling import at_peak_s
from mibench.workload import work_of

_FITTED = frozenset({"judge", "public_net", "embedder", "train"})
_MEASURED = frozenset({"answer", "measure"})


@dataclass(frozen=True)
class Expected:
    """What a stage, or all of them, will probably compute.

    Args:
        stage: its name; `all` for the sum.
        tasks: how many.
        flops: operations, a multiply-add as two.
        precision: that most of them have on CUDA.
        peak_s: seconds that they take on the card at its peak.
    """

    stage: str
    tasks: int
    flops: float
    precision: str
    peak_s: float


def precision_on_cuda(stage: str) -> str:
    """The precision that most operations of a stage have on CUDA, see `mibench.precision`.

    >>> precision_on_cuda("train"), precision_on_cuda("invert"), precision_on_cuda("measure")
    ('bfloat16', 'tf32', 'float32')
    """
    if stage in _MEASURED:
        return FLOAT32
    return "bfloat16" if stage in _FITTED else TENSOR_FLOAT


def expected(plan: Plan, like: Mapping[str, Any], peaks: Mapping[str, Peak]) -> list[Expected]:
    """A row for each stage of a plan, the most operations first, and one for all.

    Args:
        plan: of the suite in question.
        like: the profile of another one, as JSON values.
        peaks: of the card in question.

    Raises:
        ProfileError: the profile has no counts of a stage.
    """
    by_plugin = _factors(like["plugins"], ("stage", "plugin"))
    by_stage = _factors(like["stages"], ("stage",))
    flops: dict[str, float] = defaultdict(float)
    for task in plan.tasks.values():
        work = work_of(task.description(), lambda key: plan.tasks[key].description()) or 0.0
        factor = by_plugin.get((task.stage, task.plugin), by_stage.get((task.stage,)))
        if factor is None:
            raise ProfileError(
                f"profile {like.get('suite')}: has no counted task of stage '{task.stage}'. "
                "Take the profile of a suite with the same attacks and defenses."
            )
        flops[task.stage] += factor * work
    tasks = Counter(task.stage for task in plan.tasks.values())
    rows = [_row(stage, tasks[stage], n, peaks) for stage, n in flops.items()]
    rows.sort(key=lambda row: -row.flops)
    total = Expected("all", len(plan.tasks), sum(flops.values()), "", sum(row.peak_s for row in rows))
    return [*rows, total]


def read_profile(file: Path) -> dict[str, Any]:
    """The JSON values of a profile.

    Raises:
        ProfileError: it cannot be read, or is none.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        rows = [*values["stages"], *values["plugins"]]
        if all("plugin" in row for row in values["plugins"]) and all(map(_is_count, rows)):
            return dict(values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProfileError(f"profile {file}: cannot be read ({error}). Take a profile.json.") from error
    raise ProfileError(f"profile {file}: holds no counts. Take a profile.json of `mibench profile`.")


def _is_count(row: Mapping[str, Any]) -> bool:
    numbers = (row.get("flops"), row.get("work"))
    return isinstance(row.get("stage"), str) and all(isinstance(one, int | float) for one in numbers)


def _row(stage: str, tasks: int, flops: float, peaks: Mapping[str, Peak]) -> Expected:
    precision = precision_on_cuda(stage)
    return Expected(stage, tasks, flops, precision, at_peak_s({precision: flops}, peaks))


def _factors(rows: Sequence[Mapping[str, Any]], names: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    return {tuple(row[name] for name in names): row["flops"] / row["work"] for row in rows if row["work"]}
