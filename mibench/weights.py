"""Weights files that a user gives: read without running their code, named in keys by their content."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from mibench.errors import WeightsError

_ASK = "Give a .safetensors file, or a state dict that torch.save wrote."
# a zip archive; the number that opens torch's format before version 1.6
_STARTS = (b"PK", pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2))
_PICKLE = b"\x80"  # opens every pickle since protocol 2; torch.save's older format is told apart before
_PICKLE_HINT = (
    "A pickle of objects is a program, which is not run here; its tensors must be exported once by the code "
    "that wrote it, see docs/weights.md. "
)
_PARALLEL = "module."
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST = 120  # characters of a name in a message
# what torch.load raises for code, torn files and foreign archives, as tried; it documents no list
_UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)
# a folder, a file of others; a path with a zero byte; the home folder of nobody
_UNFOUND = (OSError, ValueError, RuntimeError)


def read_weights(path: str | Path, *, digest: str = "") -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU; nothing in the file is run.

    Args:
        path: a safetensors file, or a flat table of tensors that `torch.save` wrote; `~` is the home folder.
        digest: SHA-256 that the file must have, in hexadecimal; empty takes any.

    Raises:
        WeightsError: no such file, another digest, or a content that is no flat table of tensors: code,
            nested tables, a whole module.
    """
    return _flat(path, _content(path, digest))


def read_checkpoint(
    path: str | Path,
    *,
    digest: str = "",
    tables: tuple[str, ...] = ("state_dict", "model_state_dict", "model", "net"),
    beside: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """The tensors of a checkpoint, as training scripts leave them; nothing in the file is run.

    A checkpoint is a flat table of tensors, or holds one under a usual name, among other values. The
    `module.` that torch's DataParallel puts before every name is taken off.

    Args:
        path: as for `read_weights`.
        digest: as for `read_weights`.
        tables: names under which the table may lie.
        beside: names of tensors that are kept from beside the table.

    Raises:
        WeightsError: as for `read_weights`; or there are tables under several of the names, or under others
            alone.
    """
    found = _content(path, digest)
    kept: dict[str, Tensor] = {}
    inner = [str(name) for name, value in found.items() if isinstance(value, Mapping)]
    if inner:
        known = [name for name in tables if name in inner]
        if len(known) != 1:
            raise WeightsError(
                f"weights {path}: holds tables {', '.join(map(short, inner))}, of which "
                f"{'none is' if not known else 'several are'} among {', '.join(tables)}. Save the tensors of "
                "the net alone."
            )
        kept = {name: found[name] for name in beside if isinstance(found.get(name), Tensor)}
        found = found[known[0]]
    flat = _flat(path, found)
    if flat and all(name.startswith(_PARALLEL) for name in flat):
        flat = {name.removeprefix(_PARALLEL): value for name, value in flat.items()}
    return {**flat, **kept}


def short(name: object) -> str:
    """A name from a file for a message: escaped, so that it stays on its line, and not too long."""
    text = ascii(name)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _content(path: str | Path, digest: str) -> dict[Any, Any]:
    """What a weights file holds: tensors by name, or, where torch.save wrote it, any plain table."""
    data = _bytes(path)
    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise WeightsError(
            f"weights {path}: the file is not the one that was planned with. Run again, or put it back."
        )
    # a safetensors file is a length of eight bytes, then JSON; torch's own formats never have a brace there
    return dict(_safetensors(path, data)) if data[8:9] == b"{" else _tensors_alone(path, data)


def _flat(path: str | Path, found: Mapping[Any, Any]) -> dict[str, Tensor]:
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"weights {path}: entry {short(name)} is {_kind(value)}, not a tensor. {_ASK}")
        if value.layout is not torch.strided or value.is_meta:
            raise WeightsError(f"weights {path}: entry {short(name)} is no tensor of plain numbers. {_ASK}")
    return dict(found)


def weights_digest(path: str | Path) -> str:
    """SHA-256 of a weights file, in hexadecimal: what a key holds in place of the path.

    A file is read again where its size or its time of change differs.

    Raises:
        WeightsError: no such file, or it cannot be read.
    """
    try:
        file = Path(path).expanduser()
        state = file.stat()
        return _digest(str(file.resolve()), state.st_size, state.st_mtime_ns)
    except _UNFOUND as error:
        raise _unreadable(path, error) from error


def is_digest(text: str) -> bool:
    """Whether a word is a digest as keys hold it, and no path."""
    return _DIGEST.fullmatch(text) is not None


def load_into(net: nn.Module, tensors: Mapping[str, Tensor], *, where: str, kind: str = "") -> None:
    """Copy tensors into a net that has exactly these names and shapes.

    Args:
        net: changed in place; untouched where anything does not fit.
        tensors: by the names of `net.state_dict()`.
        where: begins the message, for example `weights vgg16.pt`.
        kind: what the message calls the net; empty takes its class.

    Raises:
        WeightsError: names the first missing, unexpected or misshaped tensor.
    """
    own = net.state_dict()
    kind = kind or type(net).__name__
    for name, value in own.items():
        if name not in tensors:
            raise WeightsError(f"{where}: '{name}' of {kind} is missing. Give the weights of that network.")
        if tensors[name].shape != value.shape:
            raise WeightsError(
                f"{where}: '{name}' has the shape {list(tensors[name].shape)}, {kind} needs "
                f"{list(value.shape)}. Give the weights of that network."
            )
    unexpected = [name for name in tensors if name not in own]
    if unexpected:
        raise WeightsError(
            f"{where}: '{unexpected[0]}' is no part of {kind}. Give the weights of that network alone."
        )
    net.load_state_dict(dict(tensors))


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except _UNFOUND as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> WeightsError:
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return WeightsError(f"weights {path}: cannot be read ({reason}). Check the path and its permissions.")


def _safetensors(path: str | Path, data: bytes) -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise WeightsError(
            f"weights {path}: is no sound safetensors file ({error}). Fetch it again."
        ) from error
    return found


def _tensors_alone(path: str | Path, data: bytes) -> dict[Any, Any]:
    """What torch.save wrote, where it holds tensors and plain containers; every other pickle is refused."""
    if not data.startswith(_STARTS):
        hint = _PICKLE_HINT if data.startswith(_PICKLE) else ""
        raise WeightsError(
            f"weights {path}: is in no known format, it begins with {data[:8]!r}. {hint}{_ASK}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol; where it matters, an error follows
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise WeightsError(
            f"weights {path}: cannot be read as tensors alone ({_reason(error)}). {_ASK}"
        ) from error
    if not isinstance(found, Mapping):
        raise WeightsError(f"weights {path}: its content is {_kind(found)}, not a table of tensors. {_ASK}")
    return dict(found)


def _reason(error: Exception) -> str:
    """The first sentence of torch.load's message, without its advice to load the file as code."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return (text.strip().splitlines() or ["it is torn"])[0].partition(". ")[0].rstrip(".")


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"


@lru_cache(maxsize=64)
def _digest(path: str, _size: int, _changed_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
