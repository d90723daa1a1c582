"""Students that repeat a victim's answers on public images.

An attacker searches in a student where the victim gives no gradients (LOKT), beside the victim so that what
it finds does not hang on one net (LOMMA), or in its place, because a student need not inherit a defense that
sits in a narrow region.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor
from torch.nn import functional as F

from mibench.data.split import Labeled
from mibench.memory import in_chunks
from mibench.nets import CLASSIFIERS, NetSpec, build
from mibench.nets.classifier import Classifier
from mibench.plugin import Context
from mibench.training import Recipe, fit
from mibench.victim import LabelVictim, ScoreVictim, WhiteBoxVictim


@dataclass(frozen=True, kw_only=True)
class Student:
    """Architecture and training of a student.

    Args:
        net: name in `mibench.nets.CLASSIFIERS`.
        width: channels of the first stage; 0 takes the architecture's published width.
        recipe: its training; flips and shifts show it views that the victim was not asked about.
    """

    net: str = "small_resnet"
    width: int = 0
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=20, lr=0.05))
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if self.net not in CLASSIFIERS:
            raise ValueError(f"student: unknown net '{self.net}'. There are: {', '.join(CLASSIFIERS)}.")
        if self.width < 0:
            raise ValueError(f"student: width must be >= 0, got {self.width}.")

    def untrained(self, victim: LabelVictim, ctx: Context) -> Classifier:
        """The student for the victim's images and labels, with random weights."""
        channels, size, _ = victim.shape
        spec = NetSpec(
            name=self.net, width=self.width, channels=channels, size=size, num_classes=victim.num_classes
        )
        return build(spec, ctx.generator("initial weights"))


def distil(
    student: Classifier, images: Tensor, answers: Tensor, ctx: Context, *, recipe: Recipe
) -> Classifier:
    """Train a student on a victim's answers and return it frozen, in eval mode.

    The loss is the Kullback-Leibler divergence of the answers from the student's softmax, at temperature 1
    (Nguyen et al., CVPR 2023). Hard answers are one-hot rows; the loss then is cross-entropy.

    Args:
        student: trained in place, on ctx.device.
        images: (M, C, H, W), float32 in [0, 1].
        answers: (M, K), float32, rows on the simplex.
        ctx: gives randomness, device and reporter.
        recipe: the training.
    """
    known = answers.to(ctx.device)

    def loss(net: Classifier, x: Tensor, rows: Tensor) -> Tensor:
        return F.kl_div(net(x).log_softmax(1), known[rows], reduction="batchmean")

    numbered = Labeled(images, torch.arange(len(images)))
    return fit(student, numbered, ctx, recipe=recipe, loss=loss, is_row_mean=True)


def train_students(
    students: tuple[Student, ...], victim: LabelVictim, images: Tensor, answers: Tensor, ctx: Context
) -> dict[str, Tensor]:
    """Weights of students of one victim by `student<i>.<name>`, float32 on the CPU; see `distil`."""
    weights: dict[str, Tensor] = {}
    for i, student in enumerate(students):
        own = ctx.child(f"student {i}")
        net = distil(student.untrained(victim, own), images, answers, own, recipe=student.recipe)
        weights |= {f"student{i}.{name}": value.detach().cpu() for name, value in net.state_dict().items()}
    return weights


def load_students(
    students: tuple[Student, ...], victim: LabelVictim, weights: dict[str, Tensor], ctx: Context
) -> list[Classifier]:
    """The nets of `train_students`, frozen, on ctx.device; other entries of `weights` are left alone."""
    nets = []
    for i, student in enumerate(students):
        net = student.untrained(victim, dataclasses.replace(ctx, seed=0))
        start = f"student{i}."
        net.load_state_dict({k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)})
        net.eval().requires_grad_(False).to(ctx.device)
        nets.append(net)
    return nets


def answers_of(victim: LabelVictim, images: Tensor, ctx: Context) -> Tensor:
    """What a victim of any access says of images (M, C, H, W): probabilities (M, K), one-hot for labels."""
    if isinstance(victim, WhiteBoxVictim):

        def told(part: Tensor) -> Tensor:
            with victim.refunded():
                return victim.logits(part.to(ctx.device)).softmax(1).cpu()

        with torch.no_grad():
            return in_chunks(told, images, rows=ctx.max_batch, what="answers of the victim")
    if isinstance(victim, ScoreVictim):
        return victim.scores(images).cpu()
    return F.one_hot(victim.labels(images).cpu(), victim.num_classes).float()


def agreement(student: Classifier, images: Tensor, answers: Tensor, ctx: Context) -> float:
    """Share of images on which a student's label is the answers' most probable one, in [0, 1]."""

    def told(part: Tensor) -> Tensor:
        labels: Tensor = student(part.to(ctx.device)).argmax(1)
        return labels.cpu()

    with torch.no_grad():
        own = in_chunks(told, images, rows=ctx.max_batch, what="answers of the student")
    return float((own == answers.argmax(1).cpu()).float().mean())
