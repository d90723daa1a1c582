"""Each data set in each way that it lies on disk."""

import os
from pathlib import Path

import pytest

from mibench.data.layouts import ALIASES, LAYOUTS, Found, get_layout
from mibench.errors import DataError

WHO = "000001.jpg 2880\n000002.jpg 2937\n000010.jpg 2880\n"
MARKS = tuple((float(2 * i), float(2 * i + 1)) for i in range(5))
NUMBERS = tuple(str(i) for i in range(10))


def write(root: Path, *names: str, text: str = "") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def find(name: str, root: Path, *, landmarks: bool = False) -> Found:
    return get_layout(name).find(root, landmarks=landmarks)


def pairs(result: Found) -> list[tuple[str, str]]:
    return [(item.identity, item.name) for item in result.items]


def skips(result: Found) -> dict[str, str]:
    return {skip.name: skip.reason for skip in result.skips}


def test_layouts_are_sorted_by_their_own_names_and_aliases_lead_to_them() -> None:
    assert list(LAYOUTS) == sorted(LAYOUTS)
    assert all(layout.facts.name == name for name, layout in LAYOUTS.items())
    assert set(ALIASES.values()) <= set(LAYOUTS)
    assert not set(ALIASES) & set(LAYOUTS)


@pytest.mark.parametrize("word", ["ORL", "att-faces", "Att_Faces"])
def test_a_layout_is_found_by_any_spelling(word: str) -> None:
    assert get_layout(word).facts.name == "att_faces"


def test_an_unknown_name_gets_a_hint_and_the_list() -> None:
    with pytest.raises(
        DataError, match=r"'celebaa': unknown\. Did you mean 'celeba'\? The sets: att_faces, "
    ):
        get_layout("celebaa")
    with pytest.raises(DataError) as raised:
        get_layout("\x1b[31m\n")
    assert str(raised.value).isprintable()
    assert "Did you mean" not in str(raised.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_facts_say_all_that_a_user_must_know(name: str) -> None:
    facts = LAYOUTS[name].facts
    assert facts.title
    assert facts.get.endswith(".")
    assert facts.terms.endswith(".")
    assert facts.folder
    assert facts.crop_source
    assert facts.channels in (1, 3)
    assert not facts.may_publish
    if name != "image_folder":  # the user's own
        assert facts.home.startswith("http")
        assert facts.citation


@pytest.mark.parametrize("name", [name for name in LAYOUTS if not LAYOUTS[name].facts.has_landmarks])
def test_landmarks_of_a_set_without_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} in .*the set has no landmarks.*--align mtcnn"):
        find(name, tmp_path, landmarks=True)


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_empty_folder_is_refused_by_every_layout(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} in "):
        find(name, tmp_path)


@pytest.mark.parametrize(
    "folder",
    ["img_align_celeba", "Img/img_align_celeba", "img_align_celeba/img_align_celeba", "img_align_celeba_png"],
)
@pytest.mark.parametrize("lists", ["", "Anno/", "Identity/"])
@pytest.mark.parametrize("kind", [".txt", ".csv"])
def test_celeba_aligned(tmp_path: Path, folder: str, lists: str, kind: str) -> None:
    suffix = ".png" if folder.endswith("png") else ".jpg"
    write(tmp_path, *(f"{folder}/{number:06}{suffix}" for number in (1, 2, 10)))
    write(tmp_path, "img_celeba/000001.jpg")  # the aligned ones come first
    write(tmp_path, f"{lists}identity_CelebA.txt", text=WHO)
    rows = [f"{line.split()[0]} {' '.join(NUMBERS)}" for line in WHO.splitlines()]
    text = "\n".join(["3", " ".join(f"p{i}" for i in range(10)), *rows])
    if kind == ".csv":
        text = "\n".join(
            ["image_id," + ",".join(f"p{i}" for i in range(10)), *(r.replace(" ", ",") for r in rows)]
        )
    write(tmp_path, f"{lists}list_landmarks_align_celeba{kind}", text=text)
    result = find("celeba", tmp_path, landmarks=True)
    assert pairs(result) == [
        ("2880", f"{folder}/000001{suffix}"),
        ("2880", f"{folder}/000010{suffix}"),
        ("2937", f"{folder}/000002{suffix}"),
    ]
    assert all(item.landmarks == MARKS and item.box is None for item in result.items)
    assert result.crop is None
    assert get_layout("celeba").facts.crop == 108
    assert not result.skips


