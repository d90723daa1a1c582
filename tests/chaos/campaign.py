"""The whole of it: an undisturbed run, the storms, shared stores, Ray, and the report."""

import importlib.util
import json
import platform
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mibench.choose import choose
from mibench.plan import Plan, build_plan
from mibench.provenance import package_version

from .command import Command, store_of
from .noting import RAN, STARTED
from .repeats import repeats_of
from .storm import KINDS, PATIENCE_S, SHARES, Kind, Round, storm
from .timeline import Note, Timeline
from .verdict import left_after_sweep, left_elsewhere, left_running, unsound

Json = dict[str, Any]
_ALMOST = 0.999  # of the undisturbed run: later than that a process is gone before it is killed


def divide(kills: int, shares: list[float]) -> list[int]:
    """Kills for each kind, by its share; what rounding leaves goes to the first ones that have a share.

    >>> divide(10, [0.5, 0.25, 0.25])
    [6, 2, 2]
    """
    counts = [int(kills * share / sum(shares)) for share in shares]
    for i in range(kills - sum(counts)):
        counts[i % len(counts)] += 1
    return counts


@dataclass
class Tally:
    """What has come of one kind of kill, over all its rounds."""

    at: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    rounds: int = 0
    started: int = 0
    executed: int = 0
    left_to_sweep: int = 0
    differing: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    def to_json(self) -> Json:
        """As it stands in the report."""
        return {
            "kills": self.at.total(),
            "killed_at": dict(sorted(self.at.items())),
            "restarts": self.restarts,
            "stores": self.rounds,
            "tasks_started": self.started,
            "tasks_executed": self.executed,
            "tasks_repeated": dict(sorted(self.repeated.items())),
            "files_left_to_sweep": self.left_to_sweep,
            "records_equal": not self.differing,
            "faults": self.faults + self.differing,
            "wall_s": round(self.wall_s, 1),
        }


