"""The lock file: version and source digest of every built-in plugin, so that no number moves unseen.

The version of a built-in plugin is part of every key, its source is not. Who changes a plugin's file must
therefore say whether the same inputs may now give other numbers: by a new version, or by locking the new
source under the old one.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mibench._families import ROOT
from mibench.atomic import write_atomically
from mibench.errors import PluginError
from mibench.plugin import Plugin
from mibench.registry import list_attacks, list_defenses, list_metrics

LOCK = ROOT / "plugins.lock"
_HEAD = "# Version and source of every built-in plugin; written by `mibench lock`, held by a test.\n"


@dataclass(frozen=True)
class Locked:
    """A plugin as the lock file knows it: version, and digest of its file and its private helpers."""

    version: int
    source: str


Lock = dict[str, dict[str, Locked]]


def is_built_in(plugin: type[Plugin]) -> bool:
    """Whether a plugin comes with the package."""
    return plugin.__module__.startswith("mibench.")


def locked(plugin: type[Plugin]) -> Locked:
    """What the lock file should say about a plugin now."""
    digest = hashlib.sha256()
    for file in sources(plugin):
        digest.update(file.name.encode() + b"\0" + file.read_bytes().replace(b"\r\n", b"\n"))
    return Locked(plugin.version, digest.hexdigest())


def sources(plugin: type[Plugin]) -> list[Path]:
    """The plugin's file, and the private files of its folder that it imports, however indirectly."""
    first = inspect.getsourcefile(plugin)
    if first is None:
        raise PluginError(
            f"plugin '{plugin.name}': its source cannot be read. Install it with its .py files."
        )
    found, todo = {Path(first)}, [Path(first)]
    while todo:
        file = todo.pop()
        for name in _siblings(file):
            helper = file.parent / f"{name}.py"
            if helper.is_file() and helper not in found:
                found.add(helper)
                todo.append(helper)
    return sorted(found)


def _siblings(file: Path) -> list[str]:
    """Modules that a file imports from beside itself: `from ._decoy import x` gives `_decoy`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
    return [node.module for node in nodes if node.module]


def present() -> Lock:
    """What the lock file should say now, by family and name."""
    families: dict[str, Any] = {
        "attacks": list_attacks(),
        "defenses": list_defenses(),
        "metrics": list_metrics(),
    }
    return {
        plural: {name: locked(plugin) for name, plugin in plugins.items() if is_built_in(plugin)}
        for plural, plugins in families.items()
    }


def read_lock(file: Path = LOCK) -> Lock:
    """The content of a lock file.

    Raises:
        PluginError: it is missing or cannot be understood.
    """
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
        return {
            plural: {name: Locked(int(line["version"]), str(line["source"])) for name, line in names.items()}
            for plural, names in raw.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PluginError(f"lock file {file}: cannot be read ({error}). Run `mibench lock`.") from error


def write_lock(file: Path = LOCK) -> Path:
    """Write what is there now; returns the file."""
    lines = [_HEAD]
    for plural, names in present().items():
        lines.append(f"\n[{plural}]\n")
        lines += [
            f'{name} = {{ version = {one.version}, source = "{one.source}" }}\n'
            for name, one in names.items()
        ]
    write_atomically(file, "".join(lines).encode())
    return file


def differences(old: Lock, new: Lock) -> list[str]:
    """One sentence for each plugin that is not as it was locked."""
    found = []
    for plural in sorted({*old, *new}):
        before, now = old.get(plural, {}), new.get(plural, {})
        word = plural.removesuffix("s")
        for name in sorted({*before, *now}):
            sentence = difference(before.get(name), now.get(name))
            if sentence:
                found.append(f"{word} '{name}': {sentence}")
    return found


def difference(old: Locked | None, new: Locked | None) -> str:
    """What is wrong with a plugin's line in the lock file; empty if nothing is."""
    if old == new:
        return ""
    if old is None:
        return "is not in plugins.lock. Run `mibench lock`."
    if new is None:
        return "is in plugins.lock and nowhere else. Run `mibench lock`."
    if old.version == new.version:
        return (
            f"its source has changed and its version is still {new.version}. Raise `version` if the same "
            "inputs may give other numbers; then run `mibench lock`."
        )
    return f"its version is {new.version}, locked is {old.version}. Run `mibench lock`."
