import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibench.key import canonical, make_key
from mibench.noise import derive_seed
from mibench.task import Task

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


def task(**changes: object) -> Task:
    fields: dict[str, object] = {
        "stage": "invert",
        "plugin": "toy",
        "params": {"attack": {"step": 0.5, "count": 2}},
        "inputs": {"train": "a" * 64},
        "seed": 0,
        "noise": "toy",
        "title": "invert toy",
    }
    return Task(**{**fields, **changes})  # type: ignore[arg-type]  # fields are checked by the tests


def test_golden_key() -> None:
    # changes only with the meaning of keys, and then SCHEMA grows
    assert task().key == "e662689f47f2fb289133318a56fa657ff2e26f4596c8c3aed7d49fb8a49da018"


@given(VALUES)
def test_canonical_survives_json(value: object) -> None:
    text = canonical(value)
    assert canonical(json.loads(text)) == text
    assert text.isascii()


@given(st.dictionaries(st.text(), SCALARS, min_size=2))
def test_order_of_names_is_nothing(value: dict[str, object]) -> None:
    assert canonical(dict(reversed(list(value.items())))) == canonical(value)


@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_whole_floats_are_integers(number: int) -> None:
    assert canonical(float(number)) == canonical(number)


@given(VALUES, VALUES)
def test_different_values_have_different_text(one: object, other: object) -> None:
    # JSON itself tells True from 1, so compare what JSON reads back
    if canonical(one) == canonical(other):
        assert json.loads(canonical(one)) == json.loads(canonical(other))
    else:
        assert json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)


def test_tuples_are_lists() -> None:
    assert canonical((1, (2,))) == canonical([1, [2]])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"a": [math.nan]}, {1: 2}])
def test_what_json_cannot_carry_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"JSON|string"):
        canonical(value)


def test_other_objects_are_refused() -> None:
    with pytest.raises(TypeError):
        canonical({"a": object()})


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "adapt"},
        {"plugin": "other"},
        {"version": 2},
        {"source": "abc"},
        {"params": {"attack": {"step": 0.5, "count": 3}}},
        {"inputs": {"train": "b" * 64}},
        {"inputs": {"base": "a" * 64}},
        {"seed": 1},
    ],
)
def test_everything_hashed_changes_the_key(change: dict[str, object]) -> None:
    assert task(**change).key != task().key


@pytest.mark.parametrize("change", [{"title": "x"}, {"noise": "x"}, {"locator": {"path": "/x"}}])
def test_nothing_else_changes_the_key(change: dict[str, object]) -> None:
    assert task(**change).key == task().key


def test_task_seed_depends_on_seed_stage_and_plugin_alone() -> None:
    assert task().task_seed == derive_seed(0, "invert", "toy")
    assert task(inputs={}, params={}, version=3).task_seed == task().task_seed
    seeds = {task(**change).task_seed for change in ({}, {"seed": 1}, {"stage": "adapt"}, {"noise": "x"})}
    assert len(seeds) == 4


def test_empty_source_is_as_no_source() -> None:
    fields = {"plugin": "p", "version": 1, "params": {}, "inputs": {}, "seed": 0}
    plain = make_key("train", source="", **fields)  # type: ignore[arg-type]  # a dict of mixed fields
    assert plain != make_key("train", source="x", **fields)  # type: ignore[arg-type]  # the same
