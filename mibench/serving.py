"""Victims served to another process: this one holds weights and store, and the attack runs in a fresh one.

The other process (`mibench.served_attack`) gets images, a prior, targets and a seed, and asks for answers
over a socket. It never loads the victim, is told no path of a store, and inherits no file but the socket and
the terminal. At label access no probability leaves this process. What it may not do is refused here, whatever
its own victim says, and the queries that go on record are counted here.
"""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mibench.attack import Effort, Reconstructions
from mibench.errors import MibenchError, PluginError
from mibench.fresh_process import start, unreadable
from mibench.memory import free, is_out_of_memory, learn, learned, told_of
from mibench.plugin import Context
from mibench.stages.attacking import Held, inverted, prior_of, targets_of
from mibench.stages.work import Work
from mibench.store import Artifact
from mibench.victim import LabelVictim, ScoreVictim
from mibench.wire import Kind, Line, Message, MessageError, pack, unpack

Access = Literal["label", "score"]
_ACCESS: dict[Access, type[LabelVictim]] = {"label": LabelVictim, "score": ScoreVictim}
_MODULE = "mibench.served_attack"
_MOST_IMAGES = 2**31  # bytes of one question; a chunk of 256 images of 3 x 224 x 224 floats has 2**27
_MOST_RESULT = 2**33  # bytes of a prior or of reconstructions
_FROM_ATTACK = {Kind.ASK: _MOST_IMAGES, Kind.PROGRESS: 0, Kind.RESULT: _MOST_RESULT, Kind.FAILURE: 0}
_ENDING_S = 10.0  # for a process whose end of the line is closed to be gone


class AttackKilledError(MibenchError):
    """The process of an attack was killed, which may be nobody's fault: for lack of memory, say."""


@dataclass(frozen=True)
class Served:
    """How the attack of a task is run apart; made where its class is known, which here it is not.

    Args:
        access: what the victim answers; None where the task has no victim.
        goal: `Attack.goal`.
        file: of the attack, if it comes from a single file.
    """

    access: Access | None
    goal: str = "class"
    file: Path | None = None


def served_stage(served: Served) -> Callable[[Work], Artifact]:
    """What does a task of an attack in place of the stage's own function.

    It raises AttackKilledError where the attack's process is killed, PluginError where that sends what it may
    not, and what the attack raised otherwise, as an error of the same name.
    """
    return partial(_serve, served)


def _serve(served: Served, work: Work) -> Artifact:
    stage = {"prior": _prior, "adapt": _adapt, "invert": _invert}[work.task.stage]
    return stage(served, work)


def _prior(served: Served, work: Work) -> Artifact:
    """As `mibench.stages.preparing.train_prior`, of an attack from outside the package."""
    public = {} if "public" not in work.task.inputs else {"public": _public(work)}
    own = {"spec_from": work.task.locator.get("prior_from")}
    done = _run_apart(served, work, None, told=own, tensors=public)
    return _with_costs(work.result(done.tensors), done)


def _adapt(served: Served, work: Work) -> Artifact:
    """As `mibench.stages.attacking.adapt`."""
    held = _held(served, work)
    done = _run_apart(served, work, held, tensors={"public": _public(work), **_named(prior_of(work))})
    held.check()
    return _with_costs(work.result(done.tensors, queries=done.queries), done)


def _invert(served: Served, work: Work) -> Artifact:
    """As `mibench.stages.attacking.invert`."""
    targets = targets_of(work)
    held = _held(served, work, count=len(targets))
    tensors = {"targets": targets, **_named(prior_of(work))}
    if served.goal == "instance":
        tensors["released"] = held.eavesdropped(work.labeled("private").in_turn(targets))
    done = _run_apart(served, work, held, told={"goal": served.goal}, tensors=tensors)
    held.check()
    got = _reconstructions(done.tensors)
    made = inverted(work, got, goal=served.goal, shape=held.victim.shape, queries=done.queries)
    return _with_costs(made, done)


def _held(served: Served, work: Work, *, count: int = 0) -> Held:
    if served.access is None:
        raise PluginError(f"task '{work.task.title}': asks a victim, and no access is set. Plan again.")
    return Held(work, _ACCESS[served.access], work.task.plugin, count=count)


def _public(work: Work) -> Tensor:
    """The public images as bytes, a fourth of what they are as numbers."""
    return work.input("public").tensors["train_images"]


def _named(prior: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"prior/{name}": tensor for name, tensor in prior.items()}


