"""A submitted record beside the one that was recomputed or run again, number by number.

Where our judges are those of the submitter bit for bit, so must be the numbers. Other machines round
otherwise, and train judges that differ a little; for them the bounds of `mibench.golden.compare` hold, which
are several times what was measured between machines. The numbers to believe are then the found ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mibench.golden.compare import FRACTION, OTHER
from mibench.record import Record, finite

_ENDS = ("value", "low", "high")
_PLAIN = ("data", "victim_net", "chance", "targets", "metric_info", "view", "seed", "schema")
_ACCURACIES = ("accuracy", "audit_accuracy", "embedder_accuracy")
_SLACK = 1e-9
_SHOWN = 60


@dataclass(frozen=True)
class Difference:
    """What a record says and what was found: cell, the number's name, both as text."""

    cell: str
    what: str
    said: str
    found: str


@dataclass
class Line:
    """How one metric compares over all cells.

    Args:
        name: of the metric, or of another part of a record.
        is_metric: which of the two.
        same: cells with equal bits.
        within: cells within the bounds for other machines.
        differ: cells beyond them.
    """

    name: str
    is_metric: bool
    same: int = 0
    within: int = 0
    differ: int = 0


def compare_records(
    pairs: Sequence[tuple[Record, Record]], *, is_exact: bool, is_rerun: bool = False
) -> tuple[list[Line], list[Difference]]:
    """Compare pairs of a submitted and a found record.

    Args:
        pairs: of the same cells.
        is_exact: whether only equal bits will do.
        is_rerun: whether the found records come from the plugin, and so tell what only a model can.

    Returns:
        A line for each metric and each other part that is compared; and what differs beyond the bounds.
    """
    lines: dict[str, Line] = {}
    differences = []
    for said, found in pairs:
        told = _told(said, found) if is_rerun else ()
        for name, one, other, is_near in (*_parts(said, found), *told):
            line = lines.setdefault(name, Line(name, is_metric=name in {*said.estimates, *found.estimates}))
            if one == other:
                line.same += 1
            elif is_near and not is_exact:
                line.within += 1
            else:
                line.differ += 1
                differences.append(Difference(said.cell, name, _shown(one), _shown(other)))
    return list(lines.values()), differences


def _parts(said: Record, found: Record) -> Iterator[tuple[str, Any, Any, bool]]:
    """Name, both values, and whether they are within the bounds, of each part of a record."""
    for name in dict.fromkeys((*found.estimates, *said.estimates)):
        one, other = said.estimates.get(name), _plain(found.estimates.get(name))
        is_percent = bool(found.metric_info.get(name, {}).get("percent"))
        has_both = name in said.estimates and name in found.estimates
        yield name, one, other, has_both and _is_near(one, other, is_percent=is_percent)
    yield "hits", said.hits, found.hits, _are_near_hits(said.hits, found.hits)
    for name in _ACCURACIES:
        one, other = said.judge.get(name), found.judge.get(name)
        if one is not None or other is not None:
            yield f"judge.{name}", one, other, _are_near_shares(one, other)
    yield "judge", _without(said.judge), _without(found.judge), False
    effort = [_plain(list(record.effort)) for record in (said, found)]
    yield "effort", effort[0], effort[1], _are_near_curves(effort[0], effort[1])
    yield from _looked(said, found)
    missing = [flag for flag in found.flags if flag not in said.flags]
    yield "flags", [], missing, False  # who flags a record more than we do harms nobody
    for name in _PLAIN:
        yield name, _plain(getattr(said, name)), _plain(getattr(found, name)), False
    yield "attack", _attack(said), _attack(found), False


def _told(said: Record, found: Record) -> Iterator[tuple[str, Any, Any, bool]]:
    """The parts that only the attacked model can tell, and the plugin's own."""
    for name in ("queries", "notes"):
        one, other = getattr(said, name), _plain(getattr(found, name))
        yield name, one, other, one.keys() == other.keys()
    one, other = said.scrutiny.get("silent_gradients"), found.scrutiny.get("silent_gradients")
    yield "silent_gradients", one, other, _are_near_shares(one, other)
    for name in ("keys", "defense"):  # keys hold the plugin's source and fields, on every machine alike
        yield name, getattr(said, name), _plain(getattr(found, name)), False


