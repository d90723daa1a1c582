"""Reconstructions and answers of a submission: safetensors files, checked before a tensor is made of them.

A file has a head of names, types and shapes; they must be those that the suite asks for, so that nothing else
is ever looked at. Pickles are not read at all: they are programs.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from mibench.boards.bundle import Bundle, answers_of, images_of
from mibench.boards.strict import parse_json
from mibench.errors import BoardError
from mibench.plan import divide
from mibench.record import Record
from mibench.suite import Suite

Shape = tuple[int, ...]
_HEAD = struct.Struct("<Q")  # bytes of the head that follows, as the format has it
_MOST_HEAD = 2**20
_BYTES = {"U8": 1, "I64": 8, "F32": 4}
_PICKLES = (b"\x80", b"PK\x03\x04", b"\x93NUMPY")  # pickles and what torch and numpy wrap around them


@dataclass(frozen=True)
class Attacked:
    """What was reconstructed from one model of a cell.

    Args:
        protects: labels that the model protects.
        tensors: as an `invert` artifact holds them.
        answers: as an `answer` artifact holds them.
    """

    protects: tuple[int, ...]
    tensors: Mapping[str, Tensor]
    answers: Mapping[str, Tensor]


def read_cell(bundle: Bundle, record: Record, suite: Suite, *, tests: int, publics: int) -> list[Attacked]:
    """What a cell was computed from, model by model, of the shapes and labels that the suite asks for.

    Args:
        bundle: that brings it.
        record: of the cell.
        suite: its ground.
        tests: number of private test images, which the model answered.
        publics: number of the defender's public images.

    Raises:
        BoardError: a file is missing, torn, edited or none of tensors, or anything in it is not as asked for.
    """
    asks_public = any(metric.asks_public for metric in suite.metrics)
    counts = {"test": tests, **({"public": publics} if asks_public else {})}
    keys = bundle.manifest.cells[record.cell].answers
    return [
        Attacked(protects, tensors, _answers(bundle, key, suite, counts))
        for (protects, tensors), key in zip(read_images(bundle, record, suite), keys, strict=True)
    ]


def read_images(
    bundle: Bundle, record: Record, suite: Suite
) -> list[tuple[tuple[int, ...], dict[str, Tensor]]]:
    """For each model of a cell the labels that it protects, and its reconstructions with their effort.

    Raises:
        BoardError: see `read_cell`.
    """
    where = f"{bundle.where}, {images_of(record.cell)}"
    parts = expected_models(suite, record, bundle.where)
    raw = bundle.read(images_of(record.cell))
    shapes = _head(raw, where)
    wanted: dict[str, tuple[str, Shape]] = {}
    for index, (_, targets) in enumerate(parts):
        wanted |= _of_model(f"{index}/", len(targets) * suite.targets.images, shapes, suite)
    _check_shapes(shapes, wanted, where)
    found = _loaded(raw, where)
    models = []
    for index, (protects, targets) in enumerate(parts):
        own = {name.partition("/")[2]: one for name, one in found.items() if name.startswith(f"{index}/")}
        labels = [label for label in targets for _ in range(suite.targets.images)]
        if own["targets"].tolist() != labels:
            raise BoardError(f"{where}: the targets of model {index} are not those that the suite draws.")
        models.append((protects, own))
    return models


def expected_models(
    suite: Suite, record: Record, where: str
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Protected and attacked labels of each model of a cell, as the suite draws them.

    Raises:
        BoardError: the record names other labels, or another number of models.
    """
    protected, others = suite.targets.draw(suite.data.private, record.seed)
    per_target = bool(record.defense["per_target"])
    parts = divide(suite.targets, protected, others, per_target=per_target)
    said = [tuple(model["protects"]) for model in record.keys["models"]]
    attacked = sorted({label for _, targets in parts for label in targets})
    if [protects for protects, _ in parts] != said or record.targets != {
        "protected": list(protected),
        "bystanders": [label for label in attacked if label not in protected],
        "attacked": attacked,
        "images": suite.targets.images,
    }:
        raise BoardError(
            f"{where}: cell {record.cell} attacks other people than its suite draws for seed {record.seed}. "
            "Run the suite as it is."
        )
    return parts


