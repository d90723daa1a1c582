"""`mibench data`: sets of real faces, prepared once, looked after, divided and compared."""

from __future__ import annotations

import typer

from mibench.cli_data.dividing import split

data_app = typer.Typer(help="Sets of real faces: prepare, look after, divide, compare.", no_args_is_help=True)
data_app.command()(split)
