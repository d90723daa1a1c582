"""Runs over a store that is there: hits, resuming, missing and corrupt artifacts, the zoo."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mibench.benchmark import bench
from mibench.errors import StoreError
from mibench.plan import Plan, build_plan
from mibench.record import Record
from mibench.runner import Event, TaskDone, TaskStarted, run
from mibench.store import Store
from mibench.suite import Suite

MakeSuite = Callable[..., Suite]


class Watch:
    """Keeps the events of a run."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def ran(self) -> list[str]:
        """Titles of the tasks that ran, in order."""
        return [e.task.title for e in self.events if isinstance(e, TaskDone) and e.how == "ran"]

    def stages(self) -> Counter[str]:
        """How many tasks of each stage ran."""
        return Counter(e.task.stage for e in self.events if isinstance(e, TaskDone) and e.how == "ran")

    def hits(self) -> int:
        """How many tasks were there before."""
        return sum(isinstance(e, TaskDone) and e.how == "hit" for e in self.events)


def walk(plan: Plan, folder: Path) -> tuple[list[Record], Watch]:
    """Run a plan with its store and records in a folder."""
    watch = Watch()
    return run(plan, Store(folder / "store"), on_event=watch, results=folder), watch


def forget(folder: Path, plan: Plan, *stages: str) -> None:
    """Delete the artifacts of some stages."""
    store = Store(folder / "store")
    for key, task in plan.tasks.items():
        if task.stage in stages:
            shutil.rmtree(store.folder(key))


def test_second_run_is_all_hits_and_repeats_the_bytes(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite(defenses={"none": {}, "toy_short": {}}))
    first, watch = walk(plan, tmp_path)
    assert len(watch.ran()) == len(plan.tasks)
    text = (tmp_path / "records.jsonl").read_bytes()
    second, again = walk(plan, tmp_path)
    assert again.ran() == []
    assert again.hits() == len(plan.tasks)
    assert second == first
    assert (tmp_path / "records.jsonl").read_bytes() == text


def test_one_more_defense_costs_only_its_cells(make_suite: MakeSuite, tmp_path: Path) -> None:
    walk(build_plan(make_suite()), tmp_path)
    _, watch = walk(build_plan(make_suite(defenses={"none": {}, "toy_short": {}})), tmp_path)
    assert watch.stages() == {"train": 1, "answer": 1, "adapt": 1, "invert": 1, "measure": 1}
    _, watch = walk(build_plan(make_suite(defenses={"none": {}, "toy_short": {"epochs": 2}})), tmp_path)
    assert watch.stages() == {"train": 1, "answer": 1, "adapt": 1, "invert": 1, "measure": 1}


def test_one_more_metric_costs_only_measuring(make_suite: MakeSuite, tmp_path: Path) -> None:
    walk(build_plan(make_suite()), tmp_path)
    _, watch = walk(build_plan(make_suite(metrics=["mc_all", "aa", "aa5"])), tmp_path)
    assert watch.stages() == {"measure": 1}


def test_changed_plugin_file_runs_again(
    make_suite: MakeSuite, toys: Callable[[str], Path], tmp_path: Path
) -> None:
    from mibench.registry import forget_files, load_plugin_file

    text = toys("toy_short").read_text(encoding="utf-8")
    forget_files()
    mine = tmp_path / "toy_mine.py"
    mine.write_text(text.replace("toy_short", "toy_mine"), encoding="utf-8")
    plugin = load_plugin_file(mine)
    suite = make_suite()
    walk(build_plan(suite.with_plugins(plugin())), tmp_path)
    mine.write_text(mine.read_text(encoding="utf-8") + "# another comment\n", encoding="utf-8")
    plugin = load_plugin_file(mine)
    _, watch = walk(build_plan(suite.with_plugins(plugin())), tmp_path)
    assert watch.stages() == {"train": 1, "answer": 1, "adapt": 1, "invert": 1, "measure": 1}


def test_missing_intermediate_is_made_only_where_it_is_needed(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite(defenses={"none": {}, "toy_short": {}}))
    walk(plan, tmp_path)
    text = (tmp_path / "records.jsonl").read_bytes()
    forget(tmp_path, plan, "train", "adapt")
    assert walk(plan, tmp_path)[1].ran() == []
    forget(tmp_path, plan, "measure")
    _, watch = walk(plan, tmp_path)
    assert watch.stages() == {"train": 2, "measure": 2}
    assert (tmp_path / "records.jsonl").read_bytes() == text


