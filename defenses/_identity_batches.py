"""Batches with several images of each person that is in them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def identity_batches(
    labels: Tensor, *, batch: int, per_identity: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Endless batches of rows (batch,), int64: `per_identity` images of each of batch / per_identity people.

    A pass deals each person's shuffled images out in groups, first one group of everybody, then the next;
    images that fill no group, and groups that fill no batch, wait for another pass. A person of fewer images
    fills a group with repeats.

    Args:
        labels: (N,), int64.
        batch: rows in a batch, >= 1; rounded down to whole groups.
        per_identity: images in a group, >= 1.
        generator: CPU generator.

    Raises:
        ValueError: a batch holds no group.
    """
    groups_in_batch = batch // per_identity
    if groups_in_batch == 0:
        raise ValueError(
            f"batches by identity: {per_identity} images of a person do not fit in a batch of {batch}. "
            "Lower per_identity or raise the recipe's batch."
        )
    own = [(labels == label).nonzero().flatten().cpu() for label in labels.unique()]
    while True:
        groups = _deal(own, per_identity, generator)
        if len(groups) < groups_in_batch:  # a batch larger than a pass
            groups = groups.repeat(-(-groups_in_batch // len(groups)), 1)
        whole = len(groups) - len(groups) % groups_in_batch
        yield from (part.flatten() for part in groups[:whole].split(groups_in_batch))


def _deal(own: list[Tensor], size: int, generator: torch.Generator) -> Tensor:
    """Groups (G, size) of rows of one person each, ordered by rounds and at random within a round."""
    groups: list[tuple[int, float, Tensor]] = []
    for rows in own:
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        if len(shuffled) < size:
            shuffled = shuffled.repeat(-(-size // len(shuffled)))[:size]
        for turn, group in enumerate(shuffled.split(size)):
            if len(group) == size:
                groups.append((turn, float(torch.rand((), generator=generator)), group))
    ordered = sorted(groups, key=lambda item: item[:2])
    return torch.stack([group for _, _, group in ordered])
