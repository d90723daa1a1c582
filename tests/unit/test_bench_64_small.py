"""`bench-64-small` is `bench-64` with smaller numbers: the same nets, grid, views and metrics."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from mibench.plan import build_plan
from mibench.suite import SUITES, load_suite

LARGE, SMALL = "bench-64", "bench-64-small"
TEXT = (SUITES / f"{SMALL}.toml").read_text(encoding="utf-8")


def raw(name: str) -> dict[str, Any]:
    return tomllib.loads((SUITES / f"{name}.toml").read_text(encoding="utf-8"))


def flat(table: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its place; inline tables are values."""
    for name, value in table.items():
        here = f"{place}.{name}".lstrip(".")
        is_section = isinstance(value, Mapping) and re.search(
            rf"^\[{re.escape(here)}(\.|\])", TEXT, re.MULTILINE
        )
        if is_section:
            yield here, {}
            yield from flat(value, here)
        else:
            yield here, value


def numbers(value: Any) -> list[float]:
    if isinstance(value, Mapping):
        return [one for inner in value.values() for one in numbers(inner)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def told() -> dict[str, str]:
    """What the comments say stands in the large suite, by place."""
    found, section = {}, ""
    for line in TEXT.splitlines():
        if heading := re.match(r"\[([\w.]+)\]", line):
            section = heading[1]
        if comment := re.match(r"(\w+) = .* # bench-64: (.*)$", line):
            found[f"{section}.{comment[1]}"] = comment[2]
    return found


def test_what_differs_stands_behind_each_line_and_nothing_else_does() -> None:
    large = dict(flat({name: one for name, one in raw(LARGE).items() if name not in {"name", "more"}}))
    small = dict(flat({name: one for name, one in raw(SMALL).items() if name != "name"}))
    differs = {place for place, value in small.items() if large.get(place) != value}
    comments = told()
    assert differs == set(comments)
    assert set(large) <= set(small)
    for place, text in comments.items():
        if text == "default":
            assert place not in large
        else:
            assert tomllib.loads(f"x = {text}")["x"] == large[place], place


def test_numbers_are_smaller_where_both_have_them() -> None:
    large, small = dict(flat(raw(LARGE))), dict(flat(raw(SMALL)))
    for place in told():
        if place not in large:
            continue
        if isinstance(small[place], Mapping):
            both = set(small[place]) & set(large[place])
            pairs = [(small[place][name], large[place][name]) for name in both]
            assert all(one <= other for a, b in pairs for one, other in zip(numbers(a), numbers(b)))
            assert any(a != b for a, b in pairs) or len(small[place]) > len(large[place])
        else:
            assert small[place] < large[place], place


def test_both_have_the_same_grid_nets_views_and_metrics() -> None:
    large, small = load_suite(LARGE), load_suite(SMALL)
    for suite in (large, small):
        assert suite.audit is not None
        assert suite.embedder is not None
    assert [one.label for one in small.attacks] == [one.label for one in large.attacks]
    assert [one.label for one in small.defenses] == [one.label for one in large.defenses]
    assert small.metrics == large.metrics
    assert (small.white_box, small.data.size) == (large.white_box, large.data.size)
    nets = [[suite.victim.net, suite.judge.net, getattr(suite.audit, "net", "")] for suite in (large, small)]
    assert nets[0] == nets[1]
    cells = [
        [(c.attack.label, c.defense.label, c.view, c.blocked) for c in build_plan(s).cells]
        for s in (large, small)
    ]
    assert cells[0] == cells[1]
