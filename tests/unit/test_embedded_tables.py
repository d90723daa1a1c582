"""The tables on the pages are those that the committed records give."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in (
        ROOT / "README.md",
        ROOT / "docs" / "gpu.md",
        *sorted((ROOT / "results").glob("*/README.md")),
    )
    if "<!-- table:" in page.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_come_from_records(page: Path) -> None:
    spec = importlib.util.spec_from_file_location("embed_table", ROOT / "docs" / "embed_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = page.read_text(encoding="utf-8")
    assert module.embed(text, ROOT) == text, "run `make readme`"


def test_there_are_tables() -> None:
    assert ROOT / "README.md" in PAGES
