"""CUDA against the CPU: the same cells to within their intervals, and bfloat16 against float32."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from mibench import gradients
from mibench.choose import choose
from mibench.data.split import Labeled
from mibench.data.synthetic import SynthFacesData
from mibench.nets import NetSpec, build
from mibench.plan import build_plan
from mibench.plugin import Context
from mibench.precision import exact, rounded
from mibench.record import Record
from mibench.runner import run
from mibench.statistics import wilson
from mibench.store import Store
from mibench.training import Recipe, accuracy, fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda:0")
ATTACKS = ("mi_face", "gmi", "dmi", "mirror")
DEFENSES = ("none", "negative_ls")


def records(device: str, folder: Path) -> dict[str, Record]:
    """Records of a part of the suite `smoke` by the place of their cell."""
    plan = build_plan(choose("smoke", attacks=ATTACKS, defenses=DEFENSES), zoo=False)
    found = run(plan, Store(folder / "store"), device=device)
    return {f"{one.attack['label']} {one.defense['label']} {one.view}": one for one in found}


def test_accuracies_of_attacks_and_victims_agree_within_their_intervals(tmp_path: Path) -> None:
    cpu, cuda = records("cpu", tmp_path / "cpu"), records("cuda:0", tmp_path / "cuda")
    assert cpu.keys() == cuda.keys()
    for place, ours in cpu.items():
        theirs = cuda[place]
        assert (ours.status, theirs.status) == ("ok", "ok"), (place, ours.error, theirs.error)
        for name in ("aa", "mc_all"):
            one, other = ours.estimates[name], theirs.estimates[name]
            assert one is not None
            assert other is not None
            apart = one["low"] > other["high"] or other["low"] > one["high"]
            assert not apart, (place, name, one, other)


def people() -> tuple[Labeled, Labeled]:
    learned, asked = SynthFacesData(private=8, private_images=40, test_images=20).load("private")
    assert asked is not None
    return learned, asked


def test_training_in_bfloat16_is_as_accurate_as_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    learned, asked = people()
    spec = NetSpec(
        name="small_vgg", width=16, channels=learned.shape[0], size=learned.shape[1], num_classes=8
    )
    found = []
    for is_rounded in (True, False):
        if not is_rounded:
            monkeypatch.setattr(gradients, "autocast", lambda _device: nullcontext())
        net = build(spec, torch.Generator().manual_seed(0))
        with (rounded if is_rounded else exact)(CUDA):
            fit(net, learned, Context(device=CUDA), recipe=Recipe(epochs=8))
        found.append(accuracy(net, asked))
    low, high = wilson(round(found[1] * len(asked)), len(asked))
    assert low <= found[0] <= high


def test_what_is_measured_is_not_rounded() -> None:
    x = torch.rand(64, 512, generator=torch.Generator().manual_seed(0))
    w = torch.rand(512, 512, generator=torch.Generator().manual_seed(1))
    true = (x.double() @ w.double()).float()
    gaps = {}
    for name, how in (("exact", exact), ("rounded", rounded)):
        with how(CUDA):
            gaps[name] = float(((x.to(CUDA) @ w.to(CUDA)).cpu() / true - 1).abs().max())
    assert gaps["exact"] < 1e-5
    if torch.cuda.get_device_capability(CUDA) >= (8, 0):  # the first cards with TensorFloat-32
        assert gaps["rounded"] > 10 * gaps["exact"]
