"""A sweep from the command line: records, curves, and levels that are there already."""

import csv
from pathlib import Path

import pytest

from mibench.cli import main
from mibench.record import read_records

SUITE = """
name = "mini"
metrics = ["mc_all", "aa"]
[data]
size = 16
channels = 1
private = 3
private_images = 4
test_images = 2
public = 4
public_images = 2
defender = 2
defender_images = 2
[targets]
attacked = 2
images = 2
[victim]
net = "mlp"
width = 8
recipe = { epochs = 2, batch = 8 }
[judge]
net = "softmax_regression"
recipe = { epochs = 2, batch = 8 }
[defenses.none]
[attacks.nearest_public]
[attacks.mi_face]
max_iter = 2
"""


def test_a_sweep_leaves_curves_and_goes_on_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mini.toml").write_text(SUITE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "mini.toml", "--defense", "negative_ls", "--jobs", "1", "--device", "cpu"]
    assert main([*words, "--levels", "-0.01,-0.1"]) == 0
    assert "negative_ls@-0.1" in capsys.readouterr().out
    folder = tmp_path / "results" / "mini-sweep"
    records = read_records(folder / "records.jsonl")
    labels = list(dict.fromkeys(record.defense["label"] for record in records))
    assert labels == ["none", "negative_ls@-0.01", "negative_ls@-0.1"]
    assert {r.status for r in records} == {"ok"}
    assert records[-1].defense["strength"] == "alpha"
    with (folder / "tables" / "curves.csv").open(encoding="utf-8") as opened:
        lines = list(csv.DictReader(opened))
    assert [line["level"] for line in lines] == ["", "-0.01", "-0.1"]
    by_label = {r.defense["label"]: r.estimates["aa"] for r in records if r.attack["label"] == "mi_face"}
    for line in lines:
        estimate = by_label[line["label"]]
        assert estimate is not None
        assert float(line["aa"]) == pytest.approx(estimate["value"])
    assert (folder / "figures" / "curve-mi-face.png").stat().st_size > 0
    assert "curve-mi-face.png" in (folder / "index.html").read_text(encoding="utf-8")

    assert main([*words, "--levels", "-0.01,-0.1,-0.2"]) == 0
    out, err = capsys.readouterr()
    assert "negative_ls@-0.2" in err + out
    assert "8 cells; " in out
    again = read_records(folder / "records.jsonl")
    assert [one for one in again if "-0.2" not in one.defense["label"]] == records
    assert main(["report", str(folder)]) == 0
