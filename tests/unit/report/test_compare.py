"""`mibench compare`: differences, tie groups, what can be said, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mibench.cli import main
from mibench.errors import RecordError
from mibench.report.compare import compare
from mibench.report.compare_text import sentences, to_csv, to_html, to_latex, to_markdown

from .conftest import ATTACKS, DEFENSES, Record, make_record

PEOPLE = range(10)
NONE, DP, BIDO = DEFENSES[:3]
DMI, BREP = ATTACKS[2], ATTACKS[5]
HITS = {"none": "11111111", "dp_sgd": "11110000", "bido": "11110000"}


def cell(attack: Any, defense: Any, hits: str | None = None, **changes: Any) -> Record:
    """A cell over ten people; `hits` of each, or those of its defense."""
    shown = HITS[defense[0]] if hits is None else hits
    targets = {"protected": list(PEOPLE), "attacked": list(PEOPLE), "bystanders": [], "images": len(shown)}
    record = make_record(attack, defense, **changes)
    return record | {"targets": targets, "hits": {str(one): shown for one in PEOPLE}} | changes


def wrote(folder: Path, records: list[Record]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(one, sort_keys=True) + "\n" for one in records)
    (folder / "records.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two attacks against three defenses, two of which are alike."""
    return wrote(tmp_path / "quick", [cell(a, d) for a in (DMI, BREP) for d in (NONE, DP, BIDO)])


def test_a_difference_on_everybody_is_told_and_likes_are_tied(folder: Path) -> None:
    found = compare(["none", "dp_sgd", "bido"], folder=folder)
    assert [line.name for line in found.lines] == ["dmi", "brep", "worst case of 2"]
    first, _, last = found.lines[0].pairs
    assert (first.one, first.other, first.people, first.aa) == ("none", "dp_sgd", 10, (1.0, 0.5))
    assert first.difference == 0.5
    assert first.low <= 0.5 <= first.high
    assert first.test is not None
    assert first.test.p == pytest.approx(2 / 2**10)
    assert first.test.p_holm == pytest.approx(3 * 2 / 2**10)  # Holm over three pairs
    assert first.is_told_apart
    assert not last.is_told_apart
    assert found.lines[0].ranks.of == {"none": (3, 3), "dp_sgd": (1, 2), "bido": (1, 2)}
    said = sentences(found)[0]
    assert said.startswith("Under dmi: dp_sgd has a lower AA than none by 50.0 points [")
    assert "Of the other 1 pair nothing can be said." in said
    assert "Ranks: dp_sgd 1\N{EN DASH}2, bido 1\N{EN DASH}2, none 3." in said


def test_a_side_that_is_named_first_has_the_other_sign(folder: Path) -> None:
    one, other = (
        compare(words, folder=folder).lines[0].pairs[0] for words in (["none", "bido"], ["bido", "none"])
    )
    assert one.difference == -other.difference == 0.5
    assert one.test is not None
    assert other.test is not None
    assert one.test.gap == -other.test.gap
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_few_people_can_show_nothing_and_are_told_so(tmp_path: Path) -> None:
    few = [cell(DMI, d) for d in (NONE, DP)]
    for one in few:
        one["hits"] = dict(list(one["hits"].items())[:4])
        one["targets"] = one["targets"] | {"protected": [0, 1, 2, 3]}
    found = compare(["none", "dp_sgd"], folder=wrote(tmp_path, few))
    assert (
        "no difference could have been seen: the least p after Holm that 4 people can give is 0.12"
        in sentences(found)[0]
    )
    assert found.sight == "none"


def test_attacks_are_compared_against_a_defense(tmp_path: Path) -> None:
    records = [cell(DMI, NONE), cell(BREP, NONE, "10000000")]
    found = compare(["dmi", "brep"], folder=wrote(tmp_path, records), attacks=True)
    (line,) = found.lines
    assert (line.name, line.pairs[0].difference, line.pairs[0].is_told_apart) == ("none", 0.875, True)
    assert sentences(found)[0].startswith("Against none: brep has a lower AA than dmi by 87.5 points")


