import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mibench.errors import RecordError
from mibench.record import SCHEMA, Record, migrate, read_records, write_records

GOLDEN = Path(__file__).parent.parent / "golden"


def record(**changes: object) -> Record:
    fields: dict[str, object] = {
        "suite": "toy",
        "cell": "0123456789ab",
        "attack": {"label": "toy", "params": {"step": 1.0}},
        "defense": {"label": "none"},
        "view": "black-box",
        "seed": 0,
        "data": {"kind": "synthfaces"},
        "victim_net": "mlp",
        "judge": {"accuracy": 0.5},
        "status": "ok",
        "chance": 0.25,
        "targets": {"protected": [1]},
        "estimates": {"aa": {"value": 0.5, "low": 0.1, "high": 0.9, "count": 4}, "far_decoy": None},
        "flags": ("judge_below_gate",),
    }
    return Record(**{**fields, **changes})  # type: ignore[arg-type]  # fields are checked by the tests


def test_record_survives_json() -> None:
    line = record().to_json()
    assert "\n" not in line
    assert Record.from_json(line) == record()
    assert json.loads(line)["schema"] == SCHEMA


def test_what_a_second_look_found_survives_json() -> None:
    found = record(
        hits={"1": "10"},
        effort=({"queries": 2, "aa": None, "loss": None}, {"queries": 9, "aa": None, "loss": -1.5}),
        scrutiny={"restarts": None, "rise": None, "silent_gradients": 0.25},
    )
    assert Record.from_json(found.to_json()) == found


def test_a_record_of_the_first_schema_was_not_looked_at_twice() -> None:
    (loaded,) = read_records(GOLDEN / "record-1.jsonl")
    assert (loaded.hits, loaded.effort, loaded.scrutiny) == ({}, (), {})


def test_nan_becomes_null() -> None:
    line = record(estimates={"fid": {"value": math.nan, "low": -math.inf, "high": 1.0, "count": 1}}).to_json()
    assert json.loads(line)["estimates"]["fid"] == {"value": None, "low": None, "high": 1.0, "count": 1}
    assert "NaN" not in line
    assert "Infinity" not in line


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("record-*.jsonl")), ids=lambda file: file.stem)
def test_records_of_every_past_schema_load(file: Path) -> None:
    (loaded,) = read_records(file)
    assert loaded.schema == SCHEMA
    assert loaded.estimates["aa"] is not None


def test_there_is_a_golden_record_of_every_schema() -> None:
    assert {file.stem for file in GOLDEN.glob("record-*.jsonl")} == {
        f"record-{schema}" for schema in range(1, SCHEMA + 1)
    }


def test_present_schema_is_written_as_the_golden_one() -> None:
    file = GOLDEN / f"record-{SCHEMA}.jsonl"
    text = file.read_text(encoding="utf-8")
    assert read_records(file)[0].to_json() + "\n" == text


def test_updates_are_applied_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mibench.record.SCHEMA", 3)
    monkeypatch.setattr(
        "mibench.record.UPDATES",
        {1: lambda old: {**old, "steps": ["1-2"]}, 2: lambda old: {**old, "steps": [*old["steps"], "2-3"]}},
    )
    assert migrate({"schema": 1}) == {"schema": 3, "steps": ["1-2", "2-3"]}
    assert migrate({"schema": 2, "steps": []}) == {"schema": 3, "steps": ["2-3"]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: it is no JSON"),
        ("[1]", "line 2: it is no JSON object"),
        ('{"schema": 99}', "line 2: its schema is 99"),
        ("{}", "line 2: its schema is None"),
        ('{"schema": 1}', "line 2: field 'suite' is missing"),
    ],
)
def test_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(f"{record().to_json()}\n{line}\n", encoding="utf-8")
    with pytest.raises(RecordError) as caught:
        read_records(file)
    assert message in str(caught.value)


def test_unknown_field_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no field 'colour'"):
        Record.from_json(json.dumps({**json.loads(record().to_json()), "colour": 1}))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        read_records(tmp_path / "absent.jsonl")


def test_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "records.jsonl"
    write_records(file, [record(), record(seed=1)])
    assert [one.seed for one in read_records(file)] == [0, 1]
    write_records(file, [record(seed=2)])
    assert [one.seed for one in read_records(file)] == [2]
    assert list(file.parent.iterdir()) == [file]


def test_full_disk_is_a_record_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "records.jsonl"
    write_records(file, [record()])
    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(RecordError, match=r"cannot be written \(No space left on device\)"):
        write_records(file, [record(seed=1)])
    assert read_records(file) == [record()]


def test_records_need_no_torch() -> None:
    code = "import sys, mibench.record; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode
        == 0
    )


@pytest.mark.parametrize("broken", [{}, {"aa": {"value": "high"}}, {"aa": 0.5}, {"aa": {"value": True}}])
def test_estimates_that_are_none_or_no_numbers_are_refused(broken: dict[str, Any]) -> None:
    content = json.loads(record().to_json())
    with pytest.raises(RecordError, match=r"estimate"):
        Record.from_json(json.dumps({**content, "status": "ok", "estimates": broken}))
