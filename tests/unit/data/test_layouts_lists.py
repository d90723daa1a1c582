"""What the layouts do with list files that are wrong, and with lists and images that do not fit."""

from pathlib import Path

import pytest

from mibench.data.layouts import Found, get_layout
from mibench.data.layouts.lists import LONGEST
from mibench.errors import DataError

WHO = "000001.jpg 2880\n000002.jpg 2937\n000010.jpg 2880\n"
HEADER = " ".join(
    f"{point}_{axis}" for point in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
)
MARKS = f"3\n{HEADER}\n" + "".join(
    f"{name}  69  109  106  113   77  142   73  {152 + i}  108.5  154\n"
    for i, name in enumerate(("000001.jpg", "000002.jpg", "000010.jpg"))
)


def write(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")


def celeba(root: Path, who: str | None = WHO, folder: str = "img_align_celeba", suffix: str = ".jpg") -> None:
    if who is not None:
        write(root, "identity_CelebA.txt", who)
    for number in (1, 2, 10):
        write(root, f"{folder}/{number:06}{suffix}")


def find(root: Path, *, landmarks: bool = False, name: str = "celeba") -> Found:
    return get_layout(name).find(root, landmarks=landmarks)


def skips(result: Found) -> dict[str, str]:
    return {skip.name: skip.reason for skip in result.skips}


@pytest.mark.parametrize(
    ("who", "told"),
    [
        ("000001.jpg 2880\n000002.jpg\n", r"line 2: is not `000001\.jpg 2880`; it begins '000002\.jpg'"),
        ("000001.jpg 2880\n\n000002.jpg x1\n", r"line 3: is not .*'000002\.jpg x1'"),
        ("000001.jpg -1\n", "line 1: is not"),
        ("000001.jpg ²\n", "line 1: is not"),
        ("000001.jpg 2880\n000001.jpg 2937\n", "line 2: names this image a second time"),
        ("202599\n5_o_Clock_Shadow Bald\n", "line 1: a count: it looks like list_attr_celeba"),
        ("000001.jpg 0\n000002.jpg 2\n000010.jpg 0\n", "its 3 images .* looks like list_eval_partition"),
        ("", "is empty"),
        ("\x00\x1b[31m\n", r"line 1: is not .*'\\x00\\x1b\[31m'"),
        ("x" * (LONGEST + 1), f"line 1: has more than {LONGEST} characters"),
    ],
)
def test_a_wrong_identity_file_is_refused_with_line_and_start(tmp_path: Path, who: str, told: str) -> None:
    celeba(tmp_path, who)
    with pytest.raises(DataError, match=told) as raised:
        find(tmp_path)
    assert str(raised.value).isprintable()
    assert "identity_CelebA.txt" in str(raised.value)


def test_undecodable_bytes_in_a_list_are_a_wrong_line_and_no_crash(tmp_path: Path) -> None:
    celeba(tmp_path)
    (tmp_path / "identity_CelebA.txt").write_bytes(b"\xff\xd8\xff\xe0 JFIF\n")
    with pytest.raises(DataError, match="line 1: is not"):
        find(tmp_path)


def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    celeba(tmp_path)
    real = Path.open

    def closed(self: Path, *arguments: str, **options: str) -> object:
        if self.name == "identity_CelebA.txt":
            raise PermissionError(13, "Permission denied")
        return real(self, *arguments, **options)  # type: ignore[call-overload]  # passes on whatever came

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        find(tmp_path)


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    celeba(tmp_path)
    plain = find(tmp_path)
    (tmp_path / "identity_CelebA.txt").write_bytes(b"\xef\xbb\xbf" + WHO.replace("\n", "\r\n").encode())
    assert find(tmp_path) == plain


def test_images_and_list_that_differ_give_skips_both_ways(tmp_path: Path) -> None:
    celeba(tmp_path, WHO + "000099.jpg 17\n")
    write(tmp_path, "img_align_celeba/000003.jpg")
    write(tmp_path, "img_align_celeba/000001.png")
    result = find(tmp_path)
    assert [item.identity for item in result.items] == ["2880", "2880", "2937"]
    assert skips(result) == {
        "img_align_celeba/000003.jpg": "not named in identity_CelebA.txt",
        "img_align_celeba/000099.jpg": "named in identity_CelebA.txt but not there",
        "img_align_celeba/000001.png": "same name as another image but for its ending",
    }


def test_a_folder_of_images_that_leads_back_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "identity_CelebA.txt", WHO)
    (tmp_path / "img_align_celeba").symlink_to(tmp_path.parent)
    with pytest.raises(DataError, match="img_align_celeba/ is a link that leads back"):
        find(tmp_path)


