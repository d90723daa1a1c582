"""Finds the plugin folders: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def family_path(package_path: Iterable[str], family: str) -> list[str]:
    """Where the modules of a family lie.

    Args:
        package_path: `__path__` of the package `mibench.<family>`; a wheel carries the plugins there.
        family: `attacks` or `defenses`.

    Returns:
        The package's own folder and, in a checkout, `<root>/<family>`. The root counts only with its
        `pyproject.toml`: in a site-packages folder a foreign `attacks/` may lie beside the package.
    """
    folder = ROOT / family
    beside = [str(folder)] if folder.is_dir() and (ROOT / "pyproject.toml").is_file() else []
    return [*package_path, *beside]
