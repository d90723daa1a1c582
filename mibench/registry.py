"""Names to plugins: files of the families, entry points of installed packages, and single files.

Every `attacks/*.py`, `defenses/*.py` and `mibench/metrics/*.py` without a leading underscore is a plugin: it
defines exactly one class of its family, whose `name` is the file's stem. There is no list to edit.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from mibench.attack import Attack
from mibench.compose import SIGN, compose
from mibench.defense import Defense
from mibench.errors import PluginError, UnknownPluginError
from mibench.metric import Metric
from mibench.plugin import Plugin
from mibench.victim import LabelVictim

P = TypeVar("P", bound=Plugin)
R = TypeVar("R")
_LONGEST = 60  # characters of a file's stem; file systems take no more than 255 bytes of a name


@dataclass(frozen=True)
class Family(Generic[P]):
    """One kind of plugin: its class, its words, and the class attributes without a default."""

    kind: type[P]
    word: str
    plural: str
    needs: tuple[str, ...]
    from_files: dict[str, type[P]] = field(default_factory=dict, compare=False)

    @property
    def package(self) -> str:
        """Import name of the package of the built-in plugins, and the name of the entry-point group."""
        return f"mibench.{self.plural}"


# mypy takes an abstract class for no instance of type[P] (its issue 4717); Any keeps the rest checked
_ATTACKS: Family[Attack[Any]] = Family(cast(Any, Attack), "attack", "attacks", ("card", "access"))
_DEFENSES: Family[Defense] = Family(Defense, "defense", "defenses", ("card",))
_METRICS: Family[Metric] = Family(cast(Any, Metric), "metric", "metrics", ("card", "better", "title"))
_FAMILIES: tuple[Family[Any], ...] = (_ATTACKS, _DEFENSES, _METRICS)
_file_plugins: dict[Path, tuple[str, type[Plugin]]] = {}


def list_attacks() -> dict[str, type[Attack[Any]]]:
    """All attacks by name, sorted."""
    return _all(_ATTACKS)


def list_defenses() -> dict[str, type[Defense]]:
    """All defenses by name, sorted."""
    return _all(_DEFENSES)


def list_metrics() -> dict[str, type[Metric]]:
    """All metrics by name, sorted."""
    return _all(_METRICS)


def get_attack(name: str) -> type[Attack[Any]]:
    """The attack of this name or alias; UnknownPluginError suggests a close name."""
    return _get(_ATTACKS, name)


def get_defense(name: str) -> type[Defense]:
    """The defense of this name or alias, or of several joined by "+" (see `mibench.compose`).

    Raises:
        UnknownPluginError: there is none; it suggests a close name.
        PluginError: joined ones that do not go together.
    """
    if SIGN not in name or name in plugin_names("defenses"):
        return _get(_DEFENSES, name)
    words = [word.strip() for word in name.split(SIGN)]
    if "" in words:
        raise PluginError(f"defense '{name}': a name beside '{SIGN}' is missing. Write them as a+b.")
    return compose([_get(_DEFENSES, word) for word in words])


def get_metric(name: str) -> type[Metric]:
    """The metric of this name or alias; UnknownPluginError suggests a close name."""
    return _get(_METRICS, name)


def plugin_names(plural: str) -> list[str]:
    """Names of one family (`attacks`, `defenses` or `metrics`), sorted, without importing a plugin."""
    family = next(one for one in _FAMILIES if one.plural == plural)
    return sorted({*_stems(family), *_entry_points(family), *family.from_files})


def load_plugin_file(path: str | Path) -> type[Plugin]:
    """The one plugin that a file defines, registered under its name.

    A file of the built-in folders gives the built-in plugin. A file that was loaded before is read again
    only if it changed.

    Raises:
        PluginError: the file is missing, does not import, defines no plugin or two, its plugin is not
            called like the file, or a built-in plugin has that name.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise PluginError(f"plugin {path}: no such file. Give the path of a Python file with one plugin.")
    for family in _FAMILIES:
        if _stems(family).get(file.stem) == file:
            return _built_in(family, file)
    digest = _digest(file)
    known = _file_plugins.get(file)
    if known is not None and known[0] == digest:
        return known[1]
    module = _foreign(f"plugin {path}", lambda: _import_file(file, digest))
    plugin, family = _only_plugin(module, _FAMILIES, str(path))
    if plugin.name in _stems(family) or plugin.name in _entry_points(family):
        raise PluginError(
            f"plugin {path}: there is already a {family.word} '{plugin.name}'. "
            "Rename the file and the plugin."
        )
    family.from_files[plugin.name] = plugin
    _file_plugins[file] = (digest, plugin)
    return plugin


def loaded_files() -> tuple[Path, ...]:
    """Paths of the plugins that came from single files, in order; worker processes load them again."""
    return tuple(_file_plugins)


def loaded_attacks() -> dict[Path, type[Attack[Any]]]:
    """The attacks that came from single files, by path."""
    return {file: plugin for file, (_, plugin) in _file_plugins.items() if issubclass(plugin, Attack)}


def forget_files() -> None:
    """Forget every plugin that came from a single file, as if none had been loaded."""
    _file_plugins.clear()
    for family in _FAMILIES:
        family.from_files.clear()


def source_digest(plugin: type) -> str:
    """SHA-256 of the source file of a class from outside the package; empty for built-in ones.

    Built-in plugins are told apart by their `version`, which the lock file and a test keep honest.
    """
    if plugin.__module__.startswith("mibench."):
        return ""
    file = inspect.getsourcefile(plugin)
    if file is None:
        raise PluginError(
            f"class '{plugin.__name__}': its source cannot be read. Install it with its .py files."
        )
    return _digest(Path(file))


