"""The store: artifacts by key, as tensors and JSON, written whole or not at all, verified when read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from mibench.atomic import replace_file
from mibench.errors import PluginError, StoreError
from mibench.key import SCHEMA, Key, canonical

_LOG = logging.getLogger(__name__)
_TENSORS, _VALUE, _COST = "tensors.safetensors", "artifact.json", "cost.json"
_MAPPED_BYTES = 2**24  # smaller files are read whole, which is as fast and leaves no map behind
_STALE_S = 7 * 24 * 3600  # no task runs longer, so what is older belongs to a killed run


@dataclass(frozen=True)
class Artifact:
    """What a task gives.

    Args:
        tensors: by name.
        value: JSON values.
        task: the task's hashed fields, see `mibench.task.Task.description`.
        costs: times beside those of every task; stored with the cost, since they never repeat.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    value: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict, compare=False)


class Store:
    """A folder of artifacts. Several processes may read and write it at once.

    Args:
        root: the folder; made when first written to.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def folder(self, key: Key) -> Path:
        """Where the artifact of a key lies, or would."""
        return self.root / key[:2] / key

    def contains(self, key: Key) -> bool:
        """Whether an artifact lies under the key; its content is not looked at."""
        return (self.folder(key) / _VALUE).is_file()

    def verify(self, key: Key) -> bool:
        """Whether a sound artifact lies under the key; a corrupt one is set aside with a warning."""
        return self._read(key) is not None

    def get(self, key: Key) -> Artifact | None:
        """The artifact of a key, or None; a corrupt one is set aside with a warning and counts as none.

        The bytes (uint8) of a large one stay in its file, mapped into memory: what is written to such a
        tensor is its reader's alone and never reaches the file, and it outlives the removal of the file.

        Raises:
            StoreError: it cannot be read just now.
        """
        found = self._read(key)
        if found is None:
            return None
        document, source = found
        try:
            tensors = load(source) if isinstance(source, bytes) else _mapped(source)
        except SafetensorError as error:
            self._set_aside(key, str(error))
            return None
        except FileNotFoundError:  # another process has just set it aside
            return None
        except OSError as error:
            self._give_up(error)
        return Artifact(tensors, document["value"], document["task"])

    def put(self, key: Key, artifact: Artifact) -> None:
        """Write an artifact beside, then move it into place; one that is there already stays.

        Raises:
            StoreError: the store cannot be written to.
            PluginError: the value is no JSON.
        """
        place = self.folder(key)
        with self._writing():
            place.parent.mkdir(parents=True, exist_ok=True)
            aside = place.parent / f"{key}.tmp-{os.getpid()}-{time.monotonic_ns()}"
            aside.mkdir()
            try:
                self._fill(aside, key, artifact)
                self._move(aside, place)
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def put_cost(self, key: Key, cost: Mapping[str, float | str]) -> None:
        """Leave seconds and memory beside an artifact; they are no part of it, and without it not kept."""
        with self._writing(), contextlib.suppress(FileNotFoundError):
            replace_file(self.folder(key) / _COST, json.dumps(cost).encode())

    def cost(self, key: Key) -> dict[str, Any]:
        """Seconds and memory of an artifact; empty if unknown."""
        try:
            cost: dict[str, Any] = json.loads((self.folder(key) / _COST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return cost

    def sweep(self) -> None:
        """Remove temporary and set-aside folders and files that are older than a week."""
        for pattern in ("*/*.tmp-*", "*/*.corrupt-*", f"*/*/{_COST}.tmp-*"):
            for left in list(self.root.glob(pattern)):
                with contextlib.suppress(OSError):  # another process has just removed it
                    if time.time() - left.stat().st_mtime <= _STALE_S:
                        continue
                    if left.is_dir():
                        shutil.rmtree(left, ignore_errors=True)
                    else:
                        left.unlink()

    def _fill(self, folder: Path, key: Key, artifact: Artifact) -> None:
        content = {"value": artifact.value, "task": artifact.task}
        try:
            body = canonical(content)
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"artifact {key[:12]}: its value is no JSON ({error}). Store finite values."
            ) from error
        document = {
            "schema": SCHEMA,
            "tensors": _write_tensors(folder / _TENSORS, artifact.tensors),
            "content": hashlib.sha256(body.encode()).hexdigest(),
            **content,
        }
        with (folder / _VALUE).open("wb") as file:
            file.write(json.dumps(document, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def _move(aside: Path, place: Path) -> None:
        try:
            aside.rename(place)
        except OSError:
            if not (place / _VALUE).is_file():  # else another process was first
                if not place.exists():
                    raise
                _rename_aside(place)  # incomplete: a file of it was deleted by hand
                aside.rename(place)
        descriptor = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, key: Key) -> tuple[dict[str, Any], bytes | Path] | None:
        """The document of a sound artifact, and its tensors' file: the content, or if large the path."""
        folder = self.folder(key)
        try:
            if not folder.is_dir():
                return None
            document = json.loads((folder / _VALUE).read_text(encoding="utf-8"))
            source, digest = _look_at(folder / _TENSORS)
            body = canonical({"value": document["value"], "task": document["task"]})
            digests = (digest, hashlib.sha256(body.encode()).hexdigest())
            if digests == (document["tensors"], document["content"]):
                return document, source
            reason = "its digest does not fit"
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            reason = str(error)
        except OSError as error:
            self._give_up(error)
        self._set_aside(key, reason)
        return None

    def _give_up(self, error: OSError) -> NoReturn:
        """Raise StoreError for too many open files, say: the artifact itself may be sound."""
        raise StoreError(
            f"store {self.root}: cannot be read ({error}). Check its permissions and its disk."
        ) from error

    def _set_aside(self, key: Key, reason: str) -> None:
        _LOG.warning("artifact %s: is corrupt (%s). It is set aside and made again.", key[:12], reason)
        with self._writing():
            _rename_aside(self.folder(key))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._refuse(error)

    def _refuse(self, error: OSError) -> NoReturn:
        raise StoreError(
            f"store {self.root}: cannot be written to ({error.strerror or error}). "
            "Free some space, or choose another folder."
        ) from error


