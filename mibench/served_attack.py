"""The process that an attack runs in where its victim is served from another one; see `mibench.serving`.

    python -m mibench.served_attack FD PARENT

It has the attack, what the attack may see, and a connection. There are no weights of the victim here, and no
place where they could be found.
"""

from __future__ import annotations

import builtins
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.attack import Attack, Reconstructions
from mibench.data.split import dequantize
from mibench.errors import MibenchError, PluginError, QueryBudgetError
from mibench.memory import Room, is_out_of_memory, told_of, watched
from mibench.plugin import Context, Stopwatch
from mibench.precision import rounded
from mibench.prior import Prior
from mibench.registry import get_attack, load_plugin_file
from mibench.stages.adapting import adapt_with, invert_with
from mibench.stages.work import check_source, prior_spec_of
from mibench.victim import LabelVictim
from mibench.wire import MOST_HEAD, Kind, Line, Message, pack, unpack

_WATCH_EVERY_S = 0.5
_REPORT_EVERY_S = 0.3
_MOST = 2**40  # bytes: what comes from the process that started this one is believed
_MOST_TRACE = MOST_HEAD // 8  # characters, of which JSON makes at most six bytes each
_HEARD = {Kind.ANSWER: _MOST, Kind.REFUSAL: 0}


class VictimGoneError(MibenchError):
    """The process that holds the victim has ended."""


class Remote:
    """Asks the process that holds the victim; a `mibench.victim.Released`.

    Args:
        line: to it.
        num_classes: number of identities K.
    """

    def __init__(self, line: Line, num_classes: int) -> None:
        self._line, self._num_classes = line, num_classes
        self._turn = threading.Lock()

    def __call__(self, x: Tensor) -> Tensor:
        """Released probabilities (N, K) of images (N, C, H, W); one-hot rows where only labels are told.

        Raises:
            QueryBudgetError: the budget is spent.
            VictimGoneError: nobody answers any more.
        """
        try:
            with self._turn:
                self._line.send(Kind.ASK, *pack(x))
                message = self._line.receive(_HEARD)
        except EOFError as error:
            raise VictimGoneError(
                f"victim: the process that holds it has ended ({error}). Run again."
            ) from error
        if message.kind is Kind.REFUSAL:
            raise _refused(message.read())
        told = unpack(message).to(x.device)
        # a vector for a victim that tells the place of its largest value
        return F.one_hot(told, self._num_classes).float() if told.ndim == 1 else told


def _refused(said: dict[str, Any]) -> Exception:
    """The error that a victim in this process would have raised."""
    if said["memory"]:
        return torch.OutOfMemoryError(said["message"])
    if said["type"] == QueryBudgetError.__name__:
        return QueryBudgetError(said["message"])
    found = getattr(builtins, said["type"], None)
    if isinstance(found, type) and issubclass(found, Exception):
        return found(said["message"])
    return PluginError(said["message"])


def main(argv: list[str]) -> int:
    """Run one attack and send what it gives; the exit code."""
    number, parent = (int(word) for word in argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process alone answers to Ctrl-C
    threading.Thread(target=_end_with, args=(parent,), name="mibench-parent", daemon=True).start()
    line = Line(socket.socket(fileno=number))
    try:
        _work(line, line.receive({Kind.JOB: _MOST}))
    except EOFError as error:
        print(f"attack: the process that holds its victim has ended ({error}). Run again.", file=sys.stderr)  # noqa: T201 - nobody else listens any more
        return 1
    return 0


def _end_with(parent: int) -> None:
    """End this process when the one that started it has ended, and remove its folder in that one's place."""
    folder = Path.cwd()
    while os.getppid() == parent:
        time.sleep(_WATCH_EVERY_S)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)  # sys.exit would end this thread alone


def _work(line: Line, message: Message) -> None:
    """Run the attack of a job; whatever it raises is sent too."""
    job = message.read()
    tensors = message.tensors() if message.body else {}
    del message
    torch.set_num_threads(job["threads"])
    torch.set_deterministic_debug_mode(job["deterministic"])
    ctx = _context(job, line)
    with watched() as room, rounded(ctx.device):
        room.fitting.update(job["rows"])
        try:
            found, forward, gradient = _done(job, tensors, ctx, line)
            told = {"notes": ctx.notes, "queries": [forward, gradient], "rows": room.fitting}
            json.dumps(told)  # what is no JSON is the attack's mistake
        except EOFError:
            raise
        except Exception as error:
            line.say(Kind.FAILURE, _failure(error, room))
            return
    line.say(Kind.RESULT, {**told, "peak_mib": _peak_mib(ctx.device)}, found)


