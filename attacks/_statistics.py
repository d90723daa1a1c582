"""How far batches of images are from the statistics that a net's batch normalizations stored.

Source: Yin et al., CVPR 2020 (arXiv:1912.08795), equation 4, and the authors' code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mibench.errors import BlockedError


def normalizations(net: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch normalizations of a net that store statistics of maps.

    Raises:
        BlockedError: there is none.
    """
    layers = [
        one for one in net.modules() if isinstance(one, nn.BatchNorm2d) and one.running_mean is not None
    ]
    if not layers:
        raise BlockedError(
            "attack 'deep_inversion': the victim's net stores no statistics, it has 0 BatchNorm2d layers "
            "(DP-SGD, for one, replaces them). Leave this pair out."
        )
    return layers


@contextmanager
def statistics(layers: list[nn.BatchNorm2d], groups: int) -> Iterator[dict[nn.Module, Tensor]]:
    """While it lasts, each layer that runs leaves how far its inputs are from what it stored.

    The distance is ||mean - stored mean||_2 + ||variance - stored variance||_2 over channels, with mean and
    biased variance over the images of a company and all pixels: (groups,) by layer.
    """
    gaps: dict[nn.Module, Tensor] = {}

    def look(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        stored = (layer.running_mean, layer.running_var)
        maps = inputs[0].unflatten(0, (groups, -1)).transpose(1, 2).flatten(2)
        seen = (maps.mean(2), maps.var(2, unbiased=False))
        gaps[layer] = sum(
            ((got - kept).norm(dim=1) for got, kept in zip(seen, stored) if kept is not None),
            start=torch.zeros(groups, device=maps.device),
        )

    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield gaps
    finally:
        for handle in handles:
            handle.remove()


def distance(gaps: dict[nn.Module, Tensor], layers: list[nn.BatchNorm2d], first: float) -> Tensor:
    """Sum (G,) of the layers' distances, that of the first layer times `first`.

    Raises:
        BlockedError: a layer did not run: the view that is searched does not lead through the victim's net.
    """
    missing = sum(layer not in gaps for layer in layers)
    if missing:
        raise BlockedError(
            f"attack 'deep_inversion': {missing} of {len(layers)} BatchNorm2d layers did not run in the view "
            "that is searched. Attack the stripped view."
        )
    scaled = [gaps[layer] * (first if at == 0 else 1.0) for at, layer in enumerate(layers)]
    return torch.stack(scaled).sum(0)