def _write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors from where they lie, without a copy of them all; the SHA-256 of the file, in hexadecimal.

    Raises:
        OSError: it cannot be written.
    """
    file.touch()
    mode = file.stat().st_mode
    try:
        save_file(_apart(tensors), file)
    except SafetensorError as error:  # which is what an error of the disk becomes there
        raise OSError(str(error)) from error
    file.chmod(mode)  # newer versions of safetensors leave a file to its owner alone
    with file.open("rb") as written:
        os.fsync(written.fileno())
        return hashlib.file_digest(written, "sha256").hexdigest()


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, no two in the same memory, which safetensors refuses."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        if own.untyped_storage().data_ptr() in taken:
            own = own.clone()
        taken.add(own.untyped_storage().data_ptr())
        found[name] = own
    return found


def _look_at(file: Path) -> tuple[bytes | Path, str]:
    """The content of a file, or of a large one its path, and its SHA-256 in hexadecimal."""
    if file.stat().st_size < _MAPPED_BYTES:
        data = file.read_bytes()
        return data, hashlib.sha256(data).hexdigest()
    with file.open("rb") as opened:
        return file, hashlib.file_digest(opened, "sha256").hexdigest()


def _mapped(file: Path) -> dict[str, Tensor]:
    """The tensors of a file: bytes mapped, copy on write; others copied.

    Copied, because a file aligns numbers to eight bytes alone, and the last bits of a matrix product may
    hang on where in memory its factors begin.

    Raises:
        SafetensorError: the file is none of tensors.
        OSError: it cannot be read.
    """
    with safe_open(file, framework="pt") as opened:
        found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
    return {name: one if one.dtype == torch.uint8 else one.clone() for name, one in found.items()}


def _rename_aside(folder: Path) -> None:
    """Give a corrupt artifact's folder a name that nobody reads; another process may have done so."""
    with contextlib.suppress(FileNotFoundError):
        folder.rename(folder.with_name(f"{folder.name}.corrupt-{os.getpid()}-{time.monotonic_ns()}"))
