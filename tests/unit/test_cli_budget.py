"""`--budget`: what runs, what is left out, and what is said of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mibench.benchmark import bench
from mibench.budget import Choice, within
from mibench.cli import main
from mibench.cli_budget import chosen, told
from mibench.errors import BudgetError
from mibench.estimate import Estimates, Expected
from mibench.plan import Plan, build_plan
from mibench.record import read_records
from mibench.runner import Event, TaskDone, run
from mibench.store import Store
from mibench.suite import Suite
from mibench.task import Task

MakeSuite = Callable[..., Suite]


@pytest.fixture
def plan(make_suite: MakeSuite) -> Plan:
    return build_plan(make_suite(defenses={"none": {}, "toy_rounded": {}}))


def dear(task: Task) -> float:
    return 500.0 if "toy_rounded" in task.title else 0.001


def seconds(task: Task) -> float:
    return 500.0 if task.plugin == "negative_ls" else 0.001


def test_left_out_cells_have_no_record_and_tables_say_so(plan: Plan, tmp_path: Path) -> None:
    choice = within(plan, set(), dear, 100.0)
    assert [cell.defense.label for cell in choice.plan.cells] == ["none"]
    done = bench(choice.plan, out=tmp_path, jobs=1, device="cpu", budget=choice)
    assert [record.defense["label"] for record in done.records] == ["none"]
    assert [one.cell.defense.label for one in done.left_out] == ["toy_rounded"]
    note = json.loads((done.folder / "left_out.json").read_text(encoding="utf-8"))
    assert [(one["attack"], one["defense"]) for one in note["cells"]] == [("toy_scores", "toy_rounded")]
    sentence = "1 cell of the suite was left out for a budget of 100 s"
    assert sentence in (done.folder / "tables" / "comparison.md").read_text(encoding="utf-8")
    assert sentence in (done.folder / "index.html").read_text(encoding="utf-8")
    assert json.loads((done.folder / "status.json").read_text(encoding="utf-8"))["state"] == "done"
    full = bench(plan, out=tmp_path, jobs=1, device="cpu")
    assert len(full.records) == 2
    assert full.records[0] == done.records[0]  # the same bits
    assert not (full.folder / "left_out.json").exists()
    assert sentence not in (full.folder / "tables" / "comparison.md").read_text(encoding="utf-8")


def test_no_task_starts_when_the_time_is_up_and_what_is_done_stays(plan: Plan, tmp_path: Path) -> None:
    ran: list[str] = []
    results = tmp_path / "results"

    def note(event: Event) -> None:
        if isinstance(event, TaskDone) and event.how == "ran":
            ran.append(event.task.stage)

    assert run(plan, Store(tmp_path), on_event=note, results=results, until=time.monotonic() - 1) == []
    assert ran == []
    assert read_records(results / "records.jsonl") == []
    assert len(run(plan, Store(tmp_path), on_event=note, results=results)) == 2


def test_a_budget_that_is_spent_ends_a_run_well(plan: Plan, tmp_path: Path) -> None:
    choice = Choice(plan, (), 0.0, 1e-9)
    done = bench(plan, out=tmp_path, jobs=1, device="cpu", budget=choice)
    assert done.records == []
    assert done.files == []
    assert len(done.left_out) == 2
    status = json.loads((done.folder / "status.json").read_text(encoding="utf-8"))
    assert status["state"] == "stopped"
    assert status["message"] == "the budget of 0 s was spent"


def test_a_budget_that_nothing_fits_is_an_error_and_none_is_none(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(BudgetError, match=r"budget '0\.000001s': no cell fits: with toy_scores on none"):
        chosen(plan, store, "0.000001s", jobs=1, device="cpu", out=tmp_path)
    assert chosen(plan, store, None, jobs=1, device="cpu", out=tmp_path) is None
    found = chosen(plan, store, "99h", jobs=1, device="cpu", out=tmp_path)
    assert found is not None
    assert told(found).startswith("Budget 356400 s: 2 of 2 cells")


def test_what_is_left_out_is_told_by_attack(plan: Plan) -> None:
    text = told(within(plan, set(), dear, 100.0))
    assert "Left out: toy_scores 1. The reason: with toy_scores on toy_rounded, the next in order" in text


MINI = """
name = "mini"
metrics = ["mc_all", "aa"]
[data]
size = 16
channels = 1
private = 3
private_images = 4
test_images = 2
public = 4
public_images = 2
defender = 2
defender_images = 2
[targets]
attacked = 2
images = 2
[victim]
net = "mlp"
width = 8
recipe = { epochs = 1, batch = 8 }
[judge]
net = "softmax_regression"
recipe = { epochs = 1, batch = 8 }
[defenses.none]
[attacks.nearest_public]
[attacks.mi_face]
max_iter = 1
[more.defenses.gan_id_ce]
plugin = "negative_ls"
"""
SWEEP = ["sweep", "mini.toml", "--defense", "negative_ls", "--levels", "-0.1,-0.2"]
REPRODUCE = ["reproduce", "tifs23/table3", "--suite", "mini.toml", "--seed", "0"]
ON_ONE_CORE = ["--jobs", "1", "--device", "cpu"]


@pytest.mark.parametrize(
    ("words", "dear"),
    [(SWEEP, {"negative_ls@-0.1", "negative_ls@-0.2"}), (REPRODUCE, {"gan_id_ce"})],
    ids=["sweep", "reproduce"],
)
def test_sweep_and_reproduce_leave_out_what_does_not_fit(
    words: list[str],
    dear: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mini.toml").write_text(MINI, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main([*words, *ON_ONE_CORE, "--budget", "0.000001s"]) == 2
    assert "budget '0.000001s': no cell fits" in capsys.readouterr().err
    monkeypatch.setattr(Estimates, "_judge", lambda _, task: Expected(seconds(task), 1.0, 0.0, "guess"))
    assert main([*words, *ON_ONE_CORE, "--budget", "100s"]) in {0, 4}
    said = capsys.readouterr().out
    assert said.startswith("Budget 100 s: ")
    assert "Left out: " in said
    (note,) = tmp_path.glob("results/**/left_out.json")
    records = read_records(note.parent / "records.jsonl")
    left = {one["defense"] for one in json.loads(note.read_text(encoding="utf-8"))["cells"]}
    assert left == dear
    assert records
    assert {record.defense["label"] for record in records} == {"none"}


def test_the_plan_of_a_sweep_knows_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mini.toml").write_text(MINI, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main([*SWEEP, *ON_ONE_CORE, "--plan", "--budget", "99h"]) == 0
    assert capsys.readouterr().out.startswith("Budget 356400 s: 6 of 6 cells")
    assert not (tmp_path / "results").exists()


def test_records_that_are_taken_need_no_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "tifs23/table3", "--from", str(tmp_path), "--budget", "2h"]) == 2
    assert capsys.readouterr().err == f"reproduce: --from {tmp_path} runs nothing. Drop --budget 2h.\n"
