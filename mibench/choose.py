"""What is run: a suite, and what the command line adds to it or picks from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mibench.attack import Attack
from mibench.defense import Defense
from mibench.errors import PluginError, SuiteError
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
) -> Suite:
    """A suite, its rows and columns narrowed to names and widened by files.

    A name picks what the suite has under that label or of that plugin; where it has none, the plugin joins
    with its defaults. Without names everything stays. A file always adds its plugin, unless the suite
    configures that plugin itself.

    Args:
        name: built-in suite or path of a TOML file.
        attacks: names of attacks, or paths of Python files with one.
        defenses: names of defenses, or paths.
        plugins: paths of files with a plugin of any family; loaded before the suite, which may name them.
        seeds: in place of the suite's; empty keeps them.

    Raises:
        SuiteError: the suite cannot be read, or does not bear the choice.
        PluginError: an unknown name, or a file that cannot be used.
    """
    added = [load_plugin_file(path) for path in plugins]
    added += [_load(path, Attack, "--attack") for path in attacks if _is_file(path)]
    added += [_load(path, Defense, "--defense") for path in defenses if _is_file(path)]
    suite = load_suite(name)
    metrics = [_make(one) for one in added if issubclass(one, Metric)]
    try:
        return dataclasses.replace(
            suite,
            attacks=_pick(suite.attacks, attacks, _of(added, Attack), get_attack),
            defenses=_pick(suite.defenses, defenses, _of(added, Defense), get_defense),
            metrics=(*suite.metrics, *(one for one in metrics if one not in suite.metrics)),
            seeds=tuple(seeds) or suite.seeds,
        )
    except ValueError as error:
        raise SuiteError(f"suite {suite.name}: {error}") from error


def _is_file(word: str) -> bool:
    return word.endswith(".py")


def _load(path: str, kind: type[Plugin], option: str) -> type[Plugin]:
    plugin = load_plugin_file(path)
    if not issubclass(plugin, kind):
        raise PluginError(f"plugin {path}: is no {kind.__name__.lower()}, so {option} cannot take it.")
    return plugin


def _of(plugins: Iterable[type[Plugin]], kind: Any) -> list[Any]:  # noqa: ANN401 - abstract classes are no type[P]
    return [plugin for plugin in plugins if issubclass(plugin, kind)]


def _make(plugin: type[P]) -> P:
    """The plugin with its defaults."""
    try:
        return plugin()
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"plugin '{plugin.name}': cannot be made from its defaults ({error}). Mend them."
        ) from error


def _pick(
    entries: tuple[Entry[P], ...], words: Sequence[str], added: list[type[P]], get: Callable[[str], type[P]]
) -> tuple[Entry[P], ...]:
    """The entries that words name, or all of them, and the added plugins that are not among them."""
    names = [word for word in words if not _is_file(word)]
    chosen: list[Entry[P]] = [] if names else list(entries)
    for name in names:
        found = [entry for entry in entries if entry.label == name]
        if not found:
            plugin = get(name)
            found = [entry for entry in entries if type(entry.plugin) is plugin]
            found = found or [Entry(plugin.name, _make(plugin))]
        chosen += [entry for entry in found if entry not in chosen]
    for plugin in added:
        if not any(type(entry.plugin) is plugin for entry in chosen):
            own = [entry for entry in entries if type(entry.plugin) is plugin]
            chosen += own or [Entry(plugin.name, _make(plugin))]
    return tuple(chosen)
