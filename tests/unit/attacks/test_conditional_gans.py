"""Known answers of PLG-MI and LOKT: pseudo-labels, whom the GAN listens to, what leaves the victim."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.attack import Reconstructions
from mibench.contract.toy import toy_world as world
from mibench.distil import load_students
from mibench.errors import AccessError, QueryBudgetError
from mibench.gan import unpack
from mibench.latent import Search, search_latents
from mibench.nets.conditional import ConditionalBatchNorm, ConditionalGenerator, ProjectionDiscriminator
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.victim import LabelVictim, ScoreVictim, WhiteBoxVictim

conditional: Any = importlib.import_module("mibench.attacks._conditional")
lokt: Any = importlib.import_module(get_attack("lokt").__module__)

START = {"latent_dim": 6, "width": 4, "critic_width": 4, "steps": 0}
GAN = {"latent_dim": 6, "width": 4, "critic_width": 4, "steps": 2, "n_critic": 2, "batch": 8}
STUDENT = {"net": "small_vgg", "width": 8, "recipe": {"epochs": 2, "batch": 16}}
TINY: dict[str, dict[str, Any]] = {
    "plg_mi": {"gan": GAN, "top_n": 5, "search": {"steps": 4, "lr": 0.1, "keep": "last"}},
    "lokt": {
        "gan": GAN,
        "warmup": 1,
        "images_per_class": 6,
        "students": [STUDENT],
        "search": {"steps": 4, "lr": 0.1, "keep": "last"},
    },
}
BOTH = pytest.mark.parametrize("name", ["plg_mi", "lokt"])
Name = Literal["plg_mi", "lokt"]


def attack_of(name: Name, **options: Any) -> Any:
    """One of the two attacks with these fields; Any, because its own methods are called."""
    return get_attack(name).from_params({**TINY[name], **options})


def victim_of(name: Name, **options: Any) -> Any:
    """Exactly the victim that the attack declares."""
    return world().victim(get_attack(name).access, **options)


def adapted(name: Name, victim: Any = None, ctx: Context | None = None, **options: Any) -> Prior:
    attack, ctx = attack_of(name, **options), ctx or Context(seed=1)
    prior: Prior = attack.adapt_prior(
        attack.learn_prior(world().public, ctx), victim or victim_of(name), world().public, ctx
    )
    return prior


def run(
    name: Name,
    targets: Sequence[int],
    *,
    prior: Prior,
    victim: Any = None,
    ctx: Context | None = None,
    **options: Any,
) -> Reconstructions:
    got: Reconstructions = attack_of(name, **options).invert(
        victim or victim_of(name), prior, torch.tensor(targets), ctx or Context(seed=5)
    )
    return got


def space_of(classes: int = 3) -> Any:
    """A random conditional generator whose classes differ."""
    generator = torch.Generator().manual_seed(0)
    g = ConditionalGenerator(num_classes=classes, latent_dim=4, width=2, size=16)
    for module in g.modules():
        if isinstance(module, ConditionalBatchNorm):
            for weights in module.parameters():
                weights.data.copy_(torch.randn(weights.shape, generator=generator))
    d = ProjectionDiscriminator(num_classes=classes, width=2, size=16)
    return conditional.ConditionalSpace(g, d, classes)


def same(a: Prior, b: Prior) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# the space of latents with a class


def test_a_latent_carries_its_class_and_a_search_never_changes_it() -> None:
    space = space_of()
    labels = torch.tensor([2, 0, 1])
    start = space.of(Noise.of_targets(0, labels), labels)
    assert start.shape == (3, space.dim)
    assert start[:, -1].tolist() == [2, 0, 1]
    torch.testing.assert_close(space.decode(start), space.g(start[:, :-1], labels))

    def objective(latents: Tensor) -> tuple[Tensor, Tensor]:
        loss = space.decode(latents).mean((1, 2, 3))
        return loss, loss.detach()

    kinds: tuple[Literal["adam", "nesterov"], ...] = ("adam", "nesterov")
    for optimizer in kinds:
        search = Search(steps=5, lr=0.5, optimizer=optimizer)
        got, _ = search_latents(start, objective, search, Context())
        assert torch.equal(got[:, -1], start[:, -1])
        assert bool((got[:, :-1] != start[:, :-1]).any(1).all())


def test_random_latents_have_every_class_about_as_often() -> None:
    latents = space_of().start(Noise.of_targets(3, torch.zeros(600, dtype=torch.int64)))
    counts = latents[:, -1].long().bincount()
    assert counts.shape == (3,)
    assert 160 < int(counts.min()) <= int(counts.max()) < 240
    assert float(latents[:, :-1].std()) == pytest.approx(1, abs=0.05)


def test_the_space_has_no_bounds_and_its_realism_falls_with_the_realness() -> None:
    space, x = space_of(), world().public[:4]
    latents = torch.full((2, space.dim), 50.0)
    assert torch.equal(space.project(latents), latents)
    assert torch.equal(space.realism(x), -space.d.realness(x))


def test_rows_are_shuffled_batches_that_miss_no_image() -> None:
    rows = conditional.shuffled_rows(9, 3, Context(seed=2))
    passes = [torch.cat([next(rows) for _ in range(3)]) for _ in range(2)]
    assert [one.sort().values.tolist() for one in passes] == [list(range(9))] * 2
    assert not torch.equal(passes[0], passes[1])
    assert next(conditional.shuffled_rows(2, 5, Context())).sort().values.tolist() == [0, 1]


# PLG-MI


def test_each_label_gets_the_public_images_with_its_largest_scores() -> None:
    public = torch.arange(5).view(5, 1, 1, 1).expand(5, 3, 16, 16) / 255
    table = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.5, 0.5]])

    def released(x: Tensor) -> Tensor:
        return table[(x[:, 0, 0, 0] * 255).round().long()]

    victim: Any = ScoreVictim(released, shape=(3, 16, 16), num_classes=2)
    attack = attack_of("plg_mi", top_n=3, gan={**GAN, "batch": 6})
    images, labels = next(attack._labeled(victim, public, Context()))
    pairs = sorted(zip(labels.tolist(), (images[:, 0, 0, 0] * 255).round().int().tolist()))
    # image 4 serves both labels
    assert pairs == [(0, 1), (0, 3), (0, 4), (1, 0), (1, 2), (1, 4)]
    assert victim.queries.forward == 5


def test_queries_of_plg() -> None:
    victim = victim_of("plg_mi")
    prior = adapted("plg_mi", victim)
    # each public image once, and each fake of the generator's two steps
    assert (victim.queries.forward, victim.queries.gradient) == (64 + 2 * 8, 2 * 8)
    victim = victim_of("plg_mi")
    got = run("plg_mi", [1, 2], prior=prior, victim=victim, restarts=3)
    assert victim.queries.gradient == 2 * 3 * 2 * 5
    assert victim.queries.forward == 2 * 3 * (2 * 5 + 1)
    assert got.effort is not None
    assert got.effort.queries.tolist() == [*(6 * (step + 1) for step in (0, 1, 2, 3, 4)), 33]


def test_without_alpha_it_is_a_plain_conditional_gan() -> None:
    net = world().net
    flipped = WhiteBoxVictim(lambda x: net(x).softmax(1), net, view=lambda x: -net(x))
    for alpha, is_same in ((0.0, True), (0.2, False)):
        victim = victim_of("plg_mi")
        plain = adapted("plg_mi", victim, alpha=alpha)
        assert (victim.queries.gradient == 0) is is_same
        # scores, and so pseudo-labels, are the same; gradients point the other way
        assert same(plain, adapted("plg_mi", flipped, alpha=alpha)) is is_same


def test_the_victim_pulls_each_class_towards_its_label() -> None:
    def margin(alpha: float) -> float:
        gan = {**GAN, "steps": 40, "n_critic": 1, "batch": 16, "lr": 2e-3}
        options: dict[str, Any] = {"gan": gan, "alpha": alpha, "search": {"steps": 0}}
        prior = adapted("plg_mi", **options)
        got = run("plg_mi", [0, 1, 2, 3] * 8, prior=prior, **options)
        logits = world().net(got.images).detach()
        own = logits.gather(1, got.targets[:, None]).squeeze(1)
        return float((own - logits.scatter(1, got.targets[:, None], -torch.inf).amax(1)).mean())

    assert margin(1.0) > margin(0.0) + 1


def test_the_search_climbs_the_victim() -> None:
    prior = adapted("plg_mi")
    still, moved = (
        run("plg_mi", [0, 1, 2, 3], prior=prior, search={"steps": steps, "lr": 0.1}).confidence
        for steps in (0, 40)
    )
    assert float(moved.mean()) > float(still.mean())
    assert bool((moved >= still - 1e-3).all())


def test_the_loss_is_the_mean_over_views() -> None:
    seen: list[Tensor] = []
    net = world().net

    def view(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        logits: Tensor = net(x)
        return logits

    victim = WhiteBoxVictim(lambda x: net(x).softmax(1), net, view=view)
    prior = adapted("plg_mi")
    got = run("plg_mi", [3, 1], prior=prior, victim=victim, search={"steps": 0}, num_views=3)
    views, final = seen
    assert (len(views), len(final)) == (6, 2)
    logits = net(views).detach()
    labels = torch.tensor([3, 1] * 3)
    own = logits.gather(1, labels[:, None]).squeeze(1)
    margins = logits.scatter(1, labels[:, None], -torch.inf).amax(1) - own
    assert got.effort is not None
    torch.testing.assert_close(got.effort.loss[0], margins.view(3, 2).mean(0))
    assert len({round(float(one), 5) for one in margins}) == 6


# LOKT


def test_nothing_but_labels_is_asked_of_the_victim() -> None:
    victim = victim_of("lokt")
    assert type(victim) is LabelVictim
    prior = adapted("lokt", victim)
    # two critic steps after the warm-up's, twice; then the students' images
    assert (victim.queries.forward, victim.queries.gradient) == (2 * 2 * 8 + 6 * 4, 0)
    victim = victim_of("lokt")
    got = run("lokt", [0, 3], prior=prior, victim=victim)
    assert victim.queries.forward == 0
    assert bool(got.confidence.isnan().all())
    assert got.effort is not None
    assert got.effort.queries.tolist() == [0]
    assert got.effort.images.shape == (1, 2, 3, 16, 16)
    assert got.effort.loss.shape == (1, 2)
    with pytest.raises(AccessError, match="label-level victim has no 'scores'"):
        victim.scores(world().public)


def test_the_warm_up_learns_without_the_victim() -> None:
    gan = {**GAN, "steps": 0}
    victim = victim_of("lokt")
    one = adapted("lokt", victim, warmup=3, students=[], gan=gan)
    assert victim.queries.forward == 0
    blind = LabelVictim(lambda x: -world().net(x), shape=(3, 16, 16), num_classes=4)
    assert same(one, adapted("lokt", blind, warmup=3, students=[], gan=gan))
    other = adapted("lokt", blind, warmup=2, students=[], gan={**gan, "steps": 1})
    assert not same(one, other)


def test_students_agree_with_the_victim_beyond_chance() -> None:
    def quadrants(x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1)

    victim: Any = LabelVictim(quadrants, shape=(3, 16, 16), num_classes=4)
    recipe = {"epochs": 8, "batch": 16, "flip": False}
    options: dict[str, Any] = {"images_per_class": 60, "students": [{**STUDENT, "recipe": recipe}]}
    prior = adapted("lokt", victim, **options)
    attack = attack_of("lokt", **options)
    (net,) = load_students(attack.students, victim, prior, Context())
    g = attack.gan.generator(victim.shape, 4, torch.Generator())
    unpack(prior, g=g)
    space = conditional.ConditionalSpace(g, attack._discriminator(victim, torch.Generator()), 4)
    fresh = space.decode(space.start(Noise.of_targets(9, torch.zeros(200, dtype=torch.int64)))).detach()
    told = victim.labels(fresh)
    most = float(told.bincount().amax()) / len(told)  # what a net that knows one label alone would reach
    assert most < 0.6
    assert float((net(fresh).argmax(1) == told).float().mean()) > most + 0.1


def test_the_search_looks_at_the_mean_of_the_students() -> None:
    nets = [world().net, world().judge]
    surrogate = lokt.surrogate(nets)
    x = world().public[:3]
    mean = (nets[0](x) + nets[1](x)) / 2
    torch.testing.assert_close(surrogate.logits(x), mean)
    torch.testing.assert_close(surrogate.scores(x), mean.softmax(1).detach())


def test_without_students_the_class_head_is_searched() -> None:
    prior = adapted("lokt", students=[])
    assert not any(name.startswith("student") for name in prior)
    still, moved = (
        run("lokt", [0, 1, 2], prior=prior, students=[], search={"steps": steps, "lr": 0.1}).effort
        for steps in (0, 60)
    )
    assert still is not None
    assert moved is not None
    assert float(moved.loss.mean()) < float(still.loss.mean())


def test_notes_tell_how_far_the_victim_knows_the_classes() -> None:
    ctx = Context(seed=1)
    adapted("lokt", ctx=ctx)
    assert 0 <= ctx.notes["classes_kept"] <= 1
    assert ctx.notes["classes_seen"] in {0.25, 0.5, 0.75, 1.0}


# both


@BOTH
def test_a_trained_start_is_used_and_norms_alone_keep_its_layers(name: Name) -> None:
    gan = {**GAN, "start": START, "moves": "norms"}
    attack = attack_of(name, gan=gan)
    assert attack.prior_spec() == attack.gan.start
    assert attack_of(name).prior_spec() is None
    learned = attack.learn_prior(world().public, Context(seed=1))
    kept = adapted(name, gan=gan)
    assert torch.equal(kept["g.to_image.0.weight"], learned["g.to_image.0.weight"])
    scales = kept["g.norms.0.scale.weight"].float()
    assert bool((scales != learned["g.project.1.weight"].float()).any())
    freed = adapted(name, gan={**gan, "moves": "all"})
    assert not torch.equal(freed["g.to_image.0.weight"], learned["g.to_image.0.weight"])


@BOTH
def test_a_head_start_teaches_the_discriminator_alone(name: Name) -> None:
    options: dict[str, Any] = {"warmup": 0} if name == "lokt" else {}
    one, two = (adapted(name, gan={**GAN, "steps": 0, "head_start": n}, **options) for n in (0, 3))
    moved = {key for key in one if not torch.equal(one[key], two[key])}
    assert any(key.startswith("d.") for key in moved)
    learned = {key for key in moved if key.startswith("g.") and "running" not in key}
    assert all(key.endswith("num_batches_tracked") for key in learned)


@BOTH
def test_rows_do_not_meet_and_chunks_change_nothing(name: Name) -> None:
    prior = adapted(name)
    together = run(name, [1, 3, 1], prior=prior, restarts=2).images
    for rows, targets in (([1], [3]), ([0, 2], [1, 1])):
        alone = run(name, targets, prior=prior, restarts=2).images
        torch.testing.assert_close(alone, together[rows], atol=1e-5, rtol=0)
    chunked = run(name, [1, 3, 1], prior=prior, ctx=Context(seed=5, max_batch=4), restarts=2).images
    torch.testing.assert_close(chunked, together, atol=1e-5, rtol=0)
    assert len(together.flatten(1).unique(dim=0)) == 3


@BOTH
def test_the_seed_decides_and_nothing_else(name: Name) -> None:
    before = torch.get_rng_state()
    assert same(adapted(name), adapted(name))
    assert torch.equal(torch.get_rng_state(), before)
    assert not same(adapted(name), adapted(name, ctx=Context(seed=2)))


def test_a_lower_access_level_is_not_enough_for_plg() -> None:
    lower = world().victim(ScoreVictim)
    with pytest.raises(AccessError, match="a score-level victim has no 'logits'"):
        adapted("plg_mi", lower)


@BOTH
def test_a_spent_budget_is_let_through(name: Name) -> None:
    with pytest.raises(QueryBudgetError, match="budget of 9 images"):
        adapted(name, victim_of(name, max_queries=9))


def test_an_allowance_shortens_the_search() -> None:
    prior = adapted("plg_mi")
    victim = victim_of("plg_mi", allowance=7, max_queries=14)
    got = run("plg_mi", [0, 2], prior=prior, victim=victim)
    assert victim.queries.forward == 2 * (2 * 3 + 1)
    shorter = run("plg_mi", [0, 2], prior=prior, search={"steps": 2, "lr": 0.1, "keep": "last"})
    assert torch.equal(got.images, shorter.images)
    with pytest.raises(QueryBudgetError, match="budget of 2 queries"):
        run("plg_mi", [0], prior=prior, victim=victim_of("plg_mi", allowance=2))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("plg_mi", {"top_n": 0}, "plg_mi: top_n must be >= 1, got 0"),
        ("plg_mi", {"num_views": 0}, "plg_mi: num_views must be >= 1, got 0"),
        ("plg_mi", {"alpha": -0.1}, "plg_mi: alpha must be >= 0, got -0.1"),
        ("plg_mi", {"gan": {"n_critic": 0}}, "gan: n_critic must be >= 1, got 0"),
        ("plg_mi", {"gan": {"lr": 0.0}}, "gan: lr must be > 0"),
        ("plg_mi", {"gan": {"decay": 1.5}}, "decay lie in .0, 1., got 0.0002, 0.0 and 1.5"),
        ("plg_mi", {"gan": {"moves": "norms"}}, "gan: moves = 'norms' would keep random layers"),
        ("lokt", {"images_per_class": 0}, "lokt: images_per_class must be >= 1, got 0"),
        ("lokt", {"restarts": 0}, "lokt: restarts must be >= 1, got 0"),
        ("lokt", {"warmup": -1}, "lokt: warmup must be >= 0, got -1"),
        ("lokt", {"class_weight": -1.0}, "lokt: class_weight must be >= 0, got -1.0"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_attack(name).from_params(options)
