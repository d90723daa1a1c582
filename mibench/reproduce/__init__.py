"""The tables of papers made again: reported numbers beside measured ones, and a verdict on every claim.

Pure functions of records; needs no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from mibench.reproduce import bido, lpa, ssd, tifs23
from mibench.reproduce.layout import Claim, Layout, ReproduceError

_CLAIMS: dict[str, Callable[[Layout], list[Claim]]] = {
    "tifs23": tifs23.claims,
    "bido": bido.claims,
    "ssd": ssd.claims,
    "lpa": lpa.claims,
}
LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (*tifs23.LAYOUTS, *bido.LAYOUTS, *ssd.LAYOUTS, *lpa.LAYOUTS)
}

__all__ = ["LAYOUTS", "ReproduceError", "claims_of", "find_layout"]


def find_layout(name: str) -> Layout:
    """The table of this name: `tifs23/table2`, `tifs23/2`, or a paper with one table alone.

    Raises:
        ReproduceError: there is none.
    """
    paper, _, table = name.partition("/")
    words = (name, f"{paper}/table{table}")
    for word in words:
        if word in LAYOUTS:
            return LAYOUTS[word]
    close = difflib.get_close_matches(name, LAYOUTS, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ReproduceError(f"reproduce: no table '{name}'.{hint} The tables: {', '.join(LAYOUTS)}.")


def claims_of(layout: Layout) -> list[Claim]:
    """What a table claims, as the reported numbers bear it."""
    return _CLAIMS[layout.name.partition("/")[0]](layout)
