"""The public images that a victim takes for each label with the highest released score."""

from __future__ import annotations

from torch import Tensor

from mibench.data.split import dequantize, quantize
from mibench.prior import Prior
from mibench.victim import ScoreVictim


def rank_public(victim: ScoreVictim, public: Tensor, *, keep: int) -> Prior:
    """The `keep` best of public images (M, C, H, W) for each label; asks about each public image once.

    Keys: `images` (U, C, H, W) uint8, each chosen image once; `rows` (S, K) int64, which of them is s-th best
    for a label; `scores` (S, K), its released p_y. S is the smaller of `keep` and M.
    """
    scores, order = victim.scores(public).cpu().sort(dim=0, descending=True, stable=True)
    chosen, rows = order[:keep].unique(return_inverse=True)
    images = quantize(public[chosen.to(public.device)]).cpu()
    return {"images": images, "rows": rows, "scores": scores[:keep].contiguous()}


def ranked_public(prior: Prior, labels: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W), float32 in [0, 1], and scores (B,) of labels (B,) at ranks (B,), on the CPU.

    After the last kept image of a label its first one comes again.
    """
    at = ranks % len(prior["rows"])
    return dequantize(prior["images"][prior["rows"][at, labels]]), prior["scores"][at, labels]
