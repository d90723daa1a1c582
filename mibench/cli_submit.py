"""`mibench submit pack` and `mibench submit verify`: results as one file, and how far to believe them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mibench.cli_options import Device, DeviceOption, Jobs, SplitFile, StoreOption

if TYPE_CHECKING:
    from mibench.boards.board import Board
    from mibench.boards.bundle import Bundle
    from mibench.boards.entry import Entry
    from mibench.boards.verifying import Verdict
    from mibench.runner import Event

DIFFERS = 1
submit_app = typer.Typer(
    help="Pack results for a leaderboard, and verify what others packed.", no_args_is_help=True
)

_Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="The results folder of one suite.")]
_Defense = Annotated[str, typer.Option("--defense", metavar="LABEL", help="The row to submit.")]
_Attack = Annotated[str, typer.Option("--attack", metavar="LABEL", help="Or the attack to submit.")]
_File = Annotated[Path, typer.Option("--out", metavar="FILE", help="The bundle to write.")]
_Title = Annotated[str, typer.Option("--title", help="One line. Default: the title of the plugin's card.")]
_Authors = Annotated[str, typer.Option("--authors", help="Who sends it.")]
_Paper = Annotated[str, typer.Option("--paper", help="Citation or identifier. Default: the card's.")]
_Name = Annotated[str, typer.Option("--as", metavar="NAME", help="Name of the entry. Default: the label.")]
_Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle that `submit pack` wrote.")]
_Rerun = Annotated[
    bool, typer.Option("--rerun", help="Also run its plugin: code of others, with your rights.")
]
_Suite = Annotated[
    str, typer.Option("--suite", metavar="NAME|FILE", help="Judge by this suite, not the bundle's own.")
]
_Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Keep the results of --rerun in this new folder.")
]


@submit_app.command()
def pack(
    results: _Results,
    *,
    out: _File,
    defense: _Defense = "",
    attack: _Attack = "",
    name: _Name = "",
    title: _Title = "",
    authors: _Authors = "",
    paper: _Paper = "",
    store: StoreOption = None,
    split: SplitFile = None,
) -> None:
    """Pack one defense or attack: plugin, suite, records, and the images behind them."""
    if bool(defense) == bool(attack):
        raise typer.BadParameter("give one of --defense and --attack.", param_hint="--defense")
    from mibench.boards.packing import Texts
    from mibench.boards.packing import pack as packed
    from mibench.store import Store

    made = packed(
        results,
        kind="defense" if defense else "attack",
        label=defense or attack,
        out=out,
        store=Store(store or results.parent / "store"),
        texts=Texts(name=name, title=title, paper=paper, authors=authors),
        split=split,
    )
    if made.is_withheld:
        _say("The terms of the data do not let its images be shown, so none are in it: it can only be")
        _say("self-reported, or re-run by who has the data.")
    size = made.file.stat().st_size
    _say(f"{made.file}: {made.cells} cells, {len(made.manifest.files)} files, {size / 2**20:.1f} MiB")


@submit_app.command()
def verify(
    bundle: _Bundle,
    *,
    rerun: _Rerun = False,
    suite: _Suite = "",
    split: SplitFile = None,
    store: StoreOption = None,
    jobs: Jobs = None,
    device: DeviceOption = Device.auto,
    out: _Out = None,
) -> None:
    """Recompute every metric of a bundle by our own judges, and say how far its numbers can be believed.

    Nothing of the bundle is run without --rerun.
    """
    from mibench.benchmark import pick_device, pick_jobs
    from mibench.boards.verifying import How
    from mibench.boards.verifying import verify as verified
    from mibench.cli_live import shelf_of
    from mibench.suite import load_suite

    on = pick_device(device.value)
    with tempfile.TemporaryDirectory(prefix="mibench-") as scratch:
        how = How(
            store=shelf_of(Path("results"), store),
            suite=load_suite(suite) if suite else None,
            split=split,
            jobs=jobs or pick_jobs(on),
            device=on,
            on_event=_on_event,
            rerun_to=(out or Path(scratch) / "results") if rerun else None,
        )
        verdict = verified(bundle, how, before_rerun=_warn)
    _tell(verdict)
    if not verdict.is_true:
        raise typer.Exit(DIFFERS)


def admitted(board: Board, bundle: Path, name: str) -> tuple[str, Entry]:
    """Put a bundle on a board with the trust that recomputing it reaches; its name there, and the entry.

    Raises:
        BoardError: see `mibench.boards.admitting.admit`.
    """
    from datetime import UTC, datetime

    from mibench.benchmark import pick_device, pick_jobs
    from mibench.boards.admitting import admit
    from mibench.boards.verifying import How
    from mibench.cli_live import shelf_of

    on = pick_device(Device.auto.value)
    how = How(shelf_of(Path("results"), None), jobs=pick_jobs(on), device=on, on_event=_on_event)
    today = datetime.now(UTC).date().isoformat()
    found, entry = admit(bundle, board, how, name=name, submitted=today)
    _say(f"Its numbers are {entry.trust}.")
    return found, entry


def _warn(bundle: Bundle) -> None:
    """Say that code of others is about to run."""
    source = bundle.source
    whose = f"{len(source):,} bytes of code" if source else "a plugin that is here"
    _say(
        f"Running '{bundle.manifest.plugin}' of the submission: {whose}, with your rights on this machine. "
        "Stop now (Ctrl-C) if you do not trust it and are in no container.",
        error=True,
    )


def _on_event(event: Event) -> None:
    from mibench.runner import TaskStarted

    if isinstance(event, TaskStarted):
        _say(event.task.title, error=True)


def _tell(verdict: Verdict) -> None:
    """Print what a verification found; the verdict is the last line."""
    from mibench.boards.verifying import EARNS, SELF_REPORTED

    cells, measured = verdict.cells
    _say(f"{cells} cells, {measured} with numbers.")
    others = [line for line in verdict.lines if not line.is_metric]
    for line in verdict.lines:
        if not (line.is_metric or line.within or line.differ):
            continue
        counts = {"same": line.same, "within bounds": line.within, "DIFFERENT": line.differ}
        _say(f"  {line.name}: {', '.join(f'{count} {word}' for word, count in counts.items() if count)}")
    quiet = [line.name for line in others if not (line.within or line.differ)]
    if quiet:
        _say(f"  the same in all cells: {', '.join(quiet)}")
    if verdict.lines and not verdict.is_exact:
        _say("Its judges are not ours bit for bit, as on another machine: bounds hold, see docs/submit.md.")
    for one in verdict.differences:
        _say(f"cell {one.cell}, {one.what}: said {one.said}, found {one.found}")
    if verdict.trust == "recomputed":
        _say(f"Taken as it was said, since only the attacked model tells it: {', '.join(SELF_REPORTED)}.")
    if verdict.is_true:
        _say(f"{verdict.trust}: {EARNS[verdict.trust]}.")
    else:
        _say(f"refused: {len(verdict.differences)} numbers are not as its records say.")


def _say(text: str, *, error: bool = False) -> None:
    """Print a line without what a terminal would obey."""
    from mibench.report.escape import plain

    typer.echo(plain(text), err=error)
