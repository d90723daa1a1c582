"""The pages of plugins are those that their files and the committed records give."""

from __future__ import annotations

import dataclasses
import importlib
import json
from functools import cache
from pathlib import Path

import pytest

from mibench.record import Record, read_records, write_records
from mibench.registry import get_defense, list_defenses, plugin_names

ROOT = Path(__file__).parents[2]
BARE = Path("nowhere")  # a root without results


@pytest.fixture(autouse=True)
def docs_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules lie beside each other, as the script that they belong to finds them."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))


def generated(root: Path) -> dict[Path, str]:
    pages: dict[Path, str] = importlib.import_module("plugin_pages").pages(root)
    return pages


@cache
def bare() -> dict[Path, str]:
    """All pages as they are without any run."""
    return generated(BARE)


def seed_of(record: Record, seed: int, shift: float) -> Record:
    """The record as if of another seed, with every AA moved."""
    aa = {**(record.estimates["aa"] or {})}
    moved = {**record.estimates, "aa": {**aa, "value": aa["value"] + shift}}
    return dataclasses.replace(record, suite="defenses", seed=seed, estimates=moved)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A root with a run of the suite `defenses`, made of a committed run of another suite, of two seeds."""
    source = ROOT / "results" / "adaptive"
    records = read_records(source / "records.jsonl")
    folder = tmp_path / "results" / "defenses"
    both = [seed_of(one, seed, 0.02 * seed) for seed in (0, 1) for one in records]
    write_records(folder / "records.jsonl", both)
    (folder / "costs.jsonl").write_bytes((source / "costs.jsonl").read_bytes())
    return tmp_path


def page(root: Path, name: str) -> str:
    pages = bare() if root == BARE else generated(root)
    return pages[root / "docs" / "defenses" / f"{name}.md"]


def test_pages_are_fresh() -> None:
    stale = [
        str(path)
        for path, text in generated(ROOT).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run `make readme`"


@pytest.mark.parametrize("family", ["attacks", "defenses"])
def test_every_plugin_has_a_page(family: str) -> None:
    names = {path.stem for path in (ROOT / "docs" / family).glob("*.md")} - {"README"}
    assert names == set(plugin_names(family))


def test_without_a_run_nothing_measured_is_told() -> None:
    assert not any("On synthfaces" in text or "ms for each" in text for text in bare().values())
    assert "worst-case" not in page(BARE, "README")


@pytest.mark.parametrize("name", list_defenses())
def test_a_page_names_knob_view_and_weakness(name: str) -> None:
    text, plugin = page(BARE, name), get_defense(name)
    assert (f"| strength | `{plugin.strength}`" in text) == bool(plugin.strength)
    assert ("the undefended one" in text) == (plugin.acts == "output")
    assert ("| label | the victim's own, always |" in text) == plugin.keeps_label
    assert ("It is weak to" in text) == bool(plugin().weaknesses)


def test_the_options_against_a_weakness_are_those_of_auto() -> None:
    rounding, decoys = page(BARE, "rounding"), page(BARE, "gan_id")
    assert "| score or label | `views = 8`, `fill_zeros = true` |" in rounding
    assert "| white-box, stripped view | nothing |" in rounding
    assert "| white-box | `avoid_rounds = 1` |" in decoys
    assert "With `fresh = true` it is weak to noise drawn anew" in page(BARE, "ssd")
    assert "fresh" not in rounding


def test_numbers_are_means_over_seeds_beside_the_undefended(run: Path) -> None:
    records = read_records(run / "results" / "defenses" / "records.jsonl")
    cells = {(one.attack["label"], one.defense["label"]): one for one in records if one.seed == 0}
    shown = []
    for defense in ("none", "gan_id"):
        aa = cells["mirror_bb", defense].estimates["aa"]
        assert aa is not None
        value, low, high = (100 * aa[end] for end in ("value", "low", "high"))
        shown.append(f"{value + 1:.1f} [{low:.0f}-{high:.0f}]")  # half of the second seed's two points
    text = page(run, "gan_id")
    assert f"| mirror_bb | score | {shown[0]} | {shown[1]} |" in text
    assert "Means over 2 seeds" in text
    assert "| worst case of" in text
    assert "| FAR (decoy) (%) |  | " in text
    assert "mean_face | control" in text


def test_models_that_differ_between_attacks_are_told_apart(run: Path) -> None:
    """NetGuard has one model for each prior; an output step has the accuracy of the one victim."""
    netguard, rounding = page(run, "netguard"), page(run, "rounding")
    assert netguard.count("| MC (all) (%) (") == 2
    assert rounding.count("| MC (all) (%)") == 1


def test_seconds_are_of_the_defenses_own_tasks(run: Path) -> None:
    lines = (run / "results" / "defenses" / "costs.jsonl").read_text(encoding="utf-8").splitlines()
    costs = [json.loads(line) for line in lines]
    (output,) = (one["wall_s"] for one in costs if one["title"] == "output of ad_mi")
    trained = [one["wall_s"] for one in costs if one["stage"] == "train" and one["plugin"] == "gan_id"]
    assert f"{output:,.1f} seconds to learn the output step" in page(run, "ad_mi")
    assert "to train a model" not in page(run, "ad_mi")
    mean = sum(trained) / len(trained)
    assert f"{mean:,.1f} seconds to train a model, one core, mean of {len(trained)} models." in page(
        run, "gan_id"
    )


def test_a_failed_cell_says_so(run: Path) -> None:
    file = run / "results" / "defenses" / "records.jsonl"
    records = [
        dataclasses.replace(one, status="failed", estimates={}, metric_info={}, hits={}, keys={})
        if (one.attack["label"], one.defense["label"]) == ("gmi", "gan_id")
        else one
        for one in read_records(file)
    ]
    write_records(file, records)
    lines = [line for line in page(run, "gan_id").splitlines() if line.startswith("| gmi | white-box | ")]
    assert [line.rsplit(" | ", 1)[1] for line in lines] == ["failed |"]


def test_a_defense_that_cannot_act_says_why(run: Path) -> None:
    file = run / "results" / "defenses" / "records.jsonl"
    error = {"stage": "plan", "type": "BlockedError", "message": "it needs a residual net."}
    records = [
        dataclasses.replace(
            one, status="blocked", estimates={}, metric_info={}, hits={}, keys={}, error=error
        )
        if one.defense["label"] == "gan_id"
        else one
        for one in read_records(file)
    ]
    write_records(file, records)
    text = page(run, "gan_id")
    assert "Not measured: it needs a residual net." in text
    assert "| attack | access |" not in text


def test_the_undefended_stands_beside_no_other(run: Path) -> None:
    text = page(run, "none")
    assert "| of the model | none |" in text
    assert "| attack | access | AA (%), none | FID, none |" in text


def test_the_index_has_accuracy_and_worst_case(run: Path) -> None:
    lines = page(run, "README").splitlines()
    (gan_id,) = (line for line in lines if line.startswith("| [gan_id]"))
    (absent,) = (line for line in lines if line.startswith("| [mid]"))
    accuracy, worst = [word.strip() for word in gan_id.split("|")[-3:-1]]
    assert accuracy.startswith("94.6 [")
    assert worst.startswith("60.9 [")  # the hits of both seeds are the same here
    assert [word.strip() for word in absent.split("|")[-3:-1]] == ["", ""]


def test_a_query_costs_what_the_benchmark_measured(tmp_path: Path) -> None:
    file = tmp_path / "results" / "benchmarks" / "defenses.json"
    file.parent.mkdir(parents=True)
    cases = [("rounding-", 1.25, 1.04), ("lpa-", 40.0, 30.0), ("lpa-", 2.0, 1.5)]
    made = [
        {"name": f"test_a_query[{name}]", "extra_info": {"ms_per_query": ms, "ratio": ratio}}
        for name, ms, ratio in cases
    ]
    file.write_text(json.dumps({"benchmarks": made}))
    assert "1.25 ms for each image of a batch on one core, 1.0 times" in page(tmp_path, "rounding")
    assert "40.00 ms" in page(tmp_path, "lpa")
    assert "## A query" not in page(tmp_path, "mid")
