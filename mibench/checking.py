"""The checks of a plugin in a process of their own, each with a limit of time.

A plugin may hang, crash the interpreter or leave it: the check in which it did so fails, and the others go
on. Whoever starts the checks imports neither torch nor the plugin.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mibench.errors import MibenchError, PluginError

LIMIT_S = 30.0  # of one check, for busy machines: those of built-in plugins take a second or two
WHOLE_S = 60.0  # of all checks of a plugin that got stuck; what is left then is not asked any more
_START_S = 300.0  # until a process has imported torch, on a machine that is busy
_GRACE_S = 5.0  # for a check to end by itself once its time is over
_MEND = "Mend it; if it is only slow, give cheaper `toy` settings, or a higher --limit."


@dataclass(frozen=True)
class Told:
    """What came of one check.

    Args:
        plugin: name of the plugin.
        name: of the check.
        title: what holds where it is `ok`.
        status: `ok`, `warn` or `fail`.
        text: what is wrong and what to do; empty where it is `ok`.
        seconds: wall time of the check.
    """

    plugin: str
    name: str
    title: str
    status: str
    text: str = ""
    seconds: float = 0.0


class OverTimeError(BaseException):
    """A check's time is over; no Exception, because plugins and checks catch those."""


def checked(word: str, *, limit_s: float = LIMIT_S) -> Iterator[Told]:
    """The checks of the plugins that a word names, one after the other, as they end.

    Args:
        word: name or alias of a plugin, or the path of a file with one.
        limit_s: seconds that one check may take, > 0.

    Raises:
        PluginError: there is no such plugin, or it cannot be read.
    """
    began = time.monotonic()
    titles: list[tuple[str, str, str]] = []
    first, is_stuck = 0, False
    while first == 0 or first < len(titles):
        if is_stuck and time.monotonic() - began > WHOLE_S:
            why = f"not asked: others were stuck, and {WHOLE_S:.0f} s are over. {_MEND}"
            yield from (Told(*one, "fail", why) for one in titles[first:])
            return
        with _Server(word, first, limit_s) as server:
            titles = server.titles()
            for index in range(first, len(titles)):
                status, text, seconds = server.answer(index)
                yield Told(*titles[index], status, text, seconds)
                if server.is_gone:
                    first, is_stuck = index + 1, True
                    break
            else:
                return


class _Server:
    """A process that runs the checks from the `first` on, seen from outside."""

    def __init__(self, word: str, first: int, limit_s: float) -> None:
        self.word, self.limit_s, self.is_gone = word, limit_s, False
        # a fresh interpreter: torch's threads do not survive a fork
        start = multiprocessing.get_context("spawn")
        self.ear, mouth = start.Pipe(duplex=False)
        self.process: BaseProcess = start.Process(
            target=_serve, args=(word, first, limit_s, mouth), daemon=True
        )
        self.process.start()
        mouth.close()  # so that the ear hears the end when the process ends

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()
        self.ear.close()

    def titles(self) -> list[tuple[str, str, str]]:
        """Plugin, name and title of every check; PluginError where the plugin cannot be read."""
        heard = self._hear(_START_S)
        if isinstance(heard, str):
            raise PluginError(f"plugin {self.word}: reading it {heard}. Mend the file.")
        if heard[0] == "error":
            raise PluginError(heard[1])
        found: list[tuple[str, str, str]] = heard[1]
        return found

    def answer(self, index: int) -> tuple[str, str, float]:
        """Status, text and seconds of a check; a failure where the process hung or ended in it."""
        began = time.monotonic()
        heard = self._hear(self.limit_s + _GRACE_S)
        if isinstance(heard, str):
            self.is_gone = True
            return "fail", f"it {heard}. {_MEND}", time.monotonic() - began
        status, text, seconds = heard[1:]
        return status, text, seconds

    def _hear(self, wait_s: float) -> Any:  # noqa: ANN401 - what the process sends
        """The next message, or in words why there is none."""
        try:
            if self.ear.poll(wait_s):
                return self.ear.recv()
        except (EOFError, OSError):
            self.process.join(_GRACE_S)
            return f"ended the process ({_ending(self.process.exitcode)})"
        return f"did not end within {wait_s:.0f} s, and could not be interrupted"


def _ending(code: int | None) -> str:
    """An exit code in words."""
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _serve(word: str, first: int, limit_s: float, mouth: Connection) -> None:
    """Run checks and send their verdicts; the process of `_Server`."""
    import torch

    from mibench.catalog import find_plugins
    from mibench.contract.toy import toy_world
    from mibench.testing import checks_for

    torch.set_num_threads(1)  # several on shared cores wait for each other, and small nets gain nothing
    try:
        with _Alarm(limit_s):
            plugins = find_plugins(word)
            checks = [(plugin.name, check) for plugin in plugins for check in checks_for(plugin)]
    except MibenchError as error:
        mouth.send(("error", str(error)))
        return
    except OverTimeError as error:
        place = _place(error, word)
        mouth.send(
            ("error", f"plugin {word}: reading it took more than {limit_s:g} s{place}. Mend the file.")
        )
        return
    toy_world()  # here, so that no check is charged with it
    mouth.send(("checks", [(name, check.name, check.title) for name, check in checks]))
    for _, check in checks[first:]:
        began = time.monotonic()
        try:
            with _Alarm(limit_s):
                verdict = check.run()
            status, text = str(verdict.status), verdict.text
        except KeyboardInterrupt:
            return
        except BaseException as error:  # SystemExit among them: a plugin may try to leave
            status, text = "fail", _why(error, word, time.monotonic() - began, limit_s)
        mouth.send(("verdict", status, text, time.monotonic() - began))


def _why(error: BaseException, word: str, seconds: float, limit_s: float) -> str:
    """What a check says that was left by something that is no Exception."""
    place = _place(error, word)
    if not isinstance(error, OverTimeError):
        return f"{type(error).__name__}: {error}{place}. Raise an error of Python's or mibench's instead."
    if seconds < limit_s:
        return f"it needs the run that was stopped before{place}."
    return f"it was stopped after {limit_s:g} s{place}. {_MEND}"


def _place(error: BaseException, word: str) -> str:
    """Where it happened: the innermost line of the plugin's file, else of any."""
    trace = traceback.extract_tb(error.__traceback__)
    own = [one for one in trace if Path(one.filename).stem == Path(word).stem]
    found = own or [one for one in trace if one.filename != __file__]
    return f" (line {found[-1].lineno} of {Path(found[-1].filename).name})" if found else ""


class _Alarm:
    """Raises OverTimeError in the main thread after some seconds, where there are signals."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds if os.name == "posix" else 0.0

    def __enter__(self) -> None:
        if self.seconds:
            signal.signal(signal.SIGALRM, _ring)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_: object) -> None:
        if self.seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _ring(*_: object) -> None:
    raise OverTimeError
