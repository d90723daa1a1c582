"""Runs the plugin of a submission, which is code of others, in processes of its own.

This process never imports it: what compares cannot be changed by what is compared. What it prints goes into a
file. It is not confined: it can do what the user can who runs it; see docs/submit.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from mibench.atomic import write_atomically
from mibench.boards.bundle import SUITE, Bundle
from mibench.boards.comparing import Difference, equal_records
from mibench.boards.submitted import read_submitted
from mibench.errors import BoardError
from mibench.record import Record

LOG = "run.log"
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "CUDA_VISIBLE_DEVICES")
_SETTINGS = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
_DONE, _CELL_FAILED = 0, 3  # exit codes of `mibench run`


@dataclass(frozen=True)
class Rerun:
    """What the plugin gave here.

    Args:
        folder: where its results lie.
        pairs: of each measured cell the record as submitted, and as made here.
        missing: cells that ended otherwise than the bundle says.
        is_same_bits: whether every record is the submitted one bit for bit.
    """

    folder: Path
    pairs: tuple[tuple[Record, Record], ...]
    missing: tuple[Difference, ...]
    is_same_bits: bool


def rerun(bundle: Bundle, folder: Path, *, split: Path | None, jobs: int, device: torch.device) -> Rerun:
    """Run the suite of a bundle with its plugin in a new folder, with a store of its own.

    Args:
        bundle: that brings both.
        folder: for the results; must not be there, or be empty.
        split: file of prepared faces in place of the suite's data.
        jobs: worker processes.
        device: where to compute.

    Raises:
        BoardError: the folder is in use, or the run stopped.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BoardError(f"folder {folder}: is not empty. Give --out a new one, so that nothing old counts.")
    command = [sys.executable, "-m", "mibench", "run", _written(bundle, folder), "--out", str(folder)]
    plugin = folder / f"{bundle.manifest.plugin}.py"
    if plugin.is_file():
        command += ["--plugin", str(plugin)]
    if split is not None:
        command += ["--split", str(split)]
    command += ["--jobs", str(jobs), "--device", str(device.type)]
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | _SETTINGS
    with (folder / LOG).open("wb") as log:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, check=False
        )
    if done.returncode not in {_DONE, _CELL_FAILED}:
        raise BoardError(
            f"{bundle.where}: its suite does not run here (exit code {done.returncode}). See {folder / LOG}."
        )
    return _compared(bundle, folder)


def _written(bundle: Bundle, folder: Path) -> str:
    """The path of the suite; writes it and the plugin into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SUITE, bundle.read(SUITE))
    source = bundle.source
    if source is not None:
        write_atomically(folder / f"{bundle.manifest.plugin}.py", source)
    return str(folder / SUITE)


def _compared(bundle: Bundle, folder: Path) -> Rerun:
    """The records of a run beside the submitted ones."""
    file = folder / bundle.manifest.suite.name / "records.jsonl"
    try:
        lines = [line for line in file.read_bytes().splitlines() if b'"status": "failed"' not in line]
    except OSError as error:
        raise BoardError(
            f"{bundle.where}: its run left no records ({error.strerror}). See {folder / LOG}."
        ) from error
    found = {record.cell: record for record in read_submitted(b"\n".join(lines), f"records {file}")}
    pairs, missing = [], []
    for record in bundle.records:
        other = found.get(record.cell)
        if other is None or other.status != record.status:
            told = "failed, or no such cell" if other is None else other.status
            missing.append(Difference(record.cell, "status", record.status, told))
        elif record.status == "ok":
            pairs.append((record, other))
    is_same = not missing and all(equal_records(*pair) for pair in pairs)
    return Rerun(folder, tuple(pairs), tuple(missing), is_same)
