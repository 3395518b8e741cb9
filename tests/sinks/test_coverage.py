"""The account of written pixels agrees with a mask of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exactile.errors import SinkError
from exactile.geometry import Box, Span
from exactile.sinks.coverage import Coverage


def accepted(coverage: Coverage, box: Box) -> bool:
    try:
        coverage.add(box)
    except SinkError:
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(data=st.data(), height=st.integers(1, 24), width=st.integers(1, 24), cell_px=st.sampled_from((3, 8, 32)))
def test_boxes_are_taken_until_one_overlaps_as_a_mask_tells(data, height, width, cell_px):
    coverage, mask = Coverage(height, width, cell_px=cell_px), np.zeros((height, width), bool)
    for _ in range(data.draw(st.integers(0, 12))):
        y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        y1, x1 = data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width))
        free = not mask[y0:y1, x0:x1].any()
        assert accepted(coverage, Box(Span(y0, y1), Span(x0, x1))) == free
        if not free:
            return
        mask[y0:y1, x0:x1] = True
    for y, x in data.draw(st.permutations([(int(y), int(x)) for y, x in np.argwhere(~mask)])):
        with pytest.raises(SinkError, match=f"{(~mask).sum()} of {mask.size} pixels"):
            coverage.check_complete()
        assert accepted(coverage, Box(Span(y, y + 1), Span(x, x + 1)))
        mask[y, x] = True
    coverage.check_complete()


def test_rows_pushed_one_by_one_are_remembered_as_one_box():
    coverage = Coverage(1000, 3000)
    for y in range(999):
        coverage.add(Box(Span(y, y + 1), Span(0, 3000)))
    assert max(len(parts) for parts in coverage._parts.values()) == 1


def test_the_message_names_the_first_place_with_missing_pixels():
    coverage = Coverage(20, 20, cell_px=10)
    coverage.add(Box(Span(0, 20), Span(0, 10)))
    with pytest.raises(SinkError, match="rows 0 to 10, columns 10 to 20"):
        coverage.check_complete()
