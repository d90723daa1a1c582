"""One check: a named question to a plugin, answered by nothing or by a sentence."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch

from mibench.errors import MibenchError

T = TypeVar("T")
Answer = str | None
Probe = Callable[[Any], Answer]


@dataclass(frozen=True)
class Verdict:
    """What a check found: `warn` where a failed check is advice only, and a sentence unless it is `ok`."""

    status: Literal["ok", "warn", "fail"]
    text: str = ""


@dataclass(frozen=True)
class Check:
    """A named question to one plugin.

    Args:
        name: of the function that asks it.
        title: what holds where the answer is nothing, in words.
        probe: the function; it returns what is wrong and what to do, or None.
        subject: what it is asked about; the checks of one plugin share it, and the work that it did.
        is_advice: whether a plugin may well do otherwise.
    """

    name: str
    title: str
    probe: Probe
    subject: Any
    is_advice: bool = False

    def run(self) -> Verdict:
        """Ask; whatever is raised on the way counts as a failure."""
        try:
            answer = self.probe(self.subject)
        except MibenchError as error:
            answer = f"{type(error).__name__}: {error}"
        except Exception as error:  # a plugin may raise anything, and a check tells what
            place = traceback.extract_tb(error.__traceback__)[-1]
            answer = f"{type(error).__name__}: {error} (line {place.lineno} of {Path(place.filename).name})"
        if answer is None:
            return Verdict("ok")
        return Verdict("warn" if self.is_advice else "fail", answer)


class Once(Generic[T]):
    """A value of a subject that is made once, for all checks; a failure to make it is kept as well.

    A run that takes minutes, or never ends, is so waited for by the first check alone.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make = make
        self.__doc__ = make.__doc__

    def __get__(self, subject: object, _kind: type | None = None) -> T:
        kept: dict[str, Any] = vars(subject)
        name = f"{self.make.__name__}, made once"  # under its own name it would hide this descriptor
        if name not in kept:
            try:
                kept[name] = self.make(subject), None
            except BaseException as error:
                kept[name] = None, error
                raise
        value: T
        value, failure = kept[name]
        if failure is not None:
            raise failure
        return value


def checks_of(probes: tuple[Probe, ...], subject: object, advice: tuple[Probe, ...] = ()) -> list[Check]:
    """A check for each function; its docstring's first line is the title."""
    return [
        Check(
            probe.__name__,
            (probe.__doc__ or probe.__name__).splitlines()[0].rstrip("."),
            probe,
            subject,
            is_advice=probe in advice,
        )
        for probe in (*probes, *advice)
    ]


def max_gap(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest absolute difference of two tensors; infinite where their shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix="mibench-check-") as folder:
        yield Path(folder)


class Writes:
    """The files that were opened for writing outside some folders, while it is entered."""

    _listening: list[Writes] = []  # noqa: RUF012 - shared on purpose: an audit hook cannot be taken off again
    _is_hooked = False

    def __init__(self, *allowed: Path) -> None:
        self.allowed = tuple(str(folder.resolve()) for folder in allowed)
        self.found: list[str] = []

    def __enter__(self) -> Writes:
        if not Writes._is_hooked:
            sys.addaudithook(_audit)
            Writes._is_hooked = True
        Writes._listening.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        Writes._listening.remove(self)

    def hear(self, path: str) -> None:
        """Keep a path unless it is allowed; compiled modules and devices are."""
        full = os.path.realpath(path)
        if full.startswith((*self.allowed, "/dev/", "/proc/")) or "__pycache__" in full:
            return
        self.found.append(full)

    @classmethod
    def tell(cls, path: str) -> None:
        """Let everybody who listens hear of a path."""
        for one in cls._listening:
            one.hear(path)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event != "open" or not Writes._listening:
        return
    path, mode, flags = args
    writes = isinstance(mode, str) and any(sign in mode for sign in "wax+")
    writes = writes or (mode is None and isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR)))
    if writes and isinstance(path, str | os.PathLike):
        Writes.tell(os.fspath(path))
