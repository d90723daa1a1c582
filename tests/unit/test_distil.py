"""Students: a linear teacher is met, hard answers are labels, weights survive storage, seeds decide."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.building import build_dataclass
from mibench.data.split import Labeled
from mibench.distil import Student, agreement, distil, load_students, train_students
from mibench.nets import NetSpec, build
from mibench.nets.classifier import Classifier
from mibench.plugin import Context
from mibench.training import Recipe, fit
from mibench.victim import LabelVictim

SHAPE, CLASSES = (1, 6, 6), 4
PLAIN = Recipe(epochs=40, batch=32, lr=0.5, weight_decay=0.0, flip=False, shift=0)
TWO = (
    Student(net="mlp", width=4, recipe=Recipe(epochs=1, batch=32)),
    Student(net="softmax_regression", recipe=PLAIN),
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def public(count: int = 256, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def teacher(x: Tensor) -> Tensor:
    """Softmax of logits that are linear in the pixels."""
    return (1.5 * (x.flatten(1) - 0.5) @ draw(36, CLASSES) / 2).softmax(1)


def victim() -> LabelVictim:
    return LabelVictim(teacher, shape=SHAPE, num_classes=CLASSES)


def linear(seed: int = 0) -> Classifier:
    return Student(net="softmax_regression").untrained(victim(), Context(seed=seed))


def divergence(net: Classifier, x: Tensor) -> float:
    """Mean KL divergence of the teacher's answers from the net's softmax, in nats."""
    with torch.no_grad():
        return float(F.kl_div(net(x).log_softmax(1), teacher(x), reduction="batchmean"))


def test_a_linear_student_meets_a_linear_teacher() -> None:
    before, other = divergence(linear(), public()), public(64, seed=1)
    student = distil(linear(), public(), teacher(public()), Context(), recipe=PLAIN)
    assert before > 0.1
    assert divergence(student, public()) < 1e-3
    assert divergence(student, other) < 1e-3
    assert agreement(student, other, teacher(other), Context()) > 0.95


def test_a_student_is_frozen_in_eval_mode_and_was_trained_in_place() -> None:
    student = linear()
    got = distil(student, public(), teacher(public()), Context(), recipe=Recipe(epochs=1))
    assert got is student
    assert not any(module.training for module in got.modules())
    assert not any(p.requires_grad for p in got.parameters())


def test_a_student_that_agrees_already_stays_as_it_is() -> None:
    student, images = linear(), public(32)
    with torch.no_grad():
        answers = student(images).softmax(1)
    kept = {name: value.clone() for name, value in student.state_dict().items()}
    distil(student, images, answers, Context(), recipe=PLAIN)
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, kept[name], atol=1e-5, rtol=0)


def test_hard_answers_are_labels_and_the_loss_is_cross_entropy() -> None:
    labels = teacher(public()).argmax(1)
    recipe = Recipe(epochs=3, batch=32)
    soft = distil(linear(), public(), F.one_hot(labels, CLASSES).float(), Context(), recipe=recipe)
    hard = fit(linear(), Labeled(public(), labels), Context(), recipe=recipe)
    for name, value in soft.state_dict().items():
        torch.testing.assert_close(value, hard.state_dict()[name], atol=1e-5, rtol=0)


def test_answers_follow_their_images_through_shuffled_batches() -> None:
    order = torch.randperm(256, generator=torch.Generator().manual_seed(2))
    turned = distil(linear(), public()[order], teacher(public())[order], Context(), recipe=PLAIN)
    mixed = distil(linear(), public()[order], teacher(public()), Context(), recipe=PLAIN)
    assert divergence(turned, public()) < 1e-3
    assert divergence(mixed, public()) > 0.1


def test_students_survive_storage_and_leave_other_entries_alone() -> None:
    ctx, images = Context(seed=4), public(64)
    weights = train_students(TWO, victim(), images, teacher(images), ctx)
    assert {name.split(".")[0] for name in weights} == {"student0", "student1"}
    assert all(value.device.type == "cpu" and not value.requires_grad for value in weights.values())
    stored = {**load(save({name: value.contiguous() for name, value in weights.items()})), "g.x": draw(2)}
    nets = load_students(TWO, victim(), stored, Context(seed=99))
    assert [net.spec.name for net in nets] == ["mlp", "softmax_regression"]
    for i, net in enumerate(nets):
        assert not any(p.requires_grad for p in net.parameters())
        assert not net.training
        for name, value in net.state_dict().items():
            assert torch.equal(value, weights[f"student{i}.{name}"])


def test_a_student_is_the_one_that_its_own_seed_makes() -> None:
    images, ctx = public(64), Context(seed=4)
    weights = train_students(TWO, victim(), images, teacher(images), ctx)
    own = ctx.child("student 1")
    alone = distil(TWO[1].untrained(victim(), own), images, teacher(images), own, recipe=PLAIN)
    for name, value in alone.state_dict().items():
        assert torch.equal(weights[f"student1.{name}"], value)
    again = train_students(TWO, victim(), images, teacher(images), ctx)
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_equal_students_start_from_other_weights() -> None:
    images = public(64)
    twins = train_students((TWO[1], TWO[1]), victim(), images, teacher(images), Context())
    own = [value for name, value in twins.items() if name.startswith("student0.")]
    other = [value for name, value in twins.items() if name.startswith("student1.")]
    assert any(not torch.equal(a, b) for a, b in zip(own, other))


def test_no_students_are_no_weights() -> None:
    assert train_students((), victim(), public(4), teacher(public(4)), Context()) == {}
    assert load_students((), victim(), {"g.x": draw(2)}, Context()) == []


def test_a_student_has_the_victims_images_and_labels_and_a_width_of_its_own() -> None:
    got = Student(net="mlp", width=7).untrained(victim(), Context())
    assert got.spec == NetSpec(name="mlp", width=7, channels=1, size=6, num_classes=CLASSES)
    reference = build(got.spec, Context().generator("initial weights"))
    assert all(torch.equal(a, b) for a, b in zip(got.parameters(), reference.parameters()))


class Fixed(Classifier):
    """The label is the number of the brightest of the first four pixels."""

    def __init__(self) -> None:
        super().__init__(NetSpec(name="fixed", channels=1, size=6, num_classes=CLASSES))
        self.feature_dim, self.head = CLASSES, nn.Identity()

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.flatten(1)[:, :CLASSES],)


@pytest.mark.parametrize(("agreeing", "share"), [(0, 0.0), (3, 0.3), (10, 1.0)])
@pytest.mark.parametrize("max_batch", [3, 256])
def test_agreement_is_the_share_of_equal_labels(agreeing: int, share: float, max_batch: int) -> None:
    images = public(10)
    labels = images.flatten(1)[:, :CLASSES].argmax(1)
    labels[agreeing:] = (labels[agreeing:] + 1) % CLASSES
    answers = 0.9 * F.one_hot(labels, CLASSES) + 0.025
    assert agreement(Fixed(), images, answers, Context(max_batch=max_batch)) == pytest.approx(share)


def test_training_leaves_the_global_state_and_the_answers_alone() -> None:
    state, answers = torch.get_rng_state(), teacher(public(32))
    kept = answers.clone()
    train_students(TWO, victim(), public(32), answers, Context())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(answers, kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"net": "efficientnet"}, r"student: unknown net 'efficientnet'\. There are: .*small_vgg"),
        ({"width": -1}, "student: width must be >= 0, got -1"),
        ({"depth": 2}, "student: no field 'depth'"),
    ],
)
def test_impossible_students_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_dataclass(Student, options, where="student")
