"""Write docs/cli.md: every command with its arguments and options, from the app itself.

Usage: python docs/cli_page.py
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from page_parts import cell
from typer.models import ArgumentInfo, OptionInfo

from mibench.cli import app

PAGE = Path(__file__).resolve().parent / "cli.md"
_HEAD = """# Commands

<!-- written by docs/cli_page.py from the command line itself -->

`mibench COMMAND --help` prints the same. An option that may be repeated adds a value each time.

| exit code | meaning |
|---:|---|
| 0 | done |
| 1 | a check failed, or a submission was refused |
| 2 | bad input: one sentence says where, what and what to do |
| 3 | a cell or a task failed; its record says why, the others are there |
| 4 | a paper's number or claim was not found again |
| 5 | an alarm of a board is open |
| 75 | another update is at a board |
| 130 | stopped by Ctrl-C; the same command goes on |
"""


def page() -> str:
    """The whole page."""
    return f"{_HEAD}\n" + "\n".join(_commands(app, "mibench"))


def _commands(group: typer.Typer, name: str) -> Iterator[str]:
    """The commands of a group and of the groups in it, in the order of `--help`.

    Read from what typer was told, since what it makes of that differs between its versions.
    """
    for one in group.registered_commands:
        if one.callback is not None and not one.hidden:
            yield from _part(one.callback, f"{name} {one.name or one.callback.__name__.replace('_', '-')}")
    for inner in group.registered_groups:
        if inner.typer_instance is not None and not inner.hidden:
            yield from _commands(inner.typer_instance, f"{name} {inner.name}")


def _part(command: Callable[..., Any], name: str) -> Iterator[str]:
    """Usage, what it does, and a table of what it takes."""
    takes = [_Taken.of(one, hint) for one, hint in _parameters(command)]
    words = [one.shown for one in takes if one.is_argument]
    if len(words) < len(takes):
        words.append("[OPTIONS]")
    yield f"## `{name}`\n"
    yield f"    {' '.join([name, *words])}\n"
    yield _plain(re.split(r"\n+Raises:", inspect.cleandoc(command.__doc__ or ""))[0]) + "\n"
    if takes:
        yield "| | default | meaning |\n|---|---|---|"
        ordered = sorted(takes, key=lambda one: not one.is_argument)
        yield from (
            f"| `{cell(one.shown)}` | {one.default} | {cell(_plain(one.meaning))} |" for one in ordered
        )
        yield ""


def _plain(text: str) -> str:
    """Words that Markdown takes as they are: `<suite>` would be a tag."""
    return text.replace("<", "&lt;")


def _parameters(command: Callable[..., Any]) -> Iterator[tuple[inspect.Parameter, Any]]:
    hints = get_type_hints(command, include_extras=True)
    for one in inspect.signature(command).parameters.values():
        yield one, hints[one.name]


@dataclass(frozen=True)
class _Taken:
    """An argument or option in words."""

    shown: str
    default: str
    meaning: str
    is_argument: bool

    @classmethod
    def of(cls, one: inspect.Parameter, hint: Any) -> _Taken:  # noqa: ANN401 - whatever annotates it
        """What a parameter of a command's function stands for on the command line."""
        kind, *marks = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        is_bare = one.default is inspect.Parameter.empty
        bare = ArgumentInfo() if is_bare else OptionInfo()
        info = next((mark for mark in marks if isinstance(mark, ArgumentInfo | OptionInfo)), bare)
        # beside a type the first word that typer.Option is given is a name and no default
        told = (str(name) for name in (info.default, *(info.param_decls or ())))
        names = [name for name in told if name.startswith("--")]
        word = one.name.replace("_", "-")
        takes = info.metavar or _words(kind)
        if isinstance(info, ArgumentInfo):
            shown = info.metavar or one.name.upper()
        else:
            shown = f"{max(names, key=len, default=f'--{word}').split('/')[0]} {takes}".strip()
        return cls(shown, _default(one.default), info.help or "", isinstance(info, ArgumentInfo))


def _words(kind: Any) -> str:  # noqa: ANN401 - as above
    """What an option takes; nothing for a switch."""
    inner = [one for one in get_args(kind) if one is not type(None)]
    if get_origin(kind) is Literal:
        return "|".join(map(str, inner))
    if inner:
        return _words(inner[0])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    return {bool: "", int: "NUMBER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def _default(value: object) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    value = value.value if isinstance(value, Enum) else value
    return "" if value in (None, False, (), []) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
