"""What users' files and machines do to a preparation: what it says then, and that it goes on from there."""

from __future__ import annotations

import contextlib
import csv
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mibench.data import preparing_work
from mibench.data.layouts import get_layout
from mibench.data.prepared import PreparedSet
from mibench.data.preparing import Request, prepare
from mibench.data.preparing_images import Made, Workshop
from mibench.data.preparing_plan import Planned
from mibench.data.preparing_state import PartFolder, read_progress
from mibench.data.preparing_work import SAME_BYTES, SAME_PERSON
from mibench.data.spelling import unspelled
from mibench.data.verifying import verify_set
from mibench.errors import DataError

from .photos import asked, content, noise, photos

SLOW = """
import itertools, sys, time
from mibench.data import preparing_images, preparing_work
preparing_work._SAVE_IMAGES = 4
real = preparing_images.decode
calls = itertools.count()
def slow(*args, **options):
    time.sleep(0.03 if next(calls) < 24 else 3)  # so that whoever wants to stop it has the time
    return real(*args, **options)
preparing_images.decode = slow
from mibench.cli import main
sys.exit(main(sys.argv[1:]))
"""
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
from mibench.cli import main
sys.exit(main(sys.argv[1:]))
"""


def equal_to_undisturbed(source: Path, target: Path) -> bool:
    """Whether a set is, byte for byte, what a preparation without any trouble gives."""
    other = target.with_name("undisturbed")
    prepare(asked(source, other))
    assert all(finding.status == "ok" for finding in verify_set(target))
    return content(target) == content(other)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "folder", "pipe", "broken link", "large"])
def test_a_file_that_is_no_image_is_left_out_and_told(tmp_path: Path, damage: str) -> None:
    source, target = photos(tmp_path / "photos"), tmp_path / "set"
    file = source / "p1" / "1.png"
    whole, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.unlink()
    match damage:
        case "truncated":
            Image.fromarray(noise(seed=101, height=99, width=99)).save(tmp_path / "whole.jpg")
            file.write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
        case "empty":
            file.touch()
        case "text":
            file.write_text("<html>404</html>")
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "broken link":
            file.symlink_to(tmp_path / "nowhere.png")
        case "large":
            with file.open("wb") as opened:
                opened.truncate(10 * 10**9)
    reason = {
        "truncated": "cannot be decoded",
        "empty": "is empty",
        "text": "is no image of a known format",
        "folder": "folder inside a person's folder",
        "pipe": "not a file",
        "broken link": "broken link",
        "large": "is larger than 64 MB",
    }[damage]
    began = time.perf_counter()
    found = prepare(asked(source, target)).info
    assert time.perf_counter() - began < 5
    assert (found.images, found.skipped) == (11, {reason: 1})
    assert [line["file"] for line in PreparedSet(target).skipped()] == ["p1/1.png"]
    file.rmdir() if damage == "folder" else file.unlink()
    file.write_bytes(whole)
    os.utime(file, ns=times)
    with pytest.raises(DataError, match="from other files"):
        prepare(asked(source, target))
    prepare(asked(source, target, restart=True))
    assert equal_to_undisturbed(source, target)


def test_odd_formats_are_taken_and_counted(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", people=2, images=2)
    folder = source / "odd"
    folder.mkdir()
    flat = np.full((10, 10), 65535 // 5 * 2, dtype=np.uint16)
    Image.fromarray(flat).save(folder / "16.png")
    Image.new("CMYK", (10, 10), (0, 255, 255, 0)).save(folder / "cmyk.jpg", quality=100)
    Image.new("RGB", (10, 10), (1, 200, 3)).quantize(2).save(folder / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    halves = np.zeros((10, 10, 3), dtype=np.uint8)
    halves[:, 5:] = 255
    Image.fromarray(halves).save(folder / "turned.png", exif=exif)
    done = prepare(asked(source, tmp_path / "set"))
    assert done.info.converted == {
        "16-bit gray": 1,
        "CMYK": 1,
        "palette": 1,
        "turned as its EXIF tag says": 1,
    }
    rows = {Path(line["file"]).name: int(line["row"]) for line in PreparedSet(done.root).manifest()}
    pixels = PreparedSet(done.root).pixels
    assert set(pixels[rows["16.png"]].flatten().tolist()) == {102}
    assert pixels[rows["cmyk.jpg"]][0].min() > 250
    assert pixels[rows["palette.png"]][:, 4, 4].tolist() == [1, 200, 3]
    assert pixels[rows["turned.png"]][:, 0].max() < pixels[rows["turned.png"]][:, -1].min()
    assert equal_to_undisturbed(source, done.root)


def test_names_of_any_kind_come_back_from_the_manifest(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", people=1)
    people = [
        b"Zo\xc3\xab \xe5\xbc\xa0",
        b"line\nend\r",
        b"\xff\xfe",
        b'quote",comma',
        b"\x1b[31mred",
        b"\xe2\x80\xae",
    ]
    people += [b"n" * 255, b"back\\u0041slash"]
    for number, person in enumerate(people):
        folder = os.path.join(os.fsencode(source), person)  # noqa: PTH118 - names as bytes
        os.mkdir(folder)  # noqa: PTH102
        place = os.path.join(folder, person[:200] + b".png")  # noqa: PTH118
        with open(place, "wb") as opened:  # noqa: PTH123
            Image.fromarray(noise(seed=500 + number)).save(opened, "PNG")
        with open(os.path.join(folder, b"\xff\n.png"), "wb"):  # noqa: PTH118, PTH123 - an empty file
            pass
    done = prepare(asked(source, tmp_path / "set"))
    assert done.info.skipped == {"is empty": len(people)}
    found = PreparedSet(done.root)
    for lines, key in ((found.manifest(), "file"), (found.skipped(), "file")):
        for line in lines:
            assert line[key].isprintable()
            assert (source / unspelled(line[key])).is_file()
    names = {os.fsencode(unspelled(line["identity"])) for line in found.manifest()}
    assert names == {b"p0", *people}
    for name in ("manifest.csv", "skipped.csv"):
        with (done.root / name).open(encoding="utf-8", newline="") as opened:
            assert all(len(row) == (7 if name == "manifest.csv" else 2) for row in csv.reader(opened))
    assert equal_to_undisturbed(source, done.root)


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos")
    (source / "p1" / "up").symlink_to(source)
    (source / "p2" / "itself.png").symlink_to(source / "p2" / "itself.png")
    (source / "again").symlink_to(source / "p0")
    done = prepare(asked(source, tmp_path / "set"))
    assert done.info.images == 12
    assert sum(done.info.skipped.values()) == 3
    assert equal_to_undisturbed(source, done.root)


def test_files_met_twice_and_people_with_one_image(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos")
    shutil.copy(source / "p0" / "0.png", source / "p0" / "7.png")
    shutil.copy(source / "p0" / "0.png", source / "p2" / "7.png")
    for image in range(2):
        (source / "p3" / f"{image}.png").unlink()
    found = prepare(asked(source, tmp_path / "set")).info
    assert (found.images, found.identities) == (10, 4)
    assert found.skipped == {SAME_PERSON: 1, SAME_BYTES: 1}
    some = prepare(asked(source, tmp_path / "some", min_images=2)).info
    assert (some.images, some.identities) == (9, 3)
    assert equal_to_undisturbed(source, tmp_path / "set")


def test_too_little_that_is_usable_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", people=2, images=2)
    for file in (source / "p1").iterdir():
        file.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"1 of 2 identities have usable images.* Left out: 2 is empty\. Mend"
    ):
        prepare(asked(source, tmp_path / "set"))
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    for number, file in enumerate(sorted((source / "p1").iterdir())):
        Image.fromarray(noise(seed=900 + number)).save(file)
    prepare(asked(source, tmp_path / "set"))  # the same request, and no --restart
    assert equal_to_undisturbed(source, tmp_path / "set")


def test_lists_that_are_missing_or_wrong(tmp_path: Path) -> None:
    source = tmp_path / "celeba"
    (source / "img_align_celeba").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(noise(seed=number, height=218, width=178)).save(
            source / "img_align_celeba" / f"00000{number}.jpg"
        )
    who = source / "identity_CelebA.txt"
    celeba = get_layout("celeba")

    def request(align: str = "none") -> Request:
        return asked(source, tmp_path / "set", celeba, align=align)

    with pytest.raises(DataError, match=r"there is no identity_CelebA\.txt"):
        prepare(request())
    who.write_text("".join(f"00000{number}.jpg {number % 3}\n" for number in range(4)))
    with pytest.raises(DataError, match="looks like list_eval_partition"):
        prepare(request())
    who.write_text("".join(f"00000{number}.jpg {number // 2 + 7}\n" for number in range(4)))
    with pytest.raises(DataError, match=r"there is no list_landmarks_align_celeba\.txt"):
        prepare(request("landmarks"))
    marks = "69 109 106 113 77 142 73 152 108 154"
    rows = "".join(f"00000{number}.jpg {marks}\n" for number in range(4))
    (source / "list_landmarks_align_celeba.txt").write_text("4\nx y\n" + rows)
    assert not (tmp_path / "set.part").exists()
    assert prepare(request("landmarks")).info.images == 4
    again = prepare(asked(source, tmp_path / "again", celeba, align="landmarks"))
    assert content(again.root) == content(tmp_path / "set")


@pytest.mark.parametrize("change", ["gone", "other", "touched"])
def test_a_file_that_changes_meanwhile_stops_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    source, target = photos(tmp_path / "photos"), tmp_path / "set"
    file = source / "p2" / "1.png"
    whole, state = file.read_bytes(), file.stat()
    real = Workshop.make

    def make(self: Workshop, planned: Planned) -> Made:
        if planned.item.file.parent.name == "p2" and file.exists() and file.read_bytes() == whole:
            match change:
                case "gone":
                    file.unlink()
                case "other":
                    Image.fromarray(noise(seed=77)).save(file)
                case "touched":
                    os.utime(file, ns=(0, 0))
        return real(self, planned)

    with monkeypatch.context() as patch:
        patch.setattr(Workshop, "make", make)
        with pytest.raises(DataError, match=r"p2/1\.png: has changed or gone since .* with --restart"):
            prepare(asked(source, target, jobs=1))
    progress = read_progress(tmp_path / "set.part")
    assert progress is not None
    assert progress.position.images == 6
    if change != "touched":
        with pytest.raises(DataError, match=r"begun from other files.* --restart"):
            prepare(asked(source, target))
    file.write_bytes(whole)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert prepare(asked(source, target)).read == 6
    assert equal_to_undisturbed(source, target)


def test_a_disk_that_gets_full_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing_work, "_SAVE_IMAGES", 2)
    source, real, left = photos(tmp_path / "photos"), PartFolder.append, [1200]

    def append(self: PartFolder, name: str, payload: bytes) -> None:
        if len(payload) > left[0]:
            real(self, name, payload[: left[0]])  # a disk takes what it can
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= len(payload)
        real(self, name, payload)

    with monkeypatch.context() as patch:
        patch.setattr(PartFolder, "append", append)
        text = r"the disk is full after 3 images; free some space and give the same command again"
        with pytest.raises(DataError, match=text):
            prepare(asked(source, tmp_path / "set"))
    assert prepare(asked(source, tmp_path / "set")).read == 9
    assert equal_to_undisturbed(source, tmp_path / "set")


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 256 kB; the test is skipped where none may be mounted."""
    place.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True, check=False
    )
    if not done or done.returncode:
        pytest.skip("mounting needs rights that this process does not have")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", people=10, images=5)
    with small_disk(tmp_path / "disk") as disk:
        request = asked(source, disk / "set", size=64)
        with pytest.raises(DataError, match="Free some, give another folder"):
            prepare(request)
        few, filler = asked(source, disk / "set"), disk / "filler"
        with filler.open("wb", buffering=0) as opened:
            with contextlib.suppress(OSError):
                while opened.write(bytes(4096)):
                    pass
            # five pages are left; the set of 50 images takes at least seven
            opened.truncate(filler.stat().st_size // 4096 * 4096 - 5 * 4096)
        with pytest.raises(DataError, match="the disk is full after"):
            prepare(few)
        filler.unlink()
        assert prepare(few).info.images == 50
        prepare(asked(source, tmp_path / "wanted"))
        assert content(disk / "set") == content(tmp_path / "wanted")


def command(source: Path, target: Path, script: str) -> list[str]:
    words = ["data", "prepare", "image_folder", "--from", str(source), "--to", str(target)]
    return [sys.executable, "-c", script, *words, "--size", "8", "--name", "toy", "--jobs", "2"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_a_limit_on_the_size_of_files_counts_as_a_full_disk(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", people=10, images=6)
    done = subprocess.run(
        command(source, tmp_path / "set", LIMITED),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 2
    assert "a file may not grow any further here after" in done.stderr
    assert done.stderr.strip().endswith("free some space and give the same command again.")
    progress = read_progress(tmp_path / "set.part")
    assert progress is not None
    assert 0 < progress.position.images < 60
    assert prepare(asked(source, tmp_path / "set")).read == 60 - progress.done
    assert equal_to_undisturbed(source, tmp_path / "set")


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_stopped_goes_on(tmp_path: Path, kill: signal.Signals) -> None:
    source, part = photos(tmp_path / "photos", people=12, images=4), tmp_path / "set.part"
    with subprocess.Popen(
        command(source, tmp_path / "set", SLOW),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # a shell in the background has its children pass over Ctrl-C
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads here
    ) as process:
        deadline = time.monotonic() + 60
        while (found := read_progress(part)) is None or found.position.images < 8:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        with pytest.raises(DataError, match="another process prepares it"):
            prepare(asked(source, tmp_path / "set"))
        process.send_signal(kill)
        _, errors = process.communicate(timeout=60)
    found = read_progress(part)
    assert found is not None
    assert 8 <= found.position.images < 48
    if kill is signal.SIGINT:
        assert process.returncode == 130
        assert errors.strip() == f"stopped after {found.position.images} images; the same command goes on"
    else:
        assert process.returncode == -kill
    notes: list[str] = []
    done = prepare(asked(source, tmp_path / "set"), on_note=notes.append)
    assert notes == [f"goes on after {found.position.images} images"]
    assert done.read == 48 - found.done
    assert equal_to_undisturbed(source, tmp_path / "set")


def test_a_target_that_cannot_be_written_is_no_traceback(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", people=2, images=1)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"set\.part cannot be written \(.*\) after 0 images\. Mend that"):
        prepare(asked(source, tmp_path / "file" / "set"))


def test_warnings_of_pillow_reach_nobody(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = photos(tmp_path / "photos", people=2, images=1)
    Image.fromarray(noise(seed=1)).save(source / "p0" / "9.png", exif=b"Exif\0\0no such header at all")
    assert prepare(asked(source, tmp_path / "set")).info.converted == {"EXIF tag not readable": 1}
    assert capfd.readouterr() == ("", "")
