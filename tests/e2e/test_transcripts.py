"""What the pages say that commands print is what they print."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("transcripts_of_docs", DOCS / "transcripts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks for itself
    spec.loader.exec_module(module)
    return module


RUNNER = loaded()


def test_the_first_steps_are_transcripts() -> None:
    wanted = {DOCS / "first-steps" / f"{user}.md" for user in ("reviewer", "author", "nightly")}
    assert wanted <= set(RUNNER.pages())


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNER.pages(), ids=lambda page: page.relative_to(DOCS).as_posix())
def test_a_transcript_is_true(page: Path, tmp_path: Path) -> None:
    RUNNER.check(page, tmp_path)
