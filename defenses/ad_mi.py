"""Adversarial noise on the released vector, against an inversion network of the defender's own.

The defender trains a network that draws an image from the victim's prediction, as a black-box attacker
would, and then moves every released vector in the direction that makes this network err most, without
changing the predicted label. It hopes that the attacker's network errs likewise. Who holds the weights
reads the prediction before it is moved, and is not hindered at all.

Source: Wen, Yiu and Hui, IEEE CSR 2021, "Defending against model inversion attack by adversarial examples".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.nets.inversion_net import InversionNet
from mibench.plugin import Card, Context, Settings
from mibench.victim import freeze

from ._simplex import project_simplex
from ._surrogate import Surrogate, log_answers

Decode = Callable[[Tensor], Tensor]
_MARGIN = 1e-3  # lead of the label over the next one, where the noise had taken it; our choice
_LARGEST = 1 - 1e-6  # released probabilities stay below 1, as the TIFS comparison of 2023 asks


@dataclass(frozen=True, kw_only=True)
class AdMi(Defense):
    """Sign-gradient ascent of the defender's reconstruction error, on the logits or on the simplex.

    Args:
        steps: gradient steps for each query, >= 0; 0 switches the defense off.
        step_size: change of each logit (or probability) in one step, > 0.
        budget: largest L1 norm of the change of a vector, >= 0; None sets no limit.
        space: "logits" moves those; "simplex" moves probabilities and projects them back, which wants a
            much smaller step_size.
        truncation: largest entries of a prediction that the inversion network sees, >= 0; 0 keeps all.
        width: channels of the inversion network's last hidden map, >= 1.
        epochs: passes over the defender's public images, >= 1.
        batch: images in a step, >= 1.
        lr: learning rate of Adam (AMSGrad), > 0.
    """

    name = "ad_mi"
    aliases = ("admi",)
    acts = "output"
    keeps_label = True
    weak_to = frozenset({"keyed_noise"})
    card = Card(
        title="Defending against model inversion attack by adversarial examples",
        paper="IEEE CSR 2021",
        year=2021,
        deviations=(
            "The label keeps its lead by an added amount; a factor of 1.01 fails on negative logits.",
            "The gradient passes through the log-probabilities, so sure predictions are moved too.",
        ),
    )

    toy: ClassVar[Settings] = {"steps": 3, "width": 8, "epochs": 2, "batch": 16}
    neutral: ClassVar[Settings | None] = {"steps": 0}
    strength: ClassVar[str] = "step_size"
    strength_levels: ClassVar[tuple[object, ...]] = (0.01, 0.1, 0.5, 1.0)

    steps: int = 10
    step_size: float = 0.5
    budget: float | None = None
    space: Literal["logits", "simplex"] = "logits"
    truncation: int = 0
    width: int = 128
    epochs: int = 100
    batch: int = 128
    lr: float = 2e-4

    def __post_init__(self) -> None:
        for name in ("steps", "truncation"):
            if getattr(self, name) < 0:
                raise ValueError(f"ad_mi: {name} must be >= 0, got {getattr(self, name)}.")
        for name in ("width", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"ad_mi: {name} must be >= 1, got {getattr(self, name)}.")
        for name in ("step_size", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"ad_mi: {name} must be > 0, got {getattr(self, name)}.")
        if self.budget is not None and not self.budget >= 0:
            raise ValueError(f"ad_mi: budget must be >= 0, got {self.budget}.")

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """Weights of the inversion network, trained on the defender's public images; see Defense.

        Notes on the record: `ad_mi_error`, its last mean squared pixel error.

        Raises:
            TrainingError: the training diverged.
        """
        if self.steps == 0:
            return {}
        images = view.public.images
        decoder = self._surrogate.build(net.spec, ctx)
        self._surrogate.fit(decoder, log_answers(net, images, ctx), images, ctx, name=self.name)
        return {key: value.cpu() for key, value in decoder.state_dict().items()}

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net with moved release; gradients pass as if the move were a constant; see Defense."""
        if self.steps == 0:
            return Released(net)
        decoder = self._surrogate.build(net.spec, ctx)
        decoder.load_state_dict(dict(state))
        freeze(decoder)
        return _Moved(net, decoder, self)

    def decode(self, decoder: nn.Module, log_p: Tensor) -> Tensor:
        """Images that the inversion network draws from log-probabilities (N, K)."""
        images: Tensor = decoder(self._surrogate.prepare(log_p))
        return images

    def move(self, logits: Tensor, images: Tensor, decode: Decode) -> Tensor:
        """Logits (N, K), float32, whose softmax is released; no gradient.

        Args:
            logits: (N, K), of the victim.
            images: the query, as `decode` draws it.
            decode: log-probabilities (N, K) -> images; differentiable, each row by itself.
        """
        if self.space == "logits":
            return self.move_logits(logits, images, decode)
        scores = self.move_simplex(logits.softmax(1), images, decode)
        return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()

    def move_logits(self, logits: Tensor, images: Tensor, decode: Decode) -> Tensor:
        """Logits after `steps` sign-gradient steps away from the image, the label's lead repaired."""
        start, moved = logits.detach(), logits.detach()
        for _ in range(self.steps):
            slope = _slope(lambda u: decode(u.log_softmax(1)), moved, images)
            moved = moved + self.step_size * slope.sign()
        lack = _lack(moved, start)
        return self._within(moved.scatter_add(1, start.argmax(1, keepdim=True), lack), start)

    def move_simplex(self, scores: Tensor, images: Tensor, decode: Decode) -> Tensor:
        """Probabilities after `steps` projected sign-gradient steps, the label's lead repaired."""
        start, moved = scores.detach(), scores.detach()
        tiny = torch.finfo(scores.dtype).tiny
        for _ in range(self.steps):
            slope = _slope(lambda s: decode(s.clamp_min(tiny).log()), moved, images)
            moved = project_simplex(moved + self.step_size * slope.sign())
        lack = _lack(moved, start)
        moved = moved.scatter_add(1, start.argmax(1, keepdim=True), lack) / (1 + lack)
        return self._within(moved, start)

    def _within(self, moved: Tensor, start: Tensor) -> Tensor:
        """The vectors drawn back to `start` where they left the L1 budget.

        The repaired vector and the start have one label, and so has all that lies between them: the set of
        vectors with a given largest entry is convex. So no second repair is needed.
        """
        if self.budget is None:
            return moved
        noise = moved - start
        length = noise.abs().sum(1, keepdim=True)
        return start + noise * (self.budget / length.clamp_min(1e-12)).clamp(max=1)

    @property
    def _surrogate(self) -> Surrogate:
        """The inversion network that these fields describe."""
        return Surrogate(
            truncation=self.truncation, width=self.width, epochs=self.epochs, batch=self.batch, lr=self.lr
        )


