"""Damaged ONNX models: bits and bytes, and graphs that no exporter would write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper

from fuzz.models import NETWORKS, TRAINED, WRITTEN_BY_RUNTIME
from fuzz.recipe import Recipe, draw

Random = np.random.Generator
Mutation = Callable[[bytes, Random], bytes]
HUGE = (0, 1, -1, 2, 3, 1 << 16, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
OPERATORS = (
    "Relu", "Add", "Mul", "Conv", "ConvTranspose", "MaxPool", "GlobalAveragePool", "Resize", "Concat", "Slice", "Pad",
    "Transpose", "Reshape", "Softmax", "Identity", "Cast", "Shape", "Gather", "Einsum", "Loop", "If", "Scan", "NonZero",
    "NoSuchOperator", "FusedConv", "QuickGelu", "QLinearAdd", "QLinearConcat", "SequenceConstruct", "SequenceAt",
    "SplitToSequence", "ConcatFromSequence", "SequenceMap", "Optional",
)  # fmt: skip


def onnx_recipe(seed: int) -> Recipe:
    return draw("onnx", [*NETWORKS, TRAINED, *WRITTEN_BY_RUNTIME], list(MUTATIONS), seed)


def onnx_case(recipe: Recipe, shared: Path) -> bytes:
    """Return the model file of a recipe."""
    data, rng = _base(shared / f"{recipe.base}.onnx"), recipe.random()
    for mutation in recipe.mutations:
        data = MUTATIONS[mutation](data, rng)
    return data


@cache
def _base(path: Path) -> bytes:
    return path.read_bytes()


def _pick(items: Sequence, rng: Random):
    return items[int(rng.integers(len(items)))]


def _bits(data: bytes, rng: Random, first: int = 0, last: int | None = None) -> bytes:
    changed = bytearray(data)
    end = min(len(changed), last or len(changed))
    for _ in range(int(rng.integers(1, 9))):
        if first < end:
            changed[int(rng.integers(first, end))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _truncated(data: bytes, rng: Random) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def _cut(data: bytes, rng: Random) -> bytes:
    start = int(rng.integers(len(data) + 1))
    return data[:start] + data[start + int(rng.integers(1, 300)) :]


def _inserted(data: bytes, rng: Random) -> bytes:
    start = int(rng.integers(len(data) + 1))
    return data[:start] + rng.bytes(int(rng.integers(1, 300))) + data[start:]


def _sector(data: bytes, rng: Random) -> bytes:
    start = int(rng.integers(len(data) + 1))
    return data[:start] + bytes(len(data[start : start + 512])) + data[start + 512 :]


def _graph(change: Callable[[onnx.ModelProto, Random], None]) -> Mutation:
    """Return a mutation of the parsed model; a file that is damaged already stays as it is."""

    def mutate(data: bytes, rng: Random) -> bytes:
        model = onnx.ModelProto()
        try:
            model.ParseFromString(data)
            change(model, rng)
            return model.SerializeToString()
        except Exception:  # noqa: BLE001 - protobuf's own errors; nothing to aim at
            return data

    return mutate


def _dangling(model: onnx.ModelProto, rng: Random) -> None:
    node = _pick(model.graph.node, rng)
    node.input[int(rng.integers(len(node.input)))] = _pick(["nowhere", "", "\x00", "x" * 100_000], rng)


def _rewired(model: onnx.ModelProto, rng: Random) -> None:
    """Replace an input by another value: of a later node, so that there is a cycle, or of another shape."""
    node, other = _pick(model.graph.node, rng), _pick(model.graph.node, rng)
    values = [*other.output, *(tensor.name for tensor in model.graph.initializer)]
    node.input[int(rng.integers(len(node.input)))] = _pick(values, rng)


def _renamed(model: onnx.ModelProto, rng: Random) -> None:
    name = _pick(["", "a\nb", "\x1b[31m", "n" * 1_000_000, "image", _pick(model.graph.node, rng).output[0]], rng)
    target = _pick([*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output], rng)
    target.name = name
    if isinstance(target, onnx.NodeProto):
        target.output[0] = name


def _removed(model: onnx.ModelProto, rng: Random) -> None:
    part = _pick(
        [model.graph.node, model.graph.node, model.graph.initializer, model.graph.input, model.graph.output], rng
    )
    del part[int(rng.integers(len(part)))]


def _reordered(model: onnx.ModelProto, rng: Random) -> None:
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    order = rng.permutation(len(nodes))
    del model.graph.node[:]
    model.graph.node.extend(nodes[index] for index in order)


def _operator(model: onnx.ModelProto, rng: Random) -> None:
    node = _pick(model.graph.node, rng)
    node.op_type = _pick(OPERATORS, rng)
    if rng.random() < 0.3:
        node.domain = _pick(["com.example", "ai.onnx.ml", "com.microsoft", "\n"], rng)


def _attribute(model: onnx.ModelProto, rng: Random) -> None:
    """Change an attribute of some node: gone, huge, negative, longer, or of another type."""
    nodes = [node for node in model.graph.node if node.attribute]
    node = _pick(nodes, rng)
    attribute = _pick(node.attribute, rng)
    choice = rng.random()
    if choice < 0.15:
        node.attribute.remove(attribute)
    elif choice < 0.3:
        attribute.type = int(rng.integers(0, 16))
    elif choice < 0.45 and attribute.ints:
        attribute.ints.extend([_pick(HUGE, rng)] * int(rng.choice([1, 2, 10_000])))
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = _pick([*HUGE, 4, 5, 7, 100], rng)
    elif attribute.type == AttributeProto.INT:
        attribute.i = _pick(HUGE, rng)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = _pick([float("nan"), float("inf"), -1.0, 0.0, 1e30], rng)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = _pick([b"", b"\xff\xfe", b"SAME_UPPER", b"linear", b"x" * 100_000], rng)


def _tensors(model: onnx.ModelProto) -> list[TensorProto]:
    held = [attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t")]
    return [*model.graph.initializer, *held]


def _dims(model: onnx.ModelProto, rng: Random) -> None:
    tensor = _pick(_tensors(model), rng)
    if tensor.dims and rng.random() < 0.7:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = _pick(HUGE, rng)
    else:
        tensor.dims.extend([_pick([1, 1, *HUGE], rng)] * int(rng.choice([1, 3, 1000])))


def _data_type(model: onnx.ModelProto, rng: Random) -> None:
    _pick(_tensors(model), rng).data_type = int(rng.choice([0, 1, 2, 6, 7, 8, 9, 10, 11, 14, 16, 17, 21, 22, 23, 99]))


def _values(model: onnx.ModelProto, rng: Random) -> None:
    """Change the bytes and keep the shape: integers that are sizes, pads or axes become anything."""
    tensor = _pick(_tensors(model), rng)
    if tensor.raw_data:
        size = len(tensor.raw_data)
        filled = np.full(-(-size // 8), _pick(HUGE, rng), np.int64).tobytes()[:size]
        tensor.raw_data = _pick([rng.bytes(size), filled, b"\xff" * size, bytes(size), bytes(size // 2)], rng)


def _external(model: onnx.ModelProto, rng: Random) -> None:
    tensor = _pick(list(model.graph.initializer), rng)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    location = _pick(
        ["/etc/passwd", "../case.onnx", "case.onnx", "", ".", "a/../../x", "/dev/zero", "no.bin", "\0"], rng
    )
    tensor.external_data.add(key="location", value=location)
    if rng.random() < 0.7:
        tensor.external_data.add(key="length", value=_pick(["-1", "0", "9" * 30, "x", "64"], rng))
    if rng.random() < 0.5:
        tensor.external_data.add(key="offset", value=_pick(["-64", "0", "9" * 30, "x", "1e3"], rng))


def _input_shape(model: onnx.ModelProto, rng: Random) -> None:
    value = _pick([*model.graph.input, *model.graph.output], rng)
    shape = value.type.tensor_type.shape
    choice = rng.random()
    if choice < 0.2:
        value.type.ClearField("tensor_type")
    elif choice < 0.4:
        value.type.tensor_type.elem_type = int(rng.integers(0, 25))
    elif choice < 0.6:
        shape.dim.add().dim_value = 3
    elif shape.dim:
        dim = _pick(list(shape.dim), rng)
        dim.dim_value = _pick(HUGE, rng)


def _versions(model: onnx.ModelProto, rng: Random) -> None:
    number = _pick([-1, 0, 1, 7, 9, 10, 11, 12, 13, 16, 22, 99, 1 << 62], rng)
    if rng.random() < 0.3:
        model.ir_version = number
    elif rng.random() < 0.2:
        del model.opset_import[:]
    else:
        model.opset_import[0].version = number


def _constant_bomb(model: onnx.ModelProto, rng: Random) -> None:
    """Add an enormous constant to some value."""
    sizes = _pick([[1, 1, 1 << 20, 1 << 20], [1 << 40], [1 << 62, 4], [-5], [1 << 16, 1 << 15]], rng)
    model.graph.initializer.append(helper.make_tensor("bomb_shape", TensorProto.INT64, [len(sizes)], sizes))
    model.graph.initializer.append(helper.make_tensor("bomb_one", TensorProto.FLOAT, [1], [1.0]))
    made = _pick(
        [
            helper.make_node("ConstantOfShape", ["bomb_shape"], ["bomb"]),
            helper.make_node("Expand", ["bomb_one", "bomb_shape"], ["bomb"]),
            helper.make_node("Tile", ["bomb_one", "bomb_shape"], ["bomb"]),
        ],
        rng,
    )
    node = _pick(model.graph.node, rng)
    joined = helper.make_node("Add", [node.input[0], "bomb"], ["bombed"])
    node.input[0] = "bombed"
    nodes = [made, joined, *model.graph.node]
    kept = [onnx.NodeProto.FromString(one.SerializeToString()) for one in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _nested(number: int, content: bytes) -> bytes:
    """Return a protobuf field that holds a message."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def _subgraphs(data: bytes, rng: Random) -> bytes:
    """Add a node with subgraphs within subgraphs; protobuf itself takes 100 levels of messages."""
    graph = b""
    for _ in range(int(rng.choice([5, 25, 33, 60, 3000]))):
        graph = _nested(1, _nested(5, _nested(1, b"then_branch") + _nested(6, graph)) + _nested(4, b"If"))
    return data + _nested(7, graph)


