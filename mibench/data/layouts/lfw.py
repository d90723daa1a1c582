"""LFW: Labeled Faces in the Wild, in its original, funneled or deep-funneled form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mibench.data.layouts.layout import Facts, Found, Item
from mibench.data.layouts.walking import Walk, no_landmarks

VARIANTS = ("lfw", "lfw_funneled", "lfw-deepfunneled")
NUMBER = re.compile("_[0-9]{4}")
NOT_ITS_OWN = "not named after its folder"

FACTS = Facts(
    name="lfw",
    title="Labeled Faces in the Wild (LFW)",
    home="https://vis-www.cs.umass.edu/lfw/",
    get=(
        "Where the archives of the home page cannot be had, scikit-learn's fetch_lfw_people() leaves "
        "lfw_funneled/ in ~/scikit_learn_data/lfw_home. 13,233 images of 5,749 people, 250x250 pixels."
    ),
    terms=(
        "Published for research on unconstrained face recognition, without a license; the photos belong to "
        "the news agencies that took them."
    ),
    citation="Huang, Ramesh, Berg, Learned-Miller: Labeled Faces in the Wild. University of Massachusetts, "
    "Amherst, Technical Report 07-49, 2007.",
    folder=(
        "lfw/<Name>/<Name>_0001.jpg, or the same below lfw_funneled/ or lfw-deepfunneled/, or <Name>/ itself",
        "where several are there, --from names one of them",
    ),
    crop=114,
    crop_source="ours: 250 / 2.2, the detector's box, which the publishers enlarged by 2.2 (report 07-49)",
)


@dataclass(frozen=True)
class LFW:
    """One of the three forms; file names repeat who is on them."""

    facts: Facts = FACTS

    def find(self, root: Path, *, landmarks: bool) -> Found:
        """The images of one form; see Layout."""
        walk = Walk(root, self.facts)
        if landmarks:
            raise no_landmarks(walk)
        items: list[Item] = []
        for person, place, images in walk.people(_variant(walk)):
            for image in images:
                stem = image.rpartition(".")[0]
                if stem.startswith(person) and NUMBER.fullmatch(stem, len(person)):
                    items.append(walk.item(f"{place}/{image}", person))
                else:
                    walk.skip(f"{place}/{image}", NOT_ITS_OWN)
        return walk.found(items)


def _variant(walk: Walk) -> str:
    """Path of the person folders below the root; "" where they lie in the root.

    Raises:
        DataError: several forms are there.
    """
    there = [name for name in VARIANTS if (walk.root / name).is_dir()]
    if len(there) > 1:
        raise walk.refusal(
            f"holds {' and '.join(there)}", f"Give one of them, such as --from .../{there[0]}."
        )
    if not there:
        return ""
    twice = f"{there[0]}/{there[0]}"  # as archives that hold their own name are unpacked
    return twice if (walk.root / twice).is_dir() else there[0]
