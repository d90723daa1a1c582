"""Whole runs with too little memory: chunks shrink, records stay as they are, and costs say so."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mibench import stages
from mibench.plan import Plan, build_plan
from mibench.record import Record
from mibench.runner import run
from mibench.stages.work import Work
from mibench.store import Artifact, Store
from mibench.suite import Suite

MakeSuite = Callable[..., Suite]
ShortMemory = Callable[[int], Any]
FREE_OF_TRAINING = ("adapt", "invert", "answer", "measure")
PRIOR = {"steps": 1, "width": 4, "critic_width": 4, "latent_dim": 8, "batch": 2}
SEARCH = {"steps": 3}


def walk(plan: Plan, folder: Path) -> list[Record]:
    return run(plan, Store(folder / "store"), results=folder)


def costs(folder: Path) -> dict[str, float]:
    lines = (folder / "costs.jsonl").read_text().splitlines()
    return {k: v for line in lines for k, v in json.loads(line).items() if k.startswith("rows_of_")}


@pytest.fixture
def squeeze(monkeypatch: pytest.MonkeyPatch, short_memory: ShortMemory) -> Callable[[int], list[Any]]:
    """Lets the stages that train nothing run with allocations of at most so many bytes."""

    def apply(most: int) -> list[Any]:
        used: list[Any] = []

        def wrapped(stage: Callable[[Work], Artifact]) -> Callable[[Work], Artifact]:
            def inner(work: Work) -> Artifact:
                used.append(short_memory(most))
                with used[-1]:
                    return stage(work)

            return inner

        for name in FREE_OF_TRAINING:
            monkeypatch.setitem(stages.STAGES, name, wrapped(stages.STAGES[name]))
        return used

    return apply


def suite_of(make_suite: MakeSuite) -> Suite:
    return make_suite(
        victim={"net": "small_vgg", "width": 8, "recipe": {"epochs": 1, "batch": 4}},
        targets={"protected": 1, "bystanders": 1, "attacked": 2, "images": 8},
        attacks={
            "gmi": {"prior": PRIOR, "search": SEARCH, "restarts": 2},
            "mi_face": {"max_iter": 2, "restarts": 2, "init": "random"},
            "toy_scores": {},
        },
        defenses={"none": {}, "toy_rounded": {}},
        metrics=["mc_all", "aa", "fid", "knn_distance"],
    )


def test_records_are_the_same_and_costs_say_what_was_halved(
    make_suite: MakeSuite, tmp_path: Path, squeeze: Callable[[int], list[Any]]
) -> None:
    plan = build_plan(suite_of(make_suite))
    wide = walk(plan, tmp_path / "wide")
    assert all(record.status == "ok" for record in wide), [r.error for r in wide]
    assert costs(tmp_path / "wide") == {}
    used = squeeze(80_000)
    narrow = walk(plan, tmp_path / "narrow")
    assert sum(one.refused for one in used) > 0
    assert narrow == wide
    assert {"rows_of_inversion", "rows_of_stage_invert", "rows_of_answers_of_the_victim"} == set(
        costs(tmp_path / "narrow")
    )


def test_what_never_fits_is_a_failed_record_with_one_sentence(
    make_suite: MakeSuite, tmp_path: Path, squeeze: Callable[[int], list[Any]]
) -> None:
    plan = build_plan(make_suite())
    squeeze(100)
    (record,) = walk(plan, tmp_path)
    assert record.status == "failed"
    assert record.error is not None
    assert record.error["type"] == "OutOfRoomError"
    message = record.error["message"]
    assert re.search(r"does not fit into memory \(CUDA out of memory\)\. Take [^.]*\.$", message), message
