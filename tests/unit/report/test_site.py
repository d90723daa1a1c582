"""The pages: every link leads somewhere, nothing is loaded from elsewhere, hostile labels stay text."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import pytest

from mibench.errors import RecordError
from mibench.report import write_all, write_site
from mibench.report.evidence import repeat_command

Make = Callable[..., Any]
VOID = {"col", "meta", "img"}


class Page(HTMLParser):
    """A page's tags, links, anchors and text; checks that tags are balanced."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "title"}:
            self.text += data

    def values(self, name: str) -> list[str]:
        """All values of an attribute."""
        return [value for _, attrs in self.tags if (value := attrs.get(name)) is not None]


def pages_of(folder: Path) -> list[Path]:
    return [folder / "index.html", *sorted((folder / "cells").glob("*/index.html"))]


def test_every_link_and_image_is_there(results_dir: Path, few_records: list[dict[str, Any]]) -> None:
    paths = pages_of(results_dir)
    assert len(paths) == 1 + len(few_records)
    anchors = {path.resolve(): set(Page(path).values("id")) for path in paths}
    for path in paths:
        page = Page(path)
        for address in page.values("href") + page.values("src"):
            assert "://" not in address
            target, anchor = urldefrag(address)
            there = (path.parent / target).resolve() if target else path.resolve()
            assert there.is_file(), address
            assert not anchor or anchor in anchors[there], address


def test_pages_can_be_read_without_seeing_them(results_dir: Path) -> None:
    for path in pages_of(results_dir):
        page = Page(path)
        images = [attrs for tag, attrs in page.tags if tag == "img"]
        assert all(len(attrs.get("alt") or "") > 20 for attrs in images)
        assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
        assert [attrs.get("lang") for tag, attrs in page.tags if tag == "html"] == ["en"]
        assert not [tag for tag, _ in page.tags if tag == "script"]


def test_the_index_tells_what_a_reader_must_know(results_dir: Path) -> None:
    text = " ".join(Page(results_dir / "index.html").text.split())
    for fact in (
        "10 measured, 1 failed, 1 blocked",
        "1 of 12 cells failed",
        "97.4 %",
        "mean_face",
        "constant reconstructions (1 cell)",
        "<script>alert(1)</script>",
    ):
        assert fact in text


def test_a_cell_page_holds_its_whole_record(results_dir: Path, few_records: list[dict[str, Any]]) -> None:
    record = few_records[0]
    page = Page(results_dir / "cells" / record["cell"] / "index.html")
    text = " ".join(page.text.split())
    estimate = record["estimates"]["aa"]
    facts = [
        f"{100 * estimate['value']:.1f} %",
        f"{100 * estimate['low']:.1f} % to {100 * estimate['high']:.1f} %",
        "mibench run quick --attack dmi --defense none --seed 0 --out repeated",
        "params: steps",
        record["keys"]["train"],
        record["provenance"]["torch"],
        record["data"]["digest"],
        "1200",
    ]
    assert [fact for fact in facts if fact not in text] == []
    assert set(record["metric_info"]) <= set(page.values("id"))
    assert "reconstructions.png" in page.values("src")


def test_a_failed_cell_shows_its_error_as_text(results_dir: Path, few_records: list[dict[str, Any]]) -> None:
    page = Page(results_dir / "cells" / few_records[1]["cell"] / "index.html")
    assert "TrainingError: <script>alert(1)</script> & \ufffd[31mred" in page.text
    assert "reconstructions.png" not in page.values("src")


def test_images_of_real_persons_are_withheld(
    results_dir: Path, few_records: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "quick"
    shutil.copytree(results_dir / "cells", folder / "cells")  # the images are there, and still not shown
    write_site([r | {"data": r["data"] | {"kind": "celeba"}} for r in few_records], folder)
    for path in pages_of(folder):
        assert Page(path).values("src") == []
    assert "celeba are withheld" in " ".join(Page(folder / "index.html").text.split())


def test_hostile_labels_stay_text(make_record: Make, tmp_path: Path) -> None:
    label = '"><script>alert(1)</script>'
    record = make_record((label, "score", False, 0.5), (label, "training", 0.9, 0.5), flags=[label])
    record["notes"] = {label: label}
    for path in write_site([record], tmp_path):
        assert "<script" not in path.read_text()
        assert label in Page(path).text


def test_the_command_quotes_labels(make_record: Make) -> None:
    record = make_record(("a b; rm -rf /", "score", False, 0.5))
    assert (
        repeat_command(record, None)
        == "mibench run quick --attack 'a b; rm -rf /' --defense none --seed 0 --out repeated"
    )


def test_pages_repeat_bit_for_bit(results_dir: Path, few_records: list[dict[str, Any]]) -> None:
    before = {path: path.read_bytes() for path in pages_of(results_dir)}
    assert set(write_site(few_records, results_dir)) == set(before)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_writing_everything_leaves_nothing_unfinished(results_dir: Path) -> None:
    assert not [path for path in results_dir.rglob("*") if path.name.startswith(".")]
    tables = {path.name for path in (results_dir / "tables").iterdir()}
    assert tables == {
        *("comparison.csv", "comparison_long.csv", "comparison.md", "comparison.tex", "comparison.html"),
        *("by-defense.md", "cells.csv"),
    }
    Page(results_dir / "tables" / "comparison.html")


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"records\.jsonl"):
        write_all(tmp_path)
