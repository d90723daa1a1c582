"""The second look at a cell, on a judge whose answers can be read off the pixels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.contract.toy import context
from mibench.data.split import quantize
from mibench.metric import Case
from mibench.stages.scrutiny import Attacked, scrutiny

from .conftest import MakeCase, labeled, one_hots

CPU = torch.device("cpu")
TARGETS = (0, 0, 3, 3)


def pixels(*labels: int) -> Tensor:
    """Images (N, 1, 1, 8), uint8, that the judge takes for these labels."""
    return quantize(torch.tensor(one_hots(labels))[:, None, None, :])


def effort(*states: tuple[int, ...], single: tuple[int, ...] | None = None) -> dict[str, Tensor]:
    tensors = {
        "targets": torch.zeros(len(states[0]), dtype=torch.int64),
        "effort.queries": torch.arange(1, len(states) + 1) * 10,
        "effort.images": torch.stack([pixels(*state) for state in states]),
        "effort.loss": torch.linspace(4, 1, len(states))[:, None].expand(-1, len(states[0])),
    }
    return tensors if single is None else {**tensors, "effort.single": pixels(*single)}


def case_of(make_case: MakeCase, *seen: int) -> Case:
    return make_case(
        one_hots(seen),
        TARGETS,
        protected=(0, 3),
        models=(((0, 3), None),),
        public=labeled(one_hots([5, 6]), [0, 1]),
    )


def look(case: Case, tensors: dict[str, Tensor], view: Any = None) -> dict[str, Any]:
    return scrutiny(case, [Attacked(view, CPU, tensors)], context("scrutiny"))


def test_who_leaks(make_case: MakeCase) -> None:
    found = look(case_of(make_case, 0, 1, 3, 3), {})
    assert found["hits"] == {"0": "10", "3": "11"}
    assert (found["effort"], found["rise"], found["restarts"]) == ([], None, None)


def test_an_effort_curve_is_judged_step_by_step(make_case: MakeCase) -> None:
    tensors = effort((1, 1, 1, 1), (0, 1, 1, 1), (0, 0, 3, 3))
    found = look(case_of(make_case, 0, 0, 3, 3), tensors)
    assert [point["queries"] for point in found["effort"]] == [10, 20, 30]
    assert [point["aa"]["value"] for point in found["effort"]] == [0.0, 0.25, 1.0]
    assert [point["loss"] for point in found["effort"]] == pytest.approx([4.0, 2.5, 1.0])
    assert found["rise"]["value"] == 1.0
    assert found["rise"]["low"] > 0


def test_what_the_choice_among_restarts_gained(make_case: MakeCase) -> None:
    tensors = effort((0, 0, 3, 3), single=(0, 1, 1, 3))
    found = look(case_of(make_case, 0, 0, 3, 3), tensors)["restarts"]
    assert found["single"]["value"] == 0.5
    assert found["gain"]["value"] == 0.5


def test_curves_of_other_lengths_are_not_mixed(make_case: MakeCase) -> None:
    case = case_of(make_case, 0, 0, 3, 3)
    models = [Attacked(None, CPU, effort((0, 0), (0, 0))), Attacked(None, CPU, effort((3, 3)))]
    assert scrutiny(case, models, context("scrutiny"))["effort"] == []


def test_queries_of_several_models_are_their_mean_over_reconstructions(make_case: MakeCase) -> None:
    case = case_of(make_case, 0, 0, 3, 3)
    few, many = effort((1,), (0,)), effort((1, 1, 1), (0, 3, 3))
    many["effort.queries"] = torch.tensor([20, 60])
    found = scrutiny(case, [Attacked(None, CPU, few), Attacked(None, CPU, many)], context("scrutiny"))
    assert [point["queries"] for point in found["effort"]] == [18, 50]  # (10 + 3 * 20) / 4, (20 + 3 * 60) / 4


def test_an_unknown_loss_is_null(make_case: MakeCase) -> None:
    tensors = effort((0, 0, 3, 3))
    tensors["effort.loss"] = torch.full((1, 4), torch.nan)
    assert look(case_of(make_case, 0, 0, 3, 3), tensors)["effort"][0]["loss"] is None


def test_one_unknown_loss_does_not_hide_the_others(make_case: MakeCase) -> None:
    tensors = effort((0, 0, 3, 3))
    tensors["effort.loss"] = torch.tensor([[2.0, torch.nan, 4.0, 3.0]])
    assert look(case_of(make_case, 0, 0, 3, 3), tensors)["effort"][0]["loss"] == 3.0


@pytest.mark.parametrize(
    ("before", "after", "ends"),
    [
        ((1, 1, 1, 1), (0, 0, 3, 3), (0.34, 1.0)),
        ((0, 0, 3, 3), (1, 1, 1, 1), (-1.0, -0.34)),
        ((0, 0, 3, 3), (0, 0, 3, 3), (-0.66, 0.66)),
    ],
)
def test_a_gain_that_is_the_same_everywhere_is_still_uncertain(
    make_case: MakeCase, before: tuple[int, ...], after: tuple[int, ...], ends: tuple[float, float]
) -> None:
    rise = look(case_of(make_case, *after), effort(before, after))["rise"]
    assert (rise["low"], rise["high"]) == pytest.approx(ends, abs=0.005)
    assert rise["low"] <= rise["value"] <= rise["high"]


@pytest.mark.parametrize(
    ("view", "share"),
    [
        (lambda x: x.flatten(1), 0.0),
        (lambda x: x.flatten(1) * 1e-30, 1.0),
        (lambda x: x.detach().flatten(1), 1.0),
        (lambda x: torch.where((x[:, :, :, 5] > 0.5)[:, 0], 0.0, 1.0) * x.flatten(1), 0.5),
    ],
)
def test_silent_gradients_are_counted(make_case: MakeCase, view: Any, share: float) -> None:
    found = look(case_of(make_case, 0, 0, 3, 3), {}, view)
    assert found["silent_gradients"] == share


def test_gradients_are_looked_at_on_people_all_over_the_public_images(make_case: MakeCase) -> None:
    """Images lie person by person; gradients are silent on the first of four people alone."""
    people = [person for person in range(4) for _ in range(40)]
    case = make_case(
        one_hots((0, 0, 3, 3)),
        TARGETS,
        protected=(0, 3),
        models=(((0, 3), None),),
        public=labeled(one_hots(people), people),
    )
    found = look(case, {}, lambda x: torch.where(x[:, 0, :, 0] > 0.5, 0.0, 1.0) * x.flatten(1))
    assert found["silent_gradients"] == 0.25


def test_without_a_white_box_view_there_are_no_gradients_to_look_at(make_case: MakeCase) -> None:
    assert look(case_of(make_case, 0, 0, 3, 3), {})["silent_gradients"] is None
