"""Sweeps: which levels of which defenses run, and what a wrong wish is told."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mibench.choose import choose, level_of
from mibench.cli import main
from mibench.contract.defense_checks import DefenseSubject, names_levels_of_its_knob
from mibench.defense import Defense
from mibench.errors import MibenchError
from mibench.fields import level_text
from mibench.plan import build_plan
from mibench.plugin import Card
from mibench.registry import forget_files, get_attack, get_defense, list_defenses
from mibench.suite import Suite
from mibench.sweep import sweep

TEXT = """
name = "mini"
crossed = 1
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
[attacks.nearest_public]
[defenses.none]
[defenses.quiet]
plugin = "ssd"
views = 2
epsilon = 0.2
"""
PLUGIN = '''
"""A defense with a knob; for tests."""

from dataclasses import dataclass
from typing import ClassVar

from mibench.defense import Defense
from mibench.plugin import Card


@dataclass(frozen=True, kw_only=True)
class Knobbed(Defense):
    """Nothing is done at any level.

    Args:
        force: of nothing.
    """

    name = "knobbed"
    acts = "training"
    card = Card(title="Toy: a knob")
    strength: ClassVar[str] = "force"
    force: int = 1
'''


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Path of a small suite in an empty working directory; plugins from files are forgotten afterwards."""
    (tmp_path / "mini.toml").write_text(TEXT, encoding="utf-8")
    (tmp_path / "knobbed.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield str(tmp_path / "mini.toml")
    forget_files()


def columns(suite: Suite) -> list[str]:
    return [entry.label for entry in suite.defenses]


def test_a_defense_without_levels_takes_its_own_beside_no_defense(mini: str) -> None:
    found = sweep(mini, defenses=["rounding"])
    levels = get_defense("rounding").strength_levels
    assert found.suite.name == "mini-sweep"
    assert columns(found.suite) == ["none", *(f"rounding@{level}" for level in levels)]
    assert [entry.plugin.params()["step"] for entry in found.suite.defenses[1:]] == list(levels)


def test_other_options_are_the_suites_where_it_has_the_defense(mini: str) -> None:
    found = sweep(mini, defenses=["ssd"], levels=["0.1, 0.3"])
    assert columns(found.suite) == ["none", "quiet@0.1", "quiet@0.3"]
    params = [entry.plugin.params() for entry in found.suite.defenses[1:]]
    assert [(one["epsilon"], one["views"]) for one in params] == [(0.1, 2), (0.3, 2)]
    assert found.notes == ()


def test_the_plugins_defaults_are_taken_elsewhere_and_said(mini: str) -> None:
    found = sweep(mini, defenses=["top_k", "quiet"], levels=["3,1", "default"])
    assert columns(found.suite)[:3] == ["none", "top_k@3", "top_k@1"]
    assert len(found.suite.defenses) == 3 + len(get_defense("ssd").strength_levels)
    (note,) = found.notes
    assert note.startswith("Suite mini has no settings for 'top_k'")


def test_every_attack_meets_every_level(mini: str) -> None:
    crossed = sweep(mini, defenses=["ssd"], levels=["0.1,0.3"]).suite
    assert [entry.label for entry in crossed.attacks] == ["mean_face"]
    both = sweep(
        mini, defenses=["ssd"], levels=["0.1,0.3"], attacks=["mean_face", "nearest_public"], seeds=[4]
    )
    cells = {(cell.attack.label, cell.defense.label) for cell in build_plan(both.suite).cells}
    assert len(cells) == 2 * 3
    assert both.suite.seeds == (4,)


def test_an_attack_that_a_file_adds_is_swept_with_those_that_meet_every_defense(mini: str) -> None:
    source = Path(inspect.getfile(get_attack("mean_face"))).read_text(encoding="utf-8")
    Path("mine.py").write_text(source.replace('name = "mean_face"', 'name = "mine"'), encoding="utf-8")
    found = sweep(mini, defenses=["ssd"], levels=["0.1,0.3"], plugins=["mine.py"])
    assert [entry.label for entry in found.suite.attacks] == ["mean_face", "mine"]


def test_the_metrics_of_a_curve_are_added(mini: str) -> None:
    assert [one.name for one in sweep(mini, defenses=["ssd"]).suite.metrics] == ["aa", "mc_all"]


def test_a_file_is_swept_like_a_name(mini: str) -> None:
    found = sweep(mini, defenses=["knobbed.py"], levels=["1,2"])
    assert columns(found.suite) == ["none", "knobbed@1", "knobbed@2"]


def test_a_level_has_the_key_that_the_same_setting_has_in_a_suite(mini: str) -> None:
    swept = build_plan(sweep(mini, defenses=["quiet"], levels=["0.2,0.4"]).suite)
    plain = {cell.defense.label: cell.measure for cell in build_plan(choose(mini)).cells}
    inverted = {cell.defense.label: [model.invert for model in cell.models] for cell in swept.cells}
    own = {
        cell.defense.label: [model.invert for model in cell.models] for cell in build_plan(choose(mini)).cells
    }
    assert inverted["quiet@0.2"] == own["quiet"]
    assert inverted["quiet@0.4"] != own["quiet"]
    assert set(plain) == {"none", "quiet"}


def test_a_word_of_a_run_may_name_a_level(mini: str) -> None:
    suite = choose(mini, defenses=["quiet@0.05", "top_k@1"])
    assert columns(suite) == ["quiet@0.05", "top_k@1"]
    assert [entry.plugin.params().get("epsilon") for entry in suite.defenses] == [0.05, None]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--defense", "rounding", "--levels", "0.1"], "needs two different levels or more, got '0.1'"),
        (["--defense", "rounding", "--levels", "0.1,1e-1"], "needs two different levels or more"),
        (["--defense", "rounding", "--levels", ""], "needs two different levels or more, got ''"),
        (["--defense", "rouding"], "unknown defense 'rouding'. Did you mean 'rounding'?"),
        (["--defense", "none"], "sweep: 'none' has no knob"),
        (["--defense", "knobbed.py"], "'knobbed' names no levels of its knob 'force'"),
        (["--defense", "top_k", "--levels", "1,1.5"], "top_k@1.5: top_k: 'k' is wrong"),
        (["--defense", "rounding", "--levels", "a,b"], "rounding@a: rounding: 'step' is wrong"),
        (["--defense", "rounding", "--levels", "0.1,NaN"], "rounding@NaN: rounding: 'step' is wrong"),
        (["--defense", "rounding", "--levels", "0.1,7"], "rounding@7: rounding: step must be 0 or lie in"),
        (["--defense", "ssd", "--defense", "top_k", "--levels", "1,2"], "1 lists of levels for 2 defenses"),
        (["--defense", "rounding", "--attack", "knobbed.py"], "is no attack, so --attack cannot take it"),
        (["--defense", "rounding", "--seed", "1", "--seed", "1"], "seeds must name at least one thing"),
    ],
)
def test_a_wrong_wish_is_one_sentence_and_exits_2(
    mini: str, capsys: pytest.CaptureFixture[str], words: list[str], wanted: str
) -> None:
    assert main(["sweep", mini, *words]) == 2
    out, err = capsys.readouterr()
    assert wanted in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_a_sweep_without_a_defense_is_refused(mini: str) -> None:
    with pytest.raises(MibenchError, match="no defense is named"):
        sweep(mini, defenses=[])


