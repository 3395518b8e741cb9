"""One operator between two convolutions: what is claimed of it, held against plain ONNX Runtime over the whole image.

The oracle knows no rule: it runs the network as it was written, once over the whole image, and again with other pixels
wherever the claim says that they do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from exactile.errors import ExactileError, NotTileableError, PlanError
from exactile.geometry import AxisGeometry
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy, inspect_network, load_network

CHANNELS = 2
TOLERANCE = 2e-3
"""Values are integers up to some thousands; interpolation rounds, and drifts by float32's idea of a third."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``refused``: why nothing is claimed. ``wrong``: what differs from the oracle, empty where nothing does."""

    refused: str = ""
    no_strips: str = ""
    wrong: tuple[str, ...] = ()


def between_convolutions(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    opset: int,
    channels: int = CHANNELS,
) -> onnx.ModelProto:
    """Conv 3x3, ``nodes`` from "a" to "b" of ``channels``, Conv 3x3; small integer weights."""
    rng = np.random.default_rng(7)
    first = rng.integers(-2, 3, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    second = rng.integers(-2, 3, (CHANNELS, channels, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "first"], ["a"], pads=[1] * 4),
            *nodes,
            helper.make_node("Conv", ["b", "second"], ["y"], pads=[1] * 4),
        ],
        "sweep",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CHANNELS, "h2", "w2"])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second"), *constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def runs_in_onnx_runtime(model: onnx.ModelProto, size: tuple[int, int]) -> bool:
    """Whether there is a whole pass at all."""
    try:
        _pass(model, _image(size))
    except Exception:  # noqa: BLE001 - whatever ONNX Runtime raises
        return False
    return True


def judge(model: onnx.ModelProto, folder: Path) -> Verdict:
    """What exactile claims of ``model``, and how it holds in tiles, in strips and pixel by pixel."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    try:
        geometry = inspect_network(load_network(path)).geometry
        deployed = deploy(load_network(path), image_dtype="float32", output="raw") if geometry is not None else None
    except NotTileableError as error:
        return Verdict(refused=str(error))
    except ExactileError as error:
        return Verdict(refused=f"error: {error}")
    if geometry is None or deployed is None:
        return Verdict(refused="obstacles")
    sizes = tuple(_size(axis) for axis in (geometry.y, geometry.x))
    wrong = _beyond_the_halo(model, (geometry.y, geometry.x), sizes)
    image = _image(sizes)
    whole = _pass(model, image)
    tile = tuple(_tile(axis, size) for axis, size in zip((geometry.y, geometry.x), sizes, strict=True))
    wanted = [("whole", None), ("tile", tile)]
    if deployed.strips is not None:
        rows = max(geometry.y.stride * 2, -(-deployed.strips.startup_rows // geometry.y.stride) * geometry.y.stride)
        wanted += [("strip", (height, sizes[1])) for height in {geometry.y.stride, rows}]
    session = Session(deployed, memory_bytes=1 << 40, threads=1)
    for plan, shape in wanted:
        sink = ArraySink()
        try:
            session.segment(ArraySource(image[0].transpose(1, 2, 0)), sink, plan=plan, tile=shape)
        except PlanError as error:
            if plan != "strip":
                wrong.append(f"{plan} {shape}: {error}")
            continue
        except ExactileError as error:
            wrong.append(f"{plan} {shape}: {type(error).__name__}: {error}")
            continue
        if sink.result.shape != whole.shape[1:]:
            wrong.append(f"{plan} {shape}: shape {sink.result.shape} for {whole.shape[1:]}")
        elif (off := float(np.abs(sink.result - whole[0]).max(initial=0))) > TOLERANCE:
            wrong.append(f"{plan} {shape}: off by {off:g}")
    session.close()
    return Verdict(no_strips=deployed.no_strips_reason, wrong=tuple(wrong))


def _size(axis: AxisGeometry) -> int:
    """An accepted size with room for some tiles."""
    least = 5 * axis.stride + 2 * (axis.margin_before + axis.margin_after) + 24
    return axis.accepted_size(least)


def _tile(axis: AxisGeometry, size: int) -> int:
    return min(size, axis.accepted_size(axis.margin_before + axis.margin_after + 2 * axis.stride))


def _image(size: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 9, (1, CHANNELS, *size)).astype(np.float32)


def _pass(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


def _beyond_the_halo(
    model: onnx.ModelProto, axes: tuple[AxisGeometry, AxisGeometry], sizes: tuple[int, ...]
) -> list[str]:
    """Sides on which pixels beyond the claimed halo of aligned boxes change the box's result."""
    found = []
    image = _image(sizes)
    before = _pass(model, image)
    other = image + np.random.default_rng(4).integers(1, 99, image.shape).astype(np.float32)
    for dim, (axis, size) in enumerate(zip(axes, sizes, strict=True), 2):
        edges = range(0, size, axis.stride)
        for start, stop in [*pairwise(edges)][1:-1]:
            first, last = max(0, start - axis.before), min(size, stop + axis.after)
            changed = other.copy()
            inside = tuple(slice(first, last) if d == dim else slice(None) for d in range(4))
            changed[inside] = image[inside]
            lo, hi = axis.output_position(start), min(axis.output_position(stop), before.shape[dim])
            box = tuple(slice(lo, hi) if d == dim else slice(None) for d in range(4))
            off = float(np.abs(_pass(model, changed)[box] - before[box]).max(initial=0))
            if off > TOLERANCE:
                found.append(f"{'yx'[dim - 2]} {start}:{stop}: pixels beyond {first}:{last} change it by {off:g}")
                break
    return found
