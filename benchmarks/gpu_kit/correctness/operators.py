"""Operators whose kernels on a GPU are others than on a CPU, one at a time: the same values in every plan, each time.

Samples and weights are small integers, so that all but averages and interpolation are exact in whatever order they are
added. Where weights are ``fractions``, they have more bits than TF32 keeps. What is ``doubted`` is refused on GPUs; it
also runs here, to know more, and the check does not depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.gpu_kit.correctness.plans import Result, Way, largest_difference, run
from benchmarks.gpu_kit.pictures import Picture
from benchmarks.gpu_kit.provider import Binding, gpu_session
from exactile.contract import DeployedModel
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network

CHANNELS, CLASSES, LARGEST = 8, 4, 7
SIDE_PX, TILE_PX, ROWS_PX = 96, 48, 24
ROUNDING = 1e-5
"""Tolerance, relative to the largest value; TF32 would be off by 1e-3."""

DOWN, THREE = {"strides": [2, 2]}, {"kernel_shape": [3, 3]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A node with attributes between two convolutions; ``exact`` where no value may differ in a bit."""

    op: str
    attributes: dict[str, Any] = field(default_factory=dict)
    kernel: tuple[int, int] = (0, 0)
    factor: float = 0.0
    exact: bool = True
    fractions: bool = False
    doubted: bool = False


CASES = {
    "max pooling, padded after": Case(op="MaxPool", attributes={**THREE, **DOWN, "pads": [0, 0, 1, 1]}),
    "max pooling, padded before": Case(op="MaxPool", attributes={**THREE, **DOWN, "pads": [1, 1, 0, 0]}),
    "max pooling, rounded up": Case(op="MaxPool", attributes={**THREE, **DOWN, "ceil_mode": 1}),
    "max pooling, dilated": Case(op="MaxPool", attributes={**THREE, "dilations": [2, 2]}),
    "max pooling, dilated and padded": Case(
        op="MaxPool", attributes={**THREE, "dilations": [2, 2], "pads": [2] * 4}, doubted=True
    ),
    "averages": Case(op="AveragePool", attributes={**THREE, "pads": [1] * 4}, exact=False),
    "averages, padding counted": Case(
        op="AveragePool", attributes={**THREE, "pads": [1] * 4, "count_include_pad": 1}, exact=False
    ),
    "averages, padded after": Case(op="AveragePool", attributes={**THREE, **DOWN, "pads": [0, 0, 1, 1]}, exact=False),
    "averages, rounded up": Case(op="AveragePool", attributes={**THREE, **DOWN, "ceil_mode": 1}, exact=False),
    "averages, rounded up, padding counted": Case(
        op="AveragePool",
        attributes={**THREE, **DOWN, "ceil_mode": 1, "count_include_pad": 1},
        exact=False,
        doubted=True,
    ),
    "convolution, 2 x 2, padded after": Case(op="Conv", attributes={"pads": [0, 0, 1, 1]}, kernel=(2, 2)),
    "convolution, padded after, down": Case(op="Conv", attributes={**DOWN, "pads": [0, 0, 1, 1]}, kernel=(3, 3)),
    "convolution, padded before": Case(op="Conv", attributes={"pads": [2, 2, 0, 0]}, kernel=(3, 3)),
    "convolution, dilated": Case(op="Conv", attributes={"pads": [2] * 4, "dilations": [2, 2]}, kernel=(3, 3)),
    "convolution, float32": Case(op="Conv", attributes={"pads": [1] * 4}, kernel=(3, 3), exact=False, fractions=True),
    "transposed, float32": Case(op="ConvTranspose", attributes=DOWN, kernel=(2, 2), exact=False, fractions=True),
    "depthwise": Case(op="Conv", attributes={"pads": [1] * 4, "group": CHANNELS}, kernel=(3, 3)),
    "transposed, 2 x 2": Case(op="ConvTranspose", attributes=DOWN, kernel=(2, 2)),
    "transposed, padded after": Case(op="ConvTranspose", attributes={**DOWN, "pads": [0, 0, 1, 1]}, kernel=(3, 3)),
    "transposed, output padding": Case(
        op="ConvTranspose", attributes={**DOWN, "pads": [1] * 4, "output_padding": [1, 1]}, kernel=(3, 3)
    ),
    "nearest": Case(op="Resize", attributes={"mode": "nearest"}, factor=2.0),
    "linear": Case(op="Resize", attributes={"mode": "linear"}, factor=2.0, exact=False),
    "cubic": Case(op="Resize", attributes={"mode": "cubic"}, factor=2.0, exact=False),
    "reflected": Case(op="Pad", attributes={"mode": "reflect"}),
}


def alone(binding: Binding, folder: Path) -> dict[str, Any]:
    """Return a check: each operator against plain ONNX Runtime on the CPU, and which of two equal classes is taken."""
    rows = [_row(name, case, binding) for name, case in CASES.items()]
    rows.append(_ties(binding))
    return {"passed": all(row["right"] or row.get("refused elsewhere") for row in rows), "rows": rows}


