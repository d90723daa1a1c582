"""No defense: the victim as it is, the row that every other row is compared with.

It overrides no step of `Defense`, so it is trained with the suite's recipe and releases its softmax. Source:
every paper of the field has this row, mostly under the name "Original" or "No Def.".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mibench.defense import Defense
from mibench.plugin import Card, Settings


@dataclass(frozen=True, kw_only=True)
class Undefended(Defense):
    """The undefended baseline; it has no options."""

    name = "none"
    card = Card(title="No defense: the suite's recipe and the plain softmax")
    neutral: ClassVar[Settings | None] = {}