def _context(job: dict[str, Any], line: Line) -> Context:
    watch = Stopwatch(_REPORT_EVERY_S)

    def report(done: int, total: int, values: dict[str, float]) -> None:
        if watch.is_due():
            plain = {name: float(value) for name, value in values.items()}
            line.say(Kind.PROGRESS, {"done": int(done), "total": int(total), "values": plain})

    return Context(
        seed=job["seed"],
        device=torch.device(job["device"]),
        scratch=Path.cwd(),
        max_batch=job["max_batch"],
        on_progress=report,
    )


def _done(
    job: dict[str, Any], tensors: dict[str, Tensor], ctx: Context, line: Line
) -> tuple[dict[str, Tensor], int, int]:
    """What a job asks for by name, and the images asked about: in all, and with gradients."""
    if job["file"] is not None:
        load_plugin_file(job["file"])
    if job["stage"] == "prior":
        return _prior(job, tensors, ctx), 0, 0
    attack = _attack(job)
    victim = _victim(job, attack, ctx, line)
    prior = {name.removeprefix("prior/"): one for name, one in tensors.items() if name.startswith("prior/")}
    if job["stage"] == "adapt":
        found = adapt_with(attack, victim, prior, dequantize(tensors["public"]), ctx)
    elif job["goal"] == "instance":
        found = _tensors(attack.reconstruct(victim, prior, tensors["released"], tensors["targets"], ctx))
    else:
        found = _tensors(invert_with(attack, victim, prior, tensors["targets"], ctx))
    return found, victim.queries.forward, victim.queries.gradient


def _attack(job: dict[str, Any]) -> Attack[Any]:
    """The attack of a job with its fields; PluginError where its source is not what was planned."""
    attack: Attack[Any] = get_attack(job["plugin"]).from_params(job["params"]["attack"])
    check_source(type(attack), job["source"], job["plugin"])
    return attack


def _prior(job: dict[str, Any], tensors: dict[str, Tensor], ctx: Context) -> Prior:
    """As `mibench.stages.preparing.train_prior`, for the attacker's half."""
    public = dequantize(tensors["public"]) if tensors else torch.empty(0)
    if "attack" in job["params"]:
        return _attack(job).learn_prior(public, ctx)
    spec = prior_spec_of({"prior_from": job["spec_from"]})
    if spec is None:
        raise PluginError(f"prior {job['plugin']}: its plugin gives no spec any more. Plan again.")
    check_source(type(spec), job["source"], job["plugin"])
    return spec.fit(public, ctx)


def _victim(job: dict[str, Any], attack: Attack[Any], ctx: Context, line: Line) -> LabelVictim:
    """A victim of exactly the class that the attack declares, which asks over the line."""
    told = job["victim"]
    return attack.needed_access(
        Remote(line, told["num_classes"]),
        shape=tuple(told["shape"]),
        num_classes=told["num_classes"],
        device=ctx.device,
        max_queries=told["max_queries"],
        max_batch=ctx.max_batch,
        allowance=told["allowance"],
    )


def _tensors(got: Reconstructions) -> dict[str, Tensor]:
    """Reconstructions as tensors by name."""
    found = {"images": got.images, "targets": got.targets, "confidence": got.confidence}
    if got.effort is not None:
        effort = got.effort
        found |= {
            "effort.queries": effort.queries,
            "effort.images": effort.images,
            "effort.loss": effort.loss,
        }
        found |= {} if effort.single is None else {"effort.single": effort.single}
    return found


def _failure(error: Exception, room: Room) -> dict[str, Any]:
    """An error as it goes over the line."""
    is_memory = is_out_of_memory(error)
    notes = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    return {
        "type": type(error).__name__,
        "message": told_of(error) if is_memory else (notes + str(error))[:_MOST_TRACE],
        "trace": "".join(traceback.format_exception(error))[-_MOST_TRACE:],
        "memory": is_memory,
        "rows": room.fitting,
    }


def _peak_mib(device: torch.device) -> float:
    """Peak memory of this process in MiB: of the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
