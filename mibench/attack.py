"""The attack abstraction: learn a prior from public images, adapt it to a victim, invert labels."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import torch
from torch import Tensor

from mibench.adaptive import Adaptive, Weakness, automatic
from mibench.errors import PluginError
from mibench.plugin import Context, Plugin
from mibench.prior import Prior, PriorSpec
from mibench.victim import LabelVictim, WhiteBoxVictim

V = TypeVar("V", bound=LabelVictim)
Goal = Literal["class", "instance"]


@dataclass(frozen=True)
class Effort:
    """What the reconstructions would have been, had the attack stopped earlier.

    The last point is what the attack returns: its images are the returned ones, quantized, and its queries
    are all that was spent for a reconstruction, the choice among restarts included. Earlier points are the
    best so far by the attack's own loss.

    Args:
        queries: (S,), int64; images asked about for each reconstruction until then, never falling: the mean
            over all rows of what was spent, rounded up, where rows stop early or share queries. Several looks
            at one image (`victim.per_image`) count once here; whoever added them counts them.
        images: (S, B, C, H, W), uint8; the best reconstructions until then.
        loss: (S, B), float32; their losses in the attack's own terms, NaN where it has none.
        single: (B, C, H, W), uint8; the reconstructions of the first restart alone; None where the attack
            has one restart.
    """

    queries: Tensor
    images: Tensor
    loss: Tensor
    single: Tensor | None = None


def without_queries(effort: Effort | None) -> Effort | None:
    """The last point of an effort curve, at no query, of a search in nets that the attacker owns.

    To stop such a search earlier would have saved no query.
    """
    if effort is None:
        return None
    return dataclasses.replace(
        effort, queries=torch.zeros(1, dtype=torch.int64), images=effort.images[-1:], loss=effort.loss[-1:]
    )


@dataclass(frozen=True)
class Reconstructions:
    """What an attack returns.

    Args:
        images: (B, C, H, W), float32 in [0, 1], on the CPU.
        targets: (B,), int64; the labels asked for, in the order asked for.
        confidence: (B,), float32; the victim's own score of each image, for the record only.
        effort: earlier states of the same reconstructions, or None.
    """

    images: Tensor
    targets: Tensor
    confidence: Tensor
    effort: Effort | None = None

    @classmethod
    def collect(
        cls,
        images: Tensor,
        targets: Tensor,
        confidence: Tensor | None = None,
        effort: Effort | None = None,
    ) -> Reconstructions:
        """Detached, clamped copies on the CPU; NaN confidence where none is given."""
        if confidence is None:
            confidence = torch.full((len(targets),), torch.nan)
        return cls(
            images.detach().clamp(0, 1).float().cpu().contiguous(),
            targets.detach().cpu(),
            confidence.detach().float().cpu(),
            effort,
        )


@dataclass(frozen=True, kw_only=True)
class Attack(Plugin, Generic[V]):
    """An attack on a victim of type V; an attack never sees private images, only a victim and public ones.

    `access` is V at run time. `control` marks a negative control: it stands in every table and no claim of
    strength is attached to it.

    Args:
        adaptive: what the attacker does beside the attack because the defense is known; "auto" takes what
            the defense is weak to.
    """

    access: ClassVar[type[LabelVictim]]
    aliases: ClassVar[tuple[str, ...]] = ()
    control: ClassVar[bool] = False

    adaptive: Adaptive | Literal["auto"] | None = None

    def params(self) -> dict[str, Any]:
        """All fields, defaults written out, as JSON values; adaptive options only where there are any."""
        plain = super().params()
        if self.adaptive is None:
            del plain["adaptive"]
        return plain

    @property
    def needed_access(self) -> type[LabelVictim]:
        """The access that the attack needs with its adaptive options; a student may stand in for more."""
        return self.adaptive.access_of(self.access) if isinstance(self.adaptive, Adaptive) else self.access

    def against(self, weak_to: frozenset[Weakness], acts: str, view: str) -> Self:
        """The attack as it meets a defense: "auto" becomes the options that apply.

        Args:
            weak_to: `Defense.weaknesses`.
            acts: `Defense.acts`.
            view: what the attack sees: "stripped", "deployed" or "black-box".

        Raises:
            ValueError: adaptive options that could do nothing for this attack.
        """
        self._check_adaptive()
        if self.adaptive != "auto":
            return self
        return dataclasses.replace(self, adaptive=automatic(weak_to, self.access, acts=acts, view=view))

    def _check_adaptive(self) -> None:
        """Raise ValueError for adaptive options that this attack would not feel."""
        if self.adaptive is not None and self.goal == "instance":
            raise ValueError(
                f"attack '{self.name}': adaptive does not go with goal 'instance', whose eavesdropped "
                "predictions cannot be asked for again. Leave adaptive out, or set the goal to 'class'."
            )
        if not isinstance(self.adaptive, Adaptive) or not issubclass(self.needed_access, WhiteBoxVictim):
            return
        for name in ("labels_only", "fill_zeros"):
            if getattr(self.adaptive, name):
                raise ValueError(
                    f"attack '{self.name}': adaptive.{name} changes released scores, and white-box access "
                    "reads logits. Leave it out, or add a student with student_access = 'score' or 'label'."
                )

    @property
    def goal(self) -> Goal:
        """What it reconstructs: what a class looks like, or the very image behind an eavesdropped prediction.

        The default is "class". An attack that overrides `reconstruct` offers the choice as a field `goal`.
        """
        return "class"

    def prior_spec(self) -> PriorSpec | None:
        """The generative prior that this attack needs; attacks with an equal spec share one prior."""
        return None

    def learn_prior(self, public: Tensor, ctx: Context) -> Prior:
        """What public images (M, C, H, W), float32 in [0, 1], teach; shared by all victims.

        The default trains `prior_spec()`. An attack that overrides this method must not use a victim.
        """
        spec = self.prior_spec()
        return {} if spec is None else spec.fit(public, ctx)

    def adapt_prior(self, prior: Prior, victim: V, public: Tensor, ctx: Context) -> Prior:
        """The prior adapted to one victim by asking it about public images; the default changes nothing."""
        return prior

    @abstractmethod
    def invert(self, victim: V, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """One reconstruction for each of targets (B,), int64; repeats give several of one label.

        Restarts are chosen with the victim alone. Rows are independent: the result for a label is the same
        alone, in company, and for any `ctx.max_batch`.
        """

    def reconstruct(
        self, victim: V, prior: Prior, released: Tensor, targets: Tensor, ctx: Context
    ) -> Reconstructions:
        """One reconstruction of the private image behind each eavesdropped prediction (goal "instance").

        Rows are independent, as for `invert`.

        Args:
            victim: as for `invert`.
            prior: as for `invert`.
            released: (B, K), float32; what the victim released for the images, nothing more is known of them.
            targets: (B,), int64; the rows' names on the record. They key the rows' noise and tell the attack
                nothing: the true label of an image is no part of what was eavesdropped.
            ctx: as for `invert`.

        Raises:
            PluginError: the attack knows classes alone; the default.
        """
        raise PluginError(f"attack '{self.name}': it reconstructs classes alone. Set its goal to 'class'.")
