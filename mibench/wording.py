"""Numbers of things in words."""

from __future__ import annotations

_IRREGULAR = {"person": "people"}


def counted(number: int, word: str) -> str:
    """How many of something, in the singular where there is one.

    >>> counted(1, "cell"), counted(0, "cell"), counted(2, "person")
    ('1 cell', '0 cells', '2 people')
    """
    return f"{number} {word if number == 1 else _IRREGULAR.get(word, f'{word}s')}"
