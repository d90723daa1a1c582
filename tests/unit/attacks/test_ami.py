"""Known answers of AMI: predictions as the decoder sees them, the identity world, queries, candidates."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mibench.data.split import quantize
from mibench.errors import AccessError, PluginError, QueryBudgetError
from mibench.latent import checkpoints
from mibench.plugin import Context
from mibench.registry import get_attack
from mibench.victim import LabelVictim, ScoreVictim

SHAPE = (3, 8, 8)
TINY: dict[str, Any] = {"width": 4, "epochs": 2, "batch": 16, "lr": 1e-3}


def ami(**options: Any) -> Any:
    """The attack with these fields; Any, because its own methods are called."""
    return get_attack("ami").from_params(options)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def soft_scores(x: Tensor, classes: int = 5) -> Tensor:
    """A victim with an opinion about everything: a fixed random linear map, softmax."""
    weights = torch.randn(192, classes, generator=torch.Generator().manual_seed(7)) / 3
    return (x.flatten(1) @ weights).softmax(1)


def score_victim(max_queries: int | None = None) -> ScoreVictim:
    return ScoreVictim(soft_scores, shape=SHAPE, num_classes=5, max_queries=max_queries)


P = torch.tensor([[0.9, 0.05, 0.03, 0.015, 0.005]])
NEARLY = torch.tensor([[1 - 1e-6, 1e-6]])


@pytest.mark.parametrize(
    ("scores", "truncation", "expected"),
    [
        (P, 5, [49.89, 47.00, 46.49, 45.80, 44.70]),
        (P, 0, [49.89, 47.00, 46.49, 45.80, 44.70]),
        (P, 9, [49.89, 47.00, 46.49, 45.80, 44.70]),
        (P, 1, [49.89, 0, 0, 0, 0]),
        (torch.eye(3)[:1], 3, [1000, 0, 0]),
        (torch.eye(3)[:1], 1, [50, 0, 0]),
        (NEARLY, 2, [50, 36.18]),
        (torch.tensor([[1.0, 1e-20]]), 2, [50, 3.95]),
        (torch.tensor([[1.0, 1e-30]]), 2, [69.08, 0]),
    ],
)
def test_predictions_are_spread_as_in_the_authors_code(
    scores: Tensor, truncation: int, expected: list[float]
) -> None:
    got = ami(truncation=truncation).prepare(scores)
    torch.testing.assert_close(got, torch.tensor([expected]).float(), atol=0.01, rtol=0)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), truncation=st.integers(1, 6))
def test_the_largest_entries_are_kept_in_order_whatever_the_numbering(seed: int, truncation: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, 6, generator=generator).softmax(1)
    prepare = ami(truncation=truncation).prepare
    got = prepare(scores)
    assert ((got > 0).sum(1) == truncation).all()
    order = scores.argsort(1, descending=True)
    assert (got.gather(1, order).diff(dim=1) <= 0).all()
    shuffle = torch.randperm(6, generator=generator)
    assert torch.equal(prepare(scores[:, shuffle]), got[:, shuffle])


@pytest.mark.parametrize("target_vector", ["onehot", "estimated", "smoothed"])
def test_a_world_of_k_images_is_recovered(target_vector: str) -> None:
    faces = images(4)

    def which(x: Tensor) -> Tensor:
        return torch.eye(4)[torch.cdist(x.flatten(1), faces.flatten(1)).argmin(1)]

    victim = ScoreVictim(which, shape=SHAPE, num_classes=4)
    attack = ami(
        truncation=1, target_vector=target_vector, width=16, epochs=60, batch=8, lr=1e-2, holdout=0.0
    )
    ctx = Context(seed=1)
    prior = attack.adapt_prior({}, victim, faces.repeat(10, 1, 1, 1), ctx)
    got = attack.invert(victim, prior, torch.tensor([2, 0, 3, 1]), ctx)
    assert (got.images - faces[[2, 0, 3, 1]]).square().mean() < 1e-3


def test_each_public_image_costs_one_query_and_a_one_hot_costs_none() -> None:
    attack, victim, ctx = ami(**TINY), score_victim(), Context()
    prior = attack.adapt_prior({}, victim, images(30), ctx)
    assert victim.queries.forward == 30
    got = attack.invert(victim, prior, torch.tensor([1, 4]), ctx)
    assert victim.queries.forward == 30
    assert got.confidence.isnan().all()


def test_each_candidate_of_each_label_costs_one_query() -> None:
    attack = ami(target_vector="estimated", num_candidates=3, candidate_images=4, **TINY)
    victim, ctx = score_victim(), Context()
    prior = attack.adapt_prior({}, victim, images(30), ctx)
    attack.invert(victim, prior, torch.tensor([1, 4, 1, 1]), ctx)
    assert victim.queries.forward == 30 + 3 * 2
    assert victim.queries.gradient == 0


def test_top_m_scores_are_enough() -> None:
    def top_two(x: Tensor) -> Tensor:
        scores = soft_scores(x)
        best, index = scores.topk(2, dim=1)
        return torch.zeros_like(scores).scatter(1, index, best)

    attack, ctx = ami(truncation=2, **TINY), Context(seed=4)
    limited = ScoreVictim(top_two, shape=SHAPE, num_classes=5)
    full_prior = attack.adapt_prior({}, score_victim(), images(30), ctx)
    top_prior = attack.adapt_prior({}, limited, images(30), ctx)
    assert full_prior.keys() == top_prior.keys()
    assert all(torch.equal(full_prior[key], top_prior[key]) for key in full_prior)


def test_labels_alone_are_not_enough() -> None:
    victim = LabelVictim(soft_scores, shape=SHAPE, num_classes=5)
    with pytest.raises(AccessError, match="a label-level victim has no 'scores'"):
        ami(**TINY).adapt_prior({}, victim, images(10), Context())


def test_a_spent_budget_is_let_through() -> None:
    with pytest.raises(QueryBudgetError, match="budget of 9 images"):
        ami(**TINY).adapt_prior({}, score_victim(max_queries=9), images(10), Context())


def test_repeats_of_an_estimated_label_are_ranked_by_the_victim_and_begin_again() -> None:
    attack = ami(target_vector="estimated", truncation=0, num_candidates=3, candidate_images=3, **TINY)
    victim, ctx = score_victim(), Context(seed=2)
    prior = attack.adapt_prior({}, victim, images(40), ctx)
    targets = torch.tensor([1, 3, 1, 1, 1])
    got = attack.invert(victim, prior, targets, ctx)
    assert got.confidence[0] > got.confidence[2] > got.confidence[3]
    assert torch.equal(got.images[4], got.images[0])
    torch.testing.assert_close(got.confidence, soft_scores(got.images)[range(5), targets])
    alone = attack.invert(victim, prior, torch.tensor([3]), ctx)
    torch.testing.assert_close(alone.images[0], got.images[1], atol=1e-6, rtol=0)


def test_the_first_estimated_vector_is_the_mean_of_the_best_predictions() -> None:
    attack = ami(target_vector="estimated", num_candidates=2, candidate_images=3, **TINY)
    public = images(40)
    prior = attack.adapt_prior({}, score_victim(), public, Context())
    scores = soft_scores(public)
    for label in range(5):
        best = scores[scores[:, label].topk(3).indices].mean(0)
        torch.testing.assert_close(prior["vectors"][0, label], best)
    assert prior["vectors"].shape == (2, 5, 5)
    torch.testing.assert_close(prior["vectors"].sum(2), torch.ones(2, 5))


def test_the_smoothed_vector_leaves_the_median_mass_of_public_images_to_the_others() -> None:
    public, ctx = images(41), Context()
    rest = (1 - soft_scores(public).amax(1)).median()
    (got,) = ami(target_vector="smoothed", **TINY).adapt_prior({}, score_victim(), public, ctx)["vectors"]
    torch.testing.assert_close(got.diagonal(), (1 - rest).expand(5))
    torch.testing.assert_close(got[0, 1:], (rest / 4).expand(4))
    given = ami(target_vector="smoothed", smoothing=0.04, **TINY)
    (got,) = given.adapt_prior({}, score_victim(), public, ctx)["vectors"]
    torch.testing.assert_close(got, torch.eye(5) * 0.95 + 0.01)


def test_an_estimated_vector_is_raised_to_the_confidence_and_keeps_its_proportions() -> None:
    options = {"target_vector": "estimated", "num_candidates": 2, "candidate_images": 3, **TINY}
    plain, raised = (
        ami(**options, confidence=p).adapt_prior({}, score_victim(), images(40), Context())["vectors"]
        for p in (0.0, 0.9)
    )
    low = plain.diagonal(dim1=1, dim2=2) < 0.9
    assert low.any()
    own = raised.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(own[low], torch.full((int(low.sum()),), 0.9))
    assert torch.equal(raised[~low], plain[~low])
    torch.testing.assert_close(raised.sum(2), torch.ones(2, 5))
    torch.testing.assert_close(raised[0, 0, 1] / raised[0, 0, 2], plain[0, 0, 1] / plain[0, 0, 2])


def test_the_chosen_vectors_are_all_kinds() -> None:
    options = {"num_candidates": 3, "candidate_images": 3, **TINY}
    kinds = {
        kind: ami(target_vector=kind, **options).adapt_prior({}, score_victim(), images(40), Context())
        for kind in ("onehot", "smoothed", "estimated", "chosen")
    }
    assert torch.equal(kinds["onehot"]["vectors"], torch.eye(5)[None])
    parts = [kinds[kind]["vectors"] for kind in ("onehot", "smoothed", "estimated")]
    assert torch.equal(kinds["chosen"]["vectors"], torch.cat(parts))


def test_public_images_whose_score_is_not_released_say_nothing_about_a_label() -> None:
    """Only the largest score is released; the mean of label 0 is over its own images, and 2 is nobody's."""
    answers = torch.tensor([[0.9, 0.0, 0.0], [0.7, 0.0, 0.0], [0.0, 0.8, 0.0]])
    public = torch.arange(3.0).div(4)[:, None, None, None].expand(-1, *SHAPE).contiguous()

    def top_one(x: Tensor) -> Tensor:
        return answers[(x[:, 0, 0, 0] * 4).round().long().clamp(0, 2)]

    attack = ami(target_vector="estimated", num_candidates=1, candidate_images=3, holdout=0.0, **TINY)
    victim = ScoreVictim(top_one, shape=SHAPE, num_classes=3)
    (got,) = attack.adapt_prior({}, victim, public, Context())["vectors"]
    torch.testing.assert_close(got, torch.tensor([[0.8, 0, 0], [0, 0.8, 0], [0, 0, 1.0]]))


