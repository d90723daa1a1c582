"""BiDO: its penalty in terms of the measures, batches by identity, and what switches it off."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections import Counter
from itertools import islice
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe, accuracy, fit

VGG = NetSpec(name="small_vgg", width=4, channels=1, size=16, num_classes=4)
identity_batches: Any = importlib.import_module("mibench.defenses._identity_batches").identity_batches
entropies: Any = importlib.import_module("mibench.defenses.bido").entropies
dependence: Any = importlib.import_module("mibench.defenses._dependence")


def bido(**fields: object) -> Any:
    return cast(Any, get_defense("bido")).from_params(fields)


def make() -> Classifier:
    return build(VGG, torch.Generator().manual_seed(0))


def view(count: int = 48, *, epochs: int = 2, batch: int = 16) -> DefenderView:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    patterns = torch.rand(4, 1, 16, 16, generator=generator)
    images = 0.7 * patterns[labels] + 0.3 * torch.rand(count, 1, 16, 16, generator=generator)
    data = Labeled(images, labels)
    recipe = Recipe(epochs=epochs, batch=batch, label_smoothing=0.1)
    return DefenderView(private_train=data, public=data, targets=torch.tensor([0]), recipe=recipe)


def weights(net: Classifier) -> Tensor:
    return torch.cat([value.detach().flatten().float() for value in net.state_dict().values()])


@pytest.mark.parametrize("off", [{"scale": 0.0}, {"lambda_x": 0.0, "lambda_y": 0.0}])
@pytest.mark.parametrize("per_identity", [0, 4])
def test_without_weight_it_is_plain_training_bit_for_bit(off: dict[str, float], per_identity: int) -> None:
    data = view()
    plain = fit(make(), data.private_train, Context(seed=3), recipe=data.recipe)
    got = bido(**off, per_identity=per_identity).train(make(), data, Context(seed=3))
    assert torch.equal(weights(got), weights(plain))


def test_a_vanishing_weight_is_nearly_plain_training_on_the_same_batches() -> None:
    """The loss of the penalized path agrees with the recipe's, smoothing included."""
    data = view(epochs=1)
    plain = fit(make(), data.private_train, Context(seed=3), recipe=data.recipe)
    got = bido(scale=1e-12, per_identity=0).train(make(), data, Context(seed=3))
    assert torch.allclose(weights(got), weights(plain), atol=1e-4)


@pytest.mark.parametrize("measure", ["hsic", "coco", "plain_hsic", "alignment"])
def test_the_penalty_is_the_weighted_sum_over_the_chosen_layers(measure: str) -> None:
    data = view(16).private_train
    defense = bido(measure=measure, lambda_x=0.3, lambda_y=0.7, scale=2.0, layers=[0, -1])
    with torch.no_grad():
        blocks = make().blocks(data.images)
    x = dependence.gram(data.images, "gaussian", 5.0)
    y = (data.labels[:, None] == data.labels).double()
    wanted = 0.0
    for hidden in (blocks[0], blocks[-1]):
        z = dependence.gram(hidden, "gaussian", 5.0)
        wanted += 2 * float(0.3 * defense.dependence(x, z) - 0.7 * defense.dependence(z, y))
    got = float(defense.penalty(data.images, blocks, data.labels, 4))
    assert got == pytest.approx(wanted, rel=1e-3)


def test_the_first_term_shrinks_what_layers_tell_of_the_image_and_the_second_lifts_the_labels() -> None:
    """On plain HSIC of one layer, without cross-entropy in the way."""
    data = view(16).private_train
    features = torch.randn(16, 8, generator=torch.Generator().manual_seed(2))
    for fields, rises in (
        ({"lambda_x": 1.0, "lambda_y": 0.0}, False),
        ({"lambda_x": 0.0, "lambda_y": 1.0}, True),
    ):
        defense = bido(measure="plain_hsic", sigma="median", **fields)
        z = features.clone().requires_grad_(True)
        defense.penalty(data.images, (z,), data.labels, 4).backward()
        assert z.grad is not None
        moved = features - 5.0 * z.grad / z.grad.norm()
        other = data.images if not rises else torch.nn.functional.one_hot(data.labels, 4)
        kernel = "linear" if rises else "gaussian"
        gram = dependence.gram(other, kernel, "median")
        before, after = (
            float(dependence.plain_hsic(dependence.gram(rows, "gaussian", "median"), gram))
            for rows in (features, moved)
        )
        assert (after > before) == rises


