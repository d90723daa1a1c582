"""Known answers of Mirror as a whole: starts, penalties, search; and what both its engines keep to."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from mibench.attack import Reconstructions
from mibench.errors import AccessError, QueryBudgetError
from mibench.gan import StylePrior
from mibench.nets import NetSpec, build
from mibench.nets.classifier import Classifier
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.victim import LabelVictim, ScoreVictim, WhiteBoxVictim, fingerprint, freeze

mirror: Any = importlib.import_module(get_attack("mirror").__module__)
presamples: Any = importlib.import_module("mibench.attacks._presamples")
truncation: Any = importlib.import_module("mibench.attacks._truncation")
dropout: Any = importlib.import_module("mibench.attacks._dropout")
penalties: Any = importlib.import_module("mibench.attacks._penalty")

SHAPE = (3, 8, 8)
DIM = 6
PRIOR = {"latent_dim": 6, "w_dim": 5, "width": 4, "critic_width": 4, "steps": 0, "p_samples": 100}
WHITE: dict[str, Any] = {
    "search": {"steps": 6, "lr": 0.05, "warmup": 0.05, "cooldown": 0.25},
    "candidates": 3,
    "presamples": 20,
    "keep": 7,
    "psi": 1.0,
}
BLACK: dict[str, Any] = {
    "population": 6,
    "generations": 4,
    "presamples": 20,
    "mutation_rate": 0.5,
    "psi": 1.0,
}
ENGINES = pytest.mark.parametrize("engine", ["mirror", "mirror_bb"])
Engine = Literal["mirror", "mirror_bb"]


class Linear(Classifier):
    """Logits linear in the pixels."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(NetSpec(name="linear", channels=DIM, size=1, num_classes=len(weights)))
        self.feature_dim, self.head = DIM, nn.Linear(DIM, len(weights), bias=False)
        self.head.weight = nn.Parameter(weights)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.flatten(1),)


def attack_of(engine: Engine, **options: Any) -> Any:
    """One of the two attacks with these fields; Any, because its own methods are called."""
    tiny = WHITE if engine == "mirror" else BLACK
    return get_attack(engine).from_params({"prior": PRIOR, **tiny, **options})


def net_of(seed: int = 0) -> Classifier:
    net = build(NetSpec(name="mlp", width=8, size=8, num_classes=5), torch.Generator().manual_seed(seed))
    freeze(net)
    return net


def victim_of(engine: Engine, *, max_queries: int | None = None) -> Any:
    """Exactly the victim that the engine declares."""
    net = net_of()
    if engine == "mirror":
        return WhiteBoxVictim(lambda x: net(x).softmax(1), net, max_queries=max_queries)
    return ScoreVictim(lambda x: net(x).softmax(1), shape=SHAPE, num_classes=5, max_queries=max_queries)


def adapted(engine: Engine, **options: Any) -> Prior:
    attack, ctx = attack_of(engine, **options), Context(seed=1)
    prior: Prior = attack.adapt_prior(attack.learn_prior(public(), ctx), victim_of(engine), public(), ctx)
    return prior


def run(
    engine: Engine, targets: Sequence[int], ctx: Context | None = None, victim: Any = None, **options: Any
) -> Reconstructions:
    victim = victim_of(engine) if victim is None else victim
    got: Reconstructions = attack_of(engine, **options).invert(
        victim, adapted(engine), torch.tensor(targets), ctx or Context(seed=5)
    )
    return got


def public() -> Tensor:
    return uniform(4, *SHAPE)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# presamples


@ENGINES
def test_presamples_do_not_depend_on_chunks(engine: Engine) -> None:
    attack, whole = attack_of(engine), adapted(engine)
    prior = attack.learn_prior(public(), Context(seed=1))
    parts = attack.adapt_prior(prior, victim_of(engine), public(), Context(seed=1, max_batch=7))
    torch.testing.assert_close(parts["starts"], whole["starts"], atol=1e-5, rtol=0)
    assert whole["starts"].shape == (5, 7 if engine == "mirror" else 6, 5)


def test_the_candidates_of_a_repeat_start_where_those_before_it_ended() -> None:
    ranked = adapted("mirror")["starts"]
    images = run("mirror", [3, 3, 3], search={"steps": 0}, flip=False, candidates=1, keep=7).images
    space: Any = StylePrior(**PRIOR).load(adapted("mirror"), SHAPE, Context())
    with torch.no_grad():
        wanted = space.decode(space.project(ranked[3, :3]))
    torch.testing.assert_close(images, wanted, atol=1e-5, rtol=0)


