"""Known answers of C2FMI: the embedding, the map to it, both stages, and differential evolution."""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.augment import Views
from mibench.data.split import quantize
from mibench.errors import AccessError, QueryBudgetError
from mibench.gan import StylePrior
from mibench.nets import NetSpec, build
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.victim import LabelVictim, ScoreVictim, freeze

c2fmi: Any = importlib.import_module(get_attack("c2fmi").__module__)
embedding: Any = importlib.import_module("mibench.attacks._embedding")
evolution: Any = importlib.import_module("mibench.attacks._evolution")

DIM = 6
SHAPE = (3, 16, 16)
TINY: dict[str, Any] = {
    "prior": {"latent_dim": 6, "w_dim": 5, "width": 4, "critic_width": 4, "steps": 0, "p_samples": 50},
    "embedding": {"width": 4, "dim": 6, "recipe": {"epochs": 1, "batch": 8}},
    "mapping": {"hidden": 12, "epochs": 2, "batch": 8},
    "search": {"steps": 4, "lr": 0.05, "keep": "last"},
    "starts": 5,
    "survivors": 3,
    "population": 7,
    "generations": 6,
    "presamples": 12,
}


def attack_of(**options: Any) -> Any:
    """The attack with these fields; Any, because its own methods are called."""
    return get_attack("c2fmi").from_params({**TINY, **options})


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def victim_of(**limits: Any) -> ScoreVictim:
    net = build(NetSpec(name="mlp", width=8, size=16, num_classes=5), torch.Generator().manual_seed(0))
    freeze(net)
    return ScoreVictim(lambda x: net(x).softmax(1), shape=SHAPE, num_classes=5, **limits)


@pytest.fixture(scope="module")
def adapted() -> Prior:
    attack, ctx, public = attack_of(), Context(seed=1), uniform(16, *SHAPE)
    prior: Prior = attack.adapt_prior(attack.learn_prior(public, ctx), victim_of(), public, ctx)
    return prior


def run(prior: Prior, targets: list[int], ctx: Context | None = None, **options: Any) -> Any:
    victim = options.pop("victim", None) or victim_of()
    return attack_of(**options).invert(victim, prior, torch.tensor(targets), ctx or Context(seed=5))


def cube_trial(space: Any, function: Any, rows: int = 1, **options: Any) -> Any:
    """A trial of rows of label 0 against a victim of cube images whose score is function(x)."""

    def released(x: Tensor) -> Tensor:
        p = function(x.flatten(1))
        return torch.stack([p, 1 - p], 1)

    victim = ScoreVictim(released, shape=(DIM, 1, 1), num_classes=2)
    labels = torch.zeros(rows, dtype=torch.int64)
    noise = Noise.of_targets(0, labels)
    fitness = {"fitness": evolution.own_score, "stop": math.inf, **options}
    return evolution.Trial(victim, space, labels, noise, Context(), **fitness)


def sphere(x: Tensor) -> Tensor:
    return torch.exp(-4 * (x - 0.6).square().sum(1))


# differential evolution


def differential(trial: Any, people: Tensor, **options: Any) -> Any:
    settings = {"generations": 500, "pull": 0.02, "scale": 0.1, "pairs": 4, "crossover": 0.5, **options}
    scores = trial.score(trial.all_rows, people)
    return evolution.Differential(trial, people, scores, inside=lambda w: w, **settings)


def test_a_sphere_is_climbed_to_its_top_and_the_best_never_falls(cube_prior: StylePrior) -> None:
    trial = cube_trial(cube_prior.load({}, (DIM, 1, 1), Context()), sphere, rows=3)
    evolve = differential(trial, uniform(3, 32, DIM), generations=250)
    curve = [trial.best_fitness.clone()]
    for generation in range(1, 251):
        before = evolve.fitness.clone()
        evolve(trial.all_rows, generation)
        assert bool((evolve.fitness >= before).all())
        curve.append(trial.best_fitness.clone())
    assert bool((torch.stack(curve).diff(dim=0) >= 0).all())
    assert float(curve[0].max()) < 0.95
    assert bool((trial.best_fitness > 0.999).all())
    torch.testing.assert_close(trial.best, torch.full((3, DIM), 0.6), atol=0.02, rtol=0)


