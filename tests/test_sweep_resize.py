"""Every combination of Resize's attributes is right in tiles and in strips, or refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.operator_sweep import between_convolutions, judge, runs_in_onnx_runtime

FACTORS = [(2, 2), (3, 3), (4, 4), (1 / 2, 1 / 2), (1 / 3, 1 / 3), (1 / 4, 1 / 4), (1 / 2, 2), (2, 1 / 2), (1, 2),
           (1 / 3, 1), (3, 1 / 4), (1 / 7, 1 / 5)]  # fmt: skip
MODES = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "tf_half_pixel_for_nn",
         "align_corners"]  # fmt: skip
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
KINDS = [
    *({"mode": "nearest", "nearest_mode": rounding} for rounding in NEAREST),
    {"mode": "linear"},
    {"mode": "cubic"},
    {"mode": "cubic", "cubic_coeff_a": -0.5},
    {"mode": "cubic", "exclude_outside": 1},
]


def combinations() -> list[tuple[int, dict, tuple[float, float]]]:
    """Opset, attributes, factors."""
    found = [
        (opset, {"coordinate_transformation_mode": mode, **kind}, factors)
        for opset, mode, kind, factors in itertools.product((11, 13, 18, 19, 21), MODES, KINDS, FACTORS)
        if not (mode == "half_pixel_symmetric" and opset < 19) and not (mode == "tf_half_pixel_for_nn" and opset >= 13)
    ]
    found += [(10, {"mode": mode}, factors) for mode in ("nearest", "linear") for factors in FACTORS]
    found += [(18, {"antialias": 1, "mode": mode}, factors) for mode in ("linear", "cubic") for factors in FACTORS[:6]]
    return found


def network(opset: int, attributes: dict, factors: tuple[float, float]):
    scales = numpy_helper.from_array(np.array([1, 1, *factors], np.float32), "scales")
    inputs = ["a", "scales"] if opset < 11 else ["a", "roi", "scales"] if opset < 13 else ["a", "", "scales"]
    roi = [numpy_helper.from_array(np.zeros(0, np.float32), "roi")] if 11 <= opset < 13 else []
    return between_convolutions([helper.make_node("Resize", inputs, ["b"], **attributes)], [scales, *roi], opset=opset)


def check(cases, folder) -> list[str]:
    wrong = []
    for opset, attributes, factors in cases:
        model = network(opset, attributes, factors)
        if not runs_in_onnx_runtime(model, (420, 420)):
            continue
        verdict = judge(model, folder)
        wrong += [f"opset {opset}, {attributes}, {factors}: {what}" for what in verdict.wrong]
        if verdict.refused.startswith("error"):
            wrong.append(f"opset {opset}, {attributes}, {factors}: {verdict.refused}")
    return wrong


def test_a_part_of_all_combinations_is_right_or_refused(tmp_path):
    """Each attribute's value occurs with each factor; the rest is in the slow test."""
    assert check(combinations()[::23], tmp_path) == []


@pytest.mark.slow
def test_every_combination_is_right_or_refused(tmp_path):
    """The whole product."""
    assert check(combinations(), tmp_path) == []


@pytest.mark.parametrize(
    ("attributes", "factors"),
    [
        ({"mode": "cubic", "coordinate_transformation_mode": "asymmetric"}, (2, 2)),
        ({"mode": "cubic"}, (1 / 2, 1 / 2)),
        ({"mode": "cubic"}, (1 / 2, 2)),
        ({"mode": "linear"}, (1 / 7, 1 / 7)),
        ({"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}, (1 / 4, 1 / 4)),
    ],
)
def test_common_combinations_are_taken_and_right(tmp_path, attributes, factors):
    """Not refused: tiles, strips and pixels agree with a whole pass."""
    verdict = judge(network(18, attributes, factors), tmp_path)
    assert (verdict.refused, verdict.no_strips, verdict.wrong) == ("", "", ())


def test_nearest_that_float32_places_by_the_size_is_refused(tmp_path):
    """A third, half_pixel_symmetric: which pixel is picked depends on the image's size."""
    attributes = {"nearest_mode": "floor", "coordinate_transformation_mode": "half_pixel_symmetric"}
    assert judge(network(19, attributes, (1 / 3, 1 / 3)), tmp_path).refused