def test_asking_again_in_each_epoch_costs_queries_and_changes_nothing() -> None:
    victims = score_victim(), score_victim()
    once, again = (
        ami(requery=again, **TINY).adapt_prior({}, victim, images(30), Context())
        for victim, again in zip(victims, (False, True))
    )
    assert [victim.queries.forward for victim in victims] == [30, 30 * TINY["epochs"]]
    assert all(torch.equal(once[key], again[key]) for key in once)


@pytest.mark.parametrize("options", [{"amsgrad": False}, {"betas": [0.9, 0.9]}])
def test_the_optimizers_options_reach_it(options: dict[str, Any]) -> None:
    longer = {**TINY, "epochs": 8}
    plain = ami(**longer).adapt_prior({}, score_victim(), images(30), Context())
    other = ami(**longer, **options).adapt_prior({}, score_victim(), images(30), Context())
    assert not torch.equal(plain["decoder.layers.0.weight"], other["decoder.layers.0.weight"])


def test_a_world_of_k_images_is_recovered_from_eavesdropped_predictions() -> None:
    faces = images(4)

    def blend(x: Tensor) -> Tensor:
        return (-4 * torch.cdist(x.flatten(1), faces.flatten(1))).softmax(1)

    victim = ScoreVictim(blend, shape=SHAPE, num_classes=4)
    attack = ami(goal="instance", width=16, epochs=60, batch=8, lr=1e-2, holdout=0.0)
    ctx = Context(seed=1)
    prior = attack.adapt_prior({}, victim, faces.repeat(10, 1, 1, 1), ctx)
    asked = victim.queries.forward
    order = [2, 0, 3, 1]
    got = attack.reconstruct(victim, prior, blend(faces[order]), torch.tensor([9, 9, 7, 7]), ctx)
    assert (got.images - faces[order]).square().mean() < 1e-3
    assert got.targets.tolist() == [9, 9, 7, 7]
    assert victim.queries.forward == asked
    assert "vectors" not in prior


