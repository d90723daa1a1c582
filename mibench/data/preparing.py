"""`mibench data prepare`: from the files of a data set to a prepared set, person by person.

What is written is valid up to the last whole person, and `progress.json` says so again and again. So the same
command goes on after a stop of any kind, and the finished set is the same, byte for byte, as without one.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from mibench.data.damage import damage_told
from mibench.data.prepared import INFO, PreparedSet, SetInfo
from mibench.data.preparing_plan import Plan, Request, make_plan
from mibench.data.preparing_state import (
    FULL,
    PART,
    PROGRESS,
    Position,
    Progress,
    check_ours,
    clear,
    clear_tmp,
    locked,
    read_progress,
)
from mibench.data.preparing_swap import aside_of, bring_back, check_replaceable, is_remains, move_in
from mibench.data.preparing_work import OnNote, OnProgress, Work, check_space, versions
from mibench.data.spelling import spelled
from mibench.errors import DataError

__all__ = ["Done", "Interrupted", "Request", "prepare"]


class Interrupted(KeyboardInterrupt):
    """A stop by the user; `images` rows are safe on the disk."""

    def __init__(self, images: int) -> None:
        super().__init__(f"stopped after {images:,} images")
        self.images = images


@dataclass(frozen=True)
class Done:
    """What a preparation gave.

    Args:
        root: folder of the set.
        info: its `set.json`.
        is_new: whether anything was done; False where the set was there already.
        read: files that were read by this call.
        wall_s: seconds that this took.
    """

    root: Path
    info: SetInfo
    is_new: bool
    read: int = 0
    wall_s: float = 0.0


_LONG = 2 * 10**9  # bytes from which on reading them takes so long that it is told


class _Preparation:
    """What `prepare` does, and how much of it is safe if it is stopped."""

    def __init__(self, request: Request, on_progress: OnProgress, on_note: OnNote) -> None:
        self.request, self.on_progress, self.on_note = request, on_progress, on_note
        self.target = request.target
        self.part = self.target.with_name(self.target.name + PART)
        self.work: Work | None = None

    @property
    def images(self) -> int:
        """Rows that are safe on the disk."""
        return self.work.saved.images if self.work else 0

    def run(self) -> Done:
        """Look, lock, go on or begin, and finish."""
        plan = make_plan(self.request)
        if not aside_of(self.target).is_dir() and (done := self._there_already(plan)):
            return done
        with locked(self.part), warnings.catch_warnings():
            # Pillow warns of odd metadata; threads share the filters, so they are set once around them all
            warnings.filterwarnings("ignore", module=r"PIL\.")
            if told := bring_back(self.target):
                self.on_note(told)
            if done := self._there_already(plan) or self._whole_but_not_moved(plan):
                return done
            old = self._old_progress(plan)
            replaces = old.replaces if old else self.request.restart and self._is_taken()
            return self._worked(plan, old.position if old else None, replaces=replaces)

    def _worked(self, plan: Plan, old: Position | None, *, replaces: bool) -> Done:
        """Do what is left to do."""
        if told := check_space(plan, self.part, sum(old.sizes.values()) if old else 0):
            self.on_note(told)
        if old is not None:
            self.on_note(f"goes on after {old.images:,} images")
        began = time.monotonic()
        self.work = Work(plan, self.part, old, replaces=replaces, on_progress=self.on_progress)
        info = self.work.run()
        if told := move_in(self.part, self.target, replaces=replaces):
            self.on_note(told)
        read = self.work.read - (old.read if old else 0)
        return Done(self.target, info, is_new=True, read=read, wall_s=time.monotonic() - began)

    def _there_already(self, plan: Plan) -> Done | None:
        """The finished set where it is what the plan asks for; None where it is to be made.

        Raises:
            DataError: something else lies at the target, or a damaged set.
        """
        if not self._is_taken():
            return None
        where = f"prepared set {spelled(str(self.target))}"
        if not ((self.target / INFO).is_file() or is_remains(self.target)):
            raise DataError(f"{where}: something else lies there. Give another folder by --to.")
        if self.request.restart:
            check_replaceable(self.target)
            return None
        old = read_progress(self.part)
        if old is not None and old.replaces and not plan.difference(old.options):
            return None  # a preparation with --restart was stopped, and goes on without it
        found = PreparedSet(self.target)
        if difference := plan.difference(found.info.options):
            raise DataError(
                f"{where}: was made {difference}. Give another folder by --to, or --restart to make it anew."
            )
        if sum(int(state["bytes"]) for state in found.info.files.values()) > _LONG:
            self.on_note(f"{spelled(str(self.target))} is there: its files are compared with {INFO}")
        if told := damage_told(found, with_digests=True):
            raise DataError(f"{where}: {told}")
        return Done(self.target, found.info, is_new=False)

    def _is_taken(self) -> bool:
        """Whether something lies at the target."""
        return self.target.exists() and not (self.target.is_dir() and not any(self.target.iterdir()))

    def _whole_but_not_moved(self, plan: Plan) -> Done | None:
        """The set where a process was killed after its last file and before it was moved into place."""
        is_whole = (self.part / INFO).is_file() and not (self.part / PROGRESS).exists()
        if self.request.restart or not is_whole:
            return None
        info = PreparedSet(self.part).info
        if plan.difference(info.options):
            return None
        if told := move_in(self.part, self.target, replaces=False):
            self.on_note(told)
        return Done(self.target, info, is_new=True)

    def _old_progress(self, plan: Plan) -> Progress | None:
        """The progress to go on from; None where the work begins.

        Raises:
            DataError: the unfinished set is of another plan, or was begun with other versions.
        """
        if self.request.restart:
            clear(self.part)
            return None
        check_ours(self.part)
        clear_tmp(self.part)
        where, anew = f"unfinished set {spelled(str(self.part))}", "or begin anew with --restart"
        old = read_progress(self.part)
        if old is None:
            if (self.part / INFO).is_file() or (self.part / PROGRESS).exists():
                raise DataError(f"{where}: is another one, or its {PROGRESS} is damaged. Use --restart.")
            return None
        if difference := plan.difference(old.options):
            raise DataError(f"{where}: was begun {difference}. Give the command as it was then, {anew}.")
        for name, now in versions(plan).items():
            if (then := old.made_with.get(name)) != now:
                raise DataError(
                    f"{where}: was begun with {name} {then}, here is {now}. Install that version, {anew}."
                )
        return old


def prepare(
    request: Request,
    *,
    on_progress: OnProgress = lambda _read, _total, _images: None,
    on_note: OnNote = lambda _text: None,
) -> Done:
    """Make a prepared set, or go on with one, or find it done.

    Args:
        request: what is wanted.
        on_progress: called with files read, files to read, and rows written.
        on_note: called with a sentence that the user should read.

    Raises:
        DataError: source, target or options cannot be used, the disk is full, or too little is left.
        Interrupted: the user stops it.
    """
    preparation = _Preparation(request, on_progress, on_note)
    where, again = f"prepare {request.layout.facts.name}", "and give the same command again"
    try:
        return preparation.run()
    except KeyboardInterrupt:
        raise Interrupted(preparation.images) from None
    except OSError as error:
        after = f"after {preparation.images:,} images"
        if error.errno in FULL:
            raise DataError(f"{where}: {FULL[error.errno]} {after}; free some space {again}.") from error
        place = spelled(str(preparation.part))
        raise DataError(
            f"{where}: {place} cannot be written ({error.strerror or error}) {after}. Mend that {again}."
        ) from error
