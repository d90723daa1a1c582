"""`mibench check`: limits of time, plugins that hang, crash or leave, and gradients that are hidden."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mibench.checking import checked
from mibench.cli import main
from mibench.contract.check import Once
from mibench.defense import Defense, Released, State
from mibench.errors import PluginError
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context
from mibench.testing import Verdict, checks_for

FAULTY = '''
from dataclasses import dataclass
import os
import time

from mibench.defense import Defense
from mibench.plugin import Card


@dataclass(frozen=True, kw_only=True)
class Faulty(Defense):
    """It does not come back."""

    name, acts, card = "{name}", "training", Card(title="Test: a fault in train")

    def train(self, net, view, ctx):
        {fault}
'''


def written(folder: Path, name: str, fault: str) -> str:
    file = folder / f"{name}.py"
    file.write_text(FAULTY.format(name=name, fault=fault), encoding="utf-8")
    return str(file)


def test_a_plugin_that_hangs_fails_where_it_does_and_the_other_checks_go_on(tmp_path: Path) -> None:
    found = {one.name: one for one in checked(written(tmp_path, "hanging", "time.sleep(900)"), limit_s=2)}
    assert found["returns_a_frozen_classifier"].status == "fail"
    line = found["returns_a_frozen_classifier"].text
    assert line.startswith("it was stopped after 2 s (line 17 of hanging.py). Mend it")
    # what needs the run that hung is not waited for again
    assert "it needs the run that was stopped before" in found["beats_chance"].text
    assert found["beats_chance"].seconds < 2
    assert found["has_defaults"].status == "ok"
    assert found["says_where_it_acts"].status == "ok"
    assert list(found)[-1] == "gradients_lead_somewhere"


def test_a_plugin_that_leaves_or_raises_fails_with_its_line(tmp_path: Path) -> None:
    found = {one.name: one for one in checked(written(tmp_path, "leaving", "raise SystemExit(3)"))}
    assert found["survives_storing"].status == "fail"
    assert "SystemExit: 3 (line 17 of leaving.py)" in found["survives_storing"].text
    assert found["is_frozen"].status == "ok"


def test_a_plugin_that_ends_the_interpreter_fails_and_does_not_take_the_checks_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mibench.checking.WHOLE_S", 0.0)  # so that it is not started a dozen times
    assert main(["check", written(tmp_path, "ending", "os._exit(7)")]) == 1
    out = capsys.readouterr().out
    assert "it ended the process (exit code 7). Mend it" in out
    assert "not asked: others were stuck" in out
    assert "ok" in out
    assert "Slowest:" in out.splitlines()[-2] + out.splitlines()[-1]


def test_a_file_that_hangs_while_it_is_read_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "endless.py"
    file.write_text("import time\ntime.sleep(900)\n", encoding="utf-8")
    with pytest.raises(PluginError, match=r"reading it took more than 1 s \(line 2 of endless.py\)"):
        list(checked(str(file), limit_s=1))


def test_json_is_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "aa", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["status"] for line in lines} == {"ok"}
    assert {"plugin", "name", "title", "status", "text", "seconds"} == set(lines[0])


def test_a_failure_is_kept_like_a_value() -> None:
    class Subject:
        runs = 0

        @Once
        def trial(self) -> int:
            self.runs += 1
            raise ZeroDivisionError("once")

        @Once
        def other(self) -> int:
            self.runs += 1
            return 4

    subject = Subject()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="once"):
            _ = subject.trial
    assert (subject.other, subject.other, subject.runs) == (4, 4, 2)


def verdict(plugin: type[Defense], name: str) -> Verdict:
    (check,) = [one for one in checks_for(plugin) if one.name == name]
    return check.run()


class Stairs(nn.Module):
    """Released probabilities of images with few gray levels: the round function has no slope."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.plain = Released(net)

    def forward(self, x: Tensor) -> Tensor:
        released: Tensor = self.plain((x * 32).round() / 32)
        return released


@dataclass(frozen=True, kw_only=True)
class Stepped(Defense):
    """Rounds the pixels."""

    name, acts, card = "stepped", "output", Card(title="Test: no slope")

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        return Stairs(net)


class Turn(torch.autograd.Function):
    """The identity with its gradient turned round."""

    @staticmethod
    def forward(_ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: object, *slopes: Tensor) -> Tensor:
        return -slopes[0]


class Misled(nn.Module):
    """Released probabilities whose gradient points the wrong way."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.plain = Released(net)

    def forward(self, x: Tensor) -> Tensor:
        turned: Tensor = Turn.apply(x)
        released: Tensor = self.plain(turned)
        return released


@dataclass(frozen=True, kw_only=True)
class Misleading(Defense):
    """Turns gradients round."""

    name, acts, card = "misleading", "output", Card(title="Test: a wrong slope")

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        return Misled(net)


def test_gradients_that_vanish_are_warned_about_with_what_to_do() -> None:
    found = verdict(Stepped, "gradients_are_there")
    assert found.status == "warn"
    assert "in the deployed view 100% of images have no gradient at all" in found.text
    assert "--attack brep_mi" in found.text


def test_gradients_that_mislead_are_warned_about() -> None:
    assert verdict(Misleading, "gradients_are_there").status == "ok"
    found = verdict(Misleading, "gradients_lead_somewhere")
    assert found.status == "warn"
    assert "along those of an undefended net" in found.text


def test_an_honest_defense_is_not_warned_about() -> None:
    for name in ("gradients_are_there", "gradients_lead_somewhere"):
        assert verdict(undefended(), name).status == "ok"


def undefended() -> type[Defense]:
    from mibench.registry import get_defense

    return get_defense("none")