def test_the_scale_falls_over_the_last_thirty_of_the_published_generations() -> None:
    scale = evolution.Differential.scale_at
    de = evolution.Differential(
        None, None, None, generations=500, pull=0, scale=0.1, pairs=1, crossover=0, inside=None
    )
    # the authors count from 0: 0.1 before generation 470, then 0.1 * (500 - generation) / 50
    for counted in (0, 250, 469):
        assert scale(de, counted + 1) == 0.1
    for counted in (470, 480, 499):
        assert scale(de, counted + 1) == pytest.approx(0.1 * (500 - counted) / 50)


def test_a_child_that_takes_every_coordinate_of_its_parent_is_its_parent(cube_prior: StylePrior) -> None:
    space, people = cube_prior.load({}, (DIM, 1, 1), Context()), uniform(1, 9, DIM)
    trial = cube_trial(space, sphere)
    assert torch.equal(differential(trial, people, crossover=1.0).children(trial.all_rows, 1), people)
    half = differential(trial, uniform(1, 400, DIM)).children(trial.all_rows, 1)
    kept = (half == uniform(1, 400, DIM)).float().mean()
    assert 0.45 < float(kept) < 0.55


def test_without_differences_children_move_towards_the_best(cube_prior: StylePrior) -> None:
    space, people = cube_prior.load({}, (DIM, 1, 1), Context()), uniform(1, 9, DIM)
    trial = cube_trial(space, sphere)
    got = differential(trial, people, crossover=0.0, scale=0.0, pull=0.25).children(trial.all_rows, 1)
    best = people[0, sphere(people[0]).argmax()]
    torch.testing.assert_close(got[0], people[0] + 0.25 * (best - people[0]))


def test_a_masked_score_is_negative_outside_the_largest() -> None:
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).expand(4, 4)
    got = evolution.masked_score(scores, torch.arange(4), top=2)
    torch.testing.assert_close(got, torch.tensor([0.5, 0.3, -0.8, -0.8]))
    whole = evolution.masked_score(scores, torch.arange(4), top=99)
    torch.testing.assert_close(whole, torch.tensor([0.5, 0.3, 0.15, 0.05]))


def test_fitness_chooses_and_the_released_score_is_reported(cube_prior: StylePrior) -> None:
    space = cube_prior.load({}, (DIM, 1, 1), Context())
    trial = cube_trial(space, lambda x: x[:, 0], fitness=lambda scores, labels: -scores[:, 0])
    people = uniform(1, 5, DIM)
    torch.testing.assert_close(trial.score(trial.all_rows, people), -people[:, :, 0])
    lowest = people[0, people[0, :, 0].argmin()]
    torch.testing.assert_close(trial.best[0], lowest)
    assert float(trial.confidence) == pytest.approx(float(lowest[0]))


# the embedding and the map


def test_the_contrast_of_orthogonal_pairs_is_computed_by_hand() -> None:
    first = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    # each knows its partner at cosine 1 among two others at cosine 0
    wanted = math.log(math.exp(1 / 0.5) + 2) - 1 / 0.5
    assert float(embedding.contrast(first, first, 0.5)) == pytest.approx(wanted)
    assert float(embedding.contrast(first, first.flip(0), 0.5)) > wanted + 1


def test_a_learned_embedding_knows_which_views_belong_together() -> None:
    public = uniform(32, 3, 1, 1).expand(32, 3, 16, 16) * 0.5 + 0.5 * uniform(32, *SHAPE, seed=1)
    fields = {"width": 8, "dim": 8, "recipe": {"epochs": 15, "batch": 32, "shift": 0}}
    spec = get_attack("c2fmi").from_params({**TINY, "embedding": fields}).embedding  # type: ignore[attr-defined]  # a field of this plugin alone
    before, after = (
        spec.untrained(SHAPE, torch.Generator().manual_seed(0)).eval(),
        spec.learn(public, Context()),
    )
    views = Views(scale=(0.7, 1.0), flip=0.5)
    noise = Noise.of_targets(9, torch.arange(32))
    pair = [views.of(public, noise, purpose=purpose) for purpose in ("one", "two")]
    with torch.no_grad():
        losses = [float(embedding.contrast(net(pair[0]), net(pair[1]), 0.5)) for net in (before, after)]
    assert losses[1] < losses[0] - 0.3
    state = after.state_dict()
    again = spec.learn(public, Context()).state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_the_map_learns_embeddings_of_predictions() -> None:
    scores = (3 * torch.randn(200, 5, generator=torch.Generator().manual_seed(1))).softmax(1)
    wanted = uniform(5, 4, seed=2)[scores.argmax(1)]
    training = embedding.MapTraining(hidden=64, truncation=1, epochs=10, batch=20)
    net = training.learn(scores, wanted, Context(seed=1))
    with torch.no_grad():
        error = (net(scores) - wanted).square().mean()
    assert float(error) < 0.2 * float(wanted.var(0).mean())
    assert torch.equal(net(scores), net(scores))


