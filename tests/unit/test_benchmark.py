"""A report is drawn again only when its records, its code or its files changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mibench import benchmark
from mibench.record import read_records

GOLDEN = Path(__file__).parent.parent / "golden" / "record-2.jsonl"


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that a stand-in for the report was asked to fill, with one page each."""
    calls: list[Path] = []

    def write_all(folder: Path) -> list[Path]:
        calls.append(folder)
        page = folder / "index.html"
        page.write_text("page", encoding="utf-8")
        return [page]

    monkeypatch.setattr("mibench.report.write_all", write_all)
    (tmp_path / "records.jsonl").write_text("one\n", encoding="utf-8")
    return calls


def test_an_unchanged_report_is_left_alone(tmp_path: Path, drawn: list[Path]) -> None:
    first = benchmark._reported(tmp_path)
    assert benchmark._reported(tmp_path) == first == [tmp_path / "index.html"]
    assert len(drawn) == 1


def test_other_records_draw_it_again(tmp_path: Path, drawn: list[Path]) -> None:
    benchmark._reported(tmp_path)
    (tmp_path / "records.jsonl").write_text("two\n", encoding="utf-8")
    benchmark._reported(tmp_path)
    assert len(drawn) == 2


def test_a_missing_file_draws_it_again(tmp_path: Path, drawn: list[Path]) -> None:
    (page,) = benchmark._reported(tmp_path)
    page.unlink()
    benchmark._reported(tmp_path)
    assert page.is_file()
    assert len(drawn) == 2


@pytest.mark.parametrize("name", ["table.py", "templates/page.html.j2"])
def test_other_code_draws_it_again(
    tmp_path: Path, drawn: list[Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    code = tmp_path / "code"
    (code / "templates").mkdir(parents=True)
    for file in ("__init__.py", "table.py", "templates/page.html.j2"):
        (code / file).write_text("before", encoding="utf-8")
    monkeypatch.setattr("mibench.report.__file__", str(code / "__init__.py"))
    benchmark._reported(tmp_path)
    benchmark._reported(tmp_path)
    assert len(drawn) == 1
    (code / name).write_text("after", encoding="utf-8")
    benchmark._reported(tmp_path)
    assert len(drawn) == 2


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"source": 1}'])
def test_a_broken_note_draws_it_again(tmp_path: Path, drawn: list[Path], broken: str) -> None:
    benchmark._reported(tmp_path)
    (tmp_path / benchmark.MADE).write_text(broken, encoding="utf-8")
    benchmark._reported(tmp_path)
    assert len(drawn) == 2


def test_what_an_earlier_run_left_is_removed(
    tmp_path: Path, drawn: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of cells and figures of attacks that the suite no longer has."""
    benchmark._reported(tmp_path)

    def other(folder: Path) -> list[Path]:
        page = folder / "table.html"
        page.write_text("page", encoding="utf-8")
        return [page]

    monkeypatch.setattr("mibench.report.write_all", other)
    (tmp_path / "records.jsonl").write_text("two\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("by hand", encoding="utf-8")
    assert benchmark._reported(tmp_path) == [tmp_path / "table.html"]
    assert not (tmp_path / "index.html").exists()
    assert (tmp_path / "README.md").is_file()


def test_cells_of_another_run_are_removed_and_nothing_else(tmp_path: Path) -> None:
    record = read_records(GOLDEN)[0]
    for name in (record.cell, "0123456789ab", "notes"):
        (tmp_path / "cells" / name).mkdir(parents=True)
    benchmark._drop_other_cells(tmp_path, [record])
    assert {place.name for place in (tmp_path / "cells").iterdir()} == {record.cell, "notes"}


def test_a_drawing_that_was_stopped_is_made_good(
    tmp_path: Path, drawn: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = (tmp_path / "records.jsonl").read_bytes()
    benchmark._reported(tmp_path)

    def stopped(folder: Path) -> list[Path]:
        (folder / "table.md").write_text("of another run", encoding="utf-8")
        raise KeyboardInterrupt

    with monkeypatch.context() as another:
        another.setattr("mibench.report.write_all", stopped)
        (tmp_path / "records.jsonl").write_text("{}\n", encoding="utf-8")
        with pytest.raises(KeyboardInterrupt):
            benchmark._reported(tmp_path)
    (tmp_path / "records.jsonl").write_bytes(own)  # as after a run of the first kind
    benchmark._reported(tmp_path)
    assert len(drawn) == 2
