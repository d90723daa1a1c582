"""Users' weights files: what is read, what is refused and in which words, and their digests."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mibench.errors import MibenchError, WeightsError
from mibench.weights import load_into, read_weights, weights_digest


class Trap:
    """A pickle that would write a file when loaded as code."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}


def written(file: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, file) if file.suffix == ".safetensors" else torch.save(tensors, file)
    return file


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt", "net"])
def test_both_formats_give_the_same_tensors(name: str, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    found = read_weights(written(tmp_path / name, tensors))
    assert sorted(found) == sorted(tensors)
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)


def test_the_format_is_read_off_the_content_and_not_off_the_name(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    file = written(tmp_path / "net.safetensors", tensors).rename(tmp_path / "net.pth")
    assert torch.equal(read_weights(file)["weight"], tensors["weight"])


def test_a_pickle_protocol_that_torch_cannot_read_is_refused_with_its_reason(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    torch.save(tensors, tmp_path / "net.pt", pickle_protocol=4)
    with pytest.raises(WeightsError, match=r"\(Unsupported operand \d+\)\. Give a"):
        read_weights(tmp_path / "net.pt")


def test_torchs_older_format_is_read(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    file = tmp_path / "old.pth"
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights(file)["weight"], tensors["weight"])


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    file, mark = tmp_path / "net.pt", tmp_path / "mark"
    torch.save({"weight": Trap(mark)}, file)
    with pytest.raises(
        WeightsError, match=r"net\.pt: cannot be read as tensors alone \(Unsupported global.+\)\. Give a"
    ):
        read_weights(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {"weight": torch.ones(1)}}, "entry 'state_dict' is of type dict, not a tensor"),
        ({"epoch": 3}, "entry 'epoch' is of type int, not a tensor"),
        ({3: torch.ones(1)}, "entry 3 is of type Tensor"),
        ([torch.ones(1)], "its content is of type list, not a table"),
        ({"w": torch.ones(2, 2).to_sparse()}, "entry 'w' is no tensor of plain numbers"),
        ({"w": torch.ones(2, device="meta")}, "entry 'w' is no tensor of plain numbers"),
        (nn.Linear(1, 1), "cannot be read as tensors alone"),
    ],
)
def test_what_is_no_flat_table_of_tensors_is_refused(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=words):
        read_weights(tmp_path / "net.pt")


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"hello, world, this is no file of weights", pickle.dumps({})]
)
def test_other_bytes_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(data)
    with pytest.raises(WeightsError, match="is in no known format"):
        read_weights(tmp_path / "net.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_torn_files_are_refused(zipped: bool, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    file = tmp_path / "net.pt"
    torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
    data = file.read_bytes()
    for length in range(16, len(data), 61):
        file.write_bytes(data[:length])
        with pytest.raises(WeightsError, match="cannot be read as tensors alone"):
            read_weights(file)


def test_a_torn_safetensors_file_is_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    file = written(tmp_path / "net.safetensors", tensors)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="is no sound safetensors file"):
        read_weights(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_weights, weights_digest):
        with pytest.raises(MibenchError, match=r"none\.pt: cannot be read \(No such file"):
            read(tmp_path / "none.pt")


@pytest.mark.parametrize("path", [".", "~nobody-of-that-name/net.pt", "a\0b"])
def test_what_is_no_file_is_told_in_a_sentence(path: str) -> None:
    for read in (read_weights, weights_digest):
        with pytest.raises(WeightsError, match=r"cannot be read \(.+\)\. Check the path"):
            read(path)


def test_a_file_that_may_not_be_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.pt").write_bytes(b"x")

    def forbid(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbid)
    with pytest.raises(WeightsError, match=r"cannot be read \(Permission denied\)"):
        weights_digest(tmp_path / "net.pt")


def test_the_digest_is_that_of_the_content(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    file = written(tmp_path / "a.pt", tensors)
    assert weights_digest(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    moved = tmp_path / "elsewhere.bin"
    moved.write_bytes(file.read_bytes())
    assert weights_digest(moved) == weights_digest(str(file))


def test_a_changed_file_has_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(b"one")
    before = weights_digest(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert weights_digest(file) == hashlib.sha256(b"two").hexdigest() != before


def test_only_the_planned_file_is_read(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    file = written(tmp_path / "a.safetensors", tensors)
    assert sorted(read_weights(file, digest=weights_digest(file))) == ["bias", "weight"]
    with pytest.raises(WeightsError, match="is not the one that was planned with"):
        read_weights(file, digest="0" * 64)


def test_weights_go_into_the_net_that_they_fit(tensors: dict[str, Tensor]) -> None:
    net = nn.Linear(3, 2)
    load_into(net, tensors, where="weights net.pt")
    assert torch.equal(net.weight, tensors["weight"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bias": None}, "weights net.pt: 'bias' of Linear is missing"),
        ({"bias": torch.ones(3)}, r"'bias' has the shape \[3\], Linear needs \[2\]"),
        ({"scale": torch.ones(3)}, "'scale' is no part of Linear"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(
    change: dict[str, Tensor | None], words: str, tensors: dict[str, Tensor]
) -> None:
    net = nn.Linear(3, 2)
    before = net.weight.clone()
    given = {name: value for name, value in {**tensors, **change}.items() if value is not None}
    with pytest.raises(WeightsError, match=words):
        load_into(net, given, where="weights net.pt")
    assert torch.equal(net.weight, before)