@dataclass(frozen=True)
class _Done:
    """What the other process gave; `queries` as counted here."""

    tensors: dict[str, Tensor]
    queries: dict[str, int]
    peak_mib: float


def _with_costs(made: Artifact, done: _Done) -> Artifact:
    made.costs["attack_peak_mib"] = done.peak_mib
    return made


def _reconstructions(tensors: dict[str, Tensor]) -> Reconstructions:
    """What an attack returned, from its tensors; MessageError where some are missing."""
    try:
        effort = None
        if "effort.queries" in tensors:
            queries, images, loss = (tensors[f"effort.{name}"] for name in ("queries", "images", "loss"))
            effort = Effort(queries, images, loss, tensors.get("effort.single"))
        return Reconstructions(tensors["images"], tensors["targets"], tensors["confidence"], effort)
    except KeyError as error:
        raise MessageError(f"message RESULT: has no tensor {error}.") from error


class _Counter:
    """Answers questions about images, counts them, and refuses what is over the budget.

    Args:
        held: the victim.
        access: what is answered.
    """

    def __init__(self, held: Held, access: Access) -> None:
        self.held, self.access = held, access
        self.asked = 0

    def answer(self, message: Message, line: Line) -> None:
        """Answer a question, or say why not; MessageError where it is none."""
        victim, x = self.held.victim, unpack(message)
        if x.ndim == 0 or len(x) > victim.max_batch:
            raise MessageError(
                f"message ASK: holds {tuple(x.shape)}, wanted at most {victim.max_batch} images."
            )
        if victim.max_queries is not None and self.asked + len(x) > victim.max_queries:
            why = (
                f"query budget of {victim.max_queries} images is spent ({self.asked} used, {len(x)} more "
                "asked for). Raise max_queries or lower the attack's steps."
            )
            line.say(Kind.REFUSAL, {"type": "QueryBudgetError", "message": why, "memory": False})
            return
        told = self._told(x)
        if isinstance(told, Tensor):
            self.asked += len(x)
            line.send(Kind.ANSWER, *pack(told))
        else:
            line.say(Kind.REFUSAL, told)

    def _told(self, x: Tensor) -> Tensor | dict[str, Any]:
        """The answer about images (N, ...): (N,) or (N, K); or what a victim at hand would raise."""
        try:
            with torch.no_grad():
                released: Tensor = self.held.released(x.to(self.held.victim.device))
                return (released.argmax(1) if self.access == "label" else released).cpu()
        except Exception as error:
            is_memory = is_out_of_memory(error)
            told = {"type": type(error).__name__, "message": str(error), "memory": is_memory}
            told["message"] = told_of(error) if is_memory else str(error)
        free()
        return told


def _run_apart(
    served: Served,
    work: Work,
    held: Held | None,
    *,
    tensors: dict[str, Tensor],
    told: dict[str, Any] | None = None,
) -> _Done:
    """Run the attack of a task in a fresh process, and answer it until it ends."""
    counter = None if held is None or served.access is None else _Counter(held, served.access)
    ours, theirs = socket.socketpair()
    # not the task's own folder, which lies in the store
    with tempfile.TemporaryDirectory(prefix="mibench-") as folder, contextlib.closing(Line(ours)) as line:
        with theirs:
            process = start(_MODULE, theirs, folder)
        try:
            with unreadable():
                line.say(Kind.JOB, {**_job(served, work, held), **(told or {})}, tensors)
                return _converse(line, work, counter)
        except EOFError as error:
            raise _ended(work, process, error) from error
        except MessageError as error:
            raise PluginError(
                f"attack '{work.task.plugin}': its process sent what it may not. {error} Ask through the "
                "victim's methods alone."
            ) from error
        finally:
            process.kill()
            process.wait()


