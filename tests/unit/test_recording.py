from collections.abc import Callable
from typing import Any

import pytest

from mibench.plan import build_plan
from mibench.recording import measured_record
from mibench.store import Artifact
from mibench.suite import Suite

FLAG = "fakes_missed_label"


@pytest.mark.parametrize(
    ("notes", "flagged"),
    [
        ({}, False),
        ({"fake_confidence_private": 0.5}, False),
        ({"fake_confidence_private": 0.49}, True),
        ({"fake_confidence_public": [0.9, 0.2]}, True),
        ({"fake_confidence_public": [0.9, None]}, False),
        ({"attack.fake_confidence_public": 0.1}, False),
    ],
)
def test_fakes_that_miss_their_label_are_flagged(
    make_suite: Callable[..., Suite], notes: dict[str, Any], flagged: bool
) -> None:
    plan = build_plan(make_suite())
    value: dict[str, Any] = {
        "judge_accuracy": 1.0,
        "audit_accuracy": None,
        "estimates": {},
        "queries": {},
        "notes": notes,
        "scrutiny": {
            "hits": {"0": "10"},
            "effort": [],
            "restarts": None,
            "rise": None,
            "silent_gradients": None,
        },
        "provenance": {},
    }
    record = measured_record(plan, plan.cells[0], Artifact({}, value, {}))
    assert (FLAG in record.flags) == flagged
    assert record.hits == {"0": "10"}
