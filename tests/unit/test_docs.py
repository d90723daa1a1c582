"""What the documentation says about names, defaults and files is what the code and the repository hold."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mibench.data.folder import FolderData
from mibench.data.synthetic import SynthFacesData
from mibench.net_choice import EmbedderChoice, NetChoice
from mibench.nets import CLASSIFIERS
from mibench.registry import plugin_names
from mibench.suite import Suite, parse_suite
from mibench.targets import Limits, Targets
from mibench.training import Recipe

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("", "docs/**/", "attacks/", "defenses/", "leaderboards/", "results/", "results/*/")
PAGES = sorted(page for folder in FOLDERS for page in ROOT.glob(f"{folder}*.md"))
SUITES = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
TABLES = {
    "SynthFacesData": SynthFacesData,
    "FolderData": FolderData,
    "NetChoice": NetChoice,
    "EmbedderChoice": EmbedderChoice,
    "Recipe": Recipe,
    "Targets": Targets,
    "Limits": Limits,
}


def rows(text: str) -> dict[str, str]:
    """Name and second column of the first table of a text."""
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    cells = [line.split("|")[1:3] for line in table[0].splitlines()[2:]]
    return {name.strip().strip("`"): value.strip().strip("`") for name, value in cells}


def told(name: str) -> dict[str, str]:
    """The documented fields of a table of a suite, and their defaults."""
    starts = {
        "SynthFacesData": '`kind = "synthfaces"`',
        "FolderData": '`kind = "folder"`',
        "NetChoice": "## `[victim]`",
        "EmbedderChoice": "## `[embedder]`",
        "Recipe": "`recipe = {",
        "Targets": "## `[targets]`",
        "Limits": "## `[limits]`",
    }
    return rows(SUITES[SUITES.index(starts[name]) :])


def as_toml(value: object) -> str:
    """A default as the page writes it."""
    words: dict[Any, str] = {None: "none", (): "[]", True: "true", False: "false", Recipe(): "all defaults"}
    if not isinstance(value, int | float) or isinstance(value, bool):
        return words.get(value, f'"{value}"')
    return repr(value)


@pytest.mark.parametrize("name", TABLES)
def test_every_field_of_a_suite_is_told_with_its_default(name: str) -> None:
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(TABLES[name])
    wanted = {}
    for one in fields:
        if one.default is not dataclasses.MISSING:
            wanted[one.name] = as_toml(one.default)
        elif one.default_factory is not dataclasses.MISSING:
            wanted[one.name] = as_toml(one.default_factory())
        else:
            wanted[one.name] = "required"
    assert told(name) == wanted


def test_every_key_of_a_suite_outside_its_tables_is_told() -> None:
    top = rows(SUITES[SUITES.index("## Top level") :])
    headings = set(re.findall(r"`\[([a-z_]+)", "".join(re.findall(r"^## .*", SUITES, re.MULTILINE))))
    assert set(top) | headings == {one.name for one in dataclasses.fields(Suite)}
    nets = re.search(r"^\| `net` \|.*", SUITES, re.MULTILINE)
    assert nets is not None
    assert set(CLASSIFIERS) == set(re.findall(r"`(\w+)`", nets[0])) - {"net"}


def test_the_suite_on_the_page_can_be_read() -> None:
    block = re.search(r"```toml\n(.*?)```", SUITES, re.DOTALL)
    assert block is not None
    suite = parse_suite(tomllib.loads(block[1]), where="docs/suites.md")
    assert [one.label for one in suite.defenses] == ["none", "dp_sgd", "loose"]


def test_every_metric_has_its_row() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert sorted(rows(page)) == plugin_names("metrics")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_every_decision_is_on_the_list() -> None:
    folder = ROOT / "docs" / "adr"
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert listed == sorted(file.name for file in folder.glob("[0-9]*.md"))
