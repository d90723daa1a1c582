"""A part of a suite under a name of its own: some attacks, some defenses, those under `more` included."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from mibench.choose import choose
from mibench.errors import SuiteError
from mibench.registry import get_metric, plugin_names
from mibench.suite import Suite, View, load_suite


def part_of_suite(
    name: str | Path,
    *,
    prefix: str,
    attacks: Iterable[str],
    defenses: Iterable[str],
    metrics: Iterable[str] = (),
    views: Sequence[View] = ("stripped",),
    seeds: Sequence[int] = (),
) -> Suite:
    """The suite with these labels alone, called `prefix-name`; every attack meets every defense.

    Labels that the suite does not have are left out. Several seeds share priors, which are dear. Everything
    else stays, so that runs of several parts share artifacts.

    Args:
        name: built-in suite or path of a TOML file.
        prefix: of the new name.
        attacks: labels; an empty one, or none at all, stands for the suite's first attack.
        defenses: labels.
        metrics: names that are measured even if the suite does not measure them; unknown ones are left out.
        views: what white-box attackers hold.
        seeds: in place of the suite's; empty keeps them.

    Raises:
        SuiteError: the suite cannot be read, or has none of the attacks or defenses.
    """
    suite = load_suite(name)
    rows = {one.label for one in (*suite.attacks, *suite.more.attacks)}
    columns = {one.label for one in (*suite.defenses, *suite.more.defenses)}
    labels = [one for one in attacks if one] or [suite.attacks[0].label]
    kept = list(dict.fromkeys(label for label in labels if label in rows))
    held = list(dict.fromkeys(label for label in defenses if label in columns))
    for what, found, asked in (("attacks", kept, labels), ("defenses", held, list(defenses))):
        if not found:
            raise SuiteError(
                f"suite {suite.name}: has none of the {what} of {prefix}: {', '.join(asked)}. "
                "Take another suite, or add one of them under these labels."
            )
    chosen = choose(name, attacks=kept, defenses=held, seeds=seeds)
    known, have = plugin_names("metrics"), {metric.name for metric in suite.metrics}
    added = [one for one in dict.fromkeys(metrics) if one in known and one not in have]
    try:
        return dataclasses.replace(
            chosen,
            name=f"{prefix}-{suite.name}",
            metrics=(*suite.metrics, *(get_metric(one)() for one in added)),
            white_box=tuple(views),
            crossed=None,
            share_priors=chosen.share_priors or len(chosen.seeds) > 1,
        )
    except ValueError as error:
        raise SuiteError(f"suite {prefix}-{suite.name}: {error}") from error
