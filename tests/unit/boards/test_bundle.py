"""Bundles: what is packed, that nothing of it is run, what is recomputed, and what becomes an entry."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from mibench.boards import packing
from mibench.boards.admitting import admit
from mibench.boards.assembling import board_suite
from mibench.boards.board import Board, read_board
from mibench.boards.bundle import Manifest, open_bundle
from mibench.boards.entry import Entry, read_entry
from mibench.boards.ground import ground_digest, ground_suite
from mibench.boards.packing import Packed
from mibench.boards.verifying import How, Verdict, verify
from mibench.cli import main
from mibench.errors import BoardError
from mibench.key import canonical
from mibench.record import Record, read_records, write_records
from mibench.registry import forget_files
from mibench.report.escape import csv_text, latex, markdown, plain
from mibench.store import Store

from .submissions import SUITE, Members, make_bundle, make_results, members_of, sealed, with_records

BAD_TITLE = '<script>alert(1)</script> =cmd|"/C calc"!A0 \\write18{rm} ../..'


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of `shield`."""
    return make_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def packed(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """Its bundle, with a title that means harm."""
    return make_bundle(results, tmp_path_factory.mktemp("packed") / "shield.zip", title=BAD_TITLE)


@pytest.fixture(scope="module")
def good(packed: Packed) -> Members:
    return members_of(packed.file.read_bytes())


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for data and judges, which all tests share."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    yield
    forget_files()


@pytest.fixture
def verified(tmp_path: Path, shelf: Path) -> Callable[[bytes], Verdict]:
    """What verifying the bytes of a bundle gives."""

    def run(bundle: bytes) -> Verdict:
        (tmp_path / "their.zip").write_bytes(bundle)
        return verify(tmp_path / "their.zip", How(store=Store(shelf)))

    return run


def mine(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of the defense against the white-box attack."""
    return next(
        one for one in records if (one["attack"]["label"], one["defense"]["label"]) == ("mi_face", "shield")
    )


def edited(members: Members, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A bundle with that record changed, whose hashes fit."""
    return sealed(with_records(members, lambda records: change(mine(records))))


def test_the_same_results_give_the_same_bytes(results: Path, packed: Packed, tmp_path: Path) -> None:
    again = make_bundle(results, tmp_path / "again.zip", title=BAD_TITLE)
    assert again.file.read_bytes() == packed.file.read_bytes()
    with zipfile.ZipFile(again.file) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert {info.date_time[0] for info in archive.infolist()} == {1980}


def test_a_bundle_holds_the_cells_of_its_row_and_those_without_a_defense(packed: Packed) -> None:
    with open_bundle(packed.file) as bundle:
        cells = {(one.attack["label"], one.defense["label"]) for one in bundle.records}
        manifest = bundle.manifest
        assert bundle.source is not None
    assert cells == {
        (attack, defense) for attack in ("mean_face", "mi_face") for defense in ("none", "shield")
    }
    assert (manifest.kind, manifest.name, manifest.plugin) == ("defense", "shield", "shield")
    assert (manifest.params, manifest.paper, manifest.title) == ({}, "none", BAD_TITLE)
    assert len(manifest.cells) == 4
    assert manifest.rulers.keys() == {"judge", "audit"}


def test_no_path_of_the_machine_is_in_it(results: Path, good: Members) -> None:
    whole = b"".join(content for name, content in good.items() if not name.endswith(".safetensors"))
    assert str(results).encode() not in whole
    assert str(results.parent).encode() not in whole


def test_every_metric_is_recomputed_bit_for_bit(packed: Packed, verified: Callable[[bytes], Verdict]) -> None:
    verdict = verified(packed.file.read_bytes())
    assert (verdict.trust, verdict.is_true, verdict.is_exact, verdict.cells) == (
        "recomputed",
        True,
        True,
        (4, 4),
    )
    metrics = {line.name: line.same for line in verdict.lines if line.is_metric}
    assert metrics == dict.fromkeys(["mc_all", "mc_target", "aa", "fid", "knn_distance", "aa_audit"], 4)
    assert all(line.differ == line.within == 0 for line in verdict.lines)


def test_nothing_of_the_plugin_is_run(
    good: Members, verified: Callable[[bytes], Verdict], tmp_path: Path
) -> None:
    mark = tmp_path / "owned.txt"
    source = f"import pathlib\npathlib.Path({str(mark)!r}).write_text('owned')\n".encode()
    verdict = verified(sealed({**good, "plugin.py": source}))
    assert verdict.trust == "recomputed"
    assert not mark.exists()


def test_an_edited_metric_is_named(good: Members, tmp_path: Path, shelf: Path, capsys: Any) -> None:
    def better(record: dict[str, Any]) -> None:
        record["estimates"]["fid"]["value"] += 1

    file = tmp_path / "their.zip"
    file.write_bytes(edited(good, better))
    assert main(["submit", "verify", str(file), "--store", str(shelf)]) == 1
    said = capsys.readouterr().out.splitlines()
    cell = mine([json.loads(line) for line in good["records.jsonl"].splitlines()])["cell"]
    assert re.fullmatch(rf"cell {cell}, fid: said [\d.e-]+ \[.*\], found [\d.e-]+ \[.*\]", said[-3])
    assert said[-1] == "refused: 1 numbers are not as its records say."


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("aa", lambda r: r["estimates"].update(aa={"value": 0.0, "low": 0.0, "high": 0.1, "count": 4})),
        ("fid", lambda r: r["estimates"]["fid"].update(value=r["estimates"]["fid"]["value"] * (1 + 1e-12))),
        (
            "mc_all",
            lambda r: r["estimates"].update(mc_all={"value": 1.0, "low": 1.0, "high": 1.0, "count": 6}),
        ),
        ("knn_distance", lambda r: r["estimates"].pop("knn_distance")),
        ("lpips", lambda r: r["estimates"].update(lpips={"value": 1.0, "low": 1.0, "high": 1.0, "count": 4})),
        ("hits", lambda r: r.update(hits={label: "0" * len(h) for label, h in r["hits"].items()})),
        ("judge.accuracy", lambda r: r["judge"].update(accuracy=0.999)),
        ("judge", lambda r: r["judge"].update(gate=0.0001)),
        ("chance", lambda r: r.update(chance=0.25)),
        ("data", lambda r: r["data"].update(num_classes=300)),
        ("victim_net", lambda r: r.update(victim_net="vgg16")),
        ("metric_info", lambda r: r["metric_info"]["aa"].update(better="higher")),
        ("attack", lambda r: r["attack"]["params"].update(max_iter=4000)),
        ("attack", lambda r: r["attack"].update(control=True)),
    ],
)
def test_an_edited_record_is_found_out(
    what: str, change: Callable[[dict[str, Any]], None], good: Members, verified: Callable[[bytes], Verdict]
) -> None:
    def changed(record: dict[str, Any]) -> None:
        before = canonical(record)
        change(record)
        if what == "hits" and canonical(record) == before:  # there was no hit: then claim one
            record["hits"] = {label: "1" * len(bits) for label, bits in record["hits"].items()}
        assert canonical(record) != before

    verdict = verified(edited(good, changed))
    assert {one.what for one in verdict.differences} == {what}
    assert not verdict.is_true


