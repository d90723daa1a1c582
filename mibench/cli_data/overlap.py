"""`mibench data overlap`: pictures and people that stand in two parts of a split."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mibench.cli_data.printing import bar, console, safe, table
from mibench.cli_options import Device, DeviceOption
from mibench.errors import DataError

if TYPE_CHECKING:
    from mibench.data.source import Part
    from mibench.overlap import Duplicates, Likenesses, Lookalike, SplitImages


class Drop(StrEnum):
    """What a new split file leaves out."""

    duplicates = "duplicates"
    identities = "identities"


SplitArgument = Annotated[
    Path, typer.Argument(metavar="SPLIT", help="A file that `mibench data split` wrote.")
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="facenet-pytorch's InceptionResnetV1, to tell people."),
]
Hamming = Annotated[int, typer.Option(min=0, max=64, help="Bits of 64 that two hashes may differ in.")]
Epochs = Annotated[
    int,
    typer.Option(min=0, help="Of the net that tells people, without --weights; 0 looks for pictures alone."),
]
DropOption = Annotated[
    Drop | None,
    typer.Option("--drop", help="Write a split without public near-duplicates, or without lookalikes too."),
]
To = Annotated[
    Path | None,
    typer.Option("--to", metavar="FILE", help="With --drop: the new file. Default: SPLIT-DROP.json."),
]
Report = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The report. Default: SPLIT-overlap beside it."),
]
Show = Annotated[int, typer.Option(min=0, max=200, help="Pairs to show of each kind.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the net's training.")]


def overlap(
    split: SplitArgument,
    *,
    weights: Weights = None,
    hamming: Hamming = 6,
    epochs: Epochs = 30,
    drop: DropOption = None,
    to: To = None,
    out: Report = None,
    show: Show = 20,
    device: DeviceOption = Device.auto,
    seed: Seed = 0,
) -> None:
    """Find pictures and people that stand in two parts of a split, and drop them if you say so."""
    from mibench.cli_data.overlap_files import reasons, write_report
    from mibench.data.split_file import SplitFile
    from mibench.overlap import STEPS, SplitImages, near_duplicates

    found = SplitFile.read(split)
    is_asked = weights is not None or epochs > 0
    if drop is Drop.identities and not is_asked:
        raise DataError(
            "overlap: people are not compared with --epochs 0. Leave it out, or --drop duplicates."
        )
    images = SplitImages(found, found.open_sets(split))
    with bar("comparing pictures", STEPS) as advance:
        duplicates = near_duplicates(images, most_bits=hamming, advance=advance)
    _tell_duplicates(duplicates, show)
    people = _compare(images, weights, epochs, device, seed) if is_asked else None
    if people is not None:
        _tell_people(people, show)
    options = {"hamming": hamming, "weights": str(weights or ""), "epochs": epochs, "seed": seed}
    folder = out or split.with_name(f"{split.stem}-overlap")
    files = write_report(folder, images, duplicates, people, options=options, shown=show)
    typer.echo("\n" + "\n".join(str(file) for file in files))
    if drop is not None:
        likenesses = people if drop is Drop.identities else None
        gone = reasons(duplicates, _to_drop(likenesses) if likenesses else ())
        _write(images, split, to or split.with_name(f"{split.stem}-{drop.value}.json"), gone)


def _to_drop(people: Likenesses) -> tuple[Lookalike, ...]:
    """What is to go because somebody private is like it.

    Raises:
        DataError: people cannot be told apart.
    """
    if not people.can_tell:
        raise DataError(
            f"overlap: people cannot be told apart (accuracy {people.accuracy:.2f}), so none is dropped. "
            "Give --weights, or --drop duplicates."
        )
    return people.found


def _compare(images: SplitImages, weights: Path | None, epochs: int, device: Device, seed: int) -> Likenesses:
    from rich.console import Console
    from rich.status import Status

    from mibench.benchmark import pick_device
    from mibench.overlap import lookalikes
    from mibench.plugin import Context

    with Status("comparing people", console=Console(stderr=True)) as status:

        def on_progress(done: int, total: int, _values: dict[str, float]) -> None:
            status.update(f"learning to tell people: step {done:,} of {total:,}")

        ctx = Context(seed=seed, device=pick_device(device.value), on_progress=on_progress)
        return lookalikes(images, ctx, weights=weights, epochs=epochs)


def _tell_duplicates(found: Duplicates, show: int) -> None:
    counts = ", ".join(f"{count:,} {part}" for part, count in found.images.items())
    typer.echo(f"{counts} images; near-duplicates between parts: {len(found.found):,}")
    flat = sum(found.flat.values())
    if flat:
        typer.echo(f"flat images, which were compared with nothing: {flat:,}")
    if not found.found or not show:
        return
    rows = table("correlation", "bits", "part", "identity", "row", "is", "identity", "row", "")
    for one in found.found[:show]:
        rows.add_row(
            f"{one.correlation:.3f}",
            str(one.bits),
            one.other.part,
            safe(one.other.person, 24),
            str(one.other.row),
            one.kept.part,
            safe(one.kept.person, 24),
            str(one.kept.row),
            "mirrored" if one.move.mirrored else "",
        )
    console().print(rows)


def _tell_people(found: Likenesses, show: int) -> None:
    from mibench.overlap import LEAST_ACCURACY
    from mibench.report.escape import plain

    typer.echo(
        f"\npeople by {plain(found.space, 200)}: accuracy {found.accuracy:.2f} on private test images, "
        f"of which {found.chance:.2f} would be flagged as another private person"
    )
    if found.untested:
        typer.echo(f"private people without test images, who are left out: {found.untested}")
    counts = " and ".join(f"{count:,} {part}" for part, count in found.images.items())
    if not found.can_tell:
        typer.echo(
            f"cannot tell: the accuracy is below {LEAST_ACCURACY}. Give --weights of a net that knows faces."
        )
        return
    typer.echo(
        f"{len(found.found):,} of {counts} images are as like a private person as half of that person's own"
    )
    if not found.found or not show:
        return
    rows = table("likeness", "own", "part", "identity", "row", "private person")
    for one in found.found[:show]:
        rows.add_row(
            f"{one.likeness:.3f}",
            f"{one.own:.3f}",
            one.other.part,
            safe(one.other.person, 24),
            str(one.other.row),
            safe(one.nearest.person, 24),
        )
    console().print(rows)


def _write(images: SplitImages, split: Path, file: Path, gone: dict[Part, dict[int, dict[str, Any]]]) -> None:
    """Write the split without some images beside, or say that there is nothing to leave out."""
    import dataclasses

    from mibench.data.dividing import write_split
    from mibench.data.dropping import without
    from mibench.data.split_file import link_to

    if not gone:
        typer.echo("Nothing to drop: no new split is written.")
        return
    made = without(images.split, images.sets, gone)
    sets = {name: link_to(found, file) for name, found in images.sets.items()}
    write_split(dataclasses.replace(made, sets=sets), file)
    counts = ", ".join(f"{len(rows):,} of {part}" for part, rows in gone.items())
    typer.echo(f"dropped {counts}\n{file}\nNext: `mibench run SUITE --split {file}`.")
