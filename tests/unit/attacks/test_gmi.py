"""Known answers of GMI: its update, its two weights, the vertex, the penalty, the choice, independence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.attack import Reconstructions
from mibench.data.split import quantize
from mibench.errors import AccessError, QueryBudgetError
from mibench.gan import WganPrior
from mibench.latent import Search
from mibench.nets import NetSpec, build
from mibench.nets.classifier import Classifier
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.spaces import ZSpace
from mibench.victim import ScoreVictim, WhiteBoxVictim, fingerprint, freeze

SHAPE, CLASSES, DIM = (3, 8, 8), 5, 6
PRIOR = {"latent_dim": DIM, "width": 4, "critic_width": 4, "steps": 0}
TINY: dict[str, Any] = {
    "prior": PRIOR,
    "search": {"steps": 8, "lr": 0.01, "optimizer": "nesterov"},
    "restarts": 3,
}
# one restart whose last iterate is returned, as the authors' loop has it
PLAIN: dict[str, Any] = {
    "search": {"steps": 50, "lr": 2e-4, "optimizer": "nesterov", "keep": "last"},
    "restarts": 1,
}


def attack_of(**options: Any) -> Any:
    """The attack with these fields; Any, because its own fields are read."""
    return get_attack("gmi").from_params({**TINY, **options})


def victim_of(seed: int = 0, **options: Any) -> WhiteBoxVictim:
    spec = NetSpec(name="mlp", width=8, size=8, num_classes=CLASSES)
    net = build(spec, torch.Generator().manual_seed(seed))
    freeze(net)
    return WhiteBoxVictim(lambda x: net(x).softmax(1), net, **options)


def prior_of(seed: int = 1) -> Prior:
    prior: Prior = attack_of().learn_prior(torch.zeros(1, *SHAPE), Context(seed=seed))
    return prior


def space_of(prior: Prior | None = None) -> ZSpace:
    return WganPrior(**PRIOR).load(prior or prior_of(), SHAPE, Context())


def run(
    targets: Sequence[int],
    victim: Any = None,
    *,
    prior: Prior | None = None,
    ctx: Context | None = None,
    **options: Any,
) -> Reconstructions:
    got: Reconstructions = attack_of(**options).invert(
        victim or victim_of(), prior or prior_of(), torch.tensor(targets), ctx or Context(seed=5)
    )
    return got


def starts(targets: Sequence[int], restarts: int = 1) -> Tensor:
    noise = Context(seed=5).noise(torch.tensor(targets)).repeat(restarts)
    return space_of().project(space_of().start(noise))


def decoded(latents: Tensor) -> Tensor:
    with torch.no_grad():
        images: Tensor = space_of().decode(latents)
    return images


def descended(loss: Callable[[Tensor], Tensor], z: Tensor, *, lr: float, steps: int = 50) -> Tensor:
    """The authors' loop, as their code has it: v' = mu v - lr g, then the clip."""
    momentum, velocity = 0.9, torch.zeros_like(z)
    for _ in range(steps):
        z = z.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(loss(z), z)
        faster = momentum * velocity - lr * slope
        z = (z.detach() - momentum * velocity + (1 + momentum) * faster).clamp(-1, 1)
        velocity = faster  # the clip does not reset it
    return z


# the update


def test_our_rate_on_the_sum_is_the_authors_rate_on_the_mean_of_their_batch() -> None:
    targets = [1, 4, 0, 2]
    labels, space, victim = torch.tensor(targets), space_of(), victim_of()

    def mean_loss(z: Tensor) -> Tensor:
        x = space.decode(z)
        loss: Tensor = 100 * F.cross_entropy(victim.logits(x), labels) - space.d(x).mean()
        return loss

    z = descended(mean_loss, starts(targets), lr=2e-4 * len(targets))
    got = run(targets, **PLAIN).images
    torch.testing.assert_close(got, decoded(z), atol=1e-5, rtol=0)
    assert (got - decoded(starts(targets))).abs().max() > 1e-3


def test_the_defaults_are_the_authors() -> None:
    attack: Any = get_attack("gmi")()
    assert attack.search == Search(steps=1500, lr=0.02 / 100, optimizer="nesterov")
    assert (attack.identity_weight, attack.critic_weight, attack.restarts, attack.loss) == (100, 1, 5, "ce")
    prior = attack.prior_spec()
    assert (prior.latent_dim, prior.clamp, prior.n_critic, prior.gp_weight, prior.lr) == (100, 1, 5, 10, 2e-4)


# the weights of the two losses


def test_without_the_identity_weight_it_is_ascent_of_the_critic_alone() -> None:
    targets, space = [1, 4, 0], space_of()
    z = descended(lambda z: -space.d(space.decode(z)).sum(), starts(targets), lr=0.01)
    options: dict[str, Any] = {**PLAIN, "search": {**PLAIN["search"], "lr": 0.01}, "identity_weight": 0}
    got = run(targets, **options).images
    torch.testing.assert_close(got, decoded(z), atol=1e-5, rtol=0)
    assert bool((space.realism(got) < space.realism(decoded(starts(targets)))).all())
    assert torch.equal(got, run(targets, victim_of(seed=9), **options).images)


def test_without_the_critic_weight_it_is_descent_of_the_cross_entropy_alone() -> None:
    targets, space, victim = [1, 4, 0], space_of(), victim_of()
    labels = torch.tensor(targets)

    def loss(z: Tensor) -> Tensor:
        return F.cross_entropy(victim.logits(space.decode(z)), labels, reduction="sum")

    z = descended(loss, starts(targets), lr=0.02)
    options: dict[str, Any] = {**PLAIN, "critic_weight": 0}  # 100 * 2e-4 = 0.02
    got = run(targets, **options)
    torch.testing.assert_close(got.images, decoded(z), atol=1e-5, rtol=0)
    assert bool((got.confidence > victim.scores(decoded(starts(targets)))[range(3), targets]).all())
    other = {name: value for name, value in prior_of(seed=2).items() if name.startswith("d.")}
    assert torch.equal(got.images, run(targets, prior={**prior_of(), **other}, **options).images)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_both_weights_and_the_rate_trade_against_each_other(factor: float) -> None:
    scaled = {"identity_weight": 100 * factor, "critic_weight": factor}
    search = {**PLAIN["search"], "lr": 2e-4 / factor}
    got = run([1, 3], **{**PLAIN, **scaled, "search": search}).images
    torch.testing.assert_close(got, run([1, 3], **PLAIN).images, atol=1e-5, rtol=0)


# a linear world: the generator is the identity and the critic finds nothing


class Square(nn.Module):
    """Latents in [-1, 1] as images of six channels and one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Parameter(torch.tensor(0.5))

    def forward(self, z: Tensor) -> Tensor:
        return self.middle + self.middle * z[:, :, None, None]


