"""The pages of the site: what they show, what they may do, and what words of others cannot make them do."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from mibench.boards.board import Board
from mibench.boards.entry import Entry
from mibench.boards.history import Alarm, Estimate, Night, Seen
from mibench.boards.site import words
from mibench.boards.site.build import build_site
from mibench.boards.site.pictures import BLURRED, blurred, card_of
from mibench.boards.site.reading import read_sheet
from mibench.errors import BoardError
from mibench.report.tiles import save_cell_images

MADE = runpy.run_path(str(Path(__file__).with_name("site_boards.py")))


class Parsed(HTMLParser):
    """The elements of a page, and the texts of its scripts."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._is_script = False
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._is_script = tag == "script"

    def handle_data(self, data: str) -> None:
        if self._is_script and data.strip():
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._is_script = False


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Board, Path]:
    """A board whose labels and titles try to do harm, and its site."""
    root = tmp_path_factory.mktemp("hostile")
    board = MADE["make_board"](
        root / "boards", defenses=12, attacks=12, nights=3, names=MADE["HOSTILE"], titles=MADE["HOSTILE"]
    )
    entry = Entry(
        schema=1, kind="defense", plugin="made", title=MADE["HOSTILE"][0], authors=MADE["HOSTILE"][1],
        paper="javascript:alert(1)", submitted="2026-01-31",
    ).to_json()  # fmt: skip
    (board.folder / "entries" / "defense_0.json").write_text(json.dumps(entry))
    build_site([board], root / "site")
    return board, root / "site"


def pages(site: Path) -> list[Path]:
    return [*site.glob("*.html"), *site.glob("*/*.html")]


def check_links(site: Path) -> None:
    """Every link within a site has a target, and every place in a page that is linked is there."""
    for page in pages(site):
        for tag, one in Parsed(page).elements:
            link = urlsplit(one.get("href") or one.get("src") or "")
            if link.scheme or not (link.path or link.fragment):
                continue
            target = (page.parent / link.path).resolve() if link.path else page
            assert target.is_relative_to(site.resolve()), (tag, one)
            assert target.is_file(), (page, one)
            if link.fragment:
                assert link.fragment in {each.get("id") for _, each in Parsed(target).elements}, (page, one)


def test_every_defense_has_a_page_and_every_link_a_target(hostile: tuple[Board, Path]) -> None:
    board, site = hostile
    rows = read_sheet(board).standings.rows
    assert len(rows) == 13
    assert len(pages(site)) == 1 + 2 + len(rows)
    check_links(site)


def test_no_word_of_others_becomes_markup_a_script_or_an_address(hostile: tuple[Board, Path]) -> None:
    _, site = hostile
    for page in pages(site):
        parsed = Parsed(page)
        policy = next(one["content"] for _, one in parsed.elements if one.get("http-equiv"))
        assert policy is not None
        assert policy.startswith("default-src 'none'; script-src 'self' file:;")
        assert "unsafe" not in policy
        for tag, one in parsed.elements:
            assert not any(name.startswith("on") or name == "style" for name in one), (page, one)
            assert tag not in {"style", "iframe", "object", "embed", "base"}
            for name in ("href", "src"):
                scheme = urlsplit(one.get(name) or "").scheme
                assert scheme in {"", "data", "https"}, (page, one)
                assert scheme != "https" or str(one[name]).startswith(
                    ("https://arxiv.org/abs/", "https://doi.org/")
                )
            if tag == "script":
                assert one.get("type") == "application/json" or str(one["src"]).startswith("../assets/")
        for text in parsed.scripts:
            json.loads(text)
        raw = page.read_text(encoding="utf-8")
        assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", raw)
        assert "49" not in re.findall(r"<h1>(.*?)</h1>", raw)  # of a template in a name


def test_words_arrive_as_they_are(hostile: tuple[Board, Path]) -> None:
    board, site = hostile
    told = json.loads(Parsed(site / "made" / "index.html").scripts[0])
    assert [row["name"] for row in told["rows"]] == [one.name for one in read_sheet(board).standings.rows]
    assert "</script><script>alert(1)</script>" in {row["title"] for row in told["rows"]}


def test_names_of_files_are_slugs(hostile: tuple[Board, Path]) -> None:
    _, site = hostile
    names = {file.name for file in site.rglob("*") if file.is_file()}
    own = {
        "dataTables.min.js",
        "dataTables.LICENSE.txt",
        "d3.LICENSE.txt",
        "plot.LICENSE.txt",
        ".mibench-site",
    }
    assert all(re.fullmatch(r"[a-z0-9-]+(\.umd)?(\.min)?\.(html|js|css|webp)", name) for name in names - own)
    assert own <= names


