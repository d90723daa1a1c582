"""Suites: TOML files that name data, nets, attacks, defenses, targets, metrics and seeds.

Everything is checked when the file is read: an unknown key, a wrong type or a value out of range is a
`SuiteError` that names the table.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import ConfigDict

from mibench.attack import Attack
from mibench.building import build_dataclass
from mibench.compose import Composition
from mibench.data.folder import FolderData
from mibench.data.prepared_source import PreparedData
from mibench.data.synthetic import SynthFacesData
from mibench.defense import Defense
from mibench.errors import PluginError, SuiteError
from mibench.metric import Metric
from mibench.metric_options import beside, metric_tables
from mibench.more import with_more
from mibench.net_choice import EmbedderChoice, NetChoice, inherited, unknown
from mibench.plugin import Plugin
from mibench.registry import get_attack, get_defense, get_metric
from mibench.targets import Limits, Targets
from mibench.training import Recipe

SUITES = Path(__file__).parent / "suites"
View = Literal["stripped", "deployed"]
DataSpec = SynthFacesData | FolderData | PreparedData

T = TypeVar("T")
P = TypeVar("P", bound=Plugin)
N = TypeVar("N", bound=NetChoice)
_FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Entry(Generic[P]):
    """A configured plugin under the name that tables show."""

    label: str
    plugin: P


@dataclass(frozen=True, kw_only=True)
class More:
    """What a run meets only where it is named, in table order."""

    attacks: tuple[Entry[Attack[Any]], ...] = ()
    defenses: tuple[Entry[Defense], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One benchmark: every attack against every defense, on one split, for some seeds.

    Args:
        name: of the suite and of its results folder.
        data: where the images come from.
        victim: the attacked classifier.
        judge: the evaluation classifier; should be another architecture than the victim.
        attacks: in table order.
        defenses: in table order.
        metrics: in table order.
        audit: a second judge that catches false successes, or None.
        embedder: a space of faces that knows nobody private, or None.
        public_net: the defender's classifier of public people; None takes the victim's choices.
        seeds: each gives a full repetition, except for data and judges, which all seeds share.
        share_priors: whether all seeds share the priors of the first, attackers' and defenders'. They are the
            dearest part of a suite, and the seeds then vary everything but them.
        prior_seed: of the priors of every seed, whatever the seeds are; None leaves them to `share_priors`.
        white_box: what a white-box attacker holds of a defense with an output step.
        crossed: attacks, from the first, that meet every defense; the others meet the first defense alone.
            None lets all meet all.
        targets: which labels are attacked.
        limits: queries and batch.
        more: attacks and defenses that a run meets only where they are named.
    """

    name: str
    data: DataSpec
    victim: NetChoice
    judge: NetChoice
    attacks: tuple[Entry[Attack[Any]], ...]
    defenses: tuple[Entry[Defense], ...]
    metrics: tuple[Metric, ...]
    audit: NetChoice | None = None
    embedder: EmbedderChoice | None = None
    public_net: NetChoice | None = None
    seeds: tuple[int, ...] = (0,)
    share_priors: bool = False
    prior_seed: int | None = None
    white_box: tuple[View, ...] = ("stripped",)
    crossed: int | None = None
    targets: Targets = field(default_factory=Targets)
    limits: Limits = field(default_factory=Limits)
    more: More = field(default_factory=More)

    def __post_init__(self) -> None:
        if self.crossed is not None and self.crossed < 1:
            raise ValueError(f"crossed must be >= 1, got {self.crossed}. Leave it out to let all meet all.")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"name must be letters, digits, '-', '_' and '.', got '{self.name}'.")
        for name in ("attacks", "defenses", "metrics", "seeds", "white_box"):
            values = getattr(self, name)
            words = [getattr(one, "label", getattr(one, "name", one)) for one in values]
            if not values or len(set(words)) != len(words):
                raise ValueError(f"{name} must name at least one thing and none twice, got {words}.")
        if min(*self.seeds, self.prior_seed or 0, 0) < 0:
            raise ValueError(f"seeds must be >= 0, got {list(self.seeds)}, prior_seed {self.prior_seed}.")
        self._check_targets()
        for table, people in (("victim", self.data.private), ("judge", self.data.private)):
            getattr(self, table).check(table, self.data, people)
        if self.audit is not None:
            self.audit.check("audit", self.data, self.data.private)
        if self.public_net is not None:
            self.public_net.check("public_net", self.data, self.data.defender)
        if self.embedder is not None:
            self.embedder.check("embedder", self.data, self.data.defender)
        self._check_needs()

    def meet(self, attack: Entry[Attack[Any]], defense: Entry[Defense]) -> bool:
        """Whether the suite has a cell of this attack against this defense."""
        if self.crossed is None or defense is self.defenses[0]:
            return True
        return attack in self.attacks[: self.crossed]

    def seed_of_priors(self, seed: int) -> int:
        """The seed with which the priors of a cell of this seed are made."""
        if self.prior_seed is not None:
            return self.prior_seed
        return self.seeds[0] if self.share_priors else seed

    def _check_targets(self) -> None:
        people, targets = self.data.private, self.targets
        if targets.attacked > people or targets.protected + targets.bystanders > people:
            raise ValueError(
                f"targets: {targets.attacked} attacked, {targets.protected} protected and "
                f"{targets.bystanders} bystander labels do not fit {people} private people. Lower them."
            )
        wrong = [label for label in targets.labels if not 0 <= label < people]
        if wrong:
            raise ValueError(f"targets: label {wrong[0]} is not in [0, {people}). Choose another.")

    def _check_needs(self) -> None:
        """Raise ValueError where a metric needs a table that the suite lacks."""
        for metric in self.metrics:
            lacks = [one for one in ("audit", "embedder") if one in metric.needs and not getattr(self, one)]
            if lacks:
                raise ValueError(
                    f"metrics: '{metric.name}' needs the table [{lacks[0]}]. Add it, or drop the metric."
                )

    def with_plugins(self, *plugins: Plugin) -> Suite:
        """The suite with more attacks or defenses under their names; one of that name is replaced."""
        attacks = {one.label: one for one in self.attacks}
        defenses = {one.label: one for one in self.defenses}
        for plugin in plugins:
            if isinstance(plugin, Attack):
                attacks[plugin.name] = Entry(plugin.name, plugin)
            elif isinstance(plugin, Defense):
                defenses[plugin.name] = Entry(plugin.name, plugin)
            else:
                raise SuiteError(f"suite {self.name}: '{plugin.name}' is neither attack nor defense.")
        return dataclasses.replace(self, attacks=tuple(attacks.values()), defenses=tuple(defenses.values()))


