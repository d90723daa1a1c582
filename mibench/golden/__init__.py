"""Golden numbers: what a small, fixed part of the suite `smoke` gave, committed, to compare a machine with.

On the same platform, CPU, torch and libraries every artifact must come out bit for bit. Elsewhere sums are
added in another order, and training carries that on; `mibench.golden.compare` says how far it may go.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from mibench.atomic import write_atomically
from mibench.benchmark import pick_jobs
from mibench.choose import choose
from mibench.errors import RecordError
from mibench.golden.compare import Verdict, compare
from mibench.golden.snapshot import Snapshot, here, snapshot
from mibench.plan import Plan, build_plan
from mibench.runner import run
from mibench.store import Store

SUITE = "smoke"
ATTACKS = ("ami", "mirror", "mi_face", "dmi")
DEFENSES = ("none", "dp_sgd", "ad_mi", "gan_id")
"""Together they pass through every stage: all three kinds of access, with and without prior, adapted or not;
a defense that trains anew, one that changes the output and one that makes fakes with a prior."""
GOLDEN = Path(__file__).parent / f"{SUITE}.json"
WRITE = "mibench doctor --golden --write"


def golden_plan() -> Plan:
    """The tasks and cells that are compared; priors are trained, so that they are compared too."""
    return build_plan(choose(SUITE, attacks=ATTACKS, defenses=DEFENSES), zoo=False)


def take(plan: Plan, *, jobs: int | None = None) -> Snapshot:
    """Run the plan on the CPU, in a folder that is thrown away, and return what every task gave.

    Args:
        plan: see `golden_plan`.
        jobs: worker processes of one thread each, on which no result depends; None takes one a core.
    """
    with tempfile.TemporaryDirectory(prefix="mibench-golden-") as folder:
        store = Store(folder)
        records = run(plan, store, jobs=jobs or pick_jobs(torch.device("cpu")), device="cpu")
        return snapshot(plan, store, records)


def read_golden(file: Path = GOLDEN) -> Snapshot:
    """The committed numbers.

    Raises:
        RecordError: the file cannot be read, or is of another shape.
    """
    try:
        return Snapshot.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"golden numbers {file.name}: cannot be read ({error!r}). Write them anew with `{WRITE}`."
        ) from error


def write_golden(taken: Snapshot, file: Path = GOLDEN) -> Path:
    """Replace the committed numbers, one line an artifact or cell; returns the file."""
    parts = []
    for name, value in taken.to_json().items():
        if isinstance(value, dict):
            body = json.dumps(value, sort_keys=True)
        else:
            body = "[\n" + ",\n".join(json.dumps(one, sort_keys=True) for one in value) + "\n]"
        parts.append(f'"{name}": {body}')
    write_atomically(file, ("{\n" + ",\n".join(parts) + "\n}\n").encode())
    return file


__all__ = [
    "GOLDEN",
    "WRITE",
    "Snapshot",
    "Verdict",
    "compare",
    "golden_plan",
    "here",
    "read_golden",
    "take",
    "write_golden",
]