def test_a_flag_that_was_taken_off_is_found_out(good: Members, verified: Callable[[bytes], Verdict]) -> None:
    """Judges know too few people for the gate of the suite, and no record says so."""
    suite = good["suite.toml"].replace(b"min_accuracy = 0.0", b"min_accuracy = 1.0")

    def raised(records: list[dict[str, Any]]) -> None:
        for record in records:
            record["judge"]["gate"] = 1.0

    bare = with_records({**good, "suite.toml": suite}, raised)
    tables = tomllib.loads(suite.decode())
    digest = ground_digest(ground_suite(tables, kind="defense", where="x", split=None))
    verdict = verified(sealed(bare, lambda manifest: manifest["suite"].update(digest=digest)))
    assert {one.what for one in verdict.differences} == {"flags"}
    assert all("_below_gate" in one.found and one.said == "[]" for one in verdict.differences)


def test_an_edited_image_changes_numbers(good: Members, verified: Callable[[bytes], Verdict]) -> None:
    cell = mine([json.loads(line) for line in good["records.jsonl"].splitlines()])["cell"]
    name = f"reconstructions/{cell}.safetensors"
    tensors = load(good[name])
    tensors["0/images"] = 255 - tensors["0/images"]
    verdict = verified(sealed({**good, name: save(tensors)}))
    assert {one.cell for one in verdict.differences} == {cell}
    assert {"fid", "knn_distance"} <= {one.what for one in verdict.differences}


