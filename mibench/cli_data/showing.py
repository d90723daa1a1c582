"""`mibench data show`: all about a known set or a prepared one, in words or as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from mibench.cli_data.printing import console, safe, table
from mibench.errors import DataError

if TYPE_CHECKING:
    from mibench.data.layouts.layout import Facts
    from mibench.data.prepared import PreparedSet
    from mibench.data.shelf import Shelved

_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 24  # of the line that shows how many people have how many images
_NAMED = 3  # files named for each reason


def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME|DIR", help="A set that mibench knows, or a folder that was prepared."),
    ],
    *,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", metavar="FILE", help="Write a picture of some images, a PNG file."),
    ] = None,
    identities: Annotated[int, typer.Option(min=1, max=100, help="With --sheet: people on it.")] = 8,
    images: Annotated[int, typer.Option(min=1, max=50, help="With --sheet: images of each.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="With --sheet: draws who is on it.")] = 0,
    root: Annotated[Path, typer.Option("--root", metavar="DIR", help="The folder of prepared sets.")] = Path(
        "data"
    ),
) -> None:
    """Show what is known of a set: its terms, its folder, what was prepared and what was left out."""
    from mibench.data.preparing_state import PART
    from mibench.data.shelf import is_set, shelved

    places = (Path(name), root / name, Path(name + PART), root / (name + PART))
    folder = next((one for one in places if one.is_dir() and is_set(one)), None)
    if folder is None:
        if sheet is not None:
            raise DataError(
                f"'{name}' is no prepared set, so there are no images for a sheet. Give its folder."
            )
        return _show_known(name, root)
    if sheet is not None:
        return _write_sheet(folder, sheet, identities=identities, images=images, seed=seed)
    return _show_prepared(shelved(folder))


def _show_known(name: str, root: Path) -> None:
    """The facts of a layout; DataError where there is none of that name."""
    from mibench.data.layouts import get_layout
    from mibench.data.shelf import shelf

    try:
        facts = get_layout(name).facts
    except DataError as error:
        if not Path(name).is_dir():
            raise
        raise DataError(
            f"{name}: holds no set.json and no preparation. Make a set of it by `mibench data prepare NAME "
            f"--from {name}`; `mibench data list` shows the names."
        ) from error
    out = console()
    out.print(Text.assemble((facts.name, "bold"), f"  {facts.title}"))
    rows = [
        ("home", facts.home),
        ("to get it", facts.get),
        ("terms", facts.terms),
        ("to cite", facts.citation),
    ]
    rows += [("may be shown", _shown(may_publish=facts.may_publish)), ("people", _people(facts))]
    rows += [("prepared as", _prepared_as(facts))]
    there = [str(one.folder) for one in shelf(root) if one.info and one.info.layout == facts.name]
    rows += [("prepared here", ", ".join(there) or f"not in {root}")]
    _print_rows(rows)
    out.print(Text("\nThe folder that --from names holds:", style="bold"))
    for line in facts.folder:
        out.print(Padding(Text(line), (0, 0, 0, 2)))
    out.print(Text(f"\nmibench data prepare {facts.name} --from DIR", style="bold"))


def _people(facts: Facts) -> str:
    if not facts.has_identities:
        return "it does not say who is on an image, so it can be public data alone"
    return "it says who is on an image"


def _prepared_as(facts: Facts) -> str:
    color = "RGB" if facts.channels == 3 else "gray"
    crop = f"the middle {facts.crop} pixels" if facts.crop else "the largest square in the middle"
    source = f" ({facts.crop_source})" if facts.crop_source else ""
    marks = "; its landmarks align faces by --align landmarks" if facts.has_landmarks else ""
    return f"{facts.size}x{facts.size} {color} from {crop}{source}{marks}"


def _shown(*, may_publish: bool) -> str:
    return "yes" if may_publish else "no: keep images, and what attacks make of them, to yourself"


def _show_prepared(one: Shelved) -> None:
    """Everything about a prepared set, or how far it is."""
    out = console()
    if one.state == "unfinished":
        out.print(Text.assemble((one.name, "bold"), "  unfinished: ", safe(one.text)))
        return
    if one.state == "damaged":
        raise DataError(f"prepared set {one.folder}: {one.text}")
    from mibench.data.prepared import PreparedSet

    found = PreparedSet(one.folder)
    info = found.info
    out.print(Text.assemble((one.name, "bold"), "  ", safe(info.title)))
    rows = [("folder", str(one.folder)), ("layout", info.layout), ("home", info.home), ("terms", info.terms)]
    rows += [("to cite", info.citation), ("may be shown", _shown(may_publish=info.may_publish))]
    color = "RGB" if info.channels == 3 else "gray"
    rows += [("images", f"{info.images:,}, {info.size}x{info.size} {color}"), ("digest", info.digest)]
    _print_rows([*rows, *_identity_rows(found)])
    options = [
        (name, "none" if value is None else str(value)) for name, value in sorted(info.options.items())
    ]
    _print_part("Prepared with", options)
    _print_part("Left out", _skip_rows(found))
    _print_part("Converted", [(name, f"{count:,}") for name, count in sorted(info.converted.items())])
    _print_part("Splits beside it", _split_rows(one.folder))
    _print_part("Made with", sorted(info.made_with.items()))


def _identity_rows(found: PreparedSet) -> list[tuple[str, str]]:
    """How many people, and how many images they have."""
    if not found.info.has_identities:
        return [("people", "not known; each image stands for itself")]
    from statistics import median

    from mibench.data.health import images_each

    counts = images_each(found)
    low, high = min(counts), max(counts)
    each = f"{low} to {high} images each, median {median(counts):g}"
    line, width = histogram(counts)
    rows = [("people", f"{len(counts):,}: {each}")]
    if low != high:
        rows.append(("", f"{low} {line} {high}  people by images, {width} a bar"))
    return rows


def histogram(counts: Sequence[int]) -> tuple[str, int]:
    """A line of bars from the least to the greatest count, and how many counts fall into one bar.

    A bar is empty where nothing falls into it alone.

    >>> histogram([1, 1, 2, 4])
    ('█▄ ▄', 1)
    """
    low, high = min(counts), max(counts)
    width = -(-(high - low + 1) // _BINS)
    bins = [0] * ((high - low) // width + 1)
    for count in counts:
        bins[(count - low) // width] += 1
    top = max(bins)
    # rounded up, so that a single one among thousands is still to be seen
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // top)] for count in bins), width


def _skip_rows(found: PreparedSet) -> list[tuple[str, str]]:
    """Reasons with their numbers and the first few files, the most frequent first."""
    rows = []
    for reason, count in sorted(found.info.skipped.items(), key=lambda pair: (-pair[1], pair[0])):
        files = islice((line["file"] for line in found.skipped() if line["reason"] == reason), _NAMED)
        more = " ..." if count > _NAMED else ""
        rows.append((f"{count:,}", f"{reason}: {', '.join(files)}{more}"))
    return rows


def _split_rows(folder: Path) -> list[tuple[str, str]]:
    from mibench.data.split_file import SplitFile
    from mibench.data.verifying_splits import splits_beside

    rows = []
    for file in splits_beside(folder):
        try:
            parts = SplitFile.read(file).parts
            text = ", ".join(f"{part} {len(chosen.people):,}" for part, chosen in parts.items())
        except DataError as error:
            text = str(error)
        rows.append((file.name, text))
    return rows


def _print_part(heading: str, rows: Sequence[tuple[str, str]]) -> None:
    if rows:
        console().print(Text(f"\n{heading}", style="bold"))
        _print_rows(rows)


def _print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values; values are wrapped below themselves, and empty ones left out."""
    found = table("", "")
    found.show_header = False
    for name, value in rows:
        if value:
            found.add_row(safe(name, 40), safe(value, 1000))
    console().print(found)


