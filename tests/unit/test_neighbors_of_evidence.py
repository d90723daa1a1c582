"""Which private images stand beside a reconstruction in the evidence, and how near they are."""

from __future__ import annotations

import pytest
import torch

from mibench.evidence import neighbors


def test_a_small_distance_between_large_features_keeps_its_digits() -> None:
    """By squares in float32 these distances come out as 0 and the nearest image as any."""
    start = torch.full((1, 64), 1000.0)
    step = torch.zeros(1, 64)
    step[0, 0] = 0.01
    real = torch.cat([start - 3 * step, start + step, start - 2 * step] * 12)  # many: torch then multiplies
    labels = torch.tensor([0, 1, 0] * 12)
    found = neighbors(start, torch.tensor([0]), real, labels)
    assert found["nearest"].tolist() == [1]
    assert found["distance"].item() == pytest.approx(0.01, rel=1e-2)
    assert found["own_distance"].item() == pytest.approx(0.02, rel=1e-2)
    assert found["other"].tolist() == [1]
    assert found["other_distance"].item() == found["distance"].item()


def test_parts_are_joined_in_the_order_of_the_reconstructions() -> None:
    real = torch.arange(5.0)[:, None]
    labels = torch.arange(5)
    features = real.repeat(120, 1) + 0.25
    targets = (labels.repeat(120) + 1) % 5
    found = neighbors(features, targets, real, labels)
    assert torch.equal(found["nearest"], labels.repeat(120))
    assert found["distance"].unique().tolist() == [0.25]
    assert torch.equal(found["own_distance"], (features[:, 0] - targets).abs().double())
    assert torch.equal(found["other"], found["nearest"])
