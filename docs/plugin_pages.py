"""Write one page for each attack and defense from its file, its card and the committed records.

Nothing on these pages is typed by hand. Usage: python docs/plugin_pages.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from attack_pages import attack_pages
from defense_pages import defense_pages

ROOT = Path(__file__).resolve().parent.parent


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Text of every page by its file, of the records and benchmarks under `root`."""
    return {**attack_pages(root), **defense_pages(root)}


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    sys.exit(0)
