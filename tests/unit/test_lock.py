"""The lock file holds every built-in plugin to its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from mibench.errors import PluginError
from mibench.lock import (
    LOCK,
    Locked,
    difference,
    differences,
    is_built_in,
    present,
    read_lock,
    sources,
    write_lock,
)
from mibench.registry import forget_files, get_attack, get_defense, load_plugin_file

TOY = Path(__file__).parents[1] / "e2e" / "plugins" / "toy_scores.py"


def test_built_in_plugins_are_as_they_were_locked() -> None:
    assert differences(read_lock(), present()) == []


def test_the_lock_file_is_what_would_be_written(tmp_path: Path) -> None:
    assert write_lock(tmp_path / "plugins.lock").read_bytes() == LOCK.read_bytes()
    assert read_lock(tmp_path / "plugins.lock") == present()


def test_helpers_count_as_source() -> None:
    names = {file.name for file in sources(get_defense("netguard"))}
    assert {"netguard.py", "_fakes.py", "_decoy.py", "_ewc.py"} <= names
    assert [file.name for file in sources(get_attack("mean_face"))] == ["mean_face.py"]


def test_a_plugin_from_a_file_is_not_built_in() -> None:
    assert is_built_in(get_attack("ami"))
    try:
        assert not is_built_in(load_plugin_file(TOY))
    finally:
        forget_files()


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (Locked(1, "a"), Locked(1, "a"), ""),
        (Locked(1, "a"), Locked(1, "b"), "its version is still 1. Raise `version`"),
        (Locked(1, "a"), Locked(2, "b"), "its version is 2, locked is 1. Run `mibench lock`."),
        (None, Locked(1, "a"), "is not in plugins.lock. Run `mibench lock`."),
        (Locked(1, "a"), None, "is in plugins.lock and nowhere else."),
    ],
)
def test_each_difference_says_what_to_do(old: Locked | None, new: Locked | None, wanted: str) -> None:
    found = difference(old, new)
    assert wanted in found
    assert bool(found) == bool(wanted)


def test_differences_name_family_and_plugin() -> None:
    old = {"attacks": {"ami": Locked(1, "a"), "dmi": Locked(1, "a")}, "metrics": {}}
    new = {"attacks": {"ami": Locked(1, "a"), "dmi": Locked(1, "b")}, "metrics": {"aa": Locked(1, "c")}}
    found = differences(old, new)
    assert [line.split(":")[0] for line in found] == ["attack 'dmi'", "metric 'aa'"]


@pytest.mark.parametrize(
    "text", ["attacks = 3", "[attacks]\nami = 3", "[attacks", "[attacks]\nami = { version = 1 }"]
)
def test_a_broken_lock_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "plugins.lock"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PluginError, match="cannot be read"):
        read_lock(file)