def test_one_run_under_two_names_is_no_competitor(tmp_path: Path) -> None:
    keys = {"models": [{"invert": "ab" * 32}]}
    records = [cell(DMI, NONE, keys=keys), cell(DMI, DEFENSES[4], HITS["none"], keys=keys)]
    found = compare(["none", "purifier"], folder=wrote(tmp_path, records))
    assert found.lines[0].pairs[0].test is None
    assert "the very same run" in sentences(found)[0]


def test_two_folders_are_compared_where_all_else_is_equal(tmp_path: Path) -> None:
    mine = wrote(tmp_path / "mine", [cell(DMI, NONE, "11000000")])
    wrote(tmp_path / "quick", [cell(DMI, NONE)])
    found = compare(["none", f"{mine}:none"], folder=tmp_path / "quick")
    assert list(found.sides) == ["quick:none", "mine:none"]
    assert found.lines[0].pairs[0].difference == 0.75


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"suite": "other"}, "the suite of 'quick:none' is quick, of 'mine:none' other"),
    ({"judge": {"net": "small_vgg", "accuracy": 0.974}}, "the judge of"),
    ({"judge": {"net": "small_resnet", "accuracy": 0.9}}, "the judge's accuracy of"),
    ({"victim_net": "mlp"}, "the victim's net of"),
    ({"data": {"digest": "0" * 64}}, "the data's digest of"),
    ({"targets": {"protected": list(PEOPLE), "images": 4}}, "the number of images of"),
    ({"targets": {"protected": [0, 1], "images": 8}}, "the list of protected labels of"),
    ({"seed": 1}, "share no seed"),
]


@pytest.mark.parametrize(("changes", "wanted"), CHANGES, ids=lambda one: str(one)[:30])
def test_what_differs_in_anything_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], wanted: str
) -> None:
    wrote(tmp_path / "quick", [cell(DMI, NONE)])
    mine = wrote(tmp_path / "mine", [cell(DMI, NONE) | changes])
    with pytest.raises(RecordError, match=wanted):
        compare(["none", f"{mine}:none"], folder=tmp_path / "quick")


def test_an_attack_with_other_settings_is_refused(tmp_path: Path) -> None:
    other = cell(DMI, NONE)
    other["attack"] = other["attack"] | {"params": {"steps": 3}}
    wrote(tmp_path / "quick", [cell(DMI, NONE)])
    with pytest.raises(RecordError, match=r"the attack 'dmi' has other settings, .* with 'mine:none'"):
        compare(["none", f"{wrote(tmp_path / 'mine', [other])}:none"], folder=tmp_path / "quick")


def test_an_attack_of_another_version_is_refused(tmp_path: Path) -> None:
    other = cell(DMI, NONE)
    other["attack"] = other["attack"] | {"version": 2}
    wrote(tmp_path / "quick", [cell(DMI, NONE)])
    with pytest.raises(RecordError, match="the attack 'dmi' has other settings, or another version, with"):
        compare(["none", f"{wrote(tmp_path / 'mine', [other])}:none"], folder=tmp_path / "quick")


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"train": "cd" * 32}, "the undefended victim of seed 0 is another run in"),
        ({"invert": "cd" * 32}, "'dmi' .* on the undefended victim of seed 0 is another run in"),
    ],
    ids=str,
)
def test_folders_that_trained_or_attacked_otherwise_without_a_defense_are_refused(
    tmp_path: Path, changed: dict[str, str], wanted: str
) -> None:
    keys = {"train": "ab" * 32, "invert": "ab" * 32}
    for name, own in (("quick", keys), ("mine", keys | changed)):
        undefended = cell(DMI, NONE, keys={"models": [own]})
        wrote(tmp_path / name, [undefended, cell(DMI, BIDO, keys={"models": [{"train": "ef" * 32}]})])
    words = ["none", f"{tmp_path / 'mine'}:bido"]
    with pytest.raises(RecordError, match=wanted):
        compare(words, folder=tmp_path / "quick")
    same = cell(DMI, NONE, keys={"models": [keys]})
    wrote(tmp_path / "mine", [same, cell(DMI, BIDO, keys={"models": [{"train": "ef" * 32}]})])
    assert compare(words, folder=tmp_path / "quick").lines[0].pairs[0].difference == 0.5


