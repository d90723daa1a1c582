"""`--budget`: which cells of a run fit a time, and what a run says of those that do not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mibench.budget import Choice
    from mibench.plan import Plan
    from mibench.store import Store

Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="2h|90m|45s",
        help="Whole cells that fit this time by estimates, undefended ones first; no task starts after it.",
    ),
]

TaskLimit = Annotated[
    str | None,
    typer.Option(
        "--task-limit",
        metavar="30m|2h",
        help="A task that runs for longer is stopped and has failed; the others go on.",
    ),
]


def chosen(plan: Plan, store: Store, text: str | None, *, jobs: int, device: str, out: Path) -> Choice | None:
    """What of a plan fits a budget; None without one.

    Args:
        plan: all cells.
        store: where results may lie already.
        text: the option; None where it was not given.
        jobs: tasks that run at once.
        device: type of device.
        out: parent of the results folders, for what tasks took.

    Raises:
        BudgetError: it is no duration, or no cell fits.
    """
    from mibench.budget import parse_duration, within
    from mibench.errors import BudgetError
    from mibench.estimate import Estimates

    if text is None:
        return None
    budget_s = parse_duration(text)
    estimates = Estimates.of_store(store, device=device, results=out, tasks=plan.tasks)
    present = store.present(plan.tasks)
    found = within(plan, present, lambda task: estimates.expect(task).seconds, budget_s, jobs)
    if plan.cells and not found.plan.cells:
        raise BudgetError(f"budget '{text}': no cell fits: {found.left_out[0].why}. Give more time.")
    return found


def told(choice: Choice) -> str:
    """What is in and what is left out, for people."""
    count = len(choice.plan.cells) + len(choice.left_out)
    head = (
        f"Budget {choice.budget_s:.0f} s: {len(choice.plan.cells)} of {count} cells, "
        f"about {choice.seconds:.0f} s by estimates."
    )
    if not choice.left_out:
        return head
    per_attack = Counter(one.cell.attack.label for one in choice.left_out)
    names = ", ".join(f"{attack} {number}" for attack, number in per_attack.items())
    return f"{head}\nLeft out: {names}. The reason: {choice.left_out[0].why}."
