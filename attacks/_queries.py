"""What attacks without gradients share: asking about latents in chunks, and the record of the best so far."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mibench.attack import Effort, Reconstructions
from mibench.data.split import quantize
from mibench.latent import checkpoints
from mibench.plugin import Context
from mibench.prior import LatentSpace


def answers(latents: Tensor, space: LatentSpace, ask: Callable[[Tensor], Tensor], ctx: Context) -> Tensor:
    """What `ask` tells about the images of latents (N, dim), in chunks of `ctx.max_batch`: (N, ...)."""
    with torch.no_grad():
        return torch.cat([ask(space.decode(part)) for part in latents.split(ctx.max_batch)])


class Trail:
    """The result of each row at every point of an effort curve, kept while the search goes on.

    Rows may spend their queries at different paces: what a point shows of a row is what that row held when
    it had spent no more than the point's queries.

    Args:
        start: (B, dim), what the rows hold before a first query.
        planned: queries that a row may spend at most, >= 0; the curve's last point.
    """

    def __init__(self, start: Tensor, planned: int) -> None:
        self.queries = torch.tensor(checkpoints(planned))
        self._points = self.queries.to(start.device)
        self._latents = start.expand(len(self._points), *start.shape).clone()
        self._loss = start.new_full(self._latents.shape[:2], torch.nan)

    @property
    def latents(self) -> Tensor:
        """What the rows hold now, (B, dim)."""
        return self._latents[-1]

    def hold(self, rows: Tensor, latents: Tensor, spent: Tensor, loss: Tensor | float = torch.nan) -> None:
        """From now on `rows` hold these latents.

        Args:
            rows: (R,) int64, each at most once.
            latents: (R, dim).
            spent: (R,) int64, queries that the rows have spent by now, never less than before.
            loss: (R,) or one for all, in the attack's own terms.
        """
        later = self._points[:, None] >= spent
        self._latents[:, rows] = torch.where(later[..., None], latents, self._latents[:, rows])
        self._loss[:, rows] = torch.where(later, loss, self._loss[:, rows])

    def collect(
        self, space: LatentSpace, targets: Tensor, ctx: Context, confidence: Tensor | None = None
    ) -> Reconstructions:
        """Images of what the rows hold, with the effort curve; the victim is not asked."""
        shape = self._latents.shape
        images = answers(self._latents.flatten(0, 1), space, lambda x: x.cpu(), ctx).unflatten(0, shape[:2])
        effort = Effort(self.queries, quantize(images), self._loss.cpu())
        return Reconstructions.collect(images[-1], targets, confidence, effort)
