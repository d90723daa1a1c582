"""One line of a look at the user's data: how something stands, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]
NAMED = 3  # of many, that are told; the rest is a number


@dataclass(frozen=True)
class Finding:
    """How it stands, about what, and what is found or to be done; text of users' files is in it as it is."""

    status: Status
    what: str
    text: str


def first_few(names: Sequence[object], most: int = NAMED) -> str:
    """The first of many, and how many more there are.

    >>> first_few(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    told = ", ".join(str(name) for name in names[:most])
    return told if len(names) <= most else f"{told} and {len(names) - most:,} more"


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "person", "people"), counted(1200, "image")
    ('1 person', '1,200 images')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
