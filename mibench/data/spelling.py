"""File names on one line of readable text, and back: they may hold line ends or undecodable bytes."""

from __future__ import annotations

import re

_ESCAPED = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")


def spelled(name: str) -> str:
    r"""A name with a backslash and a number in place of all that does not print, and of each backslash.

    So it is valid UTF-8, one line, harmless on a terminal, and says the name exactly: see `unspelled`.

    >>> print(spelled("Zoë\n1.jpg"), spelled("\udcff.jpg"), spelled("a\\b"))
    Zoë\u000a1.jpg \udcff.jpg a\u005cb
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(char if char.isprintable() and char != "\\" else _escape(char) for char in name)


def unspelled(text: str) -> str:
    r"""The name that `spelled` gave this text for.

    >>> unspelled(spelled("Zoë\n\\u0041\udcff")) == "Zoë\n\\u0041\udcff"
    True
    """
    return _ESCAPED.sub(lambda found: chr(int(found[1] or found[2], 16)), text)


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"
