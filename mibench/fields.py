"""What a plugin's fields mean: their lines in the `Args:` sections of the class and its parents."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re

_ENTRY = re.compile(r"^([A-Za-z_][\w, ]*?)(?: \([^)]*\))?:\s*(.*)$")


def field_docs(kind: type) -> dict[str, str]:
    """One sentence or more for each documented field of a dataclass, parents' fields included."""
    docs: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        docs |= args_section(one.__doc__ or "")
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: docs[name] for name in names if name in docs}


def args_section(docstring: str) -> dict[str, str]:
    """Names and texts of a Google-style `Args:` section; `low, high: text` gives both names the text.

    >>> args_section('''Title.
    ...
    ...     Args:
    ...         steps: how many,
    ...             at most.
    ... ''')
    {'steps': 'how many, at most.'}
    """
    lines = inspect.cleandoc(docstring).splitlines()
    if "Args:" not in lines:
        return {}
    docs: dict[str, str] = {}
    names: list[str] = []
    for line in lines[lines.index("Args:") + 1 :]:
        if line.strip() and not line.startswith(" "):
            break
        entry = _ENTRY.match(line.strip()) if re.match(r" {4}\S", line) else None
        if entry:
            names = [name.strip() for name in entry[1].split(",")]
            docs.update(dict.fromkeys(names, entry[2]))
        elif line.strip():
            docs.update({name: f"{docs[name]} {line.strip()}".strip() for name in names})
    return docs


def level_text(level: object) -> str:
    """A level as labels hold it: a number without a bare `.0`, a word as it is, anything else as JSON."""
    if isinstance(level, str):
        return level
    return json.dumps(level).removesuffix(".0")
