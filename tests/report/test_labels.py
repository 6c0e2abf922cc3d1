"""Names in a crowded picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbench.report.labels import place

FRAME = (0.0, 0.0, 1000.0, 800.0)


def boxes(middles, sizes):
    return [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for (x, y), (w, h) in zip(middles, sizes, strict=True)]


def meet(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("seed", range(3))
def test_forty_names_cover_neither_each_other_nor_a_mark_nor_leave_the_frame(seed):
    random = np.random.default_rng(seed)
    marks = [(float(x), float(y)) for x, y in random.uniform((60, 60), (940, 740), (40, 2))]
    sizes = [(float(w), 14.0) for w in random.uniform(50, 130, 40)]
    found = boxes(place(marks, sizes, FRAME, reach=6), sizes)
    for number, box in enumerate(found):
        assert not any(meet(box, other) for other in found[:number])
        assert not any(meet(box, (x - 6, y - 6, x + 6, y + 6)) for x, y in marks)
        assert FRAME[0] <= box[0]
        assert box[2] <= FRAME[2]
        assert FRAME[1] <= box[1]
        assert box[3] <= FRAME[3]


def test_a_name_alone_stands_beside_its_mark():
    ((x, y),) = place([(500, 400)], [(100, 14)], FRAME, reach=6)
    assert abs(x - 500) <= 50 + 6 + 4
    assert abs(y - 400) <= 7 + 6 + 4


def test_what_is_taken_stays_free():
    taken = (500.0, 300.0, 900.0, 500.0)
    ((x, y),) = place([(480, 400)], [(100, 14)], FRAME, reach=6, taken=[taken])
    assert not meet((x - 50, y - 7, x + 50, y + 7), taken)


def test_the_same_points_give_the_same_places():
    marks, sizes = [(100, 100), (110, 105), (120, 100)], [(80, 14)] * 3
    assert place(marks, sizes, FRAME, reach=6) == place(marks, sizes, FRAME, reach=6)


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 800)), max_size=6))
@settings(max_examples=20, deadline=None)
def test_every_mark_gets_a_name_even_where_marks_coincide(marks):
    assert len(place(marks, [(60.0, 12.0)] * len(marks), FRAME, reach=5, line=[(0, 0), (500, 400)])) == len(marks)


def test_a_name_is_not_mistaken_for_that_of_the_mark_beside_it():
    marks = [(438.0, 530.0), (388.0, 548.0), (460.0, 500.0)]
    sizes = [(86.0, 14.0), (142.0, 14.0), (90.0, 14.0)]
    found = boxes(place(marks, sizes, FRAME, reach=6), sizes)
    for own, box in enumerate(found):
        away = [np.hypot(max(box[0] - x, 0, x - box[2]), max(box[1] - y, 0, y - box[3])) for x, y in marks]
        assert all(away[own] * 2 <= other + 1 or other >= 24 for n, other in enumerate(away) if n != own)
