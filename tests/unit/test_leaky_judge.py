"""A judge that was deliberately broken is caught: its successes are flagged, an honest judge's are not.

The same ten people, attacker's and defender's images throughout. The weak attack adds a pattern of a tenth of
the gray range to noise, which the victim takes for the target and nobody else should; the strong one searches
among faces, in the principal components of public images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.attack import Reconstructions
from mibench.audit import CONTROL_ABOVE_CHANCE, JUDGES_DISAGREE
from mibench.contract.toy import context, copy_of, untrained
from mibench.data.split import Labeled
from mibench.data.synthetic import SynthFacesData
from mibench.defense import Released
from mibench.embedder import of_classifier
from mibench.metric import Case, Estimate, ProtectedVictim
from mibench.nets.classifier import Classifier
from mibench.plan import build_plan
from mibench.rates import in_top
from mibench.record import Record
from mibench.recording import measured_record
from mibench.registry import get_attack, get_metric
from mibench.stages.scrutiny import Attacked, scrutiny
from mibench.store import Artifact
from mibench.suite import Suite
from mibench.training import Recipe, accuracy, fit
from mibench.victim import ScoreVictim, WhiteBoxVictim

PEOPLE, IMAGES = 10, 4
DATA = SynthFacesData(
    size=16,
    private=PEOPLE,
    private_images=24,
    test_images=8,
    public=40,
    public_images=8,
    defender=24,
    defender_images=10,
)
TARGETS = torch.arange(PEOPLE).repeat_interleave(IMAGES)
MakeSuite = Callable[..., Suite]


def trained(name: str, data: Labeled, purpose: str, **options: Any) -> Classifier:
    recipe = Recipe(**{"epochs": 10, "batch": 16, "shift": 1, **options})
    return fit(untrained(data, purpose, name), data, context(purpose), recipe=recipe)


@dataclass(frozen=True)
class Ground:
    """What the attacks and the judges share."""

    private: Labeled
    test: Labeled
    public: Labeled
    victim: Classifier
    case: Case

    def judged_by(self, judge: Classifier, images: Tensor) -> Case:
        return replace(self.case, judge=judge, got=Reconstructions.collect(images, TARGETS))


@pytest.fixture(scope="module")
def ground() -> Ground:
    private, test = DATA.load("private")
    assert test is not None
    public, defender = DATA.load("public")[0], DATA.load("defender")[0]
    victim = trained("small_vgg", private, "victim")
    audit = trained("small_convnext", private, "audit", epochs=12, optimizer="adamw", lr=0.005)
    case = Case(
        got=Reconstructions.collect(torch.zeros(len(TARGETS), 3, 16, 16), TARGETS),
        protected=torch.ones(len(TARGETS), dtype=torch.bool),
        victims=(
            ProtectedVictim(
                ScoreVictim(Released(victim), shape=(3, 16, 16), num_classes=PEOPLE), tuple(range(PEOPLE))
            ),
        ),
        private_train=private,
        private_test=test,
        defender_public=defender,
        judge=audit,
        audit=audit,
        embedder=of_classifier(trained("small_resnet14", defender, "embedder")),
        public=public,
    )
    return Ground(private, test, public, victim, case)


@pytest.fixture(scope="module")
def honest(ground: Ground) -> Classifier:
    return trained("small_resnet", ground.private, "judge")


@pytest.fixture(scope="module")
def patterns(ground: Ground) -> Tensor:
    """Noise with a pattern of at most a tenth of the gray range, which the victim takes for the target."""
    noise = torch.rand(len(TARGETS), 3, 16, 16, generator=context("noise").generator("start"))
    x = noise.clone()
    for _ in range(20):
        x.requires_grad_(True)
        (slope,) = torch.autograd.grad(F.cross_entropy(ground.victim(x), TARGETS), x)
        x = (x.detach() - 0.02 * slope.sign()).clamp(noise - 0.1, noise + 0.1).clamp(0, 1)
    assert float(in_top(ground.victim(x), TARGETS, places=1).float().mean()) > 0.9
    return x


@pytest.fixture(scope="module")
def faces(ground: Ground) -> Tensor:
    """What the victim likes best among the faces that public images span."""
    flat = ground.public.images.flatten(1)
    mean = flat.mean(0)
    _, sizes, axes = torch.linalg.svd(flat - mean, full_matrices=False)
    axes = axes[:40] * sizes[:40, None] / len(flat) ** 0.5
    z = 0.5 * torch.randn(len(TARGETS), 40, generator=context("faces").generator("start"))
    z.requires_grad_(True)
    optimizer = torch.optim.Adam([z], lr=0.1)

    def drawn() -> Tensor:
        pixels: Tensor = z.clamp(-2, 2) @ axes + mean
        return pixels.clamp(0, 1).view(-1, 3, 16, 16)

    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(ground.victim(drawn()), TARGETS).backward()
        optimizer.step()
    return drawn().detach()


@pytest.fixture
def record_of(ground: Ground, make_suite: MakeSuite) -> Callable[..., Record]:
    def make(judge: Classifier, images: Tensor, attack: str = "toy_scores") -> Record:
        """The record of a cell whose reconstructions are `images` and whose judge is `judge`."""
        nets = {"net": "softmax_regression"}
        plan = build_plan(make_suite(audit=nets, embedder={"net": "mlp", "width": 8}, attacks={attack: {}}))
        case = ground.judged_by(judge, images)
        space = float(in_top(_likeness(ground), ground.test.labels, places=1).float().mean())
        value = {
            "judge_accuracy": accuracy(judge, ground.test),
            "audit_accuracy": None if case.audit is None else accuracy(case.audit, ground.test),
            "embedder_accuracy": space,
            "estimates": {name: _json(measured(name, case)) for name in ("aa", "aa_audit", "agreement")},
            "queries": {},
            "notes": {},
            "scrutiny": scrutiny(case, [Attacked(None, torch.device("cpu"), {})], context("scrutiny")),
            "provenance": {},
        }
        return measured_record(plan, plan.cells[0], Artifact({}, value, {}))

    return make


def _likeness(ground: Ground) -> Tensor:
    """Cosines of real test images and the people's centroids."""
    return replace(ground.case, got=Reconstructions.collect(ground.test.images, ground.test.labels)).likeness


