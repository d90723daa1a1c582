"""What lies beside a cell's page: its images, what each model says of them, a suite of the cell alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mibench.atomic import write_atomically
from mibench.errors import RecordError, SuiteError
from mibench.evidence import Faces, Gallery, look
from mibench.one_cell import cell_suite, check_cell_suite, plugin_files
from mibench.plan import Plan
from mibench.record import Record
from mibench.report import remove_cell_images, save_cell_images
from mibench.report.evidence import FILE, SUITE_FILE, Evidence, facts_of, read_evidence
from mibench.report.frame import WITHHELD, may_show_images
from mibench.report.places import withheld
from mibench.store import Artifact, Store
from mibench.task import Cell
from mibench.zoo import in_zoo

_LOG = logging.getLogger(__name__)
REAL_IMAGES = 2  # of each label, as many as a page shows


def export_images(
    plan: Plan, store: Store, records: Sequence[Record], folder: Path, *, device: torch.device
) -> list[Path]:
    """Write `folder/cells/<cell>/` for every cell: suite, evidence and images; returns the files.

    Images that may not be shown go to `folder/withheld/`, which git ignores; those that a run under other
    terms left in the cell's folder are removed. Nearest means: of all private training images the one with
    the closest features of the judge. What a cell has already is not computed again, since its name covers
    all that it depends on; files whose content stays are not touched.

    Args:
        plan: of the run.
        store: where its artifacts lie; cells whose models, images or judge are gone from it have neither
            images nor evidence, with one warning for all.
        records: of the plan's cells, in their order.
        folder: of the results.
        device: where judges and victims compute.
    """
    export = _Export(plan, store, folder, device)
    for cell, record in zip(plan.cells, records, strict=True):
        export.cell(cell, record)
    if export.left_out:
        _LOG.warning(
            "images of %d cells: left out, since their artifacts are gone from store %s. "
            "Remove the cells' measurements from it, or take another store, to make them again.",
            export.left_out,
            store.place,
        )
    return export.files


class _Export:
    """The files of a plan's cells as they are written."""

    def __init__(self, plan: Plan, store: Store, folder: Path, device: torch.device) -> None:
        self.plan, self.store, self.folder, self.device = plan, store, folder, device
        self.files: list[Path] = []
        self.left_out = 0
        self._gallery: Gallery | None = None
        self._is_gone = False

    def cell(self, cell: Cell, record: Record) -> None:
        """Write what a cell lacks."""
        place = self.folder / "cells" / cell.id
        before = _known(place)
        shots = None if before is None else before.shots
        may_show = may_show_images(vars(record))
        if not may_show:
            remove_cell_images(place)
        pictures = place if may_show else self.folder / WITHHELD / "cells" / cell.id
        shows = not (pictures / "reconstructions.png").is_file()
        if record.status == "ok" and (shows or shots is None):
            gallery = self.gallery(cell)
            found = None if gallery is None else look(cell, self.store, gallery)
            if gallery is None or found is None:
                self.left_out += 1
            else:
                faces, told = found
                shots = tuple(told)
                if shows and not may_show:
                    withheld(self.folder)
                self.files += _save(cell, faces, gallery, pictures) if shows else []
        self.write(
            place / FILE,
            Evidence(
                cell=cell.id,
                facts=facts_of(vars(record)),
                shots=shots,
                files=self.suite_files(cell, place),
                options=_options(self.plan, cell, record),
            )
            .to_json()
            .encode(),
        )

    def suite_files(self, cell: Cell, place: Path) -> tuple[str, ...]:
        """Write the suite of a cell alone and the plugins that it needs; none where no file can say it."""
        try:
            text = cell_suite(self.plan, cell, place)
            if not _holds(place / SUITE_FILE, text.encode()):
                check_cell_suite(text, self.plan, cell, place)
        except SuiteError as error:
            _LOG.warning("%s", error)
            (place / SUITE_FILE).unlink(missing_ok=True)
            return ()
        plugins = plugin_files(self.plan, cell)
        for name, source in plugins.items():
            self.write(place / name, source.read_bytes())
        self.write(place / SUITE_FILE, text.encode())
        return (SUITE_FILE, *plugins)

    def write(self, file: Path, payload: bytes) -> None:
        """Write a file whose content changed."""
        if not _holds(file, payload):
            write_atomically(file, payload)
            self.files.append(file)

    def gallery(self, cell: Cell) -> Gallery | None:
        """The gallery, or None where what it shows is gone from the store."""
        if self._gallery is None and not self._is_gone:  # every cell of a plan has the same
            inputs = self.plan.tasks[cell.measure].inputs
            private, judge = self.artifact(inputs["private"]), self.artifact(inputs["judge"])
            audit = self.artifact(inputs["audit"]) if "audit" in inputs else None
            self._is_gone = private is None or judge is None or (audit is None and "audit" in inputs)
            if private is not None and judge is not None and not self._is_gone:
                batch = self.plan.suite.limits.max_batch
                self._gallery = Gallery(private, judge, audit=audit, device=self.device, max_batch=batch)
        return self._gallery

    def artifact(self, key: str) -> Artifact | None:
        """What the store holds under a key."""
        return self.store.get(key) if self.store.contains(key) else None


def _known(place: Path) -> Evidence | None:
    """The evidence that lies there; None where there is none, or none that can be read."""
    try:
        return read_evidence(place)
    except RecordError:  # of another version, or broken: it is made again
        return None


def _holds(file: Path, payload: bytes) -> bool:
    return file.is_file() and file.read_bytes() == payload


def _options(plan: Plan, cell: Cell, record: Record) -> tuple[str, ...]:
    """What `mibench run` needs beside the files to give the same bits: the kind of device, and the priors."""
    device = "cpu" if record.provenance.get("device") == "cpu" else "cuda"
    keys = plan.ancestors(cell.measure) if cell.measure else set()
    takes_zoo = any(plan.tasks[key].stage == "prior" and in_zoo(key) for key in keys)
    return ("--device", device, *(("--no-zoo",) if takes_zoo and not plan.zoo else ()))


def _save(cell: Cell, faces: Sequence[Faces], gallery: Gallery, place: Path) -> list[Path]:
    """The images of one cell; a label that several models were attacked on shows the first of them."""
    rows: dict[int, tuple[Tensor, Tensor]] = {}
    for model, seen in zip(cell.models, faces):
        for label in model.targets:
            own = seen.targets == label
            rows.setdefault(label, (seen.images[own], gallery.images[seen.nearest[own]]))
    return save_cell_images(
        place,
        _tiles(gallery.real(list(rows), REAL_IMAGES)),
        _tiles(torch.stack([got for got, _ in rows.values()])),
        _tiles(torch.stack([nearest for _, nearest in rows.values()])),
        labels=list(rows),
        protected=[label in cell.protected for label in rows],
    )


def _tiles(images: Tensor) -> npt.NDArray[np.uint8]:
    """(T, n, C, H, W) uint8 to arrays with the channel last."""
    tiles: npt.NDArray[np.uint8] = images.permute(0, 1, 3, 4, 2).numpy()
    return tiles
