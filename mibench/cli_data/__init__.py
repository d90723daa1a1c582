"""`mibench data`: sets of real faces, prepared once, looked after, divided and compared."""

from __future__ import annotations

import typer

from mibench.cli_data.dividing import split
from mibench.cli_data.doctoring import doctor
from mibench.cli_data.listing import list_sets
from mibench.cli_data.overlap import overlap
from mibench.cli_data.prepare import prepare
from mibench.cli_data.showing import show
from mibench.cli_data.verifying import verify

data_app = typer.Typer(help="Sets of real faces: prepare, look after, divide, compare.", no_args_is_help=True)
data_app.command()(prepare)
data_app.command()(split)
data_app.command("list")(list_sets)
data_app.command()(show)
data_app.command()(verify)
data_app.command()(doctor)
data_app.command()(overlap)
