"""What the pages of attacks and of defenses share: words of a plugin, its options and presets, numbers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mibench.catalog import presets
from mibench.fields import field_docs
from mibench.plugin import Plugin


def head(plugin: type[Plugin], folder: str, facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Name, first sentence, table of facts and idea; `folder` is where the plugin's file lies."""
    first, *rest = _module_text(plugin).split("\n\n")
    yield f"# {plugin.name}"
    yield f"\n<!-- written by docs/plugin_pages.py from {folder}/{plugin.name}.py -->"
    yield f"\n{first}"
    yield "\n| | |\n| --- | --- |"
    yield from (f"| {name} | {cell(value)} |" for name, value in facts if value)
    yield "\n## Idea\n"
    yield "\n\n".join(rest)


def card_facts(plugin: type[Plugin]) -> list[tuple[str, str]]:
    """Title, paper and authors' code."""
    card = plugin.card
    code = f"<{card.code}>" if card.code else ""
    return [("title", card.title), ("paper", card.paper), ("authors' code", code)]


def options(plugin: type[Plugin], *, linked: Mapping[str, str] | None = None) -> Iterator[str]:
    """Every field with its default and meaning, and what built-in suites set.

    Args:
        plugin: whose fields.
        linked: rows that come first, in place of the fields' own meaning.
    """
    docs, defaults, linked = field_docs(plugin), plugin().params(), linked or {}
    yield "\n## Options\n"
    yield _class_text(plugin)
    if docs or linked:
        is_published = bool(plugin.card.paper)
        whose = "the `paper` variant" if is_published else "ours, for there is no paper"
        yield f"\nThe defaults are {whose}: an empty table in a suite runs them."
        column = "paper (default)" if is_published else "default"
        yield f"\n| field | {column} | meaning |\n| --- | --- | --- |"
    for name, meaning in {**linked, **{n: m for n, m in docs.items() if n not in linked}}.items():
        yield f"| `{name}` | `{toml(defaults.get(name))}` | {cell(meaning)} |"


def preset_part(plugin: type[Plugin], family: str) -> Iterator[str]:
    """The tables of built-in suites that name the plugin, of the family `attacks` or `defenses`."""
    for place, settings in presets(plugin).items():
        suite, _, label = place.partition(": ")
        yield f"\n### In suite `{suite}`" + (f" as `{label}`" if label else "") + "\n"
        lines = [f"{name} = {toml(value)}" for name, value in settings.items()]
        yield "\n".join(["```toml", f"[{family}.{label or plugin.name}]", *lines, "```"])


def deviations(plugin: type[Plugin]) -> Iterator[str]:
    """What differs from the paper."""
    if plugin.card.deviations:
        yield "\n## Differs from the paper\n"
        yield from (f"- {line[0].upper()}{line[1:].rstrip('.')}." for line in plugin.card.deviations)


def number(estimate: Mapping[str, Any], *, percent: bool) -> str:
    """A value with its 95 % interval where it has one; percent for fractions."""
    scale = 100 if percent else 1
    value, low, high = (scale * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f}" if low == high else f"{value:.1f} [{low:.0f}-{high:.0f}]"


def toml(value: object) -> str:
    """A value as a suite holds it; `none` for nothing."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(part)}" for name, part in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def cell(text: str) -> str:
    """A text that does not break a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _module_text(plugin: type) -> str:
    return inspect.cleandoc(inspect.getmodule(plugin).__doc__ or "")


def _class_text(plugin: type) -> str:
    return inspect.cleandoc(plugin.__doc__ or "").split("\n\nArgs:")[0]
