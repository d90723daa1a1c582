"""The defender's own inversion network: it draws images from predictions, as a black-box attacker's would.

Trained on the defender's own public people. Defenses that aim at an inversion attack aim at this network,
and hope that the attacker's errs likewise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor
from torch.nn import functional as F

from mibench.nets.classifier import Classifier, NetSpec, as_channels_last
from mibench.nets.inversion_net import InversionNet, prepare_prediction
from mibench.nets.seeding import seeded
from mibench.plugin import Context, Stopwatch
from mibench.precision import autocast, fused
from mibench.training import check_finite, mean_loss

_BETAS = (0.5, 0.999)  # Adam of the inversion network; the authors of AMI and its ports


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """How the defender's inversion network is built and trained.

    Args:
        truncation: largest entries of a prediction that the network sees, >= 0; 0 keeps all.
        width: channels of the network's last hidden map, >= 1.
        epochs: passes over the images, >= 1.
        batch: images in a step, >= 1.
        lr: learning rate of Adam (AMSGrad), > 0.
    """

    truncation: int = 0
    width: int = 128
    epochs: int = 100
    batch: int = 128
    lr: float = 2e-4
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name, least in (("truncation", 0), ("width", 1), ("epochs", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"surrogate: {name} must be >= {least}, got {getattr(self, name)}.")
        if not self.lr > 0:
            raise ValueError(f"surrogate: lr must be > 0, got {self.lr}.")

    def prepare(self, log_p: Tensor) -> Tensor:
        """What the network sees of log-probabilities (N, K): (N, K), float32, differentiable."""
        classes = log_p.shape[1]
        return prepare_prediction(log_p, min(self.truncation or classes, classes))

    def build(self, spec: NetSpec, ctx: Context) -> InversionNet:
        """The untrained network for a classifier's predictions and images, on ctx.device."""
        with seeded(ctx.generator("decoder")):
            decoder = InversionNet(
                num_classes=spec.num_classes, width=self.width, size=spec.size, channels=spec.channels
            )
        as_channels_last(decoder)
        return decoder.to(ctx.device)

    def fit(
        self, decoder: InversionNet, log_p: Tensor, images: Tensor, ctx: Context, *, name: str
    ) -> InversionNet:
        """The network trained in place with the mean squared pixel error; left in training mode.

        Notes on the record: `<name>_error`, its last mean squared pixel error.

        Args:
            decoder: the untrained network.
            log_p: log-probabilities (N, K), on ctx.device.
            images: (N, C, H, W), what they are of.
            ctx: gives randomness, device and reporter.
            name: of the defense.

        Raises:
            TrainingError: the training diverged.
        """
        prepared, images = self.prepare(log_p), images.to(ctx.device)
        generator = ctx.generator("batches")
        optimizer = torch.optim.Adam(
            decoder.parameters(), lr=self.lr, betas=_BETAS, amsgrad=True, fused=fused(ctx.device)
        )
        watch = Stopwatch()
        decoder.train()
        for epoch in range(self.epochs):
            order = torch.randperm(len(images), generator=generator).to(images.device)
            losses, counts = [], []
            for rows in order.split(self.batch):
                optimizer.zero_grad(set_to_none=True)
                with autocast(ctx.device):
                    loss = F.mse_loss(decoder(prepared[rows]).float(), images[rows])
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
                counts.append(len(rows))
            total = mean_loss(losses, counts, len(images))
            check_finite(total, epoch, f"{name}: inversion network")
            if watch.is_due():
                ctx.report(epoch + 1, self.epochs, loss=total)
        ctx.note(f"{name}_error", total)
        return decoder


def log_answers(net: Classifier, images: Tensor, ctx: Context) -> Tensor:
    """The victim's log-probabilities (N, K) of images (N, C, H, W), float32, without gradients."""
    with torch.no_grad():
        return torch.cat([net(x.to(ctx.device)).log_softmax(1) for x in images.split(ctx.max_batch)])
