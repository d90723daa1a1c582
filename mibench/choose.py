"""What is run: a suite, and what the command line adds to it or picks from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mibench.attack import Attack
from mibench.compose import Composition
from mibench.data.prepared_source import PreparedData
from mibench.defense import Defense
from mibench.errors import PluginError, SuiteError
from mibench.fields import level_text
from mibench.metric import Metric
from mibench.plugin import Plugin
from mibench.registry import get_attack, get_defense, load_plugin_file
from mibench.suite import Entry, Suite, load_suite

P = TypeVar("P", bound=Plugin)


def choose(
    name: str | Path,
    *,
    attacks: Sequence[str] = (),
    defenses: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
    seeds: Sequence[int] = (),
    split: str | Path | None = None,
) -> Suite:
    """A suite, its rows and columns narrowed to names and widened by files.

    A name picks what the suite has under that label, also under `more`, or of that plugin; where it has none,
    the plugin joins with its defaults. `NAME@LEVEL` takes a defense at a level of its knob, see `at_level`;
    `NAME+NAME` takes several as one, each as the suite has it, see `mibench.compose`. Without names all
    stays. A file always adds its plugin, unless the suite configures that plugin itself.

    Args:
        name: built-in suite or path of a TOML file.
        attacks: names of attacks, or paths of Python files with one.
        defenses: names of defenses, or paths.
        plugins: paths of files with a plugin of any family; loaded before the suite, which may name them.
        seeds: in place of the suite's; empty keeps them.
        split: file of prepared faces that take the place of the suite's data; None keeps them.

    Raises:
        SuiteError: the suite cannot be read, or does not bear the choice.
        PluginError: an unknown name, or a file that cannot be used.
    """
    added = [load_plugin_file(path) for path in plugins]
    added += [load_one(path, Attack, "--attack") for path in attacks if is_file(path)]
    added += [load_one(path, Defense, "--defense") for path in defenses if is_file(path)]
    suite = load_suite(name)
    metrics = [_make(one) for one in added if issubclass(one, Metric)]
    try:
        return dataclasses.replace(
            suite,
            data=suite.data if split is None else PreparedData(split=str(split)).filled(),
            attacks=_pick(suite.attacks, suite.more.attacks, attacks, _of(added, Attack), get_attack),
            defenses=_pick(suite.defenses, suite.more.defenses, defenses, _of(added, Defense), get_defense),
            metrics=(*suite.metrics, *(one for one in metrics if one not in suite.metrics)),
            seeds=tuple(seeds) or suite.seeds,
        )
    except ValueError as error:
        raise SuiteError(f"suite {suite.name}: {error}") from error


def is_file(word: str) -> bool:
    """Whether a word of the command line is the path of a plugin's file, and no name."""
    return word.endswith(".py")


def load_one(path: str, kind: type[Plugin], option: str) -> type[Plugin]:
    """The plugin of a file; PluginError where it is of another family than the option takes."""
    plugin = load_plugin_file(path)
    if not issubclass(plugin, kind):
        raise PluginError(f"plugin {path}: is no {kind.__name__.lower()}, so {option} cannot take it.")
    return plugin


def _of(plugins: Iterable[type[Plugin]], kind: Any) -> list[Any]:  # noqa: ANN401 - abstract classes are no type[P]
    return [plugin for plugin in plugins if issubclass(plugin, kind)]


def _make(plugin: type[P], entries: Sequence[Entry[P]] = ()) -> P:
    """The plugin with its defaults; a composition with what the entries say of its parts."""
    try:
        if issubclass(plugin, Composition):
            return plugin.from_params(plugin.filled({}, {one.label: one.plugin for one in entries}))
        return plugin()
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"plugin '{plugin.name}': cannot be made from its defaults ({error}). Mend them."
        ) from error


def _pick(
    entries: tuple[Entry[P], ...],
    more: tuple[Entry[P], ...],
    words: Sequence[str],
    added: list[type[P]],
    get: Callable[[str], type[P]],
) -> tuple[Entry[P], ...]:
    """The entries that words name, or all of them, and the added plugins that are not among them."""
    names = [word for word in words if not is_file(word)]
    chosen: list[Entry[P]] = [] if names else list(entries)
    for name in names:
        chosen += [entry for entry in named(entries, name, get, more) if entry not in chosen]
    for plugin in added:
        if not any(_configures(entry, plugin, is_own=entry in entries) for entry in chosen):
            own = [entry for entry in entries if type(entry.plugin) is plugin]
            chosen += own or [Entry(plugin.name, _make(plugin))]
    return tuple(chosen)


def _configures(entry: Entry[P], plugin: type[P], *, is_own: bool) -> bool:
    """Whether an entry is of this plugin; a suite's own may also hold it as a part of several."""
    parts = getattr(entry.plugin, "parts", ()) if is_own else ()
    return plugin in {type(one) for one in (entry.plugin, *parts)}


def named(
    entries: Sequence[Entry[P]],
    name: str,
    get: Callable[[str], type[P]],
    more: Sequence[Entry[P]] = (),
) -> list[Entry[P]]:
    """What a name means in a suite: its label, else its entries of that plugin, else the plugin's defaults.

    Labels of `more`, the entries that a run meets only where they are named, count as the suite's own.

    Raises:
        PluginError: there is no plugin of that name, or it cannot be taken at that level.
    """
    found = [entry for entry in (*entries, *more) if entry.label == name]
    if found:
        return found
    stem, at, level = name.rpartition("@")
    if at:
        return [at_level(entry, level_of(level)) for entry in named(entries, stem, get, more)]
    plugin = get(name)
    found = [entry for entry in entries if type(entry.plugin) is plugin]
    return found or [Entry(plugin.name, _make(plugin, entries))]


def at_level(entry: Entry[P], level: object) -> Entry[P]:
    """The defense with its knob at a level and everything else as it was, labeled `label@level`.

    Args:
        entry: a defense that names its knob, see `Defense.strength`.
        level: a JSON value.

    Raises:
        PluginError: it has no knob, or the knob cannot stand there.
    """
    plugin = entry.plugin
    knob = plugin.strength if isinstance(plugin, Defense) else ""
    if not knob:
        raise PluginError(
            f"'{entry.label}' has no knob, so there is no level '{level_text(level)}' of it. "
            "`mibench show NAME` tells which field of a defense is its knob."
        )
    try:
        made = type(plugin).from_params({**plugin.params(), knob: level})
    except ValueError as error:
        raise PluginError(f"{entry.label}@{level_text(level)}: {error}") from error
    return Entry(f"{entry.label}@{level_text(getattr(made, knob))}", made)


def level_of(word: str) -> object:
    """The JSON value that a word of the command line stands for; the word itself where it stands for none."""
    try:
        value: object = json.loads(word, parse_constant=_no_number)
    except ValueError:
        return word
    return value


def _no_number(word: str) -> object:
    # json reads NaN and Infinity, which no key can hold
    raise ValueError(f"{word} is no level.")
