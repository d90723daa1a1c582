"""A second look at a cell: who leaks, what the effort bought, and whether gradients were masked.

The signs of masked gradients follow Athalye et al., ICML 2018, and AutoAttack (Croce and Hein, ICML 2020);
those that compare cells are drawn from the records, in `mibench.flags`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mibench.data.split import dequantize
from mibench.masking import silent
from mibench.metric import Case, Estimate
from mibench.plugin import Context
from mibench.rates import gain, in_top, rate

Json = dict[str, Any]
_PROBES = 32  # public images whose gradients are looked at


@dataclass(frozen=True)
class Attacked:
    """One model of a cell, as the attacker saw it.

    Args:
        view: images -> differentiable logits, for a white-box attack; None for any other.
        device: where it computes.
        tensors: of the `invert` artifact.
    """

    view: Callable[[Tensor], Tensor] | None
    device: torch.device
    tensors: Mapping[str, Tensor]


def scrutiny(case: Case, models: Sequence[Attacked], ctx: Context) -> Json:
    """What a record says of a cell beside its metrics.

    Keys: `hits`, by protected label as text a 0 or 1 for each image in order; `effort`, list of {queries,
    aa, loss};
    `restarts`, {single, gain} or None; `rise`, gain of AA over the effort curve, or None;
    `second_hits`, the same as `hits` of the `audit` judge and the `embedder`, only where the cell has one;
    `silent_gradients`, share of images whose gradient is nothing, or None without a white-box view.
    """
    hits = in_top(case.logits, case.got.targets, places=1)
    rows = case.protected
    labels = case.got.targets[rows]
    curve = _effort(case, models)
    found: Json = {"hits": _by_label(hits[rows], labels), "effort": [], "restarts": None, "rise": None}
    if curve is not None:
        found["effort"] = [_point(*step, labels) for step in curve]
        found["rise"] = _json(gain(curve[0][1], curve[-1][1], labels, ctx.child("rise")))
    single = _single(case, models)
    if single is not None:
        found["restarts"] = {
            "single": _json(rate(single, labels)),
            "gain": _json(gain(single, hits[rows], labels, ctx.child("restarts"))),
        }
    seconds = _seconds(case)
    if seconds:
        found["second_hits"] = {name: _by_label(opinion[rows], labels) for name, opinion in seconds.items()}
    return {**found, "silent_gradients": _silent_share(case, models)}


def _seconds(case: Case) -> dict[str, Tensor]:
    """(B,) bool by name: second opinions that take a reconstruction for its label, as the judge does."""
    opinions = {}
    if case.audit is not None:
        opinions["audit"] = case.audit_logits
    if case.embedder is not None:
        opinions["embedder"] = case.likeness
    return {name: in_top(opinion, case.got.targets, places=1) for name, opinion in opinions.items()}


def _by_label(hits: Tensor, labels: Tensor) -> dict[str, str]:
    """Hits (N,) as text, a 0 or 1 for each row of a label in order, by label (N,) as text."""
    return {
        str(label): "".join("01"[hit] for hit in hits[labels == label].tolist())
        for label in labels.unique().tolist()
    }


def _effort(case: Case, models: Sequence[Attacked]) -> list[tuple[int, Tensor, Tensor]] | None:
    """(queries, hits (N,), losses (N,)) at each checkpoint for protected labels, or None without a curve.

    Models of one cell are attacked alike, but searches that stop early ask each a little differently: the
    queries are their mean over reconstructions. Curves of different lengths are not mixed.
    """
    curves = [model.tensors.get("effort.queries") for model in models]
    known = [curve for curve in curves if curve is not None]
    if len(known) < len(curves) or len({len(curve) for curve in known}) != 1:
        return None
    rows = torch.tensor([len(model.tensors["targets"]) for model in models], dtype=torch.float64)
    queries = (torch.stack(known).double() * rows[:, None]).sum(0) / rows.sum()
    images = torch.cat([model.tensors["effort.images"] for model in models], dim=1)[:, case.protected]
    losses = torch.cat([model.tensors["effort.loss"] for model in models], dim=1)[:, case.protected]
    targets = case.got.targets[case.protected]
    return [
        (round(float(q)), judged_hits(case, x, targets), loss) for q, x, loss in zip(queries, images, losses)
    ]


def _single(case: Case, models: Sequence[Attacked]) -> Tensor | None:
    """Hits (N,) of protected labels by the first restart alone; None where there was one restart."""
    parts = [model.tensors.get("effort.single") for model in models]
    if any(part is None for part in parts):
        return None
    images = torch.cat([part for part in parts if part is not None])[case.protected]
    return judged_hits(case, images, case.got.targets[case.protected])


def judged_hits(case: Case, pixels: Tensor, targets: Tensor) -> Tensor:
    """(N,) bool: the judge takes images (N, C, H, W), uint8, for targets (N,)."""
    return in_top(case.judge_logits(dequantize(pixels)), targets, places=1)


def _silent_share(case: Case, models: Sequence[Attacked]) -> float | None:
    """Share of public images whose cross-entropy towards a protected label has no gradient."""
    labels = case.got.targets[case.protected].unique()
    public = case.defender_public
    num = min(_PROBES, len(public))
    images = public.rows(torch.arange(num) * len(public) // num)  # they lie person by person
    found = []
    for model in models:
        if model.view is None:
            return None
        wanted = labels[torch.arange(num) % len(labels)].to(model.device)
        found.append(silent(model.view, images.to(model.device), wanted))
    return float(torch.cat(found).float().mean())


def _point(queries: int, hits: Tensor, losses: Tensor, labels: Tensor) -> Json:
    loss = float(losses.nanmean())
    return {
        "queries": queries,
        "aa": _json(rate(hits, labels)),
        "loss": loss if math.isfinite(loss) else None,
    }


def _json(estimate: Estimate | None) -> Json | None:
    if estimate is None:
        return None
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "count": estimate.count}
