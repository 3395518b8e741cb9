"""Kept maps in scratch files, against the same array in memory."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exactile.errors import SinkError
from exactile.geometry import Span
from exactile.kept_maps import scratch
from exactile.kept_maps.scratch import ScratchMap


@st.composite
def cases(draw):
    """A shape, the dimensions of rows and columns, and boxes that are written and read."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=2, max_size=5)))
    rows, columns = draw(st.permutations(range(len(shape))))[:2]
    boxes = []
    for _ in range(draw(st.integers(1, 6))):
        spans = []
        for dim in (rows, columns):
            start = draw(st.integers(0, shape[dim] - 1))
            spans.append(Span(start, draw(st.integers(start + 1, shape[dim]))))
        boxes.append(tuple(spans))
    return shape, rows, columns, boxes


@settings(max_examples=200, deadline=None)
@given(cases(), st.sampled_from(["float32", "uint8", "float64"]), st.data())
def test_what_is_read_is_what_was_written(tmp_path_factory, case, dtype, data):
    """Strips and blocks of any size; zones that strips begin with, or other ones."""
    with (
        patch.object(scratch, "STRIP_COLUMNS", data.draw(st.integers(1, 4))),
        patch.object(scratch, "BLOCK_BYTES", data.draw(st.integers(1, 400))),
    ):
        check(tmp_path_factory.getbasetemp(), case, dtype, data)


def check(folder, case, dtype, data):
    shape, rows, columns, boxes = case
    generator, held = np.random.default_rng(0), np.zeros(shape, dtype)
    width = shape[columns]
    edges = sorted({0, width, *data.draw(st.lists(st.integers(0, width)))})
    kept = ScratchMap(shape, dtype, rows=rows, columns=columns, folder=folder)
    kept.lay_out([Span(*pair) for pair in pairwise(edges)])

    def view(box):
        found = [slice(None)] * len(shape)
        found[rows], found[columns] = (slice(span.start, span.stop) for span in box)
        return tuple(found)

    for box in boxes:
        wider = np.asarray(generator.integers(0, 200, shape), dtype)
        held[view(box)] = wider[view(box)]
        kept.write(*box, wider[view(box)])  # not contiguous
    for box in [*boxes, (Span(0, shape[rows]), Span(0, shape[columns]))]:
        out = np.full(held[view(box)].shape, 9, dtype)
        kept.read(*box, out)
        assert np.array_equal(out, held[view(box)])
    kept.close()


def test_no_room_is_said_with_a_way_out(tmp_path):
    with pytest.raises(SinkError, match="--scratch"):
        ScratchMap((1, 1 << 14, 1 << 20, 1 << 20), "float64", rows=2, columns=3, folder=tmp_path)
