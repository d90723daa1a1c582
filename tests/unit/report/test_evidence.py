"""Evidence cards: what is kept, what is picked from it, and what `why` and `diff` make of it."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mibench.cli import main
from mibench.errors import RecordError
from mibench.record import Record, write_records
from mibench.report import write_site
from mibench.report.cell_diff import diff
from mibench.report.evidence import Evidence, Shot, exemplars, read_evidence, repeat_command, verdicts
from mibench.report.find_cell import FoundCell, find_cell
from mibench.report.flag_meanings import COMPARED, explained_flags
from mibench.report.why import why

Make = Callable[..., dict[str, Any]]
ROOT = Path(__file__).resolve().parents[3]


def shot(label: int = 3, index: int = 0, judge_p: float | None = 0.5, **changes: Any) -> Shot:
    """A reconstruction that victim and judge take for its target, and the audit judge for label 9."""
    fields = {
        "model": 0, "label": label, "index": index, "protected": True, "confidence": 0.75, "loss": None,
        "victim_top": label, "victim_p": 1.0, "judge_top": label, "judge_p": judge_p, "audit_top": 9,
        "audit_p": 0.0001, "nearest": 12, "nearest_label": label, "distance": 1.5, "own_distance": 1.5,
        "other_label": 8, "other_distance": 2.5,
    }  # fmt: skip
    return Shot(**{**fields, **changes})


@pytest.fixture
def cell(make_record: Make, tmp_path: Path) -> FoundCell:
    """A cell of two people with three reconstructions each, as a run leaves it."""
    made = make_record(
        hits={"3": "110", "7": "000"}, flags=["judge_below_gate", "black_box_beats_white_box"],
        keys={"measure": "a" * 64, "models": [{"train": "b" * 64, "output": None, "adapt": None,
                                               "invert": "c" * 64, "protects": [3, 7]}]},
        scrutiny={"second_hits": {"audit": {"3": "010", "7": "000"}}},
    )  # fmt: skip
    made["judge"] = {**made["judge"], "audit_net": "vgg16"}
    results = tmp_path / "quick"
    shots = [shot(3, i, p) for i, p in enumerate((0.2, 0.9, 0.9))]
    shots += [shot(7, i, p, judge_top=8, nearest_label=8) for i, p in enumerate((0.3, None, 0.1))]
    place = results / "cells" / made["cell"]
    place.mkdir(parents=True)
    found = Evidence(
        cell=made["cell"],
        facts={"seed": 0},
        shots=tuple(shots),
        files=("cell.toml", "attacks/mine.py"),
        options=("--device", "cpu"),
    )
    (place / "evidence.json").write_text(found.to_json(), encoding="utf-8")
    record = Record.from_json(json.dumps(made))
    write_records(results / "records.jsonl", [record])
    costs = {"key": "b" * 64, "stage": "train", "wall_s": 2.5, "peak_mib": 80.2}
    (results / "costs.jsonl").write_text(json.dumps(costs) + "\n", encoding="utf-8")
    return FoundCell(record, results)


def test_evidence_survives_its_file(cell: FoundCell) -> None:
    read = read_evidence(cell.folder)
    assert read is not None
    assert read.shots is not None
    assert len(read.shots) == 6
    assert read.shots[1] == shot(3, 1, 0.9)
    assert read.to_json() == (cell.folder / "evidence.json").read_text(encoding="utf-8")
    assert read_evidence(cell.folder.parent) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [('{"schema": 2}', "its schema is 2, known is 1"), ("{}", "not the evidence"), ("[", "not the evidence")],
)
def test_evidence_of_another_kind_is_refused(cell: FoundCell, text: str, told: str) -> None:
    (cell.folder / "evidence.json").write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=told):
        read_evidence(cell.folder)
    # a page is drawn all the same
    assert len(write_site([cell.record], cell.results)) == 2


def test_exemplars_go_by_the_judge_and_keep_the_order_of_equals() -> None:
    shots = [shot(3, i, p) for i, p in enumerate((0.2, 0.9, 0.9, None, 0.4))]
    assert {which: one.index for which, one in exemplars(shots).items()} == {
        "best": 1,
        "median": 4,
        "worst": 3,
    }
    assert {which: one.index for which, one in exemplars(shots[:2]).items()} == {"best": 1, "worst": 0}
    assert list(exemplars(shots[:1])) == ["best"]


def test_verdicts_count_each_model(cell: FoundCell) -> None:
    found = verdicts(read_evidence(cell.folder))
    assert found is not None
    assert dataclasses.astuple(found) == (6, 6, 3, 0, 3)
    assert verdicts(None) is None


def test_the_command_names_the_files_of_the_cell(cell: FoundCell) -> None:
    evidence = read_evidence(cell.folder)
    assert repeat_command({}, evidence, "there/") == (
        "mibench run there/cell.toml --plugin there/attacks/mine.py --device cpu --out repeated"
    )
    assert repeat_command({}, evidence, "my results/").startswith("mibench run 'my results/cell.toml'")


def test_why_tells_all_that_is_known(cell: FoundCell) -> None:
    text = why(cell)
    estimate = cell.record.estimates["aa"]
    assert estimate is not None
    for fact in (
        f"AA {100 * estimate['value']:.1f} %, 95 % interval",
        "Chance level 1.0 %",
        "label 3  2 of 3  110",
        "takes 6 for their target, the judge 3, 0 of which the audit judge (vgg16) takes for it too",
        "In the judge's features 3 lie nearest",
        "The audit confirms 1 of 2 successes; it knows 96.8 % of real images.",
        "judge below gate: The judge knows real people worse",
        "Drawn from a comparison with other cells",
        "train 2.5 s; 80 MiB at most",
        "c" * 64,
        "torch 2.8.0",
        f"mibench run {cell.folder.as_posix()}/cell.toml --plugin",
    ):
        assert fact in text
    lines = [line.split() for line in text.splitlines()]
    assert ["3", "best", "2", "100.0", "%", "90.0", "%"] in [words[:7] for words in lines]
    assert ["7", "worst", "2", "100.0", "%", "n/a,", "says", "8"] in [words[:8] for words in lines]


def test_why_of_a_failed_cell_says_what_went_wrong(make_record: Make, tmp_path: Path) -> None:
    error = {"stage": "train", "type": "TrainingError", "message": "loss is NaN at step 40."}
    made = make_record(status="failed", error=error, estimates={}, metric_info={}, queries={}, notes={})
    text = why(FoundCell(Record.from_json(json.dumps(made)), tmp_path))
    assert "failed\ntrain: TrainingError: loss is NaN at step 40." in text
    assert not {"Number", "Hits by person", "All estimates"} & set(text.splitlines())


def test_diff_tells_settings_keys_and_people_apart(cell: FoundCell) -> None:
    record = cell.record
    other = dataclasses.replace(
        record,
        cell="f" * 12,
        attack={**record.attack, "params": {**record.attack["params"], "steps": 40}},
        hits={"3": "000", "7": "100", "11": "111"},
        flags=("judge_below_gate",),
        keys={"measure": "d" * 64, "models": [{**record.keys["models"][0], "invert": "e" * 64}]},
        provenance={**record.provenance, "torch": "3.0.0"},
    )
    text = diff(cell, FoundCell(other, cell.results))
    words = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "attack.params.steps 300 -> 40",
        "train shared",
        "invert differ",
        "measure differ",
        "torch 2.8.0 -> 3.0.0",
        "More leak of 1, less of 1, the same of 0. Sign-flip test of no difference: p = 1.",
        "both: judge below gate: The judge knows real people worse than the suite asks, so AA says little.",
    ):
        assert line in words
    assert "33.3 % -> 16.7 % over 2 common people: -16.7 points" in text
    assert "first: black box beats white box" in text
    assert "attack.params.lr" not in text
    elsewhere = dataclasses.replace(other, data={**other.data, "digest": "0"})
    assert "different people" in diff(cell, FoundCell(elsewhere, cell.results))


def test_a_cell_is_found_by_its_first_digits_alone(cell: FoundCell, tmp_path: Path) -> None:
    name = cell.record.cell
    assert find_cell(name[:3], [tmp_path]).record == cell.record
    assert find_cell(name, [cell.results]).results == cell.results
    with pytest.raises(RecordError, match=r"cell 'ffff': there is none in .*quick\."):
        find_cell("ffff" if not name.startswith("ffff") else "eeee", [tmp_path])
    with pytest.raises(RecordError, match="is no name of a cell"):
        find_cell("gmi", [tmp_path])
    with pytest.raises(RecordError, match=r"no records\.jsonl there"):
        find_cell(name, [tmp_path / "nowhere"])
    write_records(tmp_path / "again" / "records.jsonl", [cell.record])
    with pytest.raises(RecordError, match=f"2 cells are called so: {name} in .*again .*; {name} in .*quick "):
        find_cell(name[:4], [tmp_path])
    assert find_cell(f"{tmp_path}/again/{name[:4]}", [tmp_path]).results == tmp_path / "again"


def test_a_page_shows_evidence_and_withholds_people(cell: FoundCell, make_tiles: Any) -> None:
    from mibench.report import save_cell_images

    real, got, nearest = make_tiles(num=3)
    save_cell_images(cell.folder, real[:2], got[:2], nearest[:2], labels=[3, 7], protected=[True, True])
    page = write_site([cell.record], cell.results)[1]
    text = page.read_text(encoding="utf-8")
    assert text.count('class="face"') == 2 * (3 + 3 * 2)
    assert "90.0 %" in text
    assert "n/a, says 8" in text
    assert f"mibench run cells/{cell.record.cell}/cell.toml --plugin" in text
    people = dataclasses.replace(cell.record, data={**cell.record.data, "kind": "folder"})
    text = write_site([people], cell.results)[1].read_text(encoding="utf-8")
    assert 'class="face"' not in text
    assert ".png" not in text.split("<body>")[1]
    assert "90.0 %" in text


def test_every_flag_of_the_manual_is_explained() -> None:
    pages = [(ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("metrics", "adaptive")]
    parts = [
        re.split(r"(?m)^#+ (?:Flags on records|Signs of masked gradients).*$", page)[1] for page in pages
    ]
    flags = [flag for text in parts for flag in re.findall(r"(?m)^\| `(\w+)` \|", text.split("\n## ")[0])]
    assert set(flags) > COMPARED
    told = explained_flags({"flags": flags})
    silent = [flag for flag, (text, meaning) in zip(flags, told) if not meaning and "(" not in text]
    assert silent == []


ESCAPE = "\x1b[31m"


def test_no_terminal_escape_comes_through(cell: FoundCell) -> None:
    shown = {**cell.record.keys, "measure": ESCAPE}
    bad = dataclasses.replace(
        cell.record,
        view=ESCAPE,
        hits={f"3{ESCAPE}\n": "110"},
        flags=(ESCAPE,),
        keys=shown,
        attack={**cell.record.attack, "label": f"a{ESCAPE}", "version": ESCAPE},
    )
    evidence = Evidence(
        cell=bad.cell, facts={}, files=("cell.toml", f"{ESCAPE}.py"), options=(f"--seed={ESCAPE}",)
    )
    (cell.folder / "evidence.json").write_text(evidence.to_json(), encoding="utf-8")
    found = FoundCell(bad, cell.results)
    for text in (why(found), diff(found, found), diff(cell, found), repeat_command({}, evidence)):
        assert "\x1b" not in text
        assert "\N{REPLACEMENT CHARACTER}[31m" in text
    write_records(cell.results / "records.jsonl", [bad])
    write_records(cell.results.parent / "again" / "records.jsonl", [bad])
    with pytest.raises(RecordError, match="2 cells are called so") as caught:
        find_cell(bad.cell, [cell.results.parent])
    assert "\x1b" not in str(caught.value)


def test_a_cell_whose_name_is_no_folder_is_not_found(cell: FoundCell) -> None:
    bad = dataclasses.replace(cell.record, cell=f"{cell.record.cell}/../..")
    write_records(cell.results / "records.jsonl", [bad])
    with pytest.raises(RecordError, match="there is none in"):
        find_cell(cell.record.cell, [cell.results])


@pytest.mark.parametrize(
    "line",
    [
        '{"key": "b", "wall_s": 2.',
        "[]",
        '{"key": "b", "peak_mib": 1}',
        '{"key": 1, "wall_s": "2", "peak_mib": 1}',
    ],
)
def test_a_torn_line_of_costs_is_named(cell: FoundCell, line: str) -> None:
    path = cell.results / "costs.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")
    with pytest.raises(RecordError, match=r"costs\.jsonl, line 2: not the cost of a task"):
        why(cell)
    path.unlink()
    assert "s; " not in why(cell).split("Costs")[1].split("Keys")[0]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", "3"),
        ("judge_p", "0.5"),
        ("audit_top", 1.5),
        ("protected", 1),
        ("model", True),
        ("index", None),
    ],
)
def test_a_value_of_another_type_is_no_evidence(cell: FoundCell, column: str, value: Any) -> None:
    file = cell.folder / "evidence.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    table = raw["reconstructions"]
    table["rows"][1][table["columns"].index(column)] = value
    file.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(
        RecordError, match=f"not the evidence of a cell \\({column} is {value!r}, not of type"
    ):
        read_evidence(cell.folder)


def test_people_without_a_difference_still_leave_doubt(cell: FoundCell) -> None:
    assert "+0.0 points, 95 % interval -65.8 to +65.8." in diff(cell, cell)


@pytest.mark.parametrize("words", [["why", "{}"], ["diff", "{}", "{}"]])
def test_the_commands_need_no_torch(cell: FoundCell, words: list[str]) -> None:
    argv = [*(word.format(cell.record.cell) for word in words), "--results", str(cell.results)]
    code = f"import sys; from mibench.cli import main; print(main({argv!r}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"


def test_a_wrong_name_is_told_in_one_sentence(cell: FoundCell, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "xyz", "--results", str(cell.results)]) == 2
    assert capsys.readouterr().err.startswith("cell 'xyz': is no name of a cell.")