class Campaign:
    """All runs of one report.

    Args:
        folder: of all stores and logs.
        seed: of the moments and the victims.
        has_ray: whether runs over Ray are wanted; there are none where it is not installed.
    """

    def __init__(self, folder: Path, *, seed: int, has_ray: bool = True) -> None:
        self.folder, self.seed, self.dice = folder, seed, random.Random(seed)
        self.has_ray = has_ray and importlib.util.find_spec("ray") is not None
        self.plan: Plan = build_plan(choose("smoke"))
        self.records = b""
        self.alike: Json = {}
        self.storms: Json = {}

    def go(self, kills: int) -> Iterator[Json]:
        """Do everything; the report so far, after each part, since all of it takes long."""
        began = time.monotonic()
        timeline = self.calm()
        kinds = [one for one in zip(KINDS, SHARES) if self.has_ray or "ray" not in one[0].name]
        counts = divide(kills, [share for _, share in kinds])
        parts: list[tuple[Json, str, Callable[[], Json]]] = [
            (self.alike, f"shared_by_{count}", partial(self.shared, count)) for count in (2, 4)
        ]
        if self.has_ray:
            ray = partial(self.alone, "ray", "--executor", "ray", "--jobs", "2")
            parts.append((self.alike, "ray_with_2_workers", ray))
        for (kind, _), count in zip(kinds, counts):
            parts.append((self.storms, kind.name, partial(self.kind, kind, count, timeline)))
        for found, name, do in parts:
            found[name] = do()
            yield self.report(kills, timeline, time.monotonic() - began)

    def report(self, kills: int, timeline: Timeline, wall_s: float) -> Json:
        """What there is by now; sound where nothing is wrong and nothing is left to do."""
        found = {**self.alike, **self.storms}
        faults = [f"{name}: {fault}" for name, one in found.items() for fault in one["faults"]]
        killed = sum(one["kills"] for one in self.storms.values())
        return {
            "suite": "smoke",
            "mibench": package_version(),
            "python": platform.python_version(),
            "seed": self.seed,
            "tasks": len(self.plan.tasks),
            "cells": len(self.plan.cells),
            "undisturbed_s": round(timeline.ended - timeline.began, 1),
            "kills": killed,
            "restarts": sum(one["restarts"] for one in self.storms.values()),
            "storms": self.storms,
            "undisturbed": self.alike,
            "faults": faults,
            "sound": not faults and killed == kills,
            "wall_s": round(wall_s, 1),
        }

    def calm(self) -> Timeline:
        """Run undisturbed in one process: the records that all others have to have."""
        command = Command(self.folder / "calm", "alone", "--jobs", "1")
        command.start()
        if command.wait(PATIENCE_S) != 0:
            raise RuntimeError(f"the undisturbed run ended with {command.codes}; see {command.own}")
        self.records = command.records
        command.life()
        return Timeline.of(command.log.notes, time.monotonic())

    def alone(self, name: str, *options: str) -> Json:
        """Another undisturbed run of one command."""
        return self._undisturbed([Command(self.folder / name, "alone", *options)])

    def shared(self, num_commands: int) -> Json:
        """Several commands that begin together on an empty store."""
        folder = self.folder / f"shared-{num_commands}"
        return self._undisturbed([Command(folder, f"run-{i}", "--jobs", "1") for i in range(num_commands)])

    def _undisturbed(self, commands: list[Command]) -> Json:
        began = time.monotonic()
        for command in commands:
            command.start()
        codes = [command.wait(PATIENCE_S) for command in commands]
        wall_s = time.monotonic() - began
        started = Counter(note.key for note in _notes(commands) if note.what == STARTED)
        ran = Counter(note.key for note in _notes(commands) if note.what == RAN)
        once = dict.fromkeys(self.plan.tasks, 1)
        faults = [*self._faults(commands, codes), *self._differing(commands)]
        if started != once or ran != once:
            faults.append(
                f"{sum(ran.values())} tasks executed of {len(once)}, {sum(started.values())} started"
            )
        return {
            "commands": len(commands),
            "tasks_executed": sum(ran.values()),
            "by_command": [sum(note.what == RAN for note in _notes([command])) for command in commands],
            "each_exactly_once": started == ran == once,
            "records_equal": not self._differing(commands),
            "faults": faults,
            "wall_s": round(wall_s, 1),
        }

    def kind(self, kind: Kind, kills: int, timeline: Timeline) -> Json:
        """Storms until a kind has had its kills."""
        tally, began = Tally(), time.monotonic()
        while tally.at.total() < kills:
            count = min(kills - tally.at.total(), kind.per_round)
            shares = [self.dice.uniform(0, _ALMOST) for _ in range(count)]
            moments = [timeline.moment(share, at_work=kind.victims is not None) for share in shares]
            folder = self.folder / f"{kind.name.replace(' ', '-')}-{tally.rounds}"
            found = storm(kind, moments, len(self.plan.tasks), folder, self.dice)
            self._add(tally, found)
            tally.wall_s = time.monotonic() - began
            told = f"{kind.name}: {tally.at.total()} of {kills} kills; {tally.faults + tally.differing}"
            sys.stderr.write(f"{told}\n")
            if not tally.faults + tally.differing:  # else somebody will want to look
                shutil.rmtree(folder)
        return tally.to_json()

    def _add(self, tally: Tally, found: Round) -> None:
        """Judge a round by what its commands, of which the last lives were not disturbed, have left."""
        notes = _notes(found.commands)
        tally.at += found.killed
        tally.rounds += 1
        tally.restarts += sum(len(one.pids) - 1 for one in found.commands)
        tally.started += sum(note.what == STARTED for note in notes)
        tally.executed += sum(note.what == RAN for note in notes)
        repeated = repeats_of(notes, found.mains)
        tally.repeated += repeated
        wrong = {why: count for why, count in repeated.items() if "killed" not in why}
        tally.faults += [f"{count} tasks repeated: {why}" for why, count in wrong.items()]
        tally.faults += self._faults(found.commands, [one.codes[-1] for one in found.commands])
        left, stay = left_after_sweep(store_of(found.folder), [one.own for one in found.commands])
        tally.left_to_sweep += left
        tally.faults += [f"left in {found.folder.name}: {name}" for name in stay]
        tally.differing += self._differing(found.commands)

    def _faults(self, commands: list[Command], codes: list[int]) -> list[str]:
        """What is wrong with commands that have ended."""
        faults = [f"{one.own.name} ended with {code}" for one, code in zip(commands, codes) if code != 0]
        faults += [
            f"artifact {key[:12]} is not sound" for key in unsound(self.plan, store_of(commands[0].folder))
        ]
        faults += [f"process {pid} goes on" for pid in left_running(commands)]
        return faults + [f"{place} is left" for place in left_elsewhere(commands)]

    def _differing(self, commands: list[Command]) -> list[str]:
        """Commands whose records are not those of the undisturbed run, byte for byte."""
        return [f"records of {one.own.name} differ" for one in commands if one.records != self.records]


def _notes(commands: list[Command]) -> list[Note]:
    """What commands did, in order of time."""
    for command in commands:
        command.life()
    return sorted((note for command in commands for note in command.log.notes), key=lambda note: note.at)


def write_report(file: Path, report: Json) -> None:
    """Write a report, for people to read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
