"""`mibench data verify`: whether sets and splits still are what was written down about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mibench.cli_data.printing import bar, fail_if, print_findings
from mibench.errors import DataError


def verify(
    places: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of prepared sets, or split files.")
    ],
    split: Annotated[
        list[Path] | None,
        typer.Option("--split", metavar="FILE", help="A split beside those in DIR/splits. May be repeated."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--source", metavar="DIR", help="Compare this folder with what the set was made from."),
    ] = None,
) -> None:
    """Compute the digests of prepared sets and their splits again, one line a check.

    Exit code 1 where a check failed.
    """
    folders = [place for place in places if place.suffix != ".json"]
    splits = [place for place in places if place.suffix == ".json"] + (split or [])
    if source is not None and len(folders) != 1:
        raise typer.BadParameter("goes with one set.", param_hint="--source")
    for place in (*folders, *splits, *([source] if source else [])):
        if not place.exists():
            raise DataError(f"{place}: there is no such file or folder. `mibench data list` shows the sets.")
    damaged: list[Path] = []
    failed = 0
    for folder, about in zip(folders, _told_apart(folders)):
        broken = _verify_folder(folder, about)
        damaged += [folder] if broken else []
        failed += broken
    beside = [file for folder in folders for file in _splits_beside(folder)]
    failed += sum(_verify_split(file, damaged) for file in (*beside, *splits))
    if source is not None:
        failed += _verify_source(folders[0], source)
    fail_if(failed)


def _told_apart(folders: list[Path]) -> list[str]:
    """What stands before each set's lines: nothing for one, names for several, paths if those are equal."""
    if len(folders) == 1:
        return [""]
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _verify_folder(folder: Path, about: str) -> int:
    """Check a set; the number of failed checks."""
    from mibench.data.verifying import bytes_to_read, verify_set

    with bar("reading", bytes_to_read(folder), is_bytes=True) as moved:
        return print_findings(verify_set(folder, moved), about)


def _splits_beside(folder: Path) -> list[Path]:
    from mibench.data.verifying_splits import splits_beside

    return splits_beside(folder)


def _verify_split(file: Path, damaged: list[Path]) -> int:
    from mibench.data.verifying_splits import verify_split

    return print_findings(verify_split(file, damaged=damaged))


def _verify_source(folder: Path, source: Path) -> int:
    from mibench.data.prepared import PreparedSet
    from mibench.data.verifying import verify_source

    with bar("reading", PreparedSet(folder).info.images) as moved:
        return print_findings([verify_source(folder, source, moved)])
