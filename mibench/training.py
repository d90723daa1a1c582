"""The one training loop, and the recipe that names its options."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from mibench.data.moving import moved
from mibench.data.split import Labeled, as_float
from mibench.errors import TrainingError
from mibench.gradients import Gradients
from mibench.memory import in_chunks, must_fit
from mibench.nets.classifier import Classifier
from mibench.nets.seeding import seeded
from mibench.plugin import Context, Stopwatch
from mibench.precision import autocast, exact, fused, sent
from mibench.victim import freeze

Loss = Callable[[Classifier, Tensor, Tensor], Tensor]

__all__ = [
    "Loss",
    "Recipe",
    "accuracy",
    "augment",
    "autocast",
    "check_finite",
    "fit",
    "make_optimizer",
    "mean_loss",
    "rate_at",
]

_ADVICE = "Lower the recipe's batch, or take a smaller net or another device."
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a classifier is trained.

    Args:
        epochs: passes over the training images, >= 1.
        batch: images in a step, >= 1.
        optimizer: SGD with Nesterov momentum, or AdamW.
        lr: peak learning rate, > 0.
        momentum: of SGD, in [0, 1).
        weight_decay: L2 factor, >= 0.
        schedule: cosine decay to zero after a linear warm-up over 5 % of the steps, or constant.
        flip: mirror half of the images of a batch left to right.
        shift: largest random shift of a batch's images in pixels (replicated borders), per image, >= 0.
        jitter: largest random relative change of brightness and contrast, per image, >= 0.
        label_smoothing: in [0, 1).
    """

    epochs: int = 12
    batch: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    flip: bool = True
    shift: int = 2
    jitter: float = 0.0
    label_smoothing: float = 0.0
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"recipe: {name} must be >= 1, got {getattr(self, name)}.")
        if not self.lr > 0:
            raise ValueError(f"recipe: lr must be > 0, got {self.lr}.")
        for name in ("weight_decay", "shift", "jitter"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"recipe: {name} must be >= 0, got {getattr(self, name)}.")
        for name in ("momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"recipe: {name} must lie in [0, 1), got {getattr(self, name)}.")

    def steps(self, images: int) -> int:
        """Optimizer steps in all for a number of images."""
        return self.epochs * math.ceil(images / self.batch)

    def loss(self, net: Classifier, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of a batch (scalar, nats), smoothed by label_smoothing."""
        return F.cross_entropy(net(x), y, label_smoothing=self.label_smoothing)


@must_fit("training", _ADVICE)
def fit(
    net: Classifier,
    data: Labeled,
    ctx: Context,
    *,
    recipe: Recipe,
    loss: Loss | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    batches: Iterator[tuple[Tensor, Tensor]] | None = None,
    steps: int | None = None,
    is_row_mean: bool | None = None,
) -> Classifier:
    """Train `net` on `data` and return it frozen, in eval mode.

    Args:
        net: trained in place, on ctx.device.
        data: labeled images; augmented per image on the device as the recipe says.
        ctx: gives randomness, device and reporter.
        recipe: all options.
        loss: (net, x, y) -> scalar; None takes the recipe's cross-entropy.
        optimizer: a ready optimizer (DP-SGD brings its own); None takes the recipe's.
        batches: a ready source of (x, y) batches (Poisson sampling brings its own); None shuffles `data`.
        steps: number of batches to take; None takes the recipe's epochs.
        is_row_mean: whether the loss is a mean of losses of single rows, so that a batch which does not fit
            into memory may be split, see `Gradients`; None believes it of the recipe's loss, unless a ready
            optimizer looks at the batch itself.

    Raises:
        OutOfRoomError: a batch does not fit into memory and may not be split.
        TrainingError: the loss became NaN or infinite; a diverged training is an error, not a number.
    """
    net.to(ctx.device).train()
    total = recipe.steps(len(data)) if steps is None else steps
    source = _batches(data, recipe, ctx) if batches is None else batches
    ready = make_optimizer(net, recipe) if optimizer is None else optimizer
    schedule = torch.optim.lr_scheduler.LambdaLR(ready, lambda step: rate_at(step, total, recipe.schedule))
    objective = recipe.loss if loss is None else loss
    may_split = loss is None and optimizer is None if is_row_mean is None else is_row_mean
    gradients = Gradients(
        net, partial(objective, net), ctx.device, clear=ready.zero_grad, is_row_mean=may_split, advice=_ADVICE
    )
    watch = Stopwatch()
    with _own_dropout(net, ctx):
        for step in range(total):
            x, y = next(source)
            value = gradients.fill(x, y)
            ready.step()
            schedule.step()
            if watch.is_due() or step == total - 1:
                seen = float(value)
                check_finite(seen, step, "training")
                ctx.report(step + 1, total, loss=seen)
    if not bool(torch.stack([p.detach().isfinite().all() for p in net.parameters()]).all()):
        raise TrainingError("training: weights became NaN or infinite. Lower the learning rate.")
    freeze(net)
    return net


def _own_dropout(net: Classifier, ctx: Context) -> AbstractContextManager[None]:
    """Lets the dropout layers of `net` draw from ctx alone; does nothing for a net without any.

    They know no generator but the global ones, whose state hangs on what ran before.
    """
    if any(isinstance(module, _DropoutNd) for module in net.modules()):
        return seeded(ctx.generator("dropout"), device=ctx.device)
    return nullcontext()


def check_finite(value: float, step: int, what: str) -> None:
    """Raise TrainingError where a loss is NaN or infinite; the step goes to the log alone.

    Steps are looked at by the clock, so neither the step nor which of the two it was repeats between runs,
    and the message stands on a record.
    """
    if not math.isfinite(value):
        _LOG.warning("%s: the loss was %s at step %d", what, value, step)
        raise TrainingError(f"{what}: the loss became NaN or infinite. Lower the learning rate.")


def mean_loss(losses: Sequence[Tensor], counts: Sequence[int], images: int) -> float:
    """The mean loss of an epoch, waiting for the device once and not in every step.

    Args:
        losses: of batches, scalars, each the mean of its rows; detached.
        counts: rows of the batches.
        images: rows of the epoch, by which the sum is divided.
    """
    total = 0.0
    for loss, count in zip(torch.stack(list(losses)).tolist() if losses else (), counts):
        total += loss * count / images  # not `sum`, whose rounding hangs on the version of Python
    return total


def make_optimizer(net: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over the parameters that ask for gradients."""
    params = [p for p in net.parameters() if p.requires_grad]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            params, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused(_device(net))
        )
    return torch.optim.SGD(
        params,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
        fused=fused(_device(net)),
    )


def _device(net: torch.nn.Module) -> torch.device:
    return next((p.device for p in net.parameters()), torch.device("cpu"))


def accuracy(net: torch.nn.Module, data: Labeled, *, max_batch: int = 256) -> float:
    """Share of images whose largest output is their label, in [0, 1]; in float32 on every device."""
    own = next(net.parameters(), None)  # a release step may hold its net out of torch's sight
    device = data.pixels.device if own is None else own.device

    def told(pixels: Tensor) -> Tensor:
        labels: Tensor = net(as_float(pixels).to(device)).argmax(1)
        return labels.cpu()

    with torch.no_grad(), exact(device):
        answers = in_chunks(told, data.pixels, rows=max_batch, what="accuracy")
    return float((answers == data.labels).float().mean())


def rate_at(step: int, total: int, schedule: str) -> float:
    """Share of the peak learning rate, in [0, 1], at step 0, 1, ... of `total`; see `Recipe.schedule`."""
    warm = max(1, round(0.05 * total))
    if step < warm:
        return (step + 1) / warm
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def _batches(data: Labeled, recipe: Recipe, ctx: Context) -> Iterator[tuple[Tensor, Tensor]]:
    generator = ctx.generator("batches")
    held = data.to(ctx.device) if _fits(data, ctx.device) else data
    labels = data.labels.to(ctx.device)
    while True:
        for rows in torch.randperm(len(data), generator=generator).split(recipe.batch):
            x = augment(sent(held.taken(rows), ctx.device), recipe, generator)
            yield x.contiguous(memory_format=torch.channels_last), labels[sent(rows, ctx.device)]


def _fits(data: Labeled, device: torch.device) -> bool:
    """Whether a device should hold all images, and not the batch of a step alone.

    On the CPU they stay where they lie, which may be a file. On CUDA they may take half of the free memory.
    """
    if device.type == "cpu":
        return False
    return device.type != "cuda" or 2 * data.pixels.nbytes <= torch.cuda.mem_get_info(device)[0]


def augment(x: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Images mirrored, shifted and jittered as the recipe says, each by itself, all at once on x's device.

    Bytes are mirrored and shifted as bytes, which takes a quarter of the time and gives the same bits.

    Own code because torchvision's transforms, and the kernels below them, take one set of numbers for a whole
    batch; its `pad` would fit, but makes floats of bytes.

    Args:
        x: (N, C, H, W); uint8, or float32 in [0, 1].
        recipe: gives the ranges.
        generator: on the CPU.

    Returns:
        (N, C, H, W), float32 in [0, 1].
    """
    count, s, is_given = len(x), recipe.shift, x.dtype == torch.float32
    mirrored = torch.rand(count, generator=generator) < 0.5 if recipe.flip else None
    moves = torch.randint(0, 2 * s + 1, (2, count, 1), generator=generator)[:, :, 0] if s > 0 else None
    x = as_float(moved(x, mirrored, moves, most=s))
    if recipe.jitter > 0:
        draws = (torch.rand(2, count, 1, 1, 1, generator=generator) * 2 - 1).to(x.device) * recipe.jitter
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (
            (x - mean if is_given else x.sub_(mean))
            .mul_(1 + draws[0])
            .add_(mean * (1 + draws[1]))
            .clamp_(0, 1)
        )
    return x
