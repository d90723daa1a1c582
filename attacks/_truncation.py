"""A style generator whose coarse layers take styles near the mean, where images are natural.

The search still moves the untruncated w: truncation is a part of the generator.
Source: Karras et al., CVPR 2019 (arXiv:1812.04948), the truncation trick.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mibench.nets.styled import StyledGenerator
from mibench.spaces import WSpace


class TruncatedSpace(WSpace):
    """The space of w with some of the styles moved towards the mean w before they are drawn.

    Args:
        space: the space without truncation.
        psi: share of the distance to the mean w that is kept, in [0, 1].
        layers: so many styles are moved, from the coarsest on.
    """

    def __init__(self, space: WSpace, *, psi: float, layers: int) -> None:
        generator = space.g
        assert isinstance(generator, StyledGenerator)
        super().__init__(generator, space.d, space.low, space.high)
        self._generator, self._psi, self._layers = generator, psi, min(layers, generator.num_ws)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of w, with the stored noise."""
        near, far = self._layers, self._generator.num_ws - self._layers
        moved = self._generator.truncate(latents, self._psi)[:, None].expand(-1, near, -1)
        return self._generator.synthesis(torch.cat([moved, latents[:, None].expand(-1, far, -1)], dim=1))


def truncated(space: WSpace, *, psi: float, layers: int) -> WSpace:
    """The space with the first `layers` styles truncated by psi; psi 1 or no layers leave it alone."""
    return space if psi == 1 or layers == 0 else TruncatedSpace(space, psi=psi, layers=layers)


def check_truncation(where: str, *, psi: float, layers: int) -> None:
    """Raise ValueError where a share is no share or a number of layers is negative."""
    if not 0 <= psi <= 1:
        raise ValueError(f"{where}: psi must lie in [0, 1], got {psi}.")
    if layers < 0:
        raise ValueError(f"{where}: psi_layers must be >= 0, got {layers}.")
