"""What the options about executors do before any task runs: sentences, and signals."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mibench.cli import main
from mibench.cli_executor import LOCAL, crew_of
from mibench.plan import Plan, build_plan
from mibench.store import Store
from mibench.suite import Suite

CPU = torch.device("cpu")


@pytest.fixture
def plan(make_suite: Callable[..., Suite]) -> Plan:
    return build_plan(make_suite())


def test_ray_that_is_not_installed_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # what Python itself takes for a module that is not there
    assert main(["run", "smoke", "--executor", "ray", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "executor ray: Ray is not installed. `pip install 'mibench[ray]'`, or leave --executor out.\n"
    )


def be_terminated(plan: Plan, store: Store) -> None:
    with crew_of(LOCAL, jobs=1, device=CPU, plan=plan, store=store):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()


def test_sigterm_interrupts_a_run_and_nothing_after_it(plan: Plan, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        be_terminated(plan, Store(tmp_path))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_in_another_thread_leaves_signals_alone(plan: Plan, tmp_path: Path) -> None:
    seen: list[object] = []

    def ask() -> None:
        with crew_of(LOCAL, jobs=3, device=CPU, plan=plan, store=Store(tmp_path)) as crew:
            seen.extend([crew.jobs, signal.getsignal(signal.SIGTERM)])

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert seen == [3, before]
