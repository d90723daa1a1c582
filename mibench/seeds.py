"""Seeds that are derived from what they are for; without torch, so that drawing people does not load it."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**63) from any printable parts, by SHA-256 of their repr."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
