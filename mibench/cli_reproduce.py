"""`mibench reproduce`: the tables of papers made again, with a verdict on every number and claim."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mibench.cli_budget import Budget, chosen, told
from mibench.cli_live import live
from mibench.cli_options import Device, DeviceOption, Jobs, NoZoo, Seeds, StoreOption

if TYPE_CHECKING:
    from mibench.benchmark import Bench
    from mibench.reproduce.layout import Layout, View
    from mibench.reproduce.result import Reproduction
    from mibench.suite import Suite

CELL_FAILED, DIFFERS, STOPPED = 3, 4, 130
FOLDER = "reproduce"  # of all tables, below OUT
_LEAST_PEOPLE = (
    10  # so many that agree have p = 0.002, which Holm's method over a dozen claims leaves standing
)
_STYLES = {"match": "green", "differs": "bold red", "not shown": "yellow", "not comparable": "dim"}


def reproduce(
    name: Annotated[str, typer.Argument(metavar="PAPER/TABLE", help="For example tifs23/table2, bido, lpa.")],
    *,
    suite: Annotated[
        str | None,
        typer.Option("--suite", metavar="SUITE", help="A suite or TOML file in place of the table's own."),
    ] = None,
    seed: Seeds = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="RESULTS", help="Run nothing: take the records of this folder."),
    ] = None,
    jobs: Jobs = None,
    device: DeviceOption = Device.auto,
    out: Annotated[Path, typer.Option("--out", help="The table goes to OUT/reproduce/.")] = Path("results"),
    store: StoreOption = None,
    no_zoo: NoZoo = False,
    budget: Budget = None,
) -> None:
    """Make a table of a paper again: reported beside measured, and whether our records bear its claims.

    Runs the table's attacks and defenses from a suite, on a second seed too where one has fewer than ten
    people, and writes OUT/reproduce/PAPER-TABLE-SUITE/. Exits with 4 where a number differs or a claim's
    opposite is shown; what is not shown or not comparable counts for nothing.
    """
    from mibench.reproduce import ReproduceError, find_layout

    layout = find_layout(name)
    if source is None:
        done = _run(
            derived_suite(layout, suite or layout.suite, seed or ()),
            jobs=jobs,
            device=device,
            out=out,
            store=store,
            zoo=not no_zoo,
            budget=budget,
        )
        folder, records = done.folder, done.records
    else:
        if budget is not None:
            raise ReproduceError(f"reproduce: --from {source} runs nothing. Drop --budget {budget}.")
        if suite is not None:
            raise ReproduceError(
                f"reproduce: --suite {suite} and --from {source} both name the numbers. Give one."
            )
        from mibench.record import read_records

        done = None
        where = _results(source)
        records = read_records(where / "records.jsonl")
        folder = where if where.parent.name == FOLDER else out / FOLDER / f"{layout.slug}-from-{where.name}"
    from mibench.reproduce.result import reproduce as again
    from mibench.reproduce.write import write

    found = again(layout, records, seeds=seed or (), is_whole=done is not None and not done.left_out)
    files = write(found, folder, images=None if source is None else _results(source))
    _tell(found, files)
    _leave(found, done)


def _run(
    suite: Suite,
    *,
    jobs: int | None,
    device: Device,
    out: Path,
    store: str | None,
    zoo: bool,
    budget: str | None,
) -> Bench:
    """Run the part of a suite that a table needs; typer.Exit where it is stopped."""
    from mibench.benchmark import bench, pick_device, pick_jobs
    from mibench.plan import build_plan
    from mibench.store import Store

    plan = build_plan(suite, zoo=zoo)
    where = pick_device(device.value)
    num_jobs, place = jobs or pick_jobs(where), store or out / "store"
    shelf = Store(place)
    choice = chosen(plan, shelf, budget, jobs=num_jobs, device=where.type, out=out / FOLDER)
    if choice is not None:
        typer.echo(told(choice))
        plan = choice.plan
    watch = live(plan, shelf, num_jobs, device=where.type, results=out / FOLDER)
    tasks = f"{watch.total} of {len(plan.tasks)} tasks to do, {num_jobs} at once."
    typer.echo(f"{len(plan.cells)} cells; {tasks}")
    try:
        with watch:
            return bench(
                plan,
                out=out / FOLDER,
                store=place,
                jobs=num_jobs,
                device=str(where),
                on_event=watch,
                budget=choice,
                left_s=watch.left_s,
            )
    except KeyboardInterrupt:
        typer.echo("Stopped. The same command goes on from here.", err=True)
        raise typer.Exit(STOPPED) from None


def derived_suite(layout: Layout, name: str | Path, seeds: Sequence[int] = ()) -> Suite:
    """The part of a suite that a table needs.

    Args:
        layout: of the table.
        name: built-in suite or path of a TOML file.
        seeds: in place of the suite's; empty keeps them, and adds a second one where one seed protects too
            few people to tell anything.

    Raises:
        SuiteError: the suite cannot be read, or has nothing of the table.
    """
    from mibench.reproduce import claims_of
    from mibench.subsuite import part_of_suite
    from mibench.suite import load_suite

    suite = load_suite(name)
    draws = not suite.targets.labels  # named people are the same in every seed
    if draws and not seeds and len(suite.seeds) == 1 and suite.targets.protected < _LEAST_PEOPLE:
        seeds = (suite.seeds[0], suite.seeds[0] + 1)
    has_deployed = any(column.view == "deployed" for column in layout.columns)
    views: tuple[View, ...] = ("stripped", "deployed") if has_deployed else ("stripped",)
    wanted = [*layout.columns, *(claim.reference for claim in claims_of(layout))]
    return part_of_suite(
        name,
        prefix=layout.slug,
        attacks=layout.attacks.values(),
        defenses=[column.defense for column in wanted],
        metrics=[measure.metric for measure in layout.measures if measure.metric],
        views=views,
        seeds=seeds,
    )


def _results(path: Path) -> Path:
    """The folder of records; its records.jsonl may be named instead."""
    from mibench.reproduce import ReproduceError

    folder = path.parent if path.name == "records.jsonl" else path
    if not (folder / "records.jsonl").is_file():
        raise ReproduceError(
            f"results {path}: holds no records.jsonl. Give the folder of a run, such as results/quick."
        )
    return folder.resolve()


def _tell(found: Reproduction, files: Sequence[Path]) -> None:
    """Print the claims with their verdicts, the summary, and the files."""
    from mibench.reproduce.sheet import SIGNS, evidence_text
    from mibench.reproduce.write import FACES

    console = Console()
    console = console if console.is_terminal else Console(width=140)
    console.print(Text(found.title, style="bold"))
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in found.claims:
        table.add_row(
            Text(SIGNS[one.verdict], style=_STYLES[one.verdict]),
            Text(one.claim.sentence),
            Text(evidence_text(one)),
            Text(f"{one.verdict}: {one.why}", style=_STYLES[one.verdict]),
        )
    console.print(table)
    console.print(found.summary, highlight=False)
    if "/fig" in found.layout.name and not any(path.name == FACES for path in files):
        typer.echo("No pictures: the results hold no images of these cells. Run without --from.", err=True)
    for path in files:
        typer.echo(path)


def _leave(found: Reproduction, done: Bench | None) -> None:
    """typer.Exit where a cell failed, or a number or claim differs; what is not shown is no reason."""
    failed = [] if done is None else [one for one in done.records if one.status == "failed"]
    if done is not None and failed:
        where = done.folder / "failures.txt"
        typer.echo(f"{len(failed)} of {len(done.records)} cells failed; see {where}", err=True)
        raise typer.Exit(CELL_FAILED)
    if found.verdict == "differs":
        raise typer.Exit(DIFFERS)
