"""`mibench data prepare`: a data set that the user has, as one prepared set."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mibench.cli_options import Device, DeviceOption

if TYPE_CHECKING:
    from mibench.data.preparing import Done, Request

STOPPED = 130  # as the command line as a whole
_LINE_S = 30.0  # between lines where there is no terminal
_BAR_S = 0.1  # between changes of the bar


class Fit(StrEnum):
    """What becomes of an image that is no square."""

    crop = "crop"
    pad = "pad"


class Align(StrEnum):
    """Which points bring faces into one position."""

    none = "none"
    mtcnn = "mtcnn"
    landmarks = "landmarks"


Known = Annotated[str, typer.Argument(metavar="NAME", help="A data set of `mibench data list`.")]
From = Annotated[Path, typer.Option("--from", metavar="DIR", help="Where the set lies.")]
To = Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Default: data/<name>-<size>.")]
Size = Annotated[int | None, typer.Option(min=8, help="Height and width in pixels. Default: the set's own.")]
Channels = Annotated[
    int | None, typer.Option(min=1, max=3, help="3 for RGB, 1 for gray. Default: the set's own.")
]
Crop = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Side of the middle square that is kept, in pixels of an image; 0 keeps the largest. "
        "Default: the set's own, or the square around a face's box where the set has boxes.",
    ),
]
FitOption = Annotated[Fit, typer.Option(help="Crop to a square, or pad the whole image with black.")]
AlignOption = Annotated[
    Align, typer.Option(help="Bring faces into one position, by found points or by the set's own.")
]
Identities = Annotated[
    int | None, typer.Option(min=2, help="People to keep, those with most images. Default: all.")
]
MinImages = Annotated[int, typer.Option(min=1, help="Usable images that a person needs.")]
MaxImages = Annotated[
    int | None, typer.Option(min=1, help="Images kept of a person, the first by name. Default: all.")
]
MaxFileMb = Annotated[float, typer.Option(help="Larger files are left out, in 10^6 bytes.")]
Licence = Annotated[
    str, typer.Option(metavar="TEXT", help="What your licence allows, in place of the set's known terms.")
]
MayPublish = Annotated[bool, typer.Option("--may-publish", help="Your terms allow images on public pages.")]
SetName = Annotated[str, typer.Option("--name", help="Of the prepared set. Default: NAME.")]
AtOnce = Annotated[int | None, typer.Option(min=1, help="Images decoded at once. Default: the cores.")]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Begin anew, in place of what lies at the target; its splits stay."),
]


def prepare(
    name: Known,
    *,
    source: From,
    to: To = None,
    size: Size = None,
    channels: Channels = None,
    crop: Crop = None,
    fit: FitOption = Fit.crop,
    align: AlignOption = Align.none,
    identities: Identities = None,
    min_images: MinImages = 1,
    max_images: MaxImages = None,
    max_file_mb: MaxFileMb = 64,
    licence: Licence = "",
    may_publish: MayPublish = False,
    set_name: SetName = "",
    jobs: AtOnce = None,
    device: DeviceOption = Device.auto,
    restart: Restart = False,
) -> None:
    """Prepare a data set that you have: one array of images, and a list of who is on which.

    Stopped by whatever, the same command goes on. Nothing at the source is changed.
    """
    from mibench.data.layouts import get_layout
    from mibench.data.preparing import Request

    layout = get_layout(name)
    called = set_name or layout.facts.name
    request = Request(
        layout=layout,
        source=source,
        target=to or Path("data") / f"{called}-{size or layout.facts.size}",
        name=called,
        size=size,
        channels=channels,
        crop=crop,
        fit=fit.value,
        align=align.value,
        identities=identities,
        min_images=min_images,
        max_images=max_images,
        max_file_mb=max_file_mb,
        licence=licence,
        may_publish=may_publish,
        jobs=jobs or _cores(),
        device=_device(device) if align is Align.mtcnn else "cpu",
        restart=restart,
    )
    _tell(_made(request), request)


def _made(request: Request) -> Done:
    """The prepared set; typer.Exit where the user stops it."""
    from mibench.data.preparing import Interrupted
    from mibench.data.preparing import prepare as make

    try:
        with _watch() as on_progress:
            return make(request, on_progress=on_progress, on_note=_note)
    except Interrupted as stop:
        again = "the same command without --restart" if request.restart else "the same command"
        _note(f"stopped after {stop.images:,} images; {again} goes on")
        raise typer.Exit(STOPPED) from None


def _cores() -> int:
    """Cores of this process, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(device: Device) -> str:
    """Name of the device that faces are looked for on; torch is loaded for that alone."""
    from mibench.benchmark import pick_device

    return str(pick_device(device.value))


def _note(text: str) -> None:
    from mibench.report.escape import plain

    typer.echo(plain(text), err=True)


@contextmanager
def _watch() -> Iterator[Callable[[int, int, int], None]]:
    """Shows how far it is: a bar on a terminal, a line now and then anywhere else."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    stream = Console(file=sys.stderr)
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(
        *columns, TimeRemainingColumn(), console=stream, transient=True, disable=not stream.is_terminal
    ) as bar:
        line = bar.add_task("images", total=None)
        began: list[float] = []  # time and images at the first call: what an earlier run read is not its pace
        told = [time.monotonic()]

        def show(read: int, total: int, images: int) -> None:
            now = time.monotonic()
            began.extend((now, read) if not began else ())
            if now - told[0] < (_BAR_S if stream.is_terminal else _LINE_S) and read < total:
                return
            told[0] = now
            pace = (read - began[1]) / (now - began[0]) if now > began[0] else 0.0
            if stream.is_terminal:
                text = f"images read, {images:,} kept, {pace:,.0f}/s"
                bar.update(line, completed=read, total=max(read, total), description=text)
            elif read < total:
                _note(f"{read:,} of {total:,} images read, {images:,} kept, {pace:,.0f}/s")

        yield show


def _tell(done: Done, request: Request) -> None:
    """Print what was made, what was not, and what comes next."""
    from mibench.report.escape import plain

    info = done.info
    where = plain(str(done.root))
    if not done.is_new:
        typer.echo(f"{where}: there already and whole, with the same options and files. Nothing to do.")
    else:
        pace = (
            f" ({done.read:,} images read in {done.wall_s:.1f} s, {done.read / done.wall_s:,.0f}/s)"
            if done.read
            else ""
        )
        typer.echo(f"{where}: done{pace}")
    people = f"{info.identities:,} identities" if info.has_identities else "nobody named"
    kind = "RGB" if info.channels == 3 else "gray"
    typer.echo(f"{info.images:,} images, {people}, {info.size}x{info.size} {kind}")
    for title, counts in (("left out", info.skipped), ("converted", info.converted)):
        for reason, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            typer.echo(f"{title:9} {count:>9,}  {plain(reason)}")
    public = "Images may" if info.may_publish else "Images must not"
    if request.layout.facts.set_terms and not request.licence:
        terms = "Terms: not given; name them by --licence."
    else:
        terms = f"Terms of {plain(info.title)}: {plain(info.terms)}"
    typer.echo(f"{terms} {public} stand on public pages.")
    folder = plain(shlex.quote(str(done.root)))
    split = (
        f"{folder} --private N" if info.has_identities else f"PRIVATE_SET --public-set {folder} --private N"
    )
    typer.echo(f"Next: `mibench data verify {folder}`, then `mibench data split {split}`.")