def test_the_map_sees_only_the_largest_entries() -> None:
    net = embedding.MapTraining(hidden=8, truncation=2).untrained(4, 3, torch.Generator().manual_seed(0))
    p = torch.tensor([[0.6, 0.3, 0.07, 0.03], [0.6, 0.3, 0.03, 0.07], [0.6, 0.07, 0.3, 0.03]])
    with torch.no_grad():
        got = net(p)
    torch.testing.assert_close(got[0], got[1])
    assert not torch.allclose(got[0], got[2])


# both stages


def test_the_first_stage_comes_near_the_embedding_and_asks_no_victim(adapted: Prior) -> None:
    victim, ctx = victim_of(max_queries=0), Context(seed=5)
    gaps = []
    for steps in (0, 80):
        attack = attack_of(search={"steps": steps, "lr": 0.1, "keep": "last"}, starts=6)
        space = attack.prior.load(adapted, SHAPE, ctx)
        labels = torch.tensor([1, 3])
        options = {"fitness": evolution.own_score, "stop": math.inf}
        trial = evolution.Trial(victim, space, labels, ctx.noise(labels), ctx, **options)
        found = attack._descent(space, victim, adapted, ctx)(trial)
        assert found.shape == (2, 6, 5)
        net = attack.embedding.untrained(SHAPE, torch.Generator())
        guess = attack.mapping.untrained(5, 6, torch.Generator())
        c2fmi.unpack(adapted, embedding=net, map=guess)
        sure = torch.full((2, 5), 1e-18).scatter(1, labels[:, None], 1.0)
        with torch.no_grad():
            seen = net.eval()(space.decode(found.flatten(0, 1))).view(2, 6, -1)
            gaps.append((seen - guess(sure)[:, None]).square().mean((1, 2)))
    assert bool((gaps[1] < gaps[0]).all())


def test_the_filling_is_made_of_survivors_and_a_random_face(cube_prior: StylePrior) -> None:
    attack = dataclasses.replace(attack_of(starts=6, survivors=4, population=300), prior=cube_prior)
    space = cube_prior.load({}, (DIM, 1, 1), Context())
    trial = cube_trial(space, sphere, rows=2)
    latents = uniform(2, 6, DIM)
    people, fitness = attack._populated(space, trial, latents)
    assert trial.victim.queries.forward == 2 * (6 + 296)
    order = torch.stack([sphere(x).argsort(descending=True)[:4] for x in latents])
    survivors = torch.stack([x[rows] for x, rows in zip(latents, order)])
    torch.testing.assert_close(people[:, :4], survivors)
    torch.testing.assert_close(fitness, torch.stack([sphere(x) for x in people]))
    # latents of the cube are 3 times normal noise: 0.3 of the mean of three has deviation 0.9 / sqrt 3
    random = people[:, 4:] - 0.7 * survivors.mean(1, keepdim=True)
    assert float(random.std()) == pytest.approx(0.9 / math.sqrt(3), rel=0.1)
    torch.testing.assert_close(random.mean(1), torch.zeros(2, DIM), atol=0.12, rtol=0)


def test_queries_are_the_starts_the_filling_and_the_generations(adapted: Prior) -> None:
    victim = victim_of()
    got = run(adapted, [0, 3, 0], victim=victim)
    assert victim.queries.forward == 3 * (5 + 7 - 3 + 6 * 7)
    assert got.effort.queries.tolist()[0] == 9
    assert got.effort.queries.tolist()[-1] == 9 + 6 * 7
    assert torch.equal(got.effort.images[-1], quantize(got.images))
    assert bool((got.effort.loss.diff(dim=0) <= 0).all())
    assert bool((got.effort.loss[-1] < got.effort.loss[0]).any())
    seen = victim.scores(got.images)[range(3), got.targets]
    torch.testing.assert_close(got.confidence, seen, atol=1e-5, rtol=0)


