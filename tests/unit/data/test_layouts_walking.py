"""What the walk over folders does with links, hidden files and odd names."""

import os
from pathlib import Path

import pytest

from mibench.data.layouts import Found, get_layout
from mibench.data.layouts.walking import Walk, natural, quoted
from mibench.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def found(root: Path) -> Found:
    return get_layout("image_folder").find(root, landmarks=False)


def names(result: Found) -> list[str]:
    return [item.name for item in result.items]


def skips(result: Found) -> dict[str, str]:
    return {skip.name: skip.reason for skip in result.skips}


def test_numbers_in_names_sort_by_value_and_equal_values_stay_apart() -> None:
    assert sorted(["s10", "s2", "s02", "s1", "t"], key=natural) == ["s1", "s02", "s2", "s10", "t"]
    assert natural("02") != natural("2")
    assert natural("9" * 9999) < natural("9" * 9999 + "a")  # from a list file; no number is that long
    assert sorted(["1a", "a1", "", "10"], key=natural) == ["", "1a", "10", "a1"]


def test_order_is_by_name_whatever_the_file_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"s{person}/{image}.png" for person in (10, 2, 1) for image in (3, 11, 1)))
    first = found(tmp_path)
    real = os.scandir

    class Backwards:
        def __init__(self, path: Path) -> None:
            self.entries = real(path)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return sorted(self.entries, key=lambda entry: entry.name, reverse=True)

        def __exit__(self, *_: object) -> None:
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Backwards)
    assert found(tmp_path) == first
    assert names(first) == [f"s{person}/{image}.png" for person in (1, 2, 10) for image in (1, 3, 11)]


def test_folder_links_are_followed_and_each_real_folder_is_met_once(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    touch(root, "a/1.png", "b/1.png")
    touch(elsewhere, "c/1.png")
    (root / "linked").symlink_to(elsewhere / "c")
    (root / "0-alias").symlink_to(root / "b")  # before b by name, yet the real folder is who it is
    (root / "self").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    (root / "a" / "up").symlink_to(root)
    result = found(root)
    assert names(result) == ["a/1.png", "b/1.png", "linked/1.png"]
    assert skips(result) == {
        "0-alias": "link that leads back",
        "self": "link that leads back",
        "above": "link that leads back",
        "a/up": "folder inside a person's folder",
    }


def test_broken_links_and_what_is_no_image_are_skips(tmp_path: Path) -> None:
    touch(
        tmp_path, "a/1.PNG", "a/.hidden.png", "a/Thumbs.db", "a/list.txt", "b/2.jpeg", ".git/3.png", "c/x.csv"
    )
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "round.png").symlink_to(tmp_path / "a" / "round.png")
    (tmp_path / "a" / "fine.png").symlink_to(tmp_path / "b" / "2.jpeg")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    touch(tmp_path, "stray.png")
    result = found(tmp_path)
    assert names(result) == ["a/1.PNG", "a/fine.png", "b/2.jpeg"]
    assert skips(result) == {
        "a/.hidden.png": "hidden",
        ".git": "hidden",
        "a/Thumbs.db": "no image by its name",
        "a/gone.png": "broken link",
        "a/round.png": "broken link",
        "a/pipe.png": "not a file",
        "c": "folder without images",
        "stray.png": "outside a person's folder",
    }


def test_a_folder_that_cannot_be_read_is_a_skip_but_the_root_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    real, closed = os.scandir, [tmp_path / "b"]

    def scandir(path: Path) -> object:
        if path in closed:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = found(tmp_path)
    assert names(result) == ["a/1.png"]
    assert skips(result) == {"b": "folder that cannot be read"}
    closed.append(tmp_path)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)\. Check permissions"):
        found(tmp_path)


def test_odd_names_survive(tmp_path: Path) -> None:
    odd = ["line\nbreak", os.fsdecode(b"\xff\xfe"), "ünï", "x" * 255]
    for name in odd:
        touch(tmp_path, f"{name}/1.png")
    result = found(tmp_path)
    assert {item.identity for item in result.items} == set(odd)
    assert all(item.file.is_file() and item.file == tmp_path / item.name for item in result.items)


def test_messages_hold_no_control_characters(tmp_path: Path) -> None:
    root = tmp_path / "a\nb\x1b[31m"
    root.mkdir()
    with pytest.raises(DataError) as raised:
        found(root)
    assert str(raised.value).isprintable()
    assert quoted("x" * 500, 10) == f"'{'x' * 9}…'"
    assert quoted(os.fsdecode(b"\xff")) == r"'\udcff'"


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "file")
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(DataError, match=r"there is no such folder\. Check --from"):
            Walk(path, get_layout("lfw").facts)


def test_nothing_found_names_the_usual_reason_and_how_the_folder_must_look(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden", "b/x.txt", "a/x.txt")
    reason = r"\(3 left out, 2 of them: folder without images, such as 'a'\)\. It must look so: <person>"
    with pytest.raises(DataError, match=reason) as caught:
        found(tmp_path)
    assert "take `image_folder`" not in str(caught.value)  # that is what was taken


def test_people_in_folders_of_another_kind_are_sent_to_the_layout_that_takes_them(tmp_path: Path) -> None:
    touch(tmp_path, ".DS_Store", "ann/1.png", "ben/1.png")
    reason = r"2 of them: not named after its folder, such as 'ann/1\.png'\).* take `image_folder`\."
    with pytest.raises(DataError, match=reason):
        get_layout("lfw").find(tmp_path, landmarks=False)
