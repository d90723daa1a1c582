"""A small part of `smoke` gives the committed numbers: every bit on the same ground, near them elsewhere."""

from mibench.golden import compare, golden_plan, read_golden, take


def test_this_machine_gives_the_golden_numbers() -> None:
    verdict = compare(read_golden(), take(golden_plan(), jobs=1))
    expected = {"same"} if verdict.is_home else {"same", "within"}
    assert verdict.status in expected, "\n".join([verdict.text, *(str(line) for line in verdict.lines)])
