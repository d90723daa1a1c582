"""Write the table of docs/statistics.md: what so many people can show at best.

It stands between `<!-- least p -->` and `<!-- /least p -->`. Usage: python docs/statistics_page.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mibench.power import ALPHA
from mibench.statistics import least_sign_flip

PAGE = Path(__file__).resolve().parent / "statistics.md"
MARKED = re.compile(r"(<!-- least p -->\n).*?(<!-- /least p -->)", re.DOTALL)
PEOPLE = (2, 5, 6, 8, 10, 12, 20)


def page(text: str) -> str:
    """The page with the table made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{table()}{found[2]}", text)


def table() -> str:
    """For some numbers of people the least p-value, and among how many comparisons it stays significant."""
    lines = ["| people | least p | significant at best among |", "|---:|---:|---|"]
    for people in PEOPLE:
        least = least_sign_flip(people)
        rivals = int(ALPHA / least)  # Holm multiplies the least p-value by the number of comparisons
        told = f"{rivals} comparison{'s' if rivals > 1 else ''}" if rivals else "nothing"
        lines.append(f"| {people} | {least:.2g} | {told} |")
    return "\n" + "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
