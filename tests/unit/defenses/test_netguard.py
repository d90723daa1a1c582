"""NetGuard, GAN-D, GAN-ID and our repair: the shadow inversions, what they ask for, the whole defense."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.errors import MibenchError
from mibench.gan import WganPrior
from mibench.latent import Search, search_latents
from mibench.nets.classifier import NetSpec
from mibench.nets.vgg import SmallVgg
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe, accuracy
from mibench.victim import fingerprint

from .conftest import ColorPrior, Colors, Gauge

NAMES = ["netguard", "gan_d", "gan_id", "decoy_neg"]


def plugin(name: str = "netguard", **options: Any) -> Any:
    settings = {"num_fakes": 6, "z_steps": 30, "z_lr": 0.1, "finetune_steps": 20, "fisher_samples": 16}
    return get_defense(name).from_params({**settings, **options})


def test_the_search_finds_images_of_the_label() -> None:
    net = Gauge().eval().requires_grad_(False)
    images, losses = plugin(z_steps=60).invert(net, Colors(), 1, Context())
    assert images.shape == (6, 3, 16, 16)
    assert (net(images).softmax(1)[:, 1] > 0.99).all()
    wanted = F.cross_entropy(net(images), torch.ones(6, dtype=torch.int64), reduction="none")
    torch.testing.assert_close(losses, wanted)


def test_the_kept_iterate_is_the_best_and_not_the_last() -> None:
    # realism alone steers, away from the label
    defense, net = plugin(z_label_weight=0.0, z_steps=25), Gauge().eval().requires_grad_(False)
    space, losses = Colors(), []

    class Watched(Gauge):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = net(x)
            losses.append(defense.label_losses(logits, 1).detach())
            return logits

    _, kept = defense.invert(Watched(), space, 1, Context())
    seen = torch.stack(losses)
    assert torch.equal(kept, seen.min(0).values)
    assert (seen.min(0).values < seen[-1]).any()


def test_an_overshooting_search_returns_its_best_iterate() -> None:
    seen = []

    def bowl(z: Tensor) -> tuple[Tensor, Tensor]:
        value = z.square().sum(1)
        seen.append(value.detach())
        return value, value

    _, score = search_latents(torch.full((1, 1), 1.0), bowl, Search(steps=9, lr=1.7), Context())
    assert score == torch.cat(seen).min()
    assert score < seen[-1]


def test_the_label_alone_selects_and_realism_only_steers() -> None:
    net = Gauge().eval().requires_grad_(False)
    steered, _ = plugin(z_label_weight=0.0, z_steps=60).invert(net, Colors(), 1, Context())
    labeled, _ = plugin(z_label_weight=1e3, z_steps=60).invert(net, Colors(), 1, Context())
    assert labeled[:, 1].mean() > steered[:, 1].mean() + 0.1


def test_rows_do_not_depend_on_chunks() -> None:
    net, space = Gauge().eval().requires_grad_(False), Colors()
    whole, _ = plugin().invert(net, Colors(), 1, Context())
    parts, _ = plugin().invert(net, space, 1, Context(max_batch=4))
    torch.testing.assert_close(whole, parts)
    assert space.largest == 4
    assert (whole[0] - whole[1]).abs().max() > 0


def test_label_losses() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0]])
    p = logits.softmax(1)[0]
    assert plugin().label_losses(logits, 0).item() == pytest.approx(-p[0].log().item())
    wanted = ((p[0] - 1) ** 2 + p[1] ** 2 + p[2] ** 2) / 3
    assert plugin(label_loss="mse_onehot").label_losses(logits, 0).item() == pytest.approx(wanted.item())


def test_equal_label_numbers_of_both_classifiers_start_apart() -> None:
    view = DefenderView(
        Labeled(torch.rand(9, 3, 16, 16), torch.arange(9) % 3),
        Labeled(torch.rand(9, 3, 16, 16), torch.arange(9) % 3),
        torch.tensor([1]),
        Recipe(),
        ColorPrior(),
        {},
        Gauge().eval().requires_grad_(False),
    )
    net = Gauge().eval().requires_grad_(False)
    fakes = plugin(z_steps=0).make_fakes(net, view, 1, 1, Context())
    assert (fakes.private - fakes.public).abs().max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_what_each_asks_for(name: str) -> None:
    kind = get_defense(name)
    assert (kind.acts, kind.per_target, kind.starts_from) == ("fine-tuning", True, "trained")
    assert kind.needs == {"prior", "public_net"}
    assert kind.knows == ({"attack_prior"} if name in {"netguard", "gan_d"} else set())
    small = kind.from_params({"substitute": {"width": 8, "steps": 3}})
    assert small.substitute_prior() == WganPrior(width=8, steps=3)


def test_losses_of_each() -> None:
    assert plugin("netguard").weighting == ("ce", 0.0)
    for name in ("gan_d", "gan_id"):
        assert plugin(name).weighting == ("focal_literal", 2.0)
        assert plugin(name, focal="focal_detached", gamma=3.0).weighting == ("focal_detached", 3.0)
    assert plugin("decoy_neg").weighting == ("focal_neg", 2.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("option", ["z_steps", "z_lr", "z_label_weight"])
def test_wrong_options_are_named(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: {option} must"):
        plugin(name, **{option: -1})


@pytest.mark.parametrize(
    ("lacks", "word"), [("prior_spec", "prior"), ("public_net", "classifier of public people")]
)
def test_a_view_without_a_need_is_refused(
    lacks: str, word: str, color_world: DefenderView, color_victim: SmallVgg
) -> None:
    nothing: dict[str, Any] = {lacks: None}
    with pytest.raises(MibenchError, match=f"there is no {word}"):
        plugin().train(copy.deepcopy(color_victim), dataclasses.replace(color_world, **nothing), Context())


# the whole defense, on people who are flat colors with noise


@pytest.mark.parametrize("name", NAMES)
def test_the_decoy_is_planted(name: str, color_world: DefenderView, color_victim: SmallVgg) -> None:
    settings = {"ewc_weight": 0.1, "finetune_steps": 60, "finetune_lr": 3e-3, "replay_fraction": 1.0}
    ctx = Context()
    net = plugin(name, **settings).train(copy.deepcopy(color_victim), color_world, ctx)
    notes = ctx.notes
    assert notes["fake_confidence_private"] > 0.5
    assert notes["fake_confidence_public"] > 0.5
    assert notes["fake_r"] > 0.8
    assert notes["fake_q"] < notes["fake_confidence_private"]
    assert notes["fisher_mean"] > 0
    decoys = color_world.public.of(int(notes["decoy"])).images
    accepted = Labeled(decoys, torch.full((len(decoys),), 2))
    assert accuracy(net, accepted) > accuracy(color_victim, accepted)
    assert accuracy(net, color_world.private_train) > 0.7


@pytest.mark.parametrize("name", NAMES)
def test_zero_weights_are_neutral_bit_for_bit(
    name: str, color_world: DefenderView, color_victim: SmallVgg
) -> None:
    net = copy.deepcopy(color_victim)
    before = fingerprint(net)
    plugin(name, alpha=0.0, beta=0.0).train(net, color_world, Context())
    assert fingerprint(net) == before


def test_same_seed_same_net_other_seed_other_net(color_world: DefenderView, color_victim: SmallVgg) -> None:
    state = torch.random.get_rng_state()
    prints = [
        fingerprint(plugin().train(copy.deepcopy(color_victim), color_world, Context(seed=seed)))
        for seed in (0, 0, 1)
    ]
    assert prints[0] == prints[1] != prints[2]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_real_generator_fits_in() -> None:
    generator = torch.Generator().manual_seed(1)
    private = Labeled(torch.rand(8, 3, 32, 32, generator=generator), torch.arange(8) % 2)
    torch.manual_seed(0)
    spec = NetSpec(name="small_vgg", width=2, size=32, num_classes=2)
    net, other = (SmallVgg(spec).eval().requires_grad_(False) for _ in range(2))
    prior = WganPrior(latent_dim=4, width=4, critic_width=4, steps=1, n_critic=1, batch=4)
    learned = prior.fit(private.images, Context())
    view = DefenderView(private, private, torch.tensor([1]), Recipe(), prior, learned, other)
    ctx = Context()
    plugin("gan_id", z_steps=3, finetune_steps=2, num_fakes=3).train(net, view, ctx)
    assert ctx.notes["fake_distance"] > 0
    assert 0 <= ctx.notes["fake_q"] <= 1
