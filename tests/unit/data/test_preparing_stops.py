"""Preparations that stop: at any step on the disk, for any reason, and how they go on."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mibench.data import preparing_state, preparing_work
from mibench.data.prepared import IMAGES, MANIFEST, PreparedSet
from mibench.data.preparing import Interrupted, Request, prepare
from mibench.data.preparing_state import LOCK, PROGRESS, PartFolder, locked, read_progress
from mibench.errors import DataError

from .photos import asked, content, photos


class Stop(BaseException):
    """What ends a step of the test."""


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _file: None)


def stopped(request: Request) -> str:
    """What a preparation says that may be stopped; empty where it was not."""
    try:
        prepare(request)
    except (Interrupted, DataError, Stop) as error:
        return str(error)
    return ""


@contextmanager
def failing(
    monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException, *, dead: bool
) -> Iterator[list[int]]:
    """Makes a step on the disk fail: the one after so many, and with `dead` every later one too."""
    count = [0]

    def fail_then(step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == after or (dead and count[0] > after):
                raise error
            return step(*args, **options)

        return counted

    with monkeypatch.context() as patch:
        for owner, names in (
            (PartFolder, ("append", "cut", "end_images", "_sync")),
            (preparing_state, ("replace_file", "sync_folder")),
            (Path, ("rename", "unlink")),
        ):
            for name in names:
                patch.setattr(owner, name, fail_then(getattr(owner, name)))
        yield count


@pytest.mark.parametrize("kind", ["interrupt", "full", "killed"])
def test_a_stop_at_any_step_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(preparing_work, "_SAVE_IMAGES", 3)
    source = photos(tmp_path / "photos", people=4, images=2)
    (source / "p1" / "1.png").write_bytes(b"broken")
    (source / "p3" / "1.png").write_bytes((source / "p0" / "0.png").read_bytes())
    prepare(asked(source, tmp_path / "wanted"))
    wanted = content(tmp_path / "wanted")
    error: BaseException = {
        "interrupt": KeyboardInterrupt(),
        "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        "killed": Stop(),
    }[kind]
    steps, is_over = 0, False
    while not is_over:
        steps += 1
        target = tmp_path / f"set-{steps}"
        with failing(monkeypatch, steps, error, dead=kind == "killed") as count:
            message = stopped(asked(source, target))
            is_over = count[0] < steps
        assert is_over or kind != "full" or "the disk is full after" in message
        progress = read_progress(target.with_name(f"{target.name}.part"))
        assert progress is None or progress.position.images in range(7)
        if target.exists():
            assert PreparedSet(target).info.images == 6
        assert prepare(asked(source, target)).info.images == 6
        assert content(target) == wanted, f"stopped at step {steps}"
    assert steps > 25
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("dead", [False, True])
def test_a_stop_while_a_set_is_replaced_leaves_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    source = photos(tmp_path / "photos", people=2, images=2)
    prepare(asked(source, tmp_path / "wanted", size=16))
    wanted, steps, is_over = content(tmp_path / "wanted"), 0, False
    while not is_over:
        steps += 1
        target = tmp_path / f"set-{steps}"
        prepare(asked(source, target))
        (target / "splits").mkdir()
        (target / "splits" / "mine.json").write_text("{}")
        with failing(monkeypatch, steps, Stop(), dead=dead) as count:
            stopped(asked(source, target, size=16, restart=True))
            is_over = count[0] < steps
        old = read_progress(target.with_name(f"{target.name}.part"))
        again = old is None and target.exists() and PreparedSet(target).info.size == 8
        prepare(asked(source, target, size=16, restart=again))
        found = content_of_set(target)
        assert found == wanted, f"stopped at step {steps}"
        assert (target / "splits" / "mine.json").read_text() == "{}"
        assert not (tmp_path / f".{target.name}.replaced").exists()
    assert steps > 15


def content_of_set(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}


def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Path:
    """A source whose preparation was interrupted after some images."""
    source = photos(tmp_path / "photos")
    with failing(monkeypatch, 20, KeyboardInterrupt(), dead=False), pytest.raises(Interrupted) as caught:
        prepare(asked(source, tmp_path / "set", **changes))
    assert 0 < caught.value.images < 12
    return source


def test_an_unfinished_set_goes_on_from_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = begun(tmp_path, monkeypatch)
    progress = read_progress(tmp_path / "set.part")
    assert progress is not None
    assert (progress.layout, progress.total, progress.replaces) == ("image_folder", 12, False)
    assert 0 < progress.done < 12
    assert progress.bytes_left > 0
    assert "--from" in progress.command
    notes: list[str] = []
    calls: list[tuple[int, int, int]] = []
    done = prepare(
        asked(source, tmp_path / "set"),
        on_note=notes.append,
        on_progress=lambda *numbers: calls.append(numbers),
    )
    assert notes == [f"goes on after {progress.position.images:,} images"]
    assert done.read == 12 - progress.done
    assert calls[-1] == (12, 12, 12)


def test_an_unfinished_set_of_other_options_or_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = begun(tmp_path, monkeypatch)
    with pytest.raises(DataError, match=r"was begun with other options: size 8 then and 16 now\. Give"):
        prepare(asked(source, tmp_path / "set", size=16))
    before = (source / "p0" / "0.png").stat()
    os.utime(source / "p0" / "0.png", ns=(0, 0))
    with pytest.raises(DataError, match=r"was begun from other files: .* --restart"):
        prepare(asked(source, tmp_path / "set"))
    os.utime(source / "p0" / "0.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    prepare(asked(source, tmp_path / "set"))
    prepare(asked(source, tmp_path / "wanted"))
    assert content(tmp_path / "set") == content(tmp_path / "wanted")


def test_restart_throws_an_unfinished_set_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = begun(tmp_path, monkeypatch)
    notes: list[str] = []
    done = prepare(asked(source, tmp_path / "set", size=16, restart=True), on_note=notes.append)
    assert (done.read, done.info.size, notes) == (12, 16, [])


def test_an_unfinished_set_of_other_versions_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = begun(tmp_path, monkeypatch)
    file = tmp_path / "set.part" / PROGRESS
    raw = json.loads(file.read_text())
    raw["made_with"]["pillow"] = "1.0"
    file.write_text(json.dumps(raw))
    with pytest.raises(DataError, match=r"was begun with pillow 1\.0, here is"):
        prepare(asked(source, tmp_path / "set"))
    file.write_text("{")
    with pytest.raises(DataError, match=r"its progress\.json is damaged. Use --restart"):
        prepare(asked(source, tmp_path / "set"))


def test_a_file_that_lost_its_end_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = begun(tmp_path, monkeypatch)
    os.truncate(tmp_path / "set.part" / IMAGES, 130)
    with pytest.raises(DataError, match=r"images.npy has 130 bytes, progress.json says .* --restart"):
        prepare(asked(source, tmp_path / "set"))


def test_a_damaged_manifest_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = begun(tmp_path, monkeypatch)
    manifest = tmp_path / "set.part" / MANIFEST
    data = manifest.read_bytes()
    for torn in (data[:-30] + bytes(30), data[:-30] + b"\xff" * 30, data[:-30] + b"," * 30):
        manifest.write_bytes(torn)
        with pytest.raises(DataError, match=r"manifest.csv is damaged .* Begin anew with --restart"):
            prepare(asked(source, tmp_path / "set"))


def test_two_processes_do_not_write_one_set(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos")
    with (
        locked(tmp_path / "set.part"),
        pytest.raises(DataError, match="another process prepares it at this moment"),
    ):
        prepare(asked(source, tmp_path / "set"))
    assert not (tmp_path / "set.part").exists()
    (tmp_path / "set.part").mkdir()
    (tmp_path / "set.part" / LOCK).touch()  # of a process that died
    assert prepare(asked(source, tmp_path / "set")).info.images == 12


def test_room_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = photos(tmp_path / "photos")
    need = 12 * (3 * 8 * 8 + 200)
    free = [need - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: type("Usage", (), {"free": free[0]}))
    notes: list[str] = []
    prepare(asked(source, tmp_path / "set"), on_note=notes.append)
    assert len(notes) == 1
    assert notes[0].startswith("the set takes up to 4.7 kB, 4.7 kB are free")
    free[0] = need // 2 - 1
    with pytest.raises(DataError, match=r"Free some, give another folder by --to, or ask for less"):
        prepare(asked(source, tmp_path / "other"))
    assert not (tmp_path / "other.part").exists()


def test_progress_that_is_none_of_ours_is_none(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    for text in ("", "[]", '{"schema": 1}', '{"schema": 2}', "\udcff", "[" * 100_000):
        (tmp_path / PROGRESS).write_text(text, errors="surrogateescape")
        assert read_progress(tmp_path) is None
