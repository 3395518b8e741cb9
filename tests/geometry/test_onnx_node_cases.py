"""ONNX's own cases of each operator: what is claimed of them is what plain ONNX Runtime computes.

Of each case with an image-like input (4 dimensions, float32) that is made the image, its height and width free; all
other inputs become constants.
"""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.errors import ExactileError, PlanError
from exactile.geometry import AxisGeometry
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy, deploy_whole
from exactile_converters.prepare.from_onnx import prepare_network

LEAST_CASES = 390
LEAST_TILEABLE = 74
GROUPS = 8
RELATIVE, ABSOLUTE = 1e-4, 1e-5
SEVERAL_CHANNEL_AXES = {"test_unsqueeze_negative_axes"}
"""Tileable, and then refused with a message, since results have one channel axis."""


@cache
def image_cases() -> dict[str, onnx.ModelProto]:
    """The cases with an image-like input, as networks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    found = {}
    for case in cases:
        model = _network(case)
        if model is not None:
            found.setdefault(case.name, model)
    return found


def _network(case) -> onnx.ModelProto | None:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    given = case.data_sets[0][0]
    if any(not isinstance(array, np.ndarray) for array in given):
        return None
    image = next((index for index, array in enumerate(given) if array.ndim == 4 and array.dtype == np.float32), None)
    if image is None:
        return None
    for index, (value, array) in enumerate(zip(graph.input, given, strict=False)):
        if index != image:
            graph.initializer.append(numpy_helper.from_array(array, value.name))
    value = helper.make_tensor_value_info(
        graph.input[image].name, TensorProto.FLOAT, ["n", given[image].shape[1], "h", "w"]
    )
    del graph.input[:]
    graph.input.append(value)
    for output in graph.output:
        for position, dim in enumerate(output.type.tensor_type.shape.dim):
            dim.dim_param = f"{output.name}_{position}"
    return model


def judge(model: onnx.ModelProto, name: str) -> str:
    """ "tileable", or why not; fails where a tileable one is not what plain ONNX Runtime computes."""
    try:
        network = prepare_network(model, name=name)
        traced = network.trace()
    except ExactileError:
        return "refused"
    if traced.geometry is None:
        assert traced.obstacles
        return "refused"
    geometry = traced.geometry
    try:
        deployed = deploy(network, image_dtype="float32", output="raw")
    except ExactileError:
        assert name in SEVERAL_CHANNEL_AXES, f"{name} is called tileable and cannot be deployed"
        return "refused"
    sizes = tuple(_size(axis) for axis in (geometry.y, geometry.x))
    image = np.random.default_rng(5).random((*sizes, network.channels), np.float32) * 4 - 2
    expected = _whole_pass(model, image)
    if expected is None:
        return "not run by ONNX Runtime"
    session = Session(deployed, memory_bytes=8 << 30, threads=1)
    for plan, tile in _plans(geometry, sizes):
        sink = ArraySink()
        try:
            session.segment(ArraySource(image), sink, plan=plan, **tile)
        except PlanError as error:
            assert plan == "strip", f"{name}, {plan}: {error}"  # noqa: PT017
            continue
        np.testing.assert_allclose(
            sink.result,
            expected if expected.ndim == sink.result.ndim else expected[0],
            rtol=RELATIVE,
            atol=ABSOLUTE,
            err_msg=f"{name}, {plan}",
        )
    session.close()
    return "tileable"


def _size(axis: AxisGeometry) -> int:
    return axis.accepted_size(4 * axis.stride + 2 * (axis.margin_before + axis.margin_after) + 12)


def _plans(geometry, sizes):
    axes = (geometry.y, geometry.x)
    tile = tuple(
        min(size, axis.accepted_size(max(0, axis.margin_before) + max(0, axis.margin_after) + 3 * axis.stride))
        for axis, size in zip(axes, sizes, strict=True)
    )
    return (("whole", {}), ("tile", {"tile": tile}), ("strip", {"tile": (2 * geometry.y.stride, sizes[1])}))


def _whole_pass(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray | None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        wanted = [session.get_outputs()[0].name]
        return session.run(wanted, {session.get_inputs()[0].name: image.transpose(2, 0, 1)[None]})[0]
    except Exception:  # noqa: BLE001 - its exceptions share no base class
        return None


def test_there_are_as_many_cases_as_there_were():
    assert len(image_cases()) >= LEAST_CASES


@pytest.mark.parametrize("group", range(GROUPS))
def test_each_case_is_refused_or_right_in_every_plan(group):
    """No other error, and no wrong pixel, at sizes that the network takes."""
    verdicts = Counter(judge(model, name) for name, model in list(image_cases().items())[group::GROUPS])
    assert verdicts["tileable"] >= LEAST_TILEABLE // GROUPS // 2
    assert verdicts["not run by ONNX Runtime"] <= 1


LEAST_IN_ONE_PASS = 26
ONE_PASS_SIZES = ((12, 16), (33, 21))


def judge_one_pass(model: onnx.ModelProto, name: str) -> str:
    """What becomes of a case with obstacles over an image of each size; fails where a result is not the reference's."""
    try:
        network = prepare_network(model, name=name)
        if network.trace().geometry is not None:
            return "tileable"
    except ExactileError:
        return "refused"
    verdict = "refused"
    for size in ONE_PASS_SIZES:
        image = np.random.default_rng(5).random((*size, network.channels), np.float32) * 4 - 2
        sink = ArraySink()
        try:
            deployed = deploy_whole(network, image_size=size, image_dtype="float32", output="raw")
            Session(deployed, memory_bytes=8 << 30, threads=1).segment(ArraySource(image), sink)
        except ExactileError:
            continue
        expected = _whole_pass(model, image)
        assert expected is not None, f"{name}: run, and plain ONNX Runtime does not run it"
        axes = tuple(range(expected.ndim - sink.result.ndim))
        expected = np.squeeze(expected, axes) if axes else expected.reshape(sink.result.shape)
        np.testing.assert_allclose(sink.result, expected, rtol=RELATIVE, atol=ABSOLUTE, err_msg=name)
        verdict = "right"
    return verdict


@pytest.mark.slow
def test_each_case_with_obstacles_is_refused_or_right_in_one_pass():
    """No other error, and no wrong pixel."""
    verdicts = Counter(judge_one_pass(model, name) for name, model in image_cases().items())
    assert verdicts["right"] >= LEAST_IN_ONE_PASS
