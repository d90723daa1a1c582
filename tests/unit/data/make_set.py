"""A small valid prepared set from arrays, as `mibench data prepare` would leave it."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mibench.data.prepared import COLUMNS, IMAGES, INFO, MANIFEST, SKIP_COLUMNS, SKIPPED, SetInfo


def make_set(
    root: Path,
    pixels: NDArray[np.uint8],
    identities: Sequence[str],
    *,
    name: str = "toy",
    has_identities: bool = True,
    may_publish: bool = True,
    source: Path | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    **info: Any,
) -> Path:
    """Write a prepared set to `root / name` and return that folder.

    Rows are put in the order of their identities' first appearance, so that those of one are neighbors.

    Args:
        root: the folder of prepared sets; made if need be.
        pixels: (N, C, H, W), uint8, square.
        identities: who is on each of the N images.
        name: of the set and of its folder.
        has_identities: as in SetInfo.
        may_publish: as in SetInfo.
        source: where the source images go, as `<identity>/<number>.png`; None writes none.
        skipped: name and reason of files that were left out.
        info: other fields of SetInfo, in place of the made-up ones.
    """
    folder = root / name
    folder.mkdir(parents=True)
    first = {who: place for place, who in reversed(list(enumerate(identities)))}
    order = sorted(range(len(identities)), key=lambda row: first[identities[row]])
    np.save(folder / IMAGES, np.ascontiguousarray(pixels[order]))
    side = pixels.shape[2]
    lines = []
    for row, place in enumerate(order):
        data = _png(pixels[place])
        file = f"{identities[place]}/{place}.png"
        if source is not None:
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).write_bytes(data)
        mode = "RGB" if pixels.shape[1] == 3 else "L"
        lines.append((row, identities[place], file, hashlib.sha256(data).hexdigest(), side, side, mode))
    _write(folder / MANIFEST, COLUMNS, lines)
    _write(folder / SKIPPED, SKIP_COLUMNS, skipped)
    reasons = [reason for _, reason in skipped]
    facts: dict[str, Any] = {
        "name": name,
        "layout": "image_folder",
        "title": "A toy set",
        "home": "https://example.org/toy",
        "terms": "Drawn by a program; free for all.",
        "citation": "",
        "may_publish": may_publish,
        "has_identities": has_identities,
        "size": side,
        "channels": pixels.shape[1],
        "images": len(pixels),
        "identities": len(first),
        "options": {"from": str(source)} if source is not None else {},
        "skipped": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
        "converted": {},
        "files": file_states(folder),
        "made_with": {"numpy": np.__version__},
    }
    (folder / INFO).write_text(SetInfo(**{**facts, **info}).to_json(), encoding="utf-8")
    return folder


def file_states(folder: Path) -> dict[str, dict[str, Any]]:
    """What `set.json` says of each other file of a set: SHA-256 and bytes, by name."""
    return {
        name: {
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
            "bytes": (folder / name).stat().st_size,
        }
        for name in (IMAGES, MANIFEST, SKIPPED)
    }


def toy_pixels(count: int, *, channels: int = 3, size: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    """Images (count, channels, size, size), uint8, of noise: all different, none flat or dark."""
    drawn = np.random.default_rng(seed).integers(0, 256, (count, channels, size, size))
    return drawn.astype(np.uint8)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    image = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(image)).save(out, format="PNG")
    return out.getvalue()


def _write(file: Path, columns: Sequence[str], lines: Sequence[Sequence[object]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(columns)
        writer.writerows(lines)
