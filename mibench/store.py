"""The store: artifacts by key, as tensors and JSON, written whole or not at all, verified when read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from mibench.errors import PluginError, StoreError
from mibench.key import SCHEMA, Key, canonical
from mibench.remote_files import RemoteFiles
from mibench.store_folder import TENSORS, VALUE, Folder, Shelf
from mibench.store_objects import Objects
from mibench.store_root import local_folder, parse_root

_LOG = logging.getLogger(__name__)
_MAPPED_BYTES = 2**24  # smaller files are read whole, which is as fast and leaves no map behind


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
    """Artifacts in a folder, or in a bucket. Several processes may read and write it at once.

    Args:
        root: the folder, made when first written to; or the URL of a place that fsspec knows, such as
            `s3://bucket/prefix`.

    Attributes:
        place: what it can be opened by again, in another process as well: the folder or the URL.
        root: the folder of this machine that belongs to it: itself, or copies of what lies elsewhere.
        files: what lies elsewhere; None of a folder.

    Raises:
        StoreError: the URL is none, or its file system needs a package that is not installed.
    """

    def __init__(self, root: Path | str) -> None:
        self.place = parse_root(root)
        self.root = local_folder(self.place)
        self.files = None if isinstance(self.place, Path) else RemoteFiles(self.place)
        self._shelf: Shelf = Folder(self.root) if self.files is None else Objects(self.files, self.root)

    def folder(self, key: Key) -> Path:
        """Where the artifact of a key lies, or would, in a store that is a folder."""
        return self.root / key[:2] / key

    def contains(self, key: Key) -> bool:
        """Whether an artifact lies under the key; its content is not looked at.

        Raises:
            StoreError: a store that is no folder does not answer.
        """
        return self._shelf.contains(key)

    def present(self, keys: Iterable[Key]) -> set[Key]:
        """Those keys under which artifacts lie, asked for together where that is quicker.

        Raises:
            StoreError: a store that is no folder does not answer, or its bucket is not there.
        """
        return self._shelf.present(keys)

    def check_shared(self) -> None:
        """Look whether other processes see this store.

        Raises:
            StoreError: it lies in the memory of this one.
        """
        if self.files is not None and self.files.is_private:
            raise StoreError(
                f"store {self.place}: lies in the memory of one process. Work in it with --jobs 1, or "
                "take a folder."
            )

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
        while (found := self._read(key)) is not None:
            document, source = found
            try:
                tensors = load(source) if isinstance(source, bytes) else _mapped(source)
            except SafetensorError as error:
                self._set_aside(key, str(error))
                return None
            except FileNotFoundError:
                if self.files is None:  # another process has just set it aside
                    return None
                continue  # its copy was dropped, which says nothing of the artifact
            except OSError as error:
                self._give_up(error)
            return Artifact(tensors, document["value"], document["task"])
        return None

    def put(self, key: Key, artifact: Artifact) -> None:
        """Write an artifact beside, then move it into place; one that is there already stays.

        Raises:
            StoreError: the store cannot be written to.
            PluginError: the value is no JSON.
        """
        with self._writing():
            aside = self._shelf.aside(key)
            try:
                digest = self._fill(aside, key, artifact)
                self._shelf.place(aside, key, digest)
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def put_cost(self, key: Key, cost: Mapping[str, float | str]) -> None:
        """Leave seconds and memory beside an artifact; they are no part of it, and without it not kept."""
        with self._writing():
            self._shelf.put_cost(key, json.dumps(cost).encode())

    def cost(self, key: Key) -> dict[str, Any]:
        """Seconds and memory of an artifact; empty if unknown."""
        try:
            cost: dict[str, Any] = json.loads(self._shelf.cost(key))
        except (OSError, ValueError):
            return {}
        return cost

    def past(self) -> Iterator[tuple[Key, dict[str, Any], dict[str, Any]]]:
        """Key, description and cost of every task in the store whose cost is known."""
        for key, document, text in self._shelf.past():
            try:
                task, cost = json.loads(document)["task"], json.loads(text)
                float(cost["wall_s"])
                yield key, {**task, "params": dict(task["params"])}, cost
            except (ValueError, KeyError, TypeError):  # being written, or damaged
                continue

    def sweep(self) -> None:
        """Remove temporary and set-aside folders and files that are older than a week."""
        with self._writing():
            self._shelf.sweep()

    def _fill(self, folder: Path, key: Key, artifact: Artifact) -> str:
        """Make an artifact in a folder; the digest of its tensors."""
        content = {"value": artifact.value, "task": artifact.task}
        try:
            body = canonical(content)
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"artifact {key[:12]}: its value is no JSON ({error}). Store finite values."
            ) from error
        digest = _write_tensors(folder / TENSORS, artifact.tensors)
        document = {
            "schema": SCHEMA,
            "tensors": digest,
            "content": hashlib.sha256(body.encode()).hexdigest(),
            **content,
        }
        with (folder / VALUE).open("wb") as file:
            file.write(json.dumps(document, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        return digest

    def _read(self, key: Key) -> tuple[dict[str, Any], bytes | Path] | None:
        """The document of a sound artifact, and its tensors' file: the content, or if large the path."""
        try:
            text = self._shelf.document(key)
            if text is None:
                return None
            document = json.loads(text)
            wanted = document["tensors"]
            source, digest = self._content(key, wanted)
            body = canonical({"value": document["value"], "task": document["task"]})
            digests = (digest, hashlib.sha256(body.encode()).hexdigest())
            if digests == (wanted, document["content"]):
                return document, source
            reason = "its digest does not fit"
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error)
        except OSError as error:
            # of a copy that is dropped again and again nothing follows for what it is a copy of
            if self.files is not None or not isinstance(error, FileNotFoundError):
                self._give_up(error)
            reason = str(error)
        self._set_aside(key, reason)
        return None

    def _content(self, key: Key, wanted: str) -> tuple[bytes | Path, str]:
        """What `_look_at` finds in the tensors' file; a copy that is damaged or gone is fetched anew."""
        for is_last in (False, False, True):
            try:
                source, digest = _look_at(self._shelf.tensors(key, wanted))
            except (
                FileNotFoundError
            ):  # users empty the folder of copies, and other processes drop damaged ones
                if is_last or self.files is None:
                    raise
                continue
            if digest == wanted or is_last or not self._shelf.forget(wanted):
                break
        return source, digest

    def _give_up(self, error: OSError) -> NoReturn:
        """Raise StoreError for too many open files, say: the artifact itself may be sound."""
        raise StoreError(
            f"store {self.root}: cannot be read ({error}). Check its permissions and its disk."
        ) from error

    def _set_aside(self, key: Key, reason: str) -> None:
        _LOG.warning("artifact %s: is corrupt (%s). It is set aside and made again.", key[:12], reason)
        with self._writing():
            self._shelf.set_aside(key)

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
