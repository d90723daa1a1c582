"""A sweep: defenses at several levels of their one knob, from weak to strong, beside no defense."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mibench.choose import at_level, choose, is_file, level_of, load_one, named
from mibench.defense import Defense
from mibench.errors import SuiteError
from mibench.record import SWEEP
from mibench.registry import get_defense, get_metric
from mibench.suite import Entry, Suite, load_suite

BASELINE = "none"
AXES = ("mc_all", "aa")  # what a curve of the trade-off is drawn from
OWN_LEVELS = "default"


@dataclass(frozen=True)
class Sweep:
    """What a sweep runs.

    Args:
        suite: no defense, then every level of every named one, against all attacks; named after the suite
            that it sweeps in, with `-sweep` behind.
        notes: what whoever pays for the run should know, one sentence each.
    """

    suite: Suite
    notes: tuple[str, ...]


def sweep(
    name: str | Path,
    *,
    defenses: Sequence[str],
    levels: Sequence[str] = (),
    attacks: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
    seeds: Sequence[int] = (),
    split: str | Path | None = None,
) -> Sweep:
    """The suite of a sweep.

    Every other option of a defense is the suite's own where the suite has that defense, else the plugin's
    default. Every attack meets every level; without names these are the attacks that meet every defense of
    the suite, and those that files add.

    Args:
        name: built-in suite or path of a TOML file.
        defenses: names of defenses, or paths of Python files with one; as in `choose`.
        levels: none, or for each defense in turn the values of its knob, separated by commas; "default" takes
            the plugin's own `strength_levels`.
        attacks: names or paths, as in `choose`.
        plugins: paths of files with a plugin of any family, as in `choose`.
        seeds: in place of the suite's; empty keeps them.
        split: file of prepared faces, as in `choose`.

    Raises:
        SuiteError: no defense is named, levels do not fit them, or `choose` raises it.
        PluginError: a defense is unknown, has no knob, or cannot take a level.
    """
    if not defenses:
        raise SuiteError("sweep: no defense is named. Give one or more: --defense NAME.")
    if levels and len(levels) != len(defenses):
        raise SuiteError(
            f"sweep: {len(levels)} lists of levels for {len(defenses)} defenses. Give --levels once after "
            f"each --defense, '{OWN_LEVELS}' for the plugin's own, or leave it out."
        )
    words = [load_one(word, Defense, "--defense").name if is_file(word) else word for word in defenses]
    suite = choose(name, attacks=attacks, plugins=plugins, seeds=seeds, split=split)
    entries, notes = named(suite.defenses, BASELINE, get_defense), []
    for word, text in zip(words, levels or [OWN_LEVELS] * len(words)):
        for entry in named(suite.defenses, word, get_defense, suite.more.defenses):
            entries += [one for one in _at_levels(entry, text) if one not in entries]
            if entry not in (*suite.defenses, *suite.more.defenses):
                notes.append(
                    f"Suite {suite.name} has no settings for '{entry.label}': but for its knob, the plugin's "
                    "defaults are taken, which are not scaled to the suite."
                )
    if not attacks:
        left_out = load_suite(name).attacks[suite.crossed :] if suite.crossed else ()
        suite = dataclasses.replace(suite, attacks=tuple(one for one in suite.attacks if one not in left_out))
    return Sweep(_swept(suite, entries), tuple(notes))


def _at_levels(entry: Entry[Defense], text: str) -> list[Entry[Defense]]:
    """The defense at two or more levels; SuiteError where there are fewer."""
    plugin = entry.plugin
    if not plugin.strength:
        raise SuiteError(
            f"sweep: '{entry.label}' has no knob that makes it weaker or stronger. Name another defense; "
            "`mibench show NAME` tells which field is its knob."
        )
    values: Sequence[object] = [level_of(word.strip()) for word in text.split(",") if word.strip()]
    if text == OWN_LEVELS:
        values = plugin.strength_levels
        if not values:
            raise SuiteError(
                f"sweep: '{plugin.name}' names no levels of its knob '{plugin.strength}'. "
                "Give them: --levels V1,V2."
            )
    found = {one.label: one for one in (at_level(entry, value) for value in values)}
    if len(found) < 2:
        raise SuiteError(
            f"sweep: a curve of '{entry.label}' needs two different levels or more, got '{text}'. "
            "Give more, separated by commas: --levels V1,V2."
        )
    return list(found.values())


def _swept(suite: Suite, entries: list[Entry[Defense]]) -> Suite:
    """The suite with these defenses, all met by all attacks, and with the metrics that a curve needs."""
    metrics = {metric.name: metric for metric in suite.metrics}
    try:
        return dataclasses.replace(
            suite,
            name=suite.name + SWEEP,
            crossed=None,
            defenses=tuple(entries),
            metrics=(*suite.metrics, *(get_metric(name)() for name in AXES if name not in metrics)),
        )
    except ValueError as error:
        raise SuiteError(f"suite {suite.name}{SWEEP}: {error}") from error
