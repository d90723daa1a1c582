"""Leases without links and locks: one owner a key, taken over after silence and never by mistake."""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mibench import remote_files
from mibench.errors import StoreError
from mibench.lease import Lease, Leases, Owner, this_process
from mibench.lease_objects import ObjectLeases, leases_of
from mibench.remote_files import RemoteFiles

KEY = "ab" * 32
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="processes are told apart by /proc")


@pytest.fixture
def files(shared_url: str) -> RemoteFiles:
    return RemoteFiles(shared_url)


def leave(files: RemoteFiles, owner: Owner, *, number: int = 0) -> Lease:
    """A lease as another process would leave it, which beats no more."""
    left = Lease(KEY, f"{number:032x}", owner)
    files.write(f"leases/{KEY}.{number}.json", json.dumps({**asdict(left), "session": "fe" * 16}).encode())
    return left


def within(seconds: float, ask: Callable[[], Any]) -> Any:
    """The first answer that counts as true, asked for over and over; the last one if none does."""
    deadline = time.monotonic() + seconds
    while not (found := ask()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_folders_keep_their_own_leases(files: RemoteFiles, tmp_path: Path) -> None:
    assert isinstance(leases_of(tmp_path, None), Leases)
    assert isinstance(leases_of(tmp_path, files), ObjectLeases)


def test_one_of_two_gets_it_until_it_is_given_back(files: RemoteFiles) -> None:
    with ObjectLeases(files, look_s=0) as one, ObjectLeases(files, look_s=0) as other:
        assert one.take(KEY) is not None
        assert other.take(KEY) is None
        assert other.holder(KEY) == this_process()
        other.drop(KEY)
        assert other.take(KEY) is None
        one.drop(KEY)
        assert one.holder(KEY) is None
        assert other.take(KEY) is not None
    assert files.names() == []


def test_nothing_is_written_before_the_first_lease(files: RemoteFiles, tmp_path: Path) -> None:
    with ObjectLeases(files) as leases:
        assert leases.holder(KEY) is None
    assert not (tmp_path / "bucket").exists()


def test_lease_of_another_is_looked_at_now_and_then(files: RemoteFiles) -> None:
    with ObjectLeases(files) as one, ObjectLeases(files, look_s=60) as other:
        one.take(KEY)
        assert other.take(KEY) is None
        one.drop(KEY)
        assert other.take(KEY) is None
        assert other.take("cd" * 32) is not None


@needs_proc
def test_lease_of_a_dead_process_is_free_at_once(files: RemoteFiles) -> None:
    leave(files, replace(this_process(), started="1"))
    with ObjectLeases(files) as leases:
        assert leases.take(KEY) is not None
        assert set(files.names("leases")) >= {f"leases/{KEY}.0.json", f"leases/{KEY}.1.json"}
    assert files.names() == []


@needs_proc
def test_what_the_dead_have_left_goes_with_the_next_who_ends(files: RemoteFiles) -> None:
    files.write(f"leases/{'fe' * 16}.beat", b"")
    leave(files, replace(this_process(), started="1"))
    leave(files, Owner("far", 1), number=1)
    with ObjectLeases(files) as leases:
        leases.take("cd" * 32)
    assert len(files.names()) == 3  # the highest number is the lease, and its owner may live
    leave(files, replace(this_process(), started="1"), number=2)
    with ObjectLeases(files) as leases:
        leases.take("cd" * 32)
    assert files.names() == []


def test_beats_keep_it_and_silence_loses_it(files: RemoteFiles, caplog: pytest.LogCaptureFixture) -> None:
    with (
        ObjectLeases(files, beat_s=0.05) as loud,
        ObjectLeases(files, beat_s=60, stale_s=1.0, look_s=0) as other,
    ):
        loud.take(KEY)
        assert not within(1.5, lambda: other.take(KEY))
        loud._closing.set()  # as if it were suspended
        assert within(10, lambda: other.take(KEY))
        with caplog.at_level(logging.WARNING):
            loud.beat()
            loud.beat()
        assert loud.held == {}
        assert [entry.message.split(":")[0] for entry in caplog.records] == [f"task {KEY[:12]}"]
        loud.drop(KEY)
        other.beat()
        assert KEY in other.held


def test_half_a_lease_is_a_lease_until_it_is_stale(files: RemoteFiles) -> None:
    files.write(f"leases/{KEY}.0.json", b'{"key": "')
    with ObjectLeases(files, stale_s=0.3, look_s=0) as leases:
        assert leases.take(KEY) is None
        assert leases.holder(KEY) is None
        assert within(10, lambda: leases.take(KEY))


def test_stale_lease_goes_to_one_of_many(files: RemoteFiles) -> None:
    def race() -> int:
        leave(files, Owner("far", 1))
        rivals = [ObjectLeases(files, stale_s=0, look_s=0) for _ in range(4)]
        assert [one.take(KEY) for one in rivals] == [None] * 4  # each has to watch it first
        start, found = threading.Barrier(4), []

        def grab(leases: ObjectLeases) -> None:
            start.wait()
            found.append(leases.take(KEY))

        threads = [threading.Thread(target=grab, args=(one,)) for one in rivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one in rivals:
            one.close()
        assert len(found) == 4
        return sum(one is not None for one in found)

    assert [race() for _ in range(10)] == [1] * 10


def test_lease_that_was_given_back_since_it_was_judged_is_not_taken_over(
    files: RemoteFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(files, Owner("far", 1), number=4)

    def judge(_self: ObjectLeases, key: str, number: int) -> bool:
        files.remove(f"leases/{key}.{number}.json")
        return True

    monkeypatch.setattr(ObjectLeases, "_is_stale", judge)
    files.write(f"leases/{KEY}.0.json", b"")
    with ObjectLeases(files, look_s=0) as leases:
        files.remove(f"leases/{KEY}.0.json")
        monkeypatch.setattr(leases, "_create", lambda lease, number: number > 0)
        assert leases.take(KEY) is None


def test_deleted_lease_is_written_again(files: RemoteFiles) -> None:
    with ObjectLeases(files, beat_s=60) as leases:
        leases.take(KEY)
        files.remove(f"leases/{KEY}.0.json")
        leases.beat()
        assert leases.holder(KEY) == this_process()


@pytest.mark.parametrize("how", ["not known to", "known to and does not"])
def test_without_exclusive_creation_there_are_no_leases_and_that_is_told(
    files: RemoteFiles, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if how == "not known to":
        monkeypatch.setattr(remote_files, "EXCLUSIVE", {"s3"})
        files = RemoteFiles(files.url)
    else:
        pipe = files.fs.pipe_file
        monkeypatch.setattr(files.fs, "pipe_file", lambda path, data, **_: pipe(path, data))
    with caplog.at_level(logging.WARNING), ObjectLeases(files) as one, ObjectLeases(files) as other:
        for leases in (one, other, one):
            assert leases.take(KEY) is not None
            leases.drop(KEY)
    assert len(caplog.records) == 2
    assert caplog.records[0].message == (
        f"store {files.url}: cannot create files exclusively, so there are no leases: several processes may "
        "do the same task. Results stay right."
    )
    assert files.names() == []


def test_service_that_is_gone_is_told(files: RemoteFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_options: Any) -> None:
        raise ConnectionError("no route")

    with ObjectLeases(files) as leases:
        monkeypatch.setattr(files.fs, "pipe_file", refuse)
        monkeypatch.setattr(files.fs, "rm_file", refuse)
        with pytest.raises(
            StoreError, match=r"^store .*: cannot be written to \(ConnectionError: no route\)"
        ):
            leases.take(KEY)
