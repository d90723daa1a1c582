"""Writes a table made again in every form; returns the files."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from mibench.report.atomic import write_bytes, write_text
from mibench.report.look import DPI, look
from mibench.reproduce import faces, page, picture, tex, text
from mibench.reproduce.result import Reproduction

FACES = "faces.png"


def write(found: Reproduction, folder: Path, *, images: Path | None = None) -> list[Path]:
    """table.{md,tex,csv,html,png}, table_page.tex and claims.csv; of a figure also faces.png.

    Args:
        found: the table.
        folder: where they go.
        images: the results folder with the cells' images; None: `folder`.

    Raises:
        RecordError: a cell's images do not agree with their layout.
    """
    shown = faces.to_figure(found, images or folder) if "/fig" in found.layout.name else None
    texts = {
        "table.md": text.to_markdown(found),
        "table.csv": text.numbers_csv(found),
        "claims.csv": text.claims_csv(found),
        "table.tex": tex.to_latex(found),
        "table_page.tex": tex.PAGE,
        "table.html": page.to_html(found, picture="" if shown is None else FACES),
    }
    paths = [write_text(folder / name, content) for name, content in texts.items()]
    paths.append(_save(picture.to_figure(found), folder / "table.png"))
    if shown is not None:
        paths.append(_save(shown, folder / FACES))
    return paths


def _save(figure: Figure, path: Path) -> Path:
    """The figure as PNG, without dates, so that equal records give equal bytes."""
    out = io.BytesIO()
    with look():
        figure.savefig(out, format="png", metadata={"Software": None}, dpi=DPI)
    return write_bytes(path, out.getvalue())
