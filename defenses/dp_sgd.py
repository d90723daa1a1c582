"""Differentially private training: each image's gradient is clipped, and noise hides what is left of it.

The net meets the private images only through clipped, noisy gradients, so no single image can shape it
much. The guarantee is per image: a person with k images is protected with k * epsilon only, which says
little for faces; `unit = "identity"` clips and samples by the person instead, which protects all images of a
person at once and costs far more accuracy. epsilon = 8 is a loose budget; a smaller one means more noise.

Nothing in it is aimed at inversion. An attacker needs nothing special; losses that do not saturate suit the
flat confidences better.

Sources: Abadi et al., CCS 2016 (arXiv:1607.00133), through Opacus; persons as the unit, McMahan et al., ICLR
2018 (arXiv:1710.06963). The comparison of GAN-D and GAN-ID (IEEE TIFS 2023) uses it with epsilon = 8 and
gives no other setting.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
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

from ._dp_budget import least_noise, spent
from ._private_steps import (
    Average,
    bounded,
    gradient_bytes,
    hand_over_whole,
    on_device,
    pace,
    parts_of,
    quiet_hooks,
    read_contiguous,
    units_of,
)

if TYPE_CHECKING:
    from opacus.accountants.accountant import IAccountant
    from opacus.optimizers import DPOptimizer

Batches = Iterator[tuple[Tensor, Tensor]]
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class DpSgd(Defense):
    """DP-SGD with Poisson sampling, flat clipping and a noise calibrated to (epsilon, delta).

    Args:
        epsilon: privacy budget for each image (see `unit`), > 0; see `noise_multiplier`.
        delta: probability with which the budget may fail, in (0, 1) and below 1 / number of images.
        max_grad_norm: L2 norm C to which an image's gradient is clipped, > 0; 0.1, 1 and 10 are worth a try.
        noise_multiplier: standard deviation of the noise in units of C, >= 0; None computes the least one
            that keeps to `epsilon` (by Renyi accounting). 0 switches the noise and the guarantee off.
        accountant: computes the epsilon that is put on record: "rdp", or "prv", whose bound is about 8 %
            lower for the same noise. The noise is calibrated by "rdp" either way.
        epochs: expected passes over the private images, >= 1.
        batch: expected size of a Poisson batch, >= 1; more than there are images means all of them.
        max_physical_batch: images whose gradients are held at once, >= 1; bounds memory, and moves results by
            roundings alone.
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
        gradient_mib: MiB that the gradients of single images may take, >= 0; parts of a batch shrink below
            `max_physical_batch` to keep to it, down to one image. Moves results by roundings alone. 0 sets
            no bound. A VGG-16 of 64 px takes 67 MB an image. Activations come on top.
        clipping: "flat" bounds the norm over all parameters; "per_layer" bounds each parameter tensor by an
            equal share C / sqrt(tensors): the same guarantee, other directions.
        unit: what the budget protects and Poisson sampling, `batch` and `delta` count: one "image", or an
            "identity", whose gradient, the mean over all its images, is clipped as a whole.
    """

    name = "dp_sgd"
    version = 2
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
            "The sample rate is batch / images; Opacus' own loader takes 1 / ceil(images / batch).",
            "Clipping by the person (unit = 'identity') is an option that the comparison does not have.",
            "Batches are always Poisson: shuffled ones, which Opacus allows, do not bear out the accounting.",
        ),
    )
    strength: ClassVar[str] = "epsilon"
    strength_levels: ClassVar[tuple[object, ...]] = (50.0, 8.0, 1.0)

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
    gradient_mib: int = 0
    clipping: Literal["flat", "per_layer"] = "flat"
    unit: Literal["image", "identity"] = "image"

    def __post_init__(self) -> None:
        for name in ("epsilon", "max_grad_norm", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"dp_sgd: {name} must be > 0 and finite, got {getattr(self, name)}.")
        for name in ("epochs", "batch", "max_physical_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"dp_sgd: {name} must be >= 1, got {getattr(self, name)}.")
        for name in ("groups", "public_epochs", "gradient_mib"):
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
        if self.unit == "identity" and self.gradient_mib:
            raise ValueError(
                f"dp_sgd: gradient_mib = {self.gradient_mib} does nothing with unit = 'identity', it holds "
                "no gradient of a single image. Leave it out."
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
        and `dp_steps` (noisy steps); `dp_unit` where the budget protects another unit than an image.

        Raises:
            ValueError: delta is not below 1 / number of private images, or no noise keeps to epsilon.
        """
        count, units = len(view.private_train), "images"
        if self.unit == "identity":
            count, units = len(view.private_train.labels.unique()), "people"
        if not self.delta < 1 / count:
            raise ValueError(
                f"dp_sgd: delta must lie below 1 / {count} private {units} ({1 / count:.3g}), else "
                f"publishing one {self.unit} would be allowed; got {self.delta}. Lower delta."
            )
        net.to(ctx.device)
        if self.public_epochs:
            self._learn_public(net, view, ctx.child("public"))
        self._learn_private(net, view, ctx)
        freeze(net)
        return net

    def sample_rate(self, units: int) -> float:
        """Probability with which a step takes each of a number of units (images or people)."""
        return min(1.0, self.batch / units)

    def steps(self, units: int) -> int:
        """Noisy steps for a number of units: epochs / sample rate, rounded."""
        return max(1, round(self.epochs / self.sample_rate(units)))

    def noise(self, units: int) -> float:
        """Noise multiplier for a number of units: `noise_multiplier`, or calibrated to the budget.

        Raises:
            ValueError: no noise keeps to epsilon.
        """
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        rate, steps = self.sample_rate(units), self.steps(units)
        return least_noise(epsilon=self.epsilon, delta=self.delta, rate=rate, steps=steps)

    def physical_batch(self, net: Classifier) -> int:
        """Images whose gradients are held at once, by `max_physical_batch` and `gradient_mib`, >= 1."""
        if not self.gradient_mib:
            return self.max_physical_batch
        return max(1, min(self.max_physical_batch, self.gradient_mib * _MIB // gradient_bytes(net)))

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

        units = units_of(view.private_train.labels, self.unit)
        rate = self.sample_rate(len(units))
        # Opacus hangs hooks and tensors on the net that it trains; a copy keeps them off the result
        worker = copy.deepcopy(net).train()
        if self.trainable == "head":
            worker.requires_grad_(False).head.requires_grad_(True)
        params = [p for p in worker.parameters() if p.requires_grad]
        sgd = torch.optim.SGD(params, lr=self.lr, momentum=self.momentum)
        average = Average(net, worker, self.ema)
        sgd.register_step_post_hook(lambda *_: average.update())
        optimizer = bounded(
            params,
            sgd,
            clipping=self.clipping,
            norm=self.max_grad_norm,
            noise=self.noise(len(units)),
            batch=rate * len(units),
            generator=on_device(ctx.generator("noise"), ctx.device),
        )
        accountant = create_accountant("rdp" if self.noise_multiplier == 0 else self.accountant)
        optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=rate))
        self._descend(worker, optimizer, units, view, ctx)
        self._note(accountant, optimizer.noise_multiplier, rate, ctx)

    def _descend(
        self,
        worker: Classifier,
        optimizer: DPOptimizer,
        units: Sequence[Tensor],
        view: DefenderView,
        ctx: Context,
    ) -> None:
        """Take all steps, each over one Poisson batch of units, in parts that fit the memory."""
        from opacus.grad_sample import GradSampleModule

        logical = self._draw(len(units), ctx)
        by_image = self.unit == "image"
        most = self.physical_batch(worker) if by_image else 1
        pace(optimizer.original_optimizer, len(logical), schedule=self.schedule)
        if by_image:
            read_contiguous(worker)
            GradSampleModule(worker)
        else:
            hand_over_whole(optimizer.params)
        with quiet_hooks():
            fit(
                worker,
                view.private_train,
                ctx,
                recipe=Recipe(schedule=self.schedule),
                loss=self.loss,
                optimizer=optimizer,
                batches=self._batches(logical, units, most=most, view=view, optimizer=optimizer, ctx=ctx),
                steps=sum(parts_of(len(taken), most) for taken in logical),
            )

    def _draw(self, units: int, ctx: Context) -> list[list[int]]:
        """Units of every Poisson batch, drawn ahead because the loop must know how many parts will come."""
        from opacus.utils.uniform_sampler import UniformWithReplacementSampler

        sampler = UniformWithReplacementSampler(
            num_samples=units,
            sample_rate=self.sample_rate(units),
            generator=ctx.generator("poisson"),
            steps=self.steps(units),
        )
        return list(sampler)

    def _batches(
        self,
        logical: Sequence[list[int]],
        units: Sequence[Tensor],
        *,
        most: int,
        view: DefenderView,
        optimizer: DPOptimizer,
        ctx: Context,
    ) -> Batches:
        """The batches in parts of `most` units; the optimizer is told which part ends a batch.

        Opacus' BatchSplittingSampler does both, and leaves an empty batch one step. Its BatchMemoryManager
        is the same sampler inside a DataLoader; the images lie in memory here, and a DataLoader would fetch
        them one by one and draw from torch's global generator.
        """
        from opacus.utils.batch_memory_manager import BatchSplittingSampler

        data: Labeled = view.private_train.to(ctx.device)
        generator = ctx.generator("augment")

        def looks(rows: Tensor) -> tuple[Tensor, Tensor]:
            x = data.images[rows]
            if self.augment and len(rows):
                x = augment(x, view.recipe, generator)
            return x, data.labels[rows]

        for taken in logical:
            if self.unit == "image":  # all before the split, so that the draws do not follow `most`
                x, y = looks(_joined(units, taken, ctx.device))
            places = list(range(len(taken)))
            for part in BatchSplittingSampler(sampler=[places], max_batch_size=most, optimizer=optimizer):
                if self.unit == "image":
                    rows = torch.tensor(part, dtype=torch.int64, device=ctx.device)
                    yield x[rows], y[rows]
                else:
                    rows = _joined(units, [taken[place] for place in part], ctx.device)
                    yield looks(rows)

    def _note(self, accountant: IAccountant, noise: float, rate: float, ctx: Context) -> None:
        """Put what was spent on record; the word "infinite" where there was no noise."""
        ctx.note("dp_epsilon", spent(accountant, delta=self.delta) if noise > 0 else "infinite")
        ctx.note("dp_delta", self.delta)
        ctx.note("dp_noise_multiplier", noise)
        ctx.note("dp_sample_rate", rate)
        ctx.note("dp_steps", float(sum(steps for _, _, steps in accountant.history)))
        if self.unit != "image":
            ctx.note("dp_unit", self.unit)


def _joined(units: Sequence[Tensor], taken: Sequence[int], device: torch.device) -> Tensor:
    """All rows of the units that were taken, in order, a vector int64 on the device."""
    none = torch.empty(0, dtype=torch.int64)
    return torch.cat([none, *(units[place] for place in taken)]).to(device)
