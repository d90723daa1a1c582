import re
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mibench import registry
from mibench.catalog import find_plugins
from mibench.errors import PluginError, UnknownPluginError
from mibench.registry import (
    get_attack,
    get_defense,
    get_metric,
    list_attacks,
    list_defenses,
    list_metrics,
    load_plugin_file,
    loaded_files,
    plugin_names,
    source_digest,
)

TOYS = Path(__file__).parent.parent / "e2e" / "plugins"
GOOD = """
from dataclasses import dataclass
from mibench.defense import Defense
from mibench.plugin import Card

@dataclass(frozen=True, kw_only=True)
class Mine(Defense):
    name = "mine"
    card = Card(title="Mine")
"""

pytestmark = pytest.mark.usefixtures("toys")


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_every_listed_plugin_is_called_like_its_key() -> None:
    for listed in (list_attacks(), list_defenses(), list_metrics()):
        assert listed
        assert list(listed) == sorted(listed)
        assert all(plugin.name == name for name, plugin in listed.items())


def test_names_are_known_without_import() -> None:
    assert plugin_names("defenses") == list(list_defenses())
    assert plugin_names("attacks") == list(list_attacks())


def test_the_same_name_gives_the_same_class() -> None:
    assert get_defense("none") is get_defense("none") is list_defenses()["none"]
    assert get_metric("aa") is list_metrics()["aa"]


def test_every_alias_leads_to_its_attack() -> None:
    aliases = [(alias, plugin) for plugin in list_attacks().values() for alias in plugin.aliases]
    assert aliases
    assert all(get_attack(alias) is plugin for alias, plugin in aliases)


def test_file_of_that_name_is_pointed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shield.py").write_text("", encoding="ascii")
    with pytest.raises(UnknownPluginError, match=r"The file here is called 'shield\.py'"):
        get_defense("shield")
    with pytest.raises(
        UnknownPluginError, match=r"^unknown plugin 'shield'\. The file here is called 'shield\.py'"
    ):
        find_plugins("shield")
    with pytest.raises(UnknownPluginError, match="shows all"):
        get_defense("shield" * 100)


def test_unknown_name_gets_a_suggestion_and_the_count() -> None:
    count = len(list_defenses())
    text = f"unknown defense 'nome'. Did you mean 'none'? `mibench list defenses` shows all {count}."
    with pytest.raises(UnknownPluginError, match=f"^{re.escape(text)}$"):
        get_defense("nome")


def test_unlike_name_gets_no_suggestion() -> None:
    with pytest.raises(UnknownPluginError) as caught:
        get_metric("qqqq")
    assert "Did you mean" not in str(caught.value)


def test_file_plugin_is_found_by_name_until_forgotten(tmp_path: Path) -> None:
    plugin = load_plugin_file(write(tmp_path, GOOD))
    assert get_defense("mine") is plugin
    assert "mine" in list_defenses()
    assert loaded_files() == ((tmp_path / "mine.py").resolve(),)
    registry.forget_files()
    with pytest.raises(UnknownPluginError):
        get_defense("mine")


def test_file_is_read_again_only_after_a_change(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    first = load_plugin_file(file)
    assert load_plugin_file(file) is first
    write(tmp_path, GOOD + "    strength: float = 2.0\n")
    second = load_plugin_file(file)
    assert second is get_defense("mine")
    assert second().params() == {"strength": 2.0}
    assert source_digest(first) != "" != source_digest(second)


def test_built_in_file_gives_the_built_in_plugin() -> None:
    file = Path(__file__).parents[2] / "defenses" / "none.py"
    assert load_plugin_file(file) is get_defense("none")
    assert loaded_files() == ()


def test_source_digest_is_empty_for_built_ins_alone(tmp_path: Path) -> None:
    assert source_digest(get_defense("none")) == ""
    assert len(source_digest(load_plugin_file(write(tmp_path, GOOD)))) == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n    pass\n", "invalid syntax in line 1"),
        ("\n\nx = 1 / 0\n", r"raised ZeroDivisionError \(division by zero\) in line 3"),
        ("import no_such_library\n", "cannot be imported .*no_such_library"),
        ("x = 1\n", r"exactly one attack or defense or metric, found 0 \(none\)"),
        (GOOD + GOOD.replace("class Mine", "class Other"), r"found 2 \(Mine, Other\)"),
        (GOOD.replace('name = "mine"', 'name = "yours"'), "its name is 'yours', the file's stem is 'mine'"),
        (GOOD.replace('    card = Card(title="Mine")\n', ""), "class Mine has no 'card'"),
    ],
)
def test_unusable_file_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        load_plugin_file(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert loaded_files() == ()


def test_an_access_that_is_no_victim_is_refused(tmp_path: Path) -> None:
    text = (TOYS / "toy_scores.py").read_text(encoding="utf-8").replace("toy_scores", "mine")
    text = text.replace("access = ScoreVictim", "access = 3")
    with pytest.raises(PluginError, match=r"its access is 3\. Take LabelVictim, ScoreVictim"):
        load_plugin_file(write(tmp_path, text))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no such file"):
        load_plugin_file(tmp_path / "absent.py")


def test_name_of_a_built_in_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace('name = "mine"', 'name = "none"')
    with pytest.raises(PluginError, match="already a defense 'none'"):
        load_plugin_file(write(tmp_path, text, "none.py"))


def entry_points_of(
    monkeypatch: pytest.MonkeyPatch, entries: list[EntryPoint]
) -> Callable[[pytest.MonkeyPatch], None]:
    def fake(*, group: str) -> list[EntryPoint]:
        return [entry for entry in entries if entry.group == group]

    registry._entry_points.cache_clear()
    monkeypatch.setattr(registry, "entry_points", fake)
    return lambda _: registry._entry_points.cache_clear()


def test_entry_point_gives_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD.replace('"mine"', '"outside"'), "outside_package.py")
    monkeypatch.syspath_prepend(tmp_path)
    clear = entry_points_of(monkeypatch, [EntryPoint("outside", "outside_package:Mine", "mibench.defenses")])
    try:
        plugin = get_defense("outside")
        assert list_defenses()["outside"] is plugin
        assert source_digest(plugin) != ""
    finally:
        clear(monkeypatch)


def test_broken_entry_point_warns_and_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clear = entry_points_of(monkeypatch, [EntryPoint("gone", "no_such_package:Gone", "mibench.defenses")])
    try:
        with pytest.warns(RuntimeWarning, match="no_such_package"):
            listed = list_defenses()
        assert "gone" not in listed
        assert "none" in listed
        with pytest.raises(PluginError, match="no_such_package"):
            get_defense("gone")
    finally:
        clear(monkeypatch)


def test_listing_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list_attacks()
