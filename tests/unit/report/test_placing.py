"""Labels beside points."""

from __future__ import annotations

import itertools

import pytest

from mibench.report.placing import around, beside, leader, overlap, place, text_width, wrap


def test_boxes_share_an_area_or_none() -> None:
    assert overlap((0, 0, 4, 4), (2, 3, 9, 9)) == 2
    assert overlap((0, 0, 4, 4), (4, 0, 8, 4)) == 0
    assert overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0  # two negative sides make no area


def test_a_label_stands_on_its_side() -> None:
    assert beside(10, 10, (20, 8), ("left", "center", 8, 0)) == (18, 6, 38, 14)
    assert beside(10, 10, (20, 8), ("center", "top", 0, -7)) == (0, -5, 20, 3)


def test_a_lone_label_stands_right_beside_its_point() -> None:
    (box,) = place([(50, 50)], [(20, 8)], (0, 0, 100, 100), [around(50, 50, 3, 3)])
    assert box == pytest.approx((55, 46, 75, 54))


def test_labels_of_a_crowd_are_apart_and_inside() -> None:
    spots = [(90.0 - step % 3, 40.0 + 5 * step) for step in range(8)]
    markers = [around(*spot, 3, 3) for spot in spots]
    area = (0.0, 0.0, 100.0, 120.0)
    boxes = place(spots, [(30, 8)] * 8, area, markers)
    for one, other in itertools.combinations(boxes, 2):
        assert overlap(one, other) == 0
    for box in boxes:
        assert overlap(box, area) == pytest.approx(30 * 8)
        assert not any(overlap(box, marker) for marker in markers)


def test_a_leader_ends_where_the_label_begins() -> None:
    assert leader((0, 5), (10, 4, 20, 8)) == ((0, 5), (10, 5))
    assert leader((30, 0), (10, 4, 20, 8)) == ((30, 0), (20, 4))


def test_words_fill_lines_and_none_is_lost() -> None:
    words = ["=", "ad_mi,", "rounding,", "top_k,", "a_name_that_is_wider_than_any_line,", "lpa"]
    lines = wrap(words, 70, 6)
    assert " ".join(lines).split() == words
    assert all(text_width(line, 6) <= 70 or " " not in line for line in lines)
    assert len(lines) > 2
    assert wrap(words, 1000, 6) == [" ".join(words)]
    assert text_width("", 6) == 0
