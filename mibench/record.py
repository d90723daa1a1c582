"""Records: one JSON object a cell, the only source of every table and plot. Needs no torch."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from mibench.errors import RecordError

SCHEMA = 2
SWEEP = "-sweep"  # what the name of a sweep's suite ends with, after the name of the suite that it sweeps in
Json = dict[str, Any]
Status = Literal["ok", "failed", "blocked"]
_NUMBERS = (float, int, type(None))


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one cell gave, with all that is needed to make it again.

    Args:
        suite: name of the suite.
        cell: 12 hexadecimal digits that name the cell.
        attack: label, name, version, params, access (`label`, `score`, `white-box`), control, year, title.
        defense: label, name, version, params, acts, knows, per_target, title; strength, the one of its params
            that makes it stronger or weaker, empty where it has none or the record is older;
            parts, name and version of each, only where several defenses act together.
        view: `stripped` or `deployed` for white-box attacks, `black-box` for any other.
        seed: of the suite.
        data: kind, params, num_classes, size, digest.
        victim_net: name of the victim's architecture.
        judge: net, accuracy, gate, and of the audit judge audit_net and audit_accuracy or null; embedder_net
            and embedder_accuracy only where the suite has an embedder.
        status: `ok`, `failed` (see error) or `blocked` (see error).
        error: stage, type and message; None where the status is ok.
        estimates: by metric {value, low, high, count}, or None where the metric makes no sense.
        metric_info: by metric {title, better, percent}.
        chance: accuracy of guessing, in [0, 1].
        targets: protected, bystanders and attacked labels, images of each.
        queries: forward_per_image, gradient_per_image, prior_forward (images asked about while adapting).
        notes: what training, output step and attack left: a decoy label, a spent epsilon.
        hits: by protected label as text a 0 or 1 for each of its images in order, as text: 1 where the judge
            takes the image for the label.
        effort: {queries, aa, loss} at rising queries for each reconstruction; empty without a curve.
        scrutiny: `restarts` {single, gain} or None, `rise` of AA over the effort curve or None,
            `silent_gradients` in [0, 1] or None; `second_hits`, as `hits`, of `audit` and `embedder`, only
            where the cell has a second opinion; see stages.scrutiny.
        flags: reasons to read the numbers with care.
        keys: measure, and for each model train, output, adapt, invert and the labels that it protects.
        provenance: mibench, torch, python, platform, device, threads.
    """

    suite: str
    cell: str
    attack: Json
    defense: Json
    view: str
    seed: int
    data: Json
    victim_net: str
    judge: Json
    status: Status
    error: Json | None = None
    estimates: dict[str, Json | None] = field(default_factory=dict)
    metric_info: dict[str, Json] = field(default_factory=dict)
    chance: float
    targets: Json
    queries: Json = field(default_factory=dict)
    notes: Json = field(default_factory=dict)
    hits: Json = field(default_factory=dict)
    effort: tuple[Json, ...] = ()
    scrutiny: Json = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    keys: Json = field(default_factory=dict)
    provenance: Json = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> str:
        """One line of JSON; NaN and infinities become null."""
        return json.dumps(finite(vars(self)), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """The record of a line of any schema up to this one.

        Raises:
            RecordError: the line is no JSON object, lacks a field, or comes from a newer mibench.
        """
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise RecordError(f"it is no JSON ({error}). Remove the line or run the suite again.") from error
        if not isinstance(content, dict):
            raise RecordError(f"it is no JSON object, but {content!r:.40}. Remove the line.")
        content = migrate(content)
        known, required = _names()
        missing = [name for name in required if name not in content]
        unknown = [name for name in content if name not in known]
        if missing or unknown:
            what = f"field '{missing[0]}' is missing" if missing else f"there is no field '{unknown[0]}'"
            raise RecordError(f"{what}. Run the suite again.")
        _check_estimates(content)
        lists = {name: tuple(content.get(name, ())) for name in ("flags", "effort")}
        return cls(**{**content, **lists})


@cache
def _names() -> tuple[frozenset[str], tuple[str, ...]]:
    """The fields of a record, and those without a default, in order; asked for 10,000 lines."""
    fields = dataclasses.fields(Record)
    needed = [
        one.name
        for one in fields
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    ]
    return frozenset(one.name for one in fields), tuple(needed)


def _check_estimates(content: Json) -> None:
    """RecordError where a measured cell has no estimates, or one of them is no number."""
    found = content.get("estimates", {})
    if content["status"] == "ok" and not (isinstance(found, dict) and found):
        raise RecordError("its status is 'ok', and it has no estimates. Run the suite again.")
    for name, estimate in found.items() if isinstance(found, dict) else ():
        if estimate is None:
            continue
        ends = ("value", "low", "high")
        # JSON gives these types alone; asking for them exactly takes a third of the time, and leaves out bool
        if type(estimate) is not dict or not all(type(estimate.get(end)) in _NUMBERS for end in ends):
            raise RecordError(f"estimate '{name}' is no number: {estimate!r:.60}. Run the suite again.")


# schema N-1 -> the change that makes it schema N
UPDATES: dict[int, Callable[[Json], Json]] = {
    1: dict,  # schema 2 adds hits, effort and scrutiny, which older runs did not measure
}


def migrate(content: Json) -> Json:
    """A record's content brought to the present schema, one step after the other.

    Raises:
        RecordError: it has no schema, or one that this mibench does not know.
    """
    schema = content.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise RecordError(f"its schema is {schema!r}, known are 1 to {SCHEMA}. Install a newer mibench.")
    while schema < SCHEMA:
        content = UPDATES[schema](content)
        schema += 1
    return {**content, "schema": SCHEMA}


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python from looking for cycles meanwhile; also a decorator.

    It looks anew at all records whenever what was made since is a quarter of them, which took half of the
    time of reading 10,000; and what comes out of JSON has no cycles.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@uncollected()
def read_records(path: Path | str) -> list[Record]:
    """All records of a file, in order.

    Raises:
        RecordError: the file cannot be read, or a line is broken (with its number).
    """
    file = Path(path)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"records {path}: cannot be read ({error}). Give a records.jsonl.") from error
    records = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                records.append(Record.from_json(line))
            except RecordError as error:
                raise RecordError(f"records {path}, line {number}: {error}") from error
    return records


def write_records(path: Path | str, records: Iterable[Record]) -> None:
    """Replace a records file as a whole; a reader never sees a part.

    Raises:
        RecordError: the file cannot be written.
    """
    write_lines(path, [record.to_json() for record in records])


def write_lines(path: Path | str, lines: Iterable[str]) -> None:
    """Replace a file of lines as a whole; RecordError where it cannot be written."""
    file = Path(path)
    # two containers that share a folder may both be process 1
    aside = file.with_name(f"{file.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as opened:
            opened.writelines(f"{line}\n" for line in lines)
            opened.flush()
            os.fsync(opened.fileno())
        aside.replace(file)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RecordError(
            f"records {path}: cannot be written ({error.strerror or error}). "
            "Free some space, or choose another folder."
        ) from error


def finite(value: object) -> object:
    """The same JSON value with None for every NaN and infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: finite(part) for name, part in cast(Json, value).items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value
