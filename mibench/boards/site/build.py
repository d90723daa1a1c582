"""Writes the site of boards: a list of boards, and for each its table, its defenses and its nights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mibench.boards.board import Board
from mibench.boards.site.board_page import board_values
from mibench.boards.site.defense_page import PICTURES, defense_values
from mibench.boards.site.folder import replaced
from mibench.boards.site.night_page import index_values, night_values
from mibench.boards.site.reading import Sheet, read_sheet
from mibench.boards.site.rendering import ASSETS, assets, render


def build_site(boards: Sequence[Board], out: Path, *, results: Sequence[Path] = ()) -> list[Path]:
    """Replace the folder `out` by the site of the boards; returns its pages, the list of boards first.

    Nothing is run: no plugin is imported, records and histories are read as data. The old site stays until
    the new one is whole.

    Args:
        boards: of which the site is.
        out: the site's folder; made if need be.
        results: folders of results, in which pictures and evidence of cells are looked for, in this order;
            the folder of the board itself comes before them.

    Raises:
        BoardError: a board cannot be used, or `out` is no site.
        RecordError: records cannot be used.
    """
    sheets = [read_sheet(board) for board in boards]
    with replaced(out) as folder:
        for name, content in assets().items():
            _write(folder / ASSETS / name, content)
        pages = [_page(folder / "index.html", "boards.html.j2", root="", **index_values(sheets))]
        for sheet in sheets:
            pages += _board(sheet, folder / sheet.board.name, results)
        return [out / page.relative_to(folder) for page in pages]


def _board(sheet: Sheet, folder: Path, results: Sequence[Path]) -> list[Path]:
    """Write the pages of a board."""
    places = [sheet.board.folder, *results]
    pages = [
        _page(folder / "index.html", "board.html.j2", **board_values(sheet)),
        _page(folder / "nights.html", "nights.html.j2", **night_values(sheet)),
    ]
    for row in sheet.standings.rows:
        values, pictures = defense_values(sheet, row, places)
        for name, content in pictures.items():
            _write(folder / PICTURES / name, content)
        pages.append(_page(folder / sheet.files[row.name], "defense.html.j2", **values))
    return pages


def _page(file: Path, template: str, /, *, root: str = "../", **values: object) -> Path:
    """Write a page; returns its file."""
    _write(file, render(template, root=root, **values).encode())
    return file


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