def test_celeba_in_the_wild_has_its_own_lists_and_boxes_and_no_crop(tmp_path: Path) -> None:
    write(tmp_path, *(f"Img/img_celeba/{number:06}.jpg" for number in (1, 2, 10)))
    write(tmp_path, "Anno/identity_CelebA.txt", text=WHO)
    assert [item.box for item in find("celeba", tmp_path).items] == [None] * 3
    write(
        tmp_path,
        "Anno/list_bbox_celeba.txt",
        text="3\nimage_id x_1 y_1 width height\n"
        "000001.jpg 95 71 226 313\n000002.jpg 1 2 0 4\n000010.jpg 0 0 5 6\n",
    )
    write(
        tmp_path,
        "list_landmarks_celeba.txt",
        text=f"1\n{' '.join('p' * 10)}\n000001.jpg {' '.join(NUMBERS)}\n",
    )
    plain, marked = find("celeba", tmp_path), find("celeba", tmp_path, landmarks=True)
    assert [item.box for item in plain.items] == [(95.0, 71.0, 321.0, 384.0), (0.0, 0.0, 5.0, 6.0)]
    assert skips(plain) == {"Img/img_celeba/000002.jpg": "empty box in list_bbox_celeba.txt"}
    assert [item.landmarks for item in marked.items] == [MARKS]
    assert plain.crop == marked.crop == 0


@pytest.mark.parametrize("base", ["images/", ""])
def test_vggface_with_and_without_lists(tmp_path: Path, base: str) -> None:
    write(tmp_path, f"{base}Ada/00000001.jpg", f"{base}Ada/00000002.jpg", f"{base}Ada/00000004.jpg")
    write(tmp_path, f"{base}Bo/00000001.jpg", f"{base}Cy/notes.txt", "licence.txt")
    result = find("vggface", tmp_path)
    assert pairs(result) == [
        ("Ada", f"{base}Ada/00000001.jpg"),
        ("Ada", f"{base}Ada/00000002.jpg"),
        ("Ada", f"{base}Ada/00000004.jpg"),
        ("Bo", f"{base}Bo/00000001.jpg"),
    ]
    assert skips(result) == {f"{base}Cy": "folder without images"}
    write(
        tmp_path,
        "files/Ada.txt",
        text="00000001 http://x/a b.jpg 119.19 99.49 295.47 275.78 3.00 2.31 1\n"
        "00000002 http://x 5 5 5 9 3.00 -2.31 0\n00000003 http://x 1 2 3 4 3.00 2.31 0\n",
    )
    boxed = find("vggface", tmp_path)
    assert [(item.name, item.box) for item in boxed.items] == [
        (f"{base}Ada/00000001.jpg", (119.19, 99.49, 295.47, 275.78))
    ]
    assert skips(boxed) == {
        f"{base}Cy": "folder without images",
        f"{base}Bo": "person without a list in files/",
        f"{base}Ada/00000002.jpg": "empty box in files/",
        f"{base}Ada/00000003.jpg": "named in files/ but not there",
        f"{base}Ada/00000004.jpg": "not named in files/",
    }


