"""IF-GMI: after a search in w, search the maps inside the generator, block by block, near where it ended.

The first search is PPA's. Then the map that enters the second block of the style generator joins w as a
variable, then the one that enters the third, and so on: finer maps can say what no w can. After each step the
changes of the map and of w are moved back into L1 balls, so that the image stays close to a face.

Source: Qiu et al., ECCV 2024 (arXiv:2407.13863), and the authors' code; the projection is that of Duchi et
al., ICML 2008.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.errors import PluginError
from mibench.inversion import Stage
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior
from mibench.victim import WhiteBoxVictim

from ._robust import TOY, Styles, StyleSearch


@dataclass(frozen=True, kw_only=True)
class IfGmi(StyleSearch):
    """Intermediate features optimized inside L1 balls, block by block.

    Args:
        block_steps: steps of the search at the entrance of the second block, of the third, and so on; the
            authors take 25 for each of four (CelebA).
        radii: radius of the L1 ball of the map's change at each of these entrances, >= 0, and of the change
            of w; the authors take 2,000, 3,000, 4,000 and 5,000.
        radius_unit: "total" takes the radii as they are; "element" multiplies them by the number of elements
            of what changes, since the authors' sizes are those of a generator of 1,024 pixels.
        report: the image of the last block, or that of the block, w included, that the victim recognizes
            most steadily under the views of `robust`; the authors report the block that their evaluation
            classifier likes most, which no attacker has.
    """

    name = "if_gmi"
    access = WhiteBoxVictim
    card = Card(
        title="A Closer Look at GAN Priors: Exploiting Intermediate Features for Enhanced Model Inversion "
        "Attacks",
        paper="Qiu et al., ECCV 2024, arXiv:2407.13863",
        year=2024,
        code="https://github.com/final-solution/IF-GMI",
        deviations=(
            "the style generator is small and trained by the attack itself on its public images, so that its "
            "images need no crop of the center before the victim sees them",
            "presamples are scored as the search starts, with all layers truncated; the authors' scores are "
            "those of images whose first 8 layers are",
            "the picture that earlier blocks have drawn is kept; the authors' code drops it at each entrance",
            "the first search has no L1 ball; the authors' radius of 1,000 is out of reach of its rate",
            "images are those of the last latents; the authors' code takes them one step earlier",
            "crops are drawn for each image, not one for a batch",
            "the last block is reported, or one that the victim chooses; the authors choose by evaluation",
            "distilled helpers of the victim, an option of the authors' code that is off, are left out",
        ),
    )

    toy: ClassVar[Settings] = {
        **TOY,
        "block_steps": [2, 2],
        "radii": [0.1, 0.1],
        "radius_unit": "element",
    }

    keep: int = 50
    candidates: int = 1
    block_steps: tuple[int, ...] = (25, 25, 25, 25)
    radii: tuple[float, ...] = (2_000.0, 3_000.0, 4_000.0, 5_000.0)
    radius_unit: Literal["total", "element"] = "total"
    report: Literal["last", "victim"] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.block_steps) != len(self.radii):
            raise ValueError(
                f"if_gmi: block_steps and radii must be equally long, got {len(self.block_steps)} and "
                f"{len(self.radii)} numbers."
            )
        if not all(steps >= 0 for steps in self.block_steps) or not all(radius >= 0 for radius in self.radii):
            raise ValueError(
                f"if_gmi: block_steps and radii must be >= 0, got {list(self.block_steps)} and "
                f"{list(self.radii)}."
            )

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert.

        Raises:
            PluginError: there are more block_steps than entrances of blocks in the generator.
        """
        styles = self.styles(prior, victim, ctx)
        entrances = len(styles.g.map_shapes) - 1
        if len(self.block_steps) > entrances:
            raise PluginError(
                f"attack 'if_gmi': block_steps has {len(self.block_steps)} numbers, but the generator for "
                f"images of {victim.shape[-1]} px has {entrances} blocks after its first. Shorten "
                "block_steps and radii."
            )
        return self.search_styles(
            victim,
            styles,
            prior["starts"],
            targets,
            ctx,
            further=[self._stage(Entrance(styles, level)) for level in range(1, 1 + len(self.block_steps))],
            is_any_end=self.report == "victim",
        )

    def _stage(self, entrance: Entrance) -> Stage:
        """The search at the entrance of one block."""
        steps, radius = self.block_steps[entrance.level - 1], self.radii[entrance.level - 1]
        sizes = [radius * size if self.radius_unit == "element" else radius for size in entrance.sizes]

        def bound(start: Tensor) -> Callable[[Tensor], Tensor]:
            def region(rows: Tensor) -> Tensor:
                x, _, w = (rows - start).split(entrance.sizes, dim=1)
                old_x, picture, old_w = start.split(entrance.sizes, dim=1)
                w = old_w + within_l1(w, sizes[2])
                if self.is_bounded:
                    w = entrance.styles.project(w)
                return torch.cat([old_x + within_l1(x, sizes[0]), picture, w], dim=1)

            return region

        return Stage(
            dataclasses.replace(self.search, steps=steps),
            Entrance(entrance.styles, entrance.level - 1).passed,
            entrance.decode,
            bound,
        )


