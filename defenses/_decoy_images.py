"""The images that the NetGuard family learns from: fakes of two roles, real draws, a part kept aside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.data.split import Labeled
from mibench.errors import MibenchError
from mibench.plugin import Context


@dataclass(frozen=True)
class Fakes:
    """The images of both roles, (n, C, H, W) and (m, C, H, W), float32 in [0, 1], on ctx.device.

    `sure` is the mean probability of the decoy by the public classifier on `public`; None without one.
    """

    private: Tensor
    public: Tensor
    sure: float | None = None


def fake_distance(private: Tensor, public: Tensor) -> float:
    """Mean over private images of the root-mean-square pixel distance to the nearest public one."""
    pixels = private[0].numel()
    gaps = torch.cdist(private.flatten(1), public.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    return float(gaps.amin(1).mean()) / math.sqrt(pixels)


def draw_decoy(labels: Tensor, target: int, ctx: Context) -> int:
    """One of the public labels (N,) at random; another draw for each protected label."""
    people = labels.unique()
    # the seed is the same for every protected label of a suite
    row = torch.randint(len(people), (1,), generator=ctx.generator(f"decoy of {target}"))
    return int(people[row])


def sample(data: Labeled, label: int, count: int, generator: torch.Generator) -> Tensor:
    """Up to `count` images of a label (n, C, H, W), drawn without replacement."""
    images = data.of(label).images
    return images[torch.randperm(len(images), generator=generator)[:count]]


def keep_aside(data: Labeled, share: float, generator: torch.Generator) -> tuple[Labeled, Labeled]:
    """The images to learn from, and a share in (0, 1) of each label's that is kept aside, drawn at random.

    A label keeps at least one image in either part; one with a single image learns from it.

    Raises:
        MibenchError: no label has two images.
    """
    order = torch.randperm(len(data), generator=generator)
    aside = torch.zeros(len(data), dtype=torch.bool)
    for label in data.labels.unique():
        rows = order[data.labels[order] == label]
        aside[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    if not aside.any():
        raise MibenchError(
            "ewc_weight = 'auto': no label has two private images, so none can be kept aside. Give a number."
        )
    kept, held = (Labeled(data.images[rows], data.labels[rows], data.identities) for rows in (~aside, aside))
    return kept, held
