"""Tests run on one thread: two threads that wait for each other are slower, and sums stay bit-identical."""

import copy
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mibench.registry import forget_files, load_plugin_file
from mibench.store_root import CACHE_VARIABLE
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
def shared_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store that is no folder, on a file system that behaves as an object store; see shared_files.py."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    runpy.run_path(str(TOYS.parent / "shared_files.py"))["register"]()
    return f"shared://{tmp_path}/bucket"


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


class ShortMemory(TorchDispatchMode):
    """Inside, an operation that makes a new tensor of more than `most` bytes runs out of memory.

    Args:
        most: bytes; `refused` counts the operations that wanted more, and `largest` is the largest wish.
    """

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self.most, self.refused, self.largest = most, 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        got = func(*args, **(kwargs or {}))
        given = {_place(one) for one in tree_leaves((args, kwargs or {})) if isinstance(one, Tensor)}
        for one in tree_leaves(got):
            if isinstance(one, Tensor) and _place(one) not in given:
                wish = one.untyped_storage().nbytes()
                self.largest = max(self.largest, wish)
                if wish > self.most:
                    self.refused += 1
                    raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {wish} bytes. More.")
        return got


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.fixture
def short_memory() -> Callable[[int], ShortMemory]:
    """A machine with little memory; its argument is the most bytes that one allocation may have."""
    return ShortMemory
