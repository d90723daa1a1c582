import csv
import io
import math

import pytest

from mibench.cli import main
from mibench.reported import ReportedError, papers, read_reported


def test_every_paper_has_numbers_and_provenance() -> None:
    for name, paper in papers().items():
        assert read_reported(name)
        assert paper.title
        assert paper.paper
        assert paper.read


def test_tables_of_tifs_are_complete() -> None:
    counts = {table: len(read_reported("tifs23", table)) for table in "123456"}
    assert counts == {"1": 6, "2": 228, "3": 48, "4": 192, "5": 96, "6": 180}


def test_known_cells() -> None:
    def cell(attack: str, defense: str, metric: str) -> float | None:
        (found,) = [
            row.value
            for row in read_reported("tifs23", "2")
            if (row.dataset, row.attack, row.defense, row.metric) == ("CelebA", attack, defense, metric)
        ]
        return found

    assert cell("Mirror", "none", "AA") == 69
    assert cell("Mirror", "DP", "AA") == 45
    assert cell("DMI", "DP", "MC_all") == 56.82
    assert cell("DMI", "GAN-ID", "FID") == 168


@pytest.mark.parametrize("paper", list(papers()))
def test_numbers_are_unique_and_in_range(paper: str) -> None:
    rows = read_reported(paper)
    places = [
        (r.table, r.dataset, r.resolution, r.model, r.setting, r.attack, r.defense, r.variant, r.metric)
        for r in rows
    ]
    assert len(set(places)) == len(places)
    for row in rows:
        assert (row.value is None) == (row.certainty == "unreadable")
        if row.value is not None:
            assert math.isfinite(row.value)
            assert row.unit != "percent" or 0 <= row.value <= 100


def test_undefended_accuracy_is_the_same_in_tables_1_2_and_6() -> None:
    first = {row.dataset: row.value for row in read_reported("tifs23", "1") if row.variant == "victim"}
    for table in ("2", "6"):
        for row in read_reported("tifs23", table):
            if (row.defense, row.metric) == ("none", "MC_all"):
                assert row.value == first[row.dataset]


def test_unknown_names_are_refused_with_a_hint() -> None:
    with pytest.raises(ReportedError, match=r"no reported numbers of 'tif23'\. Did you mean 'tifs23'"):
        read_reported("tif23")
    with pytest.raises(ReportedError, match=r"'tifs23' has no table '7' here.*1, 2, 3, 4, 5, 6"):
        read_reported("tifs23", "7")


def test_command_shows_what_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reported", "show", "tifs23/table2", "--attack", "mirror", "--metric", "aa", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 15
    assert {(row["attack"], row["metric"], row["table"]) for row in rows} == {("Mirror", "AA", "2")}


def test_lines_that_models_and_settings_tell_apart_name_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["reported", "show", "ssd", "--metric", "aa_top1"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines() if "AA_top1" in line]
    names = [tuple(word for word in line if word and "%" not in word) for line in lines]
    assert len(names) == len(set(names)) == sum(row.metric == "AA_top1" for row in read_reported("ssd"))


def test_names_are_not_cut_where_lines_are_short(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["reported", "show", "rolss"]) == 0
    assert "\N{HORIZONTAL ELLIPSIS}" not in capsys.readouterr().out


def test_a_wish_that_no_number_meets_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reported", "show", "ssd", "--attack", "gmi"]) == 2
    assert "no number of 'ssd' has attack 'gmi'." in capsys.readouterr().err


def test_list_names_every_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reported", "list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in papers())


def test_unknown_paper_ends_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reported", "show", "tifs32"]) == 2
    assert "Did you mean 'tifs23'?" in capsys.readouterr().err
