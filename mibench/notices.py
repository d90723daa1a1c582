"""What a run does that its command line does not say: told before it starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from mibench.registry import source_digest
from mibench.suite import Entry, Suite
from mibench.wording import counted

_MOST = 6  # names or options that one line holds


def notices(suite: Suite, *, added: Sequence[object]) -> list[str]:
    """A sentence for whatever may surprise.

    Args:
        suite: what is run.
        added: what the command line names beside the suite, defenses and files; without any, the suite does
            what it says and there is nothing to tell.
    """
    if not added:
        return []
    entries: tuple[Entry[Any], ...] = (*suite.attacks, *suite.defenses)
    foreign = [one for one in entries if source_digest(type(one.plugin))]
    lines = [_settings(one) for one in foreign]
    if suite.crossed is not None and suite.crossed < len(suite.attacks) and len(suite.defenses) > 1:
        lines.append(_crossing(suite, suite.crossed))
    return lines


def _settings(entry: Entry[Any]) -> str:
    """The options that a plugin from outside the package runs with."""
    plugin = entry.plugin
    names = [one.name for one in dataclasses.fields(plugin)]
    params = {name: value for name, value in plugin.params().items() if name in names}
    told = ", ".join(f"{name} = {value}" for name, value in list(params.items())[:_MOST])
    more = f", and {len(params) - _MOST} more (`mibench show`)" if len(params) > _MOST else ""
    if plugin != type(plugin)():
        return f"{entry.label}: runs as the suite sets it: {told or 'without options'}{more}."
    return (
        f"{entry.label}: runs with its own defaults: {told or 'without options'}{more}. A table of that name "
        "in a suite file sets others."
    )


def _crossing(suite: Suite, crossed: int) -> str:
    """Which attacks meet every defense."""
    first, rest = suite.attacks[:crossed], suite.attacks[crossed:]
    names = ", ".join(one.label for one in first[:_MOST]) + (", ..." if crossed > _MOST else "")
    return (
        f"suite {suite.name}: {names} alone {'meets' if crossed == 1 else 'meet'} every defense (crossed = "
        f"{crossed}); the other {counted(len(rest), 'attack')} meet{'s' if len(rest) == 1 else ''} "
        f"{suite.defenses[0].label} only. Choose others with --attack."
    )
