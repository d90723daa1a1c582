"""A report is drawn again only when its records, its code or its files changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mibench import benchmark


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


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"source": 1}'])
def test_a_broken_note_draws_it_again(tmp_path: Path, drawn: list[Path], broken: str) -> None:
    benchmark._reported(tmp_path)
    (tmp_path / benchmark.MADE).write_text(broken, encoding="utf-8")
    benchmark._reported(tmp_path)
    assert len(drawn) == 2
