"""Layouts of the data sets that `mibench data prepare` knows, by name."""

from __future__ import annotations

from difflib import get_close_matches

from mibench.data.layouts.att_faces import AttFaces
from mibench.data.layouts.celeba import CelebA
from mibench.data.layouts.facescrub import FaceScrub
from mibench.data.layouts.ffhq import FFHQ
from mibench.data.layouts.image_folder import ImageFolder
from mibench.data.layouts.layout import Box, Facts, Found, Item, Layout, Points, Skip
from mibench.data.layouts.lfw import LFW
from mibench.data.layouts.vggface import VGGFace
from mibench.data.layouts.vggface2 import VGGFace2
from mibench.data.layouts.walking import quoted
from mibench.errors import DataError

__all__ = [
    "ALIASES",
    "LAYOUTS",
    "Box",
    "Facts",
    "Found",
    "Item",
    "Layout",
    "Points",
    "Skip",
    "get_layout",
]

_ALL: tuple[Layout, ...] = (
    AttFaces(),
    CelebA(),
    FaceScrub(),
    FFHQ(),
    ImageFolder(),
    LFW(),
    VGGFace(),
    VGGFace2(),
)
LAYOUTS: dict[str, Layout] = {
    layout.facts.name: layout for layout in sorted(_ALL, key=lambda x: x.facts.name)
}
ALIASES = {"folder": "image_folder", "orl": "att_faces", "vgg_face": "vggface", "vgg_face2": "vggface2"}
"""Other words for layouts, in lower case with underscores."""


def get_layout(name: str) -> Layout:
    """The layout of a name or alias, in any case, `-` as good as `_`.

    >>> get_layout("ORL").facts.name
    'att_faces'

    Raises:
        DataError: there is none.
    """
    word = name.lower().replace("-", "_")
    word = ALIASES.get(word, word)
    if word in LAYOUTS:
        return LAYOUTS[word]
    close = get_close_matches(word, [*LAYOUTS, *ALIASES], n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise DataError(f"data set {quoted(name)}: unknown.{hint} The sets: {', '.join(LAYOUTS)}.")
