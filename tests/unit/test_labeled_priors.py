"""Who may learn a prior from labels: the defender, whose public images have some, and no attacker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mibench.key import Key
from mibench.labeled_gan import CganPrior
from mibench.plan import Plan, build_plan
from mibench.registry import get_attack
from mibench.stages import execute
from mibench.store import Artifact, Store
from mibench.suite import Suite

MakeSuite = Callable[..., Suite]
TINY = {"latent_dim": 4, "width": 4, "critic_width": 4, "steps": 1, "batch": 4}
CPU = torch.device("cpu")


def prior_of(plan: Plan, store: Store, scratch: Path) -> Artifact:
    """What the only prior of a plan gives, after the data that it reads."""
    (key,) = [key for key, task in plan.tasks.items() if task.stage == "prior"]

    def made(one: Key) -> Artifact:
        task = plan.tasks[one]
        for before in task.inputs.values():
            store.put(before, made(before))
        return execute(task, store, device=CPU, scratch=scratch)

    return made(key)


def test_an_attack_that_asks_for_labels_is_refused_when_planned(
    make_suite: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_attack("gmi"), "prior_spec", lambda _attack: CganPrior())
    suite = make_suite(attacks={"gmi": {}, "mean_face": {}}, defenses={"none": {}, "gan_d": {}})
    blocked = {(cell.attack.label, cell.defense.label): cell.blocked for cell in build_plan(suite).cells}
    for defense in ("none", "gan_d"):
        assert blocked["gmi", defense].startswith("attack 'gmi' asks for a prior of kind 'cgan': it learns ")
        assert "Choose a prior without labels" in blocked["gmi", defense]
        assert blocked["mean_face", defense] == ""


def test_a_defender_trains_a_labeled_prior_on_his_own_people(make_suite: MakeSuite, tmp_path: Path) -> None:
    defenses = {"gan_id": {"substitute": {"kind": "cgan", **TINY}}}
    plan = build_plan(make_suite(attacks={"mean_face": {}}, defenses=defenses))
    (task,) = [one for one in plan.tasks.values() if one.stage == "prior" and one.plugin == "cgan"]
    assert task.params["half"] == "defender"
    only = Plan(plan.suite, {k: t for k, t in plan.tasks.items() if t is task or t.stage == "data"}, ())
    learned = prior_of(only, Store(tmp_path / "store"), tmp_path / "scratch")
    assert learned.tensors["g.embed.weight"].shape[1] == plan.suite.data.defender


def test_an_inversion_specific_gan_may_start_from_an_untrained_one(make_suite: MakeSuite) -> None:
    attacks = {"dmi": {"prior": {"steps": 0}}, "mirror": {"prior": {"steps": 0}}}
    defenses = {"gan_d": {"inversion_steps": 3}}
    cells = build_plan(make_suite(attacks=attacks, defenses=defenses)).cells
    blocked = {cell.attack.label: cell.blocked for cell in cells}
    assert blocked["dmi"] == ""
    # its style generator is not adapted, so it stays untrained
    assert "would learn nothing from the prior of attack 'mirror'" in blocked["mirror"]
