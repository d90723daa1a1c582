"""The losses of the NetGuard family on one probability: signs, extrema, limits, far logits."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.registry import get_defense

losses: Any = importlib.import_module("mibench.defenses._decoy_losses")

FOCAL = ["focal_literal", "focal_detached"]
ALL_LOSSES = ["ce", *FOCAL, "focal_neg"]


def plugin(loss: str = "ce", **options: Any) -> Any:
    """A member of the family with this push; the repaired one has no other name to choose."""
    if loss == "focal_neg":
        return get_defense("decoy_neg").from_params(options)
    return get_defense("random_fake").from_params({"loss": loss, **options})


def two_logits(p: float, rows: int = 1) -> Tensor:
    """Logits (rows, 2) that ask for gradients, the probability of label 0 being p."""
    return torch.tensor([[math.log(p / (1 - p)), 0.0]] * rows, requires_grad=True)


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_push_lowers_a_confident_fake(loss: str) -> None:
    logits = two_logits(0.9)
    plugin(loss).push(logits, 0).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] > 0


@pytest.mark.parametrize(
    ("loss", "sign"), [("ce", 1), ("focal_literal", -1), ("focal_detached", 1), ("focal_neg", 1)]
)
def test_the_printed_focal_loss_alone_raises_an_unsure_fake(loss: str, sign: int) -> None:
    logits = two_logits(0.3)
    plugin(loss).push(logits, 0).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].sign() == sign


def test_printed_focal_loss_has_its_extremum_inside() -> None:
    q = torch.linspace(0.001, 0.999, 9981, dtype=torch.float64)
    values = -losses.PUSHES["focal_literal"](q.log(), (1 - q).log(), 2.0)
    assert float(values.max()) == pytest.approx(1 / (2 * math.e), abs=1e-5)
    assert float(q[values.argmax()]) == pytest.approx(math.exp(-0.5), abs=1e-3)


def descend(loss: str, start: float, steps: int = 300, **options: Any) -> float:
    """The probability in which descent on both logits ends."""
    logits, defense = two_logits(start), plugin(loss, **options)
    for _ in range(steps):
        (slope,) = torch.autograd.grad(defense.push(logits, 0), logits)
        logits = (logits - 5 * slope).detach().requires_grad_(True)
    return float(logits.detach().softmax(1)[0, 0])


@pytest.mark.parametrize("gamma", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("start", [0.95, 0.3])
def test_descent_on_the_printed_focal_loss_ends_at_its_extremum(start: float, gamma: float) -> None:
    rest = math.exp(-1 / gamma)
    assert 0.3 < rest < 0.95
    assert descend("focal_literal", start, 500, gamma=gamma) == pytest.approx(rest, abs=1e-3)


@pytest.mark.parametrize("loss", ["ce", "focal_detached", "focal_neg"])
@pytest.mark.parametrize("start", [0.95, 0.3])
def test_descent_on_the_others_leaves_the_label(loss: str, start: float) -> None:
    assert descend(loss, start) < 0.1


def test_pull_values() -> None:
    defense = plugin("focal_literal")
    assert defense.pull(two_logits(0.5), 0).item() == pytest.approx(0.25 * math.log(2), rel=1e-5)
    assert defense.pull(two_logits(1 - 1e-6), 0).item() == pytest.approx(0.0, abs=1e-12)
    assert plugin("ce").pull(two_logits(0.5), 0).item() == pytest.approx(math.log(2), rel=1e-6)


def test_gamma_zero_is_cross_entropy() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    for loss in FOCAL:
        assert torch.equal(plugin(loss, gamma=0.0).push(logits, 2), plugin("ce").push(logits, 2))
        assert torch.equal(plugin(loss, gamma=0.0).pull(logits, 2), plugin("ce").pull(logits, 2))
    wanted = F.cross_entropy(logits, torch.full((6,), 2))
    torch.testing.assert_close(plugin("ce").pull(logits, 2), wanted)
    torch.testing.assert_close(plugin("ce").push(logits, 2), -wanted)


@pytest.mark.parametrize("loss", ALL_LOSSES)
@pytest.mark.parametrize("gap", [-200.0, 200.0])
def test_far_logits_give_finite_losses_and_slopes(loss: str, gap: float) -> None:
    for limit in ("floor", "none"):
        for term in ("push", "pull"):
            logits = torch.tensor([[gap, 0.0, -3.0]], requires_grad=True)
            value = getattr(plugin(loss, push_limit=limit), term)(logits, 0)
            value.backward()
            assert logits.grad is not None
            assert torch.isfinite(value)
            assert torch.isfinite(logits.grad).all()


def test_log_odds_are_those_of_the_softmax() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_p, log_not = losses.log_odds(logits, 3)
    p = logits.softmax(1)[:, 3]
    torch.testing.assert_close(log_p, p.log())
    torch.testing.assert_close(log_not, (1 - p).log())


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_floor_lets_a_far_fake_go_and_keeps_the_others(loss: str) -> None:
    logits = torch.tensor([[-11.0, 0.0], [1.0, 0.0]], requires_grad=True)
    plugin(loss, push_limit="floor").push(logits, 0).backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().max() == 0
    assert logits.grad[1, 0] > 0


def test_chance_lets_all_fakes_go_below_chance() -> None:
    defense = plugin("ce", push_limit="chance")
    below, above = two_logits(0.49, rows=2), two_logits(0.51, rows=2)
    defense.push(below, 0).backward()
    defense.push(above, 0).backward()
    assert below.grad is not None
    assert above.grad is not None
    assert below.grad.abs().max() == 0
    assert above.grad[0, 0] > 0


def test_values_of_the_bounded_push() -> None:
    value = plugin("focal_neg").push(two_logits(0.5), 0).item()
    assert value == pytest.approx(0.25 * math.log(2), rel=1e-5)
    assert plugin("focal_neg", gamma=0.0).push(two_logits(0.9), 0).item() == pytest.approx(
        math.log(10), rel=1e-4
    )
    q = torch.linspace(1e-6, 1 - 1e-6, 999, dtype=torch.float64)
    assert (losses.PUSHES["focal_neg"](q.log(), (1 - q).log(), 2.0) >= 0).all()


@pytest.mark.parametrize("q", [0.01, 0.3, 0.9, 0.999])
def test_slope_of_the_bounded_push(q: float) -> None:
    logits = two_logits(q)
    plugin("focal_neg").push(logits, 0).backward()
    assert logits.grad is not None
    # q^2 times the slope of -log(1 - q) in the label's logit, which is q
    assert logits.grad[0, 0].item() == pytest.approx(q**3, rel=1e-3)


def test_the_bounded_push_moves_sure_fakes_most_and_the_others_least() -> None:
    slopes = {}
    for loss in ALL_LOSSES:
        logits = two_logits(0.999)
        plugin(loss).push(logits, 0).backward()
        assert logits.grad is not None
        slopes[loss] = logits.grad[0, 0].item()
    assert slopes["focal_neg"] > 0.9
    assert max(value for loss, value in slopes.items() if loss != "focal_neg") < 0.01


@pytest.mark.parametrize(
    ("name", "option"), [("gan_d", "focal"), ("gan_id", "focal"), ("random_fake", "loss")]
)
def test_the_repaired_push_has_no_published_name(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: '{option}.*focal_detached.*got 'focal_neg'"):
        get_defense(name).from_params({option: "focal_neg"})
