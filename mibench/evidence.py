"""What the deployed victim and the judges say of each reconstruction of a cell, from stored artifacts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mibench.data.split import dequantize
from mibench.nets.classifier import head_logits
from mibench.rates import in_top
from mibench.report.evidence import Shot
from mibench.stages.protecting import deployed
from mibench.stages.work import trained_net
from mibench.store import Artifact, Store
from mibench.task import Cell, Model

_CHUNK = 256  # images in one pass of a judge
_DIGITS = 6  # more would tell machines apart, and nothing about faces


class Gallery:
    """The private training images, and the judges: the same for every cell of a plan.

    Args:
        private: `data` artifact of the private people.
        judge: artifact of the judge.
        audit: artifact of the audit judge, or None.
        device: where to compute.
        max_batch: images that a victim is asked about at once, as when it was measured: in the last digits
            an answer may depend on it.
    """

    def __init__(
        self,
        private: Artifact,
        judge: Artifact,
        *,
        audit: Artifact | None,
        device: torch.device,
        max_batch: int,
    ) -> None:
        self.images = private.tensors["train_images"]
        self.labels = private.tensors["train_labels"]
        self.device, self.max_batch = device, max_batch
        self.judge = trained_net(judge, device)
        self.audit = None if audit is None else trained_net(audit, device)

    @cached_property
    def features(self) -> Tensor:
        """The judge's features of all private training images, (N, D), float32, on the CPU."""
        return self.features_of(self.images)

    def features_of(self, images: Tensor) -> Tensor:
        """The judge's penultimate features of images (B, C, H, W), uint8: (B, D), float32, on the CPU."""
        return _asked(self.judge.features, images, self.device)

    def real(self, labels: list[int], count: int) -> Tensor:
        """The first training images of each label, (T, R, C, H, W), uint8, R at most count, alike for all."""
        own = [self.images[self.labels == label][:count] for label in labels]
        least = min(len(images) for images in own)
        return torch.stack([images[:least] for images in own])


@dataclass(frozen=True)
class Faces:
    """One attacked model's reconstructions.

    Args:
        images: (B, C, H, W), uint8.
        targets: (B,), int64.
        nearest: (B,), int64; number of the private training image nearest to each in the judge's features.
    """

    images: Tensor
    targets: Tensor
    nearest: Tensor


def look(cell: Cell, store: Store, gallery: Gallery) -> tuple[list[Faces], list[Shot]] | None:
    """Every reconstruction of a cell, and what each model says of it; None where artifacts are gone.

    Args:
        cell: that was measured.
        store: where its artifacts lie.
        gallery: of its plan.
    """
    faces: list[Faces] = []
    shots: list[Shot] = []
    for number, model in enumerate(cell.models):
        invert, train = (_get(store, key) for key in (model.invert, model.train))
        output = None if model.output is None else _get(store, model.output)
        if invert is None or train is None or (output is None and model.output is not None):
            return None
        victim = deployed(trained_net(train, gallery.device), output, gallery.device, gallery.max_batch)
        seen, told = _of_model(model, invert, victim, gallery)
        faces.append(seen)
        shots += [Shot(model=number, **row) for row in told]
    return faces, shots


def _get(store: Store, key: str) -> Artifact | None:
    return store.get(key) if store.contains(key) else None


def _of_model(
    model: Model, invert: Artifact, victim: nn.Module, gallery: Gallery
) -> tuple[Faces, list[dict[str, Any]]]:
    """The faces of one model, and the fields of a `Shot` of each but for the model's number."""
    images, targets = invert.tensors["images"], invert.tensors["targets"]
    features = gallery.features_of(images)
    near = neighbors(features, targets, gallery.features, gallery.labels)
    judged = head_logits(gallery.judge, features, max_batch=_CHUNK)
    released = _asked(victim, images, gallery.device, chunk=gallery.max_batch)
    audited = None if gallery.audit is None else _asked(gallery.audit, images, gallery.device)
    labels, nobody = targets.tolist(), [None] * len(targets)
    columns: dict[str, list[Any]] = {
        "label": labels,
        "index": [labels[:i].count(label) for i, label in enumerate(labels)],
        "protected": [label in model.protects for label in labels],
        "confidence": _short(invert.tensors["confidence"]),
        "loss": _short(invert.tensors["effort.loss"][-1]) if "effort.loss" in invert.tensors else nobody,
        **_said("victim", released, released, targets),
        **_said("judge", judged, judged.softmax(1), targets),
        "audit_top": nobody,
        "audit_p": nobody,
        **({} if audited is None else _said("audit", audited, audited.softmax(1), targets)),
        "nearest": near["nearest"].tolist(),
        "nearest_label": gallery.labels[near["nearest"]].tolist(),
        "distance": _short(near["distance"]),
        "own_distance": _short(near["own_distance"]),
        "other_label": gallery.labels[near["other"]].tolist(),
        "other_distance": _short(near["other_distance"]),
    }
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    return Faces(images, targets, near["nearest"]), rows


def neighbors(features: Tensor, targets: Tensor, real: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The private training images nearest to reconstructions, by Euclidean distance of features.

    In float64, and without the matrix product that torch takes by default: that one subtracts squares, and of
    a small distance between large features no digit is left.

    Args:
        features: (B, D), B >= 1, of the reconstructions.
        targets: (B,), int64, whom each should show.
        real: (N, D), of all private training images.
        labels: (N,), int64, whom they show.

    Returns:
        (B,) each: `nearest`, number of the image, and its `distance`; `own_distance` to the nearest image of
        the target; `other`, number of the nearest image of anybody else, and its `other_distance`.
    """
    exact, parts = real.double(), []
    for part, wanted in zip(features.split(_CHUNK), targets.split(_CHUNK)):
        distances = torch.cdist(part.double(), exact, compute_mode="donot_use_mm_for_euclid_dist")
        is_own = labels[None] == wanted[:, None]
        own = distances.masked_fill(~is_own, math.inf).amin(1)
        parts.append((*distances.min(1), own, *distances.masked_fill(is_own, math.inf).min(1)))
    names = ("distance", "nearest", "own_distance", "other_distance", "other")
    return {name: torch.cat(column) for name, column in zip(names, zip(*parts))}


def _said(who: str, scores: Tensor, shares: Tensor, targets: Tensor) -> dict[str, list[Any]]:
    """The label that scores (B, K) put first, and the target's share (B, K); ties are no hits, as in AA."""
    hits = in_top(scores, targets, places=1)
    others = scores.scatter(1, targets[:, None], -math.inf).argmax(1)
    wanted = shares.gather(1, targets[:, None]).squeeze(1)
    return {f"{who}_top": torch.where(hits, targets, others).tolist(), f"{who}_p": _short(wanted)}


def _asked(
    net: Callable[[Tensor], Tensor], images: Tensor, device: torch.device, *, chunk: int = _CHUNK
) -> Tensor:
    """What a net says of images (B, C, H, W), uint8: (B, K), float32, on the CPU."""
    with torch.no_grad():
        return torch.cat([net(dequantize(part).to(device)).cpu() for part in images.split(chunk)]).float()


def _short(values: Tensor) -> list[float | None]:
    """Numbers (B,) with six significant digits; None for NaN and infinities."""
    return [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in values.tolist()]