class Entrance:
    """What enters one block of a style generator, as rows (map | picture so far | w); at the first w alone.

    Args:
        styles: the space of w.
        level: number of the block, from 0.
    """

    def __init__(self, styles: Styles, level: int) -> None:
        self.styles, self.level = styles, level
        self.shapes: list[tuple[int, int, int]] = []
        if level > 0:
            channels, height, width = styles.g.map_shapes[level - 1]
            self.shapes = [(channels, height, width), (styles.g.channels, height, width)]
        self.sizes = [channels * height * width for channels, height, width in self.shapes]
        self.sizes.append(styles.dim)

    def passed(self, rows: Tensor) -> Tensor:
        """Rows of the next entrance, (B, D), of rows of this one."""
        with torch.no_grad():
            x, picture, ws = self._parts(rows)
            x, picture = self.styles.g.block(self.level, x, picture, ws)
            return torch.cat([x.flatten(1), picture.flatten(1), rows[:, -self.styles.dim :]], dim=1)

    def decode(self, rows: Tensor) -> Tensor:
        """Images of rows."""
        g = self.styles.g
        x, picture, ws = self._parts(rows)
        for level in range(self.level, len(g.map_shapes)):
            x, picture = g.block(level, x, picture, ws)
        return g.finish(picture)

    def _parts(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map and picture that enter the block, and the styles of all layers; the picture is no variable."""
        *maps, w = rows.split(self.sizes, dim=1)
        ws = self.styles.layers(w)
        if not maps:
            return *self.styles.g.stem(len(rows)), ws
        x, picture = (part.unflatten(1, shape) for part, shape in zip(maps, self.shapes))
        return x.contiguous(memory_format=torch.channels_last), picture.detach(), ws


def within_l1(x: Tensor, radius: float) -> Tensor:
    """The nearest points to x (B, D) with a sum of magnitudes of at most `radius` >= 0, each row by itself.

    Magnitudes of a row outside the ball shrink by the one threshold that puts it on the rim.
    Source: Duchi et al., ICML 2008, figure 1.

    >>> within_l1(torch.tensor([[3.0, -2.0, 0.5]]), 3.0).tolist()
    [[2.0, -1.0, 0.0]]
    """
    size = x.abs().double()  # the sum of ten thousands of magnitudes is compared with each of them
    order = size.sort(dim=1, descending=True).values
    excess = order.cumsum(1) - radius
    counts = torch.arange(1, x.shape[1] + 1, device=x.device)
    kept = (order * counts > excess).sum(1, keepdim=True).clamp_min(1)
    threshold = excess.gather(1, kept - 1) / kept
    shrunk = x.sign() * (size - threshold).clamp_min(0).to(x)
    return torch.where(excess[:, -1:] > 0, shrunk, x)
