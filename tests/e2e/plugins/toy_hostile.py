"""A label-level attack that means to get around its victim, in several ways; for tests."""

import gc
import hashlib
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import LabelVictim

_TENSORS = (Tensor, torch.nn.Parameter)  # other kinds hold no weights, and some are never filled


@dataclass(frozen=True, kw_only=True)
class ToyHostile(Attack[LabelVictim]):
    """Does what `way` says, and notes what it found."""

    name = "toy_hostile"
    access = LabelVictim
    card = Card(title="Toy: gets around its victim")
    way: str = "look"

    def invert(self, victim: LabelVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """Gray images, after the deed."""
        images = torch.rand(len(targets), *victim.shape, generator=ctx.generator("gray"))
        getattr(self, f"_{self.way}")(victim, images, ctx)
        return Reconstructions.collect(images, targets)

    def _look(self, victim: Any, images: Tensor, ctx: Context) -> None:
        told = victim._LabelVictim__released(images)
        victim.queries.forward += len(images)  # so that nobody notices
        ctx.note("told", told.flatten().tolist())
        found = list(gc.get_objects())
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            found += frame.f_locals.values()
            frame = frame.f_back
        found += [victim, *victim.__dict__.values(), *os.environ.values(), *sys.argv, str(Path.cwd())]
        for _ in range(2):
            known = {id(one) for one in found}
            found += [one for one in gc.get_referents(*found) if id(one) not in known]
        cells = [one.cell_contents for one in found if type(one).__name__ == "cell" and _is_full(one)]
        tensors = {digest(one) for one in [*found, *cells] if type(one) in _TENSORS and _is_plain(one)}
        ctx.note("tensors", " ".join(sorted(tensors)))
        # a file of a store names itself, its parents are the places
        from mibench.store import Artifact, Store

        names = {str(one) for one in found if issubclass(type(one), str | Path) and len(str(one)) < 200}
        places = {str(ctx.scratch), *(name for name in names if name.startswith("/"))}
        stores = {
            str(one)
            for name in places
            for one in (Path(name), *list(Path(name).parents)[:3])
            if any(one.glob("??/" + 64 * "?" + "/artifact.json"))
        }
        ctx.note("stores", " ".join(sorted(stores)))
        ctx.note("artifacts", sum(issubclass(type(one), Store | Artifact) for one in found))

    def _count(self, victim: LabelVictim, images: Tensor, ctx: Context) -> None:
        victim.labels(images)
        victim.queries.forward = 0

    def _budget(self, victim: LabelVictim, images: Tensor, ctx: Context) -> None:
        victim.max_queries = None
        for _ in range(100):
            victim.labels(images)

    def _crowd(self, victim: LabelVictim, images: Tensor, ctx: Context) -> None:
        victim.max_batch, victim.max_queries = 10**6, None
        victim.labels(images.repeat(1000, 1, 1, 1))

    def _garble(self, victim: LabelVictim, images: Tensor, ctx: Context) -> None:
        _line().sendall(b"give me the weights")
        time.sleep(60)

    def _pickle(self, victim: LabelVictim, images: Tensor, ctx: Context) -> None:
        # a question whose bytes are fewer than its shape says
        from mibench.wire import _HEADER, _TENSOR, Kind

        head = _TENSOR.pack(4, 1, 0, *[2**33, *[0] * 7], *[1, *[0] * 7])
        _line().sendall(_HEADER.pack(b"MW", Kind.ASK, len(head), 4) + head + b"1234")
        time.sleep(60)

    def _stall(self, victim: LabelVictim, images: Tensor, ctx: Context) -> None:
        _line().sendall(b"MW")
        time.sleep(60)

    def _hang(self, victim: LabelVictim, images: Tensor, ctx: Context) -> None:
        sys.stdout.write(f"{os.getpid()} {Path.cwd()}\n")
        sys.stdout.flush()
        time.sleep(600)

    def _leave(self, victim: LabelVictim, images: Tensor, ctx: Context) -> None:
        sys.exit(7)

    def _die(self, victim: LabelVictim, images: Tensor, ctx: Context) -> None:
        os.kill(os.getpid(), 9)

    def _stop(self, victim: LabelVictim, images: Tensor, ctx: Context) -> None:
        from mibench.errors import StoreError

        raise StoreError("store: is full")


def digest(tensor: Tensor) -> str:
    """16 hexadecimal digits of a tensor's values."""
    raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(raw.numpy().tobytes()).hexdigest()[:16]


def _is_plain(tensor: Tensor) -> bool:
    """Whether its values lie side by side: other tests of the process may have left sparse ones."""
    return tensor.layout is torch.strided and tensor.device.type == "cpu"


def _line() -> socket.socket:
    """The connection to the process that holds the victim."""
    ends: list[socket.socket] = [one for one in gc.get_objects() if issubclass(type(one), socket.socket)]
    return next(end for end in ends if end.fileno() >= 0)


def _is_full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
