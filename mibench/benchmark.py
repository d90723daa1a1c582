"""A whole run: from a suite to records, images, tables, figures and pages in one folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from mibench import report
from mibench.atomic import sweep, write_atomically
from mibench.budget import Choice, LeftOut
from mibench.errors import DeviceError, RecordError
from mibench.executors import MakeExecutor
from mibench.export import export_images
from mibench.plan import Plan
from mibench.record import Record
from mibench.report.evidence import FILE as EVIDENCE
from mibench.report.frame import CELL_NAME, WITHHELD
from mibench.report.left_out import FILE as LEFT_OUT
from mibench.report.left_out import write_left_out
from mibench.runner import Event, OnEvent, TaskFailed, ignore, run
from mibench.status import StatusFile
from mibench.store import Store
from mibench.worker import find_device

FAILURES = "failures.txt"
MADE = "made.json"  # what the report was made of, and its files


@dataclass(frozen=True)
class Bench:
    """What a run left.

    Args:
        records: one a cell, in plan order.
        folder: where everything lies.
        files: the report's files; none without a record.
        left_out: cells without a record, for the budget.
    """

    records: list[Record]
    folder: Path
    files: list[Path]
    left_out: tuple[LeftOut, ...] = ()


def pick_device(name: str) -> torch.device:
    """The device of this name; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        DeviceError: the name is unknown, or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(
                "device 'cuda': there is no CUDA device that torch can use. Take '--device cpu', or ask "
                "`mibench doctor`."
            )
        name = "cuda:0"
    return find_device(name)


def pick_jobs(device: torch.device) -> int:
    """Worker processes that suit a device: one for each core of this process, one for a GPU."""
    if device.type != "cpu":
        return 1
    if hasattr(os, "sched_getaffinity"):  # containers and batch systems give less than the machine has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bench(
    plan: Plan,
    *,
    out: Path = Path("results"),
    store: Path | str | None = None,
    jobs: int | None = None,
    device: str = "auto",
    on_event: OnEvent = ignore,
    executor: MakeExecutor | None = None,
    budget: Choice | None = None,
    left_s: Callable[[], float | None] | None = None,
    task_limit_s: float | None = None,
    served: bool = False,
) -> Bench:
    """Run a plan and write everything under `out/<suite>`; what lay there from another run is replaced.

    Args:
        plan: what to do.
        out: parent of the results folder.
        store: where artifacts lie, a folder or a URL; None takes `out/store`.
        jobs: worker processes; None suits the device.
        device: `auto`, `cpu` or `cuda`.
        on_event: told of everything that happens.
        executor: makes what runs the tasks in place of `jobs` workers of this machine.
        budget: the choice that `plan` is part of; no task starts after its time.
        left_s: seconds that are probably left, for `status.json`.
        task_limit_s: see `mibench.runner.run`.
        served: see `mibench.runner.run`.

    Raises:
        MibenchError: the device is not there, or a folder cannot be read or written.
        KeyboardInterrupt: see `mibench.runner.run`.
    """
    where = pick_device(device)
    folder, shelf = out / plan.suite.name, Store(store or out / "store")
    num_jobs = jobs or pick_jobs(where)
    status = _status_of(plan, folder, shelf, jobs=num_jobs, device=where, budget=budget, left_s=left_s)
    failures: list[str] = []
    with _refusing(folder), status:
        sweep(folder)
        records = run(
            plan,
            shelf,
            jobs=num_jobs,
            device=where,
            on_event=_noting(failures, status, on_event),
            results=folder,
            executor=executor,
            until=math.inf if budget is None else time.monotonic() + budget.budget_s,
            task_limit_s=task_limit_s,
            served=served,
        )
        _tell_failures(folder, failures)
        _drop_other_cells(folder, records)
        ended, left_out = _apart(plan, records, budget, status)
        _tell_left_out(folder, left_out, budget)
        export_images(ended, shelf, records, folder, device=where)
        return Bench(records, folder, _reported(folder) if records else [], left_out)


def _noting(failures: list[str], *watchers: OnEvent) -> OnEvent:
    """Tells watchers of every event, and leaves the traces of failed tasks in a list."""

    def watch(event: Event) -> None:
        if isinstance(event, TaskFailed):
            failures.append(f"{event.task.title} ({event.task.stage})\n{event.failure.trace}\n")
        for watcher in watchers:
            watcher(event)

    return watch


