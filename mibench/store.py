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

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mibench.atomic import replace_file
from mibench.errors import PluginError, StoreError
from mibench.key import SCHEMA, Key, canonical

_LOG = logging.getLogger(__name__)
_TENSORS, _VALUE, _COST = "tensors.safetensors", "artifact.json", "cost.json"
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
        """The artifact of a key, or None; a corrupt one is set aside with a warning and counts as none."""
        found = self._read(key)
        if found is None:
            return None
        document, data = found
        try:
            return Artifact(load(data), document["value"], document["task"])
        except SafetensorError as error:
            self._set_aside(key, str(error))
            return None

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
        # clones, because safetensors refuses tensors that share memory
        data = save({name: t.detach().cpu().clone().contiguous() for name, t in artifact.tensors.items()})
        content = {"value": artifact.value, "task": artifact.task}
        try:
            body = canonical(content)
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"artifact {key[:12]}: its value is no JSON ({error}). Store finite values."
            ) from error
        document = {
            "schema": SCHEMA,
            "tensors": hashlib.sha256(data).hexdigest(),
            "content": hashlib.sha256(body.encode()).hexdigest(),
            **content,
        }
        for name, payload in ((_TENSORS, data), (_VALUE, json.dumps(document, indent=1).encode())):
            with (folder / name).open("wb") as file:
                file.write(payload)
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

    def _read(self, key: Key) -> tuple[dict[str, Any], bytes] | None:
        folder = self.folder(key)
        try:
            if not folder.is_dir():
                return None
            document = json.loads((folder / _VALUE).read_text(encoding="utf-8"))
            data = (folder / _TENSORS).read_bytes()
            body = canonical({"value": document["value"], "task": document["task"]})
            digests = (hashlib.sha256(data).hexdigest(), hashlib.sha256(body.encode()).hexdigest())
            if digests == (document["tensors"], document["content"]):
                return document, data
            reason = "its digest does not fit"
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            reason = str(error)
        except OSError as error:  # too many open files, say: the artifact itself may be sound
            raise StoreError(
                f"store {self.root}: cannot be read ({error}). Check its permissions and its disk."
            ) from error
        self._set_aside(key, reason)
        return None

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


def _rename_aside(folder: Path) -> None:
    """Give a corrupt artifact's folder a name that nobody reads; another process may have done so."""
    with contextlib.suppress(FileNotFoundError):
        folder.rename(folder.with_name(f"{folder.name}.corrupt-{os.getpid()}-{time.monotonic_ns()}"))
