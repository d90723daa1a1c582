"""Training by turns: what generators and their critics have in common, whatever loss they play for."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.data.moving import moved
from mibench.data.split import as_float
from mibench.memory import must_fit
from mibench.plugin import Context, Stopwatch
from mibench.precision import sent
from mibench.prior import PriorSpec, Shape
from mibench.training import check_finite


class Schedule(Protocol):
    """What a duel reads of a prior's spec; see `WganPrior` for the fields."""

    @property
    def steps(self) -> int:
        """Generator steps."""
        ...

    @property
    def n_critic(self) -> int:
        """Critic steps for each generator step."""
        ...

    @property
    def decay(self) -> float:
        """Last share of the steps, over which the learning rates fall linearly to zero."""
        ...

    @property
    def ema(self) -> float:
        """Decay of the moving average of the generator's weights; 0 turns it off."""
        ...


@must_fit("training of a GAN", "Lower its batch, width or critic_width.")
def duel(
    g: nn.Module,
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    schedule: Schedule,
    ctx: Context,
    *,
    critic_loss: Callable[[], Tensor],
    generator_loss: Callable[[], Tensor],
    name: str,
    after_critic: Callable[[], None] = lambda: None,
) -> nn.Module:
    """The generator after its duel with a critic: the average of its weights where `schedule` asks for it.

    An average has the batch statistics of another net: see `settle_batch_norm`.

    Args:
        g: the generator, trained in place.
        optimizers: of the generator and of the critic.
        schedule: steps and rates.
        ctx: gives the reporter.
        critic_loss: draws a batch and gives the critic's loss, scalar.
        generator_loss: the same for the generator.
        name: what the GAN is called in errors.
        after_critic: called after each step of the critic.

    Raises:
        TrainingError: the critic's loss became NaN or infinite.
    """
    opt_g, opt_d = optimizers
    rates = [float(one.param_groups[0]["lr"]) for one in optimizers]
    average, watch = copy.deepcopy(g), Stopwatch()
    for step in range(schedule.steps):
        for one, rate in zip(optimizers, rates):
            set_lr(rate * decayed(step, schedule.steps, schedule.decay), one)
        for _ in range(schedule.n_critic):
            loss_d = critic_loss()
            update(opt_d, loss_d)
            after_critic()
        loss_g = generator_loss()
        update(opt_g, loss_g)
        move_average(average, g, min(schedule.ema, (step + 1) / (step + 10)))
        if watch.is_due() or step == schedule.steps - 1:
            losses = {"critic": float(loss_d.detach()), "generator": float(loss_g.detach())}
            check_finite(losses["critic"], step, name)
            ctx.report(step + 1, schedule.steps, **losses)
    return average if schedule.ema > 0 else g


def real_or_fake_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss, scalar, from logits of being real of real (N,) and fake images (M,).

    Source: Goodfellow et al., NeurIPS 2014 (arXiv:1406.2661): -log D(x) - log(1 - D(G(z))).
    """
    return realism_loss(real).mean() + F.softplus(fake).mean()


def realism_loss(logits: Tensor) -> Tensor:
    """-log D(x) = softplus(-logit), (N,): the generator's loss that does not saturate, and a search's."""
    return F.softplus(-logits)


def check_spec(spec: PriorSpec, *counts: str, positive: tuple[str, ...], shares: tuple[str, ...]) -> None:
    """Raise ValueError where a field is out of range; a generator may also take no step at all."""
    sizes = ("latent_dim", "width", "critic_width", "batch", *counts)
    ranges = [(sizes, 1, math.inf), (("steps",), 0, math.inf), (shares, 0, 1)]
    for names, low, high in ranges:
        for name in names:
            if not low <= getattr(spec, name) <= high:
                span = f"be >= {low}" if high == math.inf else f"lie in [{low}, {high}]"
                raise ValueError(f"prior {spec.kind}: {name} must {span}, got {getattr(spec, name)}.")
    for name in positive:
        if not getattr(spec, name) > 0:
            raise ValueError(f"prior {spec.kind}: {name} must be > 0, got {getattr(spec, name)}.")


def shape_of(public: Tensor) -> Shape:
    """Shape (C, H, W) of images (N, C, H, W)."""
    _, channels, height, width = public.shape
    return channels, height, width


def stream(images: Tensor, batch: int, rng: torch.Generator, device: torch.device) -> Iterator[Tensor]:
    """Endless shuffled batches of images, each image mirrored with probability 1/2."""
    for x, _ in stream_of_rows(images, batch, rng, device):
        yield x


def stream_of_rows(
    images: Tensor, batch: int, rng: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of `stream` with their row numbers (B,), int64, on the device.

    Images (N, C, H, W) may be bytes, uint8; the batches are float32.
    """
    images = images.to(device)
    while True:
        for rows in torch.randperm(len(images), generator=rng).split(batch):
            if len(rows) == batch or len(images) < batch:
                mirrored = torch.rand(len(rows), 1, 1, 1, generator=rng) < 0.5
                there = sent(rows, device)
                x = as_float(moved(images.index_select(0, there), mirrored.flatten()))
                yield x.contiguous(memory_format=torch.channels_last), there


def normal(rows: int, columns: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal latents (rows, columns), drawn on the CPU."""
    return sent(torch.randn(rows, columns, generator=rng), device)


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of the optimizer's own parameters on a scalar loss."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for param, grad in zip(params, torch.autograd.grad(loss, params, allow_unused=True)):
        param.grad = grad
    optimizer.step()


def set_lr(lr: float, optimizer: torch.optim.Optimizer) -> None:
    """Give all parameters of an optimizer one learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def decayed(step: int, steps: int, share: float) -> float:
    """Factor of the learning rate: 1, then linear to zero over the last `share` of the steps."""
    left = (steps - step) / steps
    return 1.0 if left >= share else left / share


@torch.no_grad()
def move_average(average: nn.Module, net: nn.Module, keep: float) -> None:
    """Move the weights of `average` towards those of `net`, of which the share `keep` stays; in place."""
    own, new = list(average.parameters()), list(net.parameters())
    torch._foreach_lerp_([p.data for p in own], [p.data for p in new], 1 - keep)
    for kept, buffer in zip(average.buffers(), net.buffers()):
        kept.copy_(buffer)


def reestimate_batch_norm(g: nn.Module, dim: int, rng: torch.Generator, device: torch.device) -> None:
    """Take batch-norm statistics of averaged weights from random latents, in place."""
    settle_batch_norm(g, lambda rows: normal(rows, dim, rng, device))


@torch.no_grad()
def settle_batch_norm(g: nn.Module, draw: Callable[[int], Tensor]) -> None:
    """Take batch-norm statistics of a generator from 32 batches of 64 inputs, in place.

    Args:
        g: the generator.
        draw: a number of rows -> random inputs (rows, ...).
    """
    norms = [m for m in g.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    g.train()
    for _ in range(32):
        g(draw(64))
