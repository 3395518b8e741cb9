"""Numbers that follow the image's size, and are rounded to the same number at large sizes, are an obstacle."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.geometry.test_size_decisions import N, obstacles

PIXELS = [
    N("Mul", ["rows", "columns"], ["pixels"]),
    N("Cast", ["pixels"], ["n"], to=TensorProto.FLOAT),
]
ONE, SMALL = np.float32([1.0]), np.float32([1e-9])


@pytest.mark.parametrize(
    ("nodes", "op"),
    [
        ([N("Div", ["one", "n"], ["d"]), N("Add", ["one", "d"], ["f"]), N("Mul", ["a", "f"], ["b"])], "Mul"),
        ([N("Mul", ["n", "small"], ["d"]), N("Tanh", ["d"], ["t"]), N("Sub", ["one", "t"], ["e"]),
          N("Div", ["small", "n"], ["s"]), N("Add", ["one", "s"], ["f"]), N("Div", ["a", "f"], ["b"])], None),
        ([N("Div", ["n", "n"], ["f"]), N("Mul", ["a", "f"], ["b"])], None),
        ([N("Sigmoid", ["n"], ["f"]), N("Add", ["a", "f"], ["b"])], "Add"),
        ([N("Sigmoid", ["n"], ["f"]), N("Clip", ["a", "", "f0"], ["b"])], "Clip"),
    ],
    ids=["one and a share", "too small to count", "ratio", "saturated", "limit"],
)  # fmt: skip
def test_numbers_are_looked_at_for_small_images_too(nodes, op):
    squeeze = [N("Squeeze", ["f"], ["f0"])] if op == "Clip" else []
    found = obstacles([*PIXELS, *nodes[:1], *squeeze, *nodes[1:]], one=ONE, small=SMALL)
    assert found == ([op] if op else [])