def test_missing_leaf_is_made_again(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite())
    walk(plan, tmp_path)
    text = (tmp_path / "records.jsonl").read_bytes()
    forget(tmp_path, plan, "measure")
    assert walk(plan, tmp_path)[1].stages() == {"measure": 1}
    assert (tmp_path / "records.jsonl").read_bytes() == text


def test_corrupt_artifacts_are_made_again_with_a_warning(
    make_suite: MakeSuite, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = build_plan(make_suite())
    walk(plan, tmp_path)
    text = (tmp_path / "records.jsonl").read_bytes()
    store = Store(tmp_path / "store")
    forget(tmp_path, plan, "measure")
    for key, task in plan.tasks.items():
        if task.stage in {"invert", "train"}:
            file = store.folder(key) / "tensors.safetensors"
            file.write_bytes(file.read_bytes()[:-4])
    with caplog.at_level(logging.WARNING):
        _, watch = walk(plan, tmp_path)
    assert watch.stages() == {"train": 1, "invert": 1, "measure": 1}
    assert caplog.text.count("is corrupt") == 2
    assert (tmp_path / "records.jsonl").read_bytes() == text


def test_failed_tasks_are_tried_again(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite(attacks={"toy_failing": {}}))
    walk(plan, tmp_path)
    _, watch = walk(plan, tmp_path)
    assert [e.task.stage for e in watch.events if isinstance(e, TaskStarted)] == ["invert"]


def test_report_is_written_though_images_are_gone(
    make_suite: MakeSuite, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = build_plan(make_suite())
    first = bench(plan, out=tmp_path, jobs=1, device="cpu")
    shown = list(first.folder.rglob("reconstructions.png"))
    forget(tmp_path, plan, *({task.stage for task in plan.tasks.values()} - {"measure"}))
    again = bench(plan, out=tmp_path, jobs=1, device="cpu")
    assert shown
    assert list(first.folder.rglob("reconstructions.png")) == shown
    assert caplog.text == ""
    other = bench(plan, out=tmp_path / "other", store=tmp_path / "store", jobs=1, device="cpu")
    assert len(other.files) > 0
    assert other.records == again.records
    assert not list(other.folder.rglob("reconstructions.png"))
    assert [entry.message.split(":")[0] for entry in caplog.records] == ["images of 1 cells"]


def test_interrupt_leaves_a_store_that_goes_on(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite(defenses={"none": {}, "toy_short": {}}))

    def interrupt(event: Event) -> None:
        if isinstance(event, TaskStarted) and event.task.stage == "adapt":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, Store(tmp_path / "store"), on_event=interrupt)
    assert not list((tmp_path / "store").rglob("*.tmp-*"))
    _, watch = walk(plan, tmp_path)
    assert 0 < len(watch.ran()) < len(plan.tasks)


def test_zoo_prior_is_copied_instead_of_trained(
    make_suite: MakeSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    from safetensors.torch import save

    from mibench import zoo

    suite = make_suite(attacks={"toy_gradient": {}})
    plan = build_plan(suite)
    text = walk(plan, tmp_path / "trained")[0]
    (prior,) = [task for task in plan.tasks.values() if task.stage == "prior"]
    stored = Store(tmp_path / "trained" / "store").get(prior.key)
    assert stored is not None
    data = save(stored.tensors)
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / f"{prior.key}.safetensors").write_bytes(data)
    entry = {prior.key: {"sha256": hashlib.sha256(data).hexdigest(), "title": "toy"}}
    (tmp_path / "zoo" / "manifest.json").write_text(json.dumps(entry), encoding="utf-8")
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo")
    records, watch = walk(plan, tmp_path / "zoo-run")
    assert [e.task.stage for e in watch.events if isinstance(e, TaskDone) and e.how == "zoo"] == ["prior"]
    assert "prior" not in watch.stages()
    assert records == text
    (tmp_path / "zoo" / f"{prior.key}.safetensors").write_bytes(data + b" ")
    with pytest.raises(StoreError, match="Install mibench again"):
        walk(plan, tmp_path / "bad-zoo")
