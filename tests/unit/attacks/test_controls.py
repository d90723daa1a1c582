"""Negative controls: the mean face and the best public image give exactly what they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mibench.data.split import dequantize
from mibench.errors import AccessError
from mibench.plugin import Context
from mibench.registry import get_attack
from mibench.victim import LabelVictim, ScoreVictim

SHAPE = (3, 4, 4)


def public_images() -> Tensor:
    """Ten plain images of brightness 0, 1/10, ... up to bytes."""
    levels = (torch.arange(10) * 25).to(torch.uint8)
    return dequantize(levels[:, None, None, None].expand(10, *SHAPE))


def brightness_scores(x: Tensor) -> Tensor:
    """Class 0 likes bright images, class 1 dark ones, class 2 middle ones."""
    mean = x.mean((1, 2, 3))
    return torch.stack([6 * mean, 6 - 6 * mean, 5 - 20 * (mean - 0.5).abs()], 1).softmax(1)


def score_victim() -> ScoreVictim:
    return ScoreVictim(brightness_scores, shape=SHAPE, num_classes=3)


def test_the_mean_face_is_the_mean_public_image_for_every_target_without_a_query() -> None:
    attack, ctx, public = get_attack("mean_face")(), Context(), public_images()
    victim = LabelVictim(brightness_scores, shape=SHAPE, num_classes=3)
    got = attack.invert(victim, attack.learn_prior(public, ctx), torch.tensor([2, 0, 2]), ctx)
    assert got.targets.tolist() == [2, 0, 2]
    torch.testing.assert_close(got.images, torch.full((3, *SHAPE), float(public.mean())))
    assert victim.queries.forward == 0


@pytest.mark.parametrize("max_batch", [3, 256])
def test_the_best_public_images_come_in_the_order_of_their_scores(max_batch: int) -> None:
    attack, ctx, public = (
        get_attack("nearest_public").from_params({"images_per_label": 3}),
        Context(),
        public_images(),
    )
    victim = ScoreVictim(brightness_scores, shape=SHAPE, num_classes=3, max_batch=max_batch)
    prior = attack.adapt_prior({}, victim, public, ctx)
    assert victim.queries.forward == 10
    targets = torch.tensor([0, 1, 0, 2, 1, 0, 0])
    got = attack.invert(victim, prior, targets, ctx)
    assert victim.queries.forward == 10
    # brightest: 9, 8, 7; darkest: 0, 1; nearest to one half: 125 of 255 is image 5; then it begins again
    assert torch.equal(got.images, public[[9, 0, 8, 5, 1, 7, 9]])
    torch.testing.assert_close(got.confidence, brightness_scores(got.images)[range(7), targets])


def test_more_images_than_there_are_public_ones_is_all_of_them() -> None:
    attack, ctx, public = (
        get_attack("nearest_public").from_params({"images_per_label": 50}),
        Context(),
        public_images(),
    )
    prior = attack.adapt_prior({}, score_victim(), public, ctx)
    got = attack.invert(score_victim(), prior, torch.zeros(11, dtype=torch.int64), ctx)
    order = brightness_scores(public)[:, 0].argsort(descending=True).tolist()
    assert torch.equal(got.images, public[[*order, order[0]]])


def test_an_image_that_several_labels_share_is_kept_once() -> None:
    attack, public = get_attack("nearest_public").from_params({"images_per_label": 10}), public_images()
    prior = attack.adapt_prior({}, score_victim(), public, Context())
    assert len(prior["images"]) == 10
    assert prior["rows"].shape == (10, 3)


def test_the_best_public_image_needs_scores() -> None:
    victim = LabelVictim(brightness_scores, shape=SHAPE, num_classes=3)
    with pytest.raises(AccessError, match="no 'scores'"):
        get_attack("nearest_public")().adapt_prior({}, victim, public_images(), Context())


def test_a_control_that_keeps_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="images_per_label must be >= 1, got 0"):
        get_attack("nearest_public").from_params({"images_per_label": 0})


@pytest.mark.parametrize("name", ["mean_face", "nearest_public"])
def test_controls_are_marked_as_controls(name: str) -> None:
    assert get_attack(name).control
