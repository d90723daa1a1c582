"""Any folder with one sub-folder of images for each person."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mibench.data.layouts.layout import Facts, Found, Item
from mibench.data.layouts.walking import DEEPER, EMPTY, OUTSIDE, Listing, Walk, no_landmarks, quoted

FACTS = Facts(
    name="image_folder",
    title="A folder with one sub-folder of images for each person",
    home="",
    get="Any images that you have.",
    terms="Those of your images; name them by --licence, and say by --may-publish if they allow it.",
    set_terms="Not given.",
    citation="",
    folder=(
        "<person>/<image> (BMP, JPEG, PGM, PNG, PPM, TIFF or WebP)",
        "a single folder around them all is entered; deeper ones, <group>/<person>/<image>, are not guessed",
    ),
    crop_source="ours: the largest middle square",
)


@dataclass(frozen=True)
class ImageFolder:
    """Folder names are the people."""

    facts: Facts = FACTS

    def find(self, root: Path, *, landmarks: bool) -> Found:
        """The images of each person; see Layout."""
        walk = Walk(root, self.facts)
        if landmarks:
            raise no_landmarks(walk)
        base, listing = _entered(walk)
        for image in listing.images:
            walk.skip(base + image, OUTSIDE)
        items: list[Item] = []
        deeper: list[str] = []
        for person in listing.folders:
            found = listing.inside.get(person) or walk.look(base + person)
            if found is None:
                continue
            items += [walk.item(f"{base}{person}/{image}", person) for image in found.images]
            deeper += [f"{base}{person}/{folder}" for folder in found.folders]
            if not found.images:
                walk.skip(base + person, EMPTY)
        _check_depth(walk, items, deeper)
        return walk.found(items)


@dataclass
class _Top(Listing):
    """The folder of the person folders.

    Args:
        inside: what has been seen already of its folders.
    """

    inside: dict[str, Listing] = field(default_factory=dict)


def _entered(walk: Walk) -> tuple[str, _Top]:
    """Start of the paths of person folders, and what lies beside them: in the root, or in its one folder."""
    top = walk.look() or Listing()
    if len(top.folders) != 1 or top.images:
        return "", _Top(top.folders, top.images)
    only = top.folders[0]
    inner = walk.look(only)
    if inner is None:
        return "", _Top()
    if inner.folders and not inner.images:
        return f"{only}/", _Top(inner.folders, inner.images)
    return "", _Top(top.folders, top.images, {only: inner})


def _check_depth(walk: Walk, items: list[Item], deeper: list[str]) -> None:
    """Note folders in person folders; DataError where the images lie in such folders alone."""
    for name in deeper:
        if not items and (found := walk.look(name)) and found.images:
            raise walk.refusal(
                f"images lie a folder deeper, as in {quoted(name)}, and who is in there is not guessed",
                "Give the folder around the person folders, or move them up.",
            )
        walk.skip(name, DEEPER)
