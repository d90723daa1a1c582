"""Negative label smoothing: its loss, its schedule, and that it pays for confidence."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch.nn import functional as F

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe, accuracy, fit

SPEC = NetSpec(name="mlp", width=16, channels=1, size=8, num_classes=4)


def negative_ls(**fields: object) -> Any:
    return cast(Any, get_defense("negative_ls")).from_params(fields)


def make() -> Classifier:
    return build(SPEC, torch.Generator().manual_seed(0))


def view(*, epochs: int = 8, smoothing: float = 0.0, **options: Any) -> DefenderView:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    patterns = torch.rand(4, 1, 8, 8, generator=generator)
    data = Labeled(0.6 * patterns[labels] + 0.4 * torch.rand(40, 1, 8, 8, generator=generator), labels)
    recipe = Recipe(
        epochs=epochs, batch=16, lr=0.1, flip=False, shift=0, label_smoothing=smoothing, **options
    )
    return DefenderView(private_train=data, public=data, targets=torch.tensor([0]), recipe=recipe)


def test_the_gradient_is_the_prediction_less_the_target() -> None:
    """For five labels and alpha = -0.05 the target is 1.04 at the label and -0.01 elsewhere."""
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    y = torch.tensor([2, 0, 4])
    negative_ls().loss(logits, y, -0.05).backward()
    target = torch.full((3, 5), -0.01).scatter(1, y[:, None], 1.04)
    assert torch.allclose(target.sum(1), torch.ones(3))
    assert logits.grad is not None
    assert torch.allclose(3 * logits.grad, logits.detach().softmax(1) - target, atol=1e-6)


def test_positive_smoothing_is_that_of_torch() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    wanted = F.cross_entropy(logits, y, label_smoothing=0.1)
    assert float(negative_ls().loss(logits, y, 0.1)) == pytest.approx(float(wanted), rel=1e-5)


def test_the_authors_schedule() -> None:
    """100 epochs: none for 50, a ramp as if towards epoch 100 until 75, and the jump."""
    at = [negative_ls().alpha_at(epoch, 100) for epoch in range(100)]
    assert at[:50] == [0.0] * 50
    assert at[50] == pytest.approx(-0.05 / 50)
    assert at[74] == pytest.approx(-0.025)
    assert at[75:] == [-0.05] * 25
    # small trainings take the same shares
    assert [negative_ls().alpha_at(epoch, 8) for epoch in range(8)] == pytest.approx(
        [0, 0, 0, 0, -0.0125, -0.025, -0.05, -0.05]
    )


def test_other_schedules() -> None:
    smooth = negative_ls(schedule="linear")
    assert smooth.alpha_at(74, 100) == pytest.approx(-0.05)
    assert smooth.alpha_at(62, 100) == pytest.approx(-0.05 * 13 / 25)
    constant = negative_ls(schedule="constant")
    assert [constant.alpha_at(epoch, 10) for epoch in range(10)] == [-0.05] * 10
    assert negative_ls(warmup=0.0, ramp=0.0).alpha_at(0, 10) == -0.05


def test_zero_is_plain_training_bit_for_bit() -> None:
    data = view(smoothing=0.1)
    plain = fit(make(), data.private_train, Context(seed=1), recipe=data.recipe)
    got = negative_ls(alpha=0.0).train(make(), data, Context(seed=1))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(got.state_dict()[name], tensor), name


def test_the_training_follows_the_schedule() -> None:
    """With a warm-up of the whole training nothing happens; with none from the last epoch on, something."""
    data = view()
    plain = fit(make(), data.private_train, Context(), recipe=data.recipe).state_dict()["head.weight"]
    for warmup, is_plain in ((1.0, True), (0.875, False), (0.0, False)):
        got = negative_ls(warmup=warmup, ramp=0.0).train(make(), data, Context())
        assert torch.equal(got.state_dict()["head.weight"], plain) == is_plain


def test_it_widens_the_gap_between_logits_and_a_limit_holds_it() -> None:
    data = view(epochs=60, schedule="constant", weight_decay=0.0)
    gaps = []
    for fields in ({"alpha": 0.0}, {"alpha": -0.3}, {"alpha": -0.3, "limit": 3.0}):
        net = negative_ls(**fields).train(make(), data, Context())
        assert accuracy(net, data.private_train) > 0.95
        with torch.no_grad():
            top = net(data.private_train.images).topk(2, dim=1).values
        gaps.append(float((top[:, 0] - top[:, 1]).mean()))
    plain, wide, held = gaps
    assert wide > 1.5 * plain
    assert held < wide


def test_the_loss_falls_without_bound_unless_limited() -> None:
    y = torch.tensor([0])
    for gap in (10.0, 100.0, 1000.0):
        logits = torch.tensor([[gap, 0.0, 0.0, 0.0, 0.0]])
        assert float(negative_ls().loss(logits, y, -0.05)) == pytest.approx(-0.05 * 0.8 * gap, rel=1e-3)
        held = negative_ls(limit=10.0).loss(logits, y, -0.05)
        assert float(held) >= -0.05 * 10


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"alpha": 1.0}, r"alpha must lie in \[-1, 1\)"),
        ({"warmup": 1.5}, r"warmup must lie in \[0, 1\]"),
        ({"warmup": 0.8, "ramp": 0.3}, "shares of one training"),
        ({"limit": 0.0}, "limit must be > 0"),
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        negative_ls(**wrong)
