"""A round of the storm: commands on a fresh store, killed at the moments that are given and started again."""

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .command import CELL_FAILED, Command
from .noting import BEGAN, WALKED, WALKS
from .processes import is_alive, is_at_ray_task, kill_when, local_workers, ray_workers
from .timeline import Moment

PATIENCE_S = 1800.0  # for one life, on cores that others share
_AIM_S = 5.0  # for what is aimed at to be seen
_LOOK_S = 0.02
Find = Callable[[int], list[int]]


@dataclass(frozen=True)
class Kind:
    """Whom a kill is for.

    Args:
        name: as the report says it.
        options: of the commands of a round, which share a store.
        victims: finds workers by their main process; None is for the main process itself.
        aims: what the victim shall be writing when it dies, see `processes.writing`; drawn for each kill.
        per_round: kills on one store at most.
    """

    name: str
    options: tuple[tuple[str, ...], ...]
    victims: Find | None
    aims: tuple[str, ...]
    per_round: int


_ONE, _TWO, _RAY = ("--jobs", "1"), ("--jobs", "2"), ("--executor", "ray", "--jobs", "2")
KINDS = (
    Kind("main process", (_ONE,), None, ("", "", "put", "lease", "records"), 16),
    Kind("main process with workers", (_TWO,), None, ("", "", "put", "lease", "records"), 14),
    Kind("local worker", (_TWO,), local_workers, ("", "", "put", "records"), 25),
    Kind("ray worker", (_RAY,), ray_workers, ("", "", "put"), 20),
    Kind("main process with ray", (_RAY,), None, ("", "put", "lease"), 5),
    Kind("one of two commands", (_ONE, _ONE), None, ("", "", "put", "lease", "records"), 10),
)
SHARES = (0.16, 0.14, 0.25, 0.20, 0.05, 0.20)  # of all kills, by kind


@dataclass
class Round:
    """What has happened on one store.

    Args:
        folder: of the store and of all commands on it.
        commands: that were disturbed.
        killed: kills by what the victim was at.
        mains: numbers of the main processes that were killed.
        unspent: moments that the run had passed before a kill could come.
    """

    folder: Path
    commands: list[Command]
    killed: Counter[str] = field(default_factory=Counter)
    mains: set[int] = field(default_factory=set)
    unspent: int = 0


def storm(kind: Kind, moments: Sequence[Moment], num_tasks: int, folder: Path, dice: random.Random) -> Round:
    """Run until the commands have ended, with a kill at each moment that is still to come."""
    commands = [Command(folder, f"run-{i}", *options) for i, options in enumerate(kind.options)]
    found = Round(folder, commands)
    for command in commands:
        command.start()
    for moment in sorted(moments):
        aim = dice.choice(kind.aims) if 0 < moment.tasks < num_tasks else ""
        command = dice.choice(commands)
        if not _await_moment(command, commands, moment, num_tasks):
            found.unspent += 1
            continue
        at = _strike(kind, command, aim, dice)
        if at is None:
            found.unspent += 1
            continue
        found.killed[at] += 1
        if kind.victims is None:
            found.mains.add(command.pid)
            command.wait(60.0)
            command.start()
    for command in commands:
        # a worker that was killed twice at the same task has failed that task in this life
        while command.wait(PATIENCE_S) == CELL_FAILED:
            command.start()
    return found


def _await_moment(command: Command, commands: Sequence[Command], moment: Moment, num_tasks: int) -> bool:
    """Whether the command runs at this moment; False where the moment has passed without it."""
    end = time.monotonic() + PATIENCE_S
    ends = 0
    while time.monotonic() < end:
        if command.ended():
            ends += 1
            is_over = len(_seen(commands)) == num_tasks
            if is_over and (moment.tasks < num_tasks or ends > 1):
                return False
            command.start()  # it had failed tasks, or what comes after the last task is waited for
        if len(_seen(commands)) >= moment.tasks and _is_due(command, moment, num_tasks):
            return True
        time.sleep(_LOOK_S)
    raise TimeoutError(f"{command.own}: {moment} did not come within {PATIENCE_S:.0f} s")


def _seen(commands: Sequence[Command]) -> set[str]:
    """Tasks that are known to be done."""
    for command in commands:
        command.life()
    return set().union(*(command.seen for command in commands))


def _is_due(command: Command, moment: Moment, num_tasks: int) -> bool:
    """Whether a life of a command has come to a moment that its store has come to."""
    life, now = command.life(), time.monotonic()
    if moment.tasks == 0:
        return BEGAN in life and now - life[BEGAN].at >= moment.late_s
    if moment.tasks == num_tasks:
        return WALKED in life and now - life[WALKED].at >= moment.late_s
    return WALKS in life


def _strike(kind: Kind, command: Command, aim: str, dice: random.Random) -> str | None:
    """Kill a command or one of its workers; what it was at, None where nobody was there to be killed."""
    if kind.victims is None:
        life = command.life()
        beside = [*local_workers(command.pid), *ray_workers(command.pid)]
        at = kill_when(command.pid, aim, beside=beside, within_s=_AIM_S)
        return None if at is None else at or _phase(set(life))
    end = time.monotonic() + 60.0
    while time.monotonic() < end and is_alive(command.pid):
        workers = kind.victims(command.pid)
        if workers:
            victim = dice.choice(workers)
            with contextlib.suppress(ProcessLookupError):
                is_fit = is_at_ray_task if kind.victims is ray_workers else is_alive
                at = kill_when(victim, aim, within_s=_AIM_S, is_fit=is_fit)
                if at is not None:
                    return at or "task"
        time.sleep(_LOOK_S)
        command.ended()
    return None


def _phase(life: set[str]) -> str:
    """What a main process that wrote nothing was at, judged by its log."""
    if WALKED in life:
        return "report"
    return "task" if WALKS in life else "start"


__all__ = ["KINDS", "PATIENCE_S", "SHARES", "Kind", "Round", "storm"]
