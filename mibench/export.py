"""The images of every measured cell as files: real ones, reconstructions, and the nearest real ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mibench.data.split import dequantize
from mibench.key import Key
from mibench.plan import Plan
from mibench.record import Record
from mibench.report import save_cell_images
from mibench.report.frame import may_show_images
from mibench.stages.work import trained_net
from mibench.store import Artifact, Store
from mibench.task import Cell

_LOG = logging.getLogger(__name__)
REAL_IMAGES = 2  # of each label, as many as a page shows


def export_images(
    plan: Plan, store: Store, records: Sequence[Record], folder: Path, *, device: torch.device
) -> list[Path]:
    """Write `folder/cells/<cell>/` for every measured cell whose images may be shown; returns the files.

    Nearest means: of all private training images the one with the closest features of the judge. A cell that
    has its images already is left alone, since its name covers all that they depend on.

    Args:
        plan: of the run.
        store: where its artifacts lie; cells whose images or judge are gone from it are left out, with one
            warning for all.
        records: of the plan's cells, in their order.
        folder: of the results.
        device: where the judge computes.
    """
    files = []
    gallery: _Gallery | None = None
    left_out = 0
    for cell, record in zip(plan.cells, records, strict=True):
        place = folder / "cells" / cell.id
        if record.status != "ok" or not may_show_images(vars(record)):
            continue
        if (place / "reconstructions.png").is_file():
            continue
        inputs = plan.tasks[cell.measure].inputs
        if gallery is None:  # data and judge are the same for every cell of a plan
            gallery = _gallery(store, inputs["private"], inputs["judge"], device)
        exported = [] if gallery is None else _export(cell, store, gallery, place)
        files += exported
        left_out += not exported
    if left_out:
        _LOG.warning(
            "images of %d cells: left out, since their artifacts are gone from store %s. "
            "Remove the cells' measurements from it, or take another store, to make them again.",
            left_out,
            store.root,
        )
    return files


class _Gallery:
    """The private training images, and the judge who finds the nearest of them."""

    def __init__(self, private: Artifact, judge: Artifact, device: torch.device) -> None:
        self.images = private.tensors["train_images"]
        self.labels = private.tensors["train_labels"]
        self.device = device
        self.net = trained_net(judge, device)

    @cached_property
    def features(self) -> Tensor:
        """Features of all private training images, (N, D)."""
        return self._features(self.images)

    def _features(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [self.net.features(dequantize(x).to(self.device)).cpu() for x in images.split(256)]
        return torch.cat(parts)

    def nearest(self, images: Tensor) -> Tensor:
        """The private training image nearest to each of images (B, C, H, W), all uint8."""
        return self.images[torch.cdist(self._features(images), self.features).argmin(1)]

    def real(self, labels: Sequence[int]) -> Tensor:
        """The first training images of each label, (T, R, C, H, W), uint8, equally many for each."""
        own = [self.images[self.labels == label][:REAL_IMAGES] for label in labels]
        count = min(len(images) for images in own)
        return torch.stack([images[:count] for images in own])


def _gallery(store: Store, private: Key, judge: Key, device: torch.device) -> _Gallery | None:
    """The gallery, or None where what it shows is gone from the store."""
    found = _get(store, private), _get(store, judge)
    return None if found[0] is None or found[1] is None else _Gallery(found[0], found[1], device)


def _get(store: Store, key: Key) -> Artifact | None:
    return store.get(key) if store.contains(key) else None


def _export(cell: Cell, store: Store, gallery: _Gallery, place: Path) -> list[Path]:
    """The files of one cell; a label that several models were attacked on shows the first of them."""
    rows: dict[int, Tensor] = {}
    for model in cell.models:
        found = _get(store, model.invert)
        if found is None:
            return []
        for label in model.targets:
            rows.setdefault(label, found.tensors["images"][found.tensors["targets"] == label])
    got = torch.stack(list(rows.values()))
    nearest = gallery.nearest(got.flatten(0, 1)).unflatten(0, got.shape[:2])
    return save_cell_images(
        place,
        _tiles(gallery.real(list(rows))),
        _tiles(got),
        _tiles(nearest),
        labels=list(rows),
        protected=[label in cell.protected for label in rows],
    )


def _tiles(images: Tensor) -> npt.NDArray[np.uint8]:
    """(T, n, C, H, W) uint8 to arrays with the channel last."""
    tiles: npt.NDArray[np.uint8] = images.permute(0, 1, 3, 4, 2).numpy()
    return tiles