def _all(family: Family[P]) -> dict[str, type[P]]:
    found = {stem: _built_in(family, file) for stem, file in _stems(family).items()}
    for name, entry in _entry_points(family).items():
        try:
            found.setdefault(name, _load_entry(family, entry))
        except PluginError as error:
            warnings.warn(f"{error} It is left out.", RuntimeWarning, stacklevel=3)
    return dict(sorted({**found, **family.from_files}.items()))


def _get(family: Family[P], name: str) -> type[P]:
    if name in family.from_files:
        return family.from_files[name]
    if (file := _file(family, name)) is not None:
        return _built_in(family, file)
    if name in _entry_points(family):
        return _load_entry(family, _entry_points(family)[name])
    plugins = _all(family)
    for plugin in plugins.values():
        if name in getattr(plugin, "aliases", ()):
            return plugin
    words = [*plugins, *(alias for one in plugins.values() for alias in getattr(one, "aliases", ()))]
    close = difflib.get_close_matches(name, words, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    if lies_here(name):
        hint = f" The file here is called '{name}.py'."
    raise UnknownPluginError(
        f"unknown {family.word} '{name}'.{hint} `mibench list {family.plural}` shows all {len(plugins)}."
    )


def lies_here(name: str) -> bool:
    """Whether the working folder holds NAME.py: who types NAME means it, as often as not."""
    return name in {file.stem for file in Path().glob("*.py")}


def _stems(family: Family[Any]) -> dict[str, Path]:
    """Files of the built-in plugins by stem; read anew each time, so that a new file is seen."""
    folders = importlib.import_module(family.package).__path__
    files = sorted(file for folder in folders for file in Path(folder).glob("*.py"))
    return {file.stem: file.resolve() for file in files if not file.name.startswith("_")}


def _file(family: Family[Any], name: str) -> Path | None:
    """The file of a built-in plugin, found without looking at all the others."""
    if not name.isidentifier() or name.startswith("_") or len(name) > _LONGEST:
        return None
    folders = importlib.import_module(family.package).__path__
    files = (Path(folder) / f"{name}.py" for folder in folders)
    return next((file.resolve() for file in files if file.is_file()), None)


def _built_in(family: Family[P], file: Path) -> type[P]:
    module = _foreign(f"plugin {file}", lambda: importlib.import_module(f"{family.package}.{file.stem}"))
    return cast("type[P]", _only_plugin(module, (family,), str(file))[0])


@cache
def _entry_points(family: Family[Any]) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=family.package)}


def _load_entry(family: Family[P], entry: EntryPoint) -> type[P]:
    where = f"entry point '{entry.name}' of {family.package}"
    plugin: Any = _foreign(where, entry.load)
    if not (inspect.isclass(plugin) and issubclass(plugin, family.kind)):
        raise PluginError(f"{where}: {entry.value} is no {family.word}. Let it name a {family.word} class.")
    if plugin.name != entry.name:
        raise PluginError(f"{where}: the plugin calls itself '{plugin.name}'. Use one name for both.")
    return plugin


def _foreign(where: str, load: Callable[[], R]) -> R:
    """What `load` returns; whatever it raises becomes a PluginError, because a plugin's code is not ours."""
    try:
        return load()
    except SyntaxError as error:
        place = f"line {error.lineno}" if error.lineno else "an unknown line"
        raise PluginError(f"{where}: {error.msg} in {place}. Mend the syntax.") from error
    except ImportError as error:
        raise PluginError(f"{where}: cannot be imported ({error}). Install what it needs.") from error
    except Exception as error:
        raise PluginError(
            f"{where}: importing it raised {type(error).__name__} ({error}){_line_of(error)}. Mend the file."
        ) from error


def _line_of(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" in line {trace.tb_lineno}"


def _import_file(file: Path, digest: str) -> ModuleType:
    name = f"mibench_plugin_{file.stem}_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while the class is made
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _only_plugin(
    module: ModuleType, families: tuple[Family[Any], ...], where: str
) -> tuple[type[Plugin], Family[Any]]:
    """The one plugin class that a module defines itself, and its family."""
    found: list[tuple[Any, Family[Any]]] = [
        (value, family)
        for value in vars(module).values()
        for family in families
        if inspect.isclass(value) and issubclass(value, family.kind) and value.__module__ == module.__name__
        if not inspect.isabstract(value)
    ]
    words = " or ".join(family.word for family in families)
    if len(found) != 1:
        names = ", ".join(cls.__name__ for cls, _ in found) or "none"
        raise PluginError(
            f"plugin {where}: it must define exactly one {words}, found {len(found)} ({names}). "
            "Split it, or give helper classes another parent."
        )
    plugin, family = found[0]
    stem = Path(module.__file__ or where).stem
    if getattr(plugin, "name", None) != stem:
        raise PluginError(
            f"plugin {where}: its name is {getattr(plugin, 'name', None)!r}, the file's stem is '{stem}'. "
            "Make them equal."
        )
    missing = [attribute for attribute in family.needs if not hasattr(plugin, attribute)]
    if missing:
        raise PluginError(f"plugin {where}: class {plugin.__name__} has no '{missing[0]}'. Give it one.")
    access = getattr(plugin, "access", LabelVictim)
    if not (isinstance(access, type) and issubclass(access, LabelVictim)):
        raise PluginError(
            f"plugin {where}: its access is {access!r}. Take LabelVictim, ScoreVictim or WhiteBoxVictim."
        )
    return plugin, family


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