def test_edited_answers_change_the_accuracy(good: Members, verified: Callable[[bytes], Verdict]) -> None:
    right = torch.arange(3).repeat_interleave(2)  # as the test images lie: two of each person
    answers = [name for name in good if name.startswith("answers/")]
    changed = {**good, **{name: save({"test": right}) for name in answers}}
    assert {"mc_all"} <= {one.what for one in verified(sealed(changed)).differences}


def test_other_judges_than_ours_leave_bounds_and_no_more(
    good: Members, verified: Callable[[bytes], Verdict]
) -> None:
    """Who says that the judges were others, as on another machine, gains the bounds alone."""

    def elsewhere(manifest: dict[str, Any]) -> None:
        manifest["rulers"]["judge"] = "0" * 64

    def by(factor: float) -> Members:
        def change(records: list[dict[str, Any]]) -> None:
            mine(records)["estimates"]["fid"]["value"] *= factor

        return with_records(good, change)

    near = verified(sealed(by(1.05), elsewhere))
    assert (near.is_true, near.is_exact) == (True, False)
    assert next(line for line in near.lines if line.name == "fid").within == 1
    far = verified(sealed(by(0.5), elsewhere))
    assert [one.what for one in far.differences] == ["fid"]
    assert verified(sealed(by(1.05))).is_true is False


