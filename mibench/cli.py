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
from rich.console import Console

from mibench import cli_evidence, cli_watch
from mibench.cli_budget import Budget, chosen, told
from mibench.cli_data import data_app
from mibench.cli_doctor import CHECK_FAILED, doctor, print_line
from mibench.cli_executor import LOCAL, ExecutorName, ExecutorOption, RayAddress, Where, crew_of
from mibench.cli_live import live, print_files, shelf_of
from mibench.cli_options import (
    Attacks,
    Defenses,
    Device,
    DeviceOption,
    Form,
    Jobs,
    Levels,
    Listed,
    NoZoo,
    Out,
    Plugins,
    Results,
    Seeds,
    SplitFile,
    StoreOption,
    SuiteName,
    Swept,
)
from mibench.cli_reported import reported_app
from mibench.cli_reproduce import reproduce
from mibench.cli_zoo import zoo_app
from mibench.errors import MibenchError, RecordError

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
app.command()(reproduce)
cli_evidence.register(app)
cli_watch.register(app)
app.command()(doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        app(argv, prog_name="mibench")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except MibenchError as error:
        from mibench.report.escape import printable

        # names in it may be from files of others, and a terminal obeys what does not print
        print("\n".join(map(printable, str(error).splitlines())), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return STOPPED
    return 0


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
) -> None:
    """Run a suite and write its records, tables, figures and pages.

    What is in the store already is not computed again; OUT/<suite> always holds exactly the last run.
    """
    plan = _plan(suite, defense, attack, plugin, seed, split=split, zoo=not no_zoo)
    _carry_out(plan, device, jobs, out, store, where=Where(executor, ray_address), budget=budget)


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
) -> None:
    """Run defenses at several levels of their knob and draw privacy against utility as curves.

    OUT/<suite>-sweep always holds exactly the last sweep; what is in the store is not computed again.
    """
    from mibench.forecast import forecast
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
        return _carry_out(plan, device, jobs, out, store, where=Where(executor, ray_address))
    return _console().print(forecast(plan, shelf_of(out, store)))


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
    from mibench.benchmark import pick_device, pick_jobs
    from mibench.forecast import forecast

    plan = _plan(suite, defense, attack, plugin, seed, split=split, zoo=not no_zoo)
    shelf, where = shelf_of(out, store), pick_device(device.value)
    count = jobs or pick_jobs(where)
    found = chosen(plan, shelf, budget, jobs=count, device=where.type, out=out)
    if found is not None:
        print(told(found))
        plan = found.plan
    _console().print(forecast(plan, shelf, jobs=count, device=where.type, results=out))


@app.command("list")
def list_names(what: Listed) -> None:
    """List all attacks, defenses, metrics or suites."""
    from mibench.catalog import LISTS

    _console().print(LISTS[what.value]())


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="NAME|FILE")]) -> None:
    """Show a plugin: its paper, its fields, and what differs from the paper."""
    from mibench.catalog import find_plugins, plugin_card

    for plugin in find_plugins(name):
        _console().print(plugin_card(plugin))


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A plugin's name, alias or .py file.")],
) -> None:
    """Hold a plugin against its contract: one line a check, and what to do where one fails."""
    from mibench.catalog import find_plugins
    from mibench.testing import checks_for

    has_failed = False
    for plugin in find_plugins(name):
        for one in checks_for(plugin):
            verdict = one.run()
            has_failed = has_failed or verdict.status == "fail"
            print_line(verdict.status, f"{plugin.name}: {one.title}", verdict.text)
    if has_failed:
        raise typer.Exit(CHECK_FAILED)


@app.command(hidden=True)
def lock(
    is_check: Annotated[bool, typer.Option("--check", help="Compare and write nothing.")] = False,
) -> None:
    """Write plugins.lock: version and source of every built-in plugin."""
    from mibench.lock import LOCK, differences, present, read_lock, write_lock

    if not is_check:
        print(write_lock())
        return
    found = differences(read_lock(), present())
    for line in found:
        print(line)
    if found:
        print(f"{len(found)} of the built-in plugins are not as {LOCK.name} has them.", file=sys.stderr)
        raise typer.Exit(CHECK_FAILED)


