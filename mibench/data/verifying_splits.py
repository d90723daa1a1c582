"""Whether a split still divides the sets that it was drawn from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from mibench.data.damage import damage_told
from mibench.data.finding import Finding, counted
from mibench.data.prepared import PreparedSet
from mibench.data.source import PARTS, Part
from mibench.data.split_file import SplitFile, part_digest
from mibench.errors import DataError

_EDITED = (
    "The set is as it was made, so the split file was edited: put it back, or divide anew by `mibench data "
    "split --name` under another name."
)


def splits_beside(folder: str | Path) -> list[Path]:
    """The split files in `splits/` of a folder, by name."""
    return sorted(file for file in (Path(folder) / "splits").glob("*.json") if file.is_file())


def called(path: str | Path) -> str:
    """What a line calls a split file: beside a set with the set's folder, since many are called default.

    >>> called("data/mine-32/splits/default.json"), called("data/mine.json")
    ('split mine-32/default.json', 'split mine.json')
    """
    folder, name = Path(path).absolute().parent, Path(path).name
    return f"split {folder.parent.name}/{name}" if folder.name == "splits" else f"split {name}"


def verify_split(
    path: str | Path, *, with_pixels: bool = True, damaged: Collection[Path] = ()
) -> Iterator[Finding]:
    """Hold a split against itself and against its sets.

    Args:
        path: of the split file.
        with_pixels: whether the digests of the parts are computed again, which reads their images; if not,
            the files of the sets are looked for alone, and their sizes compared.
        damaged: folders of sets whose damage has been told; parts of them are not looked at.
    """
    what = called(path)
    try:
        split = SplitFile.read(path)
    except DataError as error:  # LeakError among them: one identity in two parts
        yield Finding("fail", what, str(error).removeprefix(f"split {path}: "))
        return
    counts = ", ".join(f"{len(split.parts[part].people):,} {part}" for part in PARTS)
    yield Finding("ok", what, f"no identity stands in two parts: {counts}")
    known = {folder.resolve() for folder in damaged}
    sets: dict[str, PreparedSet] = {}
    for name in split.sets:
        found = _opened(split, name, Path(path))
        told = damage_told(found, with_digests=False) if isinstance(found, PreparedSet) else found
        root = (Path(path).parent / split.sets[name].path).resolve()
        if told and root in known:
            text = f"its parts of '{name}' are not looked at, for that set is damaged"
            yield Finding("warn", what, text)
        elif told or not isinstance(found, PreparedSet):
            yield Finding("fail", f"{what}, set '{name}'", told)
        else:
            sets[name] = found
    for part in PARTS:
        if one := sets.get(split.parts[part].set_name):
            yield _part(split, part, one, what, with_pixels=with_pixels)


def _opened(split: SplitFile, name: str, path: Path) -> PreparedSet | str:
    """A set of a split, or why it cannot be used."""
    try:
        return split.open_named(name, path)
    except DataError as error:
        return str(error).removeprefix(f"split {path}: ")


def _part(split: SplitFile, part: Part, found: PreparedSet, what: str, *, with_pixels: bool) -> Finding:
    chosen = split.parts[part]
    try:
        problem = _rows_problem(split, part, found)
        if not problem and with_pixels and part_digest(found.pixels, chosen.people) != chosen.digest:
            problem = "its images or names are not those that were divided"
    except DataError as error:
        return Finding("fail", f"{what}, {part}", str(error).removeprefix(f"prepared set {found.root}: "))
    if problem:
        # a frozen split is not to be thrown away because a file of its set was changed
        advice = damage_told(found, with_digests=True) or _EDITED
        return Finding("fail", f"{what}, {part}", f"{problem}. {advice}")
    text = f"{counted(len(chosen.train) + len(chosen.test), 'image')} of '{chosen.set_name}'"
    if with_pixels:
        return Finding("ok", f"{what}, {part}", f"{text}, as divided")
    seen = "whose set is the one it names; `mibench data verify` computes the digests"
    return Finding("ok", f"{what}, {part}", f"{text}, {seen}")


def _rows_problem(split: SplitFile, part: Part, found: PreparedSet) -> str:
    """Where a row is nobody's or another's; a phrase, empty where none is.

    Raises:
        DataError: the set's manifest cannot be read.
    """
    if (found.info.size, found.info.channels) != (split.size, split.channels):
        return f"the set in {found.root} has another size or number of channels"
    for one in split.parts[part].people:
        own = found.rows_of.get(one.name)
        if own is None:
            return f"'{one.name}' is not in {found.root}"
        strange = [row for row in (*one.train, *one.test) if row not in own]
        if strange:
            theirs = f"whose rows are {own.start} to {own.stop - 1}"
            return f"row {strange[0]} is not of '{one.name}', {theirs}"
    return ""
