"""Known answers of LOMMA: its logit loss, the ensemble, the penalty, the students, and its base attacks."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.attack import Reconstructions
from mibench.distil import load_students
from mibench.errors import AccessError, QueryBudgetError
from mibench.gan import WganPrior
from mibench.latent import Search, identity_loss
from mibench.nets import NetSpec, build
from mibench.nets.classifier import Classifier
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.training import Recipe
from mibench.victim import ScoreVictim, WhiteBoxVictim, fingerprint, freeze

lomma: Any = importlib.import_module(get_attack("lomma").__module__)

SHAPE, CLASSES = (3, 8, 8), 5
GMI: dict[str, Any] = {
    "prior": {"latent_dim": 6, "width": 4, "critic_width": 4, "steps": 0},
    "search": {"steps": 8, "lr": 0.05},
    "restarts": 2,
}
STUDENTS = [
    {"net": "mlp", "width": 4, "recipe": {"epochs": 2, "batch": 8}},
    {"net": "softmax_regression", "recipe": {"epochs": 2, "batch": 8}},
]
ALONE: dict[str, Any] = {"students": [], "feature_weight": 0}


def attack_of(**options: Any) -> Any:
    """The attack with these fields; Any, because its own fields are read."""
    return get_attack("lomma").from_params({"gmi": GMI, "students": STUDENTS, **options})


def net_of(seed: int = 0, *, name: str = "mlp", width: int = 8) -> Classifier:
    spec = NetSpec(name=name, width=width, size=8, num_classes=CLASSES)
    net = build(spec, torch.Generator().manual_seed(seed))
    freeze(net)
    return net


def victim_of(net: Classifier | None = None, **options: Any) -> WhiteBoxVictim:
    held = net or net_of()
    return WhiteBoxVictim(lambda x: held(x).softmax(1), held, **options)


def public(count: int = 24, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def adapted(attack: Any, victim: WhiteBoxVictim | None = None, ctx: Context | None = None) -> Prior:
    ctx = ctx or Context(seed=1)
    prior: Prior = attack.adapt_prior(attack.learn_prior(public(), ctx), victim or victim_of(), public(), ctx)
    return prior


def run(
    targets: Sequence[int], victim: Any = None, *, ctx: Context | None = None, **options: Any
) -> Reconstructions:
    attack = attack_of(**options)
    got: Reconstructions = attack.invert(
        victim or victim_of(), adapted(attack), torch.tensor(targets), ctx or Context(seed=5)
    )
    return got


def seen(net: Classifier, students: Sequence[Classifier], *, weight: float, mean: float = 0.25) -> Any:
    """The logits that the search looks at, with mean features that are all the same."""
    return lomma.augmented(net, net, list(students), torch.full((net.feature_dim,), mean), weight)


# the identity loss


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), labels=st.lists(st.integers(0, CLASSES - 1), min_size=4, max_size=4))
def test_without_the_penalty_it_is_minus_the_target_logit(seed: int, labels: list[int]) -> None:
    net, x, wanted = net_of(seed), public(4, seed), torch.tensor(labels)
    loss = identity_loss(seen(net, [], weight=0)(x), wanted, "logit")
    assert torch.equal(loss, -net(x)[range(4), labels])


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_penalty_is_the_mean_squared_distance_to_the_mean_features(weight: float) -> None:
    net, x, labels = net_of(), public(3), torch.tensor([4, 0, 2])
    loss = identity_loss(seen(net, [], weight=weight)(x), labels, "logit")
    features = net.features(x)
    for row, label in enumerate(labels.tolist()):
        apart = sum((float(value) - 0.25) ** 2 for value in features[row]) / len(features[row])
        assert float(loss[row]) == pytest.approx(-float(net(x)[row, label]) + weight * apart, abs=1e-5)


class Bright(Classifier):
    """Features are the first two pixels; logits are their multiples 1, 2, 3, 4 and 5 summed."""

    def __init__(self) -> None:
        super().__init__(NetSpec(name="bright", size=8, num_classes=CLASSES))
        self.feature_dim, self.head = 2, nn.Linear(2, CLASSES, bias=False)
        self.head.weight = nn.Parameter(torch.arange(1.0, CLASSES + 1)[:, None].expand(-1, 2).clone())

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.flatten(1)[:, :2],)


def test_the_value_of_the_penalty_by_hand() -> None:
    x = torch.zeros(1, *SHAPE)
    x[0, 0, 0, :2] = torch.tensor([0.5, 1.0])
    # ((0.5 - 0.25)^2 + (1 - 0.25)^2) / 2 = 0.3125, and the logit of label 2 is 3 * (0.5 + 1)
    got = seen(Bright(), [], weight=4)(x)
    assert float(identity_loss(got, torch.tensor([2]), "logit").detach()) == pytest.approx(-4.5 + 4 * 0.3125)
    with_student = seen(Bright(), [Bright()], weight=4)(x)
    assert torch.equal(with_student, got)  # the penalty is the victim's alone, whatever the number of nets


def test_the_penalty_moves_all_logits_alike() -> None:
    net, x = net_of(), public(6)
    plain, pulled = seen(net, [], weight=0)(x), seen(net, [], weight=3)(x)
    torch.testing.assert_close(plain.softmax(1), pulled.softmax(1))
    assert bool((pulled < plain).all())


def test_the_slope_is_the_same_however_large_the_logit_is() -> None:
    net, label = Bright(), torch.tensor([3])
    slopes = {}
    for kind in ("logit", "ce"):
        for size in (1e-3, 1.0, 1e3):
            x = torch.full((1, *SHAPE), size, requires_grad=True)
            (slope,) = torch.autograd.grad(
                identity_loss(seen(net, [], weight=0)(x), label + 1, kind).sum(), x
            )
            slopes[kind, size] = slope.flatten()[:2].tolist()
    assert slopes["logit", 1e-3] == slopes["logit", 1.0] == slopes["logit", 1e3] == [-5, -5]
    assert slopes["ce", 1e3] == [0, 0]  # where the softmax is saturated, cross-entropy has none left
    assert slopes["ce", 1e-3] != [0, 0]


# several nets


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_several_identical_nets_are_one(copies: int, weight: float) -> None:
    net, x = net_of(), public(4)
    together = seen(net, [net] * copies, weight=weight)(x)
    torch.testing.assert_close(together, seen(net, [], weight=weight)(x), atol=1e-6, rtol=0)


def test_the_loss_of_several_nets_is_the_mean_of_their_losses() -> None:
    nets, x, labels = [net_of(seed) for seed in range(4)], public(4), torch.tensor([1, 0, 4, 4])
    loss = identity_loss(seen(nets[0], nets[1:], weight=0)(x), labels, "logit")
    each = torch.stack([identity_loss(net(x), labels, "logit") for net in nets])
    torch.testing.assert_close(loss, each.mean(0), atol=1e-6, rtol=0)


def test_a_view_that_is_not_the_net_gives_the_logits_and_the_net_its_features() -> None:
    net, x = net_of(), public(4)

    def released(images: Tensor) -> Tensor:
        logits: Tensor = net(images)
        return (2 * logits).log_softmax(1)

    mean = torch.full((net.feature_dim,), 0.25)
    got = lomma.augmented(released, net, [], mean, 2.0)(x)
    apart = (net.features(x) - 0.25).square().mean(1, keepdim=True)
    torch.testing.assert_close(got, released(x) - 2 * apart)


# students


def test_a_student_of_a_linear_victim_reaches_it() -> None:
    net = net_of(name="softmax_regression", width=0)
    recipe = {"epochs": 80, "batch": 32, "lr": 0.5, "weight_decay": 0, "flip": False, "shift": 0}
    attack = attack_of(students=[{"net": "softmax_regression", "recipe": recipe}])
    ctx, images = Context(seed=1), public(256)
    prior = attack.adapt_prior(attack.learn_prior(images, ctx), victim_of(net), images, ctx)
    (student,) = load_students(attack.students, victim_of(net), prior, ctx)
    held_out = public(64, seed=7)
    gap = F.kl_div(student(held_out).log_softmax(1), net(held_out).softmax(1), reduction="batchmean")
    untrained = attack.students[0].untrained(victim_of(net), Context(seed=3))
    before = F.kl_div(untrained(held_out).log_softmax(1), net(held_out).softmax(1), reduction="batchmean")
    assert float(gap) < 1e-3
    assert float(before.detach()) > 1e-2
    assert ctx.notes["student0_agreement"] > 0.9


@pytest.mark.parametrize("max_batch", [5, 256])
def test_adapting_asks_about_each_public_image_once_and_keeps_the_mean_features(max_batch: int) -> None:
    victim = victim_of()
    prior = adapted(attack_of(feature_images=10), victim, Context(seed=1, max_batch=max_batch))
    assert (victim.queries.forward, victim.queries.gradient) == (24, 0)
    torch.testing.assert_close(prior["feature_mean"], victim.net.features(public()[:10]).mean(0))
    assert {name.split(".")[0] for name in prior} == {"g", "d", "student0", "student1", "feature_mean"}


def test_adapting_notes_how_far_each_student_agrees() -> None:
    ctx = Context(seed=1)
    prior = adapted(attack_of(), ctx=ctx)
    nets = load_students(attack_of().students, victim_of(), prior, ctx)
    for i, net in enumerate(nets):
        share = (net(public()).argmax(1) == victim_of().labels(public())).float().mean()
        assert ctx.notes[f"student{i}_agreement"] == pytest.approx(float(share))


# the base attacks


def test_without_students_and_penalty_it_is_gmi_with_the_logit_loss() -> None:
    gmi = get_attack("gmi").from_params({**GMI, "loss": "logit"})
    prior = gmi.learn_prior(public(), Context(seed=1))
    plain = gmi.invert(victim_of(), prior, torch.tensor([1, 4, 1]), Context(seed=5))
    got = run([1, 4, 1], **ALONE)
    torch.testing.assert_close(got.images, plain.images, atol=1e-5, rtol=0)
    torch.testing.assert_close(got.confidence, plain.confidence, atol=1e-5, rtol=0)


def test_students_and_penalty_each_change_what_is_found() -> None:
    plain = run([1, 4], **ALONE).images
    changes: list[dict[str, Any]] = [{"students": []}, {"feature_weight": 0}]
    for options in changes:
        assert (run([1, 4], **options).images - plain).abs().max() > 1e-3


def test_the_victim_is_asked_as_often_as_by_its_base_whatever_the_students() -> None:
    victim = victim_of()
    run([1, 3, 1], victim)
    assert victim.queries.gradient == 3 * 2 * (8 + 1)
    assert victim.queries.forward == 3 * 2 * (8 + 2)


@pytest.mark.parametrize("allowance", [4, 9, 13, 300])
def test_an_allowance_shortens_the_search_of_its_base(allowance: int) -> None:
    victim = victim_of(allowance=allowance)
    run([2, 0], victim)
    assert victim.queries.forward == 2 * 2 * (min(8, (allowance - 4) // 2) + 2) <= 2 * allowance
    with pytest.raises(QueryBudgetError, match="a budget of 3 queries for each reconstruction is too small"):
        run([2, 0], victim_of(allowance=3))


def test_the_restart_is_chosen_by_all_nets_together() -> None:
    attack = attack_of(gmi={**GMI, "search": {"steps": 0}, "restarts": 6})
    prior, targets = adapted(attack), torch.arange(CLASSES)
    got = attack.invert(victim_of(), prior, targets, Context(seed=5))
    students = load_students(attack.students, victim_of(), prior, Context())
    together = lomma.augmented(victim_of().net, victim_of().net, students, prior["feature_mean"], 1.0)
    space = WganPrior(**GMI["prior"]).load(prior, SHAPE, Context())
    starts = space.project(space.start(Context(seed=5).noise(targets).repeat(6)))
    with torch.no_grad():
        images = space.decode(starts)
        best = together(images).view(CLASSES, 6, CLASSES)[range(CLASSES), :, range(CLASSES)].argmax(1)
        alone = victim_of().net(images).view(CLASSES, 6, CLASSES)[range(CLASSES), :, range(CLASSES)].argmax(1)
    torch.testing.assert_close(got.images, images[best + 6 * targets], atol=1e-5, rtol=0)
    assert not torch.equal(best, alone)


def test_its_base_is_gmi_for_2400_steps_or_what_is_given() -> None:
    plain: Any = get_attack("lomma")()
    assert plain.base.name == "gmi"
    assert plain.base.search == Search(steps=2400, lr=2e-4, optimizer="nesterov")
    assert (plain.base.identity_weight, plain.base.restarts) == (100, 5)
    published = Recipe(epochs=20, lr=0.01, weight_decay=1e-4)
    assert [one.recipe == published for one in plain.students] == [False, True, True]
    assert (plain.feature_weight, plain.feature_images) == (1, 5000)
    assert attack_of().base.search.steps == 8
    on_dmi: Any = get_attack("lomma").from_params({"dmi": {"prior": GMI["prior"]}})
    assert on_dmi.base.name == "dmi"
    assert on_dmi.prior_spec() == on_dmi.base.prior == WganPrior(**GMI["prior"])


def test_it_runs_on_dmi_and_adapts_its_generator_too() -> None:
    dmi = {
        "prior": {"latent_dim": 6, "width": 4, "critic_width": 4, "steps": 0},
        "adapt_steps": 2,
        "n_critic": 1,
        "batch": 4,
        "critic_width": 4,
        "search": {"steps": 4, "lr": 0.05},
    }
    attack: Any = get_attack("lomma").from_params({"dmi": dmi, "students": STUDENTS})
    learned = attack.learn_prior(public(), Context(seed=1))
    prior = adapted(attack)
    assert any(not torch.equal(learned[name], prior[name]) for name in learned if name.startswith("g."))
    assert "student1.head.weight" in prior
    got = attack.invert(victim_of(), prior, torch.tensor([1, 0, 1]), Context(seed=5))
    assert got.images.shape == (3, *SHAPE)
    assert bool(got.images.isfinite().all())


# what every attack keeps to


def test_labels_do_not_meet_and_chunks_change_nothing() -> None:
    together = run([1, 3, 1]).images
    for rows, targets in (([1], [3]), ([0, 2], [1, 1])):
        torch.testing.assert_close(run(targets).images, together[rows], atol=1e-5, rtol=0)
    parts = run([1, 3, 1], ctx=Context(seed=5, max_batch=2)).images
    torch.testing.assert_close(parts, together, atol=1e-5, rtol=0)


def test_the_seed_decides_and_the_victim_is_left_alone() -> None:
    victim, state = victim_of(), torch.get_rng_state()
    mark = fingerprint(victim.net)
    one, two = run([2, 0, 2], victim), run([2, 0, 2], victim)
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.images, run([2, 0, 2], victim, ctx=Context(seed=6)).images)
    assert not torch.equal(one.images[0], one.images[2])
    assert fingerprint(victim.net) == mark
    assert torch.equal(torch.get_rng_state(), state)


def test_scores_are_not_enough() -> None:
    victim = ScoreVictim(lambda x: torch.ones(len(x), CLASSES) / CLASSES, shape=SHAPE, num_classes=CLASSES)
    with pytest.raises(AccessError, match="a score-level victim has no"):
        run([0], victim)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dmi": {}}, "lomma: 2 base attacks are given: gmi, dmi. Keep one."),
        ({"feature_weight": -1}, "lomma: feature_weight must be >= 0, got -1"),
        ({"feature_images": 0}, "lomma: feature_images must be >= 1, got 0"),
        ({"students": [{"net": "vgg"}]}, "student: unknown net 'vgg'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attack_of(**options)


def test_it_knows_the_versions_of_its_bases() -> None:
    built_on: dict[str, int] = get_attack("lomma").built_on  # type: ignore[attr-defined]
    assert built_on == {name: get_attack(name).version for name in built_on}


def test_dmi_is_clamped_in_the_forward_pass() -> None:
    attack: Any = get_attack("lomma").from_params({"dmi": {}})
    assert attack.base.clamp is True


def test_adaptive_options_of_the_base_are_refused() -> None:
    with pytest.raises(ValueError, match="adaptive options of the base attack are not read"):
        get_attack("lomma").from_params({"gmi": {"adaptive": {"views": 2}}})