@app.command()
def table(
    results: Results,
    metric: Annotated[list[str] | None, typer.Option("--metric", help="Columns. May be repeated.")] = None,
    form: Annotated[Form, typer.Option("--format")] = Form.terminal,
    no_intervals: Annotated[bool, typer.Option("--no-intervals", help="Values alone.")] = False,
) -> None:
    """Print the comparison table of a results folder."""
    from mibench.record import read_records
    from mibench.report import comparison
    from mibench.report.left_out import noted

    folder = _results(results)
    records = read_records(folder / "records.jsonl")
    found = noted(comparison(records, metrics=metric, intervals=not no_intervals), folder)
    if form is Form.terminal:
        console = _console()
        console.print(found.to_rich(console.width))
        return
    text = {
        Form.csv: found.to_csv,
        Form.markdown: found.to_markdown,
        Form.latex: found.to_latex,
        Form.html: found.to_html,
    }[form]()
    print(text, end="" if text.endswith("\n") else "\n")


@app.command()
def plot(results: Results) -> None:
    """Draw the figures of a results folder again."""
    from mibench.record import read_records
    from mibench.report import write_grids, write_plots

    folder = _results(results)
    records = read_records(folder / "records.jsonl")
    print_files([*write_plots(records, folder), *write_grids(records, folder)])


@app.command()
def report(results: Results) -> None:
    """Write tables, figures and pages of a results folder again."""
    from mibench.report import write_all

    print_files(write_all(_results(results)))


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
    from mibench.plan import build_plan

    chosen = choose(
        suite,
        attacks=attack or (),
        defenses=defense or (),
        plugins=plugin or (),
        seeds=seed or (),
        split=split,
    )
    return build_plan(chosen, zoo=zoo)


def _carry_out(
    plan: Plan,
    device: Device,
    jobs: int | None,
    out: Path,
    store: Path | None,
    *,
    where: Where = LOCAL,
    budget: str | None = None,
) -> None:
    """Run a plan, show how it goes, and print what it gave; typer.Exit where it stopped or a cell failed."""
    from mibench.benchmark import bench, pick_device
    from mibench.forecast import sight

    on, shelf = pick_device(device.value), shelf_of(out, store)
    try:
        with crew_of(where, jobs=jobs, device=on, plan=plan, store=shelf) as crew:
            choice = chosen(plan, shelf, budget, jobs=crew.jobs, device=on.type, out=out)
            plan = plan if choice is None else choice.plan
            watch = live(plan, shelf, crew.jobs, device=on.type, results=out)
            todo = f"{watch.total} of {len(plan.tasks)} tasks to do, {crew.jobs} at once."
            head = "" if choice is None else f"{told(choice)}\n"
            print(f"{head}{len(plan.cells)} cells; {todo}\n{sight(plan)}", flush=True)
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
                )
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    _tell(done)


def _tell(done: Bench) -> None:
    """Print what a run gave; typer.Exit where a cell failed."""
    from mibench.report import comparison
    from mibench.report.left_out import noted

    console = _console()
    if done.records:
        console.print(noted(comparison(done.records), done.folder).to_rich(console.width))
    print_files([done.folder / "records.jsonl", *done.files])
    if done.left_out:
        print(f"{len(done.left_out)} cells are left out: {done.left_out[0].why}.")
        print("Give a larger budget, or none: what is done is not computed again.")
    failed = [record for record in done.records if record.status == "failed"]
    if failed:
        where = done.folder / "failures.txt"
        print(f"{len(failed)} of {len(done.records)} cells failed; see {where}", file=sys.stderr)
        raise typer.Exit(CELL_FAILED)


def _console() -> Console:
    """Standard output; 100 columns where it is no terminal, so that files hold whole tables."""
    console = Console()
    return console if console.is_terminal else Console(width=100)


def _results(path: Path) -> Path:
    """The folder of results; its records.jsonl may be named instead."""
    folder = path.parent if path.name == "records.jsonl" else path
    if not (folder / "records.jsonl").is_file():
        raise RecordError(
            f"results {path}: holds no records.jsonl. Give the folder of a run, such as results/quick."
        )
    return folder
