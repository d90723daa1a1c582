"""Random erasing: every training image lacks a rectangle, so the net never sees a whole face.

What the net is not shown it cannot leak. Part of each image is enough to tell people apart, and another part
is missing each time.

Source: Tran et al., TMLR 2025 (arXiv:2409.01062), of which we read the abstract and the published training
configurations; the rectangle is that of Zhong et al., AAAI 2020 (arXiv:1708.04896).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context, Settings
from mibench.training import Recipe, fit

_IMAGENET = (0.485, 0.456, 0.406)  # mean color of ImageNet's images, the filling of the authors


@dataclass(frozen=True, kw_only=True)
class Midre(Defense):
    """Training on images of which a random rectangle is erased, another one at each step.

    Args:
        area: largest share of an image that is erased, in [0, 1]; 0 switches the defense off.
        least_area: smallest share, in [0, 1]; `area` where that is smaller.
        ratio: smallest height of the rectangle relative to its width, in (0, 1]; the largest is 1 / ratio,
            so 1 means squares (the authors; Zhong et al. take 0.3). Shapes that stick out of the image are
            drawn back into it at the same area.
        rate: share of the images that are erased at each step, in [0, 1].
        fill: what stands in the rectangle: "imagenet", the mean color of that data set, (0.485, 0.456,
            0.406); "mean", the image's own mean color; "random", uniform noise for each pixel; "black".
        place: "random", or "center" for every image, which the authors found to cost the effect.
        recipe: training in the place of the suite's; None takes that. The authors: Adam, 1e-3, 100 epochs,
            batch 128, a tenth of the rate from epochs 75 and 90 on.
    """

    name = "midre"
    aliases = ("random_erasing",)
    acts = "training"
    strength: ClassVar[str] = "area"
    strength_levels: ClassVar[tuple[object, ...]] = (0.1, 0.2, 0.3, 0.4)
    card = Card(
        title="Random Erasing vs. Model Inversion: A Promising Defense or a False Hope?",
        paper="arXiv:2409.01062",
        year=2025,
        code="https://github.com/ngoc-nguyen-0/MIDRE_TMLR",
        deviations=(
            "The default is the published setting for FaceScrub and ResNet-18, of which another goes up "
            "to an area of 0.8; settings for other data could not be read.",
            "The color fills images in [0, 1]; the authors' code fills normalized ones with it.",
            "It trains with the suite's recipe, as the undefended victim does.",
        ),
    )
    neutral: ClassVar[Settings | None] = {"area": 0.0}

    area: float = 0.4
    least_area: float = 0.1
    ratio: float = 1.0
    rate: float = 1.0
    fill: Literal["imagenet", "mean", "random", "black"] = "imagenet"
    place: Literal["random", "center"] = "random"
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        for name in ("area", "least_area", "rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"midre: {name} must lie in [0, 1], got {getattr(self, name)}.")
        if not 0 < self.ratio <= 1:
            raise ValueError(f"midre: ratio must lie in (0, 1], got {self.ratio}.")

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The net trained on erased images; see Defense.train."""
        recipe = self.recipe or view.recipe
        is_off = self.area == 0 or self.rate == 0
        loss = None if is_off else self._loss(recipe, ctx.generator("erasing"))
        return fit(net, view.private_train, ctx, recipe=recipe, loss=loss)

    def erase(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Images x (N, C, H, W) with a rectangle erased from each; draws come from a CPU generator."""
        erased = self.rectangles(len(x), x.shape[2], x.shape[3], generator).to(x.device)
        return torch.where(erased[:, None], self._filling(x, generator), x)

    def rectangles(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Which pixels of images are erased: (count, height, width), bool, a rectangle in each or nothing."""
        area, shape, down, right, is_hit = torch.rand(5, count, generator=generator)
        least = min(self.least_area, self.area)
        cells = (least + (self.area - least) * area) * height * width
        # height over width, log-uniform between ratio and 1 / ratio, within what the image has room for
        wanted = self.ratio ** (1 - 2 * shape)
        fitting = torch.minimum(torch.maximum(wanted, cells / width**2), height**2 / cells.clamp_min(1e-9))
        tall = (cells * fitting).sqrt().round().clamp(1, height)
        wide = (cells / tall).round().clamp(0, width)
        top, left = (
            ((room + 1) * draw).floor() if self.place == "random" else (room / 2).floor()
            for room, draw in ((height - tall, down), (width - wide, right))
        )
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        within_rows = (rows >= top[:, None, None]) & (rows < (top + tall)[:, None, None])
        within_columns = (columns >= left[:, None, None]) & (columns < (left + wide)[:, None, None])
        erased: Tensor = within_rows & within_columns & (is_hit < self.rate)[:, None, None]
        return erased

    def _filling(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if self.fill == "random":
            return torch.rand(x.shape, generator=generator).to(x.device)
        if self.fill == "mean":
            return x.mean((2, 3), keepdim=True)
        color = torch.tensor(_IMAGENET if self.fill == "imagenet" else (0.0, 0.0, 0.0)).to(x)
        color = color if x.shape[1] == len(color) else color.mean().expand(x.shape[1])
        return color[None, :, None, None]

    def _loss(
        self, recipe: Recipe, generator: torch.Generator
    ) -> Callable[[Classifier, Tensor, Tensor], Tensor]:
        def loss(net: Classifier, x: Tensor, y: Tensor) -> Tensor:
            return recipe.loss(net, self.erase(x, generator), y)

        return loss
