"""`mibench submit verify`: how far the numbers of a submission can be believed.

Three answers: `self-reported`, the bundle is sound and holds nothing to compute from; `recomputed`, every
metric was measured again from its reconstructions by our own judges; `re-run`, its plugin gave these records
here. No code of the submission is run for the first two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mibench.boards.bundle import SUITE, Bundle, open_bundle
from mibench.boards.comparing import Difference, Line, compare_records
from mibench.boards.entry import Trust
from mibench.boards.ground import ground_digest, ground_suite
from mibench.boards.recomputing import Rulers, make_rulers, recomputed
from mibench.boards.rerunning import Rerun, rerun
from mibench.boards.tensors import read_images
from mibench.errors import BoardError
from mibench.flags import with_comparisons
from mibench.record import Record
from mibench.runner import OnEvent, ignore
from mibench.store import Store
from mibench.suite import Suite
from mibench.victim import WhiteBoxVictim

SELF_REPORTED = (
    "queries",
    "notes (spent epsilon, decoys, losses)",
    "silent gradients",
    "answers to real images",
)
"""What only the attacked model can tell, and nothing here recomputes."""
EARNS: dict[Trust, str] = {
    "self-reported": "nothing but its own word; an entry made of it counts as self-reported",
    "recomputed": "its metrics follow from its reconstructions; an entry made of it counts as recomputed",
    "re-run": "its plugin gave these records here; an entry made of it counts as re-run",
}


@dataclass(frozen=True)
class Verdict:
    """What a verification found.

    Args:
        trust: how far it came; of no meaning where something differs.
        lines: how each metric and each other part of the records compares.
        differences: what is not as the records say.
        is_exact: whether equal bits were asked for, because our judges are the submitter's bit for bit.
        cells: number of records, and of those with numbers.
        rerun: what running the plugin gave; None where it was not run.
    """

    trust: Trust
    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]
    is_exact: bool
    cells: tuple[int, int]
    rerun: Rerun | None = None

    @property
    def is_true(self) -> bool:
        """Whether nothing differs from what the records say."""
        return not self.differences


@dataclass(frozen=True)
class How:
    """How to verify.

    Args:
        store: where data and judges lie, or are put.
        suite: ours, to judge by in place of the one that the bundle brings; None takes the bundle's.
        split: file of prepared faces, where the suite is on such.
        jobs: worker processes.
        device: where to compute.
        on_event: told of tasks.
        rerun_to: folder to run the submitted plugin in, which is code of others; None does not run it.
    """

    store: Store
    suite: Suite | None = None
    split: Path | None = None
    jobs: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    on_event: OnEvent = ignore
    rerun_to: Path | None = None


def verify(file: Path, how: How, *, before_rerun: Callable[[Bundle], None] = lambda _: None) -> Verdict:
    """Verify a bundle.

    Args:
        file: the bundle.
        how: with what.
        before_rerun: told before any code of the submission runs; what it raises stops that.

    Raises:
        BoardError: the bundle is not sound, or its suite is not the one that it names.
        MibenchError: data, store or device cannot be used.
    """
    with open_bundle(file) as bundle:
        suite = _ground(bundle, how)
        measured = [record for record in bundle.records if record.status == "ok"]
        counts = len(bundle.records), len(measured)
        verdict = Verdict("self-reported", (), (), is_exact=False, cells=counts)
        if suite is not None and bundle.manifest.cells:
            for record in measured:
                read_images(bundle, record, suite)  # what is wrong is told before anything takes long
            rulers = make_rulers(suite, how.store, device=how.device, jobs=how.jobs, on_event=how.on_event)
            is_exact = bundle.manifest.rulers == rulers.digests()
            pairs = list(zip(measured, _found(bundle, measured, rulers)))
            lines, differences = compare_records(pairs, is_exact=is_exact)
            verdict = Verdict("recomputed", tuple(lines), tuple(differences), is_exact, counts)
        if how.rerun_to is None or not verdict.is_true:
            return verdict
        before_rerun(bundle)
        again = rerun(bundle, how.rerun_to, split=how.split, jobs=how.jobs, device=how.device)
        lines, differences = compare_records(again.pairs, is_exact=verdict.is_exact, is_rerun=True)
        found = (*again.missing, *differences)
        return Verdict("re-run", tuple(lines), found, verdict.is_exact, counts, again)


def _ground(bundle: Bundle, how: How) -> Suite | None:
    """The suite that a bundle is judged by: ours, or its own without its plugin; None where nothing is.

    That is where the bundle has no images, and nobody says where those of its suite lie.

    Raises:
        BoardError: the bundle was measured on another ground, or lacks cells of the suite.
    """
    manifest, where = bundle.manifest, f"{bundle.where}, {SUITE}"
    if not manifest.cells and how.suite is None and how.split is None and how.rerun_to is None:
        return None
    suite = how.suite or ground_suite(bundle.tables, kind=manifest.kind, where=where, split=how.split)
    if ground_digest(suite) != manifest.suite.digest:
        whose = "of this suite" if how.suite else "that it names"
        raise BoardError(
            f"{bundle.where}: was not measured by the settings {whose}, or by another version of mibench. "
            "Run the suite again, and pack it."
        )
    _check_complete(bundle, suite, is_ours=how.suite is not None)
    return suite


def _check_complete(bundle: Bundle, suite: Suite, *, is_ours: bool) -> None:
    """BoardError where a cell that the suite asks for was left out, or one was added."""
    manifest = bundle.manifest
    own = [record for record in bundle.records if getattr(record, manifest.kind)["label"] == manifest.label]
    if manifest.kind == "attack":
        access = {record.attack["access"] for record in own}
        views = suite.white_box if access == {"white-box"} else ("black-box",)
        others = [one.label for one in suite.defenses] if is_ours else list(bundle.tables["defenses"])
        wanted = {(label, view, seed) for label in others for view in views for seed in suite.seeds}
        found = {(record.defense["label"], record.view, record.seed) for record in own}
    else:
        wanted = {
            (attack.label, view, seed)
            for attack in suite.attacks[: suite.crossed]
            for view in _views(suite, attack.plugin.needed_access)
            for seed in suite.seeds
        }
        found = {(record.attack["label"], record.view, record.seed) for record in own}
    for label, view, seed in sorted(wanted - found):
        raise BoardError(
            f"{bundle.where}: lacks the cell with '{label}', {view} view, seed {seed}. Submit all cells."
        )
    for label, view, seed in sorted(found - wanted):
        raise BoardError(
            f"{bundle.where}: has a cell with '{label}', {view} view, seed {seed}, which its suite has not."
        )


def _views(suite: Suite, access: type) -> tuple[str, ...]:
    return suite.white_box if issubclass(access, WhiteBoxVictim) else ("black-box",)


def _found(bundle: Bundle, measured: Sequence[Record], rulers: Rulers) -> list[Record]:
    """The records as they are found here, with the flags that a comparison of the bundle's cells shows."""
    return with_comparisons([recomputed(bundle, record, rulers) for record in measured])
