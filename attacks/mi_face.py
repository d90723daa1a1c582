"""MI-Face: climb the victim's confidence in pixel space, without a learned prior.

From a blank image, gradient descent on c(x) = 1 - p_y(x) + aux(x), each iterate passed through PROCESS
(clipping, denoising, sharpening); the cheapest visited iterate is the reconstruction. On deep nets it
mostly finds adversarial patterns; the start image decides what a second net sees in them.

Source: Fredrikson, Jha and Ristenpart, CCS 2015, algorithm MI-Face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.plugin import Card, Context, Settings, Stopwatch
from mibench.prior import Prior
from mibench.victim import WhiteBoxVictim

from ._pixels import blur, denoise_tv, total_variation, unsharp

_TINY = 1e-20  # keeps a zero gradient zero when it is divided by its own size


@dataclass(frozen=True, kw_only=True)
class MiFace(Attack[WhiteBoxVictim]):
    """Gradient descent on the pixels, for each target by itself.

    The defaults are the paper's. A deep net with many classes hardly moves from them, because the gradient
    of 1 - p_y carries the factor p_y. The presets therefore take loss="ce", normalize_grad=True, a step of
    0.03, init="mean" with a little init_noise, a light blur after each step, mean_weight and some hundred
    iterations: without blur and pull the images become speckle that only this victim takes for the label.

    Stopping, by row: at iterate i where p_y(x_i) >= conf_stop, and where c(x_i) >= max(c(x_{i-1}), ...,
    c(x_{i-patience})), a test that begins once `patience` earlier costs exist. So a constant victim ends at
    i = patience. Costs are those of processed images. A row that stopped costs no further query.

    Args:
        max_iter: largest number of steps, >= 1.
        patience: window of the progress test, >= 1.
        conf_stop: confidence at which a row is done, in (0, 1]. The paper's 0.99 makes sense only so; read
            as a cost it would stop a net of up to 100 classes at once.
        step: step length, > 0; with normalize_grad the mean change of a pixel (root mean square).
        init: start image: black, the mean public face, middle grey or uniform noise. "mean" is auxiliary
            knowledge that the paper's attacker does not have.
        init_noise: standard deviation of normal noise added to the start, >= 0; it makes repeats differ.
        loss: what falls: 1 - p_y, -log p_y or the negative logit.
        process: "none", "clip" to [0, 1]; the others clip each step and, every `process_every` steps,
            "blur", "tv" (Chambolle's denoising) or "unsharp" (blur, then sharpen).
        process_every: steps from one denoising to the next, >= 1.
        blur_sigma: standard deviation of the blur in pixels, > 0.
        sharpen: amount of the unsharp mask, >= 0.
        denoise: weight of total variation in process="tv", > 0.
        tv_weight: factor of the total variation in aux, >= 0.
        mean_weight: factor of the squared distance to the mean public face in aux, >= 0.
        normalize_grad: divide the gradient of each image by its root mean square.
        restarts: random starts for each row, >= 1; the cheapest one is kept.
    """

    name = "mi_face"
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
            "PROCESS on a convolutional net is not in the paper; blur, tv and unsharp are ours.",
            "Non-local means is left out (it needs scikit-image), and so is PROCESS-DAE, whose victim is an "
            "auto-encoder.",
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

    max_iter: int = 5000
    patience: int = 100
    conf_stop: float = 0.99
    step: float = 0.1
    init: Literal["zeros", "mean", "grey", "random"] = "zeros"
    init_noise: float = 0.0
    loss: Literal["prob", "ce", "logit"] = "prob"
    process: Literal["none", "clip", "blur", "tv", "unsharp"] = "clip"
    process_every: int = 20
    blur_sigma: float = 0.5
    sharpen: float = 0.5
    denoise: float = 0.02
    tv_weight: float = 0.0
    mean_weight: float = 0.0
    normalize_grad: bool = False
    restarts: int = 1

    def __post_init__(self) -> None:
        for name in ("max_iter", "patience", "process_every", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"mi_face: {name} must be >= 1, got {getattr(self, name)}.")
        for name in ("step", "blur_sigma", "denoise"):
            if not getattr(self, name) > 0:
                raise ValueError(f"mi_face: {name} must be > 0, got {getattr(self, name)}.")
        for name in ("init_noise", "sharpen", "tv_weight", "mean_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"mi_face: {name} must be >= 0, got {getattr(self, name)}.")
        if not 0 < self.conf_stop <= 1:
            raise ValueError(f"mi_face: conf_stop must lie in (0, 1], got {self.conf_stop}.")
        if self.restarts > 1 and not self.has_random_start:
            raise ValueError(
                f"mi_face: {self.restarts} restarts from one image are equal. "
                "Set init_noise or init='random'."
            )

    @property
    def has_random_start(self) -> bool:
        """Whether two repeats of a label start from different images."""
        return self.init == "random" or self.init_noise > 0

    def learn_prior(self, public: Tensor, ctx: Context) -> Prior:
        """The mean public face, (C, H, W); init="mean" and mean_weight alone use it."""
        return {"mean": public.mean(0)}

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """Cheapest visited image of each row; see Attack.invert.

        Equal starts end equal, so without a random start each label is searched once, whatever its repeats.
        """
        labels, rows = torch.unique(targets, return_inverse=True)
        if self.has_random_start:
            labels, rows = targets, torch.arange(len(targets))
        start = self._start(labels, victim.shape, prior, ctx).to(ctx.device)
        wanted = labels.repeat_interleave(self.restarts).to(ctx.device)
        mean = prior["mean"].to(ctx.device)
        chunks = range(0, len(start), ctx.max_batch)
        parts = []
        for at, first in enumerate(chunks):
            part = slice(first, first + ctx.max_batch)
            search = _Search(self, start[part], wanted[part], mean)
            parts.append(search.run(victim, ctx, done=at * self.max_iter, total=len(chunks) * self.max_iter))
        images, cost, confidence = (torch.cat(piece) for piece in zip(*parts))
        best = cost.view(-1, self.restarts).argmin(1) + torch.arange(0, len(cost), self.restarts).to(
            cost.device
        )
        best = best[rows.to(best.device)]
        return Reconstructions.collect(images[best], targets, confidence[best])

    def processed(self, x: Tensor, iteration: int) -> Tensor:
        """PROCESS of images x (N, C, H, W) that step number `iteration`, from 1, led to."""
        if self.process == "none":
            return x
        x = x.clamp(0, 1)
        if self.process == "clip" or iteration % self.process_every:
            return x
        x = denoise_tv(x, self.denoise) if self.process == "tv" else blur(x, self.blur_sigma)
        if self.process == "unsharp":
            x = unsharp(x, self.sharpen, self.blur_sigma)
        return x.clamp(0, 1)

    def cost(self, logits: Tensor, x: Tensor, y: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Cost c(x) and confidence p_y, both (N,), of images x whose logits (N, K) are given."""
        log_p = logits.log_softmax(1).gather(1, y[:, None]).squeeze(1)
        if self.loss == "prob":
            cost = 1 - log_p.exp()
        elif self.loss == "ce":
            cost = -log_p
        else:
            cost = -logits.gather(1, y[:, None]).squeeze(1)
        if self.tv_weight > 0:
            cost = cost + self.tv_weight * total_variation(x)
        if self.mean_weight > 0:
            cost = cost + self.mean_weight * (x - mean).square().sum((1, 2, 3))
        return cost, log_p.exp()

    def _start(self, labels: Tensor, shape: tuple[int, int, int], prior: Prior, ctx: Context) -> Tensor:
        """Start images (B * restarts, C, H, W), on the CPU."""
        noise = ctx.noise(labels).repeat(self.restarts)
        rows = len(noise)
        if self.init == "random":
            x = noise.uniform("start", *shape)
        elif self.init == "mean":
            x = prior["mean"].cpu().float().expand(rows, *shape)
        else:
            x = torch.full((rows, *shape), 0.5 if self.init == "grey" else 0.0)
        if self.init_noise > 0:
            x = (x + self.init_noise * noise.normal("start noise", *shape)).clamp(0, 1)
        return x.contiguous(memory_format=torch.channels_last)


class _Search:
    """Descent of one chunk; rows that stopped leave the batch.

    Args:
        attack: the options.
        x: start images (N, C, H, W).
        y: labels (N,).
        mean: the mean public face (C, H, W).
    """

    def __init__(self, attack: MiFace, x: Tensor, y: Tensor, mean: Tensor) -> None:
        self.attack, self.x, self.y, self.mean = attack, x, y, mean
        self.rows = torch.arange(len(x), device=x.device)
        # infinite until filled, so that the window test cannot fire before it is
        self.window = torch.full((len(x), attack.patience), torch.inf, device=x.device)
        self.best_x = x.clone()
        self.best_cost = torch.full((len(x),), torch.inf, device=x.device)
        self.best_p = torch.zeros(len(x), device=x.device)

    def run(
        self, victim: WhiteBoxVictim, ctx: Context, *, done: int, total: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cheapest images (N, C, H, W), their costs (N,) and confidences (N,)."""
        watch = Stopwatch()
        for i in range(self.attack.max_iter + 1):
            cost, p, slope = self._evaluate(victim)
            self._remember(cost, p)
            active = ~((p >= self.attack.conf_stop) | (cost >= self.window.amax(1)))
            if i == self.attack.max_iter or not active.any():
                break
            self.window[:, i % self.attack.patience] = cost
            if not active.all():
                slope = slope[active]
                self._keep(active)
            self.x = self.attack.processed(self.x - self.attack.step * slope, i + 1)
            if watch.is_due():
                ctx.report(done + i, total, cost=float(self.best_cost.mean()), p=float(self.best_p.mean()))
        ctx.report(
            done + self.attack.max_iter, total, cost=float(self.best_cost.mean()), p=float(self.best_p.mean())
        )
        return self.best_x, self.best_cost, self.best_p

    def _evaluate(self, victim: WhiteBoxVictim) -> tuple[Tensor, Tensor, Tensor]:
        """Cost, confidence and descent direction of the active rows."""
        x = self.x.detach().requires_grad_()
        cost, p = self.attack.cost(victim.logits(x), x, self.y, self.mean)
        # the sum, not the mean: rows are independent problems
        (slope,) = torch.autograd.grad(cost.sum(), x)
        if self.attack.normalize_grad:
            slope = slope / slope.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(_TINY)
        return cost.detach(), p.detach(), slope

    def _remember(self, cost: Tensor, p: Tensor) -> None:
        """Keep the active rows' images that are the cheapest so far."""
        better = cost < self.best_cost[self.rows]
        found = self.rows[better]
        self.best_x[found], self.best_cost[found], self.best_p[found] = (
            self.x[better],
            cost[better],
            p[better],
        )

    def _keep(self, active: Tensor) -> None:
        """Let the rows that are not active leave the batch."""
        self.x, self.y = self.x[active], self.y[active]
        self.rows, self.window = self.rows[active], self.window[active]