def test_instances_show_all_entries_to_the_decoder_and_classes_one() -> None:
    assert (ami(goal="instance").prepare(P) > 0).sum() == 5
    assert (ami().prepare(P) > 0).sum() == 1
    assert (ami(goal="instance", truncation=2).prepare(P) > 0).sum() == 2


def test_an_attack_on_classes_alone_says_so() -> None:
    attack = get_attack("nearest_public")()
    assert attack.goal == "class"
    with pytest.raises(PluginError, match="attack 'nearest_public': it reconstructs classes alone"):
        attack.reconstruct(score_victim(), {}, torch.eye(5), torch.arange(5), Context())


@pytest.mark.parametrize(("allowance", "asked"), [(0, 0), (1, 0), (2, 2), (9, 3)])
def test_as_many_candidates_are_asked_about_as_the_allowance_pays_for(allowance: int, asked: int) -> None:
    attack = ami(target_vector="estimated", truncation=0, num_candidates=3, candidate_images=3, **TINY)
    prior = attack.adapt_prior({}, score_victim(), images(40), Context())
    victim = ScoreVictim(soft_scores, shape=SHAPE, num_classes=5, allowance=allowance)
    got = attack.invert(victim, prior, torch.tensor([1, 4]), Context())
    assert victim.queries.forward == 2 * asked
    assert got.images.isfinite().all()
    if asked == 0:
        first = attack.invert(
            score_victim(), prior | {"vectors": prior["vectors"][:1]}, got.targets, Context()
        )
        assert torch.equal(first.images, got.images)