def _looked(said: Record, found: Record) -> Iterator[tuple[str, Any, Any, bool]]:
    """The parts of the scrutiny that need no model."""
    one, other = said.scrutiny, _plain(found.scrutiny)
    seconds = one.get("second_hits", {}), other.get("second_hits", {})
    is_near = seconds[0].keys() == seconds[1].keys() and all(
        _are_near_hits(hits, seconds[1][name]) for name, hits in seconds[0].items()
    )
    yield "second_hits", *seconds, is_near
    ends = one.get("rise"), other.get("rise")
    yield "rise", *ends, _is_near(*ends, is_percent=True)
    gains = one.get("restarts") or {}, other.get("restarts") or {}
    is_near = gains[0].keys() == gains[1].keys() and all(
        _is_near(gain, gains[1][name], is_percent=True) for name, gain in gains[0].items()
    )
    yield "restarts", *gains, is_near


def _is_near(one: Any, other: Any, *, is_percent: bool) -> bool:  # noqa: ANN401 - an estimate's JSON, or None
    """Whether two estimates are within the bounds; their counts must be equal where both have one."""
    if one is None or other is None:
        return one is other or is_percent  # one image may decide whether there is a share of successes at all
    if not isinstance(one, Mapping) or one.keys() != other.keys():
        return False
    if one["count"] != other["count"] and not is_percent:
        return False
    for end in _ENDS:
        before, after = one[end], other[end]
        if before is None and after is None:
            continue
        if not (_is_number(before) and _is_number(after)):
            return False
        bound = _share(max(int(other["count"]), 1)) if is_percent else OTHER * max(abs(before), abs(after))
        if not abs(before - after) <= bound + _SLACK:
            return False
    return True


def _share(count: int) -> float:
    """How far a fraction of so many images may be moved by those that change sides."""
    return max(1, int(count * FRACTION)) / count


def _are_near_shares(one: Any, other: Any) -> bool:  # noqa: ANN401 - JSON
    return _is_number(one) and _is_number(other) and abs(one - other) <= FRACTION + _SLACK


def _are_near_hits(one: Any, other: Any) -> bool:  # noqa: ANN401 - JSON
    return one.keys() == other.keys() and all(
        len(hits) == len(other[label])
        and sum(a != b for a, b in zip(hits, other[label])) <= max(1, int(len(hits) * FRACTION))
        for label, hits in one.items()
    )


def _are_near_curves(one: Any, other: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether two effort curves have as many points, and AA within the bounds."""
    return len(one) == len(other) and all(
        isinstance(a, Mapping) and a.keys() == b.keys() and _is_near(a["aa"], b["aa"], is_percent=True)
        for a, b in zip(one, other)
    )


def _attack(record: Record) -> Any:  # noqa: ANN401 - JSON
    """The attack as it is compared: its answer to a defense depends on the submitted class."""
    params = {name: value for name, value in record.attack["params"].items() if name != "adaptive"}
    return _plain({**record.attack, "params": params})


def _without(judge: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in judge.items() if name not in _ACCURACIES}


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A value as it comes back from a file: no tuples, NaN or infinities."""
    return finite(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:  # noqa: ANN401 - JSON
    """A value for a message."""
    if isinstance(value, Mapping) and value.get("value") is not None and "low" in value:
        return f"{value['value']!r} [{value['low']!r}, {value['high']!r}]"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def equal_records(said: Record, found: Record) -> bool:
    """Whether two records are equal bit for bit, but for where and when they were made and compared.

    Flags of a comparison of cells depend on which cells stood beside; those that were found must be said.
    """
    plain = [
        _plain({**dataclasses.asdict(record), "provenance": None, "flags": None}) for record in (said, found)
    ]
    return bool(plain[0] == plain[1]) and set(found.flags) <= set(said.flags)