@pytest.mark.parametrize("lists", ["", "bb_landmark/", "meta/"])
def test_vggface2(tmp_path: Path, lists: str) -> None:
    write(tmp_path, "train/n000002/0001_01.jpg", "train/n000002/0002_01.jpg", "train/readme/1.jpg")
    write(tmp_path, "test/n000001/0001_01.jpg")
    result = find("vggface2", tmp_path)
    assert pairs(result) == [
        ("n000001", "test/n000001/0001_01.jpg"),
        ("n000002", "train/n000002/0001_01.jpg"),
        ("n000002", "train/n000002/0002_01.jpg"),
    ]
    assert skips(result) == {"train/readme": "folder not named like n000002"}
    header = "NAME_ID," + ",".join(f"P{i}{axis}" for i in range(1, 6) for axis in "XY")
    row = ",".join(NUMBERS)
    write(
        tmp_path,
        f"{lists}loose_landmark_train.csv",
        text=f'{header}\n"n000002/0001_01",{row}\n"n000003/0001_01",{row}\n',
    )
    with pytest.raises(DataError, match=r"there is no loose_landmark_test\.csv\. Put it beside test/"):
        find("vggface2", tmp_path, landmarks=True)
    write(tmp_path, f"{lists}loose_landmark_test.csv", text=f'{header}\n"n000001/0001_01",{row}\n')
    write(tmp_path, f"{lists}loose_bb_train.csv", text='NAME_ID,X,Y,W,H\n"n000002/0001_01",-1,2,30,40\n')
    marked = find("vggface2", tmp_path, landmarks=True)
    assert [(item.name, item.landmarks, item.box) for item in marked.items] == [
        ("test/n000001/0001_01.jpg", MARKS, None),
        ("train/n000002/0001_01.jpg", MARKS, (-1.0, 2.0, 29.0, 42.0)),
    ]
    assert skips(marked) == {
        "train/readme": "folder not named like n000002",
        "train/n000002/0002_01.jpg": "not named in loose_landmark_train.csv",
        "train/n000003/0001_01.jpg": "named in loose_landmark_train.csv but not there",
    }


@pytest.mark.parametrize("lists", ["", "actors/"])
def test_facescrub_whole_photos_get_the_boxes_of_the_lists(tmp_path: Path, lists: str) -> None:
    write(tmp_path, "actors/images/Ada_X/Ada_X_7.jpeg", "actors/images/Ada_X/Ada_X_8.png")
    write(tmp_path, "actresses/images/Bo/Bo_1.jpeg")
    plain = find("facescrub", tmp_path)
    assert [item.box for item in plain.items] == [None] * 3
    head = "name\timage_id\tface_id\turl\tbbox\tsha256\n"
    rows = ("Ada X\t7\t1\thttp://x\t1,2,30,40\tab\n", "Ada X\t7\t2\thttp://x\t5,5,6,6\tab\n",
            "Ada X\t9\t3\thttp://x\t1,2,30,40\tab\n")  # fmt: skip
    write(tmp_path, f"{lists}facescrub_actors.txt", text=head + "".join(rows))
    boxed = find("facescrub", tmp_path)
    assert [(item.identity, item.box) for item in boxed.items] == [
        ("Ada_X", (1.0, 2.0, 30.0, 40.0)),
        ("Bo", None),
    ]
    assert skips(boxed) == {
        "actors/images/Ada_X/Ada_X_8.png": "not named in facescrub_actors.txt",
        "actors/images/Ada_X/Ada_X_9.jpeg": "named in facescrub_actors.txt but not there",
    }
    write(tmp_path, "actors/faces/Ada_X/Ada_X_7_1.jpeg")  # cut out already: no box
    cut = find("facescrub", tmp_path)
    assert [(item.name, item.box) for item in cut.items] == [
        ("actors/faces/Ada_X/Ada_X_7_1.jpeg", None),
        ("actresses/images/Bo/Bo_1.jpeg", None),
    ]


def test_facescrub_photos_without_groups_take_both_lists(tmp_path: Path) -> None:
    write(tmp_path, "images/Ada/Ada_1.jpeg", "images/Bo/Bo_2.jpeg")
    write(tmp_path, "facescrub_actors.txt", text="Bo\t2\t1\thttp://x\t1,2,3,4\tab\n")
    write(tmp_path, "facescrub_actresses.txt", text="Ada\t1\t1\thttp://x\t5,6,7,8\tab\n")
    result = find("facescrub", tmp_path)
    assert [item.box for item in result.items] == [(5.0, 6.0, 7.0, 8.0), (1.0, 2.0, 3.0, 4.0)]
    assert not result.skips


