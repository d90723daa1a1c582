"""What there is, for people: lists of plugins and suites, and the card of one plugin."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mibench.attack import Attack
from mibench.compose import Composition
from mibench.defense import Defense
from mibench.errors import UnknownPluginError
from mibench.fields import field_docs, level_text
from mibench.metric import Metric
from mibench.plugin import Plugin
from mibench.registry import (
    get_attack,
    get_defense,
    get_metric,
    lies_here,
    list_attacks,
    list_defenses,
    list_metrics,
    load_plugin_file,
    plugin_names,
)
from mibench.suite import SUITES, list_suites

_GETS: dict[str, Any] = {"attacks": get_attack, "defenses": get_defense, "metrics": get_metric}


def find_plugins(name: str) -> list[type[Plugin]]:
    """Every plugin of this name or alias in any family, or the one in this file.

    Raises:
        PluginError: no plugin has the name, or the file cannot be used.
    """
    if name.endswith(".py"):
        return [load_plugin_file(name)]
    found: list[type[Plugin]] = []
    errors = []
    for get in _GETS.values():
        try:
            found.append(get(name))
        except UnknownPluginError as error:
            errors.append(str(error))
    if found:
        return found
    if name in list_suites():
        raise UnknownPluginError(f"'{name}' is a suite and no plugin. `mibench plan {name}` shows it.")
    if lies_here(name):
        raise UnknownPluginError(f"unknown plugin '{name}'. The file here is called '{name}.py'.")
    hints = [error for error in errors if "Did you mean" in error]
    if hints:
        raise UnknownPluginError(hints[0])
    counts = ", ".join(f"{len(plugin_names(plural))} {plural}" for plural in _GETS)
    raise UnknownPluginError(
        f"unknown plugin '{name}'. There are {counts}: see `mibench list attacks` and so on."
    )


def attack_list() -> Table:
    """All attacks: name, access, prior, year, title."""
    table = _table("attack", "access", "prior", "year", "title")
    for name, plugin in list_attacks().items():
        access = plugin.access.level + (", control" if plugin.control else "")
        _line(table, name, access, prior_of(plugin), _year(plugin) or "-", plugin.card.title)
    return table


def prior_of(plugin: type[Attack[Any]]) -> str:
    """What an attack learns from public images before it meets a victim, in a word or two."""
    spec = plugin().prior_spec()
    if spec is not None:
        return spec.kind.replace("_", "-")
    if plugin.learn_prior is not Attack.learn_prior:
        return "own"
    return "none" if plugin.adapt_prior is Attack.adapt_prior else "victim's answers"


def defense_list() -> Table:
    """All defenses: name, where it acts, what it knows, its knob from weak to strong, year, title."""
    table = _table("defense", "acts on", "knows", "knob", "year", "title")
    for name, plugin in list_defenses().items():
        knows = ", ".join(sorted(plugin.knows)).replace("_", " ")
        knob, year = plugin.strength or "-", _year(plugin) or "-"
        _line(table, name, plugin.acts, knows or "-", knob, year, plugin.card.title)
    table.caption = escape(
        "Two or three that act on different steps are one defense: bido+ad_mi, mid+netguard+rounding."
    )
    return table


def metric_list() -> Table:
    """All metrics: name, heading, better direction for the defender, title."""
    table = _table("metric", "heading", "better", "title")
    for name, plugin in list_metrics().items():
        _row(table, name, plugin.title, plugin.better, plugin.card.title)
    return table


def suite_list() -> Table:
    """The built-in suites, and what the first lines of their files say."""
    table = _table("suite", "what it is")
    for name in list_suites():
        _row(table, name, about(SUITES / f"{name}.toml"))
    return table


LISTS = {
    "attacks": attack_list,
    "defenses": defense_list,
    "metrics": metric_list,
    "suites": suite_list,
}


def about(file: Path) -> str:
    """The comment at the top of a suite file."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def plugin_card(plugin: type[Plugin]) -> RenderableType:
    """Everything about one plugin: its paper, what it needs, its fields, what differs from the paper.

    A composition's card is followed by those of its parts, which have the fields.
    """
    if issubclass(plugin, Composition):
        return Group(_composition_head(plugin), *(plugin_card(one) for one in plugin.part_types))
    card = plugin.card
    head = Text.assemble((plugin.name, "bold"), f"  {_family(plugin)}, version {plugin.version}")
    parts: list[RenderableType] = [head, Text(card.title)]
    source = ", ".join(word for word in (card.paper, _year(plugin)) if word)
    parts += [Text(line, style="dim") for line in (source, card.code) if line]
    parts += [Text(f"{name}: {value}") for name, value in _facts(plugin)]
    parts += [Text(), Text((plugin.__doc__ or "").split("\n\n")[0].strip())]
    fields = _fields(plugin)
    if fields.row_count:
        parts += [Text(), fields]
    parts += [Text(line) for line in _preset_lines(plugin)]
    if card.deviations:
        parts += [Text(), Text("Differs from the paper:", style="bold")]
        parts += [Padding(Text(f"- {line}"), (0, 0, 0, 2)) for line in card.deviations]
    return Group(*parts, Text())


