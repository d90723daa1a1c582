"""`mibench profile`: where the time of a suite goes, and what it would compute elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mibench.cli_live import live, shelf_of
from mibench.cli_options import (
    Attacks,
    Defenses,
    Device,
    DeviceOption,
    Jobs,
    NoZoo,
    Out,
    Plugins,
    Seeds,
    SplitFile,
    StoreOption,
    SuiteName,
)

if TYPE_CHECKING:
    import torch

    from mibench.plan import Plan

Trace = Annotated[
    bool,
    typer.Option(
        "--trace", help="Watch a task of each stage by torch's profiler: how long the device waits."
    ),
]
NoRun = Annotated[
    bool, typer.Option("--no-run", help="Read what is in the store, and run nothing that is missing.")
]
Like = Annotated[
    Path | None,
    typer.Option(
        "--like",
        metavar="PROFILE",
        help="Run nothing: reckon the operations of SUITE from the profile.json of a smaller one.",
    ),
]
Card = Annotated[
    str, typer.Option("--card", help="With --like: the card whose peaks count, by the beginning of its name.")
]
Within = Annotated[
    float, typer.Option("--within", min=1.0, help="With --like: minutes that the run is to take on it.")
]


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command()(profile)


def profile(
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
    trace: Trace = False,
    no_run: NoRun = False,
    like: Like = None,
    card: Card = "NVIDIA H100",
    within: Within = 15.0,
) -> None:
    """Say where the time of a suite goes: seconds, counted operations and their share of the peak.

    Runs what is missing, then counts one task of each kind again. Writes profile.json, profile.md and
    figures/profile.png of OUT/<suite>.

    Raises:
        MibenchError: the suite, the store, the device or a profile cannot be used.
    """
    from mibench.benchmark import pick_device
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
    plan = build_plan(chosen, zoo=not no_zoo)
    if like is not None:
        return _reckon(plan, like, card, within)
    on = pick_device(device.value)
    if not no_run:
        _run(plan, on, jobs, out, store)
    return _profile(plan, on, out, store, is_traced=trace)


def _run(plan: Plan, device: torch.device, jobs: int | None, out: Path, store: str | None) -> None:
    """Do what is missing, as `mibench run` does."""
    from mibench.benchmark import bench, pick_jobs

    count = jobs or pick_jobs(device)
    watch = live(plan, shelf_of(out, store), count, device=device.type, results=out)
    with watch:
        bench(plan, out=out, store=store, jobs=count, device=str(device), on_event=watch)


def _profile(plan: Plan, device: torch.device, out: Path, store: str | None, *, is_traced: bool) -> None:
    import dataclasses
    import json

    from mibench.atomic import write_atomically
    from mibench.profiling import profile_of
    from mibench.report.profile_page import page, write_page

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    found = profile_of(plan, shelf_of(out, store), device=device, is_traced=is_traced, tell=tell)
    values, folder = dataclasses.asdict(found), out / plan.suite.name
    file = folder / "profile.json"
    write_atomically(file, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())
    typer.echo(page(values))
    for path in (file, *write_page(values, folder)):
        typer.echo(path)


def _reckon(plan: Plan, like: Path, card: str, minutes: float) -> None:
    """Print what a suite would compute, and write it beside the profile that it is reckoned from."""
    from mibench.atomic import write_atomically
    from mibench.errors import ProfileError
    from mibench.expected_flops import expected, read_profile
    from mibench.peaks import CARDS, peaks_of_card
    from mibench.report.expected_page import expected_page

    peaks = peaks_of_card(card)
    if peaks is None:
        raise ProfileError(f"card '{card}': has no entry. Take one of: {', '.join(CARDS)}.")
    text = expected_page(expected(plan, read_profile(like), peaks), card=card, minutes=minutes)
    file = like.parent / f"expected-{plan.suite.name}.md"
    write_atomically(file, text.encode())
    typer.echo(text)
    typer.echo(file)
