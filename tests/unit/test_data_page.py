"""docs/data.md tells what the commands print, which sets are known, and every reason to leave a file out."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from mibench.cli_data import data_app
from mibench.data import decode, fitting, preparing_images, preparing_work
from mibench.data.layouts import att_faces, celeba, lfw, vggface, vggface2, walking

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
MODULES: dict[ModuleType, set[str]] = {
    decode: set(),
    fitting: set(),
    preparing_images: set(),
    preparing_work: {"IMAGES", "MANIFEST", "SKIPPED"},
    walking: set(),
    att_faces: {"SUFFIX", "ELSE"},
    celeba: {"WHO", "AGAIN"},
    lfw: set(),
    vggface: {"LISTS", "AGAIN"},
    vggface2: {"AGAIN"},
}
"""Where reasons are written down as constants, and which other words are."""


def test_walk_and_table_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.delenv("COLUMNS", raising=False)
    assert importlib.import_module("data_page").page(TEXT) == TEXT, "run `python docs/data_page.py`"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_reason_to_leave_a_file_out_is_told(module: ModuleType) -> None:
    table = TEXT[TEXT.index("## Why a file was left out") : TEXT.index("## What goes wrong")]
    told = set(re.findall(r"`([^`]+)`", table))
    reasons = {
        value
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, str)
        if name not in MODULES[module]
    }
    assert reasons
    assert reasons - told == set()


def test_every_command_is_told() -> None:
    names = {one.name or getattr(one.callback, "__name__", "") for one in data_app.registered_commands}
    table = TEXT[: TEXT.index("Exit codes")]
    assert names == set(re.findall(r"^\| `mibench data (\w+)", table, re.MULTILINE))
