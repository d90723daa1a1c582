"""Known answers of MI-Face: stops, best visited image, PROCESS, gradients, independence of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mibench.attack import Reconstructions
from mibench.errors import QueryBudgetError
from mibench.nets.classifier import Classifier, NetSpec
from mibench.plugin import Context
from mibench.registry import get_attack
from mibench.victim import WhiteBoxVictim, fingerprint, freeze


def mi_face(**options: Any) -> Any:
    """The attack with these fields; Any, because its own methods are called."""
    return get_attack("mi_face").from_params(options)


class Flat(Classifier):
    """Logits of the flattened image by any function; the penultimate feature is the image itself."""

    def __init__(self, head: nn.Module, *, channels: int = 3, size: int = 1, classes: int = 2) -> None:
        super().__init__(NetSpec(name="flat", channels=channels, size=size, num_classes=classes))
        self.feature_dim = channels * size * size
        self.head = head
        self.anchor = nn.Parameter(torch.zeros(1))

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.flatten(1),)


class Head(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def victim_of(
    function: Callable[[Tensor], Tensor],
    *,
    channels: int = 3,
    size: int = 1,
    classes: int = 2,
    max_queries: int | None = None,
) -> WhiteBoxVictim:
    net = Flat(Head(function), channels=channels, size=size, classes=classes)
    freeze(net)
    return WhiteBoxVictim(lambda x: net(x).softmax(1), net, max_queries=max_queries)


def linear_victim(weights: Tensor) -> WhiteBoxVictim:
    return victim_of(lambda x: x @ weights.T, channels=weights.shape[1], classes=len(weights))


def smooth_victim(*, size: int = 4, classes: int = 3) -> WhiteBoxVictim:
    generator = torch.Generator().manual_seed(5)
    first = torch.randn(3 * size * size, 16, generator=generator) / size
    second = torch.randn(16, classes, generator=generator)
    return victim_of(lambda x: torch.tanh(x @ first) @ second, size=size, classes=classes)


def run(
    victim: WhiteBoxVictim, targets: Sequence[int], ctx: Context | None = None, **options: Any
) -> Reconstructions:
    ctx = Context(seed=11) if ctx is None else ctx
    attack = mi_face(**options)
    public = torch.linspace(0.2, 0.8, 5)[:, None, None, None].expand(5, *victim.shape)
    got: Reconstructions = attack.invert(victim, attack.learn_prior(public, ctx), torch.tensor(targets), ctx)
    return got


@pytest.mark.parametrize("loss", ["prob", "ce", "logit"])
def test_a_linear_victim_ends_in_the_corner_of_the_box_that_favors_the_label(loss: str) -> None:
    victim = linear_victim(torch.tensor([[1.0, -2.0, 3.0], [-1.0, 1.0, 2.0]]))
    got = run(victim, [0], loss=loss, max_iter=500, patience=500, conf_stop=1.0)
    # the logit loss knows w_0 alone, the others the difference; here the signs agree
    assert got.images.flatten().tolist() == [1.0, 0.0, 1.0]
    assert got.confidence.item() == pytest.approx(1 / (1 + math.exp(-3)), abs=1e-5)


def test_the_first_step_from_black_is_the_closed_form() -> None:
    weights = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    got = run(linear_victim(weights), [2], max_iter=1, step=0.1, process="none")
    expected = 0.1 / 4 * (weights[2] - weights.mean(0))
    torch.testing.assert_close(got.images.flatten(), expected.clamp(0, 1))


@pytest.mark.parametrize("patience", [1, 7])
def test_a_constant_victim_ends_when_the_window_is_full_and_gives_the_start_back(patience: int) -> None:
    victim = victim_of(lambda x: x[:, :2] * 0)
    got = run(victim, [1], patience=patience, init="grey")
    assert victim.queries.forward == patience + 1  # iterates 0 to patience
    assert got.images.flatten().tolist() == [0.5, 0.5, 0.5]


def brightness(x: Tensor) -> Tensor:
    """p_0 = sigmoid(20 (mean - 1/2))."""
    margin = 20 * (x.mean(1) - 0.5)
    return torch.stack([margin, torch.zeros_like(margin)], 1)


def test_a_row_stops_at_the_first_iterate_that_reaches_the_confidence() -> None:
    victim = victim_of(brightness)
    got = run(victim, [0], loss="ce", normalize_grad=True, step=0.05, conf_stop=0.9)
    # mean = 0.05 i and p >= 0.9 from mean >= 1/2 + ln(9)/20 = 0.6099 on, which is i = 13
    assert victim.queries.forward == 14
    torch.testing.assert_close(got.images.flatten(), torch.full((3,), 0.65))


def test_the_best_visited_image_is_kept_and_not_the_last() -> None:
    script = iter([0.0, 3.0, 1.0, -1.0, 2.0])

    def scripted(x: Tensor) -> Tensor:
        slope_one = (x - x.detach()).sum(1)
        return torch.stack([next(script) + slope_one, torch.zeros_like(slope_one)], 1)

    got = run(victim_of(scripted), [0], loss="logit", step=0.1, max_iter=4, conf_stop=1.0)
    assert got.images.flatten().tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert got.confidence.item() == pytest.approx(1 / (1 + math.exp(-3)))


def test_the_step_follows_the_finite_differences_of_the_released_confidence() -> None:
    victim = smooth_victim(size=2)
    options: dict[str, Any] = {"init": "grey", "step": 1e-2, "process": "none", "conf_stop": 1.0}
    moved = run(victim, [1], max_iter=1, **options).images
    assert (victim.queries.forward, victim.queries.gradient) == (2, 2)
    start = torch.full((1, 3, 2, 2), 0.5)
    shifts = 2e-3 * torch.eye(12).view(12, 3, 2, 2)
    up, down = victim.scores(start + shifts)[:, 1], victim.scores(start - shifts)[:, 1]
    torch.testing.assert_close((moved - start).flatten() / 1e-2, (up - down) / 4e-3, atol=1e-4, rtol=0)


def test_a_normalized_step_moves_each_image_by_the_step_whatever_the_gradient() -> None:
    weights = torch.tensor([[1e-4, -2e-4, 3e-4], [0.0, 0.0, 0.0]])
    victim = linear_victim(weights)
    got = run(
        victim, [0], init="grey", max_iter=1, step=0.02, normalize_grad=True, process="none", loss="logit"
    )
    assert (got.images - 0.5).square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-4)


def test_the_aux_terms_are_total_variation_and_distance_to_the_mean() -> None:
    attack = mi_face(tv_weight=0.5, mean_weight=2.0, loss="ce")
    x = torch.tensor([[[[0.0, 1.0], [0.0, 0.25]]]])
    mean = torch.full((1, 2, 2), 0.5)
    cost, p = attack.cost(torch.zeros(1, 4), x, torch.tensor([3]), mean)
    assert p.item() == pytest.approx(0.25)
    # neighbors differ by 1, 0.25 (rows), 0 and 0.75 (columns); squares 3 * 1/4 + 1/16
    assert cost.item() == pytest.approx(math.log(4) + 0.5 * 2.0 + 2.0 * 0.8125)


def test_the_distance_to_the_mean_pulls_an_indifferent_victim_to_the_mean_face() -> None:
    victim = victim_of(lambda x: x[:, :2] * 0)
    got = run(victim, [0], mean_weight=1.0, step=0.1, max_iter=100)
    torch.testing.assert_close(got.images.flatten(), torch.full((3,), 0.5), atol=1e-3, rtol=0)


def noisy_images() -> Tensor:
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_clipping_is_idempotent_and_none_is_the_identity() -> None:
    x = noisy_images() * 3 - 1
    clip = mi_face(process="clip")
    once = clip.processed(x, 1)
    assert torch.equal(once, x.clamp(0, 1))
    assert torch.equal(clip.processed(once, 1), once)
    assert mi_face(process="none").processed(x, 20) is x


@pytest.mark.parametrize("process", ["blur", "tv"])
def test_denoising_keeps_the_mean_and_takes_variation_away(process: str) -> None:
    x = noisy_images()
    got = mi_face(process=process, process_every=1).processed(x, 1)
    torch.testing.assert_close(got.mean((2, 3)), x.mean((2, 3)))
    assert (got.diff(dim=3).abs().sum((1, 2, 3)) < 0.95 * x.diff(dim=3).abs().sum((1, 2, 3))).all()


@pytest.mark.parametrize("process", ["blur", "tv", "unsharp"])
def test_denoising_leaves_a_plain_image_and_waits_for_its_turn(process: str) -> None:
    attack = mi_face(process=process, process_every=3)
    plain, x = torch.full((1, 3, 8, 8), 0.3), noisy_images()
    torch.testing.assert_close(attack.processed(plain, 3), plain)
    assert torch.equal(attack.processed(x, 2), x)
    assert not torch.equal(attack.processed(x, 3), x)


def test_an_unsharp_mask_of_amount_zero_adds_nothing_to_the_blur() -> None:
    x = noisy_images()
    blurred = mi_face(process="blur").processed(x, 20)
    assert torch.equal(mi_face(process="unsharp", sharpen=0.0).processed(x, 20), blurred)
    sharper = mi_face(process="unsharp", sharpen=1.0).processed(x, 20)
    assert sharper.std() > blurred.std()


NOISY: dict[str, Any] = {
    "init": "random",
    "loss": "ce",
    "normalize_grad": True,
    "step": 0.03,
    "max_iter": 60,
    "conf_stop": 0.9,
    "process": "blur",
    "process_every": 4,
}


def test_a_row_ends_the_same_alone_in_company_and_in_small_chunks() -> None:
    company = run(smooth_victim(), [0, 1, 2, 1], **NOISY)
    alone = [run(smooth_victim(), [label], **NOISY) for label in (0, 1, 2)]
    for row, single in enumerate(alone):
        torch.testing.assert_close(company.images[row], single.images[0], atol=1e-5, rtol=0)
    chunked = run(smooth_victim(), [0, 1, 2, 1], Context(seed=11, max_batch=3), **NOISY)
    torch.testing.assert_close(chunked.images, company.images, atol=1e-5, rtol=0)
    assert not torch.equal(company.images[1], company.images[3])


def test_rows_that_stopped_cost_no_further_query() -> None:
    together, apart = smooth_victim(), smooth_victim()
    run(together, [0, 1, 2], **NOISY)
    spent = []
    for label in range(3):
        before = apart.queries.forward
        run(apart, [label], **NOISY)
        spent.append(apart.queries.forward - before)
    assert len(set(spent)) > 1  # else the test says nothing
    assert together.queries.forward == sum(spent)


def test_equal_starts_are_searched_once_and_stand_in_the_order_of_the_targets() -> None:
    victim, single = smooth_victim(), smooth_victim()
    got = run(victim, [2, 0, 2, 2], loss="ce", max_iter=20)
    run(single, [2, 0], loss="ce", max_iter=20)
    assert victim.queries == single.queries
    assert got.targets.tolist() == [2, 0, 2, 2]
    assert torch.equal(got.images[0], got.images[2])
    assert torch.equal(got.images[0], got.images[3])
    assert got.confidence[1] > victim.scores(got.images)[[0, 2, 3], 0].max()


def test_of_several_restarts_the_cheapest_is_kept() -> None:
    options: dict[str, Any] = {**NOISY, "max_iter": 2, "conf_stop": 1.0, "process": "clip"}
    one = run(smooth_victim(), [0, 1, 2], **options)
    best = run(smooth_victim(), [0, 1, 2], restarts=5, **options)
    assert (best.confidence >= one.confidence).all()
    assert (best.confidence > one.confidence).any()


@pytest.mark.parametrize(("init", "value"), [("zeros", 0.0), ("grey", 0.5), ("mean", 0.5)])
def test_the_start_image_is_the_one_that_was_asked_for(init: str, value: float) -> None:
    victim = victim_of(lambda x: x[:, :2] * 0)
    got = run(victim, [0], init=init, patience=1)
    torch.testing.assert_close(got.images, torch.full((1, 3, 1, 1), value))
    noisy = run(victim, [0, 0], init=init, patience=1, init_noise=0.1)
    assert not torch.equal(noisy.images[0], noisy.images[1])


def test_the_prior_is_the_mean_public_face() -> None:
    public = torch.rand(7, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    prior = mi_face().learn_prior(public, Context())
    torch.testing.assert_close(prior["mean"], public.sum(0) / 7)


def test_progress_ends_at_its_total_and_the_victim_is_untouched() -> None:
    seen: list[tuple[int, int]] = []
    victim = smooth_victim()
    before = fingerprint(victim.net)
    ctx = Context(max_batch=2, on_progress=lambda done, total, _: seen.append((done, total)))
    run(victim, [0, 1, 2], ctx, loss="ce", max_iter=10)
    assert seen[-1] == (20, 20)
    assert fingerprint(victim.net) == before


def test_a_spent_budget_is_let_through() -> None:
    victim = victim_of(brightness, max_queries=5)
    with pytest.raises(QueryBudgetError, match="budget of 5 images"):
        run(victim, [0], loss="ce")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_iter", 0),
        ("patience", 0),
        ("process_every", 0),
        ("restarts", 0),
        ("step", 0.0),
        ("blur_sigma", 0.0),
        ("denoise", 0.0),
        ("init_noise", -0.1),
        ("sharpen", -1.0),
        ("tv_weight", -1.0),
        ("mean_weight", -1.0),
        ("conf_stop", 1.5),
    ],
)
def test_a_field_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"mi_face: {field} must .* got {value}"):
        mi_face(**{field: value})


def test_restarts_from_one_image_are_refused() -> None:
    with pytest.raises(ValueError, match="3 restarts from one image are equal"):
        mi_face(restarts=3)


def test_it_is_known_as_privacy_and_its_card_tells_the_citations_apart() -> None:
    attack = get_attack("privacy")
    assert attack is get_attack("mi_face")
    assert attack.card.year == 2015
    assert any("2014" in line for line in attack.card.deviations)


def test_the_length_of_the_image_is_an_aux_term() -> None:
    x = torch.tensor([[[[0.5, 1.0]]]])
    cost, _ = mi_face(l2_weight=2.0).cost(torch.zeros(1, 4), x, torch.tensor([3]), x[0])
    assert cost.item() == pytest.approx(0.75 + 2.0 * 1.25)