def _many_nodes(model: onnx.ModelProto, rng: Random) -> None:
    """Insert a chain of thousands of nodes before some input."""
    node = _pick(model.graph.node, rng)
    name = node.input[0]
    count = int(rng.choice([50, 300, 1000]))
    for index in range(count):
        model.graph.node.append(helper.make_node("Relu", [name], [f"chain{index}"]))
        name = f"chain{index}"
    node.input[0] = name


MUTATIONS: dict[str, Mutation] = {
    "intact": lambda data, _rng: data,
    "bits anywhere": _bits,
    "bits of the beginning": lambda data, rng: _bits(data, rng, 0, 3000),
    "bits of the end": lambda data, rng: _bits(data, rng, max(0, len(data) - 500)),
    "truncated": _truncated,
    "bytes cut out": _cut,
    "bytes inserted": _inserted,
    "a sector lost": _sector,
    "a name of nothing": _graph(_dangling),
    "rewired": _graph(_rewired),
    "renamed": _graph(_renamed),
    "something removed": _graph(_removed),
    "reordered": _graph(_reordered),
    "another operator": _graph(_operator),
    "an attribute": _graph(_attribute),
    "sizes of a tensor": _graph(_dims),
    "type of a tensor": _graph(_data_type),
    "values of a tensor": _graph(_values),
    "external data": _graph(_external),
    "shape of an input": _graph(_input_shape),
    "versions": _graph(_versions),
    "a constant bomb": _graph(_constant_bomb),
    "nested subgraphs": _subgraphs,
    "many nodes": _graph(_many_nodes),
}
