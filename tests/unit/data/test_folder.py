from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mibench.data.folder import FolderData, content_digest, people_of
from mibench.errors import DataError

PEOPLE, IMAGES = 6, 3


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    root = tmp_path / "faces"
    for person in range(PEOPLE):
        folder = root / f"person-{person}"
        folder.mkdir(parents=True)
        for image in range(IMAGES):
            pixels = np.full((20, 30, 3), 40 * person + image, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{image}.png")
        (folder / "notes.txt").write_text("no image", encoding="utf-8")
    return root


def source(path: Path, **changes: int) -> FolderData:
    fields = {"size": 8, "private": 2, "public": 2, "defender": 2, **changes}
    return FolderData(path=str(path), **fields)


def test_parts_have_all_images_of_different_people(faces: Path) -> None:
    data = source(faces)
    names = [name for people in data.identities().values() for name in people]
    assert sorted(names) == sorted(people_of(faces))
    train, test = data.load("private")
    assert test is not None
    assert (len(train), len(test)) == (2 * 2, 2)
    assert train.images.shape == (4, 3, 8, 8)
    assert train.images.dtype == torch.float32
    public, none = data.load("public")
    assert none is None
    assert len(public) == 2 * IMAGES
    shades = [set(part.images[:, 0, 0, 0].mul(255).round().int().tolist()) for part in (train, test, public)]
    assert not shades[0] & shades[1]
    assert not (shades[0] | shades[1]) & shades[2]


def test_labels_follow_the_names(faces: Path) -> None:
    data = source(faces)
    train, _ = data.load("private")
    for image, label in zip(train.images, train.labels.tolist()):
        person = int(data.identities()["private"][label].removeprefix("person-"))
        assert int(image.mean() * 255) // 40 == person


def test_gray_images_have_one_channel(faces: Path) -> None:
    train, _ = source(faces, channels=1).load("private")
    assert train.shape == (1, 8, 8)


def test_middle_is_kept_and_exif_is_obeyed(faces: Path) -> None:
    folder = faces / "person-0"
    pixels = np.zeros((16, 32), dtype=np.uint8)
    pixels[:, 16:] = 255  # right half of a wide image is white; turned by 90 degrees it is the lower half
    exif = Image.Exif()
    exif[0x0112] = 6
    for image in range(IMAGES):
        Image.fromarray(pixels).save(folder / f"{image}.png", exif=exif)
    data = source(faces, private=2, public=2, defender=2, size=16)
    found = [data.load(part)[0] for part in ("private", "public", "defender")]
    turned = next(x for part in found for x in part.images if (x == 1).any() and (x == 0).any())
    assert float(turned[:, :6].max()) == 0
    assert float(turned[:, -6:].min()) == 1


def test_seed_draws_other_people(faces: Path) -> None:
    draws = {source(faces, seed=seed).identities()["private"] for seed in range(8)}
    assert len(draws) > 1
    assert source(faces).identities() == source(faces).identities()


def test_digest_is_of_content_and_not_of_place(faces: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    before = content_digest(faces)
    faces.rename(moved)
    assert content_digest(moved) == before
    params = source(moved).part_params("private")
    assert params["digest"] == before
    assert str(tmp_path) not in str(params)
    Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(moved / "person-1" / "0.png")
    assert content_digest(moved) != before


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        source(tmp_path / "absent").identities()
    with pytest.raises(DataError, match="0 people with images"):
        source(tmp_path).part_params("private")
    (tmp_path / "one").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "one" / "a.png")
    with pytest.raises(DataError, match="1 people with images"):
        source(tmp_path).identities()


def test_too_few_people_are_refused_with_the_numbers(faces: Path) -> None:
    with pytest.raises(DataError, match=r"6 people, but private 4 \+ public 2 \+ defender 2 = 8"):
        source(faces, private=4).identities()


def test_unreadable_image_is_named(faces: Path) -> None:
    for person in range(PEOPLE):
        (faces / f"person-{person}" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"image .*person-\d/0\.png: cannot be read"):
        source(faces).load("private")


def test_private_person_needs_two_images(faces: Path) -> None:
    for person in range(PEOPLE):
        for image in range(1, IMAGES):
            (faces / f"person-{person}" / f"{image}.png").unlink()
    with pytest.raises(DataError, match="has a single image"):
        source(faces).load("private")
    assert len(source(faces).load("public")[0]) == 2


@pytest.mark.parametrize("change", [{"channels": 2}, {"private": 1}, {"size": 4}])
def test_wrong_fields_are_refused(faces: Path, change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        source(faces, **change)


def test_a_link_to_nothing_is_no_traceback(faces: Path) -> None:
    (faces / "person-0" / "lost.png").symlink_to(faces / "nowhere.png")
    with pytest.raises(DataError, match="cannot be read"):
        content_digest(faces)


def test_a_number_of_test_images_takes_the_place_of_a_share(faces: Path) -> None:
    train, test = source(faces, test_images=2).load("private")
    assert test is not None
    assert (train.labels.bincount().tolist(), test.labels.bincount().tolist()) == ([1, 1], [2, 2])
    with pytest.raises(DataError, match=r"has 3 images, but test_images = 3 must leave one to train"):
        source(faces, test_images=3).load("private")
    with pytest.raises(ValueError, match="test_images must be >= 0, got -1"):
        source(faces, test_images=-1)


def test_a_number_of_test_images_changes_the_key_of_private_images_alone(faces: Path) -> None:
    share, number = source(faces), source(faces, test_images=2)
    assert "test_images" not in share.part_params("private")
    assert number.part_params("private") == {**share.part_params("private"), "test_images": 2}
    assert number.part_params("public") == share.part_params("public")


def test_a_missing_folder_is_told_with_what_belongs_there(tmp_path: Path) -> None:
    data = source(tmp_path / "absent", private=4)
    wanted = (
        r"absent: there is no such folder\. Put one sub-folder of images for each of 8 people or more there"
    )
    with pytest.raises(DataError, match=wanted):
        data.part_params("public")
    with pytest.raises(DataError, match=wanted):
        data.identities()
