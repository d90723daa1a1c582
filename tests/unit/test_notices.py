"""What a run says of itself before it starts, and what a suite may not say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mibench.authoring import new_plugin
from mibench.choose import choose
from mibench.errors import SuiteError
from mibench.notices import notices
from mibench.registry import forget_files
from mibench.suite import SUITES, load_suite
from mibench.wording import counted


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Plugins from files are forgotten afterwards."""
    yield
    forget_files()


def test_a_run_of_a_suite_as_it_is_says_nothing() -> None:
    assert notices(load_suite("smoke"), added=()) == []


def test_a_run_says_which_attacks_meet_an_added_defense() -> None:
    suite = choose("smoke", defenses=["none", "bido"])
    (line,) = notices(suite, added=["bido"])
    first, second = (one.label for one in suite.attacks[:2])
    rest = len(suite.attacks) - 2
    assert (
        f"{first}, {second} alone meet every defense (crossed = 2); the other {rest} attacks meet none"
        in line
    )
    assert "--attack" in line


def test_where_the_named_attacks_all_meet_it_nothing_is_said() -> None:
    assert (
        notices(choose("smoke", defenses=["none", "bido"], attacks=["mirror", "mi_face"]), added=["x"]) == []
    )


def test_a_run_says_what_a_plugin_from_a_file_runs_with(tmp_path: Path) -> None:
    (file,) = new_plugin("defense", "shield_x", out=tmp_path)
    suite = choose("smoke", defenses=["none", str(file)], attacks=["mirror"])
    (line,) = notices(suite, added=[str(file)])
    assert line.startswith("shield_x: runs with its own defaults: weight = 0.3.")


def test_more_crossed_attacks_than_there_are_is_an_error(tmp_path: Path) -> None:
    text = (SUITES / "smoke.toml").read_text(encoding="utf-8").replace("crossed = 2", "crossed = 99")
    (tmp_path / "wide.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SuiteError, match=r"suite wide.toml: crossed is 99, of \d+ attacks"):
        load_suite(tmp_path / "wide.toml")


def test_one_thing_is_told_in_the_singular() -> None:
    assert [counted(number, "cell") for number in (0, 1, 2)] == ["0 cells", "1 cell", "2 cells"]
    assert counted(1, "person") == "1 person"
    assert counted(5, "person") == "5 people"
