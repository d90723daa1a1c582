"""Differentially private training: each image's gradient is clipped, and noise hides what is left of it.

The net meets the private images only through clipped, noisy gradients, so no single image can shape it
much. The guarantee is per image: a person with k images is protected with k * epsilon only, which says
little for faces. epsilon = 8 is a loose budget; a smaller one means more noise.

Source: Abadi et al., CCS 2016 (arXiv:1607.00133), through Opacus. The comparison of GAN-D and GAN-ID (IEEE
TIFS 2023) uses it with epsilon = 8 and gives no other setting.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.data.split import Labeled
from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.nets.seeding import seeded
from mibench.plugin import Card, Context, Settings
from mibench.training import Recipe, augment, fit
from mibench.victim import freeze

if TYPE_CHECKING:
    from opacus.accountants.accountant import IAccountant
    from opacus.optimizers import DPOptimizer

Batches = Iterator[tuple[Tensor, Tensor]]
_WARM_STEPS = 10  # the average follows (1 + t) / (10 + t) at first, as in TensorFlow's moving average


@dataclass(frozen=True, kw_only=True)
class DpSgd(Defense):
    """DP-SGD with Poisson sampling, flat clipping and a noise calibrated to (epsilon, delta).

    Args:
        epsilon: privacy budget for each image, > 0; see `noise_multiplier`.
        delta: probability with which the budget may fail, in (0, 1) and below 1 / number of images.
        max_grad_norm: L2 norm C to which an image's gradient is clipped, > 0.
        noise_multiplier: standard deviation of the noise in units of C, >= 0; None computes the least one
            that keeps to `epsilon` (by Renyi accounting). 0 switches the noise and the guarantee off.
        accountant: computes the epsilon that is put on record: "rdp", or "prv", which is tighter.
        epochs: expected passes over the private images, >= 1.
        batch: expected size of a Poisson batch, >= 1; more than there are images means all of them.
        max_physical_batch: images whose gradients are held at once, >= 1; bounds memory. The learning rate
            follows these parts, so another size moves it by less than a step; augmentation draws for each.
        lr: peak learning rate, > 0.
        momentum: of SGD, in [0, 1).
        schedule: of the learning rate, see `Recipe.schedule`.
        augment: mirror and shift each private image as the suite's recipe says; costs no budget.
        ema: decay of the running average of the weights that is released, in [0, 1); 0 takes the last ones.
        groups: groups of the GroupNorm layers that take the place of BatchNorm, >= 0 and a divisor of all
            widths; 0 takes Opacus' rule gcd(32, width).
        public_epochs: passes over the defender's own public people before the private training, >= 0.
            They cost no budget: nobody stands in both parts. 0 trains from scratch, which takes far more
            than a thousand images: 40 people, 960 images, 32 px, epsilon 8 gave 0.3 instead of 0.8.
        trainable: "all", or "head", which freezes what the public people taught; needs `public_epochs`.
    """

    name = "dp_sgd"
    acts = "training"
    card = Card(
        title="Deep Learning with Differential Privacy",
        paper="arXiv:1607.00133",
        year=2016,
        code="https://github.com/pytorch/opacus",
        deviations=(
            "BatchNorm becomes GroupNorm, since BatchNorm lets the images of a batch meet.",
            "The released weights are a running average of the trained ones (De et al., arXiv:2204.13650).",
            "The net first learns from public people; from scratch a thousand images do not bear the noise.",
            "Everything but epsilon is our choice: the TIFS comparison gives epsilon = 8 alone.",
        ),
    )

    # a noise that is given needs no search for it, and little of it lets a few images teach something
    toy: ClassVar[Settings] = {
        "noise_multiplier": 0.1,
        "delta": 1e-3,
        "epochs": 6,
        "batch": 32,
        "public_epochs": 3,
    }

    epsilon: float = 8.0
    delta: float = 1e-5
    max_grad_norm: float = 1.0
    noise_multiplier: float | None = None
    accountant: Literal["rdp", "prv"] = "rdp"
    epochs: int = 20
    batch: int = 1024
    max_physical_batch: int = 128
    lr: float = 1.0
    momentum: float = 0.9
    schedule: Literal["cosine", "constant"] = "cosine"
    augment: bool = False
    ema: float = 0.9
    groups: int = 0
    public_epochs: int = 6
    trainable: Literal["all", "head"] = "all"

    def __post_init__(self) -> None:
        for name in ("epsilon", "max_grad_norm", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"dp_sgd: {name} must be > 0 and finite, got {getattr(self, name)}.")
        for name in ("epochs", "batch", "max_physical_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"dp_sgd: {name} must be >= 1, got {getattr(self, name)}.")
        for name in ("groups", "public_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"dp_sgd: {name} must be >= 0, got {getattr(self, name)}.")
        for name in ("momentum", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"dp_sgd: {name} must lie in [0, 1), got {getattr(self, name)}.")
        if not 0 < self.delta < 1:
            raise ValueError(f"dp_sgd: delta must lie in (0, 1), got {self.delta}.")
        if self.noise_multiplier is not None and not 0 <= self.noise_multiplier < math.inf:
            raise ValueError(f"dp_sgd: noise_multiplier must be >= 0, got {self.noise_multiplier}.")
        if self.trainable == "head" and self.public_epochs == 0:
            raise ValueError(
                "dp_sgd: trainable='head' freezes layers that nothing has trained (public_epochs is 0). "
                "Give public_epochs or take trainable='all'."
            )

    def prepare(self, net: Classifier) -> Classifier:
        """A copy of the net without BatchNorm (GroupNorm instead) and without in-place operations."""
        from opacus.validators import ModuleValidator

        clone = copy.deepcopy(net).train().requires_grad_(True)  # Opacus mends only what trains
        options = {"num_groups": self.groups} if self.groups else {}
        fixed = cast(Classifier, ModuleValidator.fix(clone, **options))
        for module in fixed.modules():
            if getattr(module, "inplace", False):
                # not seen by the validator, yet the per-image gradients break on it
                cast(Any, module).inplace = False
        return fixed

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The net trained on the private images under (epsilon, delta); see Defense.train.

        Notes on the record: `dp_epsilon` (spent) with `dp_delta`, `dp_noise_multiplier`, `dp_sample_rate`
        and `dp_steps` (noisy steps).

        Raises:
            ValueError: delta is not below 1 / number of private images.
        """
        count = len(view.private_train)
        if not self.delta < 1 / count:
            raise ValueError(
                f"dp_sgd: delta must lie below 1 / {count} private images ({1 / count:.3g}), else publishing "
                f"one image would be allowed; got {self.delta}. Lower delta."
            )
        net.to(ctx.device)
        if self.public_epochs:
            self._learn_public(net, view, ctx.child("public"))
        self._learn_private(net, view, ctx)
        freeze(net)
        return net

    def sample_rate(self, images: int) -> float:
        """Probability with which a step takes each of a number of images."""
        return min(1.0, self.batch / images)

    def steps(self, images: int) -> int:
        """Noisy steps for a number of images: epochs / sample rate, rounded."""
        return max(1, round(self.epochs / self.sample_rate(images)))

    def noise(self, images: int) -> float:
        """Noise multiplier for a number of images: `noise_multiplier`, or calibrated to the budget."""
        from opacus.accountants.utils import get_noise_multiplier

        if self.noise_multiplier is not None:
            return self.noise_multiplier
        with _quiet_accounting():
            return float(
                get_noise_multiplier(
                    target_epsilon=self.epsilon,
                    target_delta=self.delta,
                    sample_rate=self.sample_rate(images),
                    steps=self.steps(images),
                    accountant="rdp",  # prv takes minutes to search with
                )
            )

    def loss(self, net: Classifier, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of a batch (scalar, nats), 0 for an empty one, always in float32."""
        with torch.autocast(x.device.type, enabled=False):
            logits = net(x)
            return F.cross_entropy(logits, y) if len(y) else logits.sum()

    def _learn_public(self, net: Classifier, view: DefenderView, ctx: Context) -> None:
        """Train all but the head of the net on the defender's public people, in place."""
        own_head = net.head
        with seeded(ctx.generator("head")):
            people = nn.Linear(net.feature_dim, int(view.public.labels.max()) + 1)
        net.head = people
        fit(net, view.public, ctx, recipe=replace(view.recipe, epochs=self.public_epochs))
        net.head = own_head
        net.requires_grad_(True)

    def _learn_private(self, net: Classifier, view: DefenderView, ctx: Context) -> None:
        """Run DP-SGD on a copy and leave the average of its weights in the net."""
        from opacus.accountants import create_accountant
        from opacus.grad_sample import GradSampleModule
        from opacus.optimizers import DPOptimizer

        count = len(view.private_train)
        rate = self.sample_rate(count)
        # Opacus hangs hooks and tensors on the net that it trains; a copy keeps them off the result
        worker = copy.deepcopy(net).train()
        if self.trainable == "head":
            worker.requires_grad_(False).head.requires_grad_(True)
        hooks = GradSampleModule(worker)
        params = [p for p in worker.parameters() if p.requires_grad]
        sgd = torch.optim.SGD(params, lr=self.lr, momentum=self.momentum)
        average = _Average(net, worker, self.ema)
        sgd.register_step_post_hook(lambda *_: average.update())
        optimizer = DPOptimizer(
            sgd,
            noise_multiplier=self.noise(count),
            max_grad_norm=self.max_grad_norm,
            expected_batch_size=rate * count,
            generator=_on_device(ctx.generator("noise"), ctx.device),
        )
        accountant = create_accountant("rdp" if self.noise_multiplier == 0 else self.accountant)
        optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=rate))
        logical = self._draw(count, ctx)
        with _quiet_hooks():
            fit(
                worker,
                view.private_train,
                ctx,
                recipe=Recipe(schedule=self.schedule),
                loss=self.loss,
                optimizer=optimizer,
                batches=self._batches(logical, view, optimizer, ctx),
                steps=sum(max(1, math.ceil(len(rows) / self.max_physical_batch)) for rows in logical),
            )
        hooks.remove_hooks()
        self._note(accountant, optimizer.noise_multiplier, rate, ctx)

    def _draw(self, count: int, ctx: Context) -> list[list[int]]:
        """Rows of every Poisson batch, drawn ahead because the loop must know how many parts will come."""
        from opacus.utils.uniform_sampler import UniformWithReplacementSampler

        sampler = UniformWithReplacementSampler(
            num_samples=count,
            sample_rate=self.sample_rate(count),
            generator=ctx.generator("poisson"),
            steps=self.steps(count),
        )
        return list(sampler)

    def _batches(
        self, logical: list[list[int]], view: DefenderView, optimizer: DPOptimizer, ctx: Context
    ) -> Batches:
        """The batches in parts of `max_physical_batch`; the optimizer is told which part ends a batch."""
        from opacus.utils.batch_memory_manager import BatchSplittingSampler

        data: Labeled = view.private_train.to(ctx.device)
        generator = ctx.generator("augment")
        parts = BatchSplittingSampler(
            sampler=logical, max_batch_size=self.max_physical_batch, optimizer=optimizer
        )
        for part in parts:
            rows = torch.tensor(part, dtype=torch.int64, device=ctx.device)
            x = data.images[rows]
            if self.augment and len(part):
                x = augment(x, view.recipe, generator)
            yield x, data.labels[rows]

    def _note(self, accountant: IAccountant, noise: float, rate: float, ctx: Context) -> None:
        """Put what was spent on record; the word "infinite" where there was no noise."""
        spent: float | str = "infinite"
        if noise > 0:
            with _quiet_accounting():
                spent = float(accountant.get_epsilon(delta=self.delta))
        ctx.note("dp_epsilon", spent)
        ctx.note("dp_delta", self.delta)
        ctx.note("dp_noise_multiplier", noise)
        ctx.note("dp_sample_rate", rate)
        ctx.note("dp_steps", float(sum(steps for _, _, steps in accountant.history)))


class _Average:
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


@contextmanager
def _quiet_hooks() -> Iterator[None]:
    """Silence torch about the first layer: its input, the images, needs no gradient."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing when", category=UserWarning)
        yield


@contextmanager
def _quiet_accounting() -> Iterator[None]:
    """Silence what Opacus' accountants say about noise levels that do not matter.

    The search starts at a huge noise, where the best Renyi order lies at the end of the list: the bound is
    looser there, and stays valid. At sample rate 1 the formula of "prv" takes the logarithm of 0 in a branch
    that it then discards.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        warnings.filterwarnings("ignore", message="divide by zero encountered", category=RuntimeWarning)
        yield


def _on_device(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on the device, seeded like one on the CPU: Opacus draws the noise where the weights lie."""
    if device.type == "cpu":
        return generator
    return torch.Generator(device=device).manual_seed(generator.initial_seed())
