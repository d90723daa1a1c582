"""A tiny source folder, and requests to prepare it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mibench.data.layouts import get_layout
from mibench.data.layouts.layout import Facts, Found, Item
from mibench.data.preparing import Request


def noise(*, seed: int, height: int = 12, width: int = 16) -> NDArray[np.uint8]:
    """A photo (height, width, 3), uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photos(root: Path, *, people: int = 4, images: int = 3) -> Path:
    """A folder with one sub-folder of different PNG files for each person."""
    for person in range(people):
        folder = root / f"p{person}"
        folder.mkdir(parents=True)
        for image in range(images):
            Image.fromarray(noise(seed=100 * person + image)).save(folder / f"{image}.png")
    return root


def asked(source: Path, target: Path, layout: Any = None, **changes: Any) -> Request:
    """A request for images of 8 pixels of a folder of people."""
    fields = {"name": "toy", "size": 8, "jobs": 2, **changes}
    layout = layout or get_layout("image_folder")
    return Request(layout=layout, source=source, target=target, **fields)


def content(root: Path) -> dict[str, bytes]:
    """Every file of a prepared set."""
    return {path.name: path.read_bytes() for path in root.iterdir()}


class Listed:
    """A layout that finds what it is given."""

    def __init__(self, *items: Item, crop: int | None = None, **facts: Any) -> None:
        fields = {
            "name": "listed", "title": "Listed", "home": "", "get": "", "terms": "None.", "citation": "",
            "folder": ("anything",), **facts,
        }  # fmt: skip
        self.facts = Facts(**fields)
        self._found = Found(items, (), crop)

    def find(self, root: Path, *, landmarks: bool) -> Found:
        """The items."""
        del root, landmarks
        return self._found