# the space


@pytest.mark.parametrize("layers", [1, 3, 99])
def test_truncation_moves_the_coarsest_styles_towards_the_mean(layers: int) -> None:
    whole: Any = StylePrior(**PRIOR).load(adapted("mirror"), SHAPE, Context())
    whole.g.w_avg.copy_(uniform(5, seed=8))
    w = uniform(3, 5, seed=9)
    ws = w[:, None].repeat(1, whole.g.num_ws, 1)
    ws[:, :layers] = whole.g.w_avg + 0.7 * (ws[:, :layers] - whole.g.w_avg)
    with torch.no_grad():
        got = truncation.truncated(whole, psi=0.7, layers=layers).decode(w)
        torch.testing.assert_close(got, whole.g.synthesis(ws))
        assert float((got - whole.decode(w)).abs().max()) > 1e-4
    assert truncation.truncated(whole, psi=1.0, layers=layers) is whole
    assert truncation.truncated(whole, psi=0.7, layers=0) is whole


@ENGINES
def test_presamples_and_search_see_the_same_truncation(engine: Engine) -> None:
    options: dict[str, Any] = {"psi": 0.2, "psi_layers": 99}
    still: dict[str, Any] = {"search": {"steps": 0}, "flip": False, "select": "confidence"}
    frozen = {**options, **(still if engine == "mirror" else {"generations": 0})}
    attack, victim, ctx = attack_of(engine, **frozen), victim_of(engine), Context(seed=1)
    prior = attack.learn_prior(public(), ctx)
    prior["g.w_avg"] = uniform(5, seed=8)
    prior = attack.adapt_prior(prior, victim, public(), ctx)
    space: Any = truncation.truncated(StylePrior(**PRIOR).load(prior, SHAPE, ctx), psi=0.2, layers=99)
    with torch.no_grad():
        images = [space.decode(space.project(prior["starts"][label])) for label in (0, 3)]
    ask = victim.logits if engine == "mirror" else victim.scores  # what each of them chooses by
    likes = [ask(x)[:, label] for x, label in zip(images, (0, 3))]
    wanted = torch.stack(
        [x[int(like[: 3 if engine == "mirror" else 6].argmax())] for x, like in zip(images, likes)]
    )
    got = attack.invert(victim, prior, torch.tensor([0, 3]), ctx).images
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


# dropout and penalties


def test_dropout_keeps_rows_apart() -> None:
    together = run("mirror", [1, 3, 1], dropout=True).images
    torch.testing.assert_close(run("mirror", [1], dropout=True).images, together[:1], atol=1e-5, rtol=0)
    chunked = run("mirror", [1, 3, 1], Context(seed=5, max_batch=4), dropout=True).images
    torch.testing.assert_close(chunked, together, atol=1e-5, rtol=0)
    assert not torch.equal(run("mirror", [1, 3, 1]).images, together)


def test_penalties_that_are_off_are_nothing_at_all() -> None:
    space: Any = StylePrior(**PRIOR).load(adapted("mirror"), SHAPE, Context())
    assert penalties.Penalty(critic=3.0).of(space, Context()) is None


def test_distances_are_those_of_each_row() -> None:
    space: Any = StylePrior(**PRIOR).load(adapted("mirror"), SHAPE, Context())
    space.g.w_avg.copy_(torch.ones(5))
    w = torch.stack([torch.ones(5), torch.tensor([4.0, 5.0, 1.0, 1.0, 1.0])])
    by_start = penalties.Penalty(start=2.0).of(space, Context())
    torch.testing.assert_close(by_start(w, w), torch.zeros(2))
    torch.testing.assert_close(by_start(w, torch.ones(2, 5)), torch.tensor([0.0, 10.0]))
    by_mean = penalties.Penalty(mean=0.5, start=1.0).of(space, Context())
    torch.testing.assert_close(by_mean(w, w), torch.tensor([0.0, 2.5]))


def test_a_strong_pull_leaves_the_search_where_it_began() -> None:
    options: dict[str, Any] = {"flip": False, "select": "confidence", "candidates": 1}
    start = run("mirror", [0, 1, 2], **{**options, "search": {"steps": 0}}).images
    held = run("mirror", [0, 1, 2], penalty={"start": 1e6}, **options).images
    free = run("mirror", [0, 1, 2], **options).images
    assert float((held - start).abs().max()) < 1e-5 < float((free - start).abs().max())


