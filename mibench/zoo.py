"""Ready-made priors that come with the package, by key: trained once on procedural faces."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from mibench.errors import StoreError
from mibench.key import Key

ZOO = Path(__file__).parent / "zoo"


def in_zoo(key: Key) -> bool:
    """Whether a prior lies in the zoo."""
    return key in manifest(ZOO)


def zoo_file(key: Key) -> Path:
    """The tensor file of a prior, checked against its digest.

    Raises:
        StoreError: the file is missing or is not the one that the manifest names.
    """
    file = ZOO / f"{key}.safetensors"
    wanted = manifest(ZOO)[key]["sha256"]
    found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no file"
    if found != wanted:
        raise StoreError(f"zoo prior {file.name}: digest is {found}, not {wanted}. Install mibench again.")
    return file


@cache
def manifest(folder: Path) -> dict[str, Any]:
    """What the zoo in a folder holds: key -> {sha256, title}."""
    file = folder / "manifest.json"
    if not file.is_file():
        return {}
    entries: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return entries
