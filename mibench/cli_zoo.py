"""`mibench zoo`: ready-made priors that come with the package."""

from __future__ import annotations

from pathlib import Path

import typer

from mibench.cli_live import live, print_files, shelf_of
from mibench.cli_options import Device, DeviceOption, Jobs, Out, StoreOption, SuiteName

zoo_app = typer.Typer(help="Ready-made priors that come with the package.", no_args_is_help=True)


@zoo_app.command("build")
def zoo_build(
    suite: SuiteName,
    jobs: Jobs = None,
    device: DeviceOption = Device.auto,
    out: Out = Path("results"),
    store: StoreOption = None,
) -> None:
    """Train the priors of a suite and put them into the package."""
    from mibench.benchmark import pick_device, pick_jobs
    from mibench.suite import load_suite
    from mibench.zoo_build import build_zoo, plan_zoo

    where = pick_device(device.value)
    num_jobs = jobs or pick_jobs(where)
    plan, shelf = plan_zoo(load_suite(suite)), shelf_of(out, store)
    watch = live(plan, shelf, num_jobs)
    with watch:
        files = build_zoo(plan, shelf, jobs=num_jobs, device=str(where), on_event=watch)
    print_files(files)


@zoo_app.command("list")
def zoo_list() -> None:
    """List the ready-made priors."""
    from mibench.zoo import ZOO, manifest

    for key, entry in manifest(ZOO).items():
        size = (ZOO / f"{key}.safetensors").stat().st_size / 2**20
        typer.echo(f"{key[:12]}  {size:6.2f} MiB  {entry.get('suite', '')}  {entry['title']}")
