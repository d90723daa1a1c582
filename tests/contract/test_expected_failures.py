"""The list of expected failures names plugins and checks that exist, once each, with a reason."""

import tomllib
from pathlib import Path

from mibench.registry import list_attacks, list_defenses, list_metrics
from mibench.testing import checks_for

EXPECTED = Path(__file__).parent / "expected_failures.toml"


def test_every_expected_failure_names_a_check_that_exists() -> None:
    lines = tomllib.loads(EXPECTED.read_text(encoding="utf-8"))["expected"]
    plugins = {**list_attacks(), **list_defenses(), **list_metrics()}
    known = {(name, check.name) for name, plugin in plugins.items() for check in checks_for(plugin)}
    places = [(line["plugin"], line["check"]) for line in lines]
    assert set(places) <= known
    assert len(set(places)) == len(places)
    assert all(len(line["reason"].split()) > 4 for line in lines)
