"""Controlled noise on the released confidences, so that finite differences of them lead nowhere.

A black-box attacker without gradients compares the answers to close images; noise that is larger than their
difference hides it. Long-tailed noise is small in most answers and huge in a few: it costs little accuracy
and ruins a mean over repeats, for Cauchy noise altogether, but not a median.

Source: MLPrivacyGuard, GLSVLSI 2019. Its distributions' parameters are not in what could be read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mibench.adaptive import Weakness
from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.noise import hash_normal, hash_uniform
from mibench.plugin import Card, Context, Settings

from ._simplex import Key, Reshaped, Streams, keep_label, note_distortion, project_far, top_label
from ._surrogate import log_answers

_CALIBRATION = 1024  # private images on which a noise is chosen for a rate of misclassification
_LARGEST = 10.0  # scale at which the search for it ends: probabilities drown in ten times their range
_HALVINGS = 24


@dataclass(frozen=True, kw_only=True)
class MlPrivacyGuard(Defense):
    """Independent noise on each probability, projected to the simplex.

    Args:
        noise: "laplace", "student_t" or "cauchy"; the later, the longer its tails.
        error_rate: share of changed labels on the private training images for which the scale is chosen, in
            (0, 1); None takes `scale`.
        scale: of the noise in units of probability where there is no `error_rate`, >= 0; 0 switches the
            defense off in any case.
        freedom: degrees of freedom of Student's t, >= 1; whole, as 2 or 3.
        cut: largest size of an entry of the noise in units of `scale`, >= 0; 0 cuts nothing off.
        keep_label: let the label lead, whatever the noise; leaves no `error_rate` to choose a scale for.
        key: what the noise hangs on: the "image", or the released "vector" rounded to 0.001.
        fresh: draw the noise anew for every query.
    """

    name = "ml_privacy_guard"
    acts = "output"
    weak_to = frozenset({"keyed_noise"})
    card = Card(
        title="MLPrivacyGuard: Defeating confidence information based model inversion attacks",
        paper="GLSVLSI 2019",
        year=2019,
        deviations=(
            "Only the abstract could be read; distributions and scales are our reconstruction.",
            "The noise hangs on the image, so that repeats do not average it out; `fresh` draws it anew.",
            "Noisy vectors are projected to the simplex.",
        ),
    )

    neutral: ClassVar[Settings | None] = {"scale": 0.0}
    strength: ClassVar[str] = "error_rate"
    strength_levels: ClassVar[tuple[object, ...]] = (0.01, 0.05, 0.1, 0.2)

    noise: Literal["laplace", "student_t", "cauchy"] = "cauchy"
    error_rate: float | None = 0.05
    scale: float = 0.01
    freedom: int = 3
    cut: float = 100.0
    keep_label: bool = False
    key: Key = "image"
    fresh: bool = False

    def __post_init__(self) -> None:
        for name in ("scale", "cut"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"ml_privacy_guard: {name} must be >= 0, got {getattr(self, name)}.")
        if self.freedom < 1:
            raise ValueError(f"ml_privacy_guard: freedom must be >= 1, got {self.freedom}.")
        if self.error_rate is not None and not 0 < self.error_rate < 1:
            raise ValueError(f"ml_privacy_guard: error_rate must lie in (0, 1), got {self.error_rate}.")
        if self.error_rate is not None and self.keep_label:
            raise ValueError(
                f"ml_privacy_guard: error_rate = {self.error_rate} with keep_label asks for errors that are "
                "then mended. Give a scale, and no error_rate."
            )

    @property
    def weaknesses(self) -> frozenset[Weakness]:
        """Repeats take off noise that is drawn anew, other views noise that is keyed; see Defense."""
        return frozenset({"fresh_noise"}) if self.fresh else self.weak_to

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """The scale that `error_rate` asks for, as a tensor (); nothing without one.

        Notes on the record: `ml_privacy_guard_scale`, and the distortion, see `note_distortion`.
        """
        if self.scale == 0:
            return {}
        state: State = {}
        if self.error_rate is not None:
            images = view.private_train.images
            rows = torch.linspace(0, len(images) - 1, min(len(images), _CALIBRATION)).long()
            scores = log_answers(net, images[rows], ctx).exp()
            scale = self.calibrated(scores, Streams(ctx).of(scores, images[rows].to(ctx.device)))
            ctx.note("ml_privacy_guard_scale", scale)
            state = {"scale": torch.tensor(scale)}
        note_distortion(self, net, state, view, ctx)
        return state

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net with noisy release; see Defense."""
        if self.scale == 0:
            return Released(net)
        scale = float(state["scale"]) if "scale" in state else self.scale
        streams = Streams(ctx, key=self.key, fresh=self.fresh)
        return Reshaped(net, lambda scores, x: self.disturb(scores, streams.of(scores, x), scale))

    def calibrated(self, scores: Tensor, keys: Tensor) -> float:
        """The largest scale, by halving, at which at most `error_rate` of the labels change.

        Args:
            scores: (N, K), of the victim.
            keys: (N,), int64, one stream for each row.
        """
        low, high = 0.0, _LARGEST
        allowed = 0.0 if self.error_rate is None else self.error_rate
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            moved = self.disturb(scores, keys, middle)
            if float((moved.argmax(1) != scores.argmax(1)).float().mean()) <= allowed:
                low = middle
            else:
                high = middle
        return low

    def disturb(self, scores: Tensor, keys: Tensor, scale: float) -> Tensor:
        """Probabilities (N, K): scores and noise, projected to the simplex."""
        moved = project_far(scores + scale * self.draw(keys, scores.shape[1]))
        return keep_label(moved, top_label(scores)) if self.keep_label else moved

    def draw(self, keys: Tensor, count: int) -> Tensor:
        """Noise of scale 1: (N, count), float32, one stream for each of keys (N,), int64.

        Laplace noise is the difference of two exponential variables. Student's t is a normal variable over
        the root of a mean of squares of `freedom` others. Cauchy noise is the tangent of a uniform angle.
        """
        if self.noise == "laplace":
            waits = -hash_uniform(keys, 2 * count).log()
            noise = waits[:, :count] - waits[:, count:]
        elif self.noise == "student_t":
            normals = hash_normal(keys, count * (self.freedom + 1)).view(len(keys), -1, count)
            spread = normals[:, 1:].square().mean(1).sqrt()
            noise = normals[:, 0] / spread.clamp_min(torch.finfo(spread.dtype).tiny)
        else:
            noise = torch.tan(math.pi * (hash_uniform(keys, count) - 0.5))
        return noise.clamp(-self.cut, self.cut) if self.cut > 0 else noise
