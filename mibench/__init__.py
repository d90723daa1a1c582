"""mibench: every model inversion attack against every defense.

The names below are the public face; they are imported when they are first used, so that `import mibench`
and `mibench --help` are instant and need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mibench.attack import Attack, Reconstructions
    from mibench.benchmark import bench
    from mibench.data.split import Labeled
    from mibench.defense import DefenderView, Defense
    from mibench.errors import MibenchError
    from mibench.metric import Case, Estimate, Metric
    from mibench.nets.classifier import Classifier
    from mibench.plan import build_plan
    from mibench.plugin import Card, Context
    from mibench.record import Record, read_records
    from mibench.registry import (
        get_attack,
        get_defense,
        get_metric,
        list_attacks,
        list_defenses,
        list_metrics,
    )
    from mibench.report import comparison
    from mibench.suite import Suite, load_suite
    from mibench.testing import checks_for
    from mibench.victim import LabelVictim, ScoreVictim, WhiteBoxVictim

_HOMES = {
    "attack": ("Attack", "Reconstructions"),
    "benchmark": ("bench",),
    "data.split": ("Labeled",),
    "defense": ("DefenderView", "Defense"),
    "errors": ("MibenchError",),
    "metric": ("Case", "Estimate", "Metric"),
    "nets.classifier": ("Classifier",),
    "plan": ("build_plan",),
    "plugin": ("Card", "Context"),
    "record": ("Record", "read_records"),
    "registry": (
        "get_attack",
        "get_defense",
        "get_metric",
        "list_attacks",
        "list_defenses",
        "list_metrics",
    ),
    "report": ("comparison",),
    "suite": ("Suite", "load_suite"),
    "testing": ("checks_for",),
    "victim": ("LabelVictim", "ScoreVictim", "WhiteBoxVictim"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Attack",
    "Card",
    "Case",
    "Classifier",
    "Context",
    "DefenderView",
    "Defense",
    "Estimate",
    "LabelVictim",
    "Labeled",
    "Metric",
    "MibenchError",
    "Reconstructions",
    "Record",
    "ScoreVictim",
    "Suite",
    "WhiteBoxVictim",
    "bench",
    "build_plan",
    "checks_for",
    "comparison",
    "get_attack",
    "get_defense",
    "get_metric",
    "list_attacks",
    "list_defenses",
    "list_metrics",
    "load_suite",
    "read_records",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOME:
        raise AttributeError(f"module 'mibench' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"mibench.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
