"""The folder of a site as crashes find it, the libraries that come with it, and the commands."""

from __future__ import annotations

import hashlib
import http.client
import json
import runpy
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from importlib import resources
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mibench import cli_site
from mibench.boards.site.build import build_site
from mibench.boards.site.folder import MARK, replaced
from mibench.boards.site.rendering import render
from mibench.errors import BoardError

MADE = runpy.run_path(str(Path(__file__).with_name("site_boards.py")))
VENDOR = Path(str(resources.files("mibench.boards.site"))) / "static" / "vendor"


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_crash_while_pages_are_written_leaves_the_old_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = MADE["make_board"](tmp_path / "boards")
    build_site([board], tmp_path / "site")
    before = content(tmp_path / "site")
    whole, made = render, []

    def crash(name: str, /, **values: str) -> str:
        made.append(name)
        if len(made) > 3:
            raise MemoryError
        return whole(name, **values)

    monkeypatch.setattr("mibench.boards.site.build.render", crash)
    with pytest.raises(MemoryError):
        build_site([board], tmp_path / "site")
    assert content(tmp_path / "site") == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["boards", "site"]


def test_a_site_is_replaced_whole_and_the_same_again(tmp_path: Path) -> None:
    board = MADE["make_board"](tmp_path / "boards")
    build_site([board], tmp_path / "site")
    before = content(tmp_path / "site")
    (tmp_path / "site" / "made" / "defense-gone.html").write_text("of a defense that is no longer there")
    build_site([board], tmp_path / "site")
    assert content(tmp_path / "site") == before


def test_what_a_crash_between_two_renames_left_is_put_back(tmp_path: Path) -> None:
    board = MADE["make_board"](tmp_path / "boards")
    build_site([board], tmp_path / "site")
    before = content(tmp_path / "site")
    (tmp_path / "site").rename(tmp_path / "site.old-1234")

    def fail() -> None:
        with replaced(tmp_path / "site"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert content(tmp_path / "site") == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["boards", "site"]


def test_a_rename_that_fails_puts_the_old_site_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = MADE["make_board"](tmp_path / "boards")
    build_site([board], tmp_path / "site")
    before = content(tmp_path / "site")
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if ".new-" in path.name:
            raise OSError(28, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(BoardError, match="No space left on device"):
        build_site([board], tmp_path / "site")
    assert content(tmp_path / "site") == before


def test_only_a_site_is_replaced(tmp_path: Path) -> None:
    board = MADE["make_board"](tmp_path / "boards")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("mine")
    with pytest.raises(BoardError, match="holds other things than a site"):
        build_site([board], tmp_path / "work")
    assert (tmp_path / "work" / "thesis.tex").read_text() == "mine"
    (tmp_path / "link").symlink_to(tmp_path / "work")
    with pytest.raises(BoardError, match="is a link"):
        build_site([board], tmp_path / "link")
    with pytest.raises(BoardError, match="is a file"):
        build_site([board], tmp_path / "work" / "thesis.tex")
    (tmp_path / "empty").mkdir()
    assert build_site([board], tmp_path / "empty")[0] == tmp_path / "empty" / "index.html"


def test_libraries_are_as_published_and_bring_their_licenses() -> None:
    told = json.loads((VENDOR / "vendored.json").read_text())
    for one in told:
        assert hashlib.sha256((VENDOR / one["file"]).read_bytes()).hexdigest() == one["sha256"], one["file"]
        assert one["license"] in {"MIT", "ISC"}
        assert "Permission" in (VENDOR / one["license_file"]).read_text()
        assert one["version"] in (VENDOR / one["file"]).read_text()[:200]
    known = {one[name] for one in told for name in ("file", "license_file")}
    assert {file.name for file in VENDOR.iterdir()} == known | {"vendored.json", "VENDORED.md"}


def test_build_says_what_it_made(tmp_path: Path) -> None:
    for name in ("made", "other"):
        MADE["make_board"](tmp_path / "boards", name=name)
    out = ["--boards", str(tmp_path / "boards"), "--out", str(tmp_path / "site")]
    done = CliRunner().invoke(app(), ["build", *out], catch_exceptions=False)
    assert done.output == f"15 pages of 2 boards: open {tmp_path / 'site' / 'index.html'}\n"
    CliRunner().invoke(app(), ["build", "other", *out], catch_exceptions=False)
    assert sorted(one.name for one in (tmp_path / "site").iterdir() if one.is_dir()) == ["assets", "other"]
    with pytest.raises(BoardError, match="board 'nobody'"):
        CliRunner().invoke(app(), ["build", "nobody", *out], catch_exceptions=False)


def test_serve_wants_a_site(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="Run `mibench board build"):
        CliRunner().invoke(app(), ["serve", "--out", str(tmp_path)], catch_exceptions=False)


def app() -> typer.Typer:
    """The commands of the site alone."""
    made = typer.Typer()
    cli_site.register(made)
    return made


def test_a_served_site_shows_its_pages_and_nothing_else(tmp_path: Path) -> None:
    board = MADE["make_board"](tmp_path / "boards")
    build_site([board], tmp_path / "site")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "site" / "link").symlink_to(tmp_path / "secret")
    assert (tmp_path / "site" / MARK).is_file()
    wanted = {
        "/": 200,
        "/made/": 200,
        "/assets/site.css?1": 200,
        "/assets/": 404,
        "/link": 404,
        "/../secret": 404,
        "/%2e%2e/secret": 404,
    }
    handler = partial(cli_site.handler(), directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            asked = {path: _status(server.server_address[1], path) for path in wanted}
        finally:
            server.shutdown()
            thread.join()
    assert asked == wanted


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()
