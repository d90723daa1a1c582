"""MI-Face: climb the victim's confidence in pixel space, without a learned prior.

From a blank image, gradient descent on c(x) = 1 - p_y(x) + aux(x), each iterate passed through PROCESS
(clipping, denoising, sharpening); the cheapest visited iterate is the reconstruction. On deep nets it
mostly finds adversarial patterns; the start image decides what a second net sees in them. The search in the
code of an auto-encoder (process="dae") stays near faces instead.

Source: Fredrikson, Jha and Ristenpart, CCS 2015, algorithm MI-Face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mibench.noise import Noise
from mibench.plugin import Card, Settings
from mibench.victim import WhiteBoxVictim

from ._descent import Look, PixelDescent, Scene


@dataclass(frozen=True, kw_only=True)
class MiFace(PixelDescent[WhiteBoxVictim]):
    """MI-Face with the victim's gradients; see PixelDescent for its other fields.

    A deep net with many classes hardly moves from the defaults, which are the paper's, because the gradient
    of 1 - p_y carries the factor p_y. The presets therefore take loss="ce", normalize_grad=True, a step of
    0.03, init="mean" with a little init_noise, a light blur after each step, mean_weight and some hundred
    iterations: without blur and pull the images become speckle that only this victim takes for the label.

    Args:
        loss: what falls: 1 - p_y, -log p_y or the negative logit.
    """

    name = "mi_face"
    version = 2
    aliases = ("privacy",)
    access = WhiteBoxVictim
    card = Card(
        title="Model Inversion Attacks that Exploit Confidence Information and Basic Countermeasures",
        paper="Fredrikson, Jha and Ristenpart, CCS 2015, doi:10.1145/2810103.2813677",
        year=2015,
        deviations=(
            "Defense papers that list it as 'Privacy' cite Fredrikson et al., USENIX Security 2014, which "
            "inverts a linear regression and cannot run on a face net; MI-Face is what is meant.",
            "The constants 5000, 100, 0.99 and 0.1 are the paper's as later code hands them down.",
            "Each iterate is clipped to [0, 1]; process='none' gives the identity of the paper's nets.",
            "PROCESS in pixel space on a convolutional net is not in the paper.",
            "PROCESS-DAE searches the code of an auto-encoder that the attacker trains on public images; in "
            "the paper it is the first layer of the victim itself, which the attacker holds.",
            "Whitening (ZCA) with contrast normalization, seen in a later port, is left out: it changes the "
            "method.",
        ),
    )

    # not the black start: there every max pool has ties, and roundings decide where gradients go
    toy: ClassVar[Settings] = {
        "max_iter": 15,
        "loss": "ce",
        "normalize_grad": True,
        "step": 0.03,
        "init": "mean",
        "init_noise": 0.02,
    }

    loss: Literal["prob", "ce", "logit"] = "prob"

    def look(
        self, scene: Scene[WhiteBoxVictim], states: Tensor, labels: Tensor, noise: Noise, step: int
    ) -> Look:
        """One forward pass; the gradient is taken only where a search goes on."""
        states = states.detach().requires_grad_()
        x = scene.canvas.draw(states)
        cost, p = self.cost(scene.victim.logits(x), x, labels, scene.mean)

        def slope(stays: Tensor) -> Tensor:
            # the sum, not the mean: rows are independent problems
            (found,) = torch.autograd.grad(cost.sum(), states)
            return found if bool(stays.all()) else found[stays]

        return Look(cost.detach(), p.detach(), slope)

    def cost(self, logits: Tensor, x: Tensor, y: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Cost c(x) and confidence p_y, both (N,), of images x whose logits (N, K) are given."""
        log_p = logits.log_softmax(1).gather(1, y[:, None]).squeeze(1)
        if self.loss == "prob":
            cost = 1 - log_p.exp()
        elif self.loss == "ce":
            cost = -log_p
        else:
            cost = -logits.gather(1, y[:, None]).squeeze(1)
        return self.with_aux(cost, x, mean), log_p.exp()
