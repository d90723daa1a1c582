"""Peaks of known cards are found by their names; that of a CPU is measured."""

from __future__ import annotations

import pytest
import torch

from mibench.peaks import CARDS, peaks_of, peaks_of_card


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA A100-SXM4-40GB", 312.0),
    ],
)
def test_a_card_is_found_by_the_beginning_of_its_name(name: str, tera: float) -> None:
    found = peaks_of_card(name)
    assert found is not None
    assert found["bfloat16"].flops_per_s == tera * 1e12
    assert found["bfloat16"].flops_per_s == pytest.approx(2 * found["tf32"].flops_per_s, rel=1e-3)
    assert found["tf32"].flops_per_s > found["float32"].flops_per_s
    assert "NVIDIA" in found["bfloat16"].source


def test_an_unknown_card_has_no_printed_peak() -> None:
    assert peaks_of_card("Another Card 1") is None


def test_a_slice_of_a_card_has_not_the_peak_of_the_whole() -> None:
    assert peaks_of_card("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None


def test_more_special_names_come_first() -> None:
    names = list(CARDS)
    hidden = [later for i, later in enumerate(names) for one in names[:i] if later.startswith(one)]
    assert hidden == []


def test_that_of_a_cpu_is_measured_on_one_thread_and_leaves_the_switches() -> None:
    before = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32
    found = peaks_of(torch.device("cpu"))
    assert (torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32) == before
    assert {one.source for one in found.values()} == {"measured"}
    assert found["float32"].flops_per_s > found["float64"].flops_per_s > 1e8
