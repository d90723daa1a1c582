"""Makes text from records safe to print: labels and error messages come from plugins, so from anyone."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Unicode categories: control, format (bidi, zero width), surrogate, private, unset."""

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}", "-": "{-}",
    "\N{MINUS SIGN}": "$-$", "\N{EN DASH}": "--", "—": "---", "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$", "·": r"$\cdot$", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$", "…": r"\ldots{}", "≥": r"$\geq$", "≤": r"$\leq$", "\N{REPLACEMENT CHARACTER}": "?",
    "\N{LEFT SINGLE QUOTATION MARK}": "`", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "“": "``", "”": "''", "ß": r"\ss{}",
}  # fmt: skip
"""What pdflatex needs instead of a character; brackets and stars are options after a line break."""

MARKDOWN = re.compile(r"([\\`*_\[\]|~$#])")
CSV_FORMULA = ("=", "+", "-", "@", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
               "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip


def plain(text: object, limit: int = 0) -> str:
    """Text on one line without control characters, cut to `limit` characters with an ellipsis (0: whole)."""
    return _plain(str(text), limit)


@lru_cache(maxsize=4096)
def _plain(text: str, limit: int) -> str:
    """See `plain`; remembered, for 10,000 records repeat a few hundred labels."""
    safe = " ".join(text.split())
    if not safe.isprintable():
        safe = "".join(map(_printable, safe))
    return safe if not limit or len(safe) <= limit else safe[: limit - 1].rstrip() + "…"


def _printable(char: str) -> str:
    """The character, or the sign for one that cannot be shown."""
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in UNPRINTABLE else char


def printable(text: str) -> str:
    """Text without control characters, line ends among them; its spaces stay as they are."""
    return text if text.isprintable() else "".join(map(_printable, text))


def csv_text(text: object) -> str:
    """Plain text that no spreadsheet runs as a formula: a leading = + - @ gets an apostrophe."""
    safe = plain(text)
    return f"'{safe}" if safe.startswith(CSV_FORMULA) else safe


def latex(text: object) -> str:
    """Text that pdflatex prints as it stands; what its fonts lack is printed as [U+1234]."""
    return "".join(_latex_char(char) for char in plain(text))


def _latex_char(char: str) -> str:
    """One character for pdflatex."""
    if char in LATEX:
        return LATEX[char]
    if char.isascii():
        return char
    base = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return "".join(LATEX.get(part, part) for part in base) or f"{{[}}U+{ord(char):04X}{{]}}"


def markdown(text: object) -> str:
    """Text that Markdown prints as it stands: no markup, no HTML, no table cell, no mention of a user."""
    escaped = MARKDOWN.sub(r"\\\1", plain(text).replace("&", "&amp;"))
    return escaped.replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")


def slug(text: object) -> str:
    """A file name of lowercase letters, digits and hyphens, never empty, at most 60 characters."""
    words = re.findall(r"[a-z0-9]+", unicodedata.normalize("NFKD", str(text)).lower())
    return "-".join(words)[:60].strip("-") or "x"


def slugs(texts: list[str]) -> dict[str, str]:
    """A different slug for every text, numbered where two would be equal."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for text in texts:
        if text in names:
            continue
        stem = name = slug(text)
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        names[text] = name
    return names
