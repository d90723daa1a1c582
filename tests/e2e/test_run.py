"""Whole runs of toy suites: what their records say, and whom a failure touches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mibench.errors import StoreError
from mibench.plan import Plan, build_plan
from mibench.record import Record, read_records
from mibench.runner import CellDone, Event, TaskFailed, TaskProgress, run
from mibench.store import Store
from mibench.suite import Suite

MakeSuite = Callable[..., Suite]
ALL_DEFENSES: dict[str, Any] = {"none": {}, "toy_short": {}, "toy_rounded": {}, "toy_decoy": {}}


class Watch:
    """Keeps the events of a run."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)


def walk(plan: Plan, folder: Path) -> tuple[list[Record], Watch]:
    """Run a plan with its store and records in a folder."""
    watch = Watch()
    return run(plan, Store(folder / "store"), on_event=watch, results=folder), watch


def test_every_kind_of_plugin_gives_a_record(make_suite: MakeSuite, tmp_path: Path) -> None:
    targets = {"protected": 2, "bystanders": 1, "attacked": 3, "images": 2}
    suite = make_suite(
        attacks={"toy_scores": {}, "toy_gradient": {}, "mean_face": {}},
        defenses=ALL_DEFENSES,
        white_box=["stripped", "deployed"],
        targets=targets,
        audit={"net": "mlp", "width": 4, "recipe": {"epochs": 1}},
    )
    plan = build_plan(suite)
    records, watch = walk(plan, tmp_path)
    assert [r.cell for r in records] == [cell.id for cell in plan.cells]
    assert records == read_records(tmp_path / "records.jsonl")
    by_place = {(r.attack["label"], r.defense["label"], r.view): r for r in records}
    blocked = {place for place, record in by_place.items() if record.status == "blocked"}
    assert blocked == {("toy_scores", "toy_decoy", "black-box"), ("mean_face", "toy_decoy", "black-box")}
    assert all(r.status == "ok" for place, r in by_place.items() if place not in blocked)
    undefended = by_place["toy_gradient", "none", "stripped"]
    assert by_place["toy_gradient", "toy_rounded", "stripped"].estimates["aa"] == undefended.estimates["aa"]
    decoy = by_place["toy_gradient", "toy_decoy", "stripped"]
    assert len(decoy.keys["models"]) == 2
    assert len(decoy.notes["decoy"]) == 2
    assert len([e for e in watch.events if isinstance(e, CellDone)]) == len(plan.cells)