class Silent(nn.Module):
    """The critic that is zero everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x))


@dataclass(frozen=True, kw_only=True)
class SquarePrior(WganPrior):
    """The prior of the linear world."""

    def load(self, prior: Prior, shape: tuple[int, int, int], ctx: Context) -> ZSpace:
        return ZSpace(Square(), Silent(), dim=DIM, clamp=self.clamp)


class Linear(Classifier):
    """Logits linear in the pixels."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(NetSpec(name="linear", channels=DIM, size=1, num_classes=len(weights)))
        self.feature_dim, self.head = DIM, nn.Identity()
        self.weights = nn.Parameter(weights)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.flatten(1) @ self.weights.T,)


@pytest.mark.parametrize("loss", ["ce", "max_margin", "logit"])
@pytest.mark.parametrize("optimizer", ["nesterov", "adam"])
def test_a_linear_world_ends_at_the_vertex_of_the_weights(loss: str, optimizer: str) -> None:
    first = torch.randn(DIM, generator=torch.Generator().manual_seed(3))
    # opposite weights, so that the largest margin is the largest logit too
    net = Linear(torch.stack([first, -first]))
    freeze(net)
    victim = WhiteBoxVictim(lambda x: net(x).softmax(1), net)
    rate = {"nesterov": 2e-3, "adam": 0.05}[optimizer]
    attack = attack_of(loss=loss, search={"steps": 400, "lr": rate, "optimizer": optimizer})
    attack = dataclasses.replace(attack, prior=SquarePrior(latent_dim=DIM))
    got = attack.invert(victim, {}, torch.tensor([1, 0]), Context())
    vertex = (first > 0).float()
    assert torch.equal(got.images.flatten(1), torch.stack([1 - vertex, vertex]))


# the penalty of the GAN


class Plane(nn.Module):
    """D(x) = a . x with |a| given."""

    def __init__(self, norm: float) -> None:
        super().__init__()
        self.a = nn.Parameter(F.normalize(torch.arange(1.0, 13.0), dim=0) * norm)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.a


@pytest.mark.parametrize(("norm", "cost"), [(1.0, 0.0), (3.0, 40.0)])
def test_the_gradient_penalty_of_its_gan(norm: float, cost: float) -> None:
    x = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    prior: Any = get_attack("gmi")().prior_spec()
    # real and fake are the same images, so the penalty is all that is left of the critic's loss
    loss = prior._critic_loss(Plane(norm), x, x, torch.Generator().manual_seed(1))
    assert float(loss.detach()) == pytest.approx(cost, abs=1e-3)


# restarts