def test_the_effort_curve_shows_the_best_candidates_so_far() -> None:
    options = {"target_vector": "estimated", "truncation": 0, "num_candidates": 6, "candidate_images": 3}
    attack = ami(**options, **TINY)
    prior = attack.adapt_prior({}, score_victim(), images(40), Context())
    targets = torch.tensor([1, 1, 3])
    got = attack.invert(score_victim(), prior, targets, Context())
    assert got.effort is not None
    tried = [evaluation + 1 for evaluation in checkpoints(5)]
    # three reconstructions share the candidates of two labels
    assert got.effort.queries.tolist() == [-(-2 * count // 3) for count in tried]
    for count, pixels, loss in zip(tried, got.effort.images, got.effort.loss):
        fewer = ScoreVictim(soft_scores, shape=SHAPE, num_classes=5, allowance=count)
        then = attack.invert(fewer, prior, targets, Context())
        assert torch.equal(pixels, quantize(then.images))
        if count > 1:
            torch.testing.assert_close(loss, -then.confidence.log())
    assert (got.effort.loss[:, 0].diff() <= 0).all()
    assert got.effort.single is not None
    assert torch.equal(got.effort.single, got.effort.images[0])


def test_the_seed_decides_and_nothing_else() -> None:
    attack, before = ami(**TINY), torch.get_rng_state()
    one, two = (attack.adapt_prior({}, score_victim(), images(30), Context(seed=3)) for _ in range(2))
    other = attack.adapt_prior({}, score_victim(), images(30), Context(seed=4))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["decoder.layers.0.weight"], other["decoder.layers.0.weight"])
    assert torch.equal(before, torch.get_rng_state())


def test_the_decoder_treats_each_row_by_itself_in_any_chunk() -> None:
    attack, victim = ami(**TINY), score_victim()
    prior = attack.adapt_prior({}, victim, images(30), Context())
    whole = attack.invert(victim, prior, torch.arange(5), Context(max_batch=256)).images
    parts = attack.invert(victim, prior, torch.arange(5), Context(max_batch=2)).images
    torch.testing.assert_close(whole, parts, atol=1e-6, rtol=0)


def test_the_epoch_with_the_least_held_out_error_is_kept() -> None:
    # random images cannot be learned, so a decoder that learns the training ones by heart gets worse
    errors: list[float] = []

    def watch(_done: int, _total: int, values: dict[str, float]) -> None:
        errors.extend([values["held_out"]] if "held_out" in values else [])

    ctx = Context(on_progress=watch)
    public, options = images(40), {"width": 8, "epochs": 8, "batch": 9, "lr": 0.02, "truncation": 0}
    attack = ami(**options)
    prior = attack.adapt_prior({}, score_victim(), public, ctx)
    assert len(errors) == 8
    assert errors[-1] > min(errors)
    epochs = errors.index(min(errors)) + 1
    shorter = ami(**options | {"epochs": epochs})
    expected = shorter.adapt_prior({}, score_victim(), public, Context())
    assert all(torch.equal(prior[key], expected[key]) for key in prior)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("truncation", -1),
        ("num_candidates", 0),
        ("candidate_images", 0),
        ("width", 0),
        ("epochs", 0),
        ("batch", 0),
        ("lr", 0.0),
        ("holdout", 1.0),
        ("smoothing", 1.0),
        ("confidence", -0.1),
        ("betas", [0.5, 1.0]),
    ],
)
def test_a_field_out_of_range_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"ami: {field} must .* got {re.escape(str(value))}"):
        ami(**{field: value})


def test_it_is_known_as_alignment() -> None:
    assert get_attack("alignment") is get_attack("ami")
