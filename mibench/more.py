"""The tables `[more.attacks.NAME]` and `[more.defenses.NAME]` of a suite, as they stand in its file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mibench.errors import SuiteError

KINDS = ("attacks", "defenses")


def with_more(raw: Mapping[str, Any], kind: str, *, where: str) -> dict[str, Any]:
    """The tables of one kind, those under `more` behind the suite's own, so that all are read alike.

    Args:
        raw: the parsed file.
        kind: `attacks` or `defenses`.
        where: begins every message, for example `suite quick.toml`.

    Raises:
        SuiteError: `more` is no table of tables, holds something else, or names again what the suite has.
    """
    more = _table(raw.get("more", {}), "more", where)
    for name in more:
        if name not in KINDS:
            raise SuiteError(f"{where}, more: no table '{name}'. Its tables: {', '.join(KINDS)}.")
    added = _table(more.get(kind, {}), f"more.{kind}", where)
    for label in added:
        if label in raw[kind]:
            raise SuiteError(f"{where}, more.{kind}: '{label}' is in [{kind}] already. Name it once.")
    return {**raw[kind], **added}


def _table(value: object, name: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SuiteError(f"{where}, {name}: must be a table, got {value!r}. Write [{name}.NAME].")
    return value
