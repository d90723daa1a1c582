"""What attacks without gradients share: asking about latents in chunks, and the record of the best so far."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mibench.attack import Effort, Reconstructions
from mibench.data.split import quantize
from mibench.inversion import for_each
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
        self,
        space: LatentSpace,
        targets: Tensor,
        ctx: Context,
        confidence: Tensor | None = None,
        *,
        spent: Tensor | None = None,
    ) -> Reconstructions:
        """Images of what the rows hold, with the effort curve; the victim is not asked.

        Args:
            space: a trained generator.
            targets: (B,), int64.
            ctx: gives chunk size.
            confidence: (B,), the victim's scores, or None.
            spent: (B,), int64; queries of each row in all; None where all have spent what was planned. A row
                that had no more to ask counts at later points with what it spent.
        """
        trail, last, shape = [], [], self._latents.shape
        left = (shape[0] - 1) * shape[1]  # rows before those of the last point, the only ones kept as floats
        for part in self._latents.flatten(0, 1).split(ctx.max_batch):
            images = answers(part, space, lambda x: x.cpu(), ctx)
            trail.append(quantize(images))
            last.append(images[max(0, left) :].clone())
            left -= len(part)
        points = self.queries if spent is None else self._paid(spent.cpu())
        effort = Effort(points, torch.cat(trail).unflatten(0, shape[:2]), self._loss.cpu())
        return Reconstructions.collect(torch.cat(last), targets, confidence, effort)

    def _paid(self, spent: Tensor) -> Tensor:
        """Mean queries (S,) at the points of rows that spent (B,) in all, rounded up."""
        return for_each(self.queries[:, None].minimum(spent).sum(1), len(spent))
