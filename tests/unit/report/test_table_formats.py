"""The comparison table in every format, with labels that try to break out of it."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mibench.report import comparison

Make = Callable[..., Any]
HOSTILE = [
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "\\input{/etc/passwd} $x_1$ 50% & #~^{}",
    "a|b `c` [d](e) @f",
    "\x1b]0;title\x07\x1b[31mred\u202eder [bold]x[/bold]",
    "模型反演 ✓",
    "[0.5ex] * starred",
]
VOID = {"col", "meta", "img", "br", "hr", "link", "input"}


@pytest.fixture
def hostile(make_record: Make) -> Any:
    """A table whose attacks, defenses and errors are all hostile."""
    records = [
        make_record((label, "score", False, 0.5), (HOSTILE[-1 - index], "training", 0.9, 0.5), seed=0)
        for label in HOSTILE
        for index in range(4)
    ]
    for record, message in zip(records, HOSTILE):
        record.update(status="failed", error={"stage": "x", "type": "E", "message": message}, estimates={})
    return comparison(records)


def printed(table: Any, width: int) -> str:
    out = io.StringIO()
    Console(width=width, file=out, force_terminal=False).print(table.to_rich(width))
    return out.getvalue()


@pytest.mark.parametrize("width", [48, 80, 100, 160, 400])
def test_a_terminal_table_fits_and_is_whole(make_records: Make, width: int) -> None:
    table = comparison(make_records())
    text = printed(table, width)
    assert max(len(line) for line in text.splitlines()) <= width
    for entry in table.entries.values():
        assert entry.shown in text
    assert "…" not in text
    assert all(f"{name}" in text for name in table.defenses)


def test_a_very_narrow_terminal_gets_one_number_a_line(make_records: Make) -> None:
    table = comparison(make_records())
    lines = printed(table, 24).splitlines()
    assert max(map(len, lines)) <= 24
    assert sum(line.startswith("  AA ↓ ") for line in lines) == len(table.rows) * len(table.defenses)


def test_numbers_that_all_attacks_share_are_printed_once(make_record: Make) -> None:
    records = [make_record((name, "score", False, power)) for name, power in (("a", 0.2), ("b", 0.6))]
    assert printed(comparison(records), 100).count("MC(all)") == 1
    records[0]["estimates"] = {**records[0]["estimates"], "mc_all": records[0]["estimates"]["aa"]}
    assert printed(comparison(records), 100).count("MC(all)") == 2


def test_a_terminal_meets_no_control_character_and_no_markup(hostile: Any) -> None:
    text = printed(hostile, 100)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "[bold]x[/bold]" in text


def test_the_wide_csv_has_the_numbers_and_their_bounds_with_six_digits(make_record: Make) -> None:
    table = comparison([make_record()])
    head, line = csv.reader(io.StringIO(table.to_csv()))
    row = dict(zip(head, line))
    entry = table.entries[0, 0, 2]
    assert float(row["none AA (%)"]) == pytest.approx(entry.value, rel=1e-5)
    assert float(row["none AA (%) low"]) == pytest.approx(entry.low, rel=1e-5)
    assert float(row["none AA (%) low"]) < float(row["none AA (%)"]) < float(row["none AA (%) high"])
    plain = comparison([make_record()], intervals=False).to_csv()
    assert "low" not in plain.splitlines()[0]


def test_the_long_csv_has_fractions_and_reasons(few_records: list[dict[str, Any]]) -> None:
    rows = list(csv.DictReader(io.StringIO(comparison(few_records).to_csv("long"))))
    by_place = {(r["attack"], r["defense"], r["metric"]): r for r in rows}
    first = few_records[0]
    assert float(by_place["dmi", "none", "aa"]["value"]) == first["estimates"]["aa"]["value"]
    assert by_place["dmi", "none", "aa"]["cell"] == first["cell"]
    assert "TrainingError" in by_place["dmi", "dp_sgd", "aa"]["notes"]
    assert by_place["dmi", "dp_sgd", "aa"]["value"] == ""
    assert {row["status"] for row in rows} == {"ok", "failed", "blocked"}


@pytest.mark.parametrize("form", ["wide", "long"])
def test_no_csv_cell_is_a_formula(hostile: Any, form: Any) -> None:
    rows = list(csv.reader(io.StringIO(hostile.to_csv(form))))
    assert len({len(row) for row in rows}) == 1
    texts = [cell for row in rows for cell in row if not re.fullmatch(r"-?[\d.e-]+", cell)]
    assert not [text for text in texts if text.startswith(("=", "+", "-", "@"))]
    assert any(text.startswith("'=cmd") for text in texts)


def test_a_markdown_table_keeps_its_columns(hostile: Any) -> None:
    lines = [line for line in hostile.to_markdown().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(hostile.defenses) + 4}
    assert "<script" not in hostile.to_markdown()


def test_latex_has_groups_rules_and_blocks(make_records: Make) -> None:
    text = comparison(make_records()).to_latex(max_columns=12)
    assert text.count(r"\begin{tabular}") == text.count(r"\toprule") == text.count(r"\bottomrule") == 3
    assert r"\multicolumn{4}{c}{netguard}" in text
    assert r"\multicolumn{4}{c}{failed\textsuperscript{a}}" in text
    assert r"\textbf{" in text
    assert comparison(make_records()).to_latex(max_columns=100).count(r"\begin{tabular}") == 1


def test_latex_that_is_too_long_for_a_page_is_continued(make_records: Make) -> None:
    few = comparison(make_records()).to_latex()
    many = comparison(make_records(views=("stripped", "deployed"))).to_latex()
    assert few.count(r"\begin{table*}") < many.count(r"\begin{table*}")
    assert many.count(r"\label{") == 1
    assert many.count(r"\caption{Continued.}") == many.count(r"\begin{table*}") - 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(hostile: Any, make_records: Make, tmp_path: Path) -> None:
    tables = (
        hostile.to_latex() + comparison(make_records(seeds=(0, 1), views=("stripped", "deployed"))).to_latex()
    )
    source = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{tables}\end{{document}}"
    (tmp_path / "t.tex").write_text(source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if "booktabs.sty' not found" in done.stdout:
        pytest.skip("needs booktabs")
    assert done.returncode == 0, done.stdout[-2000:]


class Balance(HTMLParser):
    """Checks that every tag is closed by its own name, and collects tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_balanced_and_escaped(hostile: Any) -> None:
    page = Balance()
    page.feed(hostile.to_html(lambda cell, metric: f"cells/{cell}/index.html#{metric}"))
    assert page.open == []
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert "<script>alert(1)</script>" in page.text
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")


def test_html_links_every_number_to_its_cell(few_records: list[dict[str, Any]]) -> None:
    page = Balance()
    page.feed(comparison(few_records).to_html(lambda cell, metric: f"{cell}#{metric}"))
    links = {str(attrs["href"]) for tag, attrs in page.tags if tag == "a"}
    measured = [record["cell"] for record in few_records if record["status"] == "ok"]
    assert {
        f"{cell}#{metric}" for cell in measured for metric in ("mc_all", "mc_target", "aa", "fid")
    } <= links
    assert all(any(link.startswith(record["cell"]) for link in links) for record in few_records)


def test_html_columns_add_up(make_records: Make) -> None:
    page = Balance()
    table = comparison(make_records())
    page.feed(table.to_html())
    cells = [attrs for tag, attrs in page.tags if tag == "td"]
    spanned = sum(int(attrs.get("colspan") or 1) for attrs in cells)
    assert spanned == len(table.rows) * len(table.defenses) * len(table.metrics)
