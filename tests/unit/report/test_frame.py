"""Records as frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from mibench.errors import RecordError
from mibench.record import Record
from mibench.report.frame import (
    cell_rows,
    data_label,
    estimate_rows,
    latest,
    long_frame,
    may_show_images,
    scenes,
)

TIMES = "\N{MULTIPLICATION SIGN}"
Make = Callable[..., Any]


def test_the_last_record_of_a_cell_counts(make_record: Make) -> None:
    old, other, new = make_record(), make_record(seed=1), make_record(victim_net="new")
    kept = latest([old, other, new])
    assert [record["cell"] for record in kept] == [old["cell"], other["cell"]]
    assert kept[0]["victim_net"] == "new"


def test_record_objects_are_as_good_as_dicts(make_record: Make) -> None:
    fields = make_record()
    assert long_frame([Record(**fields)]).equals(long_frame([fields]))


@pytest.mark.parametrize("cell", ["../../etc", "", "ABCDEF123456", "xyz123xyz123"])
def test_a_cell_name_that_is_no_hex_is_refused(make_record: Make, cell: str) -> None:
    with pytest.raises(RecordError, match="hexadecimal"):
        latest([make_record(cell=cell)])


def test_two_cells_in_one_place_are_refused(make_record: Make) -> None:
    with pytest.raises(RecordError, match="both attack 'dmi' against defense 'none'"):
        cell_rows([make_record(), make_record(cell="abcdef123456")])


def test_only_rendered_faces_are_shown(make_record: Make) -> None:
    assert may_show_images(make_record())
    assert not may_show_images(make_record(data={"kind": "folder"}))
    assert not may_show_images({})
    assert may_show_images(make_record(data={"kind": "prepared", "may_publish": True}))
    assert not may_show_images(make_record(data={"kind": "prepared", "may_publish": "yes"}))


def test_a_dataset_is_named_by_kind_size_and_people() -> None:
    assert (
        data_label({"kind": "synthfaces", "size": [3, 64, 48], "num_classes": 20})
        == f"synthfaces 64{TIMES}48, 20 ids"
    )
    assert data_label({"kind": "celeba", "size": 64}) == f"celeba 64{TIMES}64"
    assert data_label({}) == "?"
    sets = {"defender": "lfw", "private": "celeba", "public": "lfw"}
    assert data_label({"kind": "prepared", "sets": sets, "num_classes": 9}) == "celeba + lfw, 9 ids"
    assert data_label({"kind": "prepared", "sets": {"private": "a\x1b[2J"}}) == "a\ufffd[2J"


def test_datasets_of_one_name_are_told_apart_by_the_parameters_that_differ(make_record: Make) -> None:
    base = {"kind": "synthfaces", "num_classes": 8, "size": 32}
    records = [
        make_record(cell=f"{index:012x}", data={**base, "params": {"seed": index, "nuisance": 1.0}})
        for index in range(2)
    ]
    assert list(scenes(records)) == [
        f"synthfaces 32{TIMES}32, 8 ids (seed = 0) · small_vgg",
        f"synthfaces 32{TIMES}32, 8 ids (seed = 1) · small_vgg",
    ]


def test_suites_are_named_where_there_are_several(make_record: Make) -> None:
    assert [name.split(":")[0] for name in scenes([make_record(), make_record(suite="other")])] == [
        "quick",
        "other",
    ]


def test_estimates_leave_out_what_was_not_measured(make_record: Make) -> None:
    estimates = {
        "aa": {"value": 0.5, "low": None, "high": None, "count": 4},
        "fid": {"value": None, "low": None, "high": None, "count": 0},
        "kid": {"value": math.nan, "low": 0.0, "high": 0.0, "count": 0},
        "far": None,
    }
    assert estimate_rows([make_record(estimates=estimates)]) == [(0, "aa", 0.5, 0.5, 0.5, 4.0)]


def test_the_long_frame_has_every_metric_of_every_cell(few_records: list[dict[str, Any]]) -> None:
    frame = long_frame(few_records).set_index("cell")
    assert len(frame) == len(few_records)
    for record in few_records:
        for name, estimate in record["estimates"].items():
            if estimate is None:
                assert math.isnan(frame.loc[record["cell"], name])
            else:
                assert frame.loc[record["cell"], name] == estimate["value"]
                assert frame.loc[record["cell"], f"{name}_count"] == estimate["count"]
    assert frame["status"].tolist().count("failed") == 1
    assert frame["attack_params"].iloc[0] == '{"lr": 0.02, "steps": 300}'
