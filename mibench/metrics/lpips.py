"""Perceptual distance of reconstructed instances to the true images, as a vision network sees them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from mibench.errors import PluginError
from mibench.metric import Case, Estimate, Metric
from mibench.nets import seeded
from mibench.plugin import Card, Context
from mibench.weights import load_into, read_weights

from ._truth import averaged

Net = Literal["alex", "vgg"]
_TITLES: dict[Net, str] = {"alex": "torchvision's AlexNet", "vgg": "torchvision's VGG16"}
# 31 pixels leave 3 to AlexNet's second pooling, which takes 3; 16 leave 2 to VGG16's fourth, which takes 2
_LEAST_SIZE: dict[Net, int] = {"alex": 31, "vgg": 16}
_BATCH = 32  # VGG16's first layers hold 64 maps of full size


@dataclass(frozen=True, kw_only=True)
class PerceptualDistance(Metric):
    """Mean LPIPS (version 0.1) of reconstructions and the images that they reconstruct.

    The network's weights come from a file that you give, the weight of each of its channels in the sum from
    the package `lpips`. Gray images are repeated to three channels. Protected labels; interval over labels,
    then images. None where the goal was the class.

    Args:
        weights: path of a state file of torchvision's AlexNet or VGG16, safetensors or torch; its classifier
            is left out. Relative to the suite's folder; the key holds the file's digest and not its path.
        net: which of the two, "alex" (images of 31 pixels or more) or "vgg" (16).
    """

    name = "lpips"
    title = "LPIPS"
    better = "higher"
    files = ("weights",)
    card = Card(
        title="The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
        paper="arXiv:1801.03924",
        year=2018,
        code="https://github.com/richzhang/PerceptualSimilarity",
    )
    weights: str = ""
    net: Net = "alex"

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The distance; see Metric.measure.

        Raises:
            PluginError: the package `lpips` is not installed, or the images are too small for the network.
            WeightsError: there is no weights file, or it is not that network's.
        """
        if case.truth is None:
            return None
        least, size = _LEAST_SIZE[self.net], min(case.truth.shape[2:])
        if size < least:
            raise PluginError(
                f"metric 'lpips': {_TITLES[self.net]} takes images of {least} pixels or more, got {size}. "
                "Take another `net`, or drop the metric."
            )
        digest = self.key_params()["weights"]
        network = perceptual_network(self.weights, digest, self.net).to(ctx.device)

        def distance(got: Tensor, true: Tensor) -> Tensor:
            pairs = zip(got.float().split(_BATCH), true.float().split(_BATCH))
            return torch.cat([_distances(network, one, other, ctx.device) for one, other in pairs])

        return averaged(case, ctx, distance, least=0.0)


@lru_cache(maxsize=1)
def perceptual_network(path: str, digest: str, net: Net) -> nn.Module:
    """The package's network with the weights of a file of this digest; kept, since every cell asks for it.

    Raises:
        PluginError: the package is not installed.
        WeightsError: the file has another digest, or is not that network's.
    """
    try:
        import lpips
    except ImportError as error:
        raise PluginError(
            "metric 'lpips': the package 'lpips' is not installed. Install 'mibench[lpips]', or leave it out."
        ) from error
    # it draws weights, to be replaced, by an argument that torchvision no longer likes
    with seeded(torch.Generator()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: nn.Module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    found = read_weights(path, digest=digest)
    features = {name: value for name, value in found.items() if not name.startswith("classifier.")}
    load_into(
        _as_in_torchvision(network.get_submodule("net")), features, where=f"weights {path}", kind=_TITLES[net]
    )
    return network.requires_grad_(requires_grad=False).eval()


def _as_in_torchvision(slices: nn.Module) -> nn.Module:
    """The layers under the names that they have in torchvision; the package cuts them into slices."""
    layers = {name: layer for one in slices.children() for name, layer in one.named_children()}
    return nn.ModuleDict({"features": nn.ModuleDict(layers)})


def _distances(network: nn.Module, got: Tensor, true: Tensor, device: torch.device) -> Tensor:
    """LPIPS of each pair of images (N, C, H, W), float32 in [0, 1]: (N,), float64, on the CPU."""
    one, other = (x.to(device).expand(-1, 3, -1, -1) for x in (got, true))
    with torch.no_grad():
        found: Tensor = network(one, other, normalize=True)
    return found.flatten().double().cpu()