def test_a_run_refuses_a_level_where_there_is_no_knob(mini: str) -> None:
    with pytest.raises(MibenchError, match="'none' has no knob, so there is no level '3' of it"):
        choose(mini, defenses=["none@3"])
    with pytest.raises(MibenchError, match="'mean_face' has no knob"):
        choose(mini, attacks=["mean_face@3"])


def test_the_plan_of_a_sweep_runs_nothing(mini: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", mini, "--defense", "top_k", "--levels", "3,1", "--plan"]) == 0
    out, err = capsys.readouterr()
    assert "3 cells" in out
    assert "defaults are taken, which are not scaled to the suite" in err
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("word", "value", "text"),
    [("0.05", 0.05, "0.05"), ("50.0", 50.0, "50"), ("-3", -3, "-3"), ("null", None, "null"),
     ("runner_up", "runner_up", "runner_up"), ("NaN", "NaN", "NaN"), ("1e-05", 1e-05, "1e-05")],
)  # fmt: skip
def test_words_and_levels(word: str, value: object, text: str) -> None:
    assert level_of(word) == value
    assert level_text(level_of(word)) == text


def test_show_names_the_knob_and_its_levels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "rounding"]) == 0
    levels = ", ".join(map(str, get_defense("rounding").strength_levels))
    assert f"strength: step, swept over {levels}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "plugin"), [(n, p) for n, p in list_defenses().items() if p.strength_levels]
)
def test_levels_of_a_knob_surround_or_hold_the_default_where_it_is_a_number(
    name: str, plugin: type[Defense]
) -> None:
    values: list[Any] = [value for value in plugin.strength_levels if isinstance(value, int | float)]
    default = plugin().params()[plugin.strength]
    assert values in (sorted(values), sorted(values, reverse=True)), name
    assert not isinstance(default, int | float) or min(values) <= default <= max(values), name


@dataclass(frozen=True, kw_only=True)
class Bare(Defense):
    """A defense whose class attributes the tests below change."""

    name = "bare"
    card = Card(title="Toy: bare")
    strength: ClassVar[str] = "force"
    strength_levels: ClassVar[tuple[object, ...]] = (1, 2, 3)
    force: int = 1

    def __post_init__(self) -> None:
        if self.force < 1:
            raise ValueError(f"bare: force must be >= 1, got {self.force}.")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, None),
        ({"strength": "", "strength_levels": ()}, None),
        ({"strength": ""}, "but no strength"),
        ({"strength": "name"}, "strength = 'name' is no field"),
        ({"strength_levels": ()}, "Give 3 different ones or more"),
        ({"strength_levels": (1, 2)}, "Give 3 different ones or more"),
        ({"strength_levels": (1, 2, 3, 3)}, "Give 3 different ones or more"),
        ({"strength_levels": (2, 1, 0)}, "the level 0 of force cannot be built (bare: force must be >= 1"),
        ({"strength_levels": (1, 2, "much")}, "the level much of force cannot be built"),
    ],
)
def test_the_contract_asks_for_levels(changes: dict[str, Any], wanted: str | None) -> None:
    verdict = names_levels_of_its_knob(DefenseSubject(type("Changed", (Bare,), changes)))
    assert verdict is None if wanted is None else wanted in str(verdict)
