"""Substitutes in the shadow inversion: a told label, drawn codes, a generator adapted to the victim."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.gan import StylePrior, WganPrior
from mibench.gan_inversion import InversionSpace
from mibench.info_gan import InfoGanPrior
from mibench.labeled_gan import CganPrior, LabelSpace, MixtureSpace
from mibench.nets.classifier import Classifier, NetSpec
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import LatentSpace, PriorSpec
from mibench.registry import get_defense
from mibench.spaces import WSpace, ZSpace
from mibench.training import Recipe
from mibench.victim import fingerprint

TINY: dict[str, Any] = {"latent_dim": 4, "width": 4, "critic_width": 4, "steps": 2, "batch": 4}
SPECS: list[PriorSpec] = [CganPrior(**TINY), InfoGanPrior(**TINY, variables=2, values=3, draws=3)]


def plugin(name: str = "gan_id", **options: Any) -> Any:
    settings = {"num_fakes": 4, "z_steps": 3, "finetune_steps": 2, "fisher_samples": 8, "z_lr": 0.1}
    return get_defense(name).from_params({**settings, **options})


class Gauge(Classifier):
    """Logits (N, 3): ten times the mean of each channel."""

    def __init__(self) -> None:
        super().__init__(NetSpec(name="gauge", size=16, num_classes=3))
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.head = nn.Identity()

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.scale * x.mean((2, 3)),)


def frozen() -> Gauge:
    return Gauge().eval().requires_grad_(False)


def view_of(spec: PriorSpec) -> DefenderView:
    images = torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    data = Labeled(images, torch.arange(9) % 3)
    prior = spec.fit_labeled(data, Context(seed=1))
    return DefenderView(data, data, torch.tensor([1]), Recipe(), spec, prior, frozen())


class Shades:
    """Latents (B, 2): a brightness to search, and a drawn channel, one of three. Tries several draws."""

    dim = 2

    def __init__(self, draws: int) -> None:
        self.draws = draws

    def start(self, noise: Noise) -> Tensor:
        return torch.cat([torch.zeros(len(noise), 1), (3 * (1 - noise.uniform("channel", 1))).floor()], 1)

    def decode(self, latents: Tensor) -> Tensor:
        shown = torch.eye(3)[latents[:, 1].detach().round().long()] * latents[:, :1].sigmoid()
        return shown[:, :, None, None].expand(-1, -1, 16, 16)

    def project(self, latents: Tensor) -> Tensor:
        return latents

    def realism(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images))


def test_of_several_draws_the_one_nearest_to_the_label_is_kept() -> None:
    net, defense = frozen(), plugin(num_fakes=24)
    right = []
    for draws in (1, 8):
        images, losses = defense.invert(net, Shades(draws), 2, Context())
        assert images.shape == (24, 3, 16, 16)
        torch.testing.assert_close(losses, defense.label_losses(net(images), 2))
        right.append(int((images.mean((2, 3)).argmax(1) == 2).sum()))
    # one of three channels fits: a third of single draws, and all but 1 in 25 of the best of eight
    assert right[0] < 16
    assert right[1] >= 20


def test_draws_do_not_depend_on_chunks() -> None:
    whole, parts = (plugin().invert(frozen(), Shades(3), 1, Context(max_batch=size))[0] for size in (64, 2))
    torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize("spec", SPECS, ids=["cgan", "infogan"])
def test_the_whole_defense_with_each_substitute(spec: PriorSpec) -> None:
    ctx, net = Context(), frozen()
    plugin().train(net, view_of(spec), ctx)
    assert ctx.notes["fake_distance"] > 0
    assert 0 <= ctx.notes["fake_q"] <= 1


def test_public_fakes_get_the_decoys_label_and_private_fakes_a_mixture() -> None:
    defense, view, asked = plugin(), view_of(SPECS[0]), []
    seen = type(defense).invert

    class Watched(type(defense)):  # type: ignore[misc]
        def invert(self, net: Classifier, space: LatentSpace, label: int, ctx: Context) -> Any:
            asked.append(space)
            return seen(self, net, space, label, ctx)

    watched = Watched(**{one.name: getattr(defense, one.name) for one in dataclasses.fields(defense)})
    fakes = watched.make_fakes(frozen(), view, 1, 2, Context())
    private, public = asked
    assert isinstance(private, MixtureSpace)
    assert isinstance(public, LabelSpace)
    assert torch.equal(public._label, torch.eye(3)[[2]])
    assert fakes.private.shape == fakes.public.shape == (4, 3, 16, 16)


def test_a_discriminator_that_asks_for_labels_is_told_those_of_the_latents() -> None:
    view = view_of(CganPrior(**{**TINY, "steps": 12}))
    assert view.prior_spec is not None
    space: Any = view.prior_spec.load(dict(view.prior), (3, 16, 16), Context())
    told = []

    class Ear(MixtureSpace):
        def realism_of(self, latents: Tensor, images: Tensor) -> Tensor:
            told.append(latents.detach().clone())
            return super().realism_of(latents, images)

        def realism(self, images: Tensor) -> Tensor:
            raise AssertionError("the latents are known")

    plugin(z_steps=2).invert(frozen(), Ear(space.g, space.d, 3, clamp=1.0), 1, Context())
    assert len(told) == 3
    assert not torch.equal(told[0][:, 4:], told[2][:, 4:])


# the inversion-specific GAN of GAN-D


def test_the_generator_is_adapted_to_the_victim_where_it_is_asked_for() -> None:
    view, net = view_of(WganPrior(**TINY, n_critic=1)), frozen()
    before = fingerprint(net)
    spaces: list[Any] = []
    for steps in (0, 4):
        ctx = Context(seed=2)
        spaces.append(plugin("gan_d", inversion_steps=steps).space(view.prior_spec, net, view, ctx))
        assert ctx.notes.get("inversion_steps", 0) == steps
    assert [type(space) for space in spaces] == [ZSpace, InversionSpace]
    plain, adapted = (dict(space.g.named_parameters()) for space in spaces)
    assert any(not torch.equal(plain[name], adapted[name]) for name in plain)
    assert spaces[1].d.head.out_features == 3
    assert (spaces[1].dim, spaces[1].clamp) == (4, 1.0)
    assert fingerprint(net) == before
    again: Any = plugin("gan_d", inversion_steps=4).space(view.prior_spec, net, view, Context(seed=2))
    assert all(torch.equal(value, adapted[name]) for name, value in again.g.named_parameters())


def test_another_victim_gives_another_generator() -> None:
    view, other = view_of(WganPrior(**TINY, n_critic=1)), Gauge()
    with torch.no_grad():
        other.scale.fill_(-10.0)
    other.eval().requires_grad_(False)
    defense = plugin("gan_d", inversion_steps=4)
    one, two = (defense.space(view.prior_spec, net, view, Context(seed=2)) for net in (frozen(), other))
    shown = [space.d.head.weight for space in (one, two)]
    assert not torch.equal(*shown)


def test_a_style_generator_stays_as_it_was_trained() -> None:
    spec = StylePrior(latent_dim=4, w_dim=4, width=8, critic_width=8, steps=1, batch=4, p_samples=50)
    view, ctx = view_of(spec), Context()
    assert isinstance(plugin("gan_d", inversion_steps=4).space(spec, frozen(), view, ctx), WSpace)
    assert "inversion_steps" not in ctx.notes


def test_the_option_is_off_and_out_of_the_key_by_default() -> None:
    kind = get_defense("gan_d")
    assert "inversion_steps" not in kind().key_params()
    assert kind.from_params({"inversion_steps": 5}).key_params()["inversion_steps"] == 5
    assert not kind().trains_on(WganPrior())
    assert kind.from_params({"inversion_steps": 5}).trains_on(WganPrior())
    assert not kind.from_params({"inversion_steps": 5}).trains_on(StylePrior())
    with pytest.raises(ValueError, match="gan_d: inversion_steps must be >= 0 and finite, got -1"):
        kind.from_params({"inversion_steps": -1})


def test_an_adapted_generator_runs_through_the_whole_defense() -> None:
    ctx = Context()
    view = view_of(WganPrior(**TINY, n_critic=1))
    plugin("gan_d", inversion_steps=2).train(frozen(), view, ctx)
    assert ctx.notes["inversion_steps"] == 2
    assert 0 <= ctx.notes["fake_q"] <= 1