def _write_sheet(folder: Path, file: Path, *, identities: int, images: int, seed: int) -> None:
    """Write the picture, and say what the terms are where they forbid to publish it.

    Raises:
        DataError: the file is there, is to be a picture of another kind, or may be published by accident.
    """
    from mibench.data.contact_sheet import check_place, contact_sheet, draw_strips
    from mibench.data.prepared import PreparedSet
    from mibench.report.atomic import write_bytes
    from mibench.report.escape import plain

    found = PreparedSet(folder)
    info = found.info
    check_place(file, may_publish=info.may_publish)
    strips = draw_strips(found, identities=identities, images=images, seed=seed)
    shown = [type(strip)(plain(strip.label, 200), strip.about, strip.images) for strip in strips]
    color = "RGB" if info.channels == 3 else "gray"
    of = (
        f"{info.images:,} images, {info.identities:,} people"
        if info.has_identities
        else f"{info.images:,} images"
    )
    terms = "" if info.may_publish else f"Not to be published. Terms: {plain(info.terms, 1000)}"
    about = f"{info.size}x{info.size} {color}; drawn with seed {seed} from {of}"
    data = contact_sheet(shown, title=plain(f"{info.name}: {info.title}", 200), about=about, terms=terms)
    try:
        write_bytes(file, data)
    except OSError as error:
        raise DataError(
            f"contact sheet {file}: cannot be written ({error.strerror or error}). Choose another place."
        ) from error
    console().print(safe(file))
    if terms:
        console().print(safe(terms))
