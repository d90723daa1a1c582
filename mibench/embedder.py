"""A space of faces: images as points of the unit sphere, near each other where they show one person.

It is learned from strangers, so no image of a private person has shaped it: what fools a judge, which knows
the private people by their labels, has no reason to lie near the right person here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.data.split import as_float
from mibench.memory import in_chunks
from mibench.nets.classifier import Classifier
from mibench.nets.seeding import seeded
from mibench.nets.shapes import resize
from mibench.precision import exact
from mibench.victim import freeze
from mibench.weights import load_into

PRETRAINED = "inception_resnet_v1"  # the net that ready weights are taken for
_LEAST_SIZE = 80  # below it the net's third reduction has no pixel left
_HEAD = "logits."  # the classes of the package's own training, in its weights files


class Embedder(nn.Module):
    """Images (N, C, H, W), float32 in [0, 1], to points of length 1, (N, D), float32."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """The points of images x."""
        return F.normalize(self.body(x), dim=1)


class _Features(nn.Module):
    """The penultimate features of a classifier."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.features(x)


class _Facenet(nn.Module):
    """The package's own net, under its own names, fed as its weights were trained.

    Images are enlarged to at least 80 px, gray ones repeated to three channels, and pixels of 0 to 255 mapped
    by (p - 127.5) / 128, which is the package's `fixed_image_standardization`.
    """

    def __init__(self) -> None:
        super().__init__()
        from facenet_pytorch import InceptionResnetV1 as Body

        with seeded(torch.Generator()):  # weights are loaded over those that are drawn here
            self.net: nn.Module = Body(pretrained=None, classify=False)

    def forward(self, x: Tensor) -> Tensor:
        large = resize(x, max(x.shape[-1], _LEAST_SIZE)).expand(-1, 3, -1, -1)
        out: Tensor = self.net((large * 255 - 127.5) / 128)
        return out


def of_classifier(net: Classifier) -> Embedder:
    """The space that a classifier's penultimate features span; the net is used as it is."""
    embedder = Embedder(_Features(net))
    freeze(embedder)
    return embedder


def of_facenet(tensors: Mapping[str, Tensor], *, where: str) -> Embedder:
    """The space of facenet-pytorch's InceptionResnetV1, 512 numbers a face.

    Args:
        tensors: the state of that net without its classes.
        where: begins a message.

    Raises:
        WeightsError: a tensor is missing, unexpected or misshaped.
    """
    body = _Facenet()
    load_into(body.net, tensors, where=where)
    embedder = Embedder(body)
    freeze(embedder)
    return embedder


def facenet_state(tensors: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """The tensors of a weights file that make the space: all but the classes of its own training.

    Raises:
        WeightsError: a tensor is missing, unexpected or misshaped.
    """
    own = {name: value for name, value in tensors.items() if not name.startswith(_HEAD)}
    of_facenet(own, where=where)
    return own


def embed(embedder: Embedder, images: Tensor, *, max_batch: int) -> Tensor:
    """The points (N, D), float32, on the CPU, of images (N, C, H, W), uint8 or float32, max_batch at once."""
    device = next(embedder.parameters()).device

    def told(part: Tensor) -> Tensor:
        points: Tensor = embedder(as_float(part).to(device))
        return points.cpu()

    with torch.no_grad(), exact(device):
        return in_chunks(told, images, rows=max_batch, what="embedding")


def centroids(points: Tensor, labels: Tensor) -> Tensor:
    """The mean point of each label, scaled to length 1.

    Args:
        points: (N, D), of length 1.
        labels: (N,), int64, each of 0 to K - 1 at least once.

    Returns:
        (K, D); the scalar product with a point is the cosine of their angle.
    """
    sums = torch.zeros(int(labels.max()) + 1, points.shape[1]).index_add(0, labels, points)
    return F.normalize(sums, dim=1)