def test_each_penalty_changes_the_search_and_energy_takes_the_place_of_the_box() -> None:
    options: dict[str, Any] = {"flip": False, "select": "confidence"}
    plain = run("mirror", [0, 1], **options).images
    for name in ("critic", "mean", "energy"):
        assert not torch.equal(run("mirror", [0, 1], penalty={name: 5.0}, **options).images, plain)
    prior = adapted("mirror")
    space: Any = StylePrior(**PRIOR).load(prior, SHAPE, Context())
    still = run("mirror", [0, 1], penalty={"energy": 1e-4}, **{**options, "search": {"steps": 0}}).images
    with torch.no_grad():
        outside = space.decode(prior["starts"][:2].flatten(0, 1))
    assert all(float((outside - image).abs().amax((1, 2, 3)).min()) < 1e-5 for image in still)


# the white-box engine


@pytest.mark.parametrize("loss", ["ce", "max_margin"])
@pytest.mark.parametrize("select", ["consistent", "confidence"])
def test_a_linear_world_ends_at_the_vertex_of_the_weights(
    loss: str, select: str, cube_prior: StylePrior
) -> None:
    weights = torch.randn(2, DIM, generator=torch.Generator().manual_seed(3))
    net = Linear(weights)
    freeze(net)
    victim = WhiteBoxVictim(lambda x: net(x).softmax(1), net)
    options = {"loss": loss, "select": select, "flip": False}
    attack = attack_of(
        "mirror", **options, search={"steps": 120, "lr": 0.1, "warmup": 0.05, "cooldown": 0.25}
    )
    attack = dataclasses.replace(attack, prior=cube_prior)
    prior = attack.adapt_prior({}, victim, uniform(1, DIM, 1, 1), Context())
    got = attack.invert(victim, prior, torch.tensor([1, 0]), Context())
    vertex = (weights[0] - weights[1] > 0).float()
    assert torch.equal(got.images.flatten(1), torch.stack([1 - vertex, vertex]))


def test_the_result_lies_in_the_box_although_the_presamples_do_not() -> None:
    prior = adapted("mirror")
    space: Any = StylePrior(**PRIOR).load(prior, SHAPE, Context())
    assert bool((prior["starts"] != space.project(prior["starts"])).any())
    with torch.no_grad():
        inside = space.decode(space.project(prior["starts"].flatten(0, 1)))
        outside = space.decode(prior["starts"].flatten(0, 1))
    got = run("mirror", [0, 1, 2], search={"steps": 0}, flip=False).images
    for image in got:
        assert float((inside - image).abs().amax((1, 2, 3)).min()) < 1e-5
        assert float((outside - image).abs().amax((1, 2, 3)).min()) > 1e-5


def test_the_search_climbs_the_victim() -> None:
    rates = [
        run("mirror", range(5), search={"steps": steps, "lr": 0.05}, flip=False, select="confidence")
        for steps in (0, 40)
    ]
    assert bool((rates[1].confidence > rates[0].confidence).all())


