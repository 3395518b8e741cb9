"""Every combination of the attributes of convolutions and pooling is right in tiles and in strips, or refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support.operator_sweep import CHANNELS, between_convolutions, judge, runs_in_onnx_runtime

KERNELS = [(3, 3), (2, 2), (1, 1), (3, 2)]
STRIDES = [(1, 1), (2, 2), (3, 2), (3, 3)]
DILATIONS = [(1, 1), (2, 1), (2, 2)]
PADDINGS = [
    *({"pads": pads} for pads in ([0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 1], [0, 1, 2, 0])),
    *({"auto_pad": auto} for auto in ("VALID", "SAME_UPPER", "SAME_LOWER")),
]
OTHERS = {
    "Conv": [{"group": 1}, {"group": 2}],
    "ConvTranspose": [
        {"group": group, "output_padding": extra}
        for group, extra in itertools.product((1, 2), ([0, 0], [1, 1], [2, 1]))
    ],
    "MaxPool": [{"ceil_mode": up, "storage_order": order} for up, order in itertools.product((0, 1), repeat=2)],
    "AveragePool": [{"ceil_mode": up, "count_include_pad": pad} for up, pad in itertools.product((0, 1), repeat=2)],
    "LpPool": [{"ceil_mode": up, "p": p} for up, p in itertools.product((0, 1), (1, 2))],
}
OPSETS = {"Conv": 17, "ConvTranspose": 17, "MaxPool": 17, "AveragePool": 19, "LpPool": 18}
SIZES = [(60, 60), (61, 61)]


def combinations(op: str) -> Iterator[dict]:
    for kernel, stride, dilation, padding, other in itertools.product(
        KERNELS, STRIDES, DILATIONS, PADDINGS, OTHERS[op]
    ):
        yield {"kernel_shape": kernel, "strides": stride, "dilations": dilation, **padding, **other}


def network(op: str, attributes: dict) -> onnx.ModelProto:
    inputs, constants = ["a"], []
    if op.startswith("Conv"):
        group = attributes["group"]
        shape = (CHANNELS, CHANNELS // group, *attributes["kernel_shape"])
        weight = np.random.default_rng(2).integers(1, 4, shape).astype(np.float32)
        inputs, constants = ["a", "w"], [numpy_helper.from_array(weight, "w")]
    return between_convolutions([helper.make_node(op, inputs, ["b"], **attributes)], constants, opset=OPSETS[op])


def check(op: str, cases, folder) -> list[str]:
    """What is wrong of the combinations that ONNX Runtime runs."""
    wrong = []
    for attributes in cases:
        model = network(op, attributes)
        if not any(runs_in_onnx_runtime(model, size) for size in SIZES):
            continue
        verdict = judge(model, folder)
        wrong += [f"{op} {attributes}: {what}" for what in verdict.wrong]
        if verdict.refused.startswith("error"):
            wrong.append(f"{op} {attributes}: {verdict.refused}")
    return wrong


@pytest.mark.parametrize("op", OTHERS)
def test_a_part_of_all_combinations_is_right_or_refused(op, tmp_path):
    """One in 173; the rest is in the slow test."""
    assert check(op, itertools.islice(combinations(op), 5, None, 173), tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("op", OTHERS)
def test_every_combination_is_right_or_refused(op, tmp_path):
    """The whole product."""
    assert check(op, combinations(op), tmp_path) == []


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("ConvTranspose", {"strides": (2, 2), "auto_pad": "SAME_UPPER", "output_padding": [1, 1], "group": 1}),
        ("AveragePool", {"strides": (3, 3), "ceil_mode": 1, "count_include_pad": 1, "pads": [0, 0, 0, 0]}),
        ("MaxPool", {"dilations": (2, 1), "auto_pad": "SAME_LOWER"}),
        ("ConvTranspose", {"strides": (3, 2), "dilations": (2, 2), "kernel_shape": (3, 2), "group": 1}),
    ],
)
def test_uneven_windows_are_taken_and_right(tmp_path, op, attributes):
    """Sizes that shape inference gets wrong, rows that reach unevenly: not refused, and right."""
    verdict = judge(network(op, {"kernel_shape": (2, 2), **attributes}), tmp_path)
    assert (verdict.refused, verdict.no_strips, verdict.wrong) == ("", "", ())


@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("AveragePool", {"kernel_shape": (2, 2), "strides": (3, 3)}),
        ("AveragePool", {"kernel_shape": (1, 1), "strides": (3, 2), "count_include_pad": 1}),
        ("LpPool", {"kernel_shape": (3, 2), "strides": (3, 3), "p": 1}),
    ],
)
def test_windows_that_leave_pixels_out_between_them_round_nothing_up(tmp_path, op, attributes, automatic):
    """Shape inference takes their negative padding for 0, and rounds up; ONNX Runtime does not."""
    verdict = judge(network(op, {**attributes, "auto_pad": automatic, "ceil_mode": 1}), tmp_path)
    assert (verdict.refused, verdict.wrong) == ("", ())
