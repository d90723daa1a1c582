"""Loops do not wait for the device in every step: a number is read when there is something to report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mibench.data.split import Labeled
from mibench.gan import StylePrior, WganClipPrior, WganPrior
from mibench.gan_inversion import InversionGan
from mibench.info_gan import InfoGanPrior
from mibench.labeled_gan import CganPrior
from mibench.latent import Search, search_latents
from mibench.nets import NetSpec, build
from mibench.plugin import Context, Stopwatch
from mibench.training import Recipe, fit

SHAPE = (3, 8, 8)
_READS = {"aten._local_scalar_dense", "aten.is_nonzero", "aten.nonzero", "aten.masked_select", "aten.equal"}
_COPIES = {"cpu", "tolist", "numpy"}
_HARMLESS = (str(Path("torch") / "optim"), str(Path("mibench") / "data" / "moving.py"))


class Reads:
    """Counts what would wait for a GPU: scalars read, masks turned into indices, copies to the CPU.

    Some read numbers that lie on the CPU on every device: torch's optimizers their step counters, and what
    mirrors images its coins. `one_hot` looks at its numbers on the CPU alone.
    """

    def __init__(self) -> None:
        self.count = 0

    def note(self) -> None:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            if any(place in frame.f_code.co_filename for place in _HARMLESS):
                return
            frame = frame.f_back
        self.count += 1


class Operations(TorchDispatchMode):
    def __init__(self, reads: Reads) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self.reads = reads

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        masks = isinstance(args[1], list | tuple) if func.overloadpacket is torch.ops.aten.index else False
        if str(func.overloadpacket) in _READS or (
            masks and any(isinstance(one, Tensor) and one.dtype == torch.bool for one in args[1])
        ):
            self.reads.note()
        return func(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, before = getattr(func, "__name__", ""), self.reads.count
        if name in _COPIES:
            self.reads.note()
        got = func(*args, **(kwargs or {}))
        if name == "one_hot":
            self.reads.count = before
        return got


@contextmanager
def counted() -> Iterator[Reads]:
    reads = Reads()
    with Copies(reads), Operations(reads):
        yield reads


def faces(count: int = 12) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def train_classifier(steps: int) -> None:
    net = build(NetSpec(name="mlp", width=4, channels=3, size=8, num_classes=3), torch.Generator())
    data = Labeled(faces(), torch.arange(12) % 3)
    fit(net, data, Context(), recipe=Recipe(epochs=1, batch=4, shift=0, flip=False), steps=steps)


def train_wgan(steps: int) -> None:
    WganPrior(latent_dim=4, width=4, critic_width=4, steps=steps, n_critic=1, batch=4).fit(faces(), Context())


def train_clipped(steps: int) -> None:
    prior = WganClipPrior(latent_dim=4, width=4, critic_width=4, steps=steps, n_critic=1, batch=4)
    prior.fit(faces(), Context())


def train_style(steps: int) -> None:
    prior = StylePrior(latent_dim=4, w_dim=4, width=4, critic_width=4, steps=steps, batch=4, p_samples=8)
    prior.fit(faces(), Context())


def train_inversion_gan(steps: int) -> None:
    wgan = WganPrior(latent_dim=4, width=4, critic_width=4, steps=0, n_critic=1, batch=4)
    how = InversionGan(prior=wgan, steps=steps, n_critic=1, batch=4, critic_width=4)
    how.adapt(wgan.fit(faces(), Context()), torch.full((12, 3), 1 / 3), faces(), Context())


def train_info_gan(steps: int) -> None:
    prior = InfoGanPrior(latent_dim=4, width=4, critic_width=4, steps=steps, batch=4)
    prior.fit(faces(), Context())


def train_labeled_gan(steps: int) -> None:
    prior = CganPrior(latent_dim=4, label_dim=2, width=4, critic_width=4, steps=steps, batch=4)
    prior.fit_labeled(Labeled(faces(), torch.arange(12) % 3), Context())


def search(steps: int) -> None:
    def objective(latents: Tensor) -> tuple[Tensor, Tensor]:
        loss = latents.square().sum(1)
        return loss, loss.detach()

    search_latents(torch.ones(3, 4), objective, Search(steps=steps), Context())


LOOPS: list[Callable[[int], None]] = [
    train_classifier,
    train_wgan,
    train_clipped,
    train_style,
    train_inversion_gan,
    train_info_gan,
    train_labeled_gan,
    search,
]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_more_steps_read_no_more_numbers(
    loop: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stopwatch, "is_due", lambda _watch: False)
    found = []
    for steps in (2, 6):
        with counted() as reads:
            loop(steps)
        found.append(reads.count)
    assert found[0] == found[1]


def test_a_loop_that_reads_its_loss_in_every_step_is_caught() -> None:
    def reading(steps: int) -> None:
        for _ in range(steps):
            float(torch.ones(3).sum())

    with counted() as reads:
        reading(5)
    assert reads.count == 5


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: bool(x.all()),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
    ],
)
def test_each_way_of_waiting_counts(read: Callable[[Tensor], object]) -> None:
    with counted() as reads:
        read(torch.ones(3))
    assert reads.count >= 1
