"""What a store on a file system of fsspec does beside what every store does (see test_store.py)."""

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mibench import store as module
from mibench.errors import StoreError
from mibench.remote_files import RemoteFiles
from mibench.store import Artifact, Store

KEY = "ab" + "0" * 62
DAYS = 24 * 3600


def artifact(value: float = 1.0) -> Artifact:
    return Artifact({"a": torch.full((4,), value), "b": torch.tensor([7], dtype=torch.uint8)}, {"v": value})


@pytest.fixture
def store(shared_url: str) -> Store:
    return Store(shared_url)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


def fails(error: BaseException) -> Callable[..., None]:
    def fail(*_args: Any, **_options: Any) -> None:
        raise error

    return fail


def copies(store: Store) -> list[Path]:
    return sorted(store.root.glob("tensors/*/*"))


def test_an_artifact_is_three_objects_and_one_copy(store: Store, bucket: Path) -> None:
    store.put(KEY, artifact())
    store.put_cost(KEY, {"wall_s": 1.0})
    (copy,) = copies(store)
    found = sorted(file.relative_to(bucket).as_posix() for file in bucket.rglob("*") if file.is_file())
    assert sorted(["artifact.json", "cost.json", copy.name]) == sorted(Path(name).name for name in found)
    assert {Path(name).parent.as_posix() for name in found} == {f"ab/{KEY}"}
    assert not list(store.root.glob("making/*"))


def test_bytes_are_mapped_from_the_copy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAPPED_BYTES", 0)
    store.put(KEY, artifact())
    first = store.get(KEY)
    assert first is not None
    first.tensors["b"].zero_()
    shutil.rmtree(store.root)
    second = store.get(KEY)
    assert second is not None
    assert second.tensors["b"].tolist() == [7]
    shutil.rmtree(store.root)
    assert second.tensors["b"].tolist() == [7]


def test_what_was_fetched_is_not_fetched_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(KEY, artifact())
    assert store.files is not None
    monkeypatch.setattr(store.files, "download", fails(AssertionError("fetched")))
    assert store.get(KEY) is not None