def _of_model(
    prefix: str, count: int, shapes: Mapping[str, Any], suite: Suite
) -> dict[str, tuple[str, Shape]]:
    """The type and shape of each tensor of a model; those of an effort curve where the file begins one."""
    image = (suite.data.channels, suite.data.size, suite.data.size)
    wanted: dict[str, tuple[str, Shape]] = {
        "images": ("U8", (count, *image)),
        "targets": ("I64", (count,)),
        "confidence": ("F32", (count,)),
    }
    curve = shapes.get(f"{prefix}effort.queries")
    if curve is not None:
        steps = curve[1][0] if len(curve[1]) == 1 else 0
        wanted["effort.queries"] = "I64", (steps,)
        wanted["effort.images"] = "U8", (steps, count, *image)
        wanted["effort.loss"] = "F32", (steps, count)
        if f"{prefix}effort.single" in shapes:
            wanted["effort.single"] = "U8", (count, *image)
    return {f"{prefix}{name}": one for name, one in wanted.items()}


def _answers(bundle: Bundle, key: str, suite: Suite, counts: Mapping[str, int]) -> dict[str, Tensor]:
    """The labels that a deployed model gave, each of a private person."""
    where = f"{bundle.where}, {answers_of(key)[:24]}..."
    raw = bundle.read(answers_of(key))
    wanted: dict[str, tuple[str, Shape]] = {name: ("I64", (count,)) for name, count in counts.items()}
    _check_shapes(_head(raw, where), wanted, where)
    found = _loaded(raw, where)
    for name, labels in found.items():
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < suite.data.private:
            raise BoardError(f"{where}: '{name}' holds a label that no private person has. Pack it again.")
    return found


def _head(raw: bytes, where: str) -> dict[str, tuple[str, Shape]]:
    """Type and shape of each tensor by name, from the head of a safetensors file.

    Raises:
        BoardError: it is none, is too large, or its tensors do not fill the file exactly.
    """
    if raw[8:9] != b"{" and raw.startswith(_PICKLES):
        raise BoardError(
            f"{where}: is a pickle or an archive of pickles, which is a program and is never loaded. "
            "Let `mibench submit pack` write it."
        )
    length = _HEAD.unpack_from(raw)[0] if len(raw) >= _HEAD.size else 0
    if not 2 <= length <= min(_MOST_HEAD, len(raw) - _HEAD.size):
        raise BoardError(f"{where}: is no safetensors file. Let `mibench submit pack` write it.")
    head = parse_json(raw[_HEAD.size : _HEAD.size + length], where=where)
    found: dict[str, tuple[str, Shape]] = {}
    end = 0
    for name, entry in head.items() if isinstance(head, dict) else ():
        if name == "__metadata__":
            continue
        try:
            kind, shape, span = entry["dtype"], tuple(entry["shape"]), tuple(entry["data_offsets"])
            is_right = all(type(one) is int and one >= 0 for one in (*shape, *span)) and len(span) == 2
            is_right = is_right and span[1] - span[0] == math.prod(shape) * _BYTES[kind]
        except (TypeError, KeyError):
            is_right = False
        if not is_right:
            raise BoardError(
                f"{where}: tensor {name!r:.60} has no type or shape that is read. Pack it again."
            )
        found[name] = kind, shape
        end += span[1] - span[0]
    if not found or end != len(raw) - _HEAD.size - length:
        raise BoardError(f"{where}: its tensors do not fill it. Let `mibench submit pack` write it.")
    return found


def _check_shapes(
    found: Mapping[str, tuple[str, Shape]], wanted: Mapping[str, tuple[str, Shape]], where: str
) -> None:
    """BoardError unless a file holds exactly the tensors that are wanted."""
    for name in sorted(found.keys() | wanted.keys()):
        said, asked = found.get(name), wanted.get(name)
        if said != asked:
            told = "is missing" if said is None else f"is {said[0]} of shape {list(said[1])}"
            want = "none is wanted" if asked is None else f"wanted {asked[0]} of shape {list(asked[1])}"
            raise BoardError(f"{where}: tensor {name!r:.60} {told}, {want}. Pack it again.")


def _loaded(raw: bytes, where: str) -> dict[str, Tensor]:
    """The tensors of a file whose head was checked; numbers in memory of their own, as a store gives them."""
    try:
        tensors: dict[str, Tensor] = load(raw)
    except SafetensorError as error:
        raise BoardError(f"{where}: is no sound safetensors file ({error!s:.120}). Pack it again.") from error
    return {name: one if one.dtype == torch.uint8 else one.clone() for name, one in tensors.items()}
