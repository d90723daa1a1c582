"""The one rule of every division: nobody stands in two parts."""

from __future__ import annotations

from mibench.errors import LeakError


def check_disjoint(parts: dict[str, tuple[str, ...]]) -> None:
    """Raise LeakError where one identity name stands in two of the named parts."""
    names = list(parts)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            shared = sorted(set(parts[one]) & set(parts[other]))
            if shared:
                raise LeakError(
                    f"split: identity '{shared[0]}' is both in the {one} and the {other} part "
                    f"({len(shared)} such). Give every person to one part."
                )