def _row(name: str, case: Case, binding: Binding) -> dict[str, Any]:
    network = _network(case)
    deployed = _without_doubts(deploy(prepare_network(network, name=name), image_dtype="uint8", output="raw"))
    image = _image(deployed)
    expected = _on_cpu(network, image)
    found = _found(deployed, image, binding)
    off = {way: largest_difference(result, expected) for way, result in found.items()}
    allowed = 0.0 if case.exact else ROUNDING * float(np.abs(expected).max())
    return {
        "operator": name,
        **{f"max abs, {way}": difference for way, difference in off.items()},
        "right": max(off.values()) <= allowed,
        "refused elsewhere": case.doubted,
    }


def _without_doubts(deployed: DeployedModel) -> DeployedModel:
    """Return the same graphs, without the mark that they must not run on a GPU."""

    def plain(graph: bytes) -> bytes:
        model = onnx.load_from_string(graph)
        del model.metadata_props[:]
        return model.SerializeToString()

    strips = deployed.strips
    if strips is not None:
        graphs = {role: replace(strip, graph=plain(strip.graph)) for role, strip in strips.graphs.items()}
        strips = replace(strips, graphs=graphs)
    return replace(deployed, graph=plain(deployed.graph), strips=strips)


def _ties(binding: Binding) -> dict[str, Any]:
    """Return classes of one score: ONNX takes the first."""
    network = _network(Case(op="Relu"))
    weights = next(tensor for tensor in network.graph.initializer if tensor.name == "last")
    same = np.repeat(numpy_helper.to_array(weights)[:1], CLASSES, 0)
    weights.CopyFrom(numpy_helper.from_array(same, "last"))
    deployed = deploy(prepare_network(network, name="ties"), image_dtype="uint8")
    found = _found(deployed, _image(deployed), binding)
    taken = {way: int(np.count_nonzero(labels)) for way, labels in found.items()}
    return {"operator": "ties of labels", **{f"not the first, {way}": count for way, count in taken.items()}} | {
        "right": not any(taken.values())
    }


def _found(deployed: DeployedModel, image: Picture, binding: Binding) -> dict[str, Result]:
    """Return the result of every plan."""
    axes = deployed.contract.geometry
    height, width = (axis.accepted_size(TILE_PX) for axis in (axes.y, axes.x))
    ways = [Way(name="one pass", plan="whole"), Way(name="tiles", plan="tile", tile=(height, width))]
    if deployed.strips is not None:
        rows = axes.y.accepted_size(ROWS_PX)
        ways.append(Way(name="strips", plan="strip", tile=(rows, image.shape[1])))
    with gpu_session(deployed, binding) as session:
        return {way.name: run(session, image, way) for way in ways}


def _network(case: Case) -> onnx.ModelProto:
    """Return ``image`` (N, 3, H, W) -> a convolution -> the node -> a convolution."""
    generator = np.random.default_rng(3)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        drawn = generator.standard_normal(shape) if case.fractions else generator.integers(-2, 3, shape)
        return numpy_helper.from_array(drawn.astype(np.float32), name)

    inputs, constants = ["a"], [weights("first", CHANNELS, 3, 3, 3), weights("last", CLASSES, CHANNELS, 1, 1)]
    if any(case.kernel):
        group = case.attributes.get("group", 1)
        constants.append(weights("kernel", CHANNELS, CHANNELS // group, *case.kernel))
        inputs.append("kernel")
    if case.factor:
        constants.append(numpy_helper.from_array(np.float32([1, 1, case.factor, case.factor]), "factors"))
        inputs += ["", "factors"]
    if case.op == "Pad":
        constants.append(numpy_helper.from_array(np.int64([0, 0, 2, 2, 0, 0, 2, 2]), "amounts"))
        inputs.append("amounts")
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], pads=[1] * 4),
        helper.make_node(case.op, inputs, ["b"], **case.attributes),
        helper.make_node("Conv", ["b", "last"], ["out"]),
    ]
    value = helper.make_tensor_value_info
    image = value("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
    result = value("out", TensorProto.FLOAT, ["n", CLASSES, "out_h", "out_w"])
    graph = helper.make_graph(nodes, "net", [image], [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def _image(deployed: DeployedModel) -> Picture:
    axes = deployed.contract.geometry
    size = axes.y.accepted_size(SIDE_PX), axes.x.accepted_size(SIDE_PX + 8)
    image: Picture = np.random.default_rng(5).integers(0, LARGEST + 1, (*size, 3), np.uint8)
    return image


def _on_cpu(network: onnx.ModelProto, image: Picture) -> Result:
    """Return one pass of plain ONNX Runtime."""
    import onnxruntime

    options, providers = onnxruntime.SessionOptions(), ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(network.SerializeToString(), options, providers=providers)
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None].astype(np.float32))
    result: Result = session.run(None, {"image": pixels})[0][0]
    return result
