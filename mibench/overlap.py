"""What stands in two parts of a split: one picture twice, or one person under two names.

Identities are kept apart by name, and names lie: data sets share photos, and people have several names. The
rule for people is ours: a public image is flagged where it is as like a private person as at least half of
that person's own test images are. It is a reason to look, not a proof; its rate of false flags is measured on
the private test images, which are surely not of another private person.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mibench.data.near_duplicates import (
    LEAST_CORRELATION,
    MOST_BITS,
    MOVES,
    Advance,
    Move,
    is_flat,
    matches,
    small_pictures,
)
from mibench.data.prepared import PreparedSet
from mibench.data.source import PARTS, Part
from mibench.data.split import Labeled, dequantize
from mibench.data.split_file import SplitFile
from mibench.embedder import Embedder, centroids, embed, facenet_state, of_classifier, of_facenet
from mibench.errors import DataError
from mibench.nets import NetSpec, build
from mibench.plugin import Context
from mibench.training import Recipe, fit
from mibench.weights import read_weights

LEAST_ACCURACY = 0.8  # ours: below it a space tells too few people apart for its flags to mean anything
PAIRS: tuple[tuple[Part, Part], ...] = (
    ("private", "public"),
    ("private", "defender"),
    ("defender", "public"),
)
STEPS = len(PAIRS) * len(MOVES)  # what `near_duplicates` advances by in all
_NET = "small_vgg"
_SIZE = 32  # pixels that the trained net sees
_CHUNK = 1024  # images at a time as float numbers


@dataclass(frozen=True)
class Place:
    """An image of a split: its part, who is on it (its name in the set), and its row of the set."""

    part: Part
    person: str
    row: int


@dataclass(frozen=True)
class NearDuplicate:
    """Two images that are one picture.

    Args:
        kept: of the private part, or the defender's.
        other: the nearly same one, in the defender's or the attacker's part.
        bits: hash bits that differ, 0 to 64.
        correlation: of the two as small gray pictures, in [-1, 1].
        move: what makes the first the other.
    """

    kept: Place
    other: Place
    bits: int
    correlation: float
    move: Move


@dataclass(frozen=True)
class Duplicates:
    """All near-duplicates between the parts, most alike first.

    Args:
        found: for each pair of parts and each image of the second one, the most alike image of the first.
        images: number of images of each part.
        flat: of these, images without structure, which are like nothing.
    """

    found: tuple[NearDuplicate, ...]
    images: dict[Part, int]
    flat: dict[Part, int]


@dataclass(frozen=True)
class Lookalike:
    """A public image that is as like a private person as half of that person's own test images.

    Args:
        other: the public image.
        nearest: the private training image of that person that is most alike.
        likeness: cosine of the image and the centroid of the person's training images.
        own: median of the same over the person's test images.
    """

    other: Place
    nearest: Place
    likeness: float
    own: float


@dataclass(frozen=True)
class Likenesses:
    """What a space of faces says of the public images.

    Args:
        found: flagged images, most alike first.
        space: what made the space, in words.
        accuracy: share of private test images that lie nearest to their own person's centroid.
        chance: share of private test images that the rule flags as another private person: its false flags.
        images: images compared, by part.
        untested: private people without test images, who are left out.
    """

    found: tuple[Lookalike, ...]
    space: str
    accuracy: float
    chance: float
    images: dict[Part, int]
    untested: int

    @property
    def can_tell(self) -> bool:
        """Whether the space tells people apart well enough for its flags to mean something."""
        return self.accuracy >= LEAST_ACCURACY


class SplitImages:
    """The images of a split, part by part.

    Args:
        split: what is where.
        sets: its prepared sets, by name.
    """

    def __init__(self, split: SplitFile, sets: Mapping[str, PreparedSet]) -> None:
        self.split = split
        self.sets = sets

    def places(self, part: Part, which: Sequence[str] = ("train", "test")) -> list[Place]:
        """The images of a part, person by person."""
        return [
            Place(part, one.name, row)
            for one in self.split.parts[part].people
            for name in which
            for row in getattr(one, name)
        ]

    def labels(self, part: Part, which: str) -> Tensor:
        """Who is on each of `places(part, (which,))`, by label: (N,), int64."""
        people = self.split.parts[part].people
        return torch.tensor(
            [k for k, one in enumerate(people) for _ in getattr(one, which)], dtype=torch.int64
        )

    def pixels(self, part: Part) -> NDArray[np.uint8]:
        """All images of the part's set, (N, C, H, W), uint8, memory-mapped."""
        return self.sets[self.split.parts[part].set_name].pixels

    def chunks(self, places: Sequence[Place], size: int) -> Iterator[Tensor]:
        """Images in order, (n, C, size, size) at most, float32 in [0, 1]; shrunk with antialiasing."""
        for start in range(0, len(places), _CHUNK):
            some = places[start : start + _CHUNK]
            x = dequantize(torch.from_numpy(self.pixels(some[0].part)[[one.row for one in some]]))
            if x.shape[-1] > size:
                x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True).clamp(0, 1)
            yield x


def near_duplicates(
    images: SplitImages,
    *,
    most_bits: int = MOST_BITS,
    least_correlation: float = LEAST_CORRELATION,
    advance: Advance = lambda _count: None,
) -> Duplicates:
    """Pictures that stand in two parts of a split; see `mibench.data.near_duplicates`.

    Args:
        images: of the split.
        most_bits: hash bits that may differ, 0 to 64.
        least_correlation: of the small pictures, in [-1, 1].
        advance: called with 1, STEPS times in all.
    """
    places = {part: images.places(part) for part in PARTS}
    small = {
        part: small_pictures(images.pixels(part), [one.row for one in found])
        for part, found in places.items()
    }
    found = []
    for first, second in PAIRS:
        for match in matches(
            small[first],
            small[second],
            most_bits=most_bits,
            least_correlation=least_correlation,
            advance=advance,
        ):
            kept, other = places[first][match.left], places[second][match.right]
            found.append(NearDuplicate(kept, other, match.bits, match.correlation, match.move))
    found.sort(key=lambda one: (-one.correlation, one.other.part, one.other.row, one.kept.part))
    return Duplicates(
        tuple(found),
        {part: len(own) for part, own in places.items()},
        {part: int(is_flat(small[part]).sum()) for part in PARTS},
    )


