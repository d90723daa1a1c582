"""`mibench new defense NAME` and `mibench new attack NAME`: a plugin that works, to be changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mibench.authoring import Family

new_app = typer.Typer(help="Write a new defense or attack that works, to be changed.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Lowercase letters, digits and underscores.")]
_Package = Annotated[
    bool, typer.Option("--package", help="A package to install, with entry point, test and README.")
]
_Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")]


@new_app.command("defense")
def new_defense(name: _Name, *, package: _Package = False, out: _Out = Path()) -> None:
    """Write NAME.py with a small defense that passes `mibench check`."""
    _write("defense", name, package=package, out=out)


@new_app.command("attack")
def new_attack(name: _Name, *, package: _Package = False, out: _Out = Path()) -> None:
    """Write NAME.py with a small attack that passes `mibench check`."""
    _write("attack", name, package=package, out=out)


def _write(family: Family, name: str, *, package: bool, out: Path) -> None:
    from mibench.authoring import new_plugin

    files = new_plugin(family, name, out=out, package=package)
    for file in files:
        typer.echo(file)
    typer.echo("")
    if package:
        typer.echo(f"Next: pip install --no-build-isolation --no-deps -e {files[0].parent}")
    word = name if package else str(files[0])
    typer.echo(f"{'Then' if package else 'Next'}: mibench check {word}")
    typer.echo(f"Then: mibench run quick --{family} {word}")
