"""The nightly update: the nights of several boards, one after the other, within one budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mibench.boards.board import Board
from mibench.boards.locking import LockedError
from mibench.boards.night import How, Told, run_night
from mibench.budget import parse_duration
from mibench.errors import MibenchError

DONE, BAD_INPUT, CELL_FAILED, ALARM, BUSY = 0, 2, 3, 5, 75
"""Exit codes; the last is EX_TEMPFAIL of sysexits.h, after which a mailer or a timer tries again."""


@dataclass
class Updated:
    """What became of an update.

    Args:
        nights: of the boards that were updated.
        locked: boards that another process updates, a sentence each.
        broken: boards that could not be used, a sentence each.
    """

    nights: list[Told] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The exit code: that of the worst thing that has happened."""
        if any(one.night.alarms for one in self.nights):
            return ALARM
        if self.broken:
            return BAD_INPUT
        if any(one.failed for one in self.nights):
            return CELL_FAILED
        return BUSY if self.locked else DONE


def update(
    boards: Sequence[Board],
    how: How,
    *,
    task_limit: str = "",
    on_board: Callable[[Board], None] = lambda _board: None,
    on_night: Callable[[Told], None] = lambda _told: None,
) -> Updated:
    """Run the next night of each board; one that cannot be used keeps no other from its night.

    Of a budget each board has an equal share of what those before it have left, and never more than its
    own rules give.

    Args:
        boards: in order.
        how: to compute; its budget is that of all boards together.
        task_limit: in place of the boards' own; empty keeps them.
        on_board: told of every board before its night.
        on_night: told of every night.

    Raises:
        KeyboardInterrupt: the next update goes on from here.
    """
    found = Updated()
    began = time.monotonic()
    for i, board in enumerate(boards):
        left_s = None if how.budget_s is None else max(0.0, how.budget_s - (time.monotonic() - began))
        on_board(board)
        try:
            limits = [] if left_s is None else [left_s / (len(boards) - i)]
            if board.rules.budget:
                limits.append(parse_duration(board.rules.budget))
            limit_s = parse_duration(task_limit or board.rules.task_limit)
            own = replace(how, budget_s=min(limits, default=None), task_limit_s=limit_s)
            told = run_night(board, own)
        except LockedError as error:
            found.locked.append(str(error))
        except MibenchError as error:
            found.broken.append(str(error))
        except OSError as error:
            place = error.filename or board.folder
            found.broken.append(
                f"board {board.name}: {place} cannot be used ({error.strerror or error}). Check the "
                "disk, and run the night again."
            )
        else:
            found.nights.append(told)
            on_night(told)
    return found
