"""LOMMA: another latent attack with the logit loss, searched in the victim and in students at once.

Two changes to a base attack. The identity loss is minus the target's logit, which does not saturate, with a
pull of the victim's features towards those of public faces. And the search looks at the mean over the victim
and students that were distilled from it on public images, so that what it finds does not fit one net alone.

Source: Nguyen et al., CVPR 2023 (arXiv:2304.01669), and the authors' code.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.distil import Student, agreement, answers_of, load_students, train_students
from mibench.latent import Search
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior, PriorSpec
from mibench.training import Recipe
from mibench.victim import Released, WhiteBoxVictim

from .dmi import Dmi
from .gmi import Gmi
from .plg_mi import PlgMi

_AUTHORS = Recipe(epochs=20, lr=0.01, weight_decay=1e-4)


@dataclass(frozen=True, kw_only=True)
class Lomma(Attack[WhiteBoxVictim]):
    """Logit maximization and model augmentation, on top of GMI, DMI or PLG-MI.

    Args:
        gmi: the base attack and its settings; without any base it is GMI with 2,400 steps.
        dmi: the same.
        plg_mi: the same; one base at most.
        students: nets distilled from the victim's answers; the authors take three EfficientNets. None at all
            leaves the logit loss alone.
        feature_weight: weight of the mean squared distance of the victim's features to the public images'
            mean features, >= 0; the authors take 1. It keeps logits from growing without bound.
        feature_images: public images behind the mean features, >= 1; the authors take 5,000.
    """

    name = "lomma"
    access = WhiteBoxVictim
    card = Card(
        title="Re-thinking Model Inversion Attacks Against Deep Neural Networks",
        paper="Nguyen et al., CVPR 2023, arXiv:2304.01669",
        year=2023,
        code="https://github.com/sutd-visual-computing-group/Re-thinking_MI",
        deviations=(
            "students are nets of this package, by default none of the usual judge's architecture",
            "the feature target is the mean itself; the authors' code draws it and overwrites the draw",
            "the victim's answers on the public images are asked for once and kept; DMI asks for its own",
            "on DMI latents are always clamped in the forward pass, as the authors do, whatever dmi.clamp",
        ),
    )

    # a base that changes its results changes these; then `version` grows too
    built_on: ClassVar[dict[str, int]] = {"gmi": 1, "dmi": 2, "plg_mi": 1}
    toy: ClassVar[Settings] = {
        "gmi": {
            "prior": {"latent_dim": 8, "width": 4, "critic_width": 4, "steps": 8},
            "search": {"steps": 10, "lr": 0.1},
            "restarts": 2,
        },
        "students": [{"net": "small_vgg", "width": 8, "recipe": {"epochs": 2, "batch": 16}}],
        "feature_weight": 0.01,
    }

    gmi: Gmi | None = None
    dmi: Dmi | None = None
    plg_mi: PlgMi | None = None
    students: tuple[Student, ...] = (
        Student(net="small_convnext", recipe=Recipe(epochs=20, optimizer="adamw", lr=0.002)),
        Student(net="small_vgg", recipe=_AUTHORS),
        Student(net="small_vgg", width=24, recipe=_AUTHORS),
    )
    feature_weight: float = 1.0
    feature_images: int = 5_000

    def __post_init__(self) -> None:
        given = [name for name in ("gmi", "dmi", "plg_mi") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"lomma: {len(given)} base attacks are given: {', '.join(given)}. Keep one.")
        if self.base.adaptive is not None:
            raise ValueError("lomma: adaptive options of the base attack are not read. Give lomma.adaptive.")
        if not self.feature_weight >= 0:
            raise ValueError(f"lomma: feature_weight must be >= 0, got {self.feature_weight}.")
        if self.feature_images < 1:
            raise ValueError(f"lomma: feature_images must be >= 1, got {self.feature_images}.")

    @property
    def base(self) -> Gmi | Dmi | PlgMi:
        """The base attack as given."""
        authors = Search(steps=2_400, lr=2e-4, optimizer="nesterov")
        dmi = None if self.dmi is None else dataclasses.replace(self.dmi, clamp=True)
        return self.gmi or dmi or self.plg_mi or Gmi(search=authors)

    def prior_spec(self) -> PriorSpec | None:
        """The base attack's generator."""
        return self.base.prior_spec()

    def adapt_prior(self, prior: Prior, victim: WhiteBoxVictim, public: Tensor, ctx: Context) -> Prior:
        """The base attack's prior, the students and the public images' mean features.

        Keys beside the base's: `student<i>.*`, weights; `feature_mean`, (d,).
        """
        adapted = self.base.adapt_prior(prior, victim, public, ctx)
        with torch.no_grad():
            # a white-box attacker reads these on the way to the logits, so they are no further queries
            few = public[: self.feature_images].split(ctx.max_batch)
            features = torch.cat([victim.net.features(x.to(ctx.device)).cpu() for x in few])
        answers = answers_of(victim, public, ctx)
        weights = train_students(self.students, victim, public, answers, ctx)
        for i, net in enumerate(load_students(self.students, victim, weights, ctx)):
            ctx.note(f"student{i}_agreement", agreement(net, public, answers, ctx))
        return {**adapted, **weights, "feature_mean": features.mean(0)}

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert; the base attack's search and choice look at the mean of all nets."""
        students = load_students(self.students, victim, prior, ctx)
        mean = prior["feature_mean"].to(ctx.device)
        together = victim.seen_through(
            lambda view: augmented(view, victim.net, students, mean, self.feature_weight)
        )
        return dataclasses.replace(self.base, loss="logit").invert(together, prior, targets, ctx)


def augmented(
    view: Released, net: Classifier, students: list[Classifier], mean: Tensor, weight: float
) -> Released:
    """Images -> logits (B, K) whose logit loss is LOMMA's identity loss.

    The loss -l_y is linear in the logits, so its mean over nets is that of the mean logits, and a penalty on
    an image may be taken off all of its logits: -mean(l_y) + weight * mean((features - mean)^2).

    Args:
        view: images -> the victim's logits.
        net: the victim's net, for its features.
        students: distilled nets, as many as there are.
        mean: (d,), the public images' mean features.
        weight: of the penalty.
    """

    def logits(x: Tensor) -> Tensor:
        features = net.features(x)
        own = net.head(features) if view is net else view(x)
        total = torch.stack([own, *(student(x) for student in students)]).mean(0)
        return total - weight * (features - mean).square().mean(1, keepdim=True)

    return logits