@pytest.mark.parametrize("ceiling", [-1000.0, -3.0, 0.0, 50.0])
def test_the_restart_with_the_largest_target_logit_of_the_victim_is_kept(ceiling: float) -> None:
    targets = [4, 0, 4]
    # labels are no row numbers, and one row's best restart is bad for every other label
    own = torch.tensor([[-3.0, -1.0, -2.0], [-1.0, -5.0, -9.0], [-8.0, -7.0, -6.0]])
    table = torch.full((9, CLASSES), 5.0)
    table[range(9), torch.tensor(targets).repeat_interleave(3)] = own.flatten()
    table = table - 10 + ceiling
    net = victim_of().net
    victim = WhiteBoxVictim(lambda x: net(x).softmax(1), net, view=lambda _: table)
    got = run(targets, victim, search={"steps": 0})
    torch.testing.assert_close(got.images, decoded(starts(targets, 3))[[1, 3, 8]], atol=1e-6, rtol=0)
    torch.testing.assert_close(got.confidence, table.softmax(1)[[1, 3, 8], targets])


def test_more_restarts_serve_the_target_better() -> None:
    searches: dict[str, Any] = {"search": {"steps": 0}}
    one, many = (run(range(CLASSES), restarts=restarts, **searches) for restarts in (1, 16))
    own = [victim_of().logits(got.images)[range(5), got.targets] for got in (one, many)]
    assert bool((own[1] >= own[0]).all())
    assert bool((own[1] > own[0]).any())


# what every attack keeps to


def test_a_row_costs_its_restarts_times_the_steps_and_two_more() -> None:
    victim = victim_of()
    got = run([1, 3, 1], victim)
    assert victim.queries.gradient == 3 * 3 * (8 + 1)
    assert victim.queries.forward == 3 * 3 * (8 + 2)
    assert got.effort is not None
    assert got.effort.queries.tolist() == [3 * (step + 1) for step in (0, 1, 2, 3, 4, 6, 8, 9)]


@pytest.mark.parametrize("allowance", [6, 8, 9, 20, 29, 30, 500])
def test_an_allowance_shortens_the_search(allowance: int) -> None:
    victim = victim_of(allowance=allowance)
    got = run([2, 0], victim)
    steps = min(8, (allowance - 6) // 3)
    assert victim.queries.forward == 2 * 3 * (steps + 2) <= 2 * allowance
    shorter = run([2, 0], search={**TINY["search"], "steps": steps})
    assert torch.equal(got.images, shorter.images)
    with pytest.raises(
        QueryBudgetError, match="a budget of 5 queries for each reconstruction is too small: 6"
    ):
        run([2, 0], victim_of(allowance=5))


def test_a_victim_that_is_asked_thrice_an_image_pays_for_fewer_steps() -> None:
    victim = victim_of(allowance=54)
    got = run([2, 0], victim.seen_through(lambda view: view, per_image=3))
    # three restarts, three times an image: 9 for the start, 9 for the choice, 36 for four steps
    assert victim.queries.forward == 2 * 54
    assert got.effort is not None
    assert got.effort.queries.tolist() == [3 * (step + 1) for step in (0, 1, 2, 3, 4, 5)]
    assert torch.equal(got.images, run([2, 0], search={**TINY["search"], "steps": 4}).images)


def test_labels_do_not_meet_and_chunks_change_nothing() -> None:
    together = run([1, 3, 1]).images
    for rows, targets in (([1], [3]), ([0], [1]), ([0, 2], [1, 1])):
        torch.testing.assert_close(run(targets).images, together[rows], atol=1e-5, rtol=0)
    for max_batch in (1, 3, 7):
        parts = run([1, 3, 1], ctx=Context(seed=5, max_batch=max_batch)).images
        torch.testing.assert_close(parts, together, atol=1e-5, rtol=0)


def test_the_seed_decides_repeats_differ_and_the_victim_is_left_alone() -> None:
    victim, state = victim_of(), torch.get_rng_state()
    mark = fingerprint(victim.net)
    one, two = run([2, 0, 2], victim), run([2, 0, 2], victim)
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.confidence, two.confidence)
    assert not torch.equal(one.images, run([2, 0, 2], victim, ctx=Context(seed=6)).images)
    assert not torch.equal(one.images[0], one.images[2])
    assert fingerprint(victim.net) == mark
    assert torch.equal(torch.get_rng_state(), state)


def test_one_restart_is_the_single_of_several() -> None:
    several, one = run([1, 3]).effort, run([1, 3], restarts=1)
    assert several is not None
    assert several.single is not None
    assert int((several.single.int() - quantize(one.images).int()).abs().max()) <= 1


def test_scores_are_not_enough() -> None:
    victim = ScoreVictim(lambda x: torch.ones(len(x), CLASSES) / CLASSES, shape=SHAPE, num_classes=CLASSES)
    with pytest.raises(AccessError, match="a score-level victim has no 'logits'"):
        run([0], victim)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restarts": 0}, "gmi: restarts must be >= 1, got 0"),
        ({"identity_weight": -1}, "gmi: identity_weight must be >= 0, got -1"),
        ({"critic_weight": -0.5}, "gmi: critic_weight must be >= 0, got -0.5"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attack_of(**options)