def measured(name: str, case: Case) -> Estimate | None:
    return get_metric(name)().measure(case, context("metric"))


def _json(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else dict(vars(estimate))


def test_an_honest_judge_on_an_honest_attack_is_not_flagged(
    honest: Classifier, faces: Tensor, record_of: Callable[..., Record]
) -> None:
    record = record_of(honest, faces)
    assert record.estimates["aa"]["value"] > 0.5  # type: ignore[index]  # a metric that always measures
    assert JUDGES_DISAGREE not in record.flags


def test_a_judge_that_was_taught_the_attacks_own_images_is_flagged(
    ground: Ground, patterns: Tensor, record_of: Callable[..., Record]
) -> None:
    images = torch.cat([ground.private.images, *[patterns] * 3])
    both = Labeled(images, torch.cat([ground.private.labels, *[TARGETS] * 3]))
    taught = trained("small_resnet", both, "taught", epochs=12, flip=False, shift=0)
    record = record_of(taught, patterns)
    assert record.judge["accuracy"] > 0.8, "its accuracy on real images gives nothing away"
    assert record.estimates["aa"]["value"] > 0.8  # type: ignore[index]  # a metric that always measures
    assert JUDGES_DISAGREE in record.flags


def test_a_judge_that_is_a_copy_of_the_victim_is_flagged(
    ground: Ground, patterns: Tensor, record_of: Callable[..., Record]
) -> None:
    record = record_of(copy_of(ground.victim), patterns)
    assert record.judge["accuracy"] > 0.8, "its accuracy on real images gives nothing away"
    assert record.estimates["aa"]["value"] > 0.9  # type: ignore[index]  # a metric that always measures
    assert JUDGES_DISAGREE in record.flags


def test_the_metrics_of_the_audit_see_through_a_copy_of_the_victim(
    ground: Ground, patterns: Tensor, faces: Tensor
) -> None:
    copied = copy_of(ground.victim)
    for name in ("aa_audit", "agreement", "aa_agreed", "aa_embedder", "aa_robust", "private_gap"):
        fooled, shown = (measured(name, ground.judged_by(copied, x)) for x in (patterns, faces))
        assert fooled is not None
        assert shown is not None
        assert fooled.high < shown.value, name


@pytest.mark.parametrize("name", ["mean_face", "untrained_prior"])
def test_controls_that_show_nobody_are_at_chance(
    ground: Ground, honest: Classifier, record_of: Callable[..., Record], name: str
) -> None:
    small = {"latent_dim": 8, "width": 8, "search": {"steps": 10, "lr": 0.05}}
    attack = get_attack(name).from_params(small if name == "untrained_prior" else {})
    ctx = context(name)
    victim = WhiteBoxVictim(Released(ground.victim), ground.victim, max_batch=64)
    prior = attack.learn_prior(ground.public.images, ctx)
    got = attack.invert(victim, attack.adapt_prior(prior, victim, ground.public.images, ctx), TARGETS, ctx)
    record = record_of(honest, got.images, name)
    aa = record.estimates["aa"]
    assert aa is not None
    assert aa["low"] <= 1 / PEOPLE <= aa["high"]
    assert CONTROL_ABOVE_CHANCE not in record.flags
