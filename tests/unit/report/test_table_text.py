"""Which numbers stand once, in the line of the victim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mibench.report.table import comparison

Records = list[dict[str, Any]]


def test_an_attack_accuracy_that_is_equal_by_chance_is_no_fact_about_the_victim(
    make_records: Callable[..., Records],
) -> None:
    records = make_records()
    for record in records:
        for name in ("mc_all", "aa"):
            if record["estimates"].get(name):
                record["estimates"][name] = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 40}
    text = comparison(records, metrics=["mc_all", "aa"]).to_markdown()
    attacks = {record["attack"]["label"] for record in records}
    assert sum("MC(all)" in line for line in text.splitlines()) == 1
    assert sum("| AA" in line for line in text.splitlines()) == len(attacks)
