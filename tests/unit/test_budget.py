"""The budget chooser: whole cells, never more than fits, and more for more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mibench.budget import Choice, parse_duration, within
from mibench.errors import BudgetError
from mibench.plan import Plan, build_plan
from mibench.schedule import makespan
from mibench.suite import Suite
from mibench.task import Cell, Task

MakeSuite = Callable[..., Suite]
QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)


@pytest.fixture
def plan(make_suite: MakeSuite) -> Plan:
    suite = make_suite(
        attacks={"toy_scores": {}, "toy_gradient": {}, "mean_face": {}},
        defenses={"none": {}, "toy_rounded": {}, "negative_ls": {}},
        white_box=["stripped", "deployed"],
        seeds=[0, 1],
    )
    return build_plan(suite)


def one_second(_task: Task) -> float:
    return 1.0


def names(choice: Choice) -> list[tuple[int, str, str]]:
    return [(c.seed, c.attack.label, c.defense.label) for c in choice.plan.cells]


def ids(cells: tuple[Cell, ...]) -> set[str]:
    return {cell.id for cell in cells}


@QUIET
@given(
    costs=st.lists(st.floats(0.01, 1000), min_size=5, max_size=12),
    there=st.sets(st.integers(0, 60), max_size=30),
    budgets=st.tuples(st.floats(0.01, 5000), st.floats(0.01, 5000)).map(sorted),
    jobs=st.integers(1, 3),
)
def test_it_fits_is_whole_repeats_itself_and_grows(
    plan: Plan, costs: list[float], there: set[int], budgets: list[float], jobs: int
) -> None:
    keys = list(plan.tasks)
    seconds = {key: costs[i % len(costs)] for i, key in enumerate(keys)}
    present = {keys[i] for i in there if i < len(keys)}
    small, large = (within(plan, present, lambda task: seconds[task.key], one, jobs) for one in budgets)
    for choice in (small, large):
        todo = choice.plan.needed(present)
        wall = makespan(plan.tasks, todo, seconds, jobs)
        assert wall == pytest.approx(choice.seconds)
        assert wall <= choice.budget_s
        assert len(choice.plan.cells) + len(choice.left_out) == len(plan.cells)
        assert ids(choice.plan.cells).isdisjoint(one.cell.id for one in choice.left_out)
        assert all(one.why for one in choice.left_out)
        free = {cell.id for cell in plan.cells if cell.measure in present}
        assert free <= ids(choice.plan.cells)
        computed = [cell for cell in choice.plan.cells if cell.id not in free]
        chosen = set(names(choice))
        for cell in computed:
            assert (cell.seed, cell.attack.label, "none") in chosen
            views = [c for c in plan.cells if names_of(c) == names_of(cell)]
            assert ids(tuple(views)) <= ids(choice.plan.cells)
    assert ids(small.plan.cells) <= ids(large.plan.cells)
    again = within(plan, present, lambda task: seconds[task.key], budgets[0], jobs)
    assert names(again) == names(small)


def names_of(cell: Cell) -> tuple[int, str, str]:
    return cell.seed, cell.attack.label, cell.defense.label


def test_baselines_come_first_then_all_defenses_against_the_first_attack(plan: Plan) -> None:
    sizes = {}
    for budget in range(1, len(plan.tasks) + 1):
        choice = within(plan, set(), one_second, float(budget))
        sizes[budget] = set(names(choice))
    order: list[tuple[int, str, str]] = []
    for found in sizes.values():
        order += sorted(found - set(order))
    assert {name for _, _, name in order[:3]} == {"none"}
    assert {seed for seed, _, _ in order[: len(order) // 2]} == {0}
    defended = [one for one in order if one[2] != "none" and one[0] == 0]
    assert {one[2] for one in defended[:2]} == {"toy_rounded", "negative_ls"}
    assert {one[1] for one in defended[:2]} == {"toy_scores"}


def test_a_huge_attack_does_not_block_the_others(plan: Plan) -> None:
    def seconds(task: Task) -> float:
        return 1e6 if task.plugin == "toy_scores" else 1.0

    choice = within(plan, set(), seconds, 1000.0)
    assert {attack for _, attack, _ in names(choice)} == {"toy_gradient", "mean_face"}
    assert "toy_scores on none" in choice.left_out[0].why


def test_nothing_is_left_out_of_a_budget_that_is_large_enough(plan: Plan) -> None:
    choice = within(plan, set(), one_second, float(len(plan.tasks)))
    assert choice.left_out == ()
    assert choice.plan == plan
    assert within(plan, set(plan.tasks), one_second, 0.001).plan == plan


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("45s", 45), ("1h 30min", 5400), ("1.5H", 5400)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "2", "h", "2d", "-1h", "0s", "2h later", "1e3s", "nan", "9" * 400 + "h"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match=r"is no duration above 0\. Write 2h"):
        parse_duration(text)


def test_a_limit_that_is_no_duration_is_not_called_a_budget() -> None:
    with pytest.raises(BudgetError, match=r"^time limit 'soon': is no duration"):
        parse_duration("soon", of="time limit")
