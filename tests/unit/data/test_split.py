"""Labeled images: taking them in turn."""

from __future__ import annotations

import pytest
import torch

from mibench.data.split import Labeled
from mibench.errors import DataError


def test_images_of_labels_are_taken_in_turn_and_begin_again() -> None:
    labels = torch.tensor([4, 2, 4, 4])
    images = torch.arange(4.0)[:, None, None, None]
    taken = Labeled(images, labels).in_turn(torch.tensor([4, 2, 4, 4, 2, 4]))
    assert taken.flatten().tolist() == [0, 1, 2, 3, 1, 0]
    with pytest.raises(DataError, match="none shows label 3"):
        Labeled(images, labels).in_turn(torch.tensor([3]))