@pytest.mark.parametrize("base", ["", "actors/"])
def test_facescrub_in_person_folders_with_or_without_a_folder_of_faces(tmp_path: Path, base: str) -> None:
    write(tmp_path, f"{base}Ada/face/1.jpg", f"{base}Ada/2.jpg", f"{base}Ada/logs/x.txt", f"{base}Bo/3.jpg")
    result = find("facescrub", tmp_path)
    assert pairs(result) == [("Ada", f"{base}Ada/face/1.jpg"), ("Bo", f"{base}Bo/3.jpg")]
    assert skips(result) == {
        f"{base}Ada/2.jpg": "whole photo beside its face",
        f"{base}Ada/logs": "folder inside a person's folder",
    }


@pytest.mark.parametrize(("variant", "crop"), [("thumbnails128x128", 88), ("images1024x1024", 704)])
@pytest.mark.parametrize("base", ["00000/", ""])
def test_ffhq_keeps_the_same_part_of_either_size(tmp_path: Path, variant: str, crop: int, base: str) -> None:
    write(tmp_path, f"{variant}/{base}00002.png", f"{variant}/{base}00010.png", f"{variant}/LICENSE.txt")
    result = find("ffhq", tmp_path)
    assert pairs(result) == [("00002", f"{variant}/{base}00002.png"), ("00010", f"{variant}/{base}00010.png")]
    assert result.crop == crop
    inside = find("ffhq", tmp_path / variant)
    assert pairs(inside) == [("00002", f"{base}00002.png"), ("00010", f"{base}00010.png")]
    assert inside.crop == crop


def test_ffhq_images_of_one_name_stay_two_identities(tmp_path: Path) -> None:
    write(tmp_path, "images1024x1024/a/1.png", "images1024x1024/b/1.png", "images1024x1024/b/c/1.png")
    result = find("ffhq", tmp_path)
    assert pairs(result) == [("1", "images1024x1024/a/1.png"), ("images1024x1024/b/1.png",) * 2]
    assert skips(result) == {"images1024x1024/b/c": "folder inside a person's folder"}
    assert not get_layout("ffhq").facts.has_identities


@pytest.mark.parametrize(
    ("name", "places"),
    [("ffhq", ("thumbnails128x128", "images1024x1024")), ("lfw", ("lfw", "lfw_funneled"))],
)
def test_two_variants_at_once_are_not_guessed(tmp_path: Path, name: str, places: tuple[str, str]) -> None:
    write(tmp_path, *(f"{place}/Ada/Ada_0001.jpg" for place in places))
    with pytest.raises(DataError, match=f"holds {places[0]} and {places[1]}.*--from .../{places[0]}"):
        find(name, tmp_path)
    assert len(find(name, tmp_path / places[1]).items) == 1


@pytest.mark.parametrize(
    "base", ["lfw/", "lfw_funneled/", "lfw-deepfunneled/", "lfw-deepfunneled/lfw-deepfunneled/", ""]
)
def test_lfw(tmp_path: Path, base: str) -> None:
    write(tmp_path, f"{base}Ada_B/Ada_B_0001.jpg", f"{base}Ada_B/Ada_B_0002.jpg", f"{base}Ada_B/copy.jpg")
    write(tmp_path, f"{base}Bo/Bo_0001.jpg", f"{base}Bo/Bob_0001.jpg", f"{base}Bo/Bo_00010.jpg")
    write(tmp_path, f"{base}pairs_01.txt")
    result = find("lfw", tmp_path)
    assert pairs(result) == [
        ("Ada_B", f"{base}Ada_B/Ada_B_0001.jpg"),
        ("Ada_B", f"{base}Ada_B/Ada_B_0002.jpg"),
        ("Bo", f"{base}Bo/Bo_0001.jpg"),
    ]
    assert set(skips(result).values()) == {"not named after its folder"}
    assert len(result.skips) == 3


PGM = "P5\n# made by hand\n92 112\n255\n"


