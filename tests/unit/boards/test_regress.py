"""What a night tells as suspicious, what becomes an alarm, and when: known histories, and any at all."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibench.boards.board import Alarms
from mibench.boards.history import Alarm, Estimate, Night, Seen
from mibench.boards.ledger import Pace
from mibench.boards.pace import Paces, compare, learn
from mibench.boards.recheck import of_records
from mibench.boards.regress import Evidence, Place, Verdict, difference, judge

_PEOPLE = 8


def seen(aa: float = 0.25, mc: float = 0.9, *, against: str = "a", status: str = "ok") -> Seen:
    estimate = Estimate(value=mc, low=mc - 0.03, high=mc + 0.03, count=400)
    people = {f"p{i}/0": aa for i in range(_PEOPLE)}
    made = Seen(
        worst=Estimate(value=aa),
        mc_all=estimate,
        mc_target=estimate,
        people=people,
        against=against,
        status="ok",
    )
    return replace(made, status=status)  # type: ignore[arg-type]  # tests name any


def night(number: int, rows: dict[str, Seen], verdict: Verdict, *, accepted: tuple[str, ...] = ()) -> Night:
    return Night(
        night=number,
        started="",
        ended="",
        software={},
        cells=1,
        hits=0,
        ran=0,
        failed=0,
        left_out=0,
        entries=rows,
        alarms=verdict.alarms,
        suspicions=verdict.suspicions,
        accepted=accepted,
    )


def tell(*levels: Seen, taken: dict[int, tuple[str, ...]] | None = None, nights: int = 2) -> list[Verdict]:
    """The verdicts of nights on which one row was seen like this."""
    history: list[Night] = []
    found = []
    for number, level in enumerate(levels, start=1):
        accepted = (taken or {}).get(number, ())
        rows = {"x": level}
        verdict = judge(history, rows, {}, rules=Alarms(nights=nights), accepted=accepted)
        found.append(verdict)
        history.append(night(number, rows, verdict, accepted=accepted))
    return found


def names(alarms: tuple[Alarm, ...]) -> list[tuple[str, str, int, bool]]:
    return [(one.entry, one.what, one.nights, one.is_new) for one in alarms]


def test_decline_is_suspected_then_alarms_once_and_stays_open_until_it_is_gone() -> None:
    good, bad = seen(0.25), seen(0.75)
    one, two, three, four, five = tell(good, bad, bad, bad, good)
    assert one == Verdict((), ())
    assert (names(two.alarms), names(two.suspicions)) == ([], [("x", "aa", 1, False)])
    assert (names(three.alarms), names(three.suspicions)) == ([("x", "aa", 2, True)], [])
    assert names(four.alarms) == [("x", "aa", 3, False)]
    assert five == Verdict((), ())
    assert (three.alarms[0].before, three.alarms[0].now) == (0.25, 0.75)


def test_one_bad_night_is_no_alarm() -> None:
    assert not any(verdict.alarms for verdict in tell(seen(0.25), seen(0.75), seen(0.25), seen(0.75)))


def test_better_is_no_alarm() -> None:
    assert tell(seen(0.75, 0.6), seen(0.25, 0.9), seen(0.0, 0.95)) == [Verdict((), ())] * 3


def test_fall_of_accuracy_is_told_for_both() -> None:
    *_, last = tell(seen(mc=0.9), seen(mc=0.7), seen(mc=0.7))
    assert [one.what for one in last.alarms] == ["mc_all", "mc_target"]
    assert all(one.high is not None and one.high < 0 for one in last.alarms)


def test_slow_decline_is_held_against_the_last_good_night() -> None:
    # the second step alone would be nothing; the reference stays where it was while the row is suspected
    verdicts = tell(seen(0.2), seen(0.7), seen(0.75), seen(0.7))
    assert [one.before for verdict in verdicts for one in (*verdict.alarms, *verdict.suspicions)] == [0.2] * 3


def test_accepted_level_is_the_new_reference() -> None:
    bad = seen(0.6)
    verdicts = tell(seen(0.25), bad, bad, bad, seen(1.0), seen(1.0), taken={4: ("x",)})
    assert verdicts[3] == Verdict((), ())
    assert names(verdicts[4].suspicions) == [("x", "aa", 1, False)]
    assert names(verdicts[5].alarms) == [("x", "aa", 2, True)]
    assert verdicts[5].alarms[0].before == 0.6


@pytest.mark.parametrize("status", ["failed", "left_out"])
def test_night_without_numbers_neither_clears_nor_counts(status: str) -> None:
    bad, none = seen(0.75), seen(0.25, status=status)
    verdicts = tell(seen(0.25), bad, none, bad)
    assert names(verdicts[2].suspicions)[0] == ("x", "aa", 1, False)
    assert names(verdicts[3].alarms) == [("x", "aa", 2, True)]


def test_row_that_worked_and_fails_is_told() -> None:
    verdicts = tell(seen(), seen(status="failed"), seen(status="failed"), seen())
    assert names(verdicts[1].suspicions) == [("x", "status", 1, False)]
    assert names(verdicts[2].alarms) == [("x", "status", 2, True)]
    assert verdicts[3] == Verdict((), ())


def test_row_that_never_worked_is_no_regression() -> None:
    assert tell(*[seen(status="failed")] * 4) == [Verdict((), ())] * 4


def test_other_attacks_are_no_regression() -> None:
    # a sharper attack on the board raises everybody's worst case, and is nobody's decline
    assert tell(seen(0.25), seen(0.75, against="b"), seen(0.75, against="b")) == [Verdict((), ())] * 3
    # and when it leaves, the row is held against the last night with the attacks that remain
    *_, last = tell(seen(0.25), seen(0.5, against="b"), seen(0.75))
    assert last.suspicions[0].before == 0.25


def test_removed_row_takes_its_alarms_with_it() -> None:
    *_, last = tell(seen(0.25), seen(0.75), seen(0.75), seen(0.75, status="removed"))
    assert last == Verdict((), ())


def test_attack_that_gets_weaker_alarms_and_one_that_gets_stronger_does_not() -> None:
    history: list[Night] = []
    for number, level in enumerate((0.75, 0.25, 0.25), start=1):
        verdict = judge(history, {}, {"gmi": seen(level)}, rules=Alarms())
        history.append(replace(night(number, {}, verdict), attacks={"gmi": seen(level)}))
    assert names(verdict.alarms) == [("gmi", "aa", 2, True)]
    assert verdict.alarms[0].kind == "attack"
    stronger = judge(history[:1], {}, {"gmi": seen(1.0)}, rules=Alarms())
    assert stronger == Verdict((), ())


def test_what_was_found_elsewhere_is_counted_likewise() -> None:
    slow: dict[Place, Evidence] = {("defense", "x", "wall_s"): Evidence(is_worse=True, before=10.0, now=40.0)}
    first = judge([], {"x": seen()}, {}, rules=Alarms(), more=slow)
    assert names(first.suspicions) == [("x", "wall_s", 1, False)]
    history = [night(1, {"x": seen()}, first)]
    silent = judge(history, {"x": seen()}, {}, rules=Alarms())
    assert names(silent.suspicions) == [("x", "wall_s", 1, False)]  # it was not timed again
    history.append(night(2, {"x": seen()}, silent))
    again = judge(history, {"x": seen()}, {}, rules=Alarms(), more=slow)
    assert names(again.alarms) == [("x", "wall_s", 2, True)]


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.25, 0.75, 1.0]), st.sampled_from(["ok", "failed", "left_out"]))
    ),
    st.integers(1, 3),
)
def test_any_history_alarms_only_after_as_many_bad_nights(
    levels: list[tuple[float, str]], nights: int
) -> None:
    verdicts = tell(*(seen(aa, status=status) for aa, status in levels), nights=nights)
    was_open: set[tuple[str, str]] = set()
    for i, verdict in enumerate(verdicts):
        for alarm in verdict.alarms:
            assert alarm.nights >= nights
            assert alarm.nights <= i  # the first night is nobody's decline
            assert alarm.is_new == ((alarm.entry, alarm.what) not in was_open)
        assert all(one.nights < nights for one in verdict.suspicions)
        was_open = {(one.entry, one.what) for one in verdict.alarms}


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.3), st.floats(0, 0.3))
def test_interval_of_a_difference_turns_with_its_sides(a: float, b: float, low: float, high: float) -> None:
    one, other = (Estimate(value=x, low=x - low, high=x + high) for x in (a, b))
    there, back = difference(one, other), difference(other, one)
    assert there is not None
    assert back is not None
    assert there[0] <= b - a <= there[1]
    assert there == pytest.approx((-back[1], -back[0]))
    assert difference(one, Estimate(value=b)) is None


_RULES = Alarms(slower=1.5, larger=1.25, least_s=10.0, least_mib=100.0)


@pytest.mark.parametrize(
    ("old", "new", "slow", "large"),
    [
        (Pace(wall_s=10, peak_mib=500), Pace(wall_s=16, peak_mib=500), True, False),
        (Pace(wall_s=10, peak_mib=500), Pace(wall_s=14, peak_mib=590), False, False),
        (Pace(wall_s=1, peak_mib=500), Pace(wall_s=9, peak_mib=500), False, False),  # too short to say
        (Pace(wall_s=10, work=1, peak_mib=500), Pace(wall_s=30, work=3, peak_mib=700), False, True),
        (Pace(wall_s=10, work=3, peak_mib=0), Pace(wall_s=10, work=1, peak_mib=700), True, False),
    ],
)
def test_times_and_memory(old: Pace, new: Pace, slow: bool, large: bool) -> None:
    found = compare({"x": {"train: x": old}}, {"x": {"train: x": new, "invert: y": new}}, _RULES)
    assert found["defense", "x", "wall_s"].is_worse == slow
    assert found["defense", "x", "peak_mib"].is_worse == large


def test_rows_without_common_tasks_are_not_timed() -> None:
    assert (
        compare(
            {"x": {"a": Pace(wall_s=1)}}, {"x": {"b": Pace(wall_s=99)}, "y": {"a": Pace(wall_s=9)}}, _RULES
        )
        == {}
    )


def test_level_of_a_suspicious_row_stays() -> None:
    levels: Paces = {"x": {"a": Pace(wall_s=1)}, "y": {"a": Pace(wall_s=1)}}
    tonight: Paces = {row: {"a": Pace(wall_s=9), "b": Pace(wall_s=2)} for row in ("x", "y")}
    learn(levels, tonight, {"x"})
    assert {name: pace.wall_s for name, pace in levels["x"].items()} == {"a": 1, "b": 2}
    assert {name: pace.wall_s for name, pace in levels["y"].items()} == {"a": 9, "b": 2}


def test_alarm_about_a_record_ends_with_its_cell() -> None:
    # a raised version gives the cell another name: nothing can repeat the old record, or differ from it
    alarm = Alarm(entry="x", what="record", before=0.5, now=0.25, nights=2, cell="old")
    history = [night(1, {"x": seen()}, Verdict((alarm,), ()))]
    for cells, is_open in (({"old"}, True), ({"new"}, False)):
        more = of_records(history, [], cells)
        verdict = judge(history, {"x": seen()}, {}, rules=Alarms(), more=more)
        assert bool(verdict.alarms) == is_open