def test_record_says_what_was_done(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite(
        attacks={"mine": {"plugin": "mean_face"}, "toy_scores": {"tries": 3}}, defenses={"toy_short": {}}
    )
    plan = build_plan(suite)
    _, record = walk(plan, tmp_path)[0]
    assert record.attack["label"] == "toy_scores"
    assert record.attack["params"] == {"tries": 3}
    assert record.attack["access"] == "score"
    assert record.defense["acts"] == "training"
    assert record.notes == {"toy_epochs": 1, "attack.toy_tries": 3}
    assert record.queries == {
        "forward_per_image": 3.0,
        "gradient_per_image": 0.0,
        "prior_forward": 8,
        "prior_gradient": 0,
    }
    assert record.chance == pytest.approx(1 / 3)
    assert record.data["num_classes"] == 3
    assert record.provenance["threads"] == 1
    assert record.flags == ()
    assert record.keys["measure"] == plan.cells[1].measure
    costs = [json.loads(line) for line in (tmp_path / "costs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["key"] for line in costs} == set(plan.tasks)
    assert all(line["wall_s"] >= 0 and line["peak_mib"] > 0 for line in costs)


def test_output_steps_record_what_a_query_costs(make_suite: MakeSuite, tmp_path: Path) -> None:
    walk(build_plan(make_suite(defenses={"none": {}, "toy_rounded": {}})), tmp_path)
    costs = [json.loads(line) for line in (tmp_path / "costs.jsonl").read_text(encoding="utf-8").splitlines()]
    timed = [line for line in costs if "ms_per_query" in line]
    assert [line["plugin"] for line in timed] == ["toy_rounded"]
    assert timed[0]["ms_per_query"] > 0
    assert timed[0]["plain_ms_per_query"] > 0


def test_attack_cannot_name_the_decoy(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite(attacks={"toy_asking": {}}, metrics=["aa", "far_decoy"])
    (record,), _ = walk(build_plan(suite), tmp_path)
    assert record.estimates["far_decoy"] is None
    assert record.notes == {"attack.decoy": 0}
    assert record.queries["prior_gradient"] == record.queries["prior_forward"] == 8


def test_confidence_of_another_shape_fails_the_cell(make_suite: MakeSuite, tmp_path: Path) -> None:
    (record,), _ = walk(build_plan(make_suite(attacks={"toy_asking": {"column": True}})), tmp_path)
    assert record.status == "failed"
    assert record.error is not None
    assert "attack 'toy_asking': its confidence has shape (" in record.error["message"]


def test_instances_are_eavesdropped_on_the_deployed_victim(make_suite: MakeSuite, tmp_path: Path) -> None:
    """The i-th row of a label is what is released for its i-th training image, and begins again."""
    from mibench.data.split import Labeled, dequantize
    from mibench.stages.work import trained_net

    suite = make_suite(
        attacks={"toy_listening": {}, "classes": {"plugin": "toy_listening", "goal": "class"}},
        defenses={"none": {}, "toy_rounded": {"share": 0.5}},
        metrics=["aa", "mse", "psnr", "ssim"],
        targets={"protected": 1, "bystanders": 1, "attacked": 2, "images": 5},  # of four training images
    )
    plan = build_plan(suite)
    records, _ = walk(plan, tmp_path)
    store = Store(tmp_path / "store")
    for cell, record in zip(plan.cells, records, strict=True):
        assert record.status == "ok"
        assert record.queries["forward_per_image"] == 0
        if cell.attack.label == "classes":
            assert [record.estimates[name] for name in ("mse", "psnr", "ssim")] == [None] * 3
            continue
        invert, train = store.get(cell.models[0].invert), store.get(cell.models[0].train)
        private = store.get(plan.tasks[cell.measure].inputs["private"])
        assert invert is not None
        assert train is not None
        assert private is not None
        got, labels = dequantize(invert.tensors["images"]), invert.tensors["targets"]
        data = Labeled(dequantize(private.tensors["train_images"]), private.tensors["train_labels"])
        true = torch.cat(
            [data.of(int(label)).images[[0, 1, 2, 3, 0]] for label in labels.unique_consecutive()]
        )
        expected = trained_net(train, torch.device("cpu"))(true).softmax(1)
        if cell.defense.label == "toy_rounded":
            expected = 0.5 * expected + 0.5 / 3
        torch.testing.assert_close(got[:, 0, 0, :3], expected, atol=0.003, rtol=0)  # stored as bytes
        rows = torch.isin(labels, torch.tensor(cell.protected))
        error = record.estimates["mse"]
        assert error is not None
        assert error["value"] == pytest.approx(float((got - true)[rows].square().mean()), rel=1e-5)
        assert error["count"] == 5


def test_judge_below_the_gate_is_flagged(make_suite: MakeSuite, tmp_path: Path) -> None:
    judge = {"net": "mlp", "width": 2, "min_accuracy": 1.0, "recipe": {"epochs": 1, "lr": 1e-6}}
    (record,), _ = walk(build_plan(make_suite(judge=judge)), tmp_path)
    assert record.judge["accuracy"] < 1
    assert record.flags == ("judge_below_gate", "judge_has_the_victims_architecture")


def test_another_store_gives_the_same_bytes(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(
        make_suite(attacks={"toy_gradient": {}, "toy_scores": {}}, defenses={"toy_rounded": {}})
    )
    for name in ("one", "other"):
        walk(plan, tmp_path / name)
    one, other = ((tmp_path / name / "records.jsonl").read_bytes() for name in ("one", "other"))
    assert one == other


def test_chunk_size_changes_no_label(make_suite: MakeSuite, tmp_path: Path) -> None:
    for batch in (1, 256):
        walk(build_plan(make_suite(limits={"max_batch": batch})), tmp_path / str(batch))
    one, other = (read_records(tmp_path / name / "records.jsonl")[0].estimates for name in ("1", "256"))
    assert one == other


def test_failing_attack_fails_its_cells_alone(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite(attacks={"toy_failing": {}, "toy_scores": {}}, defenses={"none": {}, "toy_short": {}})
    records, watch = walk(build_plan(suite), tmp_path)
    assert [r.status for r in records] == ["failed", "ok", "failed", "ok"]
    assert records[0].error == {
        "stage": "invert",
        "type": "ZeroDivisionError",
        "message": "toy attack divides by zero",
    }
    assert records[0].estimates == {}
    failures = [e for e in watch.events if isinstance(e, TaskFailed)]
    assert len(failures) == 2
    assert "toy_failing.py" in failures[0].failure.trace
    assert read_records(tmp_path / "records.jsonl") == records


def test_attack_that_changes_its_victim_fails(make_suite: MakeSuite, tmp_path: Path) -> None:
    (record,), _ = walk(build_plan(make_suite(attacks={"toy_meddling": {}})), tmp_path)
    assert record.status == "failed"
    assert record.error is not None
    assert "changed its victim" in record.error["message"]


def test_spent_budget_fails_the_cell(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite(attacks={"toy_scores": {"tries": 3}}, limits={"max_queries": 2}))
    (record,), _ = walk(plan, tmp_path)
    assert record.error is not None
    assert record.error["type"] == "QueryBudgetError"
    plan = build_plan(make_suite(attacks={"toy_scores": {"tries": 3}}, limits={"max_queries": 3}))
    (record,), _ = walk(plan, tmp_path)
    assert record.status == "ok"


def test_failing_metric_is_named_on_a_failed_record(
    make_suite: MakeSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mibench.registry import get_metric

    def broken(*_: Any) -> None:
        raise ArithmeticError("no numbers today")

    monkeypatch.setattr(get_metric("aa"), "measure", broken)
    (record,), _ = walk(build_plan(make_suite()), tmp_path)
    assert record.status == "failed"
    assert record.estimates == {}
    assert record.error == {
        "stage": "measure",
        "type": "ArithmeticError",
        "message": "metric 'aa': no numbers today",
    }


def test_store_that_cannot_be_written_stops_the_run(
    make_suite: MakeSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = build_plan(make_suite())

    def refuse(*_args: Any, **_options: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"cannot be written to \(Read-only file system\)"):
        run(plan, Store(tmp_path / "store"))


@pytest.fixture
def file_plugin(toys: Callable[[str], Path], tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes and loads a toy attack with one piece of its text replaced."""

    def write(old: str, new: str) -> Path:
        from mibench.registry import load_plugin_file

        text = (Path(__file__).parent / "plugins" / "toy_scores.py").read_text(encoding="utf-8")
        assert old in text
        file = tmp_path / "toy_mine.py"
        file.write_text(text.replace(old, new).replace("toy_scores", "toy_mine"), encoding="utf-8")
        load_plugin_file(file)
        return file

    return write


@pytest.mark.parametrize(
    ("new", "error"),
    [
        ('ctx.note("toy_tries", float("nan"))', "PluginError"),
        ('raise type("StoreError", (Exception,), {})("mine")', "StoreError"),
    ],
)
def test_what_a_plugin_does_wrong_fails_its_cell_alone(
    make_suite: MakeSuite, tmp_path: Path, file_plugin: Callable[[str, str], Path], new: str, error: str
) -> None:
    from mibench.registry import get_attack

    suite = make_suite()
    file_plugin('ctx.note("toy_tries", self.tries)', new)
    records, _ = walk(build_plan(suite.with_plugins(get_attack("toy_mine")())), tmp_path)
    assert [r.error["type"] for r in records if r.error] == [error]


def test_plugin_edited_after_planning_is_not_run(
    make_suite: MakeSuite, tmp_path: Path, file_plugin: Callable[[str, str], Path]
) -> None:
    from mibench.registry import get_attack

    suite = make_suite()
    file = file_plugin("tries: int = 2", "tries: int = 3")
    plan = build_plan(suite.with_plugins(get_attack("toy_mine")()))
    file.write_text(file.read_text(encoding="utf-8") + "# another comment\n", encoding="utf-8")
    records, _ = walk(plan, tmp_path)
    messages = [r.error["message"] for r in records if r.error]
    assert messages == ["plugin 'toy_mine': its file has changed since it was planned. Run again."]


def test_output_step_is_given_a_folder_of_its_own(
    make_suite: MakeSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mibench.registry import get_defense

    suite = make_suite(defenses={"toy_rounded": {}})
    plugin, seen = get_defense("toy_rounded"), []
    protect = plugin.protect

    def watched(self: Any, net: Any, state: Any, ctx: Any) -> Any:
        seen.append((ctx.scratch, ctx.scratch.is_dir()))
        return protect(self, net, state, ctx)

    monkeypatch.setattr(plugin, "protect", watched)
    walk(build_plan(suite), tmp_path)
    assert seen
    assert all(was_there and not folder.exists() for folder, was_there in seen)


def test_reports_of_a_plugin_reach_the_watcher(make_suite: MakeSuite, tmp_path: Path) -> None:
    _, watch = walk(build_plan(make_suite()), tmp_path)
    reports = [e for e in watch.events if isinstance(e, TaskProgress) and e.task.stage == "invert"]
    assert [(e.done, e.total) for e in reports] == [(1, 2), (2, 2)]
    assert "score" in reports[0].values
