"""What every plugin is: a frozen dataclass with a name, a version and a card; and what it may use."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Protocol,
    Self,
    runtime_checkable,
)

import torch
from pydantic import ConfigDict
from torch import Tensor

from mibench.building import build_dataclass
from mibench.noise import Noise, derive_seed

Progress = Callable[[int, int, dict[str, float]], None]
Settings = Mapping[str, Any]  # fields and their values, nested as in a suite's table


@dataclass(frozen=True, kw_only=True)
class Card:
    """Where a plugin comes from and what it does differently.

    Args:
        title: title of the paper or, without one, what the plugin is.
        paper: citation or identifier, for example `arXiv:2310.06549`.
        year: year of publication.
        code: the authors' repository, empty if none is public.
        deviations: what differs from the paper, one sentence each.
    """

    title: str
    paper: str = ""
    year: int = 0
    code: str = ""
    deviations: tuple[str, ...] = ()


@runtime_checkable
class Part(Protocol):
    """A field that spells itself, because it may name a user's file; a prior's spec."""

    def as_table(self) -> dict[str, Any]:
        """Its fields as a suite would write them."""
        ...

    def as_key(self) -> dict[str, Any]:
        """Its fields as they enter a key, which holds no path."""
        ...

    def beside(self, folder: Path) -> Self:
        """The same with paths taken relative to a folder."""
        ...


def _no_progress(_done: int, _total: int, _values: dict[str, float]) -> None:
    """Drop the progress report: nobody watches."""


@dataclass(frozen=True)
class Context:
    """All that a plugin may use beside its arguments: randomness, device, scratch space, a reporter.

    Args:
        seed: the only source of randomness, see `generator` and `noise`.
        device: the only device to compute on.
        scratch: the only folder to write to; it is removed afterwards.
        max_batch: largest number of images to hold in one chunk.
        on_progress: called with (steps done, steps in all, named losses).
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    scratch: Path = Path("scratch")
    max_batch: int = 256
    on_progress: Progress = _no_progress
    notes: dict[str, Any] = field(default_factory=dict, compare=False)

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator seeded by (seed, purpose); equal purposes give equal streams."""
        return torch.Generator().manual_seed(derive_seed(self.seed, purpose))

    def noise(self, targets: Tensor) -> Noise:
        """Per-row noise for targets (B,) int64, independent of the rest of the batch."""
        return Noise.of_targets(self.seed, targets)

    def child(self, purpose: str) -> Context:
        """The same context with its own seed, for a part of the work; notes are shared."""
        return dataclasses.replace(self, seed=derive_seed(self.seed, purpose))

    def note(self, name: str, value: float | str | list[int]) -> None:
        """Leave a finite number, word or list of labels beside the result; it ends on the record."""
        self.notes[name] = value

    def report(self, done: int, total: int, **values: float) -> None:
        """Tell whoever watches how far the work is and how the losses stand."""
        self.on_progress(done, total, values)


class Stopwatch:
    """Lets a loop report at most every `every_s` seconds, so that reading a loss costs nothing."""

    def __init__(self, every_s: float = 0.5) -> None:
        self.every_s = every_s
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """True once per `every_s` seconds."""
        now = time.monotonic()
        if now - self._last < self.every_s:
            return False
        self._last = now
        return True


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A method: its fields are its configuration, its cache key and its row in a table.

    A plugin holds no tensor and no state. `name` is the stem of its file, `version` grows whenever the
    same inputs may give other numbers. `toy` overrides fields, as a suite's table would, where the defaults
    take the contract checks (`mibench check`) longer than a second; no result comes from it. `added` names
    fields that came after version 1, with a default that changes nothing: at that default they stay out of
    the key, so that a new option throws no stored result away. Such a default never changes.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    card: ClassVar[Card]
    toy: ClassVar[Settings] = {}
    added: ClassVar[frozenset[str]] = frozenset()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def params(self) -> dict[str, Any]:
        """All fields, defaults written out, as JSON values."""
        tables = {name: part.as_table() for name, part in self.spelled().items()}
        plain: dict[str, Any] = json.loads(json.dumps({**dataclasses.asdict(self), **tables}))
        return plain

    def told_params(self) -> dict[str, Any]:
        """All fields as records tell them: of a user's file the digest, and no path."""
        keyed = {name: (part.as_table(), part.as_key()) for name, part in self.spelled().items()}
        # a plugin may spell a part in its own way, which stands where the part has no file
        return {**self.params(), **{name: key for name, (table, key) in keyed.items() if key != table}}

    def key_params(self) -> dict[str, Any]:
        """The fields that enter a key: `told_params` without those in `added` that stand at their default."""
        unused = self.added & self._at_default()
        return {name: value for name, value in self.told_params().items() if name not in unused}

    def spelled(self) -> dict[str, Part]:
        """The fields that spell themselves."""
        fields = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if isinstance(value, Part)}

    def located(self, folder: Path) -> Self:
        """The plugin with the paths of its parts' files taken relative to a folder, the suite's."""
        parts = {name: (part, part.beside(folder)) for name, part in self.spelled().items()}
        changes: dict[str, Any] = {name: there for name, (part, there) in parts.items() if there is not part}
        return dataclasses.replace(self, **changes) if changes else self

    def _at_default(self) -> frozenset[str]:
        names = set()
        for one in dataclasses.fields(self):
            default = one.default_factory() if callable(one.default_factory) else one.default
            if getattr(self, one.name) == default:
                names.add(one.name)
        return frozenset(names)

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> Self:
        """The plugin with these fields; ValueError names an unknown field or a wrong type."""
        return build_dataclass(cls, params, where=cls.name)
