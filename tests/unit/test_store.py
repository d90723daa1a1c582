import errno
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mibench.atomic import write_atomically
from mibench.errors import PluginError, StoreError
from mibench.store import Artifact, Store

KEY = "ab" + "0" * 62


def artifact() -> Artifact:
    whole = torch.arange(6, dtype=torch.float32)
    tensors = {"a": whole, "view": whole[2:4], "bytes": torch.tensor([1, 255], dtype=torch.uint8)}
    return Artifact(tensors, {"notes": {"decoy": 3}, "accuracy": 1.0}, {"stage": "train"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_was_put_is_got(store: Store) -> None:
    assert store.get(KEY) is None
    assert not store.contains(KEY)
    store.put(KEY, artifact())
    got = store.get(KEY)
    assert got is not None
    assert got.value == artifact().value
    assert got.task == artifact().task
    assert got.tensors.keys() == artifact().tensors.keys()
    for name, tensor in artifact().tensors.items():
        assert torch.equal(got.tensors[name], tensor)
        assert got.tensors[name].dtype == tensor.dtype
    assert store.contains(KEY)
    assert store.verify(KEY)


def test_nothing_is_left_beside_and_nothing_is_pickled(store: Store) -> None:
    store.put(KEY, artifact())
    files = sorted(
        file.relative_to(store.root).as_posix() for file in store.root.rglob("*") if file.is_file()
    )
    assert files == [f"ab/{KEY}/artifact.json", f"ab/{KEY}/tensors.safetensors"]


def test_first_writer_stays(store: Store) -> None:
    store.put(KEY, artifact())
    store.put(KEY, Artifact({}, {"other": 1}))
    got = store.get(KEY)
    assert got is not None
    assert got.value == artifact().value


def truncate(folder: Path) -> None:
    file = folder / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip(folder: Path) -> None:
    file = folder / "tensors.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))


def forge(folder: Path) -> None:
    file = folder / "artifact.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["value"]["accuracy"] = 0.0
    file.write_text(json.dumps(document), encoding="utf-8")


def empty(folder: Path) -> None:
    (folder / "artifact.json").write_text("", encoding="utf-8")


def lose(folder: Path) -> None:
    (folder / "tensors.safetensors").unlink()


@pytest.mark.parametrize("damage", [truncate, flip, forge, empty, lose])
@pytest.mark.parametrize("look", ["get", "verify"])
def test_corrupt_artifact_is_set_aside_with_a_warning(
    store: Store, damage: Callable[[Path], None], look: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(KEY, artifact())
    damage(store.folder(KEY))
    with caplog.at_level(logging.WARNING):
        assert not getattr(store, look)(KEY)
    assert f"artifact {KEY[:12]}: is corrupt" in caplog.text
    assert not store.contains(KEY)
    store.put(KEY, artifact())
    assert store.verify(KEY)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["mkdir", "open", "rename"])
def test_store_that_cannot_be_written_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    def refuse(*_args: Any, **_options: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(StoreError) as caught:
        store.put(KEY, artifact())
    assert str(caught.value) == (
        f"store {store.root}: cannot be written to ({os.strerror(code)}). "
        "Free some space, or choose another folder."
    )
    monkeypatch.undo()
    assert not store.contains(KEY)
    assert not list(store.root.rglob("*.tmp-*"))


def test_value_that_is_no_json_is_refused(store: Store) -> None:
    with pytest.raises(PluginError, match="is no JSON"):
        store.put(KEY, Artifact({}, {"loss": float("nan")}))
    assert not store.contains(KEY)


def test_cost_is_no_part_of_the_artifact(store: Store) -> None:
    assert store.cost(KEY) == {}
    store.put(KEY, artifact())
    store.put_cost(KEY, {"wall_s": 1.5, "device": "cpu"})
    assert store.cost(KEY) == {"wall_s": 1.5, "device": "cpu"}
    assert store.verify(KEY)


def test_cost_alone_leaves_no_folder(store: Store) -> None:
    store.put_cost(KEY, {"wall_s": 1.5})
    assert not store.folder(KEY).exists()


def test_incomplete_folder_gives_way_to_an_artifact(store: Store) -> None:
    store.folder(KEY).mkdir(parents=True)
    (store.folder(KEY) / "cost.json").write_text("{}", encoding="utf-8")
    store.put(KEY, artifact())
    assert store.verify(KEY)
    assert len(list(store.root.glob("*/*.corrupt-*"))) == 1


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_artifact_that_cannot_be_read_just_now_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store.put(KEY, artifact())

    def refuse(*_args: Any, **_options: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(StoreError, match="cannot be read"):
        store.get(KEY)
    monkeypatch.undo()
    assert store.verify(KEY)


def test_two_readers_may_set_the_same_artifact_aside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(KEY, artifact())
    truncate(store.folder(KEY))
    rename = Path.rename

    def second(self: Path, target: Path) -> Path:
        rename(self, target)  # the other reader was faster
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second)
    assert store.get(KEY) is None


def test_only_old_leftovers_are_swept(store: Store) -> None:
    store.put(KEY, artifact())
    old, fresh = (store.root / "ab" / f"{KEY}.tmp-{name}" for name in ("1-1", "2-2"))
    aside = store.root / "ab" / f"{KEY}.corrupt-3-3"
    for folder in (old, fresh, aside):
        folder.mkdir()
    report, cost = store.root / "ab" / "report.tmp-4", store.folder(KEY) / "cost.json.tmp-5"
    for file in (report, cost):
        file.write_text("{", encoding="utf-8")
    days = 24 * 3600
    os.utime(fresh, (time.time() - 6 * days,) * 2)
    for left in (old, aside, report, cost):
        os.utime(left, (time.time() - 8 * days,) * 2)
    store.sweep()
    assert [left.exists() for left in (old, fresh, aside, report, cost)] == [False, True, False, False, False]
    assert store.contains(KEY)


def test_atomic_write_keeps_the_old_file_on_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    write_atomically(file, b"old")

    def refuse(*_args: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="full"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