def _job(served: Served, work: Work, held: Held | None) -> dict[str, Any]:
    """All that the other process is told beside tensors; no path but the plugin's own."""
    ctx, victim = work.ctx, None if held is None else held.victim
    return {
        "stage": work.task.stage,
        "plugin": work.task.plugin,
        "params": {name: work.params[name] for name in ("attack",) if name in work.params},
        "source": work.task.source,
        "file": None if served.file is None else str(served.file.absolute()),
        "seed": ctx.seed,
        "device": str(ctx.device),
        "max_batch": ctx.max_batch,
        "threads": torch.get_num_threads(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "rows": learned(),
        "access": served.access,
        "victim": None
        if victim is None
        else {
            "shape": list(victim.shape),
            "num_classes": victim.num_classes,
            "max_queries": victim.max_queries,
            "allowance": victim.allowance,
        },
    }


def _converse(line: Line, work: Work, counter: _Counter | None) -> _Done:
    """Answer until the attack has ended; its result, or what it raised."""
    while True:
        message = line.receive(_FROM_ATTACK)
        if message.kind is Kind.ASK and counter is not None:
            counter.answer(message, line)
        elif message.kind is Kind.PROGRESS:
            _pass_on(message.read(), work.ctx)
        elif message.kind is Kind.RESULT:
            return _result(message, work, counter)
        elif message.kind is Kind.FAILURE:
            raise _failure(message.read())
        else:
            raise MessageError("message ASK: there is no victim to ask.")


def _pass_on(said: dict[str, Any], ctx: Context) -> None:
    """Report how far the attack is, if that is what was said."""
    done, total, values = said.get("done"), said.get("total"), said.get("values")
    if isinstance(done, int) and isinstance(total, int) and isinstance(values, dict):
        numbers = {
            str(name): float(value) for name, value in values.items() if isinstance(value, int | float)
        }
        ctx.report(done, total, **{name: value for name, value in numbers.items() if math.isfinite(value)})


def _result(message: Message, work: Work, counter: _Counter | None) -> _Done:
    """What an attack gave, once it is sure that it was asked and answered alike."""
    said = message.read()
    notes, rows = said.get("notes"), _rows(said)
    if not isinstance(notes, dict):
        raise MessageError("message RESULT: has no notes.")
    asked = 0 if counter is None else counter.asked
    if said.get("queries") != [asked, 0]:
        _refuse_count(work.task.plugin, said.get("queries"), asked, has_halved=bool(rows))
    for what, count in rows.items():
        learn(what, count)
    work.ctx.notes.update(notes)
    peak = said.get("peak_mib")
    peak_mib = float(peak) if isinstance(peak, int | float) and math.isfinite(peak) else 0.0
    return _Done(message.tensors() if message.body else {}, {"forward": asked, "gradient": 0}, peak_mib)


def _rows(said: dict[str, Any]) -> dict[str, int]:
    """The halvings that the other process says it needed."""
    rows = said.get("rows")
    found = rows.items() if isinstance(rows, dict) else ()
    return {str(what): count for what, count in found if isinstance(count, int) and count > 0}


def _refuse_count(name: str, said: object, asked: int, *, has_halved: bool) -> None:
    """Raise for two counts that differ: short of memory a question may be asked twice, else it is a lie."""
    forward = said[0] if isinstance(said, list) and len(said) == 2 and said[1] == 0 else said
    if has_halved and isinstance(forward, int) and forward < asked:
        raise torch.OutOfMemoryError("a question had to be asked again in smaller parts")
    raise PluginError(
        f"attack '{name}': its victim says that it was asked about {forward!s:.100} images, and the process "
        f"that holds the victim answered about {asked}. Ask through the victim's methods, and leave its "
        "counter alone."
    )


class _OtherTraceError(Exception):
    """The trace of an error in the other process, as the cause of the one here."""

    def __str__(self) -> str:
        """The trace as it was printed there."""
        return f"\n{self.args[0]}"


def _failure(said: dict[str, Any]) -> Exception:
    """What an attack raised, as an error of the same name; the code of its own class stays there."""
    name, text = str(said.get("type", "")), str(said.get("message", ""))
    for what, count in _rows(said).items():
        learn(what, count)
    if said.get("memory") is True:
        return torch.OutOfMemoryError(text)
    # not the class of that name: a plugin that raises StoreError must not stop a run
    error: Exception = type(name if name.isidentifier() else "PluginError", (PluginError,), {})(text)
    error.__cause__ = _OtherTraceError(str(said.get("trace", "")))
    return error


def _ended(work: Work, process: subprocess.Popen[bytes], error: EOFError) -> MibenchError:
    """What to raise for a process that has gone without a result."""
    try:
        code = process.wait(_ENDING_S)
    except subprocess.TimeoutExpired:
        return PluginError(
            f"attack '{work.task.plugin}': its process hung up ({error}). Leave the connection to the victim "
            "alone."
        )
    if code < 0:
        how = signal.Signals(-code).name
        return AttackKilledError(f"{work.task.title}: the process of the attack was killed ({how}).")
    return PluginError(
        f"attack '{work.task.plugin}': its process ended with exit code {code} and without a result. Return "
        "one, or raise an error."
    )


__all__ = ["Access", "AttackKilledError", "Served", "served_stage"]