def list_suites() -> list[str]:
    """Names of the built-in suites, sorted."""
    return sorted(file.stem for file in SUITES.glob("*.toml"))


def load_suite(name: str | Path) -> Suite:
    """The built-in suite of this name, or the one in this file.

    Raises:
        SuiteError: no such suite, no TOML, an unknown key, a value of the wrong type or range.
    """
    file = _find(name)
    try:
        text = file.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"suite {name}: cannot be read ({error}). Give a readable TOML file.") from error
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"suite {file.name}: is no TOML ({error}). Mend that line.") from error
    # nobody keeps images inside the installed package
    folder = Path.cwd() if file.parent == SUITES else file.parent
    return parse_suite(raw, where=f"suite {file.name}", folder=folder)


def parse_suite(raw: Mapping[str, Any], *, where: str, folder: Path = Path()) -> Suite:
    """A suite from parsed TOML.

    Args:
        raw: the parsed file.
        where: begins every message, for example `suite quick.toml`.
        folder: what a relative `path` of image folders is relative to.

    Raises:
        SuiteError: see load_suite.
    """
    reader = _Reader(where, folder)
    _check_plain(raw, where)
    reader.check_keys(raw)
    fields = {one.name: raw[one.name] for one in dataclasses.fields(_Head) if one.name in raw}
    head = reader.build(_Head, fields, "")
    attacks = reader.entries(raw, "attacks", get_attack)
    defenses = reader.entries(raw, "defenses", get_defense)
    own = len(raw["attacks"]), len(raw["defenses"])
    if head.crossed is not None and head.crossed > own[0]:
        raise SuiteError(
            f"{where}: crossed is {head.crossed}, of {own[0]} attacks. Lower it, or leave it out for all."
        )
    tables: dict[str, Any] = {
        "data": reader.data(raw),
        "victim": reader.net(raw, "victim"),
        "judge": reader.net(raw, "judge"),
        "attacks": attacks[: own[0]],
        "defenses": defenses[: own[1]],
        "more": More(attacks=attacks[own[0] :], defenses=defenses[own[1] :]),
        "metrics": reader.metrics(raw, head.metrics),
        "targets": reader.build(Targets, raw.get("targets", {}), "targets"),
        "limits": reader.build(Limits, raw.get("limits", {}), "limits"),
        **{name: reader.net(raw, name) for name in ("audit", "public_net") if name in raw},
        **({"embedder": reader.embedder(raw)} if "embedder" in raw else {}),
    }
    del fields["metrics"]
    return reader.place(lambda: Suite(**{name: getattr(head, name) for name in fields}, **tables), "")


