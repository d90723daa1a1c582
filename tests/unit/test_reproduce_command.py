"""`mibench reproduce`: files from records alone, a run of its own, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mibench.cli import main
from mibench.cli_reproduce import derived_suite
from mibench.record import SCHEMA
from mibench.reproduce import LAYOUTS, find_layout
from mibench.reproduce.result import VERDICTS

from .test_reproduce_verdicts import Json, made_up

FILES = {"table.md", "table.csv", "claims.csv", "table.tex", "table_page.tex", "table.html", "table.png"}
SUITE = """
name = "mini"
metrics = ["mc_all"]
[data]
size = 16
channels = 1
private = 3
private_images = 4
test_images = 2
public = 4
public_images = 2
defender = 2
defender_images = 2
[targets]
attacked = 2
images = 2
[victim]
net = "mlp"
width = 8
recipe = { epochs = 2, batch = 8 }
[judge]
net = "softmax_regression"
recipe = { epochs = 2, batch = 8 }
[defenses.none]
[attacks.nearest_public]
[more.attacks.mi_face]
max_iter = 2
[more.defenses.gan_id_ce]
plugin = "negative_ls"
[more.defenses.ad_mi]
steps = 2
epochs = 1
width = 4
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with made-up records of Table II on two seeds, which bear its claims."""
    return keep(tmp_path / "made", made_up(find_layout("tifs23/table2"), seeds=2, people=5))


def keep(folder: Path, records: list[Json]) -> Path:
    folder.mkdir()
    lines = [json.dumps({**one, "schema": SCHEMA, "victim_net": "small_vgg"}) for one in records]
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def told(folder: Path) -> int:
    """The exit code that the verdicts in the files of a table ask for."""
    verdicts = {one["verdict"] for name in ("table.csv", "claims.csv") for one in rows(folder / name)}
    assert verdicts <= set(VERDICTS)
    return 4 if "differs" in verdicts else 0


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_records_alone_are_enough_and_torch_is_not_loaded(results: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from mibench.cli import main; "
        f"words = ['reproduce', 'tifs23/table2', '--from', {str(results)!r}, '--out', {str(tmp_path)!r}]; "
        "code = main(words); "
        "print('torch' in sys.modules, code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False 0"
    folder = tmp_path / "reproduce" / "tifs23-table2-from-made"
    assert {file.name for file in folder.iterdir()} == FILES


def test_tables_hold_every_number_and_claim(results: Path, tmp_path: Path) -> None:
    words = ["reproduce", "tifs23/2", "--from", str(results / "records.jsonl"), "--out", str(tmp_path)]
    assert main(words) == 0
    folder = tmp_path / "reproduce" / "tifs23-table2-from-made"
    numbers = rows(folder / "table.csv")
    reported = [one for one in numbers if one["reported"]]
    assert len(reported) == len(find_layout("tifs23/table2").reported)
    mirror = next(
        one
        for one in numbers
        if (one["dataset"], one["attack"], one["our_defense"], one["metric"])
        == ("CelebA", "Mirror", "none", "AA")
    )
    assert (mirror["reported"], mirror["measured"], mirror["seeds"]) == ("0.69", "1.0", "2")
    claims = {one["claim"]: one for one in rows(folder / "claims.csv")}
    assert claims["lowers-gan-id-mirror"]["verdict"] == "match"
    assert claims["lowers-gan-id-mirror"]["effect"] == "1.0"
    page = (folder / "table.html").read_text(encoding="utf-8")
    assert "GAN-ID FL lowers the accuracy of Mirror." in page
    assert "69" in (folder / "table.md").read_text(encoding="utf-8")


def test_an_opposite_is_exit_code_4_and_what_is_not_shown_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = made_up(find_layout("tifs23/table2"), seeds=2, people=5)
    for one in records:
        if one["defense"]["label"] == "gan_id":  # costs 40 points
            one["estimates"]["mc_all"] = {"value": 0.5, "low": 0.49, "high": 0.51, "count": 9000}
        if one["defense"]["label"] == "gan_d":  # costs 4 points, give or take one
            one["estimates"]["mc_all"] = {"value": 0.86, "low": 0.85, "high": 0.87, "count": 9000}
    worse = keep(tmp_path / "worse", records)
    words = ["reproduce", "tifs23/table2", "--from", str(worse), "--out", str(tmp_path)]
    assert main(words) == 4
    folder = tmp_path / "reproduce" / "tifs23-table2-from-worse"
    assert told(folder) == 4
    claims = {one["claim"]: one["verdict"] for one in rows(folder / "claims.csv")}
    assert (claims["keeps-gan-id"], claims["keeps-gan-d"]) == ("differs", "not shown")
    counts = "Claims: 33 match, 1 differ, 3 not shown, 4 not comparable."
    assert counts in capsys.readouterr().out
    for name in ("table.md", "table.html"):
        page = (folder / name).read_text(encoding="utf-8")
        assert counts in page
        assert "○" in page
    assert "$\\circ$" in (folder / "table.tex").read_text(encoding="utf-8")
    assert '<td class="not-shown">○</td>' in (folder / "table.html").read_text(encoding="utf-8")


def test_the_same_records_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    words = ["reproduce", "tifs23/table2", "--from", str(results), "--out"]
    contents = []
    for name in ("one", "two"):
        main([*words, str(tmp_path / name)])
        folder = tmp_path / name / "reproduce" / "tifs23-table2-from-made"
        contents.append({file.name: file.read_bytes() for file in sorted(folder.iterdir())})
    assert contents[0] == contents[1]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("name", ["tifs23/table2", "bido", "lpa"])
def test_the_latex_document_compiles(results: Path, tmp_path: Path, name: str) -> None:
    main(["reproduce", name, "--from", str(results), "--out", str(tmp_path)])
    folder = tmp_path / "reproduce" / f"{LAYOUTS[name].slug}-from-made"
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table_page.tex"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_every_table_is_written_from_any_records(results: Path, tmp_path: Path, name: str) -> None:
    assert main(["reproduce", name, "--from", str(results), "--out", str(tmp_path)]) == 0
    (folder,) = (tmp_path / "reproduce").iterdir()
    assert {file.name for file in folder.iterdir()} == FILES
    assert told(folder) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tifs32/table2"], "reproduce: no table 'tifs32/table2'. Did you mean 'tifs23/table2'?"),
        (["tifs23/table7"], "reproduce: no table 'tifs23/table7'."),
        (["bido", "--suite", "no_such_suite"], "unknown suite 'no_such_suite'."),
        (["bido", "--from", "."], "results .: holds no records.jsonl."),
        (["bido", "--from", ".", "--suite", "quick"], "reproduce: --suite quick and --from . both name"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_a_run_of_its_own_meets_what_the_suite_has_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mini.toml").write_text(SUITE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = ["reproduce", "tifs23/table3", "--suite", "mini.toml", "--jobs", "1", "--device", "cpu"]
    code = main(words)
    folder = tmp_path / "results" / "reproduce" / "tifs23-table3-mini"
    assert code == told(folder)
    assert {file.name for file in folder.iterdir()} >= {*FILES, "records.jsonl"}
    numbers = rows(folder / "table.csv")
    measured = {one["our_defense"] for one in numbers if one["measured"]}
    assert measured == {"none", "gan_id_ce"}
    assert {one["our_attack"] for one in numbers if one["measured"]} == {"mi_face"}
    why = {
        one["why"] for one in numbers if one["our_defense"] == "random_fake" and one["attack"] == "Privacy"
    }
    assert why == {"suite mini has no defense 'random_fake'"}
    capsys.readouterr()
    main(words)
    assert "0 of " in capsys.readouterr().out.splitlines()[0]  # all of it lies in the store
    assert main(["reproduce", "tifs23/table3", "--from", str(folder)]) == code
    assert sorted((tmp_path / "results" / "reproduce").iterdir()) == [folder]


@pytest.mark.parametrize(
    ("targets", "seeds"),
    [("attacked = 2", (0, 1)), ("attacked = 2\nlabels = [0]", (0,)), ("attacked = 10\nprotected = 10", (0,))],
)
def test_a_second_seed_is_run_where_it_adds_people_to_few(
    tmp_path: Path, targets: str, seeds: tuple[int, ...]
) -> None:
    suite = SUITE.replace("attacked = 2", targets).replace("private = 3", "private = 12")
    (tmp_path / "mini.toml").write_text(suite, encoding="utf-8")
    assert derived_suite(find_layout("tifs23/table3"), tmp_path / "mini.toml").seeds == seeds


def test_a_figure_shows_the_cells_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mini.toml").write_text(SUITE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = ["reproduce", "tifs23/fig2", "--suite", "mini.toml", "--jobs", "1", "--device", "cpu"]
    assert main(words) == 0
    folder = tmp_path / "results" / "reproduce" / "tifs23-fig2-mini"
    assert (folder / "faces.png").stat().st_size > 1000
    assert "faces.png" in (folder / "table.html").read_text(encoding="utf-8")
    views = {json.loads(line)["view"] for line in (folder / "records.jsonl").read_text().splitlines()}
    assert views == {"stripped", "deployed"}