def lookalikes(images: SplitImages, ctx: Context, *, weights: Path | None = None, epochs: int) -> Likenesses:
    """Public images that a space of faces puts as near to a private person as that person's own.

    With weights the space is facenet-pytorch's InceptionResnetV1, and both public parts are compared.
    Without, a small net learns the private and the defender's people; the defender's images are then not
    compared, since a net that has learned to call them strangers would.

    Args:
        images: of the split.
        ctx: gives randomness, device and reporter.
        weights: of InceptionResnetV1.
        epochs: passes over the labeled images for a net of ours, >= 1.

    Raises:
        DataError: no private person has test images.
        WeightsError: the weights file cannot be used.
        TrainingError: the training diverged.
    """
    if weights is None:
        told = f"{_NET} at {_SIZE} px, {epochs} epochs on this split's people"
        own = _Space(_trained(images, ctx, epochs), _SIZE, ctx.max_batch)
        return _compare(images, own, told, ("public",))
    where = f"weights {weights}"
    ready = of_facenet(facenet_state(read_weights(weights), where=where), where=where).to(ctx.device)
    size = images.split.size  # the net enlarges what is too small for it by itself
    told = f"InceptionResnetV1 with {weights}"
    return _compare(images, _Space(ready, size, ctx.max_batch), told, ("public", "defender"))


@dataclass(frozen=True)
class _Space:
    """An embedder, and the largest size in pixels that it is fed."""

    embedder: Embedder
    size: int
    max_batch: int

    def points(self, images: SplitImages, places: Sequence[Place]) -> Tensor:
        """(N, D), of length 1, on the CPU."""
        found = [embed(self.embedder, x, max_batch=self.max_batch) for x in images.chunks(places, self.size)]
        return torch.cat(found)


def _trained(images: SplitImages, ctx: Context, epochs: int) -> Embedder:
    """The features of a net that has learned who is who among the private and the defender's people."""
    people = len(images.split.parts["private"].people)
    x = [
        chunk
        for part in ("private", "defender")
        for chunk in images.chunks(images.places(part, ("train",)), _SIZE)
    ]
    y = torch.cat([images.labels("private", "train"), people + images.labels("defender", "train")])
    data = Labeled(torch.cat(x), y)
    spec = NetSpec(
        name=_NET,
        width=0,
        channels=data.shape[0],
        size=data.shape[1],
        num_classes=people + len(images.split.parts["defender"].people),
    )
    net = build(spec, ctx.generator("overlap net"))
    return of_classifier(fit(net, data, ctx, recipe=Recipe(epochs=epochs, jitter=0.2)))


def _compare(images: SplitImages, space: _Space, told: str, parts: Sequence[Part]) -> Likenesses:
    known, held = images.places("private", ("train",)), images.places("private", ("test",))
    labels, held_labels = images.labels("private", "train"), images.labels("private", "test")
    if not held:
        raise DataError(
            "overlap: no private person has test images, which show what likeness is. Make a split."
        )
    points = space.points(images, known)
    middles = centroids(points, labels)
    tests = space.points(images, held) @ middles.T
    own = own_likeness(tests, held_labels)
    elsewhere = tests.scatter(1, held_labels[:, None], -1.0)
    found: list[Lookalike] = []
    counts: dict[Part, int] = {}
    for part in parts:
        places = images.places(part)
        counts[part] = len(places)
        theirs = space.points(images, places)
        for place, person, likeness in flagged(theirs @ middles.T, own):
            rows = (labels == person).nonzero().flatten()
            nearest = known[int(rows[(points[rows] @ theirs[place]).argmax()])]
            found.append(Lookalike(places[place], nearest, likeness, float(own[person])))
    found.sort(key=lambda one: (-one.likeness, one.other.part, one.other.row))
    return Likenesses(
        tuple(found),
        told,
        accuracy=float((tests.argmax(dim=1) == held_labels).float().mean()),
        chance=float((elsewhere >= own).any(dim=1).float().mean()),
        images=counts,
        untested=int(own.isinf().sum()),
    )


def own_likeness(tests: Tensor, labels: Tensor) -> Tensor:
    """The median likeness of each person's test images to their own centroid.

    Args:
        tests: (N, K), cosines of test images and centroids.
        labels: (N,), int64, who is on them.

    Returns:
        (K,), float32; the mean of the two in the middle for an even number, infinite without test images.
    """
    own = tests.gather(1, labels[:, None]).flatten()
    found = [own[labels == person] for person in range(tests.shape[1])]
    return torch.stack([some.quantile(0.5) if len(some) else torch.tensor(torch.inf) for some in found])


def flagged(likeness: Tensor, own: Tensor) -> list[tuple[int, int, float]]:
    """Images that reach some person's own likeness, each with the most alike of those people.

    Args:
        likeness: (N, K), cosines of images and centroids.
        own: (K,), see `own_likeness`.

    Returns:
        Index of the image, label of the person, and their likeness; by index.
    """
    reached = likeness.where(likeness >= own, -torch.inf)
    best, who = reached.max(dim=1)
    return [
        (place, int(who[place]), float(best[place])) for place in best.isfinite().nonzero().flatten().tolist()
    ]
