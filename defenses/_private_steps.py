"""The parts of a DP-SGD step: what is sampled, how gradients are bounded, what moves the learning rate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from mibench.training import rate_at

if TYPE_CHECKING:
    from opacus.optimizers import DPOptimizer

_FLOAT_BYTES = 4
_WARM_STEPS = 10  # the average follows (1 + t) / (10 + t) at first, as in TensorFlow's moving average


def units_of(labels: Tensor, unit: Literal["image", "identity"]) -> list[Tensor]:
    """Rows (each a vector int64) of every unit that is protected: an image's one, or all of a person's."""
    if unit == "image":
        return list(torch.arange(len(labels)).split(1))
    return [torch.nonzero(labels == person).flatten() for person in labels.unique()]


def gradient_bytes(net: nn.Module) -> int:
    """Bytes that one image's gradient takes at its peak, by the parameters of `net` that train.

    Opacus copies the gradients of a layer once after it has computed them, so the largest tensor counts
    twice. Activations are not in it.
    """
    sizes = [p.numel() for p in net.parameters() if p.requires_grad]
    return _FLOAT_BYTES * (sum(sizes) + max(sizes))


def parts_of(rows: int, most: int) -> int:
    """Parts of at most `most` rows that a batch is split into; an empty batch is one, since it steps too."""
    return max(1, math.ceil(rows / most))


def bounded(
    params: list[nn.Parameter],
    sgd: torch.optim.Optimizer,
    *,
    clipping: Literal["flat", "per_layer"],
    norm: float,
    noise: float,
    batch: float,
    generator: torch.Generator,
) -> DPOptimizer:
    """The optimizer that clips every gradient sample, sums, adds noise and divides by the expected batch.

    Args:
        params: all that `sgd` trains.
        sgd: takes the noisy mean for a gradient.
        clipping: "flat" bounds the norm over all parameters; "per_layer" bounds each parameter tensor by an
            equal share norm / sqrt(tensors), which together are again bounded by `norm`.
        norm: L2 norm C of a sample's clipped gradient, > 0.
        noise: deviation of the noise in units of C, >= 0.
        batch: expected number of samples of a batch, > 0.
        generator: draws the noise, on the device of the parameters.
    """
    from opacus.optimizers import DPOptimizer, DPPerLayerOptimizer

    if clipping == "flat":
        return DPOptimizer(
            sgd,
            noise_multiplier=noise,
            max_grad_norm=norm,
            expected_batch_size=batch,
            generator=generator,
        )
    return DPPerLayerOptimizer(
        sgd,
        noise_multiplier=noise,
        max_grad_norm=[norm / math.sqrt(len(params))] * len(params),
        expected_batch_size=batch,
        generator=generator,
    )


def read_contiguous(net: nn.Module) -> None:
    """Let every convolution of `net` read its input row by row, in place.

    Opacus unfolds that input by strides which hold for this layout alone (`unfold2d`, read in 1.6.0): from
    channels-last maps it takes other pixels of the same image, and says nothing.
    """
    net.to(memory_format=torch.contiguous_format)  # most maps then come out contiguous without a copy
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: tuple(x.contiguous() for x in inputs))


def hand_over_whole(params: list[nn.Parameter]) -> None:
    """Give each backward pass's gradient to Opacus as that of one sample.

    With the mean loss of one person's images this is the person's gradient. No gradient of a single image is
    computed, so it costs the memory and the time of plain training.
    """

    def hand_over(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad_sample = parameter.grad[None]  # type: ignore[attr-defined]  # where Opacus looks

    for parameter in params:
        parameter.register_post_accumulate_grad_hook(hand_over)


def pace(sgd: torch.optim.Optimizer, steps: int, *, schedule: str) -> None:
    """Set the learning rate of each true step, whatever a training loop that sees parts has set.

    Args:
        sgd: its learning rate now is the peak.
        steps: true steps that will come, >= 1.
        schedule: see `Recipe.schedule`.
    """
    peak = sgd.param_groups[0]["lr"]
    rates = iter([peak * rate_at(step, steps, schedule) for step in range(steps)])

    def set_rate(optimizer: torch.optim.Optimizer, *_: object) -> None:
        now = next(rates)
        for group in optimizer.param_groups:
            group["lr"] = now

    sgd.register_step_pre_hook(set_rate)


class Average:
    """Keeps the weights of `target` at a running average of those of `source`.

    Args:
        target: holds the average, at first the weights that both nets start with.
        source: the net in training.
        decay: weight of the past, in [0, 1); less during the first steps.
    """

    def __init__(self, target: nn.Module, source: nn.Module, decay: float) -> None:
        self.pairs = list(zip(target.parameters(), source.parameters()))
        self.decay = decay
        self.done = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take one step of the source in."""
        decay = min(self.decay, (1 + self.done) / (_WARM_STEPS + self.done))
        for kept, new in self.pairs:
            kept.lerp_(new, 1 - decay)
        self.done += 1


def on_device(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on the device, seeded like one on the CPU: Opacus draws the noise where the weights lie."""
    if device.type == "cpu":
        return generator
    return torch.Generator(device=device).manual_seed(generator.initial_seed())


@contextmanager
def quiet_hooks() -> Iterator[None]:
    """Silence torch about the first layer: its input, the images, needs no gradient."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing when", category=UserWarning)
        yield
