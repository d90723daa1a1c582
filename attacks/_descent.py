"""The one descent on pixels (or on the code of an auto-encoder) behind `mi_face` and `mi_face_bb`.

A plugin says how it looks at the victim; start images, PROCESS, stops, restarts, planning with the allowance
and the effort curve are here. Rows are independent: each stops by itself and then leaves the batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.data.split import quantize
from mibench.inversion import Film, Part, Problem, joined
from mibench.latent import checkpoints, pick_best
from mibench.noise import Noise, repeats
from mibench.plugin import Context, Stopwatch
from mibench.prior import Prior, Shape
from mibench.victim import ScoreVictim

from ._autoencoder import AutoEncoder
from ._canvas import Canvas, Codes, Pixels
from ._nearest import rank_public, ranked_public
from ._pixels import NonLocalMeans, blur, denoise_tv, rescale, total_variation, unsharp

V = TypeVar("V", bound=ScoreVictim)
_TINY = 1e-20  # keeps a zero gradient zero when it is divided by its own size


@dataclass(frozen=True)
class Scene(Generic[V]):
    """What every evaluation of one inversion shares.

    Args:
        victim: the attacked classifier.
        canvas: what is searched.
        mean: the mean public face (C, H, W), on the device.
        ctx: gives chunk size and reporter.
        steps: at most so many, of which the allowance pays for each.
    """

    victim: V
    canvas: Canvas
    mean: Tensor
    ctx: Context
    steps: int


@dataclass(frozen=True)
class Look:
    """One evaluation of N rows.

    Args:
        cost: c(x), (N,), of which less is better.
        confidence: p_y, (N,).
        slope: rows to go on with, (N,) bool -> their gradients of the cost, (M, *shape).
    """

    cost: Tensor
    confidence: Tensor
    slope: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class PixelDescent(Attack[V]):
    """Gradient descent on the pixels, for each target by itself; the defaults are the paper's.

    Stopping, by row: at iterate i where p_y(x_i) >= conf_stop, and where c(x_i) >= max(c(x_{i-1}), ...,
    c(x_{i-patience})), a test that begins once `patience` earlier costs exist. So a constant victim ends at
    i = patience. Costs are those of processed images. A row that stopped costs no further query.

    Args:
        max_iter: largest number of steps, >= 1.
        patience: window of the progress test, >= 1.
        conf_stop: confidence at which a row is done, in (0, 1]. The paper's 0.99 makes sense only so; read
            as a cost it would stop a net of up to 100 classes at once.
        step: step length, > 0; with normalize_grad the mean change of a pixel (root mean square).
        init: start image: black, the mean public face, middle grey, uniform noise, or the public image that
            the victim likes next for the label. "mean" and "public" are auxiliary knowledge that the paper's
            attacker does not have; "public" asks about each public image once for all labels.
        init_noise: standard deviation of normal noise added to the start, >= 0; it makes repeats differ.
        public_starts: images kept for each label with init="public", >= 1; then the first comes again.
        process: "none"; "clip" to [0, 1]; "rescale" each image from its least to its largest value; the
            others clip each step and, every `process_every` steps, "blur", "tv" (Chambolle's denoising),
            "unsharp" (blur, then sharpen), "nlm" (non-local means, then sharpen) or "dae". With "dae" the
            code of an auto-encoder is searched, and processed as enc(sharpen(nlm(dec(h)))).
        process_every: steps from one denoising to the next, >= 1.
        blur_sigma: standard deviation of the blur, and of the unsharp mask, in pixels, > 0.
        sharpen: amount of the unsharp mask, >= 0.
        denoise: weight of total variation in process="tv", > 0.
        nlm: options of non-local means in process="nlm" and "dae".
        dae: the auto-encoder of process="dae" and its training on public images.
        tv_weight: factor of the total variation in aux, >= 0.
        l2_weight: factor of the squared length of the image in aux, >= 0.
        mean_weight: factor of the squared distance to the mean public face in aux, >= 0.
        normalize_grad: divide the gradient of each image by its root mean square.
        restarts: random starts for each row, >= 1; the cheapest one is kept.
    """

    max_iter: int = 5000
    patience: int = 100
    conf_stop: float = 0.99
    step: float = 0.1
    init: Literal["zeros", "mean", "grey", "random", "public"] = "zeros"
    init_noise: float = 0.0
    public_starts: int = 8
    process: Literal["none", "clip", "rescale", "blur", "tv", "unsharp", "nlm", "dae"] = "clip"
    process_every: int = 20
    blur_sigma: float = 0.5
    sharpen: float = 0.5
    denoise: float = 0.02
    nlm: NonLocalMeans = field(default_factory=NonLocalMeans)
    dae: AutoEncoder = field(default_factory=AutoEncoder)
    tv_weight: float = 0.0
    l2_weight: float = 0.0
    mean_weight: float = 0.0
    normalize_grad: bool = False
    restarts: int = 1

    def __post_init__(self) -> None:
        for name in ("max_iter", "patience", "process_every", "restarts", "public_starts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{self.name}: {name} must be >= 1, got {getattr(self, name)}.")
        for name in ("step", "blur_sigma", "denoise"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{self.name}: {name} must be > 0, got {getattr(self, name)}.")
        for name in ("init_noise", "sharpen", "tv_weight", "l2_weight", "mean_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{self.name}: {name} must be >= 0, got {getattr(self, name)}.")
        if not 0 < self.conf_stop <= 1:
            raise ValueError(f"{self.name}: conf_stop must lie in (0, 1], got {self.conf_stop}.")
        if self.restarts > 1 and not self.has_random_start:
            raise ValueError(
                f"{self.name}: {self.restarts} restarts from one image are equal. "
                "Set init_noise, init='random' or init='public'."
            )

    @property
    def has_random_start(self) -> bool:
        """Whether two repeats of a label start from different images."""
        return self.init in {"random", "public"} or self.init_noise > 0

    @abstractmethod
    def look(self, scene: Scene[V], states: Tensor, labels: Tensor, noise: Noise, step: int) -> Look:
        """Evaluation number `step`, from 0, of states (N, *shape); noise has one stream for each row."""

    def asked_for_slope(self, shape: tuple[int, ...]) -> int:
        """Images asked about for the gradient of one state of this shape, beside that of its cost."""
        return 0

    def learn_prior(self, public: Tensor, ctx: Context) -> Prior:
        """The mean public face, (C, H, W), as `mean`; with process="dae" the auto-encoder too."""
        prior = {"mean": public.mean(0)}
        return prior | self.dae.learn(public, ctx) if self.process == "dae" else prior

    def adapt_prior(self, prior: Prior, victim: V, public: Tensor, ctx: Context) -> Prior:
        """With init="public" the best public images of each label added; see `rank_public`."""
        if self.init != "public":
            return prior
        return prior | rank_public(victim, public, keep=self.public_starts)

    def invert(self, victim: V, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """Cheapest visited image of each row; see Attack.invert.

        Equal starts end equal, so without a random start each label is searched once, whatever its repeats.
        """
        scene = self._scene(victim, prior, ctx)
        labels, rows = torch.unique(targets, return_inverse=True)
        if self.has_random_start:
            labels, rows = targets, torch.arange(len(targets))
        noise, before = ctx.noise(labels), repeats(labels)
        parts, chunks = [], torch.arange(len(labels)).split(max(1, ctx.max_batch // self.restarts))
        for at, chunk in enumerate(chunks):
            problem = Problem(
                labels=labels[chunk].repeat_interleave(self.restarts).to(ctx.device),
                noise=noise[chunk].repeat(self.restarts),
                ranks=(before[chunk][:, None] * self.restarts + torch.arange(self.restarts)).flatten(),
                restarts=self.restarts,
            )
            start = self._start(problem, victim.shape, prior).to(ctx.device)
            descent = _Descent(self, scene, problem, scene.canvas.enter(start))
            parts.append(descent.run(done=at * scene.steps, total=len(chunks) * scene.steps))
        # as many points as without early stops, so that curves of several victims go together
        return joined(parts, targets, rows=rows, points=len(checkpoints(scene.steps)))

    def _scene(self, victim: V, prior: Prior, ctx: Context) -> Scene[V]:
        canvas = self._canvas(prior, victim.shape, ctx)
        per_step = self.restarts * (1 + self.asked_for_slope(canvas.shape))
        steps = victim.steps_within(self.max_iter, per_step=per_step, reserve=self.restarts)
        return Scene(victim, canvas, prior["mean"].to(ctx.device), ctx, steps)

    def _canvas(self, prior: Prior, shape: Shape, ctx: Context) -> Canvas:
        if self.process == "dae":
            return Codes(self.dae.load(prior, shape, ctx), self.processed, every=self.process_every)
        return Pixels(shape, self.processed, is_boxed=self.process != "none")

    def processed(self, x: Tensor, iteration: int) -> Tensor:
        """PROCESS of images x (N, C, H, W) that step number `iteration`, from 1, led to."""
        if self.process == "none":
            return x
        if self.process == "rescale":
            return rescale(x)
        x = x.clamp(0, 1)
        if self.process == "clip" or iteration % self.process_every:
            return x
        if self.process == "tv":
            x = denoise_tv(x, self.denoise)
        else:
            x = self.nlm.of(x) if self.process in {"nlm", "dae"} else blur(x, self.blur_sigma)
        if self.process in {"unsharp", "nlm", "dae"}:
            x = unsharp(x, self.sharpen, self.blur_sigma)
        return x.clamp(0, 1)

    def with_aux(self, cost: Tensor, x: Tensor, mean: Tensor) -> Tensor:
        """Costs (N,) of images x (N, C, H, W) with aux(x) added; `mean` is the mean public face."""
        if self.tv_weight > 0:
            cost = cost + self.tv_weight * total_variation(x)
        if self.l2_weight > 0:
            cost = cost + self.l2_weight * x.square().sum((1, 2, 3))
        if self.mean_weight > 0:
            cost = cost + self.mean_weight * (x - mean).square().sum((1, 2, 3))
        return cost

    def scaled(self, slope: Tensor) -> Tensor:
        """Gradients (N, *shape), each divided by its root mean square if the options say so."""
        if not self.normalize_grad:
            return slope
        axes = tuple(range(1, slope.ndim))
        return slope / slope.square().mean(axes, keepdim=True).sqrt().clamp_min(_TINY)

    def _start(self, problem: Problem, shape: Shape, prior: Prior) -> Tensor:
        """Start images (R, C, H, W), on the CPU."""
        rows = len(problem.noise)
        if self.init == "random":
            x = problem.noise.uniform("start", *shape)
        elif self.init == "mean":
            x = prior["mean"].cpu().float().expand(rows, *shape)
        elif self.init == "public":
            x, _ = ranked_public(prior, problem.labels.cpu(), problem.ranks)
        else:
            x = torch.full((rows, *shape), 0.5 if self.init == "grey" else 0.0)
        if self.init_noise > 0:
            x = (x + self.init_noise * problem.noise.normal("start noise", *shape)).clamp(0, 1)
        return x.contiguous(memory_format=torch.channels_last)


class _Descent(Generic[V]):
    """Descent of one chunk; rows that stopped leave the batch.

    Args:
        attack: the options.
        scene: what all chunks share.
        problem: labels and noise of the R searches.
        states: where they begin, (R, *shape).
    """

    def __init__(self, attack: PixelDescent[V], scene: Scene[V], problem: Problem, states: Tensor) -> None:
        self.attack, self.scene, self.problem = attack, scene, problem
        count, device = len(states), states.device
        self.states, self.labels, self.noise = states, problem.labels, problem.noise
        self.rows = torch.arange(count, device=device)
        # infinite until filled, so that the window test cannot fire before it is
        self.window = torch.full((count, min(attack.patience, scene.steps + 1)), torch.inf, device=device)
        self.best = states.clone()
        self.best_cost = torch.full((count,), torch.inf, device=device)
        self.best_p = torch.zeros(count, device=device)
        self.film = Film(scene.victim)

    def run(self, *, done: int, total: int) -> Part:
        """The cheapest visited image of the cheapest restart of each reconstruction."""
        steps, ctx, watch = self.scene.steps, self.scene.ctx, Stopwatch()
        stops = checkpoints(steps)
        for i in range(steps + 1):
            look = self.attack.look(self.scene, self.states, self.labels, self.noise, i)
            self._remember(look)
            if i in stops:
                self.film.add(*self._so_far())
            stays = ~((look.confidence >= self.attack.conf_stop) | (look.cost >= self.window.amax(1)))
            if i == steps or not stays.any():
                break
            self.window[:, i % self.window.shape[1]] = look.cost
            slope = self.attack.scaled(look.slope(stays))
            if not stays.all():
                self._keep(stays)
            self.states = self.scene.canvas.settle(self.states - self.attack.step * slope, i + 1)
            if watch.is_due():
                ctx.report(done + i, total, **self._progress())
        ctx.report(done + steps, total, **self._progress())
        if i not in stops:  # all rows have stopped between two points
            self.film.add(*self._so_far())
        return self._part()

    def _remember(self, look: Look) -> None:
        """Keep the active rows' states that are the cheapest so far."""
        better = look.cost < self.best_cost[self.rows]
        found = self.rows[better]
        self.best[found] = self.states[better]
        self.best_cost[found], self.best_p[found] = look.cost[better], look.confidence[better]

    def _keep(self, stays: Tensor) -> None:
        """Let the rows that do not stay leave the batch."""
        self.states, self.labels = self.states[stays], self.labels[stays]
        self.rows, self.window = self.rows[stays], self.window[stays]
        self.noise = self.noise[stays.cpu()]

    def _so_far(self) -> tuple[Tensor, Tensor]:
        """A point of the effort curve: images (B, C, H, W) and costs (B,) of the best restarts until now."""
        rows = pick_best(self.best_cost, self.problem.restarts)
        return self._drawn(rows), self.best_cost[rows]

    def _drawn(self, rows: Tensor) -> Tensor:
        with torch.no_grad():
            return self.scene.canvas.draw(self.best[rows]).cpu()

    def _part(self) -> Part:
        restarts = self.problem.restarts
        rows = pick_best(self.best_cost, restarts)
        first = torch.arange(0, len(self.best), restarts, device=rows.device)
        single = quantize(self._drawn(first)) if restarts > 1 else None
        return self.film.part(self._drawn(rows), self.best_p[rows], single)

    def _progress(self) -> dict[str, float]:
        return {"cost": float(self.best_cost.mean()), "p": float(self.best_p.mean())}
