"""Residual blocks whose identity shortcuts can be weakened, and where a classifier has them.

Source: Koh et al., ECCV 2024 (arXiv:2409.01696): z' = g(z) + k z, with k = 1 the published blocks.
"""

from __future__ import annotations

from torch import Tensor, nn

from mibench.nets.classifier import Classifier


class Residual(nn.Module):
    """A block g around a shortcut.

    `skip_scale` is k, what is kept of the shortcut, and no parameter or buffer: states of nets do not hold
    it. Who sets it leaves shortcuts alone that are no identity; see `has_identity`.
    """

    skip_scale: float = 1.0

    @property
    def has_identity(self) -> bool:
        """Whether the shortcut hands on its input as it is, and does not project or subsample it."""
        return True

    def join(self, out: Tensor, short: Tensor) -> Tensor:
        """g(z) + k z, for g(z) and z of one shape; the plain sum bit for bit at k = 1, g(z) at k = 0."""
        if self.skip_scale == 0:
            return out
        return out + (short if self.skip_scale == 1 else self.skip_scale * short)


def last_skips(net: Classifier) -> list[Residual]:
    """The blocks with an identity shortcut in the last of a net's stages; empty if there is none."""
    stages = dict(net.named_children()).get("stages")
    if not isinstance(stages, nn.ModuleList):
        return []
    return [block for block in stages[-1].modules() if isinstance(block, Residual) and block.has_identity]