def test_an_empty_board_has_pages(tmp_path: Path) -> None:
    board = MADE["make_board"](tmp_path / "boards", nights=0)
    (board.folder / "records.jsonl").unlink()
    entry = Entry(schema=1, kind="defense", plugin="new_one", title="Not run yet")
    (board.folder / "entries" / "new_one.json").write_text(json.dumps(entry.to_json()))
    build_site([board], tmp_path / "site")
    page = (tmp_path / "site" / "made" / "index.html").read_text()
    assert "There are no numbers yet" in page
    assert "new_one (defense)" in page
    check_links(tmp_path / "site")


def test_nothing_is_run_and_torch_stays_out(tmp_path: Path) -> None:
    board = MADE["make_board"](tmp_path / "boards")
    for name in ("plugins/made.py", "made.py", "sitecustomize.py", "conftest.py"):
        file = board.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    entry = {"schema": 1, "kind": "defense", "plugin": "made", "source": "0" * 64}
    (board.folder / "entries" / "defense_0.json").write_text(json.dumps(entry))
    code = (
        "import sys; from pathlib import Path; from mibench.boards.board import list_boards\n"
        "from mibench.boards.site.build import build_site\n"
        f"build_site(list_boards(Path({str(tmp_path / 'boards')!r})), Path({str(tmp_path / 'site')!r}))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=board.folder)
    assert (tmp_path / "site" / "made" / "index.html").is_file()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["board.toml", "records.jsonl", "history.jsonl", "entries"])
