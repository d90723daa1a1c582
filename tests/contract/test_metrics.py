"""Every metric keeps its contract; the checks are those of `mibench check`."""

import pytest

from mibench.registry import list_metrics
from mibench.testing import Check, checks_for

CASES = [
    pytest.param(check, id=f"{name}-{check.name}")
    for name, plugin in list_metrics().items()
    for check in checks_for(plugin)
]


@pytest.mark.parametrize("check", CASES)
def test_metric_keeps_its_contract(check: Check) -> None:
    verdict = check.run()
    assert verdict.status == "ok", verdict.text
