"""What a prepared set holds: rows, order, choices, reasons."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from mibench.data.fitting import around, middle_square, padded
from mibench.data.layouts.layout import Item
from mibench.data.prepared import IMAGES, INFO, MANIFEST, PreparedSet
from mibench.data.preparing import prepare
from mibench.data.preparing_state import PartFolder
from mibench.data.preparing_work import ENOUGH_IMAGES, ENOUGH_PEOPLE, SAME_BYTES, SAME_PERSON, TOO_FEW
from mibench.data.verifying import verify_set
from mibench.errors import DataError

from .photos import Listed, asked, content, noise, photos


def people_of(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in PreparedSet(root).manifest():
        found.setdefault(line["identity"], []).append(Path(line["file"]).name)
    return found


def reasons_of(root: Path) -> dict[str, str]:
    return {line["file"]: line["reason"] for line in PreparedSet(root).skipped()}


def test_rows_are_the_squares_of_the_files_in_order(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos")
    done = prepare(asked(source, tmp_path / "set"))
    found = PreparedSet(done.root)
    lines = list(found.manifest())
    assert [line["file"] for line in lines] == [f"p{p}/{i}.png" for p in range(4) for i in range(3)]
    for line, pixels in zip(lines, found.pixels):
        file = source / line["file"]
        with Image.open(file) as opened:
            square = ImageOps.fit(opened, (8, 8), method=Image.Resampling.BICUBIC)
        assert np.array_equal(pixels, np.asarray(square).transpose(2, 0, 1))
        assert line["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert (line["width"], line["height"], line["mode"]) == ("16", "12", "RGB")
    assert (done.info.images, done.info.identities, done.read, done.is_new) == (12, 4, 12, True)
    assert set(content(done.root)) == {IMAGES, INFO, MANIFEST, "skipped.csv"}
    assert all(finding.status == "ok" for finding in verify_set(done.root))
    assert not (tmp_path / "set.part").exists()


def test_the_array_is_what_numpy_would_save(tmp_path: Path) -> None:
    done = prepare(asked(photos(tmp_path / "photos"), tmp_path / "set"))
    np.save(tmp_path / "again.npy", np.load(done.root / IMAGES))
    assert (tmp_path / "again.npy").read_bytes() == (done.root / IMAGES).read_bytes()


def test_the_header_has_room_for_any_number_of_images(tmp_path: Path) -> None:
    folder = PartFolder(tmp_path, (3, 64, 64))
    assert len({len(folder._header(images)) for images in (0, 9, 10**9, 10**15)}) == 1
    folder.close()


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", people=5, images=5)
    for jobs in (1, 2, 7):
        prepare(asked(source, tmp_path / str(jobs), jobs=jobs))
    assert content(tmp_path / "1") == content(tmp_path / "2") == content(tmp_path / "7")


def test_set_json_says_how_it_was_made(tmp_path: Path) -> None:
    request = asked(
        photos(tmp_path / "photos"), tmp_path / "set", channels=1, licence="my own", may_publish=True
    )
    info = prepare(request).info
    assert (info.layout, info.channels, info.size, info.terms) == ("image_folder", 1, 8, "my own")
    assert info.may_publish
    assert info.has_identities
    assert info.made_with.keys() == {"mibench", "numpy", "pillow"}
    assert info.options["from"] == str(tmp_path / "photos")
    assert info.options["found_images"] == 12
    assert info.digest == PreparedSet(tmp_path / "set").info.digest
    assert PreparedSet(tmp_path / "set").pixels.shape == (12, 1, 8, 8)


def test_a_second_call_does_nothing(tmp_path: Path) -> None:
    request = asked(photos(tmp_path / "photos"), tmp_path / "set")
    prepare(request)
    before = content(tmp_path / "set")
    again = prepare(request)
    assert not again.is_new
    assert content(tmp_path / "set") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "set"]


@pytest.mark.parametrize("change", ["size", "file"])
def test_a_set_of_other_options_or_files_is_kept_unless_restarted(tmp_path: Path, change: str) -> None:
    source = photos(tmp_path / "photos")
    prepare(asked(source, tmp_path / "set"))
    (tmp_path / "set" / "splits").mkdir()
    (tmp_path / "set" / "splits" / "mine.json").write_text("{}")
    before = (tmp_path / "set" / IMAGES).read_bytes()
    options: dict[str, Any] = {"size": 16} if change == "size" else {}
    if change == "file":
        Image.fromarray(noise(seed=999)).save(source / "p1" / "9.png")
    match = {
        "size": "was made with other options: size 8 then and 16 now",
        "file": "was made from other files: 12 images then and 13 now",
    }
    with pytest.raises(DataError, match=match[change]):
        prepare(asked(source, tmp_path / "set", **options))
    assert (tmp_path / "set" / IMAGES).read_bytes() == before
    prepare(asked(source, tmp_path / "set", restart=True, **options))
    prepare(asked(source, tmp_path / "other", **options))
    assert (tmp_path / "set" / "splits" / "mine.json").read_text() == "{}"
    shutil.rmtree(tmp_path / "set" / "splits")
    assert content(tmp_path / "set") == content(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "photos", "set"]


def test_a_folder_of_something_else_is_never_touched(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(DataError, match=r"something else lies there\. Give another folder by --to"):
            prepare(asked(source, tmp_path / "set", restart=restart))
    assert content(tmp_path / "set") == {"thesis.txt": b"years of work"}
    (tmp_path / "next.part").mkdir()
    (tmp_path / "next.part" / "thesis.txt").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(DataError, match=r"holds 'thesis\.txt', which is none of its files"):
            prepare(asked(source, tmp_path / "next", restart=restart))
    assert (tmp_path / "next.part" / "thesis.txt").exists()


def test_an_empty_target_is_taken_and_one_inside_the_source_is_not(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos")
    (tmp_path / "set").mkdir()
    assert prepare(asked(source, tmp_path / "set")).info.images == 12
    with pytest.raises(DataError, match="lies inside the source"):
        prepare(asked(source, source / "set"))


def test_people_with_most_images_are_kept_and_the_next_one_steps_in(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", people=5, images=2)
    for person, image in ((3, 2), (3, 3), (1, 2), (1, 3)):
        Image.fromarray(noise(seed=1000 * person + image)).save(source / f"p{person}" / f"{image}.png")
    for image in range(3):  # of p1 a single one is left
        (source / "p1" / f"{image}.png").write_bytes(b"broken")
    prepare(asked(source, tmp_path / "set", identities=2, min_images=2))
    assert people_of(tmp_path / "set") == {
        "p3": ["0.png", "1.png", "2.png", "3.png"],
        "p0": ["0.png", "1.png"],
    }
    left_out = reasons_of(tmp_path / "set")
    assert left_out["p1/3.png"] == TOO_FEW
    assert left_out["p1/0.png"] == "is no image of a known format"
    assert left_out["p2/0.png"] == left_out["p4/1.png"] == ENOUGH_PEOPLE
    assert len(left_out) + 6 == 14  # every file is in one of the two lists


def test_images_are_capped_after_unusable_ones(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", people=2, images=5)
    (source / "p0" / "1.png").write_bytes(b"broken")
    (source / "p0" / "2.png").write_bytes((source / "p0" / "0.png").read_bytes())
    prepare(asked(source, tmp_path / "set", max_images=3, min_images=3))
    assert people_of(tmp_path / "set") == {
        "p0": ["0.png", "3.png", "4.png"],
        "p1": ["0.png", "1.png", "2.png"],
    }
    assert reasons_of(tmp_path / "set") == {
        "p0/1.png": "is no image of a known format",
        "p0/2.png": SAME_PERSON,
        "p1/3.png": ENOUGH_IMAGES,
        "p1/4.png": ENOUGH_IMAGES,
    }


def test_a_file_of_a_dropped_person_is_no_repetition(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", people=3, images=3)
    (source / "p0" / "1.png").unlink()
    (source / "p0" / "2.png").unlink()
    (source / "p1" / "2.png").write_bytes((source / "p0" / "0.png").read_bytes())
    (source / "p2" / "2.png").write_bytes((source / "p1" / "0.png").read_bytes())
    prepare(asked(source, tmp_path / "set", min_images=2))
    assert people_of(tmp_path / "set") == {"p1": ["0.png", "1.png", "2.png"], "p2": ["0.png", "1.png"]}
    assert reasons_of(tmp_path / "set") == {"p0/0.png": TOO_FEW, "p2/2.png": SAME_BYTES}


def test_a_set_without_people_has_one_image_a_name_and_no_choice_of_people(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", people=1, images=4)
    items = [Item(file=file, name=file.name, identity=file.name) for file in sorted(source.rglob("*.png"))]
    layout = Listed(*items, has_identities=False)
    done = prepare(asked(source, tmp_path / "set", layout))
    assert (done.info.images, done.info.identities, done.info.has_identities) == (4, 4, False)
    for option in ({"identities": 2}, {"min_images": 2}, {"max_images": 2}):
        with pytest.raises(DataError, match="does not say who is on its images"):
            asked(source, tmp_path / "other", layout, **option)


def test_crops_pads_and_boxes(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[6:14, 11:19] = 255  # the middle 8
    pixels[0:4, 0:4] = 100
    image = Image.fromarray(pixels)
    assert np.asarray(middle_square(image, size=8, crop=8)).min() == 255
    assert middle_square(image, size=8, crop=99).tobytes() == middle_square(image, size=8, crop=20).tobytes()
    whole = np.asarray(padded(image, size=30))
    assert np.array_equal(whole[5:25], pixels)
    assert whole[:5].max() == whole[25:].max() == 0
    assert padded(Image.new("L", (1, 1000), 9), size=8).size == (8, 8)
    assert around(image, (11, 6, 19, 12)) == (11, 5, 19, 13)
    assert around(image, (-4, -4, 4, 4)) == (0, 0, 8, 8)
    assert around(image, (0, 0, 30, 90)) == (5, 0, 25, 20)
    file = tmp_path / "photos" / "a.png"
    file.parent.mkdir()
    image.save(file)
    Image.fromarray(255 - pixels).save(tmp_path / "photos" / "b.png")
    boxes = ((0.0, 0.0, 4.0, 4.0), (50.0, 50.0, 60.0, 60.0), (float("nan"), 0.0, 1.0, 1.0))
    items = [Item(file=file, name=f"{i}", identity=f"{i}", box=box) for i, box in enumerate(boxes)]
    items.append(Item(file=tmp_path / "photos" / "b.png", name="b", identity="b"))
    prepare(asked(file.parent, tmp_path / "set", Listed(*items, crop=8)))
    found = PreparedSet(tmp_path / "set")
    face = image.resize((8, 8), Image.Resampling.BICUBIC, box=(0, 0, 4, 4))
    assert np.array_equal(found.pixels[0], np.asarray(face).transpose(2, 0, 1))
    assert found.pixels[1].max() == 0
    assert found.info.options["crop"] == 8
    assert found.info.skipped == {"has a face box that is not in the image": 2}
    prepare(asked(file.parent, tmp_path / "fixed", Listed(*items[:1], items[3]), crop=8))
    assert PreparedSet(tmp_path / "fixed").pixels[0].min() == 255


def test_points_bring_faces_into_position(tmp_path: Path) -> None:
    from mibench.data.align import aligned, template

    file = tmp_path / "photos" / "a.png"
    file.parent.mkdir()
    Image.fromarray(noise(seed=1, height=40, width=40)).save(file)
    Image.fromarray(noise(seed=2, height=40, width=40)).save(file.with_name("b.png"))
    points = tuple((float(x) + 3, float(y) + 5) for x, y in template(20))
    items = [
        Item(file=file, name="a", identity="a", landmarks=points),
        Item(file=file.with_name("b.png"), name="b", identity="b", landmarks=points),
        Item(file=file, name="c", identity="c"),
        Item(file=file, name="d", identity="d", landmarks=((1.0, 1.0),) * 5),
    ]
    done = prepare(asked(file.parent, tmp_path / "set", Listed(*items), align="landmarks", size=20))
    with Image.open(file) as opened:
        wanted = np.asarray(aligned(opened, points, size=20)).transpose(2, 0, 1)
    assert np.array_equal(PreparedSet(done.root).pixels[0], wanted)
    assert done.info.skipped == {"landmarks that make no face": 1, "no landmarks": 1}
    assert "scipy" in done.info.made_with


def test_faces_are_looked_for_near_the_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mibench.data import align

    seen: list[tuple[tuple[int, int], str]] = []

    class Finder:
        def __init__(self, device: object) -> None:
            del device

        def find(self, image: Image.Image) -> Any:
            seen.append((image.size, image.mode))
            return None if image.width == 40 else tuple((x - 5, y - 5) for x, y in points)

    monkeypatch.setattr(align, "FaceFinder", Finder)
    file = tmp_path / "photos" / "a.png"
    file.parent.mkdir()
    Image.fromarray(noise(seed=1, height=40, width=40)).convert("L").save(file)
    Image.fromarray(noise(seed=2, height=40, width=40)).convert("L").save(file.with_name("b.png"))
    points = tuple((float(x) + 10, float(y) + 10) for x, y in align.template(20))
    items = [
        Item(file=file, name="a", identity="a", box=(10.0, 10.0, 20.0, 20.0)),
        Item(file=file, name="whole", identity="whole"),
        Item(file=file.with_name("b.png"), name="b", identity="b", box=(10.0, 10.0, 20.0, 20.0)),
    ]
    request = asked(file.parent, tmp_path / "set", Listed(*items), align="mtcnn", size=20, channels=1, jobs=1)
    done = prepare(request)
    with Image.open(file) as opened:
        wanted = np.asarray(align.aligned(opened, points, size=20))
    assert np.array_equal(PreparedSet(done.root).pixels[0, 0], wanted)
    assert seen == [((20, 20), "RGB"), ((40, 40), "RGB"), ((20, 20), "RGB")]
    assert done.info.skipped == {"no face found": 1}
    assert {"facenet-pytorch", "torch"} <= done.info.made_with.keys()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": "../up"}, "--name ../up. Take letters"),
        ({"name": "a\nb"}, r"--name a\\u000ab"),
        ({"size": 4}, "--size 4. Take 8 or more"),
        ({"channels": 2}, "--channels 2. Take 1 or 3"),
        ({"identities": 1}, "--identities 1. Take 2 or more"),
        ({"min_images": 3, "max_images": 2}, "--max-images 2. Take 3 or more"),
        ({"max_file_mb": 0}, "--max-file-mb 0"),
        ({"crop": 9, "fit": "pad"}, "--crop 9. It contradicts --fit pad"),
        ({"crop": 9, "align": "mtcnn"}, "--crop 9. It contradicts --align mtcnn"),
        ({"fit": "pad", "align": "mtcnn"}, "--fit pad. It contradicts --align mtcnn"),
        ({"may_publish": True}, "Say by --licence under which terms"),
    ],
)
def test_requests_that_make_no_sense(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        asked(tmp_path, tmp_path / "set", **changes)


def test_the_command_that_goes_on_is_complete(tmp_path: Path) -> None:
    request = asked(tmp_path / "my photos", tmp_path / "set", crop=9, licence="a b", may_publish=True)
    assert request.command() == (
        f"mibench data prepare image_folder --from '{tmp_path}/my photos' --to {tmp_path}/set --size 8 "
        "--crop 9 --licence 'a b' --name toy --may-publish"
    )
