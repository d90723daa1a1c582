"""The command line: each command is a thin call into the package. torch is imported where it is needed.

Exit codes: 0 done, 1 a check failed, 2 bad input, 3 a cell of a run failed, 4 a paper's number or claim was
not found again, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mibench import cli_compare, cli_evidence, cli_plugins, cli_profile, cli_report, cli_watch
from mibench.cli_board import board_app
from mibench.cli_budget import Budget, TaskLimit, chosen, told
from mibench.cli_data import data_app
from mibench.cli_doctor import doctor
from mibench.cli_executor import LOCAL, ExecutorName, ExecutorOption, RayAddress, Where, crew_of
from mibench.cli_live import live, print_files, shelf_of
from mibench.cli_new import new_app
from mibench.cli_options import (
    Attacks,
    Defenses,
    Device,
    DeviceOption,
    Jobs,
    Levels,
    NoZoo,
    Out,
    Plugins,
    Seeds,
    Served,
    SplitFile,
    StoreOption,
    SuiteName,
    Swept,
)
from mibench.cli_report import console
from mibench.cli_reported import reported_app
from mibench.cli_reproduce import reproduce
from mibench.cli_submit import submit_app
from mibench.cli_usage import call
from mibench.cli_zoo import zoo_app
from mibench.errors import MibenchError
from mibench.wording import counted

if TYPE_CHECKING:
    from mibench.benchmark import Bench
    from mibench.plan import Plan

BAD_INPUT, CELL_FAILED, STOPPED = 2, 3, 130
app = typer.Typer(
    help="Every model inversion attack against every defense.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(zoo_app, name="zoo")
app.add_typer(reported_app, name="reported")
app.add_typer(data_app, name="data")
app.add_typer(board_app, name="board")
app.add_typer(new_app, name="new")
app.add_typer(submit_app, name="submit")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        return call(app, argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except MibenchError as error:
        from mibench.report.escape import printable

        # names in it may be from files of others, and a terminal obeys what does not print
        print("\n".join(map(printable, str(error).splitlines())), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return STOPPED


def _version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"mibench {version('mibench')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def run(
    suite: SuiteName,
    *,
    defense: Defenses = None,
    attack: Attacks = None,
    plugin: Plugins = None,
    jobs: Jobs = None,
    device: DeviceOption = Device.auto,
    out: Out = Path("results"),
    store: StoreOption = None,
    no_zoo: NoZoo = False,
    seed: Seeds = None,
    split: SplitFile = None,
    executor: ExecutorOption = ExecutorName.local,
    ray_address: RayAddress = None,
    budget: Budget = None,
    task_limit: TaskLimit = None,
    serve_victims: Served = False,
) -> None:
    """Run a suite and write its records, tables, figures and pages.

    What is in the store already is not computed again; OUT/<suite> always holds exactly the last run.
    """
    plan = _plan(suite, defense, attack, plugin, seed, split=split, zoo=not no_zoo)
    to = Where(executor, ray_address)
    _carry_out(
        plan, device, jobs, out, store, where=to, budget=budget, task_limit=task_limit, served=serve_victims
    )


@app.command()
def sweep(
    suite: SuiteName,
    *,
    defense: Swept,
    levels: Levels = None,
    attack: Attacks = None,
    plugin: Plugins = None,
    seed: Seeds = None,
    split: SplitFile = None,
    jobs: Jobs = None,
    device: DeviceOption = Device.auto,
    out: Out = Path("results"),
    store: StoreOption = None,
    no_zoo: NoZoo = False,
    is_plan: Annotated[bool, typer.Option("--plan", help="Show what it would do, and stop.")] = False,
    executor: ExecutorOption = ExecutorName.local,
    ray_address: RayAddress = None,
    budget: Budget = None,
) -> None:
    """Run defenses at several levels of their knob and draw privacy against utility as curves.

    OUT/<suite>-sweep always holds exactly the last sweep; what is in the store is not computed again.
    """
    from mibench.plan import build_plan
    from mibench.sweep import sweep as swept

    found = swept(
        suite,
        defenses=defense,
        levels=levels or (),
        attacks=attack or (),
        plugins=plugin or (),
        seeds=seed or (),
        split=split,
    )
    for note in found.notes:
        print(note, file=sys.stderr)
    plan = build_plan(found.suite, zoo=not no_zoo)
    if not is_plan:
        return _carry_out(plan, device, jobs, out, store, where=Where(executor, ray_address), budget=budget)
    return _foretell(plan, device, jobs, out, store, budget=budget)


@app.command("plan")
def show_plan(
    suite: SuiteName,
    *,
    defense: Defenses = None,
    attack: Attacks = None,
    plugin: Plugins = None,
    out: Out = Path("results"),
    store: StoreOption = None,
    no_zoo: NoZoo = False,
    seed: Seeds = None,
    split: SplitFile = None,
    jobs: Jobs = None,
    device: DeviceOption = Device.auto,
    budget: Budget = None,
) -> None:
    """Show what a run would do: what is there, what will run, what it may take."""
    plan = _plan(suite, defense, attack, plugin, seed, split=split, zoo=not no_zoo)
    _foretell(plan, device, jobs, out, store, budget=budget)


def _foretell(
    plan: Plan, device: Device, jobs: int | None, out: Path, store: str | None, *, budget: str | None
) -> None:
    """Print what of a plan is there, what will run, and what that may take."""
    from mibench.benchmark import pick_device, pick_jobs
    from mibench.forecast import forecast

    shelf, where = shelf_of(out, store), pick_device(device.value)
    count = jobs or pick_jobs(where)
    found = chosen(plan, shelf, budget, jobs=count, device=where.type, out=out)
    if found is not None:
        print(told(found))
        plan = found.plan
    console().print(forecast(plan, shelf, jobs=count, device=where.type, results=out))


# Here and not above: `--help` lists the commands in this order.
cli_plugins.register(app)
cli_report.register(app)
cli_compare.register(app)
app.command()(reproduce)
cli_evidence.register(app)
cli_watch.register(app)
cli_profile.register(app)
app.command()(doctor)


def _plan(
    suite: str,
    defense: list[str] | None,
    attack: list[str] | None,
    plugin: list[Path] | None,
    seed: list[int] | None,
    *,
    split: Path | None,
    zoo: bool,
) -> Plan:
    from mibench.choose import choose
    from mibench.notices import notices
    from mibench.plan import build_plan

    chosen = choose(
        suite,
        attacks=attack or (),
        defenses=defense or (),
        plugins=plugin or (),
        seeds=seed or (),
        split=split,
    )
    for line in notices(chosen, added=(*(defense or ()), *(plugin or ()), *(attack or ()))):
        print(line, file=sys.stderr)
    return build_plan(chosen, zoo=zoo)


def _carry_out(
    plan: Plan,
    device: Device,
    jobs: int | None,
    out: Path,
    store: str | None,
    *,
    where: Where = LOCAL,
    budget: str | None = None,
    task_limit: str | None = None,
    served: bool = False,
) -> None:
    """Run a plan, show how it goes, and print what it gave; typer.Exit where it stopped or a cell failed."""
    from mibench.benchmark import bench, pick_device
    from mibench.budget import parse_duration
    from mibench.forecast import sight

    on, shelf = pick_device(device.value), shelf_of(out, store)
    try:
        with crew_of(where, jobs=jobs, device=on, plan=plan, store=shelf) as crew:
            choice = chosen(plan, shelf, budget, jobs=crew.jobs, device=on.type, out=out)
            plan = plan if choice is None else choice.plan
            watch = live(plan, shelf, crew.jobs, device=on.type, results=out)
            todo = f"{watch.total} of {len(plan.tasks)} tasks to do, {crew.jobs} at once."
            head = "" if choice is None else f"{told(choice)}\n"
            print(f"{head}{counted(len(plan.cells), 'cell')}; {todo}\n{sight(plan)}", flush=True)
            with watch:
                done = bench(
                    plan,
                    out=out,
                    store=store,
                    jobs=crew.jobs,
                    device=str(on),
                    on_event=watch,
                    executor=crew.make,
                    budget=choice,
                    left_s=watch.left_s,
                    task_limit_s=None if task_limit is None else parse_duration(task_limit, of="time limit"),
                    served=served,
                )
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    _tell(done)


def _tell(done: Bench) -> None:
    """Print what a run gave; typer.Exit where a cell failed."""
    from mibench.report import comparison
    from mibench.report.left_out import noted

    if done.records:
        to = console()
        to.print(noted(comparison(done.records), done.folder).to_rich(to.width))
    print_files([done.folder / "records.jsonl", *done.files])
    if done.left_out:
        print(f"{len(done.left_out)} cells are left out: {done.left_out[0].why}.")
        print("Give a larger budget, or none: what is done is not computed again.")
    failed = [record for record in done.records if record.status == "failed"]
    if failed:
        where = done.folder / "failures.txt"
        print(f"{len(failed)} of {len(done.records)} cells failed; see {where}", file=sys.stderr)
        raise typer.Exit(CELL_FAILED)