@pytest.mark.parametrize(
    "fields",
    [
        {"lambda_x": 0.01, "lambda_y": 0.1},
        {"measure": "coco", "lambda_x": 0.1, "lambda_y": 5.0},
        {"measure": "plain_hsic", "sigma": "median", "lambda_x": 1.0, "lambda_y": 10.0},
        {"measure": "alignment", "sigma": "median", "lambda_x": 0.1, "lambda_y": 0.5},
        {"lambda_x": 0.01, "lambda_y": 0.1, "ood_factor": 0.5},
    ],
)
def test_it_learns_and_notes_calibrated_dependence(fields: dict[str, object]) -> None:
    data, ctx = view(96, epochs=12), Context()
    net = bido(**fields).train(make(), data, ctx)
    assert accuracy(net, data.private_train) > 0.9
    assert -1 <= ctx.notes["bido_alignment_x"] <= 1
    assert ctx.notes["bido_alignment_y"] > 0.2


def test_the_later_options_at_their_defaults_stay_out_of_the_key() -> None:
    names = {"ood_factor", "ood_weight", "ood_start"}
    assert bido().added == names
    assert not names & set(bido().key_params())
    assert set(bido(ood_factor=0.5).key_params()) & names == {"ood_factor"}


def test_a_layer_of_noise_pays_less_for_shrinking_by_the_published_measure_alone() -> None:
    """Independent noise has no dependence to take away, whatever its scale."""
    x = torch.rand(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    z = torch.randn(32, 3000, generator=torch.Generator().manual_seed(1))
    y = torch.arange(32) % 4

    def value(scale: float, **fields: object) -> float:
        one = bido(lambda_x=1.0, lambda_y=0.0, **fields)
        return float(one.penalty(x, (scale * z,), y, 4))

    assert value(1.0) > 20
    assert value(0.01) < 0.1 * value(1.0)
    for scale in (1.0, 0.01):
        assert abs(value(scale, measure="alignment", sigma="median")) < 0.05


def test_strangers_are_shown_late_and_make_the_net_unsure_of_them() -> None:
    data = view(48, epochs=10)
    faces = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(5))
    data = dataclasses.replace(data, public=Labeled(faces, torch.arange(40) % 5))
    fields: dict[str, object] = {"scale": 0.0, "per_identity": 0}
    found = {}
    for start in (0.3, 1.0):
        one = bido(**fields, ood_factor=0.5, ood_weight=0.3, ood_start=start)
        net = one.train(make(), data, Context(seed=3))
        with torch.no_grad():
            found[start] = float(entropies(net(faces)).mean())
        assert accuracy(net, data.private_train) > 0.6
    plain = bido(**fields).train(make(), data, Context(seed=3))
    with torch.no_grad():
        assert found[1.0] == pytest.approx(float(entropies(plain(faces)).mean()), abs=1e-2)
    assert found[0.3] > found[1.0] + 0.2
    assert found[0.3] > 0.8 * math.log(4)


def test_entropies_by_hand_and_finite_where_the_net_is_sure() -> None:
    wanted = [math.log(2), -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))]
    assert torch.allclose(entropies(torch.tensor([[0.0, 0.0], [math.log(9), 0.0]])), torch.tensor(wanted))
    assert bool(torch.isfinite(entropies(torch.tensor([[200.0, -200.0]]))).all())


def test_batches_hold_several_images_of_each_person() -> None:
    labels = torch.arange(60) % 6
    batches = list(
        islice(
            identity_batches(labels, batch=12, per_identity=4, generator=torch.Generator().manual_seed(0)), 20
        )
    )
    for rows in batches:
        assert sorted(Counter(labels[rows].tolist()).values()) == [4, 4, 4]
    # 10 images of each make two groups a pass: 48 of 60 rows, and a pass never shows an image twice
    first_pass = torch.cat(batches[:4])
    assert len(first_pass.unique()) == 48
    assert len(torch.cat(batches).unique()) == 60


def test_batches_survive_few_images_and_few_people() -> None:
    labels = torch.tensor([0, 1, 1])
    rows = next(identity_batches(labels, batch=16, per_identity=4, generator=torch.Generator()))
    assert Counter(labels[rows].tolist()) == {0: 8, 1: 8}


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"lambda_x": -1.0}, "lambda_x must be >= 0"),
        ({"sigma": 0.0}, "sigma must be > 0 or 'median'"),
        ({"ridge": 0.0}, "ridge must be > 0"),
        ({"layers": []}, "layers is empty"),
        ({"ood_factor": -0.5}, "ood_factor must be >= 0"),
        ({"ood_start": 1.5}, r"ood_start must lie in \[0, 1\]"),
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        bido(**wrong)


def test_a_missing_block_and_a_group_that_does_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="the net has 4 blocks, so none of index 4"):
        bido(layers=[4]).train(make(), view(), Context())
    with pytest.raises(ValueError, match="17 images of a person do not fit in a batch of 16"):
        bido(per_identity=17).train(make(), view(), Context())