def test_images_of_real_people_stay_at_home(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terms that forbid it leave images out, and nothing can be recomputed."""
    monkeypatch.setattr(packing, "may_show_images", lambda _record: False)
    made = make_bundle(results, tmp_path / "shield.zip")
    assert made.is_withheld
    assert sorted(members_of(made.file.read_bytes())) == [
        "bundle.json",
        "plugin.py",
        "records.jsonl",
        "suite.toml",
    ]
    verdict = verify(made.file, How(store=Store(tmp_path / "store")))
    assert (verdict.trust, verdict.lines) == ("self-reported", ())
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda r: dataclasses.replace(r, status="failed", error={"message": "it raised"}),
            "failed .it raised.",
        ),
        (
            lambda r: dataclasses.replace(r, keys={**r.keys, "measure": "0" * 64}),
            "another version of mibench",
        ),
    ],
)
def test_what_cannot_be_packed_is_told(
    change: Callable[[Record], Record], sentence: str, results: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "mini"
    (tmp_path / "store").symlink_to(results.parent / "store")
    copy.mkdir()
    (copy / "cells").symlink_to(results / "cells")
    records = read_records(results / "records.jsonl")
    records[-1] = change(records[-1])
    write_records(copy / "records.jsonl", records)
    with pytest.raises(BoardError, match=sentence):
        make_bundle(copy, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_missing_artifacts_are_told(results: Path, tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=r"of cell [0-9a-f]{12} is not there\. Give the --store"):
        packing.pack(
            results, kind="defense", label="shield", out=tmp_path / "x.zip", store=Store(tmp_path / "no")
        )
    with pytest.raises(BoardError, match=r"have no attack 'nobody'\. There are: mean_face, mi_face"):
        packing.pack(
            results, kind="attack", label="nobody", out=tmp_path / "x.zip", store=Store(tmp_path / "no")
        )


def test_an_attack_is_submitted_with_all_that_it_met(results: Path, tmp_path: Path, shelf: Path) -> None:
    """`mi_face` is built in, and meets a defense from a file, which a bundle of an attack cannot hold."""
    with pytest.raises(BoardError, match="'shield' comes from a file too"):
        packing.pack(
            results,
            kind="attack",
            label="mi_face",
            out=tmp_path / "x.zip",
            store=Store(results.parent / "store"),
        )


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """A board of the suite `mini`."""
    folder = tmp_path / "boards" / "faces"
    folder.mkdir(parents=True)
    (folder / "board.toml").write_text(
        'schema = 1\ntitle = "Faces"\nsuite = "suite.toml"\naccess = "white-box"\n', encoding="utf-8"
    )
    (folder / "suite.toml").write_text(SUITE.replace('"mini"', '"faces"'), encoding="utf-8")
    return read_board(folder)


def test_a_true_bundle_becomes_an_entry(packed: Packed, board: Board, shelf: Path) -> None:
    name, entry = admit(packed.file, board, How(store=Store(shelf)), submitted="2026-01-31")
    assert (name, entry.trust, entry.plugin, entry.submitted) == (
        "shield",
        "recomputed",
        "shield",
        "2026-01-31",
    )
    assert read_entry(board.folder / "entries" / "shield.json") == entry
    source = (board.folder / "plugins" / "shield.py").read_bytes()
    assert source == members_of(packed.file.read_bytes())["plugin.py"]
    with pytest.raises(BoardError, match="'shield' stands there already"):
        admit(packed.file, board, How(store=Store(shelf)))
    with pytest.raises(BoardError, match=r"shield\.py is there already"):
        admit(packed.file, board, How(store=Store(shelf)), name="shield2")


@pytest.mark.parametrize(
    ("name", "sentence"), [("../x", "its name is none"), ("none", "'none' stands there already")]
)
def test_no_name_leaves_the_board(
    name: str, sentence: str, packed: Packed, board: Board, shelf: Path
) -> None:
    with pytest.raises(BoardError, match=sentence):
        admit(packed.file, board, How(store=Store(shelf)), name=name)
    assert not (board.folder / "entries").exists()
    assert not (board.folder / "plugins").exists()


def test_the_command_puts_a_bundle_on_a_board(
    packed: Packed, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    boards = ("--boards", str(board.folder.parent))
    assert main(["board", "add", "faces", str(packed.file), "--as", "armor", *boards]) == 0
    assert "Its numbers are recomputed." in capsys.readouterr().out.splitlines()
    entry = read_entry(board.folder / "entries" / "armor.json")
    assert (entry.trust, entry.title) == ("recomputed", BAD_TITLE)
    assert main(["board", "add", "faces", str(packed.file), "--title", "x", *boards]) == 2
    assert "a bundle says itself what it is" in capsys.readouterr().err


def test_an_untrue_bundle_becomes_none(good: Members, board: Board, shelf: Path, tmp_path: Path) -> None:
    def better(record: dict[str, Any]) -> None:
        record["estimates"]["fid"]["value"] *= 2

    (tmp_path / "their.zip").write_bytes(edited(good, better))
    with pytest.raises(BoardError, match=r"1 numbers are not as its records say; the first: cell \w+, fid"):
        admit(tmp_path / "their.zip", board, How(store=Store(shelf)))
    assert not (board.folder / "entries").exists()
    assert not (board.folder / "plugins").exists()


def test_a_board_judges_by_its_own_suite(packed: Packed, board: Board, shelf: Path) -> None:
    file = board.folder / "suite.toml"
    file.write_text(
        file.read_text().replace("epochs = 2, batch = 8", "epochs = 3, batch = 8"), encoding="utf-8"
    )
    with pytest.raises(BoardError, match="was not measured by the settings of this suite"):
        admit(packed.file, board, How(store=Store(shelf)))
    file.write_text(SUITE + "[attacks.nearest_public]\n", encoding="utf-8")
    with pytest.raises(BoardError, match="lacks the cell with 'nearest_public'"):
        admit(packed.file, board, How(store=Store(shelf)))


def test_a_board_leaves_attacks_out_that_need_more_access(board: Board) -> None:
    rules = dataclasses.replace(board.rules, access="label")
    with_labels = board_suite(dataclasses.replace(board, rules=rules))
    assert [one.label for one in with_labels.attacks] == ["mean_face"]
    assert [one.label for one in board_suite(board).attacks] == ["mean_face", "mi_face"]


def test_card_texts_do_no_harm_where_they_are_shown(packed: Packed) -> None:
    entry: Entry = packed.manifest.entry()
    assert "<" not in markdown(entry.title)
    assert not re.search(r"\\write(?!\w)", latex(entry.title).replace(r"\textbackslash{}write", ""))
    assert csv_text("=" + entry.title).startswith("'=")
    assert plain(entry.title).isprintable()


def test_a_manifest_is_canonical(packed: Packed, good: Members) -> None:
    assert good["bundle.json"] == packed.manifest.to_bytes()
    assert isinstance(packed.manifest, Manifest)
    assert canonical(json.loads(good["bundle.json"])) == good["bundle.json"].decode().rstrip("\n")


def test_a_terminal_gets_no_orders_from_a_name(tmp_path: Path, capsys: Any) -> None:
    """A path is no part of a bundle, but comes from others as well."""
    file = tmp_path / "x\x1b[2J\n.zip"
    file.write_bytes(b"")
    assert main(["submit", "verify", str(file)]) == 2
    assert capsys.readouterr().err.rstrip("\n").isprintable()


def test_pack_takes_one_side(tmp_path: Path, capsys: Any) -> None:
    assert main(["submit", "pack", str(tmp_path), "--out", "x.zip"]) == 2
    assert "give one of --defense and --attack" in capsys.readouterr().err
