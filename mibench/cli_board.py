"""`mibench board`: leaderboards, their entries, and the nightly update.

Exit codes of `board update`, for cron: 0 nothing to report, 2 a board could not be used, 3 something failed
this night, 5 an alarm is new or still open, 75 another update is at a board, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mibench import cli_site
from mibench.cli_budget import TaskLimit
from mibench.cli_options import Device, DeviceOption, Jobs
from mibench.cli_report import console

if TYPE_CHECKING:
    from mibench.boards.board import Board
    from mibench.boards.history import Alarm
    from mibench.boards.night import Told
    from mibench.task import Cell

board_app = typer.Typer(help="Leaderboards and their nights.", no_args_is_help=True)
cli_site.register(board_app)
Boards = Annotated[Path, typer.Option("--boards", help="The folder of boards.")]
BoardName = Annotated[str, typer.Argument(metavar="BOARD", help="Name of a board.")]
EntryName = Annotated[str, typer.Argument(metavar="ENTRY", help="Name of an entry, the label of its row.")]
LEADERBOARDS = Path("leaderboards")
_STOPPED = 130


@board_app.command("list")
def list_(boards: Boards = LEADERBOARDS) -> None:
    """List the boards: entries, nights, open alarms."""
    from rich.markup import escape
    from rich.table import Column, Table

    from mibench.boards.board import list_boards
    from mibench.boards.entry import usable_entries
    from mibench.boards.history import read_history
    from mibench.report.escape import plain

    name = Column("Board", no_wrap=True)  # whole, since it is what the other commands ask for
    table = Table(name, "Title", "Access", "Entries", "Nights", "Last", "Alarms")
    for board in list_boards(boards):
        nights = read_history(board)
        last = nights[-1].ended[:10] if nights else ""
        alarms = len(nights[-1].alarms) if nights else 0
        entries, broken = usable_entries(board)
        counts = (str(len(entries) + len(broken)), str(len(nights)), last, str(alarms or ""))
        table.add_row(board.name, escape(plain(board.rules.title, 60)), board.rules.access, *counts)
    console().print(table)


@board_app.command()
def show(board: BoardName, *, boards: Boards = LEADERBOARDS) -> None:
    """Show a board in order, and what its last night has to tell."""
    from rich.markup import escape

    from mibench.boards.board import RECORDS, find_board
    from mibench.boards.entry import usable_entries
    from mibench.boards.history import read_history, unseen
    from mibench.boards.standing import standings
    from mibench.record import read_records
    from mibench.report.escape import plain

    found = find_board(boards, board)
    file, nights = found.folder / RECORDS, read_history(found)
    entries, broken = usable_entries(found)
    to = console()
    to.print(f"{found.name}: {escape(plain(found.rules.title, 200))}", highlight=False)
    if file.is_file():
        order = standings(found, entries, read_records(file))
        to.print(_table(order))
        if order.is_one_tie:
            to.print("No two ranked defenses can be told apart.", highlight=False)
    else:
        to.print("There are no numbers yet. `mibench board update` runs the first night.", highlight=False)
    if waiting := unseen(entries, nights):
        to.print(f"Not measured yet as they stand: {', '.join(waiting)}.", highlight=False)
    for alarm in nights[-1].alarms if nights else ():
        print(f"alarm: {told_alarm(alarm)}")
    seen = (*nights[-1].entries.items(), *nights[-1].attacks.items()) if nights else ()
    failed = {name: one.why for name, one in seen if one.status == "failed"}
    for name, why in (failed | broken).items():
        print(_printable(f"failed: {name}: {why}"))


@board_app.command()
def add(
    board: BoardName,
    what: Annotated[str, typer.Argument(metavar="NAME|FILE.py|BUNDLE.zip", help="A plugin or a submission.")],
    *,
    label: Annotated[str, typer.Option("--as", help="Name of the entry. Default: the plugin's.")] = "",
    fields: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of the plugin. May be repeated."),
    ] = None,
    title: Annotated[str, typer.Option("--title", help="One line for the page.")] = "",
    authors: Annotated[str, typer.Option("--authors", help="Who sent it.")] = "",
    paper: Annotated[str, typer.Option("--paper", help="Citation or identifier.")] = "",
    boards: Boards = LEADERBOARDS,
) -> None:
    """Put a plugin or a submission on a board; the next night runs it."""
    from mibench.boards.adding import add as put
    from mibench.boards.board import find_board

    found = find_board(boards, board)
    told = {"title": title, "authors": authors, "paper": paper}
    if what.endswith(".zip"):
        from mibench.cli_submit import admitted

        if fields or any(told.values()):
            raise typer.BadParameter("a bundle says itself what it is; give --as alone.", param_hint="--set")
        name, entry = admitted(found, Path(what), label)
    else:
        entry = put(found, what, name=label, params=fields or (), told=told)
        name = label or entry.plugin
    print(f"{found.folder / 'entries' / name}.json: {entry.kind} {entry.plugin}.")
    if what.endswith(".py"):
        print(f"The board has a copy of {what}: add it again when it has changed.")
    print(f"`mibench board update {found.name}` runs it.")


@board_app.command()
def remove(board: BoardName, entry: EntryName, *, boards: Boards = LEADERBOARDS) -> None:
    """Take an entry off a board; its last numbers stay in the history."""
    from mibench.boards.adding import remove as take_off
    from mibench.boards.board import find_board

    take_off(find_board(boards, board), entry)
    print(f"{entry} is off the board. The next night leaves it out.")


@board_app.command()
def update(
    board: Annotated[list[str] | None, typer.Argument(metavar="[BOARD]...", help="Default: all.")] = None,
    *,
    boards: Boards = LEADERBOARDS,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="2h|90m", help="Of all boards together; whole cells.")
    ] = None,
    store: Annotated[str | None, typer.Option("--store", help="Artifacts. Default: results/store.")] = None,
    jobs: Jobs = None,
    device: DeviceOption = Device.auto,
    task_limit: TaskLimit = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what has failed twice.")] = False,
) -> None:
    """Run the next night of boards: what changed, and a few cells again; compare with the nights before.

    A night that was stopped or killed is gone on with. Exit codes: 0 nothing to report, 2 a board cannot be
    used, 3 something failed this night, 5 an alarm is open, 75 another update is at a board.
    """
    from mibench.benchmark import pick_device, pick_jobs
    from mibench.boards.board import find_board, list_boards
    from mibench.boards.night import How
    from mibench.boards.update import update as run_nights
    from mibench.budget import parse_duration
    from mibench.store import Store

    found = [find_board(boards, name) for name in board] if board else list_boards(boards)
    on = pick_device(device.value)
    how = How(
        store=Store(store or "results/store"),
        jobs=jobs or pick_jobs(on),
        device=on,
        budget_s=None if budget is None else parse_duration(budget),
        retry=retry,
        on_event=_say,
        on_recheck=_say_again,
    )
    try:
        done = run_nights(found, how, task_limit=task_limit or "", on_board=_begin, on_night=_tell)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on with this night.", file=sys.stderr)
        raise typer.Exit(_STOPPED) from None
    for sentence in (*done.broken, *done.locked):
        print(_printable(sentence), file=sys.stderr)
    raise typer.Exit(done.code)


@board_app.command()
def accept(board: BoardName, entry: EntryName, *, boards: Boards = LEADERBOARDS) -> None:
    """Take the present level of a row for its new one, which closes its alarms; ENTRY may be attack:LABEL."""
    from mibench.boards.adding import accept as take
    from mibench.boards.board import find_board

    night = take(find_board(boards, board), entry)
    print(f"{entry}: the level of night {night} is the new one. The next night holds against it.")


def told_alarm(alarm: Alarm) -> str:
    """An alarm in one line."""
    before, now = ("?" if one is None else f"{one:.4g}" for one in (alarm.before, alarm.now))
    ends = "" if alarm.low is None else f", change [{alarm.low:+.3f} to {alarm.high:+.3f}]"
    state = "new" if alarm.is_new else "open"
    note = f" ({alarm.note})" if alarm.note else ""
    head = f"{alarm.kind} {alarm.entry}, {alarm.what}: {before} to {now}{ends}"
    return _printable(f"{head}, {alarm.nights} nights, {state}{note}")


def _begin(board: Board) -> None:
    print(f"{board.name}:", flush=True)


def _say(event: object) -> None:
    """One line for each task that was computed, or that failed."""
    from mibench.runner import TaskDone, TaskFailed

    if isinstance(event, TaskDone) and event.how == "ran":
        print(f"{event.wall_s:8.1f} s  {_printable(event.task.title)}", flush=True)
    elif isinstance(event, TaskFailed):
        print(f"  failed  {_printable(event.task.title)}: {_printable(event.failure.message)}", flush=True)


def _say_again(cell: Cell) -> None:
    """Why the night goes on after its last task: a cell is computed from nothing, which may take minutes."""
    print(
        f"  again from an empty store: {_printable(f'{cell.attack.label} on {cell.defense.label}')}",
        flush=True,
    )


def _tell(told: Told) -> None:
    """What a night came to."""
    night = told.night
    again = f", {len(night.rechecked)} cells rechecked" if night.rechecked else ""
    print(
        f"  night {night.night}: {night.cells} cells, {night.ran} tasks computed, {night.hits} there, "
        f"{night.failed} cells failed, {night.left_out} left out{again}"
    )
    for sentence in told.failed:
        print(f"  failed: {_printable(sentence)}", file=sys.stderr)
    for alarm in night.alarms:
        print(f"  alarm: {told_alarm(alarm)}", file=sys.stderr)
    for one in night.suspicions:
        print(f"  suspicion: {told_alarm(one)}")


def _table(order: object) -> object:
    """The rows of a board as a table for the terminal."""
    from rich.table import Table

    from mibench.boards.standing import Standings
    from mibench.report.escape import plain

    assert isinstance(order, Standings)
    table = Table("Rank", "Defense", "Worst AA %", "MC(all) %", "MC(target) %", "Trust", "Why not ranked")
    for row in order.rows:
        numbers = (_percent(one.value) for one in (row.worst, row.mc_all, row.mc_target))
        table.add_row(row.place, plain(row.name, 40), *numbers, row.trust, plain(row.why, 120))
    return table


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if value == value else ""  # noqa: PLR0124 - NaN is not itself


def _printable(text: str) -> str:
    from mibench.report.escape import printable

    return printable(" ".join(text.split()))