@pytest.mark.parametrize("allowance", [9, 16, 29])
def test_generations_are_planned_with_the_allowance(adapted: Prior, allowance: int) -> None:
    victim = victim_of(allowance=allowance, max_queries=2 * allowance)
    run(adapted, [0, 1], victim=victim)
    assert victim.queries.forward == 2 * (9 + (allowance - 9) // 7 * 7)


def test_an_allowance_below_the_start_is_refused(adapted: Prior) -> None:
    with pytest.raises(QueryBudgetError, match="budget of 8 queries"):
        run(adapted, [0], victim=victim_of(allowance=8))


@pytest.mark.parametrize("coarse", ["embedding", "presamples"])
def test_rows_do_not_meet_and_chunks_change_nothing(adapted: Prior, coarse: str) -> None:
    prior = adapted
    if coarse == "presamples":
        attack = attack_of(coarse=coarse)
        public = uniform(16, *SHAPE)
        victim = victim_of()
        prior = attack.adapt_prior(
            attack.learn_prior(public, Context(seed=1)), victim, public, Context(seed=1)
        )
        assert victim.queries.forward == 12
        assert prior["starts"].shape == (5, 5, 5)
        assert not any(name.startswith(("embedding.", "map.")) for name in prior)
    together = run(prior, [1, 3, 1], coarse=coarse).images
    torch.testing.assert_close(run(prior, [3], coarse=coarse).images, together[1:2], atol=1e-5, rtol=0)
    chunked = run(prior, [1, 3, 1], Context(seed=5, max_batch=2), coarse=coarse).images
    torch.testing.assert_close(chunked, together, atol=1e-5, rtol=0)
    assert not torch.equal(together[0], together[2])
    assert not torch.equal(run(prior, [1, 3, 1], Context(seed=6), coarse=coarse).images, together)


def test_everybody_stays_in_the_box_where_that_is_asked_for(adapted: Prior) -> None:
    ctx = Context(seed=5)
    space: Any = attack_of().prior.load(adapted, SHAPE, ctx)
    edges = {}
    for is_bounded in (False, True):
        attack = attack_of(is_bounded=is_bounded, scale=0.5)
        seen: list[Tensor] = []
        decode = type(space).decode

        def watched(self: Any, w: Tensor, seen: list[Tensor] = seen, decode: Any = decode) -> Tensor:
            seen.append(w.detach().clone())
            images: Tensor = decode(self, w)
            return images

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(space), "decode", watched)
            attack.invert(victim_of(), adapted, torch.tensor([0, 1]), ctx)
        w = torch.cat(seen)
        edges[is_bounded] = float((w - space.project(w)).abs().max())
    assert edges[True] < 1e-6 < edges[False]


def test_labels_alone_are_not_enough(adapted: Prior) -> None:
    victim: Any = LabelVictim(lambda x: torch.ones(len(x), 5), shape=SHAPE, num_classes=5)
    with pytest.raises(AccessError, match="label-level victim has no 'scores'"):
        run(adapted, [0], victim=victim)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"survivors": 2}, "survivors 2"),
        ({"survivors": 6}, "survivors 6, starts 5"),
        ({"population": 2}, "population 2"),
        ({"generations": -1}, "generations must be >= 0, got -1"),
        ({"pairs": 0}, "pairs must be >= 1, got 0"),
        ({"top": -1}, "top must be >= 0, got -1"),
        ({"presamples": 4}, "presamples must be >= 5, got 4"),
        ({"crossover": 1.5}, "crossover must lie in .0, 1., got 1.5"),
        ({"embedding": {"net": "resnet"}}, "unknown net 'resnet'"),
        ({"embedding": {"dim": 1}}, "got 0, 1 and 0.5"),
        ({"mapping": {"hidden": 0}}, "hidden must be >= 1, got 0"),
        ({"mapping": {"lr": 0.0}}, "lr must be > 0, got 0.0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attack_of(**options)
