"""Mirror's optional penalties on latents, all off by default, for a row of its own each.

Source: An et al., NDSS 2022, the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from mibench.nets.styled import to_p
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.spaces import WSpace

_DRAWS = 10_000  # of w, from which the covariance of P space is estimated


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """Weights of what is added to the identity loss, each >= 0.

    Args:
        critic: of softplus(-D), minus the log-probability of being real.
        start: of the distance to where the search began.
        mean: of the distance to the mean w.
        energy: of the squared Mahalanobis distance to the mean of P space; it takes the place of the box.
            The authors take 1e-4 where they use it.
    """

    critic: float = 0.0
    start: float = 0.0
    mean: float = 0.0
    energy: float = 0.0
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name in ("critic", "start", "mean", "energy"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"penalty: {name} must be >= 0, got {getattr(self, name)}.")

    def of(self, space: WSpace, ctx: Context) -> Callable[[Tensor, Tensor], Tensor] | None:
        """What gives the penalty (R,) of latents and their starts (R, dim each), without the critic's share.

        None where it would be 0.
        """
        if self.start == self.mean == self.energy == 0:
            return None
        center = inverse = torch.zeros(())
        if self.energy > 0:
            p = to_p(space.start(Noise.of_targets(ctx.seed, torch.full((_DRAWS,), -2))))
            center, inverse = p.mean(0), torch.linalg.pinv(torch.cov(p.T), hermitian=True)

        def penalty(latents: Tensor, starts: Tensor) -> Tensor:
            total = latents.new_zeros(len(latents))
            if self.start > 0:
                total = total + self.start * (latents - starts).norm(dim=1)
            if self.mean > 0:
                total = total + self.mean * (latents - space.truncate(latents, 0.0)).norm(dim=1)
            if self.energy > 0:
                away = to_p(latents) - center
                total = total + self.energy * (away @ inverse * away).sum(1)
            return total

        return penalty
