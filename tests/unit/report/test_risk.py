"""Who leaks: shares of people, the worst tenth without the bias of choosing it, and the histograms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from mibench.report import risk_plot
from mibench.report.risk import Exposure, exposures, risk_frame, tail_mean, to_markdown
from mibench.report.write import write_plots, write_tables
from mibench.statistics import wilson

from .conftest import ATTACKS, DEFENSES, Record, make_record

PEOPLE = [str(i) for i in range(6)]
NONE, BIDO, PURIFIER, GAN_ID = (DEFENSES[i] for i in (0, 2, 4, 5))


def record(defense: Any, hits: dict[str, str], attack: Any = ATTACKS[0], **changes: Any) -> Record:
    return make_record(attack, defense, hits=hits, **changes)


def same(hits: str) -> dict[str, str]:
    return dict.fromkeys(PEOPLE, hits)


def both(defense: Any, one: dict[str, str], other: dict[str, str], **changes: Any) -> list[Record]:
    """Records of two attacks."""
    return [record(defense, hits, attack, **changes) for attack, hits in zip(ATTACKS, (one, other))]


def of(found: list[Exposure], defense: str) -> Exposure:
    (one,) = [one for one in found if one.defense == defense]
    return one


def test_each_person_has_the_best_attack_and_the_mean_over_attacks() -> None:
    halves = {one: "1111" if int(one) < 2 else "0000" for one in PEOPLE}
    others = {one: "0000" if int(one) < 4 else "1111" for one in PEOPLE}
    found = of(exposures(both(NONE, halves, others)), "none")
    assert found.attacks == 2
    assert found.people == tuple(PEOPLE)
    assert found.worst.tolist() == [1, 1, 0, 0, 1, 1]
    assert found.mean.tolist() == [0.5, 0.5, 0, 0, 0.5, 0.5]
    share, low, high = found.exposed
    assert share == pytest.approx(4 / 6)
    assert 0 < low < share < high < 1


def test_people_of_two_seeds_are_two_rows_and_one_group() -> None:
    records = [one for seed in (0, 1) for one in both(NONE, same("1111"), same("0000"), seed=seed)]
    one = of(exposures(records), "none")
    assert (len(one.people), one.seeds) == (12, (0,) * 6 + (1,) * 6)
    frame = risk_frame([one])
    assert frame.columns.tolist() == ["scene", "defense", "person", "seed", "attacks", "aa_worst", "aa_mean"]
    assert frame.shape[0] == 12
    assert set(frame["aa_mean"]) == {0.5}


def test_one_attack_is_enough_and_attacks_that_one_defense_missed_do_not_count() -> None:
    alone = exposures([record(NONE, same("1100"))])
    assert (alone[0].attacks, alone[0].worst.tolist()) == (1, [0.5] * 6)
    records = [*both(NONE, same("1111"), same("0000")), record(BIDO, same("0000"), ATTACKS[1])]
    assert [(one.defense, one.attacks) for one in exposures(records)] == [("none", 2)]
    assert of(exposures([*records, record(BIDO, same("1000"))]), "bido").attacks == 2


def test_fewer_than_five_people_controls_and_records_without_hits_have_no_risk() -> None:
    few = dict.fromkeys("1234", "11")
    assert exposures([record(NONE, few), record(BIDO, few)]) == []
    control = ATTACKS[6]
    assert control[2]
    assert exposures([record(NONE, same("11"), control), make_record()]) == []


def test_the_worst_tenth_shares_ties_and_takes_at_least_one() -> None:
    scored = np.array([0.0, 1.0, 0.5, 0.25])
    assert tail_mean(np.array([0.1, 0.9, 0.2, 0.3]), scored) == 1.0
    assert tail_mean(np.array([0.9, 0.9, 0.2, 0.3]), scored) == 0.5
    # 20 people: the worst two are one for sure and one of three that are equal
    judged = np.array([1.0] + [0.5] * 3 + [0.0] * 16)
    scores = np.array([1.0, 0.9, 0.0, 0.3] + [0.0] * 16)
    assert tail_mean(judged, scores) == pytest.approx((1.0 + 0.4) / 2)


def test_the_worst_tenth_of_equal_people_is_not_above_their_mean() -> None:
    """Choosing and scoring on the same images would give 0.75 and more where everybody's rate is a half."""
    random = np.random.default_rng(0)
    people = [str(i) for i in range(400)]
    hits = {one: "".join(random.choice(["0", "1"], 8)) for one in people}
    one = of(exposures([record(NONE, hits)]), "none")
    assert one.worst_tenth == pytest.approx(0.5, abs=0.06)
    assert np.sort(one.worst)[-40:].mean() > 0.7


