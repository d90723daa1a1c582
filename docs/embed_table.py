"""Fill the marked tables of Markdown pages from records, in place: no number is typed by hand.

A table stands between `<!-- table: RESULTS METRIC,METRIC -->` and `<!-- /table -->`; "by-defense" or "paired"
in the place of the metrics takes that table. "claims" takes those of a reproduced table; the ones about one
attack of several are left out. "stages" takes the rows of a profile, "expected-SUITE" the page of that name.
Usage: python docs/embed_table.py README.md results/quick/README.md
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from pathlib import Path

from mibench.record import read_records
from mibench.report.by_defense import by_defense
from mibench.report.escape import markdown
from mibench.report.paired import differences, to_markdown
from mibench.report.profile_page import stages
from mibench.report.table import comparison

MARKED = re.compile(r"(<!-- table: (\S+) (\S+) -->\n).*?(<!-- /table -->)", re.DOTALL)

_OF_ONE_ATTACK = {"lowers AA", "at chance"}


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
    if metrics == "claims":
        return f"{start}{_claims(root / folder / 'claims.csv')}\n{end}"
    if metrics == "stages":
        profile = json.loads((root / folder / "profile.json").read_text(encoding="utf-8"))
        return f"{start}{stages(profile)}\n{end}"
    if metrics.startswith("expected-"):
        return f"{start}{(root / folder / f'{metrics}.md').read_text(encoding='utf-8').strip()}\n{end}"
    records = read_records(root / folder / "records.jsonl")
    if metrics == "by-defense":
        text = by_defense(records)
    elif metrics == "paired":
        text = to_markdown(differences(records))
    else:
        text = comparison(records, metrics=metrics.split(",")).to_markdown()
    return f"{start}{text.strip()}\n{end}"


def _claims(file: Path) -> str:
    """A pipe table of the claims but for those about one attack among several, and counts of all."""
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    lines = ["| claim | measured: points; distances in %, errors as they are | verdict |", "|---|---|---|"]
    for row in rows:
        if row["kind"] in _OF_ONE_ATTACK and " " not in row["attacks"]:
            continue
        if row["effect"]:
            effect, low, high = (_shown(float(row[end]), row["kind"]) for end in ("effect", "low", "high"))
            measured = f"{effect} [{low} to {high}], {row['num']} {row['of']}"
        else:
            measured = ""
        lines.append(
            f"| {markdown(row['sentence'])} | {measured} | {row['verdict']}: {markdown(row['why'])} |"
        )
    counts = Counter(row["verdict"] for row in rows)
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    return "\n".join([*lines, "", f"All claims, those about single attacks included: {told}."])


def _shown(value: float, kind: str) -> str:
    """Points or percent; errors of images in the squares of pixels that they are."""
    return f"{value:+.4f}" if kind == "raises error" else f"{100 * value:+.1f}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        file = Path(name)
        file.write_text(embed(file.read_text(encoding="utf-8"), Path.cwd()), encoding="utf-8")
