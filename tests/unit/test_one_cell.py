"""A cell as a suite of its own: what TOML is made of it, whose priors it takes, what a plugin's file adds."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibench import one_cell
from mibench.choose import choose
from mibench.errors import SuiteError
from mibench.one_cell import cell_suite, check_cell_suite, toml_text
from mibench.plan import build_plan
from mibench.suite import Entry, Suite

MakeSuite = Callable[..., Suite]
WORDS = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    WORDS,
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(value=VALUES, key=WORDS)
def test_every_setting_survives_the_file(value: Any, key: str) -> None:
    tables = {"attacks": {key: {key: value}}, "data": {key: value}, "seeds": [value]}
    assert tomllib.loads(toml_text(tables, where="x")) == tables


def test_what_a_file_cannot_hold_is_told(make_suite: MakeSuite, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="suite x: None cannot be written as TOML"):
        toml_text({"a": [None]}, where="x")
    plan = build_plan(make_suite())
    (cell,) = plan.cells
    text = cell_suite(plan, cell, tmp_path)
    check_cell_suite(text, plan, cell, tmp_path)
    for broken in (text.replace("tries = 2", "tries = 3"), text.replace("seeds = [0]", "seeds = [1]"), "?"):
        with pytest.raises(SuiteError, match=r"[Rr]un the whole suite instead\."):
            check_cell_suite(broken, plan, cell, tmp_path)


def test_a_cell_names_the_seed_of_its_priors(make_suite: MakeSuite, tmp_path: Path) -> None:
    attacks = {"gmi": {"prior": {"latent_dim": 4, "width": 4, "critic_width": 4, "steps": 2, "batch": 4}}}
    plan = build_plan(make_suite(attacks=attacks, seeds=[3, 4], share_priors=True))
    first, second = (cell_suite(plan, cell, tmp_path) for cell in plan.cells)
    assert "prior_seed" not in first
    assert "prior_seed = 3\n" in second
    assert "share_priors" not in second


def test_the_seed_of_priors_goes_before_sharing(make_suite: MakeSuite) -> None:
    suite = make_suite(seeds=[3, 4])
    assert [suite.seed_of_priors(seed) for seed in (3, 4)] == [3, 4]
    shared = dataclasses.replace(suite, share_priors=True)
    assert [shared.seed_of_priors(seed) for seed in (3, 4)] == [3, 3]
    named = dataclasses.replace(shared, prior_seed=9)
    assert [named.seed_of_priors(seed) for seed in (3, 4)] == [9, 9]
    with pytest.raises(SuiteError, match=r"seeds must be >= 0, got \[0\], prior_seed -1"):
        make_suite(prior_seed=-1)


def test_hostile_names_stay_in_their_comment(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite()
    label = 'a\nname = "b" \x7f "]'
    plugin = suite.attacks[0].plugin
    plan = build_plan(dataclasses.replace(suite, attacks=(Entry(label, plugin),)))
    text = cell_suite(plan, plan.cells[0], tmp_path)
    check_cell_suite(text, plan, plan.cells[0], tmp_path)
    assert list(tomllib.loads(text)["attacks"]) == [label]


@pytest.mark.parametrize(
    ("results", "home", "told"),
    [
        ("work/results", "home/me", "../../../../faces"),  # beside the results, under no home
        ("home/me/work/results", "home/me", "../../../../faces"),
        ("home/me/results", "home/me", "../../../../faces"),
        ("results", "home/me", "data/faces"),  # the way leads through the folder of all homes
        ("home/me/work/deep/results", "home/me", "data/faces"),
        ("elsewhere/results", "home/me", "data/faces"),
    ],
)
def test_no_way_to_files_tells_whose_machine_it_is(
    results: str, home: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"home/me/work/results": "home/me/work", "work/results": "work", "results": "home/me"}
    faces = tmp_path / places.get(results, "home/me") / "faces"
    monkeypatch.setenv("HOME", str(tmp_path / home))
    folder = tmp_path / results / "mine" / "cells" / "abc"
    found = one_cell._located({"path": str(faces), "weights": "", "size": 16}, folder)
    assert found == {"path": told, "weights": "", "size": 16}


def test_a_file_is_no_column_where_the_suite_has_it_as_a_part(
    make_suite: MakeSuite, toys: Callable[[str], Path], tmp_path: Path
) -> None:
    plan = build_plan(make_suite(defenses={"toy_short+toy_rounded": {}}))
    file = tmp_path / "cell.toml"
    file.write_text(cell_suite(plan, plan.cells[0], tmp_path), encoding="utf-8")
    suite = choose(file, plugins=[toys("toy_short"), toys("toy_rounded"), toys("toy_scores")])
    assert [one.label for one in suite.defenses] == ["toy_short+toy_rounded"]
    added = choose(file, plugins=[toys("toy_decoy")])
    assert [one.label for one in added.defenses] == ["toy_short+toy_rounded", "toy_decoy"]
