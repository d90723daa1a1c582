"""What a suite has under `more` is met only where it is named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mibench.choose import choose
from mibench.errors import SuiteError
from mibench.plan import build_plan
from mibench.reproduce import LAYOUTS
from mibench.subsuite import part_of_suite
from mibench.suite import load_suite, parse_suite

TEXT = """
name = "mini"
metrics = ["aa"]
crossed = 1
[data]
size = 16
private = 3
private_images = 2
test_images = 1
public = 2
public_images = 1
defender = 2
defender_images = 1
[targets]
attacked = 2
[victim]
net = "mlp"
width = 4
[judge]
net = "softmax_regression"
[attacks.mean_face]
[attacks.nearest_public]
[defenses.none]
[more.attacks.short]
plugin = "mi_face"
max_iter = 2
[more.defenses.loose]
plugin = "dp_sgd"
epsilon = 16.0
[more.defenses."loose+ad_mi"]
plugin = "dp_sgd"
epsilon = 32.0
"""


@pytest.fixture
def mini(tmp_path: Path) -> str:
    """Path of a small suite."""
    file = tmp_path / "mini.toml"
    file.write_text(TEXT, encoding="utf-8")
    return str(file)


def test_a_run_leaves_them_out(mini: str) -> None:
    suite = load_suite(mini)
    assert [one.label for one in suite.defenses] == ["none"]
    assert [one.label for one in suite.more.defenses] == ["loose", "loose+ad_mi"]
    assert {cell.defense.label for cell in build_plan(suite).cells} == {"none"}


def test_a_name_picks_them_with_their_fields(mini: str) -> None:
    suite = choose(mini, attacks=["short"], defenses=["none", "loose"])
    assert [one.label for one in suite.attacks] == ["short"]
    assert suite.attacks[0].plugin.params()["max_iter"] == 2
    assert suite.defenses[1].plugin.params()["epsilon"] == 16.0


def test_a_level_starts_from_their_fields(mini: str) -> None:
    (found,) = choose(mini, defenses=["loose@4"]).defenses
    assert found.label == "loose@4"


def test_a_plugins_name_does_not_bring_them(mini: str) -> None:
    (found,) = choose(mini, defenses=["dp_sgd"]).defenses
    assert found.label == "dp_sgd"
    assert found.plugin.params()["epsilon"] != 16.0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"metrics": {}}, r"suite x, more: no table 'metrics'\. Its tables: attacks, defenses\."),
        ({"defenses": {"none": {}}}, r"suite x, more\.defenses: 'none' is in \[defenses\] already"),
        (3, r"suite x, more: must be a table, got 3"),
        ({"attacks": 3}, r"suite x, more\.attacks: must be a table, got 3"),
        ({"defenses": {"loose": {"epsilom": 1.0}}}, r"loose"),
    ],
)
def test_mistakes_are_told_with_their_place(more: object, message: str) -> None:
    raw = tomllib.loads(TEXT)
    with pytest.raises(SuiteError, match=message):
        parse_suite({**raw, "more": more}, where="suite x")


def test_a_part_of_a_suite_has_what_the_suite_has_of_it(mini: str) -> None:
    suite = part_of_suite(
        mini, prefix="p", attacks=["short", "absent"], defenses=["none", "loose", "absent"],
        metrics=["mc_all", "no_such_metric"], views=("stripped", "deployed"), seeds=(0, 1),
    )  # fmt: skip
    assert suite.name == "p-mini"
    assert [one.label for one in suite.attacks] == ["short"]
    assert [one.label for one in suite.defenses] == ["none", "loose"]
    assert [one.name for one in suite.metrics] == ["aa", "mc_all"]
    assert (suite.crossed, suite.share_priors, suite.seeds) == (None, True, (0, 1))
    assert part_of_suite(mini, prefix="p", attacks=[""], defenses=["none"]).attacks[0].label == "mean_face"


def test_a_part_without_anything_is_refused(mini: str) -> None:
    with pytest.raises(SuiteError, match=r"suite mini: has none of the defenses of p: absent"):
        part_of_suite(mini, prefix="p", attacks=["short"], defenses=["absent"])


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name.startswith(("tifs23", "ssd"))])
def test_the_default_suite_of_a_table_has_all_its_rows_and_columns(name: str) -> None:
    layout = LAYOUTS[name]
    suite = load_suite(layout.suite)
    attacks = {one.label for one in (*suite.attacks, *suite.more.attacks)}
    defenses = {one.label for one in (*suite.defenses, *suite.more.defenses)}
    assert {label for label in layout.attacks.values() if label} <= attacks
    assert {column.defense for column in layout.columns} <= defenses


def test_several_tables_share_their_tasks() -> None:
    plans = []
    for number in (2, 6):
        layout = LAYOUTS[f"tifs23/table{number}"]
        labels = [column.defense for column in layout.columns]
        suite = part_of_suite("quick", prefix=layout.slug, attacks=["mirror"], defenses=labels, seeds=(0,))
        plans.append({task.key for task in build_plan(suite).tasks.values() if task.stage == "invert"})
    assert len(plans[0] & plans[1]) >= 6  # no defense once, GAN-ID once for each of 5 people


def test_a_suite_is_no_plugin_and_is_told_apart() -> None:
    from mibench.catalog import find_plugins
    from mibench.errors import PluginError

    with pytest.raises(
        PluginError, match=r"'quick' is a suite and no plugin\. `mibench plan quick` shows it"
    ):
        find_plugins("quick")
