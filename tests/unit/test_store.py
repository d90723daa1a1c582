import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from mibench import store as module
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


@pytest.fixture(params=["folder", "shared", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, shared_url: str) -> Store:
    """A store in a folder, and stores that are none."""
    urls = {"folder": str(tmp_path / "store"), "shared": shared_url, "memory": f"memory://{tmp_path}"}
    return Store(urls[request.param])


@pytest.fixture(params=["folder", "shared"])
def disk_store(request: pytest.FixtureRequest, tmp_path: Path, shared_url: str) -> tuple[Store, Path]:
    """A store whose files lie on the disk, as such or behind a URL, and the folder of an artifact in it."""
    url = str(tmp_path / "bucket") if request.param == "folder" else shared_url
    return Store(url), tmp_path / "bucket" / KEY[:2] / KEY


def test_what_was_put_is_got(any_store: Store) -> None:
    store = any_store
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


@pytest.fixture
def mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a large one."""
    monkeypatch.setattr(module, "_MAPPED_BYTES", 0)


@pytest.fixture(params=[0, 2**24], ids=["mapped", "read"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the tests are large ones, and then small ones."""
    monkeypatch.setattr(module, "_MAPPED_BYTES", request.param)


def is_in_memory_of(tensor: torch.Tensor, file: str) -> bool:
    """Whether a tensor lies in a map of this process of a file that ends so."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return line.endswith(file)
    return False


@pytest.mark.usefixtures("mapping")
def test_a_large_artifact_is_got_as_it_was_put(any_store: Store) -> None:
    store = any_store
    empty = {"none": torch.zeros(0, 3), "one": torch.tensor(2.5), "half": torch.tensor([1.5]).half()}
    store.put(KEY, Artifact({**artifact().tensors, **empty}, {}, {}))
    got = store.get(KEY)
    assert got is not None
    for name, tensor in {**artifact().tensors, **empty}.items():
        assert torch.equal(got.tensors[name], tensor)
        assert (got.tensors[name].dtype, got.tensors[name].shape) == (tensor.dtype, tensor.shape)


@pytest.mark.usefixtures("mapping")
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs a list of maps")
def test_bytes_stay_in_the_file_and_numbers_do_not(store: Store) -> None:
    """A file aligns numbers too badly: the last bits of a product may hang on it."""
    store.put(KEY, artifact())
    got = store.get(KEY)
    assert got is not None
    assert is_in_memory_of(got.tensors["bytes"], f"{KEY}/tensors.safetensors")
    assert not is_in_memory_of(got.tensors["a"], f"{KEY}/tensors.safetensors")


@pytest.mark.usefixtures("mapping")
def test_what_is_written_to_mapped_bytes_never_reaches_the_file(store: Store) -> None:
    store.put(KEY, artifact())
    first, second = store.get(KEY), store.get(KEY)
    assert first is not None
    assert second is not None
    first.tensors["bytes"].zero_()
    assert torch.equal(second.tensors["bytes"], artifact().tensors["bytes"])
    assert store.verify(KEY)


@pytest.mark.usefixtures("mapping")
@pytest.mark.parametrize("fate", ["moved", "removed"])
def test_mapped_bytes_outlive_their_file(store: Store, fate: str) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 10_000), generator=generator, dtype=torch.uint8)
    store.put(KEY, Artifact({"x": pixels}))
    got = store.get(KEY)
    assert got is not None
    if fate == "moved":
        store.folder(KEY).rename(store.root / "elsewhere")
    else:
        shutil.rmtree(store.root)
    assert torch.equal(got.tensors["x"], pixels)


@pytest.mark.usefixtures("mapping")
def test_an_artifact_that_goes_before_it_is_mapped_is_none(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(KEY, artifact())
    look = module._look_at

    def look_and_lose(file: Path) -> Any:
        found = look(file)
        file.unlink()  # another process has set it aside
        return found

    monkeypatch.setattr(module, "_look_at", look_and_lose)
    assert store.get(KEY) is None
    assert caplog.text == ""


def test_tensors_in_one_memory_and_in_any_order_are_put(any_store: Store) -> None:
    store = any_store
    base = torch.arange(24.0).view(2, 3, 4)
    tensors = {"a": base, "same": base, "part": base[1], "turned": base.permute(2, 0, 1), "wide": base[:1]}
    tensors["spread"] = torch.ones(1).expand(5)
    store.put(KEY, Artifact(tensors))
    got = store.get(KEY)
    assert got is not None
    for name, tensor in tensors.items():
        assert torch.equal(got.tensors[name], tensor)


def test_all_files_of_an_artifact_are_as_open_to_others(store: Store) -> None:
    store.put(KEY, artifact())
    modes = {file.stat().st_mode & 0o777 for file in store.folder(KEY).iterdir()}
    assert len(modes) == 1


def test_a_disk_that_is_full_while_tensors_are_written_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(module, "save_file", refuse)
    with pytest.raises(StoreError, match=r"cannot be written to \(I/O error: No space left"):
        store.put(KEY, artifact())
    assert not list(store.root.rglob("*.tmp-*"))


def test_nothing_is_left_beside_and_nothing_is_pickled(store: Store) -> None:
    store.put(KEY, artifact())
    files = sorted(
        file.relative_to(store.root).as_posix() for file in store.root.rglob("*") if file.is_file()
    )
    assert files == [f"ab/{KEY}/artifact.json", f"ab/{KEY}/tensors.safetensors"]


def test_first_writer_stays(any_store: Store) -> None:
    store = any_store
    store.put(KEY, artifact())
    store.put(KEY, Artifact({}, {"other": 1}))
    got = store.get(KEY)
    assert got is not None
    assert got.value == artifact().value


def tensors_of(folder: Path) -> Path:
    (file,) = folder.glob("*.safetensors")
    return file


def truncate(folder: Path) -> None:
    file = tensors_of(folder)
    file.write_bytes(file.read_bytes()[:-1])


def flip(folder: Path) -> None:
    file = tensors_of(folder)
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
    tensors_of(folder).unlink()


@pytest.mark.parametrize("damage", [truncate, flip, forge, empty, lose])
@pytest.mark.parametrize("look", ["get", "verify"])
@pytest.mark.usefixtures("either_way")
def test_corrupt_artifact_is_set_aside_with_a_warning(
    disk_store: tuple[Store, Path],
    damage: Callable[[Path], None],
    look: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, folder = disk_store
    store.put(KEY, artifact())
    damage(folder)
    if store.files is not None:  # else the copy of this machine would do
        shutil.rmtree(store.root)
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


def test_value_that_is_no_json_is_refused(any_store: Store) -> None:
    store = any_store
    with pytest.raises(PluginError, match="is no JSON"):
        store.put(KEY, Artifact({}, {"loss": float("nan")}))
    assert not store.contains(KEY)


def test_cost_is_no_part_of_the_artifact(any_store: Store) -> None:
    store = any_store
    assert store.cost(KEY) == {}
    store.put(KEY, artifact())
    store.put_cost(KEY, {"wall_s": 1.5, "device": "cpu"})
    assert store.cost(KEY) == {"wall_s": 1.5, "device": "cpu"}
    assert store.verify(KEY)


def test_cost_alone_leaves_no_folder(disk_store: tuple[Store, Path]) -> None:
    store, folder = disk_store
    store.put_cost(KEY, {"wall_s": 1.5})
    assert not folder.exists()


def test_many_are_asked_for_together(any_store: Store) -> None:
    assert any_store.present([KEY, "cd" * 32]) == set()
    any_store.put(KEY, artifact())
    assert any_store.present([KEY, "cd" * 32]) == {KEY}
    assert any_store.present([]) == set()


def test_past_is_what_has_a_cost(any_store: Store) -> None:
    described = Artifact({}, {}, {"stage": "train", "params": {}})
    for key, cost in ((KEY, {"wall_s": 2.0}), ("cd" * 32, {"device": "cpu"})):
        any_store.put(key, described)
        any_store.put_cost(key, cost)
    any_store.put("ef" * 32, described)
    wanted = [(KEY, {"stage": "train", "params": {}}, {"wall_s": 2.0})]
    assert list(any_store.past()) == wanted
    assert list(any_store.past()) == wanted


def test_incomplete_folder_gives_way_to_an_artifact(store: Store) -> None:
    store.folder(KEY).mkdir(parents=True)
    (store.folder(KEY) / "cost.json").write_text("{}", encoding="utf-8")
    store.put(KEY, artifact())
    assert store.verify(KEY)
    assert len(list(store.root.glob("*/*.corrupt-*"))) == 1


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("call", ["read_bytes", "open", "map"])
def test_artifact_that_cannot_be_read_just_now_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    store.put(KEY, artifact())

    def refuse(*_args: Any, **_options: Any) -> None:
        raise OSError(code, os.strerror(code))

    if call != "read_bytes":
        monkeypatch.setattr(module, "_MAPPED_BYTES", 0)
    if call == "map":
        monkeypatch.setattr(module, "safe_open", refuse)
    else:
        monkeypatch.setattr(Path, call, refuse)
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
