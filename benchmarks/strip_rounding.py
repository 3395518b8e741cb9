"""Which operators round otherwise in a strip than in one pass? Each kind by itself, in plain ONNX Runtime.

``python -m benchmarks.strip_rounding [--quick]`` runs one operator over a whole map and over some rows of it, as body
strips have them, and compares the rows bit for bit: at two widths, with one thread and with all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table

Array = NDArray[np.float32]

ROWS = 96
STRIP_ROWS = (2, 6, 24)
WIDTHS = (9, 149)
COLUMNS = ("operator", "where", "alike", "values that differ, %|.2g", "largest, of the largest value|.1e")
HALVING = {"kernel_shape": [2, 2], "strides": [2, 2]}
SIDES = [0, 1, 0, 1]
ACTIVATIONS = (
    "Relu LeakyRelu Elu Selu Sigmoid HardSigmoid HardSwish Tanh Softplus Softsign Exp Erf Gelu Mish Sqrt Log".split()
)
MANY = 256
"""Channels of deep layers."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One operator, or a few in a row, of maps with ``channels``.

    A strip is given ``more`` rows of its operand beyond those of its result, which are fewer by ``stride`` and more by
    ``times``; ``edge`` rows of it at either end are not compared: windows of other rows overlap there.
    ``around``: between two convolutions that ONNX Runtime runs in the blocked layout.
    """

    name: str
    steps: Sequence[tuple[str, dict[str, Any], Sequence[Array]]]
    channels: int = 32
    more: int = 0
    stride: int = 1
    times: int = 1
    edge: int = 0
    around: bool = False
    last: bool = field(default=False)
    """Channels are the last axis."""


def weights(*shape: int) -> Array:
    generator = np.random.default_rng(sum(shape))
    return (generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def conv(name: str, channels: int, made: int, size: int = 3, **options: Any) -> Kind:
    """Padded at the sides, as body strips are."""
    dilation, group, stride = (options.get(key, 1) for key in ("dilation", "group", "stride"))
    side = dilation * (size - 1) // 2
    attributes = {
        "kernel_shape": [size] * 2,
        "pads": [0, side, 0, side],
        "dilations": [dilation] * 2,
        "strides": [stride] * 2,
        "group": group,
    }
    given = [weights(made, channels // group, size, size), weights(made, 1)[:, 0]]
    more = dilation * (size - 1) + 1 - stride
    return Kind(name=name, steps=[("Conv", attributes, given)], channels=channels, more=more, stride=stride)


def transposed(name: str, channels: int, made: int, size: int = 2, group: int = 1) -> Kind:
    """By two; where windows overlap, a strip is given one row more at either end."""
    attributes = {"kernel_shape": [size] * 2, "strides": [2, 2], "group": group, "pads": [(size - 2) // 2] * 4}
    given = [weights(channels, made // group, size, size), weights(made, 1)[:, 0]]
    edge = int(size > 2)
    return Kind(
        name=name, steps=[("ConvTranspose", attributes, given)], channels=channels, times=2, more=2 * edge, edge=edge
    )


def pixelwise(op: str, *given: Array, around: bool = False, channels: int = 32, **attributes: Any) -> Kind:
    where = " between blocked convolutions" if around else ""
    return Kind(name=f"{op}{where}", steps=[(op, attributes, given)], channels=channels, around=around)


def product(name: str, channels: int, made: int) -> Kind:
    return Kind(name=name, steps=[("MatMul", {}, [weights(channels, made)])], channels=channels, last=True)


def kinds() -> list[Kind]:
    """What networks are made of."""
    found = [
        conv("Conv 3x3, 32 to 32 channels (blocked)", 32, 32),
        conv("Conv 3x3, 3 to 32 channels (blocked result)", 3, 32),
        conv("Conv 3x3, 30 to 30 channels", 30, 30),
        conv("Conv 3x3, 12 to 12 channels", 12, 12),
        conv(f"Conv 3x3, {MANY} to {MANY} channels (blocked)", MANY, MANY),
        conv(f"Conv 3x3, {MANY + 2} to {MANY + 2} channels", MANY + 2, MANY + 2),
        conv("Conv 3x3, 32 to 1 channel", 32, 1),
        conv("Conv 1x1, 32 to 32 channels (blocked)", 32, 32, 1),
        conv("Conv 1x1, 30 to 30 channels", 30, 30, 1),
        conv(f"Conv 1x1, {MANY + 2} to {MANY + 2} channels", MANY + 2, MANY + 2, 1),
        conv("Conv 3x3 by 2, 32 to 32 channels (blocked)", 32, 32, stride=2),
        conv("Conv 3x3 by 2, 30 to 30 channels", 30, 30, stride=2),
        conv("Conv 3x3 dilated by 4, 32 channels (blocked)", 32, 32, dilation=4),
        conv("Conv 7x7, 3 to 32 channels", 3, 32, 7),
        conv("Conv 3x3 depthwise, 32 channels (blocked)", 32, 32, group=32),
        conv("Conv 3x3 depthwise, 30 channels", 30, 30, group=30),
        conv("Conv 5x5 depthwise, 30 channels", 30, 30, 5, group=30),
        conv("Conv 7x7 depthwise, 32 channels", 32, 32, 7, group=32),
        conv("Conv 3x3 in 4 groups of 8 channels", 32, 32, group=4),
        conv("Conv 3x3 in 5 groups of 6 channels", 30, 30, group=5),
        transposed("ConvTranspose 2x2 by 2, 32 to 16 channels", 32, 16),
        transposed("ConvTranspose 4x4 by 2, 32 to 16 channels", 32, 16, 4),
        transposed(f"ConvTranspose 2x2 by 2, {MANY} to 128 channels", MANY, 128),
        transposed(f"ConvTranspose 4x4 by 2, {MANY} to 128 channels", MANY, 128, 4),
        transposed("ConvTranspose 2x2 by 2 depthwise", 32, 32, group=32),
        product("MatMul of pixels, 32 to 64 channels", 32, 64),
        product(f"MatMul of pixels, {MANY + 2} to 64 channels", MANY + 2, 64),
        product(f"MatMul of pixels, {MANY + 2} to 1 channel", MANY + 2, 1),
        Kind(
            name="AveragePool 2x2", steps=[("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}, [])], stride=2
        ),
        Kind(
            name="AveragePool 3x3", steps=[("AveragePool", {"kernel_shape": [3, 3], "pads": [0, 1, 0, 1]}, [])], more=2
        ),
        Kind(name="MaxPool 2x2", steps=[("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}, [])], stride=2),
    ]
    ones = np.ones(32, np.float32)
    normal = (ones * 1.3, ones * 0.1, ones * 0.2, ones * 0.7)
    found += [pixelwise("BatchNormalization", *normal, around=around) for around in (False, True)]
    found += [pixelwise("LayerNormalization", weights(32, 1)[:, 0], axis=-1, channels=32)]
    found[-1] = Kind(name="LayerNormalization over channels", steps=found[-1].steps, last=True)
    found += [pixelwise(op) for op in ACTIVATIONS]
    found += [pixelwise(op, around=True) for op in ("Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Gelu")]
    found += [pixelwise("PRelu", ones.reshape(-1, 1, 1) * 0.3), pixelwise("Pow", np.float32(2.2))]
    found += [pixelwise(op, weights(32, 1, 1)) for op in ("Add", "Mul", "Div")]
    found += [pixelwise(op, axis=axis) for op in ("Softmax", "LogSoftmax") for axis in (1,)]
    found += [Kind(name="Softmax over the last axis", steps=[("Softmax", {"axis": -1}, [])], last=True)]
    found += [pixelwise("ReduceMean", np.array([1], np.int64)), pixelwise("ReduceL2", np.array([1], np.int64))]
    silu = [("Sigmoid", {}, [])]
    found += [Kind(name="Sigmoid times its operand (SiLU)", steps=[*silu, ("Mul", {"image": 1}, [])])]
    return found


def model(kind: Kind) -> bytes:
    """The operator over (1, C, H, W), or (1, H, W, C), of any height and width."""
    nodes, constants, value = [], [], "image"

    def add(op: str, attributes: dict[str, Any], given: Sequence[Any]) -> None:
        nonlocal value
        attributes = dict(attributes)
        names = [value, *(["image"] if attributes.pop("image", 0) else [])]
        for array in given:
            names.append(f"c{len(constants)}")
            constants.append(numpy_helper.from_array(np.asarray(array), names[-1]))
        value = f"v{len(nodes)}"
        nodes.append(helper.make_node(op, names, [value], **attributes))

    square = {"kernel_shape": [1, 1]}
    if kind.around:
        add("Conv", square, [weights(kind.channels, kind.channels, 1, 1)])
    for step in kind.steps:
        add(*step)
    if kind.around:
        add("Conv", square, [weights(kind.channels, kind.channels, 1, 1)])
    dims: list[int | str] = [1, "h", "w", kind.channels] if kind.last else [1, kind.channels, "h", "w"]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, [None] * 4)],
        constants,
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
    )


def differing(kind: Kind, width: int, threads: int) -> tuple[float, float]:
    """The largest share of values that differ, of all strips, and the largest difference by the largest value."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    session = ort.InferenceSession(model(kind), options, providers=["CPUExecutionProvider"])
    axis = 1 if kind.last else 2
    shape = [1, ROWS, width, kind.channels] if kind.last else [1, kind.channels, ROWS, width]
    image = np.abs(np.random.default_rng(0).standard_normal(shape)).astype(np.float32)

    def run(rows: slice) -> Array:
        cut = [slice(None)] * 4
        cut[axis] = rows
        found: Array = session.run(None, {"image": np.ascontiguousarray(image[tuple(cut)])})[0]
        return found.swapaxes(axis, 0)

    whole, share, largest = run(slice(0, ROWS)), 0.0, 0.0
    for rows in STRIP_ROWS:
        for start in range(rows, ROWS - rows - kind.more, rows):
            part = run(slice(start, start + rows + max(0, kind.more)))
            first = start * kind.times // kind.stride
            edge = kind.edge * kind.times
            mine, theirs = part[edge : len(part) - edge], whole[first + edge : first + len(part) - edge]
            gap = np.abs(mine.astype(np.float64) - theirs)
            share = max(share, float(np.mean(mine != theirs)))
            largest = max(largest, float(gap.max() / np.abs(whole).max()))
    return share, largest


def measure(options: argparse.Namespace) -> Iterator[Record]:
    threads = (1,) if options.quick else (1, 0)
    table = Table(title="Rows of a strip against the same rows of one pass", columns=COLUMNS)
    for kind in kinds():
        for width in WIDTHS:
            for count in threads:
                share, largest = differing(kind, width, count)
                where = f"{width} columns, {'all threads' if count == 0 else '1 thread'}"
                print(f"{kind.name}, {where}: {share:.2%} differ, {largest:.1e}", file=sys.stderr)
                table.add(kind.name, where, "no" if share else "yes", 100 * share, largest)
    yield Record(part="strip_rounding", title="Where strips round otherwise", tables=[table], remarks="")


def main() -> None:
    run_part(measure, argparse.ArgumentParser(description=__doc__))


if __name__ == "__main__":
    main()
