"""Tests run on one thread: two threads that wait for each other are slower, and sums stay bit-identical."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mibench.registry import forget_files, load_plugin_file
from mibench.suite import Suite, parse_suite

torch.set_num_threads(1)

TOYS = Path(__file__).parent / "e2e" / "plugins"
_TABLES: dict[str, Any] = {
    "name": "toy",
    "metrics": ["mc_all", "aa"],
    "data": {
        "size": 16,
        "channels": 1,
        "private": 3,
        "private_images": 4,
        "test_images": 2,
        "public": 4,
        "public_images": 2,
        "defender": 2,
        "defender_images": 2,
    },
    "targets": {"protected": 1, "bystanders": 1, "attacked": 2, "images": 2},
    "victim": {"net": "mlp", "width": 8, "recipe": {"epochs": 2, "batch": 8}},
    "judge": {"net": "softmax_regression", "recipe": {"epochs": 2, "batch": 8}},
    "attacks": {"toy_scores": {}},
    "defenses": {"none": {}},
}

MakeSuite = Callable[..., Suite]


@pytest.fixture
def toys() -> Iterator[Callable[[str], Path]]:
    """Paths of the toy plugins, loaded when asked for and forgotten afterwards."""

    def load(name: str) -> Path:
        load_plugin_file(TOYS / f"{name}.py")
        return TOYS / f"{name}.py"

    yield load
    forget_files()


@pytest.fixture
def make_suite(toys: Callable[[str], Path]) -> MakeSuite:
    """A suite of a few seconds; keywords replace its tables, and toys in them are loaded."""

    def make(**tables: object) -> Suite:
        raw = {**copy.deepcopy(_TABLES), **tables}
        for name in "+".join([*raw["attacks"], *raw["defenses"]]).split("+"):
            if name.startswith("toy_"):
                toys(name)
        return parse_suite(raw, where="suite toy.toml")

    return make