def test_the_table_says_who_how_many_and_how_sure() -> None:
    records = both(NONE, same("1111"), same("0000")) + both(BIDO, same("0000"), same("0000"))
    text = to_markdown(exposures(records))
    lines = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert lines["| none"].startswith("| none | 6 | 100.0 | 100.0 | 100.0 [")
    assert lines["| bido"].startswith("| bido | 6 | 0.0 | 0.0 | 0.0 [0.0 to ")
    assert ", 2 attacks" in text
    assert "nan" not in text
    assert "-" not in lines["| none"] + lines["| bido"]


def test_people_who_are_all_alike_are_no_certainty() -> None:
    (one,) = exposures([record(NONE, same("1111"))])
    assert one.mean_interval == wilson(6, 6)
    assert one.mean_interval[0] < 1
    seeds = exposures([record(NONE, same("0000"), seed=seed) for seed in (0, 1)])
    assert seeds[0].mean_interval == wilson(0, 6)
    assert " 0.0 [0.0 to 39.0] |" in to_markdown(seeds)
    (apart,) = exposures([record(NONE, {**same("1111"), "0": "0000"})])
    low, high = apart.mean_interval
    assert 0 < low < 5 / 6 < high == 1


def test_names_cannot_break_the_table() -> None:
    one = record(NONE, same("10"))
    one["defense"]["label"] = "a|b <script>"
    text = to_markdown(exposures([one]))
    assert "<script>" not in text
    assert r"a\|b" in text


def test_defenses_that_change_nobody_have_no_panel_and_equal_ones_share_one() -> None:
    plain, low = (same("1111"), same("0000")), (same("0100"), same("0000"))
    records = both(NONE, *plain) + both(PURIFIER, *plain) + both(BIDO, *low) + both(GAN_ID, *low)
    figure = risk_plot.histograms(exposures(records))
    assert figure is not None
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert titles == ["bido, gan_id\n0 % exposed"]
    (legend,) = figure.legends
    assert "no defense for everybody: purifier." in " ".join(legend.get_title().get_text().split())
    heights = sorted(bar.get_height() for bar in figure.axes[0].patches if isinstance(bar, Rectangle))
    assert heights[-2:] == [6, 6]
    assert risk_plot.histograms(exposures(both(NONE, *plain) + both(PURIFIER, *plain))) is None
    assert risk_plot.histograms(exposures(both(BIDO, *low))) is None


def test_files_are_written_where_there_are_people_enough(tmp_path: Path) -> None:
    records = both(NONE, same("1111"), same("0000")) + both(BIDO, same("0000"), same("0000"))
    names = {path.name for path in write_tables(records, tmp_path / "tables")}
    assert {"risk.csv", "risk.md"} <= names
    figures = {path.name: path for path in write_plots(records, tmp_path)}
    assert {"risk.png", "risk.pdf"} <= figures.keys()
    with Image.open(figures["risk.png"]) as opened:
        assert opened.width > 1000
    names = {path.name for path in write_tables([make_record()], tmp_path / "other")}
    assert not {"risk.csv", "risk.md"} & names
