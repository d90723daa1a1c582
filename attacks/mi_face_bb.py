"""MI-Face without gradients: the descent of `mi_face` on gradients measured from released scores.

Every partial derivative is a central difference of two answers, so a step costs 2 d queries for d pixels; a
random subset of the pixels or a few random directions cost less. Rounding the released scores stops it.

Source: Fredrikson, Jha and Ristenpart, CCS 2015 (numerical gradients); random directions: Spall, IEEE
Transactions on Automatic Control 37, 1992.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mibench.noise import Noise
from mibench.plugin import Card, Settings
from mibench.victim import ScoreVictim

from ._descent import Look, PixelDescent, Scene

_LEAST = 1e-12  # floor of a released probability before its logarithm


@dataclass(frozen=True, kw_only=True)
class MiFaceBb(PixelDescent[ScoreVictim]):
    """MI-Face with finite differences; see PixelDescent for its other fields.

    An evaluation costs one query for the cost, and a step twice the number of measured differences. The
    gradient of aux is exact and costs nothing. Differences are taken inside the box: at its border they are
    one-sided.

    Args:
        loss: what falls: 1 - p_y or -log p_y of the released scores.
        estimator: "all" measures the derivative of every pixel, "subset" of `samples` random pixels in each
            step (the others stay), "directions" along `samples` random directions of signs, whose average is
            right in the mean.
        samples: differences of a step for "subset" and "directions", >= 1.
        delta: half the length of a difference in pixels of [0, 1], in (0, 0.5]; the smaller, the more
            roundings of the scores count.
        cell: side of the square blocks of pixels that are changed together, >= 1; the gradient is then the
            mean over each block, and d is divided by cell^2.
    """

    name = "mi_face_bb"
    access = ScoreVictim
    card = Card(
        title="Model Inversion Attacks that Exploit Confidence Information (MI-Face, black box)",
        paper="Fredrikson, Jha and Ristenpart, CCS 2015, doi:10.1145/2810103.2813677",
        year=2015,
        deviations=(
            "Random directions of signs, and blocks of pixels that change together, are not in the paper.",
            "Differences are central, and both of their ends lie inside the box [0, 1].",
            "All that differs in 'mi_face' differs here.",
        ),
    )

    toy: ClassVar[Settings] = {
        "max_iter": 12,
        "loss": "ce",
        "normalize_grad": True,
        "step": 0.03,
        "init": "mean",
        "init_noise": 0.02,
        "estimator": "directions",
        "samples": 16,
        "delta": 0.05,  # differences lift roundings by 1 / (2 delta), and rows are compared to 1e-5
        "cell": 4,
    }

    loss: Literal["prob", "ce"] = "prob"
    estimator: Literal["all", "subset", "directions"] = "all"
    samples: int = 64
    delta: float = 0.01
    cell: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("samples", "cell"):
            if getattr(self, name) < 1:
                raise ValueError(f"mi_face_bb: {name} must be >= 1, got {getattr(self, name)}.")
        if not 0 < self.delta <= 0.5:
            raise ValueError(f"mi_face_bb: delta must lie in (0, 0.5], got {self.delta}.")
        if self.process == "dae" and self.cell > 1:
            raise ValueError(f"mi_face_bb: a code has no blocks of {self.cell} pixels. Set cell = 1.")

    def asked_for_slope(self, shape: tuple[int, ...]) -> int:
        """Two images for each difference."""
        return 2 * self._differences(shape)

    def look(
        self, scene: Scene[ScoreVictim], states: Tensor, labels: Tensor, noise: Noise, step: int
    ) -> Look:
        """One answer for the cost; differences are measured only where a search goes on."""
        x = scene.canvas.draw(states)
        p = self._confidence(scene, x, labels)

        def slope(stays: Tensor) -> Tensor:
            rows = noise[stays.cpu()]
            return self.measured(scene, states[stays], labels[stays], rows, step) + self._aux_slope(
                scene, states[stays]
            )

        return Look(self.with_aux(self.cost(p), x, scene.mean), p, slope)

    def cost(self, p: Tensor) -> Tensor:
        """Cost without aux of confidences p (any shape)."""
        return 1 - p if self.loss == "prob" else -p.clamp_min(_LEAST).log()

    def measured(
        self, scene: Scene[ScoreVictim], states: Tensor, labels: Tensor, noise: Noise, step: int
    ) -> Tensor:
        """Gradients (N, *shape) of the cost without aux, from differences.

        A difference along u is (c(x + delta u) - c(x - delta u)) / (2 delta). Where the box cuts a move
        short, what a component adds is divided by the share of it that was made.
        """
        count, shape = states.shape[0], states.shape[1:]
        total = torch.zeros_like(states)
        for moves in self._moves(noise, shape, step, at_once=max(1, scene.ctx.max_batch // (2 * count))):
            u = moves.to(states.device)
            ends = [scene.canvas.bounded(states[:, None] + sign * self.delta * u) for sign in (1, -1)]
            made = (ends[0] - ends[1]) / (2 * self.delta)
            asked = torch.cat(ends, dim=1).flatten(0, 1)
            p = self._confidence(scene, scene.canvas.draw(asked), labels.repeat_interleave(2 * u.shape[1]))
            up, down = self.cost(p).view(count, 2, -1).unbind(1)
            rise = ((up - down) / (2 * self.delta)).view(count, -1, *[1] * len(shape))
            parts = torch.where(u != 0, rise / torch.where(u != 0, made, 1), 0)
            for one in parts.unbind(1):  # one by one, so that the sum does not hang on how many fit at once
                total = total + one
        scale = self.cell**2 * (self._differences(shape) if self.estimator == "directions" else 1)
        return total / scale

    def _differences(self, shape: tuple[int, ...]) -> int:
        """Differences of a step for states of this shape."""
        free = self._grid(shape).numel()
        return {"all": free, "subset": min(self.samples, free), "directions": self.samples}[self.estimator]

    def _grid(self, shape: tuple[int, ...]) -> torch.Size:
        """Shape of what is changed independently: blocks of pixels, or the units of a code."""
        if len(shape) == 1:
            return torch.Size(shape)
        channels, height, width = shape
        return torch.Size((channels, -(-height // self.cell), -(-width // self.cell)))

    def _moves(self, noise: Noise, shape: tuple[int, ...], step: int, *, at_once: int) -> Iterator[Tensor]:
        """Directions (N, at most `at_once`, *shape) with entries -1, 0 and 1, on the CPU."""
        grid, many = self._grid(shape), self._differences(shape)
        free = grid.numel()
        chosen = torch.arange(free).expand(len(noise), free)
        if self.estimator == "subset":
            chosen = noise.uniform("pixels", free, step=step).topk(many).indices
        for part in torch.arange(many).split(at_once):
            if self.estimator == "directions":
                draws = [noise.uniform("signs", free, step=step * many + one) for one in part.tolist()]
                moves = torch.where(torch.stack(draws, dim=1) > 0.5, 1.0, -1.0)
            else:
                moves = torch.zeros(len(noise), len(part), free)
                moves.scatter_(2, chosen[:, part, None], 1.0)
            yield self._spread(moves.view(len(noise), len(part), *grid), shape)

    def _spread(self, moves: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Moves of blocks (N, k, *grid) as moves of their pixels (N, k, *shape)."""
        if self.cell == 1:
            return moves
        wide = moves.repeat_interleave(self.cell, dim=-2).repeat_interleave(self.cell, dim=-1)
        return wide[..., : shape[-2], : shape[-1]]

    def _confidence(self, scene: Scene[ScoreVictim], x: Tensor, labels: Tensor) -> Tensor:
        """Released p_y (N,) of images x (N, C, H, W)."""
        return scene.victim.scores(x.detach()).gather(1, labels[:, None]).squeeze(1)

    def _aux_slope(self, scene: Scene[ScoreVictim], states: Tensor) -> Tensor:
        """Exact gradients (N, *shape) of aux; the victim is not asked."""
        if self.tv_weight == self.l2_weight == self.mean_weight == 0:
            return torch.zeros_like(states)
        states = states.detach().requires_grad_()
        x = scene.canvas.draw(states)
        aux = self.with_aux(torch.zeros(len(states), device=states.device), x, scene.mean)
        (slope,) = torch.autograd.grad(aux.sum(), states)
        return slope
