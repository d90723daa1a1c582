"""The comparison table: what stands where, what is best, what the caption says."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import pytest

from mibench.errors import RecordError
from mibench.report import Comparison, comparison

Make = Callable[..., Any]
GMI = ("gmi", "white-box", False, 0.4)
BLACK_BOX = ("brep", "label", False, 0.4)
CONTROL = ("mean_face", "score", True, 0.05)


def defense(name: str) -> tuple[str, str, float, float]:
    return (name, "training", 0.9, 0.5)


def estimate(
    value: float, *, low: float | None = None, high: float | None = None, count: int = 32
) -> dict[str, Any]:
    return {
        "value": value,
        "low": value if low is None else low,
        "high": value if high is None else high,
        "count": count,
    }


def table_of(
    make_record: Make, values: dict[str, dict[str, Any]], attack: Any = GMI, **options: Any
) -> Comparison:
    """A table of one attack from the estimates of each defense."""
    records = [make_record(attack, defense(name), estimates=found) for name, found in values.items()]
    return comparison(records, **options)


def shown(table: Comparison, metric: str, row: int = 0) -> list[str]:
    """What stands in the columns of a metric, bold in asterisks."""
    index = [info.name for info in table.metrics].index(metric)
    entries = [table.entries[row, d, index] for d in range(len(table.defenses))]
    return [f"*{entry.shown}*" if entry.best else entry.shown for entry in entries]


def test_attacks_come_first_then_controls(make_record: Make) -> None:
    records = [make_record(attack, defense("a")) for attack in (CONTROL, GMI, BLACK_BOX)]
    assert [row.label for row in comparison(records).rows] == ["gmi", "brep", "mean_face"]
    assert [row.control for row in comparison(records).rows] == [False, False, True]


def test_a_view_is_named_where_an_attack_has_two(make_record: Make) -> None:
    records = [make_record(GMI, view="stripped"), make_record(GMI, view="deployed"), make_record(BLACK_BOX)]
    assert [row.label for row in comparison(records).rows] == ["gmi (stripped)", "gmi (deployed)", "brep"]


def test_percentages_have_one_decimal_and_whole_intervals(make_record: Make) -> None:
    table = table_of(make_record, {"a": {"aa": estimate(0.625, low=0.408, high=0.797)}}, metrics=["aa"])
    assert (table.entries[0, 0, 0].shown, table.entries[0, 0, 0].extra) == ("62.5", "[41\N{EN DASH}80]")
    table = table_of(
        make_record, {"a": {"aa": estimate(0.625, low=0.4, high=0.8)}}, metrics=["aa"], intervals=False
    )
    assert (table.entries[0, 0, 0].shown, table.entries[0, 0, 0].extra) == ("62.5", "")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([113.44, 9.0], ["113.4", "9.0"]),
        ([4213.6, 9.0], ["4214", "9"]),
        ([0.01234, 0.002], ["0.0123", "0.0020"]),
        ([1.2345, -0.0001], ["1.23", "0.00"]),
        ([0.0, 0.0], ["0.0", "0.0"]),
    ],
)
def test_distances_have_about_three_digits(make_record: Make, values: list[float], texts: list[str]) -> None:
    estimates = {str(i): {"fid": estimate(value)} for i, value in enumerate(values)}
    assert [text.strip("*") for text in shown(table_of(make_record, estimates), "fid")] == texts


def test_the_defenders_best_is_bold(make_record: Make) -> None:
    values = {
        "a": {"aa": estimate(0.2), "fid": estimate(300.0)},
        "b": {"aa": estimate(0.1), "fid": estimate(250.0)},
        "c": {"aa": estimate(0.1004), "fid": estimate(100.0)},
    }
    table = table_of(make_record, values)
    assert shown(table, "aa") == ["20.0", "*10.0*", "*10.0*"]  # equal as printed, so both
    assert shown(table, "fid") == ["*300.0*", "250.0", "100.0"]


def test_nothing_is_best_among_equals_controls_or_different_counts(make_record: Make) -> None:
    equal = {"a": {"aa": estimate(0.1)}, "b": {"aa": estimate(0.1)}}
    assert shown(table_of(make_record, equal), "aa") == ["10.0", "10.0"]
    unequal = {"a": {"aa": estimate(0.1)}, "b": {"aa": estimate(0.2)}}
    assert shown(table_of(make_record, unequal, CONTROL), "aa") == ["10.0", "20.0"]
    counts = {"a": {"fid": estimate(90.0, count=50)}, "b": {"fid": estimate(80.0, count=60)}}
    table = table_of(make_record, counts)
    assert shown(table, "fid") == ["90.0", "80.0"]
    assert "do not compare" in " ".join(table.caption)


def test_cells_without_numbers_say_why(make_record: Make) -> None:
    error = {"stage": "train", "type": "TrainingError", "message": "loss is NaN."}
    records = [
        make_record(GMI, defense("a")),
        make_record(GMI, defense("b"), status="failed", error=error, estimates={}, metric_info={}),
        make_record(GMI, defense("c"), status="blocked", error=error, estimates={}),
        make_record(GMI, defense("d"), estimates={"aa": None}),
        make_record(BLACK_BOX, defense("e")),
    ]
    table = comparison(records, metrics=["aa"])
    assert shown(table, "aa")[1:] == ["failed", "\N{EN DASH}", "n/a", "·"]
    assert table.footnotes == (("a", "Failed: train: TrainingError: loss is NaN."),)
    assert table.entries[0, 1, 0].marks == "a"
    legend = " ".join(table.caption)
    assert all(text in legend for text in ("\N{EN DASH}: ", "n/a: ", "·: "))


def test_seeds_are_averaged_and_their_deviation_is_printed(make_record: Make) -> None:
    values = [0.1, 0.4, 0.25]
    records = [make_record(GMI, seed=s, estimates={"aa": estimate(v)}) for s, v in enumerate(values)]
    entry = comparison(records, metrics=["aa"]).entries[0, 0, 0]
    spread = 100 * statistics.stdev(values)
    assert entry.value == pytest.approx(100 * statistics.mean(values))
    assert (entry.shown, entry.extra, entry.seeds) == ("25.0", f"±{spread:.1f}", 3)
    assert (entry.low, entry.high) == pytest.approx((25 - spread, 25 + spread))
    assert entry.cell == records[0]["cell"]


def test_a_failed_seed_is_a_footnote_of_the_mean(make_record: Make) -> None:
    error = {"stage": "invert", "type": "RuntimeError", "message": "out of memory"}
    records = [
        make_record(GMI, seed=0, status="failed", error=error, estimates={}),
        *(make_record(GMI, seed=s, estimates={"aa": estimate(0.5)}) for s in (1, 2)),
    ]
    table = comparison(records, metrics=["aa"])
    entry = table.entries[0, 0, 0]
    assert (entry.shown, entry.seeds, entry.marks) == ("50.0", 2, "a")
    assert table.footnotes == (("a", "Seed 0: failed: invert: RuntimeError: out of memory"),)
    assert entry.cell == records[1]["cell"]


def test_seeds_that_failed_alike_share_a_footnote(make_record: Make) -> None:
    error = {"stage": "invert", "type": "RuntimeError", "message": "out of memory"}
    fields = {"status": "failed", "error": error, "estimates": {}}
    records = [make_record(GMI, defense(n), seed=s, **fields) for n in "ab" for s in (0, 1, 2)]
    records[2] = make_record(GMI, defense("a"), seed=2)
    table = comparison(records, metrics=["aa"])
    assert table.footnotes == (
        ("a", "Seeds 0, 1: failed: invert: RuntimeError: out of memory"),
        ("b", "Failed: invert: RuntimeError: out of memory"),
    )


def test_a_flag_is_a_footnote_and_one_of_all_cells_a_sentence(make_record: Make) -> None:
    records = [make_record(GMI, defense(n), flags=["judge_below_gate"]) for n in "ab"]
    records[1]["flags"] = ["judge_below_gate", "constant_reconstructions"]
    table = comparison(records)
    assert table.footnotes == (("a", "Constant reconstructions"),)
    assert "Every measured cell is flagged: judge below gate." in table.caption


def test_the_caption_states_what_an_attack_accuracy_needs(make_record: Make) -> None:
    text = " ".join(comparison([make_record(GMI, defense(n)) for n in "ab"]).caption)
    for fact in (
        "AA over 32 reconstructions per cell of 4 protected labels.",
        "FID at n = 32.",
        "Chance level of AA: 1.0 %.",
        "The judge (small_resnet) recognizes 97.4 % of real test images.",
        "Seed 0.",
        "Stripped view",
        "[95 % interval]",
    ):
        assert fact in text


def test_a_judge_under_its_gate_is_named(make_record: Make) -> None:
    judge = {"net": "small_resnet", "accuracy": 0.81, "gate": 0.9, "audit_accuracy": None}
    text = " ".join(comparison([make_record(judge=judge)]).caption)
    assert "only 81.0 % of real test images, under the gate of 90 %" in text


def test_the_headline_metrics_are_the_default(make_record: Make) -> None:
    assert [m.name for m in comparison([make_record()]).metrics] == ["mc_all", "mc_target", "aa", "fid"]
    assert [m.heading for m in comparison([make_record()], metrics=["fid", "aa"]).metrics] == [
        "FID ↑",
        "AA ↓",
    ]


def test_unknown_metrics_and_empty_input_are_refused(make_record: Make) -> None:
    with pytest.raises(RecordError, match="Did you mean 'fid'"):
        comparison([make_record()], metrics=["fidd"])
    with pytest.raises(RecordError, match="none to compare"):
        comparison([])


def test_a_run_in_which_everything_failed_still_has_a_table(make_record: Make) -> None:
    error = {"stage": "judge", "type": "TrainingError", "message": "loss is NaN."}
    fields = {"status": "failed", "error": error, "estimates": {}, "metric_info": {}}
    judge = {"net": "small_resnet", "accuracy": None, "gate": 0.9, "audit_accuracy": None}
    table = comparison([make_record(judge=judge, **fields)])
    assert [entry.state for entry in table.entries.values()] == ["failed"]
    assert table.footnotes == (("a", "Failed: judge: TrainingError: loss is NaN."),)
    for text in (table.to_csv(), table.to_markdown(), table.to_latex(), table.to_html()):
        assert "dmi" in text
        assert "failed" in text