def test_a_damaged_copy_is_fetched_anew(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.put(KEY, artifact())
    (copy,) = copies(store)
    copy.write_bytes(b"damaged")
    got = store.get(KEY)
    assert got is not None
    assert torch.equal(got.tensors["a"], artifact().tensors["a"])
    assert caplog.text == ""


def test_what_arrives_damaged_is_fetched_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(KEY, artifact())
    shutil.rmtree(store.root)
    assert store.files is not None
    download, calls = store.files.download, []

    def cut(name: str, file: Path) -> bool:
        found = download(name, file)
        calls.append(name)
        if len(calls) == 1:
            file.write_bytes(file.read_bytes()[:-1])
        return found

    monkeypatch.setattr(store.files, "download", cut)
    assert store.get(KEY) is not None
    assert len(calls) == 2
    assert caplog.text == ""


@pytest.mark.parametrize("second", [1.0, 2.0])
def test_the_second_of_two_writers_leaves_no_tensors_that_nobody_reads(
    store: Store, bucket: Path, monkeypatch: pytest.MonkeyPatch, second: float
) -> None:
    store.put(KEY, artifact())
    with monkeypatch.context() as patch:  # it looked before the first one was there
        patch.setattr(type(store._shelf), "contains", lambda *_: False)
        store.put(KEY, artifact(second))
    assert len(list(bucket.rglob("*.safetensors"))) == 1
    shutil.rmtree(store.root)
    got = store.get(KEY)
    assert got is not None
    assert torch.equal(got.tensors["a"], artifact().tensors["a"])


@pytest.mark.parametrize("drops", [1, 2])
def test_who_empties_the_folder_of_copies_damages_no_artifact(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, drops: int
) -> None:
    store.put(KEY, artifact())
    look, calls = module._look_at, []

    def dropped(file: Path) -> tuple[bytes | Path, str]:
        calls.append(file)
        if len(calls) <= drops:
            file.unlink()
        return look(file)

    monkeypatch.setattr(module, "_look_at", dropped)
    assert store.get(KEY) is not None
    assert store.contains(KEY)
    assert caplog.text == ""


def test_a_copy_that_goes_every_time_ends_the_run_and_not_the_artifact(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(KEY, artifact())
    monkeypatch.setattr(module, "_look_at", fails(FileNotFoundError(errno.ENOENT, "no such file")))
    with pytest.raises(StoreError, match="cannot be read"):
        store.get(KEY)
    assert store.contains(KEY)


def test_a_copy_that_is_dropped_before_it_is_mapped_is_fetched_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAPPED_BYTES", 0)
    store.put(KEY, artifact())
    mapped, calls = module._mapped, []

    def dropped(file: Path) -> dict[str, torch.Tensor]:
        calls.append(file)
        if len(calls) == 1:
            file.unlink()
        return mapped(file)

    monkeypatch.setattr(module, "_mapped", dropped)
    got = store.get(KEY)
    assert got is not None
    assert torch.equal(got.tensors["a"], artifact().tensors["a"])


def test_who_is_killed_before_the_last_object_leaves_nothing_that_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert store.files is not None
    with monkeypatch.context() as patch:
        patch.setattr(store.files, "create", fails(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            store.put(KEY, artifact())
    assert not store.contains(KEY)
    assert store.get(KEY) is None
    assert caplog.text == ""
    store.put(KEY, artifact(2.0))
    got = store.get(KEY)
    assert got is not None
    assert got.value == {"v": 2.0}


def test_two_that_write_one_key_never_mix(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.files is not None
    other, upload = Store(str(store.place)), store.files.upload

    def late(file: Path, name: str) -> None:
        upload(file, name)
        other.put(KEY, artifact(2.0))

    monkeypatch.setattr(store.files, "upload", late)
    store.put(KEY, artifact(1.0))
    got = store.get(KEY)
    assert got is not None
    assert got.value == {"v": 2.0}
    assert got.tensors["a"].tolist() == [2.0] * 4


def test_a_folder_store_that_was_copied_there_is_read(store: Store, bucket: Path) -> None:
    Store(bucket).put(KEY, artifact())
    got = store.get(KEY)
    assert got is not None
    assert torch.equal(got.tensors["a"], artifact().tensors["a"])


def test_what_is_set_aside_keeps_a_note(store: Store, bucket: Path, caplog: pytest.LogCaptureFixture) -> None:
    store.put(KEY, artifact())
    shutil.rmtree(store.root)
    (tensors,) = bucket.glob("*/*/*.safetensors")
    tensors.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        assert store.get(KEY) is None
    assert f"artifact {KEY[:12]}: is corrupt (its digest does not fit). It is set aside" in caplog.text
    assert [file.name for file in bucket.glob("*/*.corrupt-*/*")] == ["artifact.json"]
    store.put(KEY, artifact())
    assert store.verify(KEY)


def test_only_old_leftovers_of_ours_are_swept_and_once_a_day(store: Store, bucket: Path) -> None:
    store.put(KEY, artifact())
    (tensors,) = bucket.glob("*/*/*.safetensors")
    orphan = bucket / "cd" / ("cd" * 32) / tensors.name
    young = bucket / "ef" / ("ef" * 32) / tensors.name
    aside = bucket / "ab" / f"{KEY}.corrupt-12ab" / "artifact.json"
    lease, beat = bucket / "leases" / f"{KEY}.0.json", bucket / "leases" / "12ab.beat"
    foreign = bucket / "thesis.pdf"
    left = [orphan, young, aside, lease, beat, foreign]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    then = time.time() - 8 * DAYS
    for file in (*bucket.rglob("*.json"), orphan, tensors, beat, foreign):
        os.utime(file, (then, then))
    (copy,) = copies(store)
    os.utime(copy, (then, then))
    store.sweep()
    assert [file.exists() for file in left] == [False, True, False, False, False, True]
    assert copies(store) == []
    assert store.verify(KEY)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"")
    os.utime(orphan, (then, then))
    store.sweep()
    assert orphan.exists()
    mark = store.root / "swept"
    os.utime(mark, (time.time() - 2 * DAYS,) * 2)
    store.sweep()
    assert not orphan.exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "Check the network and the service"),
        (
            RuntimeError("Endpoint is gone.\nand more"),
            r"\(RuntimeError: Endpoint is gone\)\. Check the network",
        ),
        (PermissionError("Access Denied"), "may not be .* Check the credentials"),
        (FileNotFoundError("The specified bucket does not exist"), "bucket or folder is not there"),
    ],
)
def test_every_failure_is_one_sentence(
    store: Store, error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.files is not None
    for name in ("pipe_file", "put_file", "makedirs"):
        monkeypatch.setattr(store.files.fs, name, fails(error))
    with pytest.raises(StoreError, match=rf"^store shared://.*{words}") as caught:
        store.put(KEY, artifact())
    assert "\n" not in str(caught.value)
    assert not list(store.root.glob("making/*"))
    if isinstance(error, FileNotFoundError):
        return
    monkeypatch.setattr(store.files.fs, "cat_file", fails(error))
    for look in (store.contains, store.get, store.verify, store.cost):
        with pytest.raises(StoreError, match=words):
            look(KEY)
    with pytest.raises(StoreError, match=words):
        store.present([KEY, "cd" * 32])


def test_an_answer_that_was_lost_is_asked_for_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    files = store.files
    assert files is not None
    pipe = files.fs.pipe_file

    def lose(path: str, data: bytes, **options: Any) -> None:
        pipe(path, data, **options)
        raise ConnectionResetError("the answer is gone")

    files.write("a", b"")
    monkeypatch.setattr(files.fs, "pipe_file", lose)
    assert files.create("b", b"ours")
    assert not files.create("b", b"others")


def test_two_that_create_at_one_moment_try_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    files = store.files
    assert files is not None
    files.write("a", b"")
    monkeypatch.setattr("mibench.remote_files._PAUSE_S", 0.0)
    pipe, calls = files.fs.pipe_file, []

    def conflict(path: str, data: bytes, **options: Any) -> None:
        calls.append(path)
        if len(calls) < 3:
            raise OSError(errno.EBUSY, "ConditionalRequestConflict")
        pipe(path, data, **options)

    monkeypatch.setattr(files.fs, "pipe_file", conflict)
    assert files.create("b", b"ours")
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nothing://a/b", "'nothing' is no file system"),
        ("gs://a/b", r"pip install 'mibench\[gs\]'"),
        ("s3://a/b", r"pip install 'mibench\[s3\]'"),
        ("odd://a/b", r"may not be opened \(DefaultCredentialsError: none\)"),
    ],
)
def test_what_cannot_be_opened_is_told(url: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class DefaultCredentialsError(Exception):
        pass

    def missing(url: str, **_options: Any) -> None:
        if url.startswith("odd"):
            raise DefaultCredentialsError("none")
        if url.startswith("nothing"):
            raise ValueError("Protocol not known: nothing")
        raise ImportError("Install it")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(StoreError, match=rf"^store {url}: .*{words}"):
        Store(url)


def test_memory_is_for_one_process(tmp_path: Path, store: Store) -> None:
    with pytest.raises(StoreError, match="one process"):
        Store(f"memory://{tmp_path}").check_shared()
    store.check_shared()
    Store(tmp_path).check_shared()


def test_files_keep_no_listing(store: Store) -> None:
    files = RemoteFiles(str(store.place))
    assert files.names() == []
    store.put(KEY, artifact())
    assert len(files.names()) == 2
