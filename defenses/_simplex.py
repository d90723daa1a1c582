"""What defenses of the released vector share: the simplex, kept labels, keyed noise, the changed release.

A service that draws noise anew for each query gives its mean away to whoever asks often enough. So noise is
keyed here: it is a function of a secret and of a hash of the image, or of the rounded vector. Whoever asks
again hears the same; noise drawn anew is an option that defenses name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.data.split import quantize
from mibench.defense import DefenderView, Defense, State
from mibench.nets.classifier import Classifier
from mibench.noise import mix
from mibench.plugin import Context

Change = Callable[[Tensor, Tensor], Tensor]  # probabilities (N, K), images (N, C, H, W) -> released (N, K)
Norm = Literal["inf", "l1", "l2"]
Key = Literal["image", "vector"]
_GRID = 1e-3  # probabilities are rounded to multiples of it before they are hashed
_BYTES = 8  # pixels that fill one int64
_LOOKED_AT = 256  # images on which a defense reports its distortion


def project_simplex(points: Tensor) -> Tensor:
    """The points of the probability simplex that are nearest to points (N, K), Euclidean.

    Source: Held, Wolfe and Crowder, Math. Programming 6 (1974); sorted form in Duchi et al., ICML 2008.
    """
    ordered = points.sort(dim=1, descending=True).values
    ranks = torch.arange(1, points.shape[1] + 1, device=points.device)
    excess = (ordered.cumsum(1) - 1) / ranks
    kept = (ordered > excess).sum(1, keepdim=True)
    return (points - excess.gather(1, kept - 1)).clamp_min(0)


def project_far(points: Tensor) -> Tensor:
    """`project_simplex` for points of any size, as long-tailed noise makes them; rows sum to 1 in float32.

    A constant added to a row does not move its projection, and an entry more than 1 below the largest one is
    0 there. So rows are shifted to a largest entry of 0 and cut off at -1, where roundings are small.
    """
    shifted = points - points.amax(1, keepdim=True)
    return project_simplex(shifted.clamp_min(-1))


def keep_label(moved: Tensor, label: Tensor, *, margin: float = 1e-4) -> Tensor:
    """Probabilities (N, K) whose largest entry is the label's alone; rows where it is are left as they are.

    Args:
        moved: (N, K), rows on the simplex.
        label: (N, 1), int64.
        margin: the lead that the label is given over the next entry before the row is normalized again.
    """
    others = moved.scatter(1, label, -torch.inf).amax(1, keepdim=True)
    lead = moved.gather(1, label) - others
    lack = torch.where(lead > 0, torch.zeros_like(lead), margin - lead)
    return moved.scatter_add(1, label, lack) / (1 + lack)


def length(noise: Tensor, norm: Norm) -> Tensor:
    """Norm of each row of noise (N, K): (N, 1)."""
    order = {"inf": torch.inf, "l1": 1.0, "l2": 2.0}[norm]
    norms: Tensor = torch.linalg.vector_norm(noise, ord=order, dim=1, keepdim=True)
    return norms


def within(moved: Tensor, start: Tensor, budget: float, norm: Norm) -> Tensor:
    """Rows drawn back towards `start` where they are further from it than the budget.

    The simplex is convex, and so is the set of vectors whose largest entry is a given one: what lies between
    two such vectors needs no second repair.
    """
    noise = moved - start
    share = budget / length(noise, norm).clamp_min(torch.finfo(noise.dtype).tiny)
    return torch.where(share < 1, start + noise * share, moved)


def row_hash(values: Tensor, secret: int) -> Tensor:
    """A hash (N,), int64, of each row of values (N, M), int64; the same on every device.

    Every entry is mixed with its position and the secret, and the sum, which wraps around, once more.
    """
    positions = torch.arange(values.shape[1], dtype=torch.int64, device=values.device)
    return mix(mix(values ^ mix(positions ^ secret)).sum(1) ^ secret)


def image_hash(images: Tensor, secret: int) -> Tensor:
    """A hash (N,) of images (N, C, H, W) in [0, 1] as bytes; a change below half a gray level keeps it."""
    pixels = quantize(images).flatten(1)
    padded = F.pad(pixels, (0, -pixels.shape[1] % _BYTES)).contiguous()
    return row_hash(padded.view(torch.int64), secret)


class Streams:
    """Keys for the noise of queries.

    Args:
        ctx: gives the secret.
        key: what the noise hangs on: the image, or the vector rounded to 0.001, which a small change of the
            image keeps.
        fresh: draw the noise anew for every query; the number of queries so far then enters the key too.
    """

    def __init__(self, ctx: Context, *, key: Key = "image", fresh: bool = False) -> None:
        generator = ctx.generator("secret of the release")
        self.secret = int(torch.randint(2**62, (), generator=generator))
        self.key = key
        self.fresh = fresh
        self.asked = 0

    def of(self, scores: Tensor, images: Tensor) -> Tensor:
        """One key (N,), int64, for each row of scores (N, K) and images (N, C, H, W)."""
        if self.key == "image":
            keys = image_hash(images, self.secret)
        else:
            keys = row_hash((scores / _GRID).round().to(torch.int64), self.secret)
        if not self.fresh:
            return keys
        numbers = torch.arange(self.asked, self.asked + len(keys), dtype=torch.int64, device=keys.device)
        self.asked += len(keys)
        return mix(keys ^ mix(numbers ^ self.secret))


class Reshaped(nn.Module):
    """A classifier whose probabilities are changed before they are released.

    Gradients pass as if nothing had been changed, so that an attacker of the deployed view is not stopped by
    a step that cannot be differentiated (straight-through; BPDA of Athalye et al., ICML 2018).

    Args:
        net: the classifier.
        change: what is done to its probabilities; each row by itself.
    """

    def __init__(self, net: Classifier, change: Change) -> None:
        super().__init__()
        self.net = net
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        """Released probabilities (N, K) of images x (N, C, H, W), float32."""
        scores: Tensor = self.net(x).softmax(1)
        with torch.no_grad():
            released = self.change(scores.detach(), x.detach())
        return released + (scores - scores.detach())  # the bracket is 0, and carries the gradient


def top_label(scores: Tensor) -> Tensor:
    """The label (N, 1), int64, that scores (N, K) predict."""
    return scores.argmax(1, keepdim=True)


def part_of(state: State, part: str) -> State:
    """The tensors of one part of a state, without the part's name."""
    return {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}


def note_distortion(
    defense: Defense, net: Classifier, state: State, view: DefenderView, ctx: Context
) -> None:
    """Put on record how far vectors of the defender's public images are moved, so that norms can match.

    Notes: `<name>_l1` and `<name>_linf`, mean norms of the change, and `<name>_flipped`, the share of
    changed labels.
    """
    images = view.public.images
    rows = torch.linspace(0, len(images) - 1, min(len(images), _LOOKED_AT)).long()
    module = defense.protect(net, {name: value.to(ctx.device) for name, value in state.items()}, ctx)
    plain, released = [], []
    with torch.no_grad():
        for x in images[rows].split(ctx.max_batch):
            plain.append(net(x.to(ctx.device)).softmax(1))
            released.append(module(x.to(ctx.device)))
    before, after = torch.cat(plain), torch.cat(released)
    ctx.note(f"{defense.name}_l1", float(length(after - before, "l1").mean()))
    ctx.note(f"{defense.name}_linf", float(length(after - before, "inf").mean()))
    ctx.note(f"{defense.name}_flipped", float((after.argmax(1) != before.argmax(1)).float().mean()))
