"""One operator between two convolutions: what is claimed of it, held against plain ONNX Runtime over the whole image.

The oracle knows no rule: it runs the network as it was written, once over the whole image, and again with other pixels
wherever the claim says that they do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from exactile.errors import ExactileError, NotTileableError, PlanError
from exactile.geometry import AxisGeometry
from exactile.plan.tiles import AxisDomain
from exactile.planning import PlanName
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy, load_network

CHANNELS = 2
TOLERANCE = 1e-5
"""Of the largest value: weights and pixels are integers, but interpolation rounds, and float32 holds no third."""

BOXES = 4
"""So many boxes are looked at along each axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``refused``: why nothing is claimed. ``wrong``: what differs from the oracle, empty where nothing does.

    ``loose``: sides on which the claimed halo holds a pixel that matters nowhere. Not looked at where operators depend
    on the position: their halo is that of all positions.
    """

    refused: str = ""
    no_strips: str = ""
    wrong: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()


def between_convolutions(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    opset: int,
    channels: int = CHANNELS,
    inner: int = CHANNELS,
) -> onnx.ModelProto:
    """Conv 3x3, ``nodes`` from "a" of ``inner`` channels to "b" of ``channels``, Conv 3x3; small integer weights.

    No weight is 0, so that each pixel read matters. ONNX Runtime keeps maps of 16 channels in blocks.
    """
    rng = np.random.default_rng(7)
    first = rng.choice([-2, -1, 1, 2], (inner, CHANNELS, 3, 3)).astype(np.float32)
    second = rng.choice([-2, -1, 1, 2], (CHANNELS, channels, 3, 3)).astype(np.float32)
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


class Oracle:
    """The network as it was written, over whole images, by plain ONNX Runtime."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name

    def run(self, image: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._name: image})[0]


def runs_in_onnx_runtime(model: onnx.ModelProto, size: tuple[int, int]) -> bool:
    """Whether there is a whole pass at all."""
    try:
        Oracle(model).run(_image(size))
    except Exception:  # noqa: BLE001 - whatever ONNX Runtime raises
        return False
    return True


def judge(model: onnx.ModelProto, folder: Path) -> Verdict:
    """What exactile claims of ``model``, and how it holds in tiles, in strips and pixel by pixel."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    try:
        deployed = deploy(load_network(path), image_dtype="float32", output="raw")
    except NotTileableError as error:
        return Verdict(refused=str(error))
    except ExactileError as error:
        return Verdict(refused=f"error: {error}")
    geometry = deployed.contract.geometry
    axes = geometry.y, geometry.x
    oracle, sizes = Oracle(model), tuple(map(_size, axes))
    wrong, loose = _poisoned(oracle, axes, sizes)
    smallest = tuple(axis.accepted_size(1) for axis in axes)  # one stride, of which a single pixel may be made
    narrow = (sizes[0], smallest[1])
    tile = tuple(_tile(axis, size) for axis, size in zip(axes, sizes, strict=True))
    least = tuple(AxisDomain.of(axis, size, "model").smallest_tile for axis, size in zip(axes, sizes, strict=True))
    wanted: list[tuple[PlanName, tuple[int, ...], tuple[int, ...] | None]] = [
        ("whole", smallest, None),
        ("tile", sizes, tile),
        ("tile", narrow, (least[0], narrow[1])),
        ("tile", (smallest[0], sizes[1]), (smallest[0], least[1])),
    ]
    if deployed.strips is not None:
        stride = geometry.y.stride
        rows = max(2 * stride, -(-deployed.strips.startup_rows // stride) * stride)
        wanted += [("strip", sizes, (rows, sizes[1])), ("strip", narrow, (stride, narrow[1]))]
    with closing(Session(deployed, memory_bytes=1 << 40, threads=1)) as session:
        for plan, size, shape in wanted:
            wrong += _difference(session, oracle, plan, size, shape)
    return Verdict(
        no_strips=deployed.no_strips_reason, wrong=tuple(wrong), loose=() if geometry.placed else tuple(loose)
    )


def _difference(
    session: Session, oracle: Oracle, plan: PlanName, size: tuple[int, ...], shape: tuple[int, ...] | None
) -> list[str]:
    """How a plan with tiles or strips of ``shape`` differs from one pass over an image of ``size``."""
    image, sink = _image(size), ArraySink()
    whole = oracle.run(image)[0]
    what = f"{plan} {shape} of {size}"
    try:
        session.segment(ArraySource(image[0].transpose(1, 2, 0)), sink, plan=plan, tile=shape)
    except PlanError as error:
        return [] if plan == "strip" else [f"{what}: {error}"]
    except ExactileError as error:
        return [f"{what}: {type(error).__name__}: {error}"]
    if sink.result.shape != whole.shape:
        return [f"{what}: shape {sink.result.shape} for {whole.shape}"]
    off = float(np.abs(sink.result - whole).max(initial=0))
    return [f"{what}: off by {off:g}"] if off > TOLERANCE * float(np.abs(whole).max(initial=1)) else []


def _size(axis: AxisGeometry) -> int:
    """An accepted size with room for some tiles."""
    least = 5 * axis.stride + 2 * (axis.margin_before + axis.margin_after) + 24
    return axis.accepted_size(least)


def _tile(axis: AxisGeometry, size: int) -> int:
    return min(size, axis.accepted_size(axis.margin_before + axis.margin_after + max(12, 2 * axis.stride)))


def _image(size: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 9, (1, CHANNELS, *size)).astype(np.float32)


def _poisoned(
    oracle: Oracle, axes: tuple[AxisGeometry, AxisGeometry], sizes: tuple[int, ...]
) -> tuple[list[str], list[str]]:
    """Sides on which the claimed halo of aligned boxes is too small; and those on which it is too large.

    Pixels beyond it become infinite, which every weight hands on, 0 too: the box stays as it is. Its outermost pixels
    matter to some box.
    """
    wrong, loose = [], []
    image = _image(sizes)
    before = oracle.run(image)
    for dim, (axis, size) in enumerate(zip(axes, sizes, strict=True), 2):
        boxes = [*pairwise(range(0, size, axis.stride))][1:-1]
        touched = {"before": axis.before <= 0, "after": axis.after <= 0}
        for start, stop in boxes[:: max(1, (len(boxes) - 1) // (BOXES - 1))]:
            first, last = start - axis.before, stop + axis.after
            box = _along(dim, axis.output_position(start), min(axis.output_position(stop), before.shape[dim]))
            changed = np.full_like(image, np.inf)
            inside = _along(dim, max(0, first), min(size, last))
            changed[inside] = image[inside]
            off = np.abs(oracle.run(changed)[box] - before[box])
            if not off.max(initial=0) <= TOLERANCE * np.abs(before).max():
                wrong.append(f"{'yx'[dim - 2]} {start}:{stop}: pixels beyond {first}:{last} change it")
            for side, place in (("before", first), ("after", last - 1)):
                if not touched[side] and 0 <= place < size:
                    changed = image.copy()
                    changed[_along(dim, place, place + 1)] = np.inf
                    touched[side] = not np.isfinite(oracle.run(changed)[box]).all()
        loose += [f"{'yx'[dim - 2]} {side}" for side, does in touched.items() if not does]
    return wrong, loose


def _along(dim: int, start: int, stop: int) -> tuple[slice, ...]:
    return tuple(slice(start, stop) if d == dim else slice(None) for d in range(4))
