"""Write docs/suite-keys.md: every key of a suite file with type, default and meaning, from the dataclasses.

Usage: python docs/suite_keys.py
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from page_parts import cell, toml

from mibench.data.folder import FolderData
from mibench.data.prepared_source import PreparedData
from mibench.data.synthetic import SynthFacesData
from mibench.fields import field_docs
from mibench.net_choice import EmbedderChoice, NetChoice
from mibench.suite import Suite
from mibench.targets import Limits, Targets
from mibench.training import Recipe

PAGE = Path(__file__).resolve().parent / "suite-keys.md"
_HEAD = """# Keys of a suite

<!-- written by docs/suite_keys.py from the dataclasses -->

Every key that a suite file may hold. [Suites](suites.md) tells how they go together; a key that is not here
is an error.
"""
_TABLES: dict[str, tuple[type, str]] = {
    "Top level": (Suite, "Keys and tables; each table has a part of its own below."),
    '`[data]`, `kind = "synthfaces"`': (SynthFacesData, "Drawn faces, the default."),
    '`[data]`, `kind = "folder"`': (FolderData, "Images of yours, a folder for each person."),
    '`[data]`, `kind = "prepared"`': (
        PreparedData,
        "A split file of [prepared sets](data.md); 0 takes what the file says.",
    ),
    "`[victim]`, `[judge]`, `[audit]`, `[public_net]`": (NetChoice, "A classifier."),
    "`[embedder]`": (EmbedderChoice, "A space of faces that knows nobody private."),
    "`recipe` of each net": (Recipe, "How a net is trained."),
    "`[targets]`": (Targets, "Who is attacked."),
    "`[limits]`": (Limits, "Queries and chunks."),
}
_PLUGINS = """
## `[attacks.LABEL]`, `[defenses.LABEL]`, `[metric.NAME]`

`plugin` names the plugin, by default the label itself. The other keys are its fields: see the pages of
[attacks](attacks/README.md) and [defenses](defenses/README.md), or `mibench show NAME`.
`[more.attacks.LABEL]` and `[more.defenses.LABEL]` have the same keys.
"""
# what the file gives as names or tables, and the suite holds as plugins
_ENTRIES = {"attacks": "tables", "defenses": "tables", "more": "tables", "metrics": "array of strings"}


def page() -> str:
    """The whole page."""
    parts = [_HEAD, *("\n".join(_part(title, *of)) for title, of in _TABLES.items()), _PLUGINS]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _part(title: str, kind: type, about: str) -> Iterator[str]:
    yield f"## {title}\n\n{about}\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    docs, hints = field_docs(kind), get_type_hints(kind)
    for one in dataclasses.fields(kind):
        words = _ENTRIES.get(one.name) or _words(hints[one.name])
        yield f"| `{one.name}` | {words} | {_default(one)} | {cell(docs.get(one.name, ''))} |"


def _words(hint: Any) -> str:  # noqa: ANN401 - whatever annotates a field
    """A type in the words of TOML."""
    inner = [one for one in get_args(hint) if one not in (type(None), ...)]
    if get_origin(hint) is Literal:
        return " or ".join(f'`"{word}"`' for word in inner)
    if get_origin(hint) is tuple:
        return f"array of {_words(inner[0])}" + ("" if get_origin(inner[0]) is Literal else "s")
    if inner:
        return _words(inner[0])
    names = {int: "integer", float: "float", bool: "boolean", str: "string"}
    return names.get(hint, "table")


def _default(one: dataclasses.Field[Any]) -> str:
    """A default as TOML; the defaults of a table stand in its own part."""
    if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
        return "required"
    value = one.default if one.default is not dataclasses.MISSING else None
    if value is None:
        return "none" if one.default_factory is dataclasses.MISSING else "its defaults"
    if dataclasses.is_dataclass(value):
        return "its defaults"
    return f"`{toml(value)}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