def _status_of(
    plan: Plan,
    folder: Path,
    shelf: Store,
    *,
    jobs: int,
    device: torch.device,
    budget: Choice | None,
    left_s: Callable[[], float | None] | None,
) -> StatusFile:
    """What a run that is about to start says of itself."""
    return StatusFile(
        plan,
        folder,
        jobs=jobs,
        device=str(device),
        todo={key for key, state in plan.status(shelf).items() if state in {"run", "zoo"}},
        left_s=left_s,
        budget_s=None if budget is None else budget.budget_s,
        left_out=0 if budget is None else len(budget.left_out),
    )


@contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into RecordError."""
    try:
        yield
    except OSError as error:
        raise RecordError(
            f"results {folder}: cannot be written ({error.strerror or error}). "
            "Free some space, or choose another folder with --out."
        ) from error


def _tell_failures(folder: Path, failures: list[str]) -> None:
    """Write what failed tasks raised; the file of an earlier run goes."""
    (folder / FAILURES).unlink(missing_ok=True)
    if failures:
        (folder / FAILURES).write_text("\n".join(failures), encoding="utf-8")


def _apart(
    plan: Plan, records: list[Record], budget: Choice | None, status: StatusFile
) -> tuple[Plan, tuple[LeftOut, ...]]:
    """The part of a plan that has records, and the cells without, which the budget left out."""
    has_record = {record.cell for record in records}
    ended = tuple(cell for cell in plan.cells if cell.id in has_record)
    if budget is None:
        return dataclasses.replace(plan, cells=ended), ()
    why = f"the budget of {budget.budget_s:.0f} s was spent"
    late = tuple(LeftOut(cell, why) for cell in plan.cells if cell.id not in has_record)
    if late:
        status.stopped_for(why)
    return dataclasses.replace(plan, cells=ended), (*late, *budget.left_out)


def _tell_left_out(folder: Path, left_out: tuple[LeftOut, ...], budget: Choice | None) -> None:
    """Write which cells are left out; the note of an earlier run goes."""
    cells = [
        {
            "attack": one.cell.attack.label,
            "defense": one.cell.defense.label,
            "view": one.cell.view,
            "seed": one.cell.seed,
            "why": one.why,
        }
        for one in left_out
    ]
    write_left_out(folder, budget_s=0.0 if budget is None else budget.budget_s, cells=cells)


def _drop_other_cells(folder: Path, records: list[Record]) -> None:
    """Remove the images and pages of cells that this run does not have."""
    kept = {record.cell for record in records}
    for place in sorted([*(folder / "cells").glob("*"), *(folder / WITHHELD / "cells").glob("*")]):
        if place.is_dir() and CELL_NAME.fullmatch(place.name) and place.name not in kept:
            shutil.rmtree(place)


def _reported(folder: Path) -> list[Path]:
    """The report's files, drawn anew unless the same records and the same code made those that lie there."""
    made, source = folder / MADE, _source_of_report(folder)
    old: list[str] = []
    try:
        earlier = json.loads(made.read_text(encoding="utf-8"))
        files = [folder / name for name in earlier["files"]]
        old = list(earlier["files"])
        is_fresh = earlier["source"] == source and all(file.is_file() for file in files)
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or not ours: draw
        is_fresh = False
    if not is_fresh:
        made.unlink(missing_ok=True)  # or else a run that is killed while it draws leaves the note of another
        files = report.write_all(folder)
        names = [file.relative_to(folder).as_posix() for file in files]
        for name in set(old) - set(names):
            if (
                (folder / name).resolve().is_relative_to(folder.resolve())
            ):  # a note may have been tampered with
                (folder / name).unlink(missing_ok=True)
        value = json.dumps({"source": source, "files": names}, indent=1) + "\n"
        write_atomically(made, value.encode())
    return files


def _source_of_report(folder: Path) -> str:
    """SHA-256 over the records, what lies beside the cells' pages, and the report's code and templates."""
    digest = hashlib.sha256((folder / "records.jsonl").read_bytes())
    for file in [*sorted(folder.glob(f"cells/*/{EVIDENCE}")), *folder.glob(LEFT_OUT)]:
        digest.update(file.read_bytes())
    for file in sorted(Path(report.__file__).parent.rglob("*")):
        if file.suffix in {".py", ".j2"}:
            digest.update(file.read_bytes())
    return digest.hexdigest()
