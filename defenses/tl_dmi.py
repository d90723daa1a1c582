"""Transfer learning: the first layers learn from public people and never see a private image.

Fewer weights that are fitted to private people hold less of them. The first blocks keep what the public
people taught; only the last ones and the head are fine-tuned.

Source: Ho et al., CVPR 2024 (arXiv:2405.05588), and the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.nets.seeding import seeded
from mibench.plugin import Card, Context, Settings
from mibench.training import Recipe, fit

from ._layer_order import layers_in_order, weights_before_block


@dataclass(frozen=True, kw_only=True)
class TlDmi(Defense):
    """Fine-tuning of a net whose first layers stay as the defender's public people made them.

    The authors freeze VGG-16-BN up to the first convolution of its fourth block, which is 16 of 28 layers
    with weights; later works freeze half of the layers, or 0.8 of them at 224 px.

    Args:
        frozen_share: share of the layers with weights that stay, in [0, 1), counted from the image on, the
            head among them; 0 fine-tunes all.
        frozen_blocks: hidden blocks of the net that stay, >= 0, in the place of the share; None takes that.
        freeze_bn: the statistics of the frozen normalization layers stay too; without it they drift with
            the private images, as the authors' do.
        pretrain_epochs: passes over the defender's public people, >= 0; 0 needs nothing frozen.
        head_epochs: passes in which the new head learns alone, before the rest follows, >= 0.
        recipe: fine-tuning in the place of the suite's; None takes that. The authors: SGD, learning rate
            0.08, batch 64, 200 epochs. Both other trainings take all but the epochs from it.
    """

    name = "tl_dmi"
    aliases = ("tl",)
    acts = "training"
    strength: ClassVar[str] = "frozen_share"
    strength_levels: ClassVar[tuple[object, ...]] = (0.3, 0.5, 0.57, 0.8)
    card = Card(
        title="Model Inversion Robustness: Can Transfer Learning Help?",
        paper="arXiv:2405.05588",
        year=2024,
        code="https://github.com/hosytuyen/TL-DMI",
        deviations=(
            "The net learns first from the defender's public people; the authors take weights of ImageNet "
            "or of MS-Celeb-1M.",
            "What is frozen is a share of the layers, for any net; the authors name an index for each net.",
            "It trains with the suite's recipe, as the undefended victim does; the length of the head's own "
            "training is our choice.",
        ),
    )
    toy: ClassVar[Settings] = {"frozen_share": 0.4, "pretrain_epochs": 3, "head_epochs": 1}
    neutral: ClassVar[Settings | None] = {"frozen_share": 0.0, "pretrain_epochs": 0, "head_epochs": 0}

    frozen_share: float = 0.57
    frozen_blocks: int | None = None
    freeze_bn: bool = False
    pretrain_epochs: int = 20
    head_epochs: int = 5
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        for name in ("pretrain_epochs", "head_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"tl_dmi: {name} must be >= 0, got {getattr(self, name)}.")
        if not 0 <= self.frozen_share < 1:
            raise ValueError(f"tl_dmi: frozen_share must lie in [0, 1), got {self.frozen_share}.")
        if self.frozen_blocks is not None and self.frozen_blocks < 0:
            raise ValueError(f"tl_dmi: frozen_blocks must be >= 0 or left out, got {self.frozen_blocks}.")
        amount = self.frozen_share if self.frozen_blocks is None else self.frozen_blocks
        if self.pretrain_epochs == 0 and amount > 0:
            raise ValueError(
                "tl_dmi: pretrain_epochs = 0 freezes layers that nothing has trained. "
                "Give pretrain_epochs, or freeze nothing."
            )

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The net pre-trained, partly frozen and fine-tuned; see Defense.train.

        Notes on the record: `tl_frozen`, the share of the net's weights that never met a private image.

        Raises:
            ValueError: the net has fewer blocks than are to be frozen.
            TrainingError: a training diverged.
        """
        recipe, data = self.recipe or view.recipe, view.private_train
        net.to(ctx.device)
        if self.pretrain_epochs:
            self._learn_public(net, view, recipe, ctx.child("public"))
        kept = self.frozen(net, data.images[:1].to(ctx.device))
        ctx.note("tl_frozen", _share(net, kept))
        loss = self._loss(net, kept, recipe)
        if self.head_epochs:
            net.requires_grad_(False).head.requires_grad_(True)
            fit(net, data, ctx.child("head"), recipe=replace(recipe, epochs=self.head_epochs), loss=loss)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name not in kept)
        return fit(net, data, ctx, recipe=recipe, loss=loss)

    def frozen(self, net: Classifier, x: Tensor) -> frozenset[str]:
        """Names of the parameters that stay, found by sending an image x (1, C, H, W) through the net."""
        net.eval()
        if self.frozen_blocks is not None:
            return frozenset(weights_before_block(net, self.frozen_blocks, x) if self.frozen_blocks else ())
        order = layers_in_order(net, x)
        count = min(len(order), round(self.frozen_share * (len(order) + 1)))
        modules = dict(net.named_modules())
        return frozenset(
            f"{layer}.{name}"
            for layer in order[:count]
            for name, _ in modules[layer].named_parameters(recurse=False)
        )

    def _learn_public(self, net: Classifier, view: DefenderView, recipe: Recipe, ctx: Context) -> None:
        """Train all but the head of the net on the defender's public people, in place."""
        own_head = net.head
        with seeded(ctx.generator("head")):
            net.head = nn.Linear(net.feature_dim, int(view.public.labels.max()) + 1)
        fit(net, view.public, ctx, recipe=replace(recipe, epochs=self.pretrain_epochs))
        net.head = own_head

    def _loss(
        self, net: Classifier, kept: frozenset[str], recipe: Recipe
    ) -> Callable[[Classifier, Tensor, Tensor], Tensor]:
        """The recipe's loss, with the frozen layers' statistics held if they are to stay."""
        owners = {name.rpartition(".")[0] for name in kept} if self.freeze_bn else set()
        held = [module for name, module in net.named_modules() if name in owners]

        def loss(net: Classifier, x: Tensor, y: Tensor) -> Tensor:
            for module in held:
                module.eval()  # the training loop puts the whole net in training mode
            return recipe.loss(net, x, y)

        return loss


def _share(net: nn.Module, names: frozenset[str]) -> float:
    """Share of a net's weights that parameters of these names hold, in [0, 1]."""
    sizes = {name: parameter.numel() for name, parameter in net.named_parameters()}
    kept = torch.tensor([sizes[name] for name in names], dtype=torch.float64).sum()
    return float(kept) / sum(sizes.values())