@pytest.mark.parametrize("base", ["", "images/"])
def test_att_faces(tmp_path: Path, base: str) -> None:
    write(
        tmp_path, *(f"{base}s{person}/{image}.pgm" for person in (1, 2, 10) for image in (1, 2, 10)), text=PGM
    )
    write(tmp_path, f"{base}README", f"{base}s1/3.png")
    result = find("att_faces", tmp_path)
    assert pairs(result) == [
        (f"s{person}", f"{base}s{person}/{image}.pgm") for person in (1, 2, 10) for image in (1, 2, 10)
    ]
    assert skips(result) == {f"{base}README": "no image by its name", f"{base}s1/3.png": "no PGM image"}
    assert get_layout("att_faces").facts.channels == 1


@pytest.mark.parametrize(
    ("names", "text", "told"),
    [
        (["s1/1.pgm"], "P5 64 64 255\n", r"'s1/1\.pgm' has 64x64 pixels, but those of this set 92x112"),
        ([f"s1/{i}.pgm" for i in range(11)], PGM, "'s1' holds 11 images, but a person has 10"),
        ([f"s{i}/1.pgm" for i in range(41)], PGM, "more than 40 folders of PGM images"),
        (["s1/1.png"], "", "no images found"),
    ],
)
def test_what_is_clearly_not_att_faces_is_refused(
    tmp_path: Path, names: list[str], text: str, told: str
) -> None:
    write(tmp_path, *names, text=text)
    with pytest.raises(DataError, match=told):
        find("att_faces", tmp_path)


@pytest.mark.parametrize("text", ["", "P5", "P5 x 112 255\n", "P6 1 1 255\n"])
def test_a_broken_pgm_is_left_to_the_decoder(tmp_path: Path, text: str) -> None:
    write(tmp_path, "s1/1.pgm", text=text)
    assert len(find("att_faces", tmp_path).items) == 1


def test_image_folder_enters_a_single_folder_around_the_people(tmp_path: Path) -> None:
    write(tmp_path, "all/ada/1.png", "all/bo/1.webp", "all/bo/more/2.png", "README.md")
    result = find("image_folder", tmp_path)
    assert pairs(result) == [("ada", "all/ada/1.png"), ("bo", "all/bo/1.webp")]
    assert skips(result) == {"all/bo/more": "folder inside a person's folder"}
    assert pairs(find("folder", tmp_path / "all")) == [("ada", "ada/1.png"), ("bo", "bo/1.webp")]


def test_image_folder_of_one_person_is_that_person(tmp_path: Path) -> None:
    write(tmp_path, "ada/1.png", "ada/2.png")
    assert pairs(find("image_folder", tmp_path)) == [("ada", "ada/1.png"), ("ada", "ada/2.png")]


def test_image_folder_whose_only_folder_leads_back_has_no_images(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to(tmp_path)
    with pytest.raises(DataError, match=r"\(1 left out: link that leads back, such as 'round'\)"):
        find("image_folder", tmp_path)


def test_image_folder_does_not_guess_groups(tmp_path: Path) -> None:
    write(tmp_path, "men/bo/1.png", "women/ada/1.png")
    with pytest.raises(
        DataError, match="a folder deeper, as in 'men/bo', and who is in there is not guessed"
    ):
        find("image_folder", tmp_path)
    write(tmp_path, "all/men/bo/1.png")
    with pytest.raises(DataError, match="a folder deeper"):
        find("image_folder", tmp_path)


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_layout_reads_more_of_a_file_than_its_head(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of sets are found by name alone: a pipe that nobody writes to does not stop the walk."""
    places = {
        "att_faces": "s1", "celeba": "img_align_celeba", "facescrub": "actors/faces/Ada",
        "ffhq": "thumbnails128x128", "image_folder": "ada", "lfw": "lfw/Ada",
        "vggface": "images/Ada", "vggface2": "train/n000002",
    }  # fmt: skip
    write(tmp_path, f"{places[name]}/Ada_0001.pgm", "other/x.txt")
    write(tmp_path, "identity_CelebA.txt", text="Ada_0001.jpg 17\n")
    os.mkfifo(tmp_path / places[name] / "Ada_0002.pgm")
    result = find(name, tmp_path)
    assert len(result.items) == 1
    assert skips(result)[f"{places[name]}/Ada_0002.pgm"] == "not a file"
