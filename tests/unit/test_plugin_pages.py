"""The pages of plugins are those that their files and the committed records give."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from mibench.registry import plugin_names

ROOT = Path(__file__).parents[2]


def generated() -> dict[Path, str]:
    spec = importlib.util.spec_from_file_location("plugin_pages", ROOT / "docs" / "plugin_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: dict[Path, str] = module.pages(ROOT)
    return pages


def test_pages_are_fresh() -> None:
    stale = [str(path) for path, text in generated().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make readme`"


def test_every_attack_has_a_page() -> None:
    names = {path.stem for path in (ROOT / "docs" / "attacks").glob("*.md")} - {"README"}
    assert names == set(plugin_names("attacks"))
