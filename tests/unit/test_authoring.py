"""`mibench new`: what it writes works, is clean, and takes nobody's place."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mibench.authoring import Family, check_name, new_plugin
from mibench.cli import main
from mibench.errors import PluginError
from mibench.registry import forget_files, load_plugin_file
from mibench.testing import checks_for

ROOT = Path(__file__).parents[2]
LONGEST = "a_name_of_exactly_thirty_chars"
FAMILIES: tuple[Family, ...] = ("defense", "attack")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Plugins from files are forgotten afterwards."""
    yield
    forget_files()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_plugin_keeps_its_contract(tmp_path: Path, family: Family) -> None:
    (file,) = new_plugin(family, "shield_x", out=tmp_path)
    plugin = load_plugin_file(file)
    assert plugin.__name__ == "ShieldX"
    wrong = [(one.name, verdict) for one in checks_for(plugin) if (verdict := one.run()).status != "ok"]
    assert wrong == []


@pytest.mark.parametrize("name", ["x", LONGEST])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_clean_by_our_own_rules(tmp_path: Path, name: str, family: Family) -> None:
    pytest.importorskip("ruff", reason="a tool of development")
    new_plugin(family, name, out=tmp_path, package=True)
    (root,) = tmp_path.iterdir()
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    ignored = ["D103", *rules["ignore"]]  # tests need no docstrings here either
    asked = ["--select", ",".join(rules["select"]), "--ignore", ",".join(ignored)]
    style = ["--config", 'lint.pydocstyle.convention = "google"']
    for words in (["check", *asked, *style], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--no-cache", "."],
            cwd=root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_what_is_written_is_strictly_typed(tmp_path: Path) -> None:
    files = [str(file) for family in FAMILIES for file in new_plugin(family, f"typed_{family}", out=tmp_path)]
    words = ["--follow-imports", "silent", "--config-file", str(ROOT / "pyproject.toml"), *files]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_package_names_its_plugin_for_the_registry(tmp_path: Path) -> None:
    files = new_plugin("attack", "probe_x", out=tmp_path, package=True)
    root = tmp_path / "mibench-probe-x"
    assert {file.relative_to(root).as_posix() for file in files} == {
        "pyproject.toml", "README.md", "src/mibench_probe_x/__init__.py", "src/mibench_probe_x/py.typed",
        "src/mibench_probe_x/probe_x.py", "tests/test_probe_x.py",
    }  # fmt: skip
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"] == {"mibench.attacks": {"probe_x": "mibench_probe_x.probe_x:ProbeX"}}
    assert "checks_for(ProbeX)" in (root / "tests" / "test_probe_x.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_installed_package_is_found_by_name_and_its_tests_pass(tmp_path: Path) -> None:
    new_plugin("defense", "shield_x", out=tmp_path, package=True)
    root, lib = tmp_path / "mibench-shield-x", tmp_path / "lib"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps"]
    subprocess.run([*pip, "--no-index", "--target", str(lib), str(root)], check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(lib)!r}); from mibench.registry import get_defense; "
        "print(get_defense('shield_x').__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "mibench_shield_x.shield_x"
    words = ["-m", "pytest", "-q", str(root)]
    tested = subprocess.run(
        [sys.executable, *words],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(lib)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("../shield", "this is a path"),
        ("shield.py", "this is a path"),
        ("Shield", "lowercase letters"),
        ("_shield", "begins with a letter"),
        ("a" * 31, "up to 30"),
        ("lambda", "a word of Python"),
        ("match", "a word of Python"),
        ("random", "would hide the module 'random'"),
        ("torch", "would hide the module 'torch'"),
        ("bido", "already one among the defenses"),
        ("mirror", "already one among the attacks"),
        ("aa", "already one among the metrics"),
        ("vib", "the defenses have it as another name of 'mid'"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name: str, wanted: str) -> None:
    with pytest.raises(PluginError, match=wanted):
        check_name(name)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("attack", "reconstructions"),
        ("attack", "score_victim"),
        ("defense", "f"),
        ("defense", "defense"),
        ("defense", "check"),
    ],
)
def test_a_class_that_would_hide_what_its_file_imports_is_refused(
    tmp_path: Path, family: Family, name: str
) -> None:
    with pytest.raises(PluginError, match="would hide what a plugin imports"):
        new_plugin(family, name, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["new", "defense", "shield_x", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "Next: mibench check " in capsys.readouterr().out
    (tmp_path / "shield_x.py").write_text("mine\n", encoding="utf-8")
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "is there already" in err
    assert len(err.splitlines()) == 1
    assert (tmp_path / "shield_x.py").read_text(encoding="utf-8") == "mine\n"
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main([*words[:4], str(tmp_path / "file")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["run"], "mibench run: missing argument 'SUITE'. `mibench run --help` shows what it takes."),
        (["run", "smoke", "--bogus"], "mibench run: no such option: --bogus"),
        (["list", "nets"], "'nets' is not one of 'attacks', 'defenses', 'metrics', 'suites'."),
        (["nosuch"], "mibench: no such command 'nosuch'."),
        (["tabel"], "Did you mean 'table'? `mibench --help`"),
        (["doctor", "--write"], "goes with --golden alone."),
        (["new", "defense"], "mibench new defense: missing argument 'NAME'."),
        (["check", "none", "--limit", "inf"], "mibench check: invalid value for '--limit'"),
    ],
)
def test_wrong_usage_is_one_sentence(
    capsys: pytest.CaptureFixture[str], words: list[str], wanted: str
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert wanted in err
    assert len(err.splitlines()) == 1
    assert out == ""


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new"]) == 2
    assert "defense" in "".join(capsys.readouterr())