def test_a_name_of_thousands_of_digits_in_a_list_does_no_harm(tmp_path: Path) -> None:
    celeba(tmp_path, f"{WHO}{'9' * 9999}.jpg 17\n")
    assert [skip.reason for skip in find(tmp_path).skips] == ["named in identity_CelebA.txt but not there"]


def test_no_image_named_is_an_error(tmp_path: Path) -> None:
    celeba(tmp_path, "a.jpg 2880\nb.jpg 2881\n")
    with pytest.raises(DataError, match="none of the images in img_align_celeba/ is named"):
        find(tmp_path)


def test_missing_files_are_named_with_their_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither img_align_celeba/ nor img_celeba/"):
        find(tmp_path)
    celeba(tmp_path, None)
    with pytest.raises(DataError, match=r"there is no identity_CelebA\.txt.*Get it from Anno/"):
        find(tmp_path)
    write(tmp_path, "identity_CelebA.txt", WHO)
    write(tmp_path, "list_landmarks_celeba.txt", MARKS)  # of the other variant
    with pytest.raises(DataError, match=r"no list_landmarks_align_celeba\.txt or .*\.csv.*Get it from Anno/"):
        find(tmp_path, landmarks=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MARKS.replace("3\n", "9\n", 1), "first line says 9 rows, but it has 3"),
        (MARKS.replace("3\n", "", 1), "line 1: is not the number of rows"),
        (MARKS.replace(HEADER + "\n", ""), "line 2: is not the names of the columns"),
        ("3\n", "line 2: is not the names of the columns"),
        ("", "line 1: is not the number of rows"),
        (MARKS.replace("108.5", "nan"), "line 3: is not an image and 10 numbers"),
        (MARKS.replace("108.5", ""), "line 3: is not an image and 10 numbers"),
        (MARKS.replace("000002", "000001"), "line 4: names this image a second time"),
    ],
)
def test_a_wrong_landmark_list_is_refused(tmp_path: Path, text: str, told: str) -> None:
    celeba(tmp_path)
    write(tmp_path, "Anno/list_landmarks_align_celeba.txt", text)
    with pytest.raises(DataError, match=told):
        find(tmp_path, landmarks=True)
    assert all(item.landmarks is None for item in find(tmp_path).items)  # not read where not asked for


def test_an_image_without_landmarks_is_a_skip(tmp_path: Path) -> None:
    celeba(tmp_path)
    lines = MARKS.splitlines(keepends=True)
    write(tmp_path, "list_landmarks_align_celeba.txt", "2\n" + "".join(lines[1:4]))
    result = find(tmp_path, landmarks=True)
    assert [item.name[-10:] for item in result.items] == ["000001.jpg", "000002.jpg"]
    assert skips(result) == {"img_align_celeba/000010.jpg": "not named in list_landmarks_align_celeba.txt"}


@pytest.mark.parametrize(
    ("name", "file", "text", "told"),
    [
        (
            "vggface2",
            "loose_landmark_train.csv",
            "n000002/0001_01,1,2\n",
            "line 1: is not NAME_ID and 10 columns",
        ),
        (
            "vggface2",
            "loose_bb_train.csv",
            'NAME_ID,X,Y,W,H\n"n000002/0001_01",1,2,3\n',
            "line 2: is not an image and 4 numbers",
        ),
        (
            "vggface2",
            "meta/loose_bb_train.csv",
            "NAME_ID,X,Y,W,H\n" + '"n000002/0001_01",1,2,3,4\n' * 2,
            "line 3: names this image a second time",
        ),
        ("vggface", "files/Ada.txt", "00000001 http://x 1 2 3 4 3 2\n", "line 1: is not id, address, box"),
        ("vggface", "files/Ada.txt", "00000001 http://x a 2 3 4 3 2 1\n", "line 1: is not id, address, box"),
        (
            "vggface",
            "files/Ada.txt",
            "1 http://x 1 2 3 4 3 2 1\n" * 2,
            "line 2: names this image a second time",
        ),
        (
            "facescrub",
            "facescrub_actors.txt",
            "Ada\t1\t1\thttp://x\t1,2,3\t00\n",
            "line 1: is not name, image id",
        ),
        ("facescrub", "actors/facescrub_actors.txt", "name\tx\nAda\t1\n", "line 2: is not name, image id"),
    ],
)
def test_wrong_lines_of_the_other_sets_are_refused(
    tmp_path: Path, name: str, file: str, text: str, told: str
) -> None:
    image = {"vggface2": "train/n000002/0001_01.jpg", "vggface": "images/Ada/00000001.jpg"}
    write(tmp_path, image.get(name, "actors/images/Ada/Ada_1.jpeg"))
    write(tmp_path, file, text)
    with pytest.raises(DataError, match=told):
        find(tmp_path, landmarks="landmark" in file, name=name)
