"""A table made again as a page that needs no other file."""

from __future__ import annotations

import jinja2

from mibench.report.table_html import environment
from mibench.reproduce.result import Reproduction
from mibench.reproduce.sheet import SIGNS, evidence_text, measured_text, reported_text, sheet, sign


def to_html(found: Reproduction, *, picture: str = "") -> str:
    """The page; `picture` is the name of a figure beside it."""
    folders = [jinja2.PackageLoader(name, "templates") for name in ("mibench.reproduce", "mibench.report")]
    return (
        environment()
        .overlay(loader=jinja2.ChoiceLoader(folders))
        .get_template("reproduced.html.j2")
        .render(
            found=found,
            sheet=sheet(found),
            signs=SIGNS,
            evidence=evidence_text,
            measured=measured_text,
            reported=reported_text,
            sign=sign,
            picture=picture,
        )
    )
