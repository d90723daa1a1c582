"""Put the table of a results folder between the markers of a Markdown page, in place.

Usage: python docs/embed_table.py results/quick README.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mibench.record import read_records
from mibench.report.table import comparison


def embed(page: str, results: Path) -> str:
    """The page with the table of `results` between its markers.

    Raises:
        ValueError: the page has no markers for these results.
    """
    start, end = f"<!-- table: {results.as_posix()} -->", "<!-- /table -->"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"page: no '{start}' before a '{end}'. Add the two markers.")
    table = comparison(read_records(results / "records.jsonl"), metrics=("mc_all", "mc_target", "aa", "fid"))
    block = f"{start}\n{table.to_markdown().strip()}\n{end}"
    return pattern.sub(lambda _: block, page)


if __name__ == "__main__":
    folder, file = Path(sys.argv[1]), Path(sys.argv[2])
    file.write_text(embed(file.read_text(encoding="utf-8"), folder), encoding="utf-8")
