"""FFHQ: faces of people whom nobody names, so public data alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mibench.data.layouts.layout import Facts, Found, Item
from mibench.data.layouts.walking import DEEPER, Walk, no_landmarks

THUMBNAILS = 128
CROPS = {"thumbnails128x128": 88, "images1024x1024": 88 * 1024 // THUMBNAILS}
"""Side of the middle square of each variant: the same part of the face."""

FACTS = Facts(
    name="ffhq",
    title="Flickr-Faces-HQ (FFHQ)",
    home="https://github.com/NVlabs/ffhq-dataset",
    get=(
        "The home page links to a shared drive and has a script that downloads from it; thumbnails128x128 "
        "(2 GB) is enough for images up to 88 pixels, images1024x1024 takes 89 GB. 70,000 images."
    ),
    terms=(
        "The set is under CC BY-NC-SA 4.0, and each image under the license that its author chose on Flickr, "
        "all of which allow non-commercial use, some with credit to the author."
    ),
    citation="Karras, Laine, Aila: A Style-Based Generator Architecture for Generative Adversarial Networks. "
    "CVPR 2019 (arXiv:1812.04948).",
    folder=(
        "thumbnails128x128/00000/00000.png, or thumbnails128x128/00000.png",
        "or images1024x1024/ likewise; where both are there, --from names one of them",
    ),
    crop=CROPS["thumbnails128x128"],
    crop_source="PLG-MI's preprocessing: the middle 88 of 128x128 (arXiv:2302.09814), as much of 1024x1024",
    has_identities=False,
)


@dataclass(frozen=True)
class FFHQ:
    """One of the two sizes that are published."""

    facts: Facts = FACTS

    def find(self, root: Path, *, landmarks: bool) -> Found:
        """The images of one size; each stands for itself. See Layout."""
        walk = Walk(root, self.facts)
        if landmarks:
            raise no_landmarks(walk)
        place, variant = _variant(walk)
        items: list[Item] = []
        taken: set[str] = set()
        for name in _names(walk, place):
            stem = name.rpartition("/")[2].rpartition(".")[0]
            identity = name if stem in taken else stem
            taken.add(stem)
            items.append(walk.item(name, identity))
        return walk.found(items, crop=CROPS[variant])


def _variant(walk: Walk) -> tuple[str, str]:
    """Path of the images below the root, and the name of their variant.

    Raises:
        DataError: both are there, or none.
    """
    there = [name for name in CROPS if (walk.root / name).is_dir()]
    if len(there) > 1:
        raise walk.refusal(
            f"holds {' and '.join(there)}", f"Give one of them, such as --from .../{there[0]}."
        )
    if there:
        return there[0], there[0]
    if walk.root.resolve().name in CROPS:
        return "", walk.root.resolve().name
    raise walk.refusal("there is neither thumbnails128x128/ nor images1024x1024/")


def _names(walk: Walk, place: str) -> list[str]:
    """Paths of the images below the root, one folder deep."""
    base = f"{place}/" if place else ""
    listing = walk.look(place)
    if listing is None:
        return []
    names = [base + image for image in listing.images]
    for folder in listing.folders:
        found = walk.look(base + folder)
        if found is None:
            continue
        names += [f"{base}{folder}/{image}" for image in found.images]
        for deeper in found.folders:
            walk.skip(f"{base}{folder}/{deeper}", DEEPER)
    return names