def test_a_link_in_a_board_is_refused(tmp_path: Path, name: str) -> None:
    board = MADE["make_board"](tmp_path / "boards")
    file = board.folder / name
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BoardError, match=f"{name} is a link"):
        build_site([board], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def _record(board: Board) -> dict[str, Any]:
    sheet = read_sheet(board)
    return dict(sheet.cells(sheet.standings.rows[0])[0])


def test_a_rendered_face_is_shown_with_what_the_models_say(tmp_path: Path) -> None:
    board = MADE["make_board"](tmp_path / "boards")
    record = _record(board)
    MADE["add_pictures"](tmp_path / "results", record)
    card = card_of(record, [tmp_path / "results"])
    assert card.columns == ("real", "best", "median", "worst")
    assert not card.is_blurred
    assert card.size == (4 * 64, 5 * 64)
    assert card.said[0] == (
        "3",
        (
            "best: victim 90.0 %, judge 70.0 %",
            "median: victim 90.0 %, judge 30.0 %",
            "worst: victim 90.0 %, judge 0.0 %",
        ),
    )
    build_site([board], tmp_path / "site", results=[tmp_path / "results"])
    with Image.open(tmp_path / "site" / "made" / "pictures" / card.file) as shown:
        assert shown.size == card.size


def test_real_people_are_shown_beyond_recognition_and_their_photographs_not(tmp_path: Path) -> None:
    board = MADE["make_board"](tmp_path / "boards", data={"kind": "prepared", "may_publish": False})
    record = _record(board)
    assert not card_of(record, [tmp_path / "results"]).picture
    # images beside the board's pages are not looked at, whoever put them there
    MADE["add_pictures"](tmp_path / "results", record)
    assert not card_of(record, [tmp_path / "results"]).picture
    folder = MADE["add_pictures"](tmp_path / "results", record, withheld=True)
    card = card_of(record, [tmp_path / "results"])
    assert card.is_blurred
    assert card.columns == ("best", "median", "worst")
    (folder / "real.png").unlink()
    assert card_of(record, [tmp_path / "results"]).picture == card.picture
    build_site([board], tmp_path / "site", results=[tmp_path / "results"])
    assert (
        "These are real people"
        in (tmp_path / "site" / "made" / read_sheet(board).files[record["defense"]["label"]]).read_text()
    )


def test_a_blurred_face_holds_nine_colors_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    face = rng.integers(60, 200, (33, 30, 3), dtype=np.uint8)
    mixed = face.copy()
    for rows in np.array_split(np.arange(33), BLURRED):
        for columns in np.array_split(np.arange(30), BLURRED):
            part = face[np.ix_(rows, columns)].reshape(-1, 3)
            mixed[np.ix_(rows, columns)] = rng.permutation(part).reshape(len(rows), len(columns), 3)
    assert not np.array_equal(face, mixed)
    np.testing.assert_array_equal(blurred(face), blurred(mixed))


def test_pictures_behind_links_of_other_cells_or_damaged_are_left_out(tmp_path: Path) -> None:
    board = MADE["make_board"](tmp_path / "boards")
    record = _record(board)
    results = tmp_path / "results"
    folder = MADE["add_pictures"](results, record)
    assert card_of(record, [results]).picture
    evidence = folder / "evidence.json"
    evidence.write_text(evidence.read_text().replace(record["cell"], "0" * 12))
    card = card_of(record, [results])
    assert card.columns == ("real", "first", "second", "third")
    assert card.said == ()
    (folder / "got.png").write_bytes(b"no image")
    assert not card_of(record, [results]).picture
    MADE["add_pictures"](results, record)
    assert card_of(record, [results]).picture
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert not card_of(record, [results]).picture
    assert not card_of(record | {"suite": "../quick"}, [results / "quick"]).picture


def test_a_gray_face_is_shown_too(tmp_path: Path) -> None:
    board = MADE["make_board"](tmp_path / "boards")
    record = _record(board)
    faces = np.zeros((1, 2, 20, 16, 1), np.uint8)
    folder = tmp_path / "results" / "quick" / "cells" / record["cell"]
    save_cell_images(folder, faces, faces, labels=[3], protected=[True])
    assert card_of(record, [tmp_path / "results"]).size == (4 * 64, 80)


def test_last_verified_is_the_last_night_that_found_all_well(tmp_path: Path) -> None:
    board = MADE["make_board"](tmp_path / "boards", nights=3)
    file = board.folder / "history.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[2]["entries"]["none"]["status"] = "left_out"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    sheet = read_sheet(board)
    assert words.day(sheet.verified("none")) == "2026-01-02"
    assert words.day(sheet.verified("defense_0")) == "2026-01-03"
    assert sheet.verified("nobody") is None


def test_alarms_are_told_on_every_page(tmp_path: Path) -> None:
    board = MADE["make_board"](tmp_path / "boards", nights=3)
    build_site([board], tmp_path / "site")
    name = read_sheet(board).standings.rows[-1].name
    text = "Worst case of AA went from 20.0 % to 30.0 % (difference +2.0 to +18.0 points), 2 nights in a row."
    for file in ("index.html", "nights.html", f"defense-{name.replace('_', '-')}.html"):
        assert text in (tmp_path / "site" / "made" / file).read_text()
    assert "1 open alarm" in (tmp_path / "site" / "index.html").read_text()


def test_alarms_in_words() -> None:
    def told(what: Any, **changes: Any) -> str:
        return words.alarm_text(Alarm(entry="x", what=what, before=60.0, now=7200.0, nights=1, **changes))

    assert told("wall_s") == "Time went from 1.0 min to 2.0 h, 1 night in a row."
    assert told("peak_mib") == "Memory went from 60 MiB to 7,200 MiB, 1 night in a row."
    assert told("status", note="GMI failed.") == "It works no longer, 1 night in a row. GMI failed."
    told_record = told("record", cell="0a1b2c3d4e5f", note="estimates differ")
    assert told_record == "Cell 0a1b2c3d4e5f, computed again, gave another record: estimates differ."


def test_an_alarm_about_an_attack_is_no_defenses() -> None:
    alarm = Alarm(entry="none", what="aa", before=0.3, now=0.2, nights=2, kind="attack")
    assert words.alarm_values([alarm], {"none": "defense-none.html"})[0]["name"] == "attack none"
    assert words.alarm_values([alarm], {"none": "defense-none.html"})[0]["file"] == ""
    assert not words.is_of(alarm, "none")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("arXiv:2310.06549", "https://arxiv.org/abs/2310.06549"),
        (" arxiv: 2310.06549v2 ", "https://arxiv.org/abs/2310.06549"),
        ("doi:10.1109/TIFS.2023.1234567", "https://doi.org/10.1109/TIFS.2023.1234567"),
        ("https://evil.example/", ""),
        ("javascript:alert(1)", ""),
        ("arXiv:2310.06549 https://evil.example", ""),
        ("10.1109/x?y=<script>", ""),
        ("", ""),
    ],
)
def test_only_two_kinds_of_papers_become_links(text: str, address: str) -> None:
    assert words.paper_address(text) == address


def test_numbers_in_words() -> None:
    one = Estimate(value=0.123, low=0.1, high=0.2, count=5)
    assert words.cell(one) == {
        "shown": "12.3",
        "extra": "10.0\N{EN DASH}20.0",
        "order": "0.123000",
        "shade": 1,
    }
    assert words.cell(Estimate(value=None)) == {"shown": "n/a", "extra": "", "order": "2", "shade": 0}
    assert words.numbers(Estimate(value=None)) is None
    assert words.seconds(None) == "n/a"
    assert words.mebibytes(None) == "n/a"
    night = Night(night=1, started="?", ended="?", software={}, cells=0, hits=0, ran=0, failed=0, left_out=0,
                  entries={"x": Seen(status="ok", worst=one, mc_all=one, mc_target=one)})  # fmt: skip
    assert words.day(night) == ""
