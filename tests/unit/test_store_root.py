"""Where a store lies, read from what users give."""

from pathlib import Path

import pytest

from mibench.errors import StoreError
from mibench.store_root import CACHE_VARIABLE, cache_folder, local_folder, parse_root


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("results/store", Path("results/store")),
        ("C:\\store", Path("C:\\store")),
        (Path("C:/store"), Path("C:/store")),
        ("a::b", Path("a::b")),
        ("s3:b", Path("s3:b")),
        ("file:///data/store", Path("/data/store")),
        ("local:///data/store/", Path("/data/store")),
        ("S3://Bucket/Store//", "s3://Bucket/Store"),
        ("memory://store", "memory://store"),
    ],
)
def test_folders_are_paths_and_urls_are_text(given: Path | str, found: Path | str) -> None:
    assert parse_root(given) == found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("s3://", "names no place"),
        ("s3:///", "names no place"),
        ("file://", "names no place"),
        ("file://data/store", "another machine. Give three slashes: file:///data/store"),
        ("s3:/bucket/store", "neither a folder nor a URL"),
        ("gs:", "neither a folder nor a URL"),
        (Path("s3://bucket/store"), "lost a slash"),
        ("simplecache::s3://bucket/store", "chain"),
        ("s3://bucket/store?versionId=3", "plain name"),
        ("s3://bucket/sto*re", "plain name"),
        ("s3://bucket/a/../b", "plain name"),
    ],
)
def test_what_cannot_be_a_store_is_told(given: Path | str, words: str) -> None:
    with pytest.raises(StoreError, match=rf"^store .*{words}"):
        parse_root(given)


def test_copies_lie_in_the_folder_for_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "mibench"
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "own"))
    one, other = (local_folder(parse_root(f"s3://bucket/{name}")) for name in ("one", "other"))
    assert one.parent == other.parent == tmp_path / "own" / "stores"
    assert one != other
    assert local_folder(parse_root("s3://bucket/one/")) == one
    assert local_folder(tmp_path) == tmp_path
