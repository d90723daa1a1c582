import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mibench.errors import SuiteError
from mibench.registry import get_attack, get_defense
from mibench.suite import Suite, list_suites, load_suite, parse_suite
from mibench.targets import Targets

MINIMAL: dict[str, Any] = {
    "name": "mini",
    "metrics": ["aa"],
    "data": {"private": 4},
    "targets": {"attacked": 3},
    "victim": {"net": "mlp", "width": 8, "recipe": {"epochs": 3}},
    "judge": {"net": "softmax_regression"},
    "attacks": {"mean_face": {}},
    "defenses": {"none": {}},
}


def parse(**changes: Any) -> Suite:
    return parse_suite({**MINIMAL, **changes}, where="suite mini.toml")


def test_defaults_are_filled_in() -> None:
    suite = parse()
    assert suite.seeds == (0,)
    assert suite.white_box == ("stripped",)
    assert suite.limits.max_queries is None
    assert suite.victim.recipe.epochs == 3
    assert suite.attacks[0].plugin == get_attack("mean_face")()


def test_label_may_differ_from_the_plugin() -> None:
    suite = parse(defenses={"plain": {"plugin": "none"}, "none": {}})
    assert [(one.label, one.plugin.name) for one in suite.defenses] == [("plain", "none"), ("none", "none")]


def test_public_net_starts_from_the_victim() -> None:
    suite = parse(public_net={"recipe": {"epochs": 1}})
    assert suite.public_net is not None
    assert (suite.public_net.net, suite.public_net.width) == ("mlp", 8)
    assert suite.public_net.recipe.epochs == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atacks": {}}, "suite mini.toml: no field 'atacks'. Did you mean 'attacks'?"),
        (
            {"victim": {"net": "mlp", "widht": 8}},
            "suite mini.toml, victim: no field 'widht'. Did you mean 'width'?",
        ),
        (
            {"victim": {"net": "mlp", "recipe": {"epocs": 8}}},
            "suite mini.toml, victim.recipe: no field 'epocs'. Did you mean 'epochs'?",
        ),
        ({"data": {"privat": 8}}, "suite mini.toml, data: no field 'privat'. Did you mean 'private'?"),
        (
            {"data": {"kind": "folders"}},
            "suite mini.toml, data: unknown kind 'folders'. Did you mean 'folder'?",
        ),
        (
            {"defenses": {"nome": {}}},
            "suite mini.toml, defenses.nome: unknown defense 'nome'. Did you mean 'none'?",
        ),
        (
            {"defenses": {"none": {"lamda": 1}}},
            "suite mini.toml, defenses.none: no field 'lamda'. Its fields: none.",
        ),
        ({"metrics": ["ab"]}, "suite mini.toml, metrics: unknown metric 'ab'."),
        ({"metrics": []}, "metrics must name at least one thing"),
        ({"metrics": ["aa", "aa"]}, "and none twice"),
        ({"attacks": {}}, "attacks must name at least one thing"),
        ({"attacks": {"mean_face": 3}}, "suite mini.toml, attacks.mean_face: must be a table, got 3."),
        ({"seeds": [-1]}, "seeds must be >= 0"),
        ({"seeds": ["a"]}, "suite mini.toml: 'seeds.0' is wrong"),
        ({"seeds": [0.5]}, "suite mini.toml: 'seeds.0' is wrong"),
        ({"white_box": ["naked"]}, "suite mini.toml: 'white_box.0' is wrong"),
        ({"name": "a/b"}, "name must be letters"),
        ({"victim": {"net": "mpl"}}, "suite mini.toml, victim: unknown network 'mpl'. Did you mean 'mlp'?"),
        (
            {"judge": {"net": "softmax_regression", "width": 3}},
            "judge: softmax_regression: has no hidden layer",
        ),
        ({"judge": {"net": "mlp", "min_accuracy": 2.0}}, "judge: min_accuracy must lie in [0, 1], got 2.0."),
        ({"victim": {"net": "mlp", "recipe": {"lr": -1}}}, "victim.recipe: recipe: lr must be > 0, got -1"),
        ({"targets": {"attacked": 5}}, "5 attacked"),
        ({"targets": {"protected": 2, "attacked": 1}}, "attacked must be >= protected = 2, got 1."),
        ({"targets": {"labels": [9], "attacked": 3}}, "label 9 is not in [0, 4)"),
        ({"targets": {"labels": [1, 1], "protected": 2}}, "2 different labels, got [1, 1]"),
        ({"limits": {"max_queries": 0}}, "limits: max_queries must be >= 1, got 0."),
        ({"limits": {"max_batch": True}}, "suite mini.toml, limits: 'max_batch' is wrong"),
        ({"data": {"nuisance": float("nan")}}, "must be a finite number"),
        ({"data": {"size": 8}}, "size must lie in [16, 256], got 8."),
        ({"data": 3}, "table [data] is missing"),
    ],
)
def test_mistakes_name_their_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError) as caught:
        parse(**changes)
    assert message in str(caught.value)
    assert str(caught.value).startswith("suite mini.toml")


