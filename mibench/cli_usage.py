"""Wrong words on the command line, told in one sentence like every other error."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

BAD_USAGE = 2
# the parent of BadParameter: all that a command line can be wrong in, which typer does not name itself
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def call(app: typer.Typer, argv: Sequence[str] | None) -> int:
    """Run the app and return its exit code; wrong usage is one sentence on standard error and 2.

    Whatever else a command raises comes through.
    """
    try:
        code = app(argv, prog_name="mibench", standalone_mode=False)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: its help, as it is
            print(getattr(error, "ctx").get_help(), file=sys.stderr)  # noqa: B009 - typer's class has no type here
        else:
            print(sentence(error), file=sys.stderr)
        return BAD_USAGE
    except typer.Abort:
        return 1
    return code if isinstance(code, int) else 0


def sentence(error: Exception) -> str:
    """What is wrong in which command, and where to look it up, on one line."""
    from mibench.report.escape import plain

    ctx = getattr(error, "ctx", None)
    command = "mibench" if ctx is None else str(ctx.command_path)
    told = plain(getattr(error, "format_message", lambda: str(error))()).replace("Value error, ", "")
    end = "" if told.endswith(("?", ".")) else "."
    return f"{command}: {told[:1].lower()}{told[1:]}{end} `{command} --help` shows what it takes."