def drawn(defense: Any, seed: int, people: range) -> Record:
    """A cell whose protected labels its seed has drawn."""
    found = cell(DMI, defense, seed=seed)
    found["hits"] = {str(one): HITS[defense[0]] for one in people}
    found["targets"] = found["targets"] | {"protected": list(people)}
    return found


def test_people_that_each_seed_draws_anew_are_not_looked_at_twice(tmp_path: Path) -> None:
    both = [drawn(d, seed, range(8 * seed, 8 * seed + 8)) for seed in (0, 1) for d in (NONE, BIDO)]
    found = compare(["none", "bido"], folder=wrote(tmp_path / "drawn", both))
    alone = [drawn(d, 0, range(16)) for d in (NONE, BIDO)]
    once = compare(["none", "bido"], folder=wrote(tmp_path / "once", alone))
    assert found.lines[0].pairs[0].people == once.lines[0].pairs[0].people == 16
    assert found.sight == once.sight
    again = [drawn(d, seed, range(16)) for seed in (0, 1) for d in (NONE, BIDO)]
    twice = compare(["none", "bido"], folder=wrote(tmp_path / "twice", again))
    assert int(twice.sight.split()[0]) < int(once.sight.split()[0])


def test_folders_that_share_one_of_their_seeds_are_compared(tmp_path: Path) -> None:
    wrote(tmp_path / "quick", [drawn(NONE, seed, range(8 * seed, 8 * seed + 8)) for seed in (0, 1)])
    mine = wrote(tmp_path / "mine", [drawn(BIDO, 1, range(8, 16))])
    found = compare(["none", f"{mine}:bido"], folder=tmp_path / "quick")
    assert (list(found.seeds), found.lines[0].pairs[0].people) == ([1], 8)


def test_the_worst_case_counts_attacks_and_not_views(tmp_path: Path) -> None:
    records = [cell(DMI, d, view=view) for d in (NONE, BIDO) for view in ("stripped", "deployed")]
    records += [cell(BREP, d) for d in (NONE, BIDO)]
    found = compare(["none", "bido"], folder=wrote(tmp_path, records))
    assert found.lines[-1].name == "worst case of 2"
    assert len(found.lines) == 4


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["none"], "needs two or more"),
        (["none", "none"], "one is named twice"),
        (["none", "bidoo"], "no defense 'bidoo'. Did you mean 'bido'? It has none, dp_sgd, bido."),
        (["none", "nowhere:bido"], "results nowhere: holds no records.jsonl."),
        (
            ["none", "bido", "--under", "dmi", "--under", "gmi"],
            "no attack 'gmi' was measured with all of none, bido. They share dmi, brep.",
        ),
        (["dmi", "none", "--attacks"], "no attack 'none'."),
    ],
)
def test_wrong_words_are_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], wanted: str
) -> None:
    assert main(["compare", *words, "--in", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert wanted in err
    assert (out, len(err.splitlines())) == ("", 1)


def test_every_format_has_every_pair(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compare(["none", "dp_sgd", "bido"], folder=folder)
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert len(rows) == 9
    assert (rows[0]["difference"], rows[0]["told_apart"]) == ("0.5", "1")
    table = to_markdown(found)
    assert table.splitlines()[1].count("|") == table.splitlines()[2].count("|") == 11
    assert "told apart" in table
    assert to_html(found).count("<tr>") == 10
    tabular = to_latex(found).split("\\midrule")[1].split("\\bottomrule")[0]
    assert {line.count(" & ") for line in tabular.strip().splitlines()} == {9}
    assert main(["compare", "none", "bido", "--in", str(folder)]) == 0
    assert "told apart" in capsys.readouterr().out


def test_names_of_others_are_escaped(tmp_path: Path) -> None:
    evil = ("<b>|$x$", "training", 0.9, 0.5)
    found = compare(["none", evil[0]], folder=wrote(tmp_path, [cell(DMI, NONE), cell(DMI, evil, "00000000")]))
    assert "<b>" not in to_html(found)
    assert "<b>" not in to_markdown(found)
    assert "\\$x\\$" in to_latex(found)


def test_it_needs_no_torch(folder: Path) -> None:
    code = (
        f"from mibench.cli import main; main(['compare', 'none', 'bido', '--in', {str(folder)!r}]); "
        "import sys; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