@dataclass(frozen=True, kw_only=True)
class _Head:
    """The keys of a suite outside its tables."""

    name: str
    metrics: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    share_priors: bool = False
    prior_seed: int | None = None
    white_box: tuple[View, ...] = ("stripped",)
    crossed: int | None = None
    __pydantic_config__: ClassVar[ConfigDict] = _FORBID


_TABLES = (
    "data",
    "targets",
    "victim",
    "judge",
    "audit",
    "embedder",
    "public_net",
    "attacks",
    "defenses",
    "limits",
    "metric",
    "more",
)


@dataclass(frozen=True)
class _Reader:
    """Builds the parts of a suite and says in which table something is wrong."""

    where: str
    folder: Path

    def at(self, table: str) -> str:
        return f"{self.where}, {table}" if table else self.where

    def place(self, make: Callable[[], T], table: str) -> T:
        """What `make` gives; its ValueError or PluginError becomes a SuiteError with the place."""
        try:
            return make()
        except (ValueError, PluginError) as error:
            message = str(error)
            start = "" if message.startswith(self.where) else f"{self.at(table)}: "
            raise SuiteError(start + message) from error

    def call(self, get: Callable[[str], T], name: str, table: str) -> T:
        return self.place(lambda: get(name), table)

    def build(self, kind: type[T], values: Mapping[str, Any], table: str) -> T:
        if not isinstance(values, Mapping):
            raise SuiteError(f"{self.at(table)}: must be a table, got {values!r}. Write [{table}] above it.")
        return self.place(lambda: build_dataclass(kind, dict(values), where=self.at(table)), table)

    def check_keys(self, raw: Mapping[str, Any]) -> None:
        known = [*(f.name for f in dataclasses.fields(_Head)), *_TABLES]
        for name in raw:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean '{close[0]}'?" if close else ""
                raise SuiteError(f"{self.where}: no field '{name}'.{hint} Its fields: {', '.join(known)}.")
        for name in ("data", "victim", "judge", "attacks", "defenses"):
            if not isinstance(raw.get(name), Mapping):
                raise SuiteError(f"{self.where}: table [{name}] is missing. Add it.")

    def metrics(self, raw: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Metric, ...]:
        tables = metric_tables(raw, names, where=self.where)
        kinds = {name: self.call(get_metric, name, "metrics") for name in names}
        made = [self.build(kinds[name], tables.get(name, {}), f"metric.{name}") for name in names]
        return tuple(beside(one, self.folder) for one in made)

    def data(self, raw: Mapping[str, Any]) -> DataSpec:
        values = dict(raw["data"])
        kinds: dict[str, type[DataSpec]] = {
            one.kind: one for one in (SynthFacesData, FolderData, PreparedData)
        }
        kind = values.pop("kind", "synthfaces")
        if kind not in kinds:
            raise SuiteError(f"{self.at('data')}: {unknown('kind', str(kind), kinds)}")
        spec: DataSpec = self.build(kinds[kind], values, "data")
        return spec.beside(self.folder)

    def net(self, raw: Mapping[str, Any], table: str) -> NetChoice:
        return self.chosen(raw, table, NetChoice)

    def chosen(self, raw: Mapping[str, Any], table: str, kind: type[N]) -> N:
        # the recipe is built by itself so that a wrong key is reported with the fields of the recipe
        values = raw[table]
        if not isinstance(values, Mapping):
            raise SuiteError(f"{self.at(table)}: must be a table, got {values!r}. Write [{table}] above it.")
        start = inherited(raw["victim"], values) if table == "public_net" else {}
        plain = {name: value for name, value in {**start, **values}.items() if name != "recipe"}
        recipe = self.build(Recipe, values.get("recipe", start.get("recipe", {})), f"{table}.recipe")
        choice = self.build(kind, plain, table)
        file = str(self.folder / Path(choice.weights).expanduser()) if choice.weights else ""
        return self.place(lambda: dataclasses.replace(choice, recipe=recipe, weights=file), table)

    def embedder(self, raw: Mapping[str, Any]) -> EmbedderChoice:
        return self.chosen(raw, "embedder", EmbedderChoice)

    def entries(
        self, raw: Mapping[str, Any], table: str, get: Callable[[str], type[P]]
    ) -> tuple[Entry[P], ...]:
        tables: dict[str, tuple[type[P], dict[str, Any]]] = {}
        for label, values in with_more(raw, table, where=self.where).items():
            place = f"{table}.{label}"
            if not isinstance(values, Mapping):
                raise SuiteError(f"{self.at(place)}: must be a table, got {values!r}. Write [{place}].")
            params = dict(values)
            plugin = self.call(get, str(params.pop("plugin", label)), place)
            # a composition is one column in whatever order its parts are named, so its own name is the label
            is_plain = "plugin" in values or not issubclass(plugin, Composition)
            name = label if is_plain else plugin.name
            if name in tables:
                raise SuiteError(f"{self.at(place)}: '{name}' is there already. Name it once.")
            tables[name] = plugin, params
        own = {
            label: self.build(kind, params, f"{table}.{label}").located(self.folder)
            for label, (kind, params) in tables.items()
            if not issubclass(kind, Composition)
        }
        return tuple(
            Entry(label, own[label] if label in own else self.composed(kind, params, own, f"{table}.{label}"))
            for label, (kind, params) in tables.items()
        )

    def composed(self, kind: type[P], params: Mapping[str, Any], own: Mapping[str, Plugin], place: str) -> P:
        """A composition; it takes from `own`, the plain entries, what its table leaves out."""
        if issubclass(kind, Composition):
            params = self.place(lambda: kind.filled(params, own), place)
        return self.build(kind, params, place)


def _find(name: str | Path) -> Path:
    file = Path(name)
    if file.suffix == ".toml" or file.is_file():
        return file
    built_in = SUITES / f"{name}.toml"
    if built_in.is_file():
        return built_in
    raise SuiteError(unknown("suite", str(name), list_suites()) + " Or give the path of a .toml file.")


def _check_plain(value: object, where: str) -> None:
    """Raise SuiteError for what JSON cannot carry: dates, infinity, NaN."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            _check_plain(part, f"{where}, {name}" if "," not in where else f"{where}.{name}")
    elif isinstance(value, list):
        for part in value:
            _check_plain(part, where)
    elif not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise SuiteError(f"{where}: must be a finite number, a word, a list or a table, got {value!r}.")
