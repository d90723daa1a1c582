"""Whether a split still divides the sets that it was drawn from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mibench.data.finding import Finding, counted
from mibench.data.prepared import PreparedSet
from mibench.data.source import PARTS, Part
from mibench.data.split_file import SplitFile, part_digest
from mibench.errors import DataError

_ANEW = "Divide anew by `mibench data split`."


def splits_beside(folder: str | Path) -> list[Path]:
    """The split files in `splits/` of a folder, by name."""
    return sorted(file for file in (Path(folder) / "splits").glob("*.json") if file.is_file())


def verify_split(path: str | Path, *, with_pixels: bool = True) -> Iterator[Finding]:
    """Hold a split against itself and against its sets.

    Args:
        path: of the split file.
        with_pixels: whether the digests of the parts are computed again, which reads their images.
    """
    what = f"split {Path(path).name}"
    try:
        split = SplitFile.read(path)
    except DataError as error:  # LeakError among them: one identity in two parts
        yield Finding("fail", what, str(error))
        return
    counts = ", ".join(f"{len(split.parts[part].people):,} {part}" for part in PARTS)
    yield Finding("ok", what, f"no identity stands in two parts: {counts}")
    for part in PARTS:
        problem = _part_problem(split, part, Path(path), with_pixels=with_pixels)
        chosen = split.parts[part]
        images = counted(len(chosen.train) + len(chosen.test), "image")
        text = f"{images} of '{chosen.set_name}', as divided"
        yield (
            Finding("fail", f"{what}, {part}", problem) if problem else Finding("ok", f"{what}, {part}", text)
        )


def _part_problem(split: SplitFile, part: Part, path: Path, *, with_pixels: bool) -> str | None:
    chosen = split.parts[part]
    try:
        found = split.open_set(part, path)
        problem = _rows_problem(split, part, found)
        if problem is None and with_pixels and part_digest(found.pixels, chosen.people) != chosen.digest:
            problem = f"its images or names are not those that were divided. {_ANEW}"
    except DataError as error:
        return str(error)
    return problem


def _rows_problem(split: SplitFile, part: Part, found: PreparedSet) -> str | None:
    """Where a row is nobody's or another's.

    Raises:
        DataError: the set's manifest cannot be read.
    """
    if (found.info.size, found.info.channels) != (split.size, split.channels):
        return f"the set in {found.root} has another size or number of channels. {_ANEW}"
    for one in split.parts[part].people:
        own = found.rows_of.get(one.name)
        if own is None:
            return f"'{one.name}' is not in {found.root}. {_ANEW}"
        strange = [row for row in (*one.train, *one.test) if row not in own]
        if strange:
            theirs = f"whose rows are {own.start} to {own.stop - 1}"
            return f"row {strange[0]} is not of '{one.name}', {theirs}. {_ANEW}"
    return None
