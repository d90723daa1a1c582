"""A profile holds what tasks took and computed, and the operations of a larger suite follow from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import module_tracker
from torch.utils.flop_counter import FlopCounterMode

from mibench import profiling
from mibench.cli import main
from mibench.errors import ProfileError
from mibench.expected_flops import expected, read_profile
from mibench.kinds import Kinds
from mibench.peaks import Peak, peaks_of_card
from mibench.plan import Plan, build_plan
from mibench.profiling import at_peak_s, count, profile_of, run_again
from mibench.runner import run
from mibench.store import Store
from mibench.suite import Suite, parse_suite
from mibench.workload import work_of

MakeSuite = Callable[..., Suite]
CPU = torch.device("cpu")
# operations that torch counts for one of the workload's, a multiply-add as two, at the sizes of these tests
BOUNDS = {
    "judge": (0.8, 1.8),
    "embedder": (0.8, 1.3),
    "public_net": (0.8, 1.3),
    "train": (0.8, 3.5),
    "output": (0.8, 7.0),
    "prior": (0.8, 6.0),
    "adapt": (0.3, 3.5),
    "invert": (0.1, 1.5),
    "answer": (0.7, 1.3),
    "measure": (0.5, 1.5),
}


def tables(*, people: int = 6, epochs: int = 2, steps: int = 2, width: int = 8) -> dict[str, Any]:
    """A suite with a task of every stage, on 32 pixels."""
    recipe = {"epochs": epochs, "batch": 8}
    prior = {"width": width, "critic_width": width, "steps": steps, "batch": 8}
    return {
        "name": "sized",
        "metrics": ["mc_all", "aa", "fid", "far_public", "aa_audit", "aa_embedder", "aa_blur"],
        "data": {
            **{"size": 32, "private": people, "private_images": 6, "test_images": 2},
            **{"public": people, "public_images": 4, "defender": 4, "defender_images": 4},
        },
        "targets": {"protected": 2, "bystanders": 1, "attacked": 3, "images": 2},
        "victim": {"net": "small_vgg", "width": width, "recipe": recipe},
        "judge": {"net": "small_resnet", "width": width, "recipe": recipe},
        "audit": {"net": "small_convnext", "width": width, "recipe": recipe},
        "embedder": {"net": "small_resnet14", "width": width, "recipe": recipe},
        "attacks": {
            "dmi": {
                **{"prior": prior, "adapt_steps": steps, "critic_lead": 2, "critic_width": width, "batch": 8},
                "search": {"steps": 4 * steps, "keep": "last"},
            },
            "ami": {"width": width, "epochs": epochs, "batch": 8},
            "nearest_public": {},
        },
        "defenses": {
            "none": {},
            "ad_mi": {"width": width, "epochs": epochs, "batch": 8},
            "gan_id": {
                "substitute": prior,
                **{"num_fakes": 8, "z_steps": steps, "finetune_steps": steps, "fisher_samples": 8},
            },
        },
    }


class Nothing:
    """A hook that is not there."""

    def remove(self) -> None:
        """Nothing to do."""


def plan_of(raw: dict[str, Any]) -> Plan:
    return build_plan(parse_suite(raw, where="suite sized.toml"))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    plan, store = plan_of(tables()), Store(tmp_path_factory.mktemp("store"))
    assert {record.status for record in run(plan, store)} == {"ok"}
    return plan, store


@pytest.fixture(scope="module")
def values(ran: tuple[Plan, Store]) -> dict[str, Any]:
    """The profile as it is written."""
    found = profile_of(*ran, device=CPU)
    return dict(json.loads(json.dumps(dataclasses.asdict(found))))


def work(plan: Plan, task: Any) -> float:
    found = work_of(task.description(), lambda key: plan.tasks[key].description())
    assert found is not None
    return found


@pytest.mark.parametrize("stage", BOUNDS)
def test_operations_are_those_that_the_workload_says(values: dict[str, Any], stage: str) -> None:
    (row,) = (one for one in values["stages"] if one["stage"] == stage)
    low, high = BOUNDS[stage]
    assert low < row["flops"] / (2 * row["work"]) < high


def test_counts_are_those_of_torchs_own_counter(
    ran: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = ran
    stages: set[str] = set()
    for task in plan.tasks.values():
        if task.stage in stages or task.stage == "data":
            continue
        stages.add(task.stage)
        with monkeypatch.context() as patch:
            # its account of modules cannot stand a gradient of a gradient, which critics are penalized by
            patch.setattr(module_tracker, "register_multi_grad_hook", lambda *_, **__: Nothing())
            with FlopCounterMode(display=False) as torchs:
                run_again(task, store, CPU)
        assert sum(count(task, store, CPU).values()) == torchs.get_total_flops(), task.title
    assert stages == set(BOUNDS)


def test_sums_are_over_all_tasks(ran: tuple[Plan, Store], values: dict[str, Any]) -> None:
    plan, store = ran
    total = values["total"]
    assert total["tasks"] == total["counted"] == len(plan.tasks)
    assert total["wall_s"] == pytest.approx(sum(store.cost(key)["wall_s"] for key in plan.tasks))
    for rows in (values["stages"], values["plugins"]):
        for name in ("tasks", "wall_s", "cpu_s", "flops"):
            assert sum(row[name] for row in rows) == pytest.approx(total[name])
    assert total["flops_per_s"] == pytest.approx(total["flops"] / total["cpu_s"])
    peak = values["peaks"]["float32"]["flops_per_s"]
    judge = next(row for row in values["stages"] if row["stage"] == "judge")
    assert judge["mfu"] == pytest.approx(judge["flops"] / judge["cpu_s"] / peak)
    assert values["missing"] == 0


def test_a_kind_is_counted_once_and_its_count_kept(
    ran: tuple[Plan, Store], values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = ran
    kinds = Kinds(plan.tasks)
    counted = [kinds.of(key) for key in plan.tasks if store.cost(key).get("is_counted")]
    assert sorted(counted) == sorted({kinds.of(key) for key in plan.tasks})
    assert len(counted) < len(plan.tasks)
    monkeypatch.setattr(profiling, "count", None)  # nothing is counted anew
    assert (
        dataclasses.asdict(profile_of(plan, store, device=CPU))["total"]["flops"] == values["total"]["flops"]
    )


def test_the_runs_of_one_kind_are_those_against_other_people(ran: tuple[Plan, Store]) -> None:
    plan, _ = ran
    kinds = Kinds(plan.tasks)
    trained = [key for key, task in plan.tasks.items() if task.plugin == "gan_id" and task.stage == "train"]
    assert len(trained) == 2
    assert len({kinds.of(key) for key in trained}) == 1
    inverted = {(task.plugin, task.params["view"], len(task.params["targets"]), "output" in task.inputs):
                kinds.of(key) for key, task in plan.tasks.items() if task.stage == "invert"}  # fmt: skip
    assert len(set(inverted.values())) == len(inverted)


def test_a_larger_suite_follows_from_a_smaller_one(values: dict[str, Any], tmp_path: Path) -> None:
    large = plan_of(tables(people=12, epochs=3, steps=4, width=16))
    store = Store(tmp_path)
    run(large, store)
    counted = {row["stage"]: row["flops"] for row in profile_of(large, store, device=CPU).stages}
    peaks = peaks_of_card("NVIDIA H100")
    assert peaks is not None
    *rows, total = expected(large, values, peaks)
    for row in rows:
        if row.stage != "data":
            assert 0.5 < row.flops / counted[row.stage] < 2, row.stage
    assert 0.6 < total.flops / sum(counted.values()) < 1.7
    assert total.tasks == len(large.tasks)
    assert total.peak_s == pytest.approx(sum(row.peak_s for row in rows))


def test_seconds_at_the_peak_are_those_of_each_precision() -> None:
    peaks = {"float32": Peak(10.0, "x"), "tf32": Peak(100.0, "x")}
    assert at_peak_s({"float32": 20.0, "tf32": 100.0, "float64": 10.0}, peaks) == 2 + 1 + 1


def test_a_suite_that_never_ran_has_no_profile(ran: tuple[Plan, Store], tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no task of it has run on device 'cpu'"):
        profile_of(ran[0], Store(tmp_path), device=CPU)


def test_a_task_whose_inputs_are_gone_is_not_counted(make_suite: MakeSuite, tmp_path: Path) -> None:
    import shutil

    plan, store = build_plan(make_suite()), Store(tmp_path)
    run(plan, store)
    gone = next(key for key, task in plan.tasks.items() if task.stage == "train")
    shutil.rmtree(store.folder(gone))
    found = {row["stage"]: row for row in profile_of(plan, store, device=CPU).stages}
    assert found["invert"]["counted"] == 0
    assert found["invert"]["mfu"] is None
    assert found["invert"]["wall_s"] > 0
    assert found["judge"]["counted"] == found["judge"]["tasks"] == 1
    assert "train" not in found


_ROW = '{"stage": "train", "flops": 1, "work": 1}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"stages": [{}], "plugins": []}',
        '{"stages": [{"stage": "train", "flops": "many", "work": 1}], "plugins": []}',
        f'{{"stages": [{_ROW}], "plugins": [{_ROW}]}}',
    ],
)
def test_what_is_no_profile_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match=r"profile .*profile\.json: (cannot be read|holds no counts)"):
        read_profile(file)


SUITE = """
name = "toy"
metrics = ["mc_all", "aa"]
[data]
size = 16
private = 3
private_images = 4
test_images = 2
public = 4
public_images = 2
defender = 2
defender_images = 2
[targets]
protected = 1
bystanders = 1
attacked = 2
images = 2
[victim]
net = "mlp"
width = 8
recipe = { epochs = 2, batch = 8 }
[judge]
net = "softmax_regression"
recipe = { epochs = 2, batch = 8 }
[attacks.mean_face]
[attacks.nearest_public]
[defenses.none]
"""


def test_the_command_runs_profiles_and_reckons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mibench.idleness._LEAST_S", 0.0)  # the tasks of a toy are too short to tell
    suite, out = tmp_path / "toy.toml", tmp_path / "out"
    suite.write_text(SUITE, encoding="utf-8")
    asked = ["profile", str(suite), "--out", str(out), "--device", "cpu", "--jobs", "1"]
    assert main([*asked, "--trace"]) == 0
    folder = out / "toy"
    told = capsys.readouterr()
    assert "Where the time of `toy` goes" in told.out
    assert "watch " in told.err
    values = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    assert {row["stage"] for row in values["idle"]} <= {row["stage"] for row in values["stages"]}
    assert values["idle"]
    assert all(0 <= row["idle"] <= 1 for row in values["idle"])
    assert (folder / "records.jsonl").is_file()
    assert (folder / "figures" / "profile.png").is_file()
    assert (folder / "profile.md").read_text(encoding="utf-8").strip() in told.out
    records = (folder / "records.jsonl").read_bytes()
    assert main([*asked, "--no-run"]) == 0
    assert "count " not in capsys.readouterr().err  # counts lie beside the artifacts
    assert (folder / "records.jsonl").read_bytes() == records
    assert main(["profile", str(suite), "--like", str(folder / "profile.json"), "--within", "5"]) == 0
    page = (folder / "expected-toy.md").read_text(encoding="utf-8")
    assert "All in 5 minutes is an MFU of" in page
    assert page.strip() in capsys.readouterr().out


def test_the_command_refuses_an_unknown_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "profile.json"
    file.write_text("{}", encoding="utf-8")
    assert main(["profile", "smoke", "--like", str(file), "--card", "Mine"]) == 2
    assert capsys.readouterr().err.startswith("card 'Mine': has no entry. Take one of: NVIDIA H200")
