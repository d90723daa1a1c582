"""What a night keeps: tries and levels in its ledger, turns of rechecks, entries as files, the lock."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import Timeout
from hypothesis import given
from hypothesis import strategies as st

from mibench.boards.adding import add, remove, trust, write_entry
from mibench.boards.assembling import assemble
from mibench.boards.board import Board, read_board
from mibench.boards.entry import read_entries
from mibench.boards.history import Estimate, Night, Seen, append_night, read_history, unseen
from mibench.boards.ledger import Ledger, Pace, read_ledger, write_ledger
from mibench.boards.locking import LockedError, locked, night_folder
from mibench.boards.night import How
from mibench.boards.recheck import first_difference, turns
from mibench.boards.update import update
from mibench.cli import main
from mibench.errors import BoardError, UnknownPluginError
from mibench.recording import Failure
from mibench.registry import forget_files

_TOYS = Path(__file__).parents[2] / "e2e" / "plugins"
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@pytest.fixture
def board(tmp_path: Path) -> Any:
    folder = tmp_path / "boards" / "b"
    folder.mkdir(parents=True)
    text = 'schema = 1\ntitle = "T"\nsuite = "quick"\naccess = "white-box"\n'
    (folder / "board.toml").write_text(text, encoding="utf-8")
    yield read_board(folder)
    forget_files()


def fail(ledger: Ledger, night: int) -> None:
    ledger.open(night, "now")
    ledger.failed("k", Failure("train", "TimeLimit", "too long"))
    ledger.close()


def test_failed_task_is_tried_once_more_and_then_given_up() -> None:
    ledger = Ledger()
    ledger.open(5, "now")
    assert ledger.given_up("k") is None
    ledger.failed("k", Failure("train", "TimeLimit", "too long"))
    assert ledger.given_up("k") is not None  # a restart of the same night does not try again
    ledger.close()
    ledger.open(6, "now")
    assert ledger.given_up("k") is None
    fail(ledger, 6)
    ledger.open(7, "now")
    why = ledger.given_up("k")
    assert why is not None
    assert (why.stage, why.type, why.message) == ("train", "TimeLimit", "too long")


def test_night_that_was_begun_is_gone_on_with() -> None:
    ledger = Ledger()
    ledger.open(3, "first")
    ledger.ran.append("k")
    ledger.open(3, "second")
    assert (ledger.started, ledger.ran) == ("first", ["k"])
    ledger.close()
    ledger.open(4, "third")
    assert (ledger.started, ledger.ran) == ("third", [])


def test_accepted_level_starts_anew() -> None:
    ledger = Ledger(paces={"x": {"a": Pace(wall_s=1.0)}}, offered={"x": {"m": "d"}, "y": {"n": "e"}})
    ledger.accept("x", 9)
    assert (ledger.accepted, ledger.paces, ledger.levels) == ({"x": 9}, {}, {"m": "d"})
    assert ledger.offered == {"y": {"n": "e"}}


def test_ledger_survives_its_file_and_damage_is_told(tmp_path: Path) -> None:
    assert read_ledger(tmp_path) == Ledger()
    ledger = Ledger(night=2, started="s", ran=["k"], paces={"x": {"a": Pace(wall_s=1.0, work=None)}})
    ledger.failed("k", Failure("train", "E", "m"))
    write_ledger(tmp_path, ledger)
    assert read_ledger(tmp_path) == ledger
    (tmp_path / "ledger.json").write_text('{"night": "two"}', encoding="ascii")
    with pytest.raises(BoardError, match=r"ledger\.json: 'night' is wrong .* Or remove it"):
        read_ledger(tmp_path)


@given(_JSON, _JSON)
def test_difference_is_found_exactly_where_json_differs(one: Any, other: Any) -> None:
    assert first_difference(one, one) == ""
    differs = json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)
    assert bool(first_difference({"x": one}, {"x": other})) == differs


def test_difference_names_its_place() -> None:
    old = {"hits": {"3": "0110"}, "aa": {"value": 0.5}}
    assert first_difference(old, {**old, "aa": {"value": 0.25}}) == "aa.value: was 0.5, is 0.25"
    assert first_difference(old, {"aa": {"value": 0.5}}).startswith("hits: was {'3': '0110'}, is nothing")


def test_built_in_plugin_with_fields_is_an_entry(board: Board) -> None:
    made = add(board, "mid", name="mid_weak", params=["beta=0.001"], told={"authors": "A"})
    assert read_entries(board) == {"mid_weak": made}
    assert (made.kind, made.source, made.params, made.authors) == ("defense", "", {"beta": 0.001}, "A")
    assert made.title  # of the card
    assert add(board, "gmi").kind == "attack"
    remove(board, "gmi")
    assert list(read_entries(board)) == ["mid_weak"]


def test_source_of_a_file_is_kept_as_long_as_an_entry_is_of_it(board: Board) -> None:
    file = board.folder / "plugins" / "toy_short.py"
    one = add(board, str(_TOYS / "toy_short.py"))
    add(board, str(_TOYS / "toy_short.py"), name="longer", params=["epochs=2"])
    assert file.read_bytes() == (_TOYS / "toy_short.py").read_bytes()
    assert one.source
    remove(board, "toy_short")
    assert file.is_file()
    remove(board, "longer")
    assert not file.exists()


def test_other_source_of_a_plugin_that_stands_there_is_refused(board: Board, tmp_path: Path) -> None:
    add(board, str(_TOYS / "toy_short.py"))
    changed = tmp_path / "toy_short.py"
    changed.write_text((_TOYS / "toy_short.py").read_text("utf-8") + "# changed\n", encoding="utf-8")
    with pytest.raises(BoardError, match="toy_short is of another source"):
        add(board, str(changed), name="second")
    assert add(board, str(changed)).source != ""  # the entry itself may change
    assert (board.folder / "plugins" / "toy_short.py").read_bytes() == changed.read_bytes()


@pytest.mark.parametrize(
    ("what", "options", "said"),
    [
        ("mid", {"name": "../up"}, "is no name"),
        ("mid", {"name": "a" * 41}, "is no name"),
        ("mid", {"params": ["beta"]}, "sets no field"),
        ("mid", {"params": ["beta=much"]}, "'beta' is wrong"),
        ("mid", {"params": ["gamma=1"]}, "no field 'gamma'"),
        ("mid+rounding", {}, "is no name"),
    ],
)
def test_wrong_entry_is_told(board: Board, what: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BoardError) as refused:
        add(board, what, **options)
    assert said in str(refused.value)
    assert not (board.folder / "entries").exists()


def test_unknown_names_are_told(board: Board) -> None:
    with pytest.raises(UnknownPluginError, match="Did you mean"):
        add(board, "bidoo")
    with pytest.raises(BoardError, match=r"is not there\. There are: none"):
        remove(board, "mid")


def test_broken_entry_can_be_removed(board: Board) -> None:
    add(board, "mid")
    (board.folder / "entries" / "torn.json").write_text("{", encoding="ascii")
    add(board, "bido")
    remove(board, "torn")
    assert list(read_entries(board)) == ["bido", "mid"]


def test_what_the_board_ran_is_marked(board: Board) -> None:
    ran = {"mid": add(board, "mid").digest, "gone": ""}
    add(board, "bido")
    trust(board, ran)
    assert {name: one.trust for name, one in read_entries(board).items()} == {
        "mid": "re-run",
        "bido": "self-reported",
    }


def test_entry_that_was_replaced_while_the_night_ran_is_not_marked(board: Board) -> None:
    ran = add(board, "mid").digest
    add(board, "mid", params=["beta=0.001"])
    trust(board, {"mid": ran})
    assert read_entries(board)["mid"].trust == "self-reported"


@pytest.mark.parametrize(
    ("what", "name", "access", "said"),
    [
        ("mid", "none", "white-box", "has 'none' already"),
        ("gan_d", "", "white-box", "has 'gan_d' already"),
        ("gmi", "", "score", "attack 'gmi' needs white-box access; the board grants score"),
    ],
)
def test_what_no_night_could_run_is_not_added(
    board: Board, what: str, name: str, access: Any, said: str
) -> None:
    board = replace(board, rules=replace(board.rules, access=access))
    with pytest.raises(BoardError, match=said):
        add(board, what, name=name)
    assert not (board.folder / "entries").exists()


def test_entry_whose_plugin_raises_anything_fails_alone(board: Board, tmp_path: Path) -> None:
    source = (_TOYS / "toy_short.py").read_text("utf-8")
    raises = "    def __post_init__(self) -> None:\n        {}[self.epochs]\n\n    epochs: int"
    file = tmp_path / "toy_short.py"
    file.write_text(source.replace("    epochs: int", raises), encoding="utf-8")
    assert file.read_text("utf-8") != source
    made = add(board, str(_TOYS / "toy_short.py"))
    (board.folder / "plugins" / "toy_short.py").write_bytes(file.read_bytes())
    changed = replace(made, source=hashlib.sha256(file.read_bytes()).hexdigest())
    write_entry(board, "toy_short", changed)
    assert "toy_short: it raised KeyError" in assemble(board, set()).failed["toy_short"]


def test_rechecked_cell_of_a_night_that_was_killed_has_its_turn_again(board: Board) -> None:
    plan = assemble(board, set()).plan
    records = {
        cell.id: SimpleNamespace(status="ok", keys={"measure": cell.measure}, provenance={"device": "cpu"})
        for cell in plan.cells
    }
    ledger = Ledger(night=3)

    def first() -> str:
        known: Any = records
        return turns(plan, known, ledger, suspected=(), device="cpu")[0].id

    cell = plan.cells[0]
    assert first() == cell.id
    ledger.rechecked[cell.measure] = 3  # its record was found to differ, and the night was killed
    assert first() == cell.id
    ledger.night = 4
    assert first() == plan.cells[1].id


_HOLD = """
import sys, time
from pathlib import Path
from mibench.boards.board import read_board
from mibench.boards.locking import locked
with locked(read_board(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


def test_lock_is_free_as_soon_as_its_holder_is_dead(board: Board) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(board.folder)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(LockedError, match=f"^board b: process {holder.pid}, at work since 20"),
            locked(board),
        ):
            pass
        holder.kill()
        holder.wait()
        with locked(board) as folder:
            assert folder == night_folder(board)
            assert json.loads((folder / "holder.json").read_text("ascii"))["pid"] == os.getpid()
    assert (folder / ".gitignore").read_text("ascii") == "*\n"


def test_what_fails_under_the_lock_is_told_as_what_it_is(board: Board) -> None:
    error = FileNotFoundError(2, "No such file or directory", "/somewhere/else")
    with pytest.raises(FileNotFoundError), locked(board):
        raise error
    with pytest.raises(Timeout), locked(board):  # of another lock: nobody else is at the board
        raise Timeout("/somewhere/else")
    with locked(board):
        pass


def test_disk_that_fails_one_board_leaves_the_others_their_night(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_board: Board, _how: How) -> Any:
        raise OSError(5, "Input/output error", "/disk/records.jsonl")

    monkeypatch.setattr("mibench.boards.update.run_night", fail)
    how: Any = SimpleNamespace(budget_s=None)
    monkeypatch.setattr("mibench.boards.update.replace", lambda how, **_: how)
    done = update([board, board], how)
    assert done.code == 2
    assert [one.startswith("board b: /disk/records.jsonl cannot be used") for one in done.broken] == [
        True
    ] * 2


def test_people_of_a_large_board_fit_into_the_history(board: Board) -> None:
    half = Estimate(value=0.5)
    people = {f"{person:012x}/{seed}": 0.125 for person in range(300) for seed in range(5)}
    seen = Seen(status="ok", worst=half, mc_all=half, mc_target=half, people=people)
    night = Night(
        night=1, started="", ended="", software={}, cells=1, hits=0, ran=0, failed=0, left_out=0,
        entries={f"d{number}": seen for number in range(35)},
    )  # fmt: skip
    append_night(board, night)
    assert read_history(board) == [night]


def test_broken_entry_keeps_nobody_from_looking(board: Board, capsys: Any) -> None:
    half = Estimate(value=0.5)
    seen = Seen(status="failed", worst=half, mc_all=half, mc_target=half, why="its net is gone")
    append_night(
        board,
        Night(
            night=1, started="", ended="", software={}, cells=1, hits=0, ran=0, failed=1, left_out=0,
            entries={"mid": seen},
        ),
    )  # fmt: skip
    (board.folder / "entries").mkdir()
    (board.folder / "entries" / "torn.json").write_text("{", encoding="ascii")
    boards = ["--boards", str(board.folder.parent)]
    assert main(["board", "list", *boards]) == 0
    assert main(["board", "show", "b", *boards]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "failed: mid: its net is gone" in said
    assert any(line.startswith("failed: torn: entry 'torn.json': is no JSON") for line in said)
    assert main(["board", "build", *boards, "--out", str(board.folder.parent.parent / "site")]) == 0


def test_show_names_what_no_night_has_measured_as_it_stands(board: Board, capsys: Any) -> None:
    boards = ["--boards", str(board.folder.parent)]
    assert main(["board", "add", "b", str(_TOYS / "toy_short.py"), *boards]) == 0
    assert "add it again when it has changed" in capsys.readouterr().out
    assert main(["board", "show", "b", *boards]) == 0
    assert "Not measured yet as they stand: toy_short." in capsys.readouterr().out

    half = Estimate(value=0.5)
    digest = read_entries(board)["toy_short"].digest
    seen = Seen(status="ok", digest=digest, worst=half, mc_all=half, mc_target=half)
    night = Night(
        night=1, started="", ended="", software={}, cells=1, hits=0, ran=1, failed=0, left_out=0,
        entries={"toy_short": seen},
    )  # fmt: skip
    entries = read_entries(board)
    assert unseen(entries, [night]) == []
    assert unseen(entries, [replace(night, entries={})]) == ["toy_short"]
    late = replace(seen, status="left_out", worst=Estimate(value=None))
    assert unseen(entries, [replace(night, entries={"toy_short": late})]) == ["toy_short"]
    add(board, str(_TOYS / "toy_short.py"), params=["epochs=2"])
    assert unseen(read_entries(board), [night]) == ["toy_short"]


def test_list_gives_a_long_name_whole_and_an_empty_folder_its_option(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "synthfaces-64-blackbox-and-longer"
    folder.mkdir()
    text = f'schema = 1\ntitle = "{"long words " * 5}"\nsuite = "quick"\naccess = "white-box"\n'
    (folder / "board.toml").write_text(text, encoding="utf-8")
    assert main(["board", "list", "--boards", str(tmp_path)]) == 0
    assert folder.name in capsys.readouterr().out
    assert main(["board", "show", "b", "--boards", str(folder)]) == 2
    assert "Give --boards the folder of boards." in capsys.readouterr().err
