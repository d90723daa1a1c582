"""Known answers of the inversion-specific GAN: realism, both players of its game, entropy, matching."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench import gan_inversion
from mibench.nets import InversionDiscriminator, seeded

SHAPE = (3, 16, 16)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def public(count: int = 10) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("classes", [2, 8, 1000])
def test_zero_logits_are_real_with_probability_k_in_k_plus_one(classes: int) -> None:
    loss = gan_inversion.realism_loss(torch.zeros(3, classes))
    torch.testing.assert_close(loss, torch.full((3,), -math.log(classes / (classes + 1))))
    if classes == 8:
        assert float(loss[0]) == pytest.approx(0.11778, abs=1e-5)


def test_realism_is_the_sigmoid_of_the_log_sum_of_exponentials() -> None:
    d = 5 * draw(20, 6)
    torch.testing.assert_close(gan_inversion.realism_loss(d), -F.logsigmoid(d.logsumexp(1)))
    total = d.exp().sum(1)
    torch.testing.assert_close((-gan_inversion.realism_loss(d)).exp(), total / (total + 1))
    assert gan_inversion.realism_loss(torch.full((1, 2), 300.0)).isfinite().all()


class Logits(nn.Module):
    """The image is its own vector of logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_the_discriminator_meets_the_hard_loss_at_a_one_hot_label() -> None:
    d, real, fake = draw(6, 4), draw(6, 4, seed=1), draw(6, 4, seed=2)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    got = gan_inversion.discriminator_loss(Logits(), d, torch.eye(4)[labels], real, fake)
    judged = -F.logsigmoid(real.logsumexp(1)).mean() - F.logsigmoid(-fake.logsumexp(1)).mean()
    torch.testing.assert_close(got, F.cross_entropy(d, labels) + judged / 2)


def test_the_discriminator_meets_the_entropy_at_its_own_answer() -> None:
    d, rest = draw(6, 4), torch.zeros(6, 4)
    own = d.softmax(1)
    got = gan_inversion.discriminator_loss(Logits(), d, own, rest, rest)
    entropy = torch.distributions.Categorical(own).entropy().mean()
    # zero logits: D = 4/5 for real and fake alike
    torch.testing.assert_close(got, entropy - (math.log(4 / 5) + math.log(1 / 5)) / 2)


@pytest.mark.parametrize(("batch", "classes"), [(1, 2), (5, 8), (64, 3)])
def test_the_entropy_of_uniform_answers_is_summed_over_the_batch(batch: int, classes: int) -> None:
    got = gan_inversion.summed_entropy(torch.full((batch, classes), 3.0))
    assert float(got) == pytest.approx(batch * math.log(classes), rel=1e-5)


def discriminator(*, minibatch: bool = True) -> InversionDiscriminator:
    with seeded(torch.Generator().manual_seed(1)):
        # a small start lets the minibatch features speak; at the published one they are all but 0
        return InversionDiscriminator(num_classes=4, width=4, size=16, minibatch=minibatch, init_std=0.01)


def test_feature_matching_is_zero_for_the_same_batch_and_the_rest_is_entropy() -> None:
    d, x = discriminator(), public(6)
    assert gan_inversion.generator_loss(d, x, x, 0.0) == 0
    shuffled = x[torch.tensor([3, 0, 5, 1, 2, 4])]
    torch.testing.assert_close(
        gan_inversion.generator_loss(d, shuffled, x, 0.0), torch.tensor(0.0), atol=1e-6, rtol=0
    )
    assert gan_inversion.generator_loss(d, x * 0.5, x, 0.0) > 1e-3
    expected = 1e-2 * gan_inversion.summed_entropy(d(x))
    torch.testing.assert_close(gan_inversion.generator_loss(d, x, x, 1e-2), expected)


@pytest.mark.parametrize("minibatch", [True, False])
def test_an_image_is_judged_alone_as_in_a_batch_of_one(minibatch: bool) -> None:
    d, x = discriminator(minibatch=minibatch), public(5)
    alone = torch.cat([d(row[None]) for row in x])
    torch.testing.assert_close(gan_inversion.judge_alone(d, x), alone, atol=1e-5, rtol=1e-5)
    assert torch.allclose(d(x), alone, atol=1e-3) is not minibatch
