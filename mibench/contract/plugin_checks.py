"""What is asked of every plugin, whatever its family; none of it runs the method."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mibench.attack import Attack
from mibench.compose import Composition
from mibench.contract.check import Answer, Check, Probe, checks_of
from mibench.errors import PluginError
from mibench.fields import field_docs
from mibench.lock import LOCK, difference, is_built_in, locked, read_lock, sources
from mibench.metric import Metric
from mibench.plugin import Plugin

_FIRST_YEAR, _LAST_YEAR = 1900, 2100


def plugin_checks(plugin: type[Plugin]) -> list[Check]:
    """The checks of one plugin."""
    probes: tuple[Probe, ...] = (
        has_defaults,
        is_frozen,
        is_hashable,
        params_survive_json,
        toy_settings_fit,
        later_options_are_fields,
        name_is_the_files,
        card_is_filled,
        fields_are_documented,
        source_is_locked,
        names_no_device,
        prints_nothing,
        leaves_the_global_generator_alone,
    )
    if issubclass(plugin, Composition):  # made of parts that have files, and are asked about them
        probes = tuple(one for one in probes if one not in _OF_FILES)
    return checks_of(probes, plugin)


def has_defaults(plugin: type[Plugin]) -> Answer:
    """Every field has a default that it accepts."""
    bare = [
        field.name
        for field in dataclasses.fields(plugin)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if bare:
        return f"field '{bare[0]}' has no default. Give it the paper's value."
    plugin()
    return None


def is_frozen(plugin: type[Plugin]) -> Answer:
    """It is a frozen dataclass with keyword-only fields."""
    options: Any = plugin.__dict__.get("__dataclass_params__")
    if options is not None and options.frozen and all(field.kw_only for field in dataclasses.fields(plugin)):
        return None
    return (
        f"class {plugin.__name__} is none itself. Put @dataclass(frozen=True, kw_only=True) above it, also "
        "where its parent has one."
    )


def is_hashable(plugin: type[Plugin]) -> Answer:
    """Two plugins with equal fields are equal and hash alike."""
    if plugin() != plugin() or hash(plugin()) != hash(plugin()):
        return "two with equal fields differ. Let fields hold numbers, words, tuples and frozen dataclasses."
    return None


def params_survive_json(plugin: type[Plugin]) -> Answer:
    """Its fields come back from JSON as they were."""
    made = plugin()
    again = plugin.from_params(made.params())
    if again != made:
        return f"{again!r} came back. Annotate fields with the types that they hold."
    return None


def toy_settings_fit(plugin: type[Plugin]) -> Answer:
    """Its settings for the checks, `toy`, fit its fields."""
    plugin.from_params(dict(plugin.toy))
    return None


def later_options_are_fields(plugin: type[Plugin]) -> Answer:
    """What `added` names are its fields; another word would keep nothing out of a key."""
    unknown = sorted(plugin.added - {field.name for field in dataclasses.fields(plugin)})
    if unknown:
        return f"added names '{unknown[0]}', which is no field. Mend the name or leave it out."
    return None


def name_is_the_files(plugin: type[Plugin]) -> Answer:
    """It is called like its file."""
    stem = Path(inspect.getfile(plugin)).stem
    if plugin.name != stem:
        return f"it is called '{plugin.name}', its file '{stem}'. Use one name for both."
    return None


def card_is_filled(plugin: type[Plugin]) -> Answer:
    """Its card names title and, of a paper, the year."""
    card = plugin.card
    if not card.title.strip():
        return "card.title is empty. Give the paper's title, or say what the plugin is."
    if card.paper and not _FIRST_YEAR <= card.year <= _LAST_YEAR:
        return f"card.paper is '{card.paper}', card.year {card.year}. Give the year of publication."
    blank = [line for line in card.deviations if len(line.split()) < 3]
    if blank:
        return f"card.deviations holds {blank[0]!r}. Say in a sentence what differs from the paper."
    return None


def fields_are_documented(plugin: type[Plugin]) -> Answer:
    """The docstrings say what every field means."""
    docs = field_docs(plugin)
    silent = [field.name for field in dataclasses.fields(plugin) if not docs.get(field.name)]
    if silent:
        return f"nothing says what '{silent[0]}' means. Add it to `Args:` in the class's docstring."
    return None


def source_is_locked(plugin: type[Plugin]) -> Answer:
    """The lock file knows its source and version; a plugin from elsewhere is told apart by its source."""
    if not (is_built_in(plugin) and LOCK.is_file()):
        return None
    lock = read_lock()
    known = {
        name: one
        for names in (lock.get(plural, {}) for plural in _plurals(plugin))
        for name, one in names.items()
    }
    return difference(known.get(plugin.name), locked(plugin)) or None


def _plurals(plugin: type[Plugin]) -> tuple[str, ...]:
    if issubclass(plugin, Attack):
        return ("attacks",)
    return ("metrics",) if issubclass(plugin, Metric) else ("defenses",)


def names_no_device(plugin: type[Plugin]) -> Answer:
    """It computes on ctx.device and names no device itself."""
    for file, node in _nodes(plugin):
        is_word = isinstance(node, ast.Constant) and isinstance(node.value, str)
        word = node.value if is_word and isinstance(node, ast.Constant) else ""
        if str(word).split(":")[0] == "cuda" or (isinstance(node, ast.Attribute) and node.attr == "cuda"):
            return f"{_at(file, node)} names a GPU. Use ctx.device."
    return None


def prints_nothing(plugin: type[Plugin]) -> Answer:
    """It reports through ctx.report and prints nothing."""
    for file, node in _nodes(plugin):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            return f"{_at(file, node)} prints. Use ctx.report for progress and ctx.note for results."
    return None


def leaves_the_global_generator_alone(plugin: type[Plugin]) -> Answer:
    """It seeds no global generator."""
    for file, node in _nodes(plugin):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {
            "torch.manual_seed",
            "torch.seed",
            "random.seed",
        }:
            return f"{_at(file, node)} seeds a global generator. Use ctx.generator or ctx.noise."
    return None


_OF_FILES = (
    name_is_the_files,
    source_is_locked,
    names_no_device,
    prints_nothing,
    leaves_the_global_generator_alone,
)


def _nodes(plugin: type[Plugin]) -> Iterator[tuple[Path, ast.AST]]:
    """Every syntax node of the plugin's file and of its private helpers."""
    try:
        files = sources(plugin)
    except (OSError, TypeError) as error:
        raise PluginError(f"plugin '{plugin.name}': its source cannot be read ({error}).") from error
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            yield file, node


def _at(file: Path, node: ast.AST) -> str:
    return f"line {getattr(node, 'lineno', '?')} of {file.name}"