def test_images_are_mirrored_for_each_row_and_step_on_its_own() -> None:
    seen: list[Tensor] = []
    net = net_of()

    def view(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        logits: Tensor = net(x)
        return logits

    victim = WhiteBoxVictim(lambda x: net(x).softmax(1), net, view=view)
    # without a step's movement only the mirror changes what the victim sees
    run("mirror", [0, 1, 2, 3], victim=victim, search={"steps": 30, "lr": 1e-12})
    plain = torch.stack(seen[:31])
    flipped = (plain - plain[:1].flip(4)).abs().amax((2, 3, 4)) < 1e-6
    rate = flipped.float()
    assert 0.35 < float(rate[1:].mean()) < 0.65
    assert len({tuple(column) for column in rate[1:].T.tolist()}) > 6


def test_without_a_mirror_the_victim_sees_the_decoded_images() -> None:
    assert not torch.equal(run("mirror", [0, 1]).images, run("mirror", [0, 1], flip=False).images)


def test_the_choice_sees_each_problem_on_its_own() -> None:
    attack = attack_of("mirror", candidates=2, select="confidence")
    logits = torch.tensor([[-3.0, 0, 0], [-1.0, 0, 0], [0, 0, -7.0], [0, 0, -8.0]])
    assert attack._choose(logits, torch.tensor([0, 0, 2, 2])).tolist() == [1, 2]


# both engines


def test_queries_of_the_white_box_engine() -> None:
    victim = victim_of("mirror")
    attack, ctx = attack_of("mirror"), Context()
    prior = attack.adapt_prior(attack.learn_prior(public(), ctx), victim, public(), ctx)
    assert (victim.queries.forward, victim.queries.gradient) == (20, 0)
    attack.invert(victim, prior, torch.tensor([1, 2]), ctx)
    assert victim.queries.gradient == 2 * 3 * 7
    assert victim.queries.forward == 20 + 2 * 3 * (7 + 1)


def test_queries_of_the_genetic_engine() -> None:
    victim = victim_of("mirror_bb")
    attack, ctx = attack_of("mirror_bb", stop_confidence=1.1), Context()
    prior = attack.adapt_prior(attack.learn_prior(public(), ctx), victim, public(), ctx)
    assert victim.queries.forward == 20
    attack.invert(victim, prior, torch.tensor([1, 2, 1]), ctx)
    assert victim.queries.forward == 20 + 3 * (6 + 4 * 5)
    assert victim.queries.gradient == 0


@ENGINES
def test_a_spent_budget_is_let_through(engine: Engine) -> None:
    with pytest.raises(QueryBudgetError, match="budget of 9 images"):
        run(engine, [0, 1], victim=victim_of(engine, max_queries=9))


@ENGINES
def test_a_lower_access_level_is_not_enough(engine: Engine) -> None:
    net = net_of()
    if engine == "mirror":
        lower: Any = ScoreVictim(lambda x: net(x).softmax(1), shape=SHAPE, num_classes=5)
    else:
        lower = LabelVictim(lambda x: net(x).softmax(1), shape=SHAPE, num_classes=5)
    with pytest.raises(AccessError, match=f"a {lower.level}-level victim has no"):
        run(engine, [0], victim=lower)


@ENGINES
def test_labels_do_not_meet_and_chunks_change_nothing(engine: Engine) -> None:
    together = run(engine, [1, 3, 1]).images
    for rows, targets in (([1], [3]), ([0, 2], [1, 1])):
        torch.testing.assert_close(run(engine, targets).images, together[rows], atol=1e-5, rtol=0)
    chunked = run(engine, [1, 3, 1], Context(seed=5, max_batch=4)).images
    torch.testing.assert_close(chunked, together, atol=1e-5, rtol=0)


@ENGINES
def test_the_seed_decides_and_nothing_else(engine: Engine) -> None:
    before = torch.get_rng_state()
    one, two = run(engine, [0, 2]), run(engine, [0, 2])
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.confidence, two.confidence)
    assert not torch.equal(run(engine, [0, 2], Context(seed=6)).images, one.images)
    assert torch.equal(torch.get_rng_state(), before)


@ENGINES
def test_repeats_of_a_label_are_kept_and_differ(engine: Engine) -> None:
    victim = victim_of(engine)
    got = run(engine, [2, 0, 2, 2], victim=victim)
    assert got.targets.tolist() == [2, 0, 2, 2]
    assert got.images.shape == (4, *SHAPE)
    assert got.images.dtype == torch.float32
    assert 0 <= got.images.min() <= got.images.max() <= 1
    assert len(got.images.flatten(1).unique(dim=0)) == 4
    seen = victim.scores(got.images)[range(4), got.targets]
    torch.testing.assert_close(got.confidence, seen, atol=1e-5, rtol=0)


def test_the_victim_is_left_as_it_was() -> None:
    victim = victim_of("mirror")
    before = fingerprint(victim.net)
    run("mirror", [0, 3], victim=victim)
    assert fingerprint(victim.net) == before


@ENGINES
def test_both_engines_share_one_prior(engine: Engine) -> None:
    assert attack_of(engine).prior_spec() == attack_of("mirror").prior_spec() == StylePrior(**PRIOR)


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("mirror", {"candidates": 8}, "got 8, 7, 20"),
        ("mirror", {"candidates": 0}, "got 0, 7, 20"),
        ("mirror", {"keep": 21}, "got 3, 21, 20"),
        ("mirror", {"identity_weight": 0.0}, "identity_weight must be > 0, got 0.0"),
        ("mirror", {"psi": 1.5}, "psi must lie in .0, 1., got 1.5"),
        ("mirror", {"psi_layers": -1}, "psi_layers must be >= 0, got -1"),
        ("mirror_bb", {"population": 1}, "got 1 and 20"),
        ("mirror_bb", {"step_size": 0.0}, "step_size must be > 0, got 0.0"),
        ("mirror_bb", {"psi": -0.1}, "psi must lie in .0, 1., got -0.1"),
        ("mirror_bb", {"population": 21}, "got 21 and 20"),
        ("mirror_bb", {"generations": -1}, "generations must be >= 0, got -1"),
    ],
)
def test_impossible_options_are_refused(engine: Engine, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"{engine}: .*{message}"):
        attack_of(engine, **options)
