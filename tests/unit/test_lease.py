"""Leases: one owner a key, dead owners known as such, and nobody's lease removed by mistake."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mibench import lease as module
from mibench.errors import StoreError
from mibench.lease import Lease, Leases, Owner

KEY = "ab" * 32
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="processes are told apart by /proc")


def leave(root: Path, owner: Owner, *, age_s: float = 0.0) -> Lease:
    """A lease as another process would leave it, touched some seconds ago."""
    left = Lease(KEY, "f" * 32, owner)
    file = root / "leases" / f"{KEY}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(left)), encoding="utf-8")
    then = file.stat().st_mtime - age_s
    os.utime(file, (then, then))
    return left


def me() -> Owner:
    return module.this_process()


def ended() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    return child.pid


def test_one_of_two_gets_it_until_it_is_given_back(tmp_path: Path) -> None:
    with Leases(tmp_path) as one, Leases(tmp_path) as other:
        assert one.take(KEY) is not None
        assert other.take(KEY) is None
        assert other.holder(KEY) == me()
        other.drop(KEY)
        assert other.take(KEY) is None
        one.drop(KEY)
        assert one.holder(KEY) is None
        assert other.take(KEY) is not None
    assert [file.name for file in (tmp_path / "leases").iterdir()] == ["lock"]


def test_nothing_is_written_before_the_first_lease(tmp_path: Path) -> None:
    with Leases(tmp_path / "store") as leases:
        assert leases.holder(KEY) is None
    assert not (tmp_path / "store").exists()


def test_only_the_token_releases(tmp_path: Path) -> None:
    with Leases(tmp_path) as leases:
        taken = leases.take(KEY)
        assert taken is not None
        leases.release(replace(taken, token="0" * 32))
        assert leases.holder(KEY) == me()


@needs_proc
def test_lease_of_a_dead_process_is_free_at_once(tmp_path: Path) -> None:
    left = leave(tmp_path, replace(me(), pid=ended()))
    with Leases(tmp_path) as leases:
        taken = leases.take(KEY)
        assert taken is not None
        assert taken != left


@needs_proc
def test_zombie_counts_as_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner("here", child.pid, me().machine, module._started(child.pid) or "")
    assert not owner.is_dead()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owner.is_dead()
    child.communicate()
    assert owner.is_dead()


@needs_proc
def test_another_process_of_the_same_number_is_no_owner(tmp_path: Path) -> None:
    assert not me().is_dead()
    leave(tmp_path, replace(me(), started=str(int(me().started) - 1)))
    with Leases(tmp_path) as leases:
        assert leases.take(KEY) is not None


@pytest.mark.parametrize("machine", ["", "another boot pid:[1]"])
def test_owner_that_cannot_be_asked_has_its_time(tmp_path: Path, machine: str) -> None:
    owner = Owner("far", ended(), machine, "1")
    assert not owner.is_dead()
    leave(tmp_path, owner, age_s=15)
    with Leases(tmp_path) as leases:
        assert leases.take(KEY) is None
        assert str(leases.holder(KEY)) == f"process {owner.pid} on far"
    leave(tmp_path, owner, age_s=25)
    with Leases(tmp_path) as leases:
        assert leases.take(KEY) is not None


def test_half_a_lease_is_a_lease_until_it_is_stale(tmp_path: Path) -> None:
    file = tmp_path / "leases" / f"{KEY}.json"
    file.parent.mkdir()
    file.write_text('{"key": "', encoding="utf-8")
    with Leases(tmp_path, stale_s=0.2) as leases:
        assert leases.take(KEY) is None
        assert leases.holder(KEY) is None
    time.sleep(0.3)
    with Leases(tmp_path, stale_s=0.2) as leases:
        assert leases.take(KEY) is not None


@needs_proc
def test_owner_is_judged_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr("mibench.lease.time.monotonic", lambda: clock)
    leave(tmp_path, Owner("far", 1))
    with Leases(tmp_path) as leases:
        assert leases.take(KEY) is None
        leave(tmp_path, replace(me(), pid=ended()))
        clock = 100.9
        assert leases.take(KEY) is None
        clock = 101.1
        assert leases.take(KEY) is not None


def test_beats_keep_it_and_silence_loses_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Leases(tmp_path, beat_s=0.05) as loud, Leases(tmp_path, stale_s=1.0) as other:
        loud.take(KEY)
        time.sleep(1.5)
        assert other.take(KEY) is None
        loud._closing.set()  # as if it were suspended
        time.sleep(1.5)
        taken = other.take(KEY)
        assert taken is not None
        assert not loud.renew(loud.held[KEY])
        loud.drop(KEY)
        assert other.renew(taken)
    assert caplog.text == ""


def test_loss_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Leases(tmp_path, beat_s=0.02) as leases, caplog.at_level(logging.WARNING):
        leases.take(KEY)
        left = leave(tmp_path, Owner("far", 1))
        while leases.held:
            time.sleep(0.02)
        time.sleep(0.1)
        leases.drop(KEY)
        assert leases.holder(KEY) == left.owner
    assert [entry.message.split(":")[0] for entry in caplog.records] == [f"task {KEY[:12]}"]


@needs_proc
def test_what_the_dead_have_left_goes_with_the_next_who_ends(tmp_path: Path) -> None:
    leave(tmp_path, replace(me(), pid=ended()))
    with Leases(tmp_path / "other") as leases:
        leases.take(KEY)
    assert (tmp_path / "leases" / f"{KEY}.json").exists()
    with Leases(tmp_path):
        pass
    assert not (tmp_path / "leases" / f"{KEY}.json").exists()
    leave(tmp_path, Owner("far", 1))
    with Leases(tmp_path):
        pass
    assert (tmp_path / "leases" / f"{KEY}.json").exists()


def test_deleted_lease_is_written_again(tmp_path: Path) -> None:
    with Leases(tmp_path, beat_s=60) as leases:
        taken = leases.take(KEY)
        assert taken is not None
        (tmp_path / "leases" / f"{KEY}.json").unlink()
        assert leases.renew(taken)
        assert leases.holder(KEY) == me()


def test_stale_lease_goes_to_one_of_many(tmp_path: Path) -> None:
    def race() -> int:
        leave(tmp_path, Owner("far", 1), age_s=60)
        start, found = threading.Barrier(6), []

        def grab(leases: Leases) -> None:
            start.wait()
            found.append(leases.take(KEY))

        rivals = [Leases(tmp_path) for _ in range(6)]
        threads = [threading.Thread(target=grab, args=(one,)) for one in rivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one in rivals:
            one.close()
        assert len(found) == 6
        return sum(one is not None for one in found)

    assert [race() for _ in range(30)] == [1] * 30


def test_lease_that_came_in_between_is_put_back(tmp_path: Path) -> None:
    judged = leave(tmp_path, Owner("far", 1), age_s=60)
    with Leases(tmp_path) as fast, Leases(tmp_path) as slow:
        taken = fast.take(KEY)
        assert taken is not None
        # what happens on a disk without locks, where the judgment is old when the file is renamed
        assert not slow._remove(KEY, judged)
        assert fast.renew(taken)
    assert [file.name for file in (tmp_path / "leases").iterdir()] == ["lock"]


def test_disk_without_hard_links_and_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    monkeypatch.setattr("fcntl.flock", refuse)
    with Leases(tmp_path) as one, Leases(tmp_path) as other:
        assert one.take(KEY) is not None
        assert other.take(KEY) is None
        one.drop(KEY)
        assert other.take(KEY) is not None


def test_answer_that_was_lost_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def lose(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(17, "File exists")  # NFS repeats a request whose answer did not come

    monkeypatch.setattr("os.link", lose)
    with Leases(tmp_path) as leases:
        assert leases.take(KEY) is not None


def test_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "leases").write_text("", encoding="utf-8")
    with Leases(tmp_path) as leases, pytest.raises(StoreError, match=r"^store .*: cannot be written to"):
        leases.take(KEY)
