"""The arguments and options that commands share, as annotated types."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Listed(StrEnum):
    """What can be listed."""

    attacks = "attacks"
    defenses = "defenses"
    metrics = "metrics"
    suites = "suites"


class Form(StrEnum):
    """How a table is printed."""

    terminal = "terminal"
    csv = "csv"
    markdown = "markdown"
    latex = "latex"
    html = "html"


SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A built-in suite or a TOML file.")]
Defenses = Annotated[
    list[str] | None,
    typer.Option(
        "--defense",
        metavar="NAME|FILE",
        help="A name picks that column (of all others only those that are named too), from the suite or with "
        "the plugin's defaults; NAME@LEVEL sets its knob, NAME+NAME takes several as one. A .py file adds "
        "its defense to the columns. May be repeated.",
    ),
]
Swept = Annotated[
    list[str],
    typer.Option("--defense", metavar="NAME|FILE", help="A defense to sweep. May be repeated."),
]
Levels = Annotated[
    list[str] | None,
    typer.Option(
        "--levels",
        metavar="V1,V2,...",
        help="Values of the knob, which `mibench show NAME` names; by default the plugin's own. With several "
        "defenses once for each, in order; 'default' takes the plugin's own.",
    ),
]
Attacks = Annotated[
    list[str] | None,
    typer.Option("--attack", metavar="NAME|FILE", help="As --defense, for the rows. May be repeated."),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="Adds the attack, defense or metric of a .py file."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", min=1, help="Worker processes of one thread each. Default: the cores, or 1 on a GPU."
    ),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="auto takes a GPU if there is one.")]
Out = Annotated[Path, typer.Option("--out", help="Results go to OUT/<suite>.")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="DIR|URL",
        help="Artifacts, shared by all runs; also s3://BUCKET/PATH or gs://BUCKET/PATH. Default: OUT/store.",
    ),
]
Served = Annotated[
    bool,
    typer.Option(
        "--serve-victims",
        help="Run attacks that hold no weights in processes of their own, without the victim.",
    ),
]
NoZoo = Annotated[bool, typer.Option("--no-zoo", help="Train every prior, also those in the zoo.")]
Seeds = Annotated[list[int] | None, typer.Option("--seed", min=0, help="In place of the suite's seeds.")]
SplitFile = Annotated[
    Path | None,
    typer.Option(
        "--split", metavar="FILE", help="Prepared faces in place of the suite's: see `mibench data`"
    ),
]
Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="A results folder, or its records.jsonl.")]
