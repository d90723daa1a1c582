"""NetGuard, GAN-D and GAN-ID: the shadow inversions, what they ask for, and the whole defense."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.errors import MibenchError
from mibench.gan import WganPrior
from mibench.latent import Search, search_latents
from mibench.nets.classifier import Classifier, NetSpec
from mibench.nets.vgg import SmallVgg
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import LatentSpace, Prior, PriorSpec, Shape
from mibench.registry import get_defense
from mibench.training import Recipe, fit
from mibench.victim import fingerprint

NAMES = ["netguard", "gan_d", "gan_id"]


def plugin(name: str = "netguard", **options: Any) -> Any:
    settings = {"num_fakes": 6, "z_steps": 30, "z_lr": 0.1, "finetune_steps": 20, "fisher_samples": 16}
    return get_defense(name).from_params({**settings, **options})


class Colors:
    """Latents (B, 3) are flat colors; dark images are the most natural. Counts what it decodes."""

    dim = 3

    def __init__(self) -> None:
        self.largest = 0

    def start(self, noise: Noise) -> Tensor:
        return noise.normal("start", 3)

    def decode(self, latents: Tensor) -> Tensor:
        self.largest = max(self.largest, len(latents))
        return latents.sigmoid()[:, :, None, None].expand(-1, -1, 16, 16)

    def project(self, latents: Tensor) -> Tensor:
        return latents.clamp(-3, 3)

    def realism(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorPrior(PriorSpec):
    """The prior of `Colors`."""

    kind: ClassVar[str] = "colors"

    def fit(self, public: Tensor, ctx: Context) -> Prior:
        return {}

    def load(self, prior: Prior, shape: Shape, ctx: Context) -> LatentSpace:
        return Colors()


class Gauge(Classifier):
    """Logits (N, 3): ten times the mean of each channel."""

    def __init__(self) -> None:
        super().__init__(NetSpec(name="gauge", size=16, num_classes=3))
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.head = nn.Identity()

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.scale * x.mean((2, 3)),)


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
    assert kind.knows == (set() if name == "gan_id" else {"attack_prior"})
    small = kind.from_params({"substitute": {"width": 8, "steps": 3}})
    assert small.substitute_prior() == WganPrior(width=8, steps=3)


def test_losses_of_the_three() -> None:
    assert plugin("netguard").weighting == ("ce", 0.0)
    for name in ("gan_d", "gan_id"):
        assert plugin(name).weighting == ("focal_literal", 2.0)
        assert plugin(name, focal="focal_detached", gamma=3.0).weighting == ("focal_detached", 3.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("option", ["z_steps", "z_lr", "z_label_weight"])
def test_wrong_options_are_named(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: {option} must"):
        plugin(name, **{option: -1})


@pytest.mark.parametrize(
    ("lacks", "word"), [("prior_spec", "prior"), ("public_net", "classifier of public people")]
)
def test_a_view_without_a_need_is_refused(
    lacks: str, word: str, world: DefenderView, victim: SmallVgg
) -> None:
    nothing: dict[str, Any] = {lacks: None}
    with pytest.raises(MibenchError, match=f"there is no {word}"):
        plugin().train(copy.deepcopy(victim), dataclasses.replace(world, **nothing), Context())


# the whole defense, on people who are flat colors with noise


def people(generator: torch.Generator, count: int) -> Labeled:
    colors = torch.rand(count, 3, 1, 1, generator=generator)
    images = colors.repeat_interleave(12, 0) + 0.02 * torch.randn(count * 12, 3, 16, 16, generator=generator)
    return Labeled(images.clamp(0, 1), torch.arange(count).repeat_interleave(12))


def classifier(data: Labeled, classes: int, seed: int) -> SmallVgg:
    torch.manual_seed(seed)
    net = SmallVgg(NetSpec(name="small_vgg", width=4, size=16, num_classes=classes))
    fit(net, data, Context(seed=seed), recipe=Recipe(epochs=20, batch=24, shift=0))
    return net


@pytest.fixture(scope="module")
def world() -> Iterator[DefenderView]:
    generator = torch.Generator().manual_seed(5)
    private, public = people(generator, 4), people(generator, 5)
    net = classifier(public, 5, seed=2)
    before = fingerprint(net)
    yield DefenderView(private, public, torch.tensor([2]), Recipe(), ColorPrior(), {}, net)
    assert fingerprint(net) == before


@pytest.fixture(scope="module")
def victim(world: DefenderView) -> SmallVgg:
    return classifier(world.private_train, 4, seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_the_decoy_is_planted(name: str, world: DefenderView, victim: SmallVgg) -> None:
    settings = {"ewc_weight": 0.1, "finetune_steps": 60, "finetune_lr": 3e-3, "replay_fraction": 1.0}
    ctx = Context()
    net = plugin(name, **settings).train(copy.deepcopy(victim), world, ctx)
    notes = ctx.notes
    assert notes["fake_confidence_private"] > 0.5
    assert notes["fake_confidence_public"] > 0.5
    assert notes["fake_r"] > 0.8
    assert notes["fake_q"] < notes["fake_confidence_private"]
    assert notes["fisher_mean"] > 0
    decoys = world.public.of(int(notes["decoy"])).images
    with torch.no_grad():
        assert (net(decoys).argmax(1) == 2).float().mean() > (victim(decoys).argmax(1) == 2).float().mean()
        own = (net(world.private_train.images).argmax(1) == world.private_train.labels).float().mean()
    assert own > 0.7


@pytest.mark.parametrize("name", NAMES)
def test_zero_weights_are_neutral_bit_for_bit(name: str, world: DefenderView, victim: SmallVgg) -> None:
    net = copy.deepcopy(victim)
    before = fingerprint(net)
    plugin(name, alpha=0.0, beta=0.0).train(net, world, Context())
    assert fingerprint(net) == before


def test_same_seed_same_net_other_seed_other_net(world: DefenderView, victim: SmallVgg) -> None:
    state = torch.random.get_rng_state()
    prints = [
        fingerprint(plugin().train(copy.deepcopy(victim), world, Context(seed=seed))) for seed in (0, 0, 1)
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