class _Moved(nn.Module):
    """The victim with moved release."""

    def __init__(self, net: Classifier, decoder: InversionNet, how: AdMi) -> None:
        super().__init__()
        self.net = net
        self.decoder = decoder
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities (N, K) of images x (N, C, H, W); the gradient is that of the plain softmax."""
        logits = self.net(x)
        moved = self.how.move(logits.detach(), x.detach(), lambda log_p: self.how.decode(self.decoder, log_p))
        released: Tensor = (logits + (moved - logits).detach()).softmax(1)
        return released + (_below_one(released) - released).detach()


def _slope(decode: Decode, at: Tensor, images: Tensor) -> Tensor:
    """Gradient (N, K) of each row's squared reconstruction error at vectors (N, K)."""
    with torch.enable_grad():  # those who ask for scores do so without gradients
        vectors = at.detach().requires_grad_(True)
        error = (decode(vectors) - images).square().sum()
    slope: Tensor = torch.autograd.grad(error, vectors)[0]
    return slope


def _lack(moved: Tensor, start: Tensor) -> Tensor:
    """What the start's label needs to lead by _MARGIN again, (N, 1); 0 in rows that did not move."""
    label = start.argmax(1, keepdim=True)
    lead = moved.gather(1, label) - moved.scatter(1, label, -torch.inf).amax(1, keepdim=True)
    has_moved = (moved != start).any(1, keepdim=True)
    return torch.where(has_moved & (lead < _MARGIN), _MARGIN - lead, torch.zeros_like(lead))


def _below_one(scores: Tensor) -> Tensor:
    """Probabilities (N, K) of at most _LARGEST; what is cut off goes to the other classes in equal parts."""
    cut = scores.clamp(max=_LARGEST)
    missing = (scores - cut).sum(1, keepdim=True) / (scores.shape[1] - 1)
    return torch.where(scores > _LARGEST, cut, cut + missing)
