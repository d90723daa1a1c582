"""Fill the marked tables of Markdown pages from records, in place: no number is typed by hand.

A table stands between `<!-- table: RESULTS METRIC,METRIC -->` and `<!-- /table -->`; "by-defense" or "paired"
in the place of the metrics takes that table.
Usage: python docs/embed_table.py README.md results/quick/README.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mibench.record import read_records
from mibench.report.by_defense import by_defense
from mibench.report.paired import differences, to_markdown
from mibench.report.table import comparison

MARKED = re.compile(r"(<!-- table: (\S+) (\S+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def embed(page: str, root: Path) -> str:
    """The page with every marked table made anew.

    Args:
        page: Markdown text with markers.
        root: folder that the paths in the markers start from.

    Raises:
        RecordError: the records cannot be read, or hold none of the metrics.
    """
    return MARKED.sub(lambda found: _table(found, root), page)


def _table(found: re.Match[str], root: Path) -> str:
    start, folder, metrics, end = found.groups()
    records = read_records(root / folder / "records.jsonl")
    if metrics == "by-defense":
        text = by_defense(records)
    elif metrics == "paired":
        text = to_markdown(differences(records))
    else:
        text = comparison(records, metrics=metrics.split(",")).to_markdown()
    return f"{start}{text.strip()}\n{end}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        file = Path(name)
        file.write_text(embed(file.read_text(encoding="utf-8"), Path.cwd()), encoding="utf-8")
