"""Pages that code writes are what it writes now; the README stays short; transcripts can fail."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README_LINES = 150


@pytest.fixture(autouse=True)
def docs_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules lie beside each other, as the scripts that they are find them."""
    monkeypatch.syspath_prepend(str(DOCS))


@pytest.fixture
def transcripts() -> ModuleType:
    return importlib.import_module("transcripts")


@pytest.mark.parametrize(("module", "page"), [("cli_page", "cli.md"), ("suite_keys", "suite-keys.md")])
def test_whole_pages_are_those_of_the_code(module: str, page: str) -> None:
    written = (DOCS / page).read_text(encoding="utf-8")
    assert importlib.import_module(module).page() == written, "run `make readme`"


def test_the_table_of_the_statistics_is_that_of_the_code() -> None:
    text = (DOCS / "statistics.md").read_text(encoding="utf-8")
    assert importlib.import_module("statistics_page").page(text) == text, "run `make readme`"
    assert "| 5 | 0.062 | nothing |" in text


def test_every_command_and_option_is_told() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    run = text.split("## `mibench run`")[1].split("\n## ")[0]
    assert [word for word in ("--defense NAME", "--budget 2h", "--no-zoo`") if f"| `{word}" not in run] == []
    for command in ("board update", "submit verify", "new defense", "data prepare", "compare", "doctor"):
        assert f"## `mibench {command}`\n" in text


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_every_page_is_on_the_list() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {
        page.relative_to(DOCS).as_posix() for page in (*DOCS.glob("*.md"), *DOCS.glob("first-steps/*.md"))
    }
    assert {page for page in pages - {"index.md"} if f"]({page})" not in index} == set()


def test_times_do_not_count_and_results_do(transcripts: ModuleType) -> None:
    assert transcripts.agree("  3.1 s  train\n", " 120.4 s  train\n")
    assert not transcripts.agree("AA 3.1 %\n", "AA 12.5 %\n")
    assert transcripts.agree("AA 3.1 %\n", "AA 12.5 %\n", by_machine=True)
    assert not transcripts.agree("AA 3.1 %\n", "MC 3.1 %\n", by_machine=True)


def test_an_ellipsis_stands_for_lines_and_nothing_else_is_left_out(transcripts: ModuleType) -> None:
    assert transcripts.agree("first\n…\nlast\n", "first\nlast\n")
    assert transcripts.agree("first\n…\nlast\n", "first\none\ntwo\nlast\n")
    assert not transcripts.agree("first\nlast\n", "first\none\nlast\n")
    assert not transcripts.agree("first\n…\n", "zeroth\nfirst\n")


_PAGE = """
<!-- file: name.txt -->
```text
one
```

```console
$ cat name.txt
one
$ echo 2
{shown}
```
"""


def test_a_transcript_that_is_not_true_is_found_and_mended(transcripts: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(_PAGE.format(shown="3"), encoding="utf-8")
    (tmp_path / "a").mkdir()
    with pytest.raises(transcripts.TranscriptError, match="echo 2"):
        transcripts.check(page, tmp_path / "a")
    (tmp_path / "b").mkdir()
    assert transcripts.rewritten(page.read_text(encoding="utf-8"), tmp_path / "b") == _PAGE.format(shown="2")


def test_a_command_that_fails_is_an_error(transcripts: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(transcripts.TranscriptError, match="ended with 7"):
        transcripts.rewritten("```console\n$ exit 7\n```\n", tmp_path)
