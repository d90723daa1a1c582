"""A board: the suite that it runs, whom it admits, how it ranks, what a night may take."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from mibench.boards.strict import FORBID, MOST_BYTES, build
from mibench.errors import BoardError

SCHEMA = 1
NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
"""Names of boards: they become folders and parts of addresses."""
FILE, RECORDS, HISTORY, STATUS = "board.toml", "records.jsonl", "history.jsonl", "status.json"
ENTRIES, PLUGINS = "entries", "plugins"

Access = Literal["label", "score", "white-box"]


@dataclass(frozen=True, kw_only=True)
class Rank:
    """How a board orders its entries: by the worst case of AA over its attacks, at equal utility.

    Args:
        max_loss: accuracy on all people (MC(all)), in [0, 1], that an entry may lose against no defense and
            still be ranked; see docs/adr/0008.
        max_target_loss: likewise for the protected people (MC(l_t)).
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    max_loss: float = 0.05
    max_target_loss: float = 0.2

    def __post_init__(self) -> None:
        for name in ("max_loss", "max_target_loss"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"rank.{name} must lie in [0, 1], got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class Alarms:
    """What counts as a regression between nights.

    Args:
        nights: nights in a row on which a change must show before it is an alarm, >= 1.
        slower: factor of the seconds of a row's tasks above which it is slower, > 1; machines vary.
        larger: factor of the peak memory, > 1.
        least_s: seconds below which a row's tasks are too short to be compared, >= 0.
        least_mib: growth of the peak memory, in MiB, below which it is none: what a worker did before stays
            in part, >= 0.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    nights: int = 2
    slower: float = 1.5
    larger: float = 1.25
    least_s: float = 30.0
    least_mib: float = 256.0

    def __post_init__(self) -> None:
        if self.nights < 1:
            raise ValueError(f"alarms.nights must be at least 1, got {self.nights}.")
        for name in ("slower", "larger"):
            if not getattr(self, name) > 1:
                raise ValueError(f"alarms.{name} must be above 1, got {getattr(self, name)}.")
        for name in ("least_s", "least_mib"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"alarms.{name} must be at least 0, got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What `board.toml` says.

    Args:
        schema: of the file.
        title: one line for pages.
        suite: name of a built-in suite, or a TOML file beside board.toml.
        access: the highest access that an attack of the board may have; attacks of the suite that need more
            are left out. On `label` and `score` boards a second process answers for the victim.
        about: a sentence or more for the page.
        budget: of one night, as `--budget` takes it; empty for none.
        task_limit: time after which a task that still runs has failed, as `--budget` takes it.
        recheck: cells of earlier nights that a night computes again from nothing and compares; 0 for none.
        rank: the order.
        alarms: what is a regression.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    schema: int
    title: str
    suite: str
    access: Access
    about: str = ""
    budget: str = ""
    task_limit: str = "2h"
    recheck: int = 1
    rank: Rank = field(default_factory=Rank)
    alarms: Alarms = field(default_factory=Alarms)

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema must be {SCHEMA}, got {self.schema}. Update mibench.")
        if self.recheck < 0:
            raise ValueError(f"recheck must be at least 0, got {self.recheck}.")


@dataclass(frozen=True)
class Board:
    """A folder with a board.toml.

    Args:
        folder: where it lies; its name is the board's.
        rules: what board.toml says.
    """

    folder: Path
    rules: Rules

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def is_served(self) -> bool:
        """Whether a second process answers for victims: its attacks may hold no weights; docs/adr/0008."""
        return self.rules.access != "white-box"

    @property
    def suite(self) -> str | Path:
        """What `mibench.suite.load_suite` takes: the path of the board's own suite, or a built-in's name."""
        return self.folder / self.rules.suite if self.rules.suite.endswith(".toml") else self.rules.suite


def read_board(folder: Path) -> Board:
    """The board of a folder.

    Raises:
        BoardError: there is no board.toml, or it cannot be used.
    """
    file = folder / FILE
    where = f"board {folder.name}"
    if not NAME.fullmatch(folder.name):
        raise BoardError(f"board {folder.name!r:.60}: is no name. Take lowercase letters and hyphens.")
    return Board(folder, build(Rules, _toml(file, where), where=where))


def list_boards(root: Path) -> list[Board]:
    """The boards below a folder, by name.

    Raises:
        BoardError: there is none, or one of them cannot be used.
    """
    found = [read_board(file.parent) for file in sorted(root.glob(f"*/{FILE}"))]
    if not found:
        raise BoardError(f"boards {root}: holds no {FILE} in any folder. Give --boards the folder of boards.")
    return found


def find_board(root: Path, name: str) -> Board:
    """The board of a name.

    Raises:
        BoardError: there is none, or it cannot be used.
    """
    if not NAME.fullmatch(name) or not (root / name / FILE).is_file():
        names = ", ".join(file.parent.name for file in sorted(root.glob(f"*/{FILE}")))
        what = f"There are: {names}." if names else "Give --boards the folder of boards."
        raise BoardError(f"board {name!r:.60}: there is none in {root}. {what}")
    return read_board(root / name)


def _toml(file: Path, where: str) -> dict[str, Any]:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BoardError(f"{where}: {FILE} has more than {MOST_BYTES:,} bytes. Make it smaller.")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BoardError(f"{where}: {FILE} cannot be read ({error!s:.200}). Mend it.") from error
