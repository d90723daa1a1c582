"""The attack that attacks/README.md shows runs as it stands there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import torch
from torch import Tensor

from mibench.plugin import Context
from mibench.victim import ScoreVictim

README = Path(__file__).resolve().parents[3] / "attacks" / "README.md"


def brightness_scores(x: Tensor) -> Tensor:
    mean = x.mean((1, 2, 3))
    return torch.stack([mean, 1 - mean], 1)


def test_the_example_runs_and_beats_a_single_try(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 2  # the second shows a search and is no file
    file = tmp_path / "best_of_noise.py"
    file.write_text(blocks[0])
    # not load_plugin_file: it would register the example for all other tests
    attack = runpy.run_path(str(file), run_name="best_of_noise")["BestOfNoise"]
    victim = ScoreVictim(brightness_scores, shape=(3, 4, 4), num_classes=2)
    targets = torch.tensor([0, 1, 1])
    many = attack().invert(victim, {}, targets, Context())
    one = attack(tries=1).invert(victim, {}, targets, Context())
    few = ScoreVictim(brightness_scores, shape=(3, 4, 4), num_classes=2, allowance=5, max_queries=15)
    attack().invert(few, {}, targets, Context())
    assert few.queries.forward == 15
    assert attack.name == file.stem
    assert victim.queries.forward == 3 * (64 + 1)
    assert (many.confidence > one.confidence).all()
    torch.testing.assert_close(many.confidence, brightness_scores(many.images)[range(3), targets])
