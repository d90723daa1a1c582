"""CMA-ES inside the P-space box of a style generator, one instance of the package `cma` for each target.

Coordinates are those of P space, measured from the middle of the box in halves of its width: the box is
[-1, 1]. Source: Hansen and Ostermeier, Evolutionary Computation, 2001, in N. Hansen's package.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mibench.errors import PluginError
from mibench.nets.styled import from_p, to_p
from mibench.noise import Noise
from mibench.spaces import WSpace

from ._evolution import LEAST, Trial

_INSIDE = 1 - 1e-6  # the package wants the start strictly inside its bounds


def require_cma(where: str) -> None:
    """Raise PluginError where the package is not installed."""
    if importlib.util.find_spec("cma") is None:
        raise PluginError(
            f"attack {where}: the engine 'cma_es' needs the package 'cma', which is not installed. "
            "Install 'mibench[cma]', or set engine to 'genetic'."
        )


class CmaEs:
    """One CMA-ES for each row of a chunk; called, some of them go on for one generation.

    Args:
        space: gives the box.
        trial: scores, and the rows' noise.
        start: (T, dim), where each begins; scored at once, so that no result is worse.
        children: latents scored in a generation.
        step_size: first standard deviation as a share of half the box's width.
    """

    def __init__(
        self, space: WSpace, trial: Trial, start: Tensor, *, children: int, step_size: float
    ) -> None:
        require_cma("mirror_bb")
        import cma

        self.trial = trial
        low, high = to_p(space.low), to_p(space.high)
        self.middle, self.half = (low + high) / 2, ((high - low) / 2).clamp_min(LEAST)
        trial.score(trial.all_rows, start[:, None])
        inside = ((to_p(start) - self.middle) / self.half).clamp(-_INSIDE, _INSIDE).cpu().double().numpy()
        self.engines: list[Any] = []
        for row, x in enumerate(inside):
            options = {
                "popsize": children,
                "bounds": [-1.0, 1.0],
                "randn": _normals(trial.noise[slice(row, row + 1)]),
                "seed": math.nan,  # numpy's global generator is left alone
                "verbose": -9,
                "verb_log": 0,
            }
            self.engines.append(cma.CMAEvolutionStrategy(x, step_size, options))

    def __call__(self, rows: Tensor, _generation: int) -> None:
        """Score one generation of some rows, and tell their engines."""
        numbers = rows.tolist()
        asked = [self.engines[row].ask() for row in numbers]
        u = torch.tensor([[x.tolist() for x in points] for points in asked], dtype=torch.float32)
        scores = self.trial.score(rows, from_p(self.middle + u.to(rows.device) * self.half))
        costs = -scores.clamp_min(LEAST).log().double().cpu()
        for row, points, cost in zip(numbers, asked, costs.tolist()):
            self.engines[row].tell(points, cost)
            if self.engines[row].stop():  # converged: more queries would bring nothing
                self.trial.is_done[row] = True


def _normals(noise: Noise) -> Callable[..., Any]:
    """What draws normal arrays of any shape, float64, for the package: of one row's stream, call by call."""
    calls = 0

    def draw(*shape: int) -> Any:  # noqa: ANN401 (a numpy array)
        nonlocal calls
        calls += 1
        return noise.normal("cma-es", *shape, step=calls)[0].double().numpy()

    return draw
