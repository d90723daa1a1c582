"""Tasks and cells: what a plan consists of, as values that say all that their results depend on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mibench.attack import Attack
from mibench.defense import Defense
from mibench.key import Key, make_key
from mibench.noise import derive_seed
from mibench.suite import Entry


@dataclass(frozen=True, kw_only=True)
class Task:
    """One unit of work: what it is, what it reads, and the key of what it gives.

    Args:
        stage: a name of the stage table in docs/architecture.md.
        plugin: name of the plugin that does the work.
        version: of the plugin.
        source: digest of its source if it comes from outside the package, else empty.
        params: hashed.
        inputs: keys of the artifacts that it reads, by role; hashed.
        seed: of the suite; hashed.
        noise: the name that the task's own seed is derived from.
        title: for people.
        locator: what the work needs beside `params` and no result depends on: paths, chunk size.
    """

    stage: str
    plugin: str
    version: int = 1
    source: str = ""
    params: dict[str, Any]
    inputs: dict[str, Key]
    seed: int
    noise: str
    title: str
    locator: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> Key:
        """See `mibench.key.make_key`."""
        return make_key(
            self.stage,
            plugin=self.plugin,
            version=self.version,
            source=self.source,
            params=self.params,
            inputs=self.inputs,
            seed=self.seed,
        )

    @property
    def task_seed(self) -> int:
        """Seed of the task's randomness: not of its inputs, so that paired cells meet the same noise."""
        return derive_seed(self.seed, self.stage, self.noise)

    def description(self) -> dict[str, Any]:
        """The hashed fields and the title, as JSON; lies beside the artifact."""
        names = ("stage", "plugin", "version", "source", "params", "inputs", "seed", "title")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Extra:
    """What a defender holds beside the private images: hashed parameters, input keys and locator."""

    params: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Key] = field(default_factory=dict)
    locator: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """The victim that an attacker holds: keys of its tasks by role, and the view."""

    inputs: dict[str, Key]
    view: str

    @property
    def model(self) -> Key:
        """Key of the last task of the victim."""
        return self.inputs.get("output", self.inputs["train"])


@dataclass(frozen=True, kw_only=True)
class Model:
    """One protected model of a cell: keys of its tasks, the labels it protects, the labels attacked."""

    train: Key
    output: Key | None
    adapt: Key | None
    invert: Key
    protects: tuple[int, ...]
    targets: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """The keys and the protected labels, as on a record."""
        names = ("train", "output", "adapt", "invert")
        return {**{name: getattr(self, name) for name in names}, "protects": list(self.protects)}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Attack x defense x view x seed: one row of the records.

    Args:
        attack: configured attack with its label.
        defense: configured defense with its label.
        view: `stripped` or `deployed` for a white-box attack, `black-box` for any other.
        seed: of the suite.
        protected: the protected labels.
        models: empty where the cell is blocked.
        measure: key of the task that measures the cell; empty where it is blocked.
        blocked: why the cell makes no sense; empty where it does.
    """

    attack: Entry[Attack[Any]]
    defense: Entry[Defense]
    view: str
    seed: int
    protected: tuple[int, ...]
    models: tuple[Model, ...] = ()
    measure: Key = ""
    blocked: str = ""

    @property
    def id(self) -> str:
        """12 hexadecimal digits that name the cell in files and links."""
        coordinates = {"attack": self.attack.label, "defense": self.defense.label, "view": self.view}
        inputs = {"measure": self.measure}
        return make_key(
            "cell", plugin="", version=1, source="", params=coordinates, inputs=inputs, seed=self.seed
        )[:12]
