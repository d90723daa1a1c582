"""What the command line adds to a suite or picks from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mibench.choose import choose
from mibench.errors import MibenchError, PluginError, SuiteError
from mibench.registry import forget_files
from mibench.suite import Suite

TOYS = Path(__file__).parents[1] / "e2e" / "plugins"
SHORT, SCORES = str(TOYS / "toy_short.py"), str(TOYS / "toy_scores.py")
TEXT = """
name = "mini"
metrics = ["aa"]
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
[attacks.quick_face]
plugin = "mi_face"
max_iter = 2
[defenses.none]
[defenses.noisy]
plugin = "ad_mi"
steps = 2
"""


@pytest.fixture
def mini(tmp_path: Path) -> Iterator[str]:
    """Path of a small suite; plugins from files are forgotten afterwards."""
    file = tmp_path / "mini.toml"
    file.write_text(TEXT, encoding="utf-8")
    yield str(file)
    forget_files()


def rows(suite: Suite) -> list[str]:
    return [entry.label for entry in suite.attacks]


def columns(suite: Suite) -> list[str]:
    return [entry.label for entry in suite.defenses]


def test_without_a_choice_the_suite_stays(mini: str) -> None:
    suite = choose(mini)
    assert (rows(suite), columns(suite)) == (["mean_face", "quick_face"], ["none", "noisy"])


def test_a_label_picks_its_column_with_the_suites_fields(mini: str) -> None:
    suite = choose(mini, defenses=["noisy"])
    assert columns(suite) == ["noisy"]
    assert suite.defenses[0].plugin.params()["steps"] == 2
    assert rows(suite) == ["mean_face", "quick_face"]


def test_a_plugins_name_or_alias_picks_what_the_suite_makes_of_it(mini: str) -> None:
    for name in ("mi_face", "privacy"):
        suite = choose(mini, attacks=[name])
        assert rows(suite) == ["quick_face"]
        assert suite.attacks[0].plugin.params()["max_iter"] == 2


def test_a_name_that_the_suite_does_not_have_joins_with_its_defaults(mini: str) -> None:
    suite = choose(mini, defenses=["none", "random_fake"])
    assert columns(suite) == ["none", "random_fake"]
    assert suite.defenses[1].plugin == type(suite.defenses[1].plugin)()


def test_a_file_adds_its_column_to_all_or_to_the_named_ones(mini: str) -> None:
    assert columns(choose(mini, defenses=[SHORT])) == ["none", "noisy", "toy_short"]
    assert columns(choose(mini, defenses=[SHORT, "none"])) == ["none", "toy_short"]
    assert columns(choose(mini, defenses=["toy_short"], plugins=[SHORT])) == ["toy_short"]


def test_plugin_files_join_their_own_family(mini: str) -> None:
    suite = choose(mini, plugins=[SHORT, SCORES])
    assert rows(suite) == ["mean_face", "quick_face", "toy_scores"]
    assert columns(suite) == ["none", "noisy", "toy_short"]


def test_a_file_that_the_suite_configures_keeps_its_fields(mini: str) -> None:
    text = Path(mini).read_text(encoding="utf-8") + "[defenses.toy_short]\nepochs = 3\n"
    Path(mini).write_text(text, encoding="utf-8")
    suite = choose(mini, plugins=[SHORT])
    assert columns(suite) == ["none", "noisy", "toy_short"]
    assert suite.defenses[2].plugin.params() == {"epochs": 3}


def test_seeds_replace_the_suites(mini: str) -> None:
    assert choose(mini, seeds=[3, 4]).seeds == (3, 4)
    with pytest.raises(SuiteError, match="seeds must name at least one thing and none twice"):
        choose(mini, seeds=[3, 3])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"defenses": ["nosy"]}, "unknown defense 'nosy'"),
        ({"attacks": ["nosy.py"]}, "plugin nosy.py: no such file"),
        ({"attacks": [SHORT]}, "is no attack, so --attack cannot take it"),
        ({"defenses": [SCORES]}, "is no defense, so --defense cannot take it"),
    ],
)
def test_a_wrong_choice_is_named(mini: str, options: dict[str, list[str]], wanted: str) -> None:
    with pytest.raises(MibenchError, match=wanted):
        choose(mini, **options)  # type: ignore[arg-type]  # the keys are options of `choose`


def test_a_plugin_whose_defaults_fail_is_named(mini: str, tmp_path: Path) -> None:
    text = Path(SHORT).read_text(encoding="utf-8").replace("toy_short", "toy_bad")
    bad = tmp_path / "toy_bad.py"
    bad.write_text(
        text + '\n    def __post_init__(self) -> None:\n        raise ValueError("toy_bad: never")\n',
        encoding="utf-8",
    )
    with pytest.raises(PluginError, match=r"cannot be made from its defaults \(toy_bad: never\)"):
        choose(mini, defenses=[str(bad)])
