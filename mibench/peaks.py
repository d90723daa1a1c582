"""The most operations that a device does in a second, by precision: printed of known cards, or measured."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from mibench.counting import FLOAT32, TENSOR_FLOAT

_TERA = 1e12
_SXM = {"bfloat16": 989.4, "float16": 989.4, TENSOR_FLOAT: 494.7, FLOAT32: 66.9}
_NVL = {"bfloat16": 835.5, "float16": 835.5, TENSOR_FLOAT: 417.5, FLOAT32: 60.0}
_HOPPER = "NVIDIA H100 Tensor Core GPU Datasheet and Architecture whitepaper"
CARDS: dict[str, tuple[dict[str, float], str]] = {
    "NVIDIA H200 NVL": (_NVL, "NVIDIA H200 Tensor Core GPU Datasheet"),
    "NVIDIA H200": (_SXM, "NVIDIA H200 Tensor Core GPU Datasheet"),
    "NVIDIA H100 NVL": (_NVL, _HOPPER),
    "NVIDIA H100 PCIe": ({"bfloat16": 756.0, "float16": 756.0, TENSOR_FLOAT: 378.0, FLOAT32: 51.2}, _HOPPER),
    "NVIDIA H100": (_SXM, _HOPPER),
    "NVIDIA A100": (
        {"bfloat16": 312.0, "float16": 312.0, TENSOR_FLOAT: 156.0, FLOAT32: 19.5},
        "NVIDIA A100 Tensor Core GPU Architecture whitepaper",
    ),
}
"""TFLOP/s of dense products by the beginning of a card's name, more special names first, and where they are
printed. Data sheets print products with half of the weights zero, which are twice as many."""
# of the matrices that are multiplied: those that fit into a core's caches, and one that fills a card
_SIDES = {"cpu": (256, 512, 1024), "cuda": (8192,)}
_AT_LEAST_S, _ROUNDS = 0.4, 8  # for each size, in which another process does not always disturb


@dataclass(frozen=True)
class Peak:
    """What a device can do at most.

    Args:
        flops_per_s: operations a second, a multiply-add as two.
        source: where that is printed, or `measured`.
    """

    flops_per_s: float
    source: str


def peaks_of(device: torch.device) -> dict[str, Peak]:
    """The peaks of a device by precision: of one thread on a CPU, since tasks have one each."""
    if device.type == "cuda":
        printed = peaks_of_card(torch.cuda.get_device_name(device))
        return printed or {name: _measured(device, name) for name in (FLOAT32, TENSOR_FLOAT, "bfloat16")}
    return {name: _measured(device, name) for name in (FLOAT32, "float64")}


def peaks_of_card(name: str) -> dict[str, Peak] | None:
    """The printed peaks of a card by precision; None for a card that is not in the table, or a slice of one.

    >>> peaks_of_card("NVIDIA A100-SXM4-80GB")["bfloat16"].flops_per_s
    312000000000000.0
    """
    for known, (rates, source) in CARDS.items():
        if name.startswith(known) and " MIG " not in name:
            return {kind: Peak(rate * _TERA, source) for kind, rate in rates.items()}
    return None


def _measured(device: torch.device, precision: str) -> Peak:
    """The fastest of many products of two square matrices."""
    dtype = getattr(torch, FLOAT32 if precision == TENSOR_FLOAT else precision)
    threads, rounds = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = precision == TENSOR_FLOAT
    try:
        rates = [
            2 * side**3 / _fastest(torch.ones(side, side, dtype=dtype, device=device))
            for side in _SIDES.get(device.type, _SIDES["cpu"])
        ]
    finally:
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = rounds
    return Peak(max(rates), "measured")


def _fastest(one: torch.Tensor) -> float:
    taken = [_seconds(one) for _ in range(_ROUNDS)]
    while sum(taken) < _AT_LEAST_S:
        taken.append(_seconds(one))
    return min(taken)


def _seconds(one: torch.Tensor) -> float:
    # of this process alone on a CPU, where others may be at work too
    clock = time.perf_counter if one.device.type == "cuda" else time.process_time
    before = clock()
    product = one @ one
    if one.device.type == "cuda":
        torch.cuda.synchronize(one.device)
    taken = clock() - before
    assert float(product[0, 0]) == len(one)
    return taken
