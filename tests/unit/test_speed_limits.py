"""What keeps commands fast, held by what they load and read and not by a clock, which others slow down."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mibench.cli import main
from mibench.cli_live import live
from mibench.errors import RecordError
from mibench.estimate import Estimates
from mibench.key import Key
from mibench.plan import build_plan
from mibench.record import read_records, uncollected
from mibench.report import comparison
from mibench.runner import TaskStarted, run
from mibench.store import Store
from mibench.suite import Suite

GOLDEN = Path(__file__).parent.parent / "golden" / "record-2.jsonl"
HELP_S = 0.4  # what `mibench --help` may take on an idle core
SLACK = 3  # of CPU time where two processes share a core, and its caches with others
MINI = """
name = "mini"
metrics = ["mc_all", "aa"]
[data]
size = 16
channels = 1
private = 3
private_images = 4
test_images = 2
public = 4
public_images = 2
defender = 2
defender_images = 2
[targets]
attacked = 2
images = 2
[victim]
net = "small_vgg"
width = 4
recipe = { epochs = 1, batch = 8 }
[judge]
net = "softmax_regression"
recipe = { epochs = 1, batch = 8 }
[defenses.none]
[attacks.nearest_public]
"""
HEAVY = {"torch", "numpy", "scipy", "pandas", "matplotlib", "pydantic", "jinja2"}


def help_of(code: str = "") -> str:
    script = f"import sys; from mibench.cli import main; main(['--help']){code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stderr


def test_help_loads_nothing_heavy() -> None:
    loaded = help_of("; print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)").split()
    assert "typer" in loaded
    assert not HEAVY & set(loaded)


def test_help_comes_up_at_once() -> None:
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = spent()
    help_of()
    assert 0 < spent() - before < SLACK * HELP_S


def loaded_by(words: list[str]) -> set[str]:
    """Modules that a command has loaded when it ends, in a process of its own."""
    code = "import sys; from mibench.cli import main; code = main(sys.argv[1:])"
    script = f"{code}; print(*sys.modules, file=sys.stderr); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_a_table_loads_neither_pandas_nor_torch(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text(GOLDEN.read_text(encoding="utf-8"), encoding="utf-8")
    loaded = loaded_by(["table", str(tmp_path)])
    assert "mibench.report.table" in loaded
    assert not {"pandas", "torch", "scipy", "matplotlib", "jinja2"} & loaded


def test_a_run_of_hits_loads_nothing_that_trains_draws_or_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mini.toml").write_text(MINI, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = ["run", "mini.toml", "--device", "cpu", "--jobs"]
    assert main([*words, "1"]) == 0
    folder = tmp_path / "results" / "mini"
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    loaded = loaded_by([*words, "2"])
    assert "torch" in loaded  # attacks and defenses cannot be configured without it
    assert not {"torchvision", "pandas", "matplotlib", "jinja2", "loky", "ray", "opacus"} & loaded
    # the first of these takes longer than all else together, and torch loads it on the first occasion
    assert not {"torch._dynamo", "torch.utils.flop_counter", "sympy", "triton"} & loaded
    after = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert {file.name for file in before if after[file] != before[file]} <= {"status.json"}
    assert after.keys() == before.keys()


class Looks:
    """Counts how often Python looks for cycles among all objects."""

    def __init__(self) -> None:
        self.whole = 0

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        self.whole += phase == "start" and info["generation"] == 2


@pytest.fixture
def looks() -> Any:
    counter = Looks()
    gc.callbacks.append(counter)
    yield counter
    gc.callbacks.remove(counter)


def test_reading_and_comparing_records_looks_for_no_cycles(looks: Looks, tmp_path: Path) -> None:
    line = GOLDEN.read_text(encoding="utf-8").splitlines()[0]
    file = tmp_path / "records.jsonl"
    file.write_text(f"{line}\n" * 2000, encoding="utf-8")
    was = gc.get_threshold()
    gc.set_threshold(50, 1, 1)  # so that it would look often
    try:
        before = looks.whole
        comparison(read_records(file))
        found = looks.whole - before
    finally:
        gc.set_threshold(*was)
    assert found <= 1  # one may fall between the two
    assert gc.isenabled()


def test_the_search_for_cycles_goes_on_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        read_records(tmp_path / "none")
    assert gc.isenabled()


def test_who_has_switched_the_search_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_run_of_hits_judges_no_past_and_reads_each_measurement_twice(
    make_suite: Callable[..., Suite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = build_plan(make_suite(attacks={"mean_face": {}}, seeds=[0, 1])), Store(tmp_path)
    run(plan, store)
    read: Counter[Key] = Counter()
    started: list[object] = []
    whole = Store._read
    monkeypatch.setattr(Store, "_read", lambda self, key: (read.update([key]), whole(self, key))[1])
    monkeypatch.setattr(Estimates, "of_store", lambda *_, **__: pytest.fail("the past was read"))
    with live(plan, store, 1) as watch:
        assert watch.left_s() == 0
        run(plan, store, on_event=lambda e: started.append(e) if isinstance(e, TaskStarted) else None)
    assert started == []
    # to see whether it is sound, and for its record; nothing else of the store is opened
    assert read == {cell.measure: 2 for cell in plan.cells}