def _composition_head(plugin: type[Composition]) -> RenderableType:
    """The name of a composition and the facts about its parts together."""
    head = Text.assemble((plugin.name, "bold"), f"  {len(plugin.part_types)} defenses together")
    order = Text(f"act in this order: {', '.join(one.name for one in plugin.part_types)}")
    return Group(head, order, *(Text(f"{name}: {value}") for name, value in _facts(plugin)), Text())


def _facts(plugin: type[Plugin]) -> list[tuple[str, str]]:
    """What the family's class attributes say."""
    facts: list[tuple[str, str]] = []
    aliases = ", ".join(getattr(plugin, "aliases", ()))
    if aliases:
        facts.append(("also called", aliases))
    if issubclass(plugin, Attack):
        facts.append(("access", plugin.access.level))
        facts += [("control", "yes: it claims nothing")] if plugin.control else []
    elif issubclass(plugin, Defense):
        facts += [("acts on", plugin.acts), ("starts from", plugin.starts_from)]
        facts += [("strength", _strength(plugin))] if plugin.strength else []
        sets = (("knows", plugin.knows), ("needs", plugin.needs), ("weak to", plugin().weaknesses))
        for name, values in sets:
            facts += [(name, ", ".join(sorted(values)))] if values else []
        facts += [("models", "one for each protected label")] if plugin.per_target else []
    elif issubclass(plugin, Metric):
        facts += [("heading", plugin.title), ("better for the defender", plugin.better)]
    return facts


def _strength(plugin: type[Defense]) -> str:
    """The knob, and the levels of a sweep from weak to strong."""
    levels = ", ".join(level_text(level) for level in plugin.strength_levels)
    return f"{plugin.strength}, swept over {levels}" if levels else plugin.strength


def _fields(plugin: type[Plugin]) -> Table:
    """Name, default (which is the paper's, as the meaning says) and meaning of every field."""
    docs = field_docs(plugin)
    table = _table("field", "paper (default)", "meaning")
    params = plugin().params()
    for field in dataclasses.fields(plugin):
        _row(table, field.name, _default(params.get(field.name)), docs.get(field.name, ""))
    return table


def presets(plugin: type[Plugin]) -> dict[str, dict[str, Any]]:
    """The settings of a plugin in each built-in suite that names it, by `suite: label`."""
    found: dict[str, dict[str, Any]] = {}
    for suite in list_suites():
        raw = tomllib.loads((SUITES / f"{suite}.toml").read_text(encoding="utf-8"))
        for table in (raw.get("attacks", {}), raw.get("defenses", {})):
            for label, values in table.items():
                if values.get("plugin", label) == plugin.name:
                    settings = {name: value for name, value in values.items() if name != "plugin"}
                    found[suite if label == plugin.name else f"{suite}: {label}"] = settings
    return found


def _preset_lines(plugin: type[Plugin]) -> list[str]:
    """What built-in suites set instead of the defaults, one line a field."""
    lines = []
    for place, settings in presets(plugin).items():
        lines += ["", f"Preset {place} (mibench/suites/{place.split(':')[0]}.toml):"]
        lines += [f"  {name} = {value}" for name, value in settings.items()] or ["  the defaults"]
    return lines


def _default(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name} = {part}" for name, part in value.items())
    return "none" if value is None else str(value)


def _family(plugin: type[Plugin]) -> str:
    kinds: dict[str, type] = {"attack": Attack, "defense": Defense, "metric": Metric}
    return next(word for word, kind in kinds.items() if issubclass(plugin, kind))


def _year(plugin: type[Plugin]) -> str:
    return str(plugin.card.year) if plugin.card.year else ""


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading, no_wrap=place == 0, overflow="fold")
    return table


def _row(table: Table, *words: str) -> None:
    table.add_row(*(escape(word) for word in words))


def _line(table: Table, *words: str) -> None:
    """A row of one line: the last column is cut where there is no room, and `mibench show` has it whole."""
    *cells, last = words
    for column in table.columns[:-1]:
        column.no_wrap = True
    table.add_row(*map(escape, cells), Text(last, no_wrap=True, overflow="ellipsis"))
