"""`mibench new`: a plugin that works, as one file for a trial or as a package to install.

What is written is a small method with docstrings that say what each part of the contract is for. It passes
`mibench check` as it stands, so an author changes something that works and sees what broke it.
"""

from __future__ import annotations

import keyword
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal

from mibench.errors import PluginError, UnknownPluginError
from mibench.registry import get_attack, get_defense, get_metric, plugin_names

Family = Literal["defense", "attack"]

TEMPLATES = Path(__file__).parent / "templates" / "new"
_LONGEST = 30  # letters: labels of more are cut in tables, and lines of the templates grow too long
_FIRST_FIELD = {"defense": "weight", "attack": "steps"}  # whose wrong value the package's test tries
_FOREIGN = {"mibench", "numpy", "torch"}  # a file of this name in the working directory would hide them


@dataclass(frozen=True)
class Names:
    """What one new plugin is called where.

    Args:
        family: defense or attack.
        name: of file, command line and key.
    """

    family: Family
    name: str

    @property
    def kind(self) -> str:
        """Name of the class."""
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def package(self) -> str:
        """Import name of the package."""
        return f"mibench_{self.name}"

    @property
    def distribution(self) -> str:
        """Name that pip knows, and of the package's folder."""
        return self.package.replace("_", "-")

    def fill(self, template: str) -> str:
        """The text of a template file with these names in it."""
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        return Template(text).substitute(
            {
                "name": self.name,
                "Class": self.kind,
                "family": self.family,
                "plural": f"{self.family}s",
                "package": self.package,
                "dist": self.distribution,
                "knob": _FIRST_FIELD[self.family],
            }
        )


def new_plugin(family: Family, name: str, *, out: str | Path = ".", package: bool = False) -> list[Path]:
    """Write a plugin that works and return the files; nothing that is there is written over.

    Args:
        family: defense or attack.
        name: of the plugin: lowercase letters, digits and underscores.
        out: folder for the file, or for the package's folder; made where it is missing.
        package: a folder with pyproject.toml, module, test and README in place of the one file.

    Raises:
        PluginError: the name cannot be used, something of that name is there, or the folder cannot be
            written to.
    """
    check_name(name)
    names, folder = Names(family, name), Path(out)
    texts = _package(names, folder) if package else {folder / f"{name}.py": names.fill(f"{family}.py.in")}
    _check_kind(names)
    first = folder / names.distribution if package else folder / f"{name}.py"
    if os.path.lexists(first):
        raise PluginError(f"new {family} '{name}': {first} is there already. Choose another name or --out.")
    try:
        for file, text in texts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            # "x": what somebody else writes at this moment stays theirs
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
    except OSError as error:
        raise PluginError(
            f"new {family} '{name}': {error.filename} cannot be written ({error.strerror}). "
            "Choose another --out."
        ) from error
    return list(texts)


def _check_kind(names: Names) -> None:
    """Raise PluginError where the class would hide something that its own file, or its test, imports."""
    for template in (f"{names.family}.py.in", "test.py.in"):
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        lines = re.findall(r"^(?:from [\w.]+ )?import (.+)$", text, re.MULTILINE)
        if names.kind in {word.split()[-1] for line in lines for word in line.split(", ")}:
            raise PluginError(
                f"new {names.family} '{names.name}': its class '{names.kind}' would hide what a plugin "
                f"imports as '{names.kind}'. Choose another name."
            )


def _package(names: Names, folder: Path) -> dict[Path, str]:
    """The files of a package and their texts."""
    root = folder / names.distribution
    source = root / "src" / names.package
    return {
        root / "pyproject.toml": names.fill("pyproject.toml.in"),
        root / "README.md": names.fill("README.md.in"),
        source / "__init__.py": names.fill("package.py.in"),
        source / "py.typed": "",
        source / f"{names.name}.py": names.fill(f"{names.family}.py.in"),
        root / "tests" / f"test_{names.name}.py": names.fill("test.py.in"),
    }


def check_name(name: str) -> None:
    """Raise PluginError where no new plugin can have this name; the message says why."""
    where = f"new plugin '{name}'"
    if os.sep in name or "/" in name or name.endswith(".py"):
        raise PluginError(f"{where}: this is a path. Give the name alone, and the folder with --out.")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > _LONGEST:
        raise PluginError(
            f"{where}: a name is up to {_LONGEST} lowercase letters, digits and underscores, and begins with "
            "a letter. Choose another."
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise PluginError(f"{where}: this is a word of Python. Choose another.")
    if name in sys.stdlib_module_names or name in _FOREIGN:
        raise PluginError(f"{where}: a file of this name would hide the module '{name}'. Choose another.")
    for plural, get in (("defenses", get_defense), ("attacks", get_attack), ("metrics", get_metric)):
        # names first: to know all aliases every plugin is imported
        if name in plugin_names(plural):
            raise PluginError(f"{where}: there is already one among the {plural}. Choose another name.")
        try:
            found = get(name)
        except UnknownPluginError:
            continue
        raise PluginError(f"{where}: the {plural} have it as another name of '{found.name}'. Choose another.")