@pytest.mark.parametrize("table", ["name", "metrics", "data", "victim", "judge", "attacks", "defenses"])
def test_missing_tables_are_named(table: str) -> None:
    raw = {name: value for name, value in MINIMAL.items() if name != table}
    with pytest.raises(SuiteError, match=table):
        parse_suite(raw, where="suite mini.toml")


def test_every_built_in_suite_loads() -> None:
    assert "smoke" in list_suites()
    for name in list_suites():
        assert load_suite(name).name == name


def test_unknown_suite_gets_a_suggestion() -> None:
    with pytest.raises(SuiteError, match=r"unknown suite 'smok'\. Did you mean 'smoke'\?"):
        load_suite("smok")


def test_file_errors_are_suite_errors(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="cannot be read"):
        load_suite(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = \n", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"is no TOML .*line 1"):
        load_suite(broken)


def test_folder_path_is_relative_to_the_suite(tmp_path: Path) -> None:
    suite = parse_suite(
        {**MINIMAL, "data": {"kind": "folder", "path": "faces"}}, where="suite x", folder=tmp_path
    )
    assert getattr(suite.data, "path") == str(tmp_path / "faces")  # noqa: B009 - one of two data classes


def test_drawn_labels_are_fixed_by_the_seed() -> None:
    targets = Targets(protected=2, bystanders=1, attacked=5)
    protected, others = targets.draw(10, 0)
    assert targets.draw(10, 0) == (protected, others)
    assert targets.draw(10, 1) != (protected, others)
    assert len(set(protected) | set(others)) == 5
    assert Targets(protected=2, labels=(7, 3)).draw(10, 0)[0] == (7, 3)


def test_more_attacked_labels_keep_the_protected_ones() -> None:
    few = Targets(protected=2, attacked=3).draw(20, 4)
    many = Targets(protected=2, attacked=9).draw(20, 4)
    assert few[0] == many[0]
    assert many[1][: len(few[1])] == few[1]


def test_with_plugins_adds_and_replaces() -> None:
    suite = parse()
    none = get_defense("none")()
    assert suite.with_plugins(none).defenses == suite.defenses
    more = suite.with_plugins(get_attack("nearest_public")())
    assert [one.label for one in more.attacks] == ["mean_face", "nearest_public"]
    assert dataclasses.replace(more, attacks=suite.attacks) == suite


def test_metric_that_cannot_be_built_names_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Broken:
        def __post_init__(self) -> None:
            raise ValueError("broken: level is missing.")

    monkeypatch.setattr("mibench.suite.get_metric", lambda _name: Broken)
    with pytest.raises(SuiteError, match=r"suite mini\.toml, metric\.aa: broken: level is missing"):
        parse()
