"""Random small networks: the walk agrees with a probe of the network itself, and tiled equals whole bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from exactile_converters.prepare.from_onnx import prepare_network
from tests.runs.test_exactness import segment
from tests.support.oracle import whole_pass

# Sizes that the drawn networks are checked on while they are drawn: two, so that maps that fit one by chance do not.
SIZES = ((288, 576), (576, 864))
LARGEST_VALUE = 3
EXACT = 1 << 24  # float32 counts whole numbers up to here
OPERATORS = [
    "Conv", "Conv", "Conv", "ConvTranspose", "MaxPool", "AveragePool", "nearest", "linear", "down", "Pad", "Slice",
    "SpaceToDepth", "pixel shuffle", "Relu", "LeakyRelu", "BatchNormalization", "Transpose",
    "Gather", "Concat", "Concat", "Add", "Add",
]  # fmt: skip


@dataclass(frozen=True)
class Map:
    """A feature map while a network is drawn: sizes at SIZES (y, x), and a bound of its values and their fractions."""

    name: str
    channels: int
    sizes: tuple[tuple[int, int], tuple[int, int]]
    bound: int


@dataclass
class Drawing:
    """A network while it is drawn."""

    data: st.DataObject
    nodes: list = field(default_factory=list)
    constants: list = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)

    def draw(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def constant(self, array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, *shape: int) -> str:
        generator = np.random.default_rng(len(self.constants))
        return self.constant(generator.integers(1, 3, shape).astype(np.float32))

    def node(self, op: str, *inputs: str, **attributes) -> str:
        name = f"m{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{op}_{name}", **attributes))
        return name

    def add(self, name: str, channels: int, sizes, bound: int) -> None:
        made = Map(name, channels, tuple(tuple(int(n) for n in pair) for pair in sizes), bound)
        if bound <= EXACT and all(4 <= n <= 4 * max(SIZES[1]) for pair in made.sizes for n in pair):
            self.maps.append(made)


def per_axis(sizes, functions):
    return [[functions[axis](pair[axis]) for axis in (0, 1)] for pair in sizes]


def windows(kernels, strides, pads, extents):
    return [
        lambda n, axis=axis: (n + pads[axis] + pads[axis + 2] - extents[axis]) // strides[axis] + 1 for axis in (0, 1)
    ]


def add_operator(net: Drawing, op: str) -> None:
    last = net.maps[-1]
    draw = net.draw
    pair = [draw(1, 3), draw(1, 3)]
    match op:
        case "Conv":
            kernels, strides, dilations = [draw(1, 4), draw(1, 3)], [draw(1, 2), draw(1, 2)], [draw(1, 2), draw(1, 3)]
            extents = [(k - 1) * d + 1 for k, d in zip(kernels, dilations, strict=True)]
            pads = [draw(0, extents[i % 2]) for i in range(4)]
            groups = last.channels if net.data.draw(st.booleans()) else 1
            out = last.channels if groups > 1 else draw(1, 2)
            weight = net.weights(out, last.channels // groups, *kernels)
            name = net.node(op, last.name, weight, strides=strides, dilations=dilations, pads=pads, group=groups)
            growth = 2 * kernels[0] * kernels[1] * last.channels // groups
            net.add(name, out, per_axis(last.sizes, windows(kernels, strides, pads, extents)), last.bound * growth)
        case "ConvTranspose":
            strides = [draw(1, 2), draw(1, 3)]
            kernels = [strides[0] + draw(0, 2), strides[1] + draw(0, 2)]
            pads = [draw(0, kernels[i % 2] - 1) for i in range(4)]
            extra = [draw(0, strides[0] - 1), draw(0, strides[1] - 1)]
            out = draw(1, 2)
            name = net.node(
                op,
                last.name,
                net.weights(last.channels, out, *kernels),
                strides=strides,
                pads=pads,
                output_padding=extra,
            )
            sizes = per_axis(
                last.sizes,
                [
                    lambda n, a=axis: (n - 1) * strides[a] + kernels[a] + extra[a] - pads[a] - pads[a + 2]
                    for axis in (0, 1)
                ],
            )
            net.add(name, out, sizes, last.bound * 2 * kernels[0] * kernels[1] * last.channels)
        case "MaxPool":
            pads = [draw(0, pair[i % 2] // 2) for i in range(4)]
            strides = [draw(1, 2), draw(1, 3)]
            name = net.node(op, last.name, kernel_shape=pair, strides=strides, pads=pads)
            net.add(name, last.channels, per_axis(last.sizes, windows(pair, strides, pads, pair)), last.bound)
        case "AveragePool":
            kernels, strides = [2, 4], [draw(1, 2), draw(1, 4)]
            pads = [draw(0, 1), draw(0, 2), draw(0, 1), draw(0, 2)]
            name = net.node(op, last.name, kernel_shape=kernels, strides=strides, pads=pads, count_include_pad=1)
            net.add(name, last.channels, per_axis(last.sizes, windows(kernels, strides, pads, kernels)), last.bound * 8)
        case "nearest" | "linear" | "down":
            factor = 0.5 if op == "down" else 2.0
            attributes = {"mode": "linear" if op == "linear" else "nearest"}
            if op != "linear":
                attributes["coordinate_transformation_mode"] = "asymmetric"
                attributes["nearest_mode"] = net.data.draw(st.sampled_from(["floor", "ceil", "round_prefer_floor"]))
            name = net.node("Resize", last.name, "", net.constant(np.float32([1, 1, factor, factor])), **attributes)
            grown = per_axis(last.sizes, [lambda n: n * factor] * 2)
            net.add(name, last.channels, grown, last.bound * (16 if op == "linear" else 1))
        case "Pad":
            pads = [draw(0, 3) for _ in range(4)]
            mode = net.data.draw(st.sampled_from(["constant", "reflect", "edge"]))
            amounts = net.constant(np.int64([0, 0, *pads[:2], 0, 0, *pads[2:]]))
            name = net.node(op, last.name, amounts, mode=mode)
            sizes = per_axis(last.sizes, [lambda n, a=axis: n + pads[a] + pads[a + 2] for axis in (0, 1)])
            net.add(name, last.channels, sizes, last.bound)
        case "Slice":
            starts, ends = [draw(0, 3), draw(0, 3)], [draw(0, 3), draw(0, 3)]
            stops = [-n if n else 2**62 for n in ends]
            name = net.node(op, last.name, *(net.constant(np.int64(v)) for v in (starts, stops, [2, 3])))
            sizes = per_axis(last.sizes, [lambda n, a=axis: n - starts[a] - ends[a] for axis in (0, 1)])
            net.add(name, last.channels, sizes, last.bound)
        case "SpaceToDepth":
            if all(n % 2 == 0 for pair in last.sizes for n in pair) and last.channels <= 2:
                half = per_axis(last.sizes, [lambda n: n // 2] * 2)
                net.add(net.node(op, last.name, blocksize=2), last.channels * 4, half, last.bound)
        case "pixel shuffle":
            wide = net.node("Conv", last.name, net.weights(4, last.channels, 1, 1))
            mode = net.data.draw(st.sampled_from(["DCR", "CRD"]))
            name = net.node("DepthToSpace", wide, blocksize=2, mode=mode)
            net.add(name, 1, per_axis(last.sizes, [lambda n: n * 2] * 2), last.bound * 2 * last.channels)
        case "Relu":
            net.add(net.node(op, last.name), last.channels, last.sizes, last.bound)
        case "LeakyRelu":
            net.add(net.node(op, last.name, alpha=0.5), last.channels, last.sizes, last.bound)
        case "BatchNormalization":
            values = [np.full(last.channels, v, np.float32) for v in (2, 1, 0, 1)]
            name = net.node(op, last.name, *map(net.constant, values), epsilon=0.0)
            net.add(name, last.channels, last.sizes, last.bound * 2 + 1)
        case "Transpose":
            first = net.node(op, last.name, perm=[0, 2, 3, 1])
            name = net.node(op, net.node("Relu", first), perm=[0, 3, 1, 2])
            net.add(name, last.channels, last.sizes, last.bound)
        case "Gather":
            # All channels: were some left out, what only they depend on would rightly be missed by the probe.
            order = net.constant(np.int64([-1 - i for i in range(last.channels)]))
            net.add(net.node(op, last.name, order, axis=1), last.channels, last.sizes, last.bound)
        case "Concat" | "Add":
            fitting = [
                m
                for m in net.maps[:-1]
                if m.sizes == last.sizes and (m.channels == last.channels if op == "Add" else m.channels < 5)
            ]
            if fitting:
                other = net.data.draw(st.sampled_from(fitting))
                bound = last.bound + other.bound
                channels = last.channels if op == "Add" else last.channels + other.channels
                attributes = {} if op == "Add" else {"axis": 1}
                net.add(net.node(op, last.name, other.name, **attributes), channels, last.sizes, bound)


def random_network(data: st.DataObject) -> bytes:
    net = Drawing(data)
    net.maps.append(Map("image", 1, SIZES, LARGEST_VALUE))
    for _ in range(data.draw(st.integers(1, 9))):
        add_operator(net, data.draw(st.sampled_from(OPERATORS)))
    # Operators whose values could leave the exact range were not taken up: they have no part in the result.
    result = net.maps[-1].name
    assume(result != "image")
    graph = helper.make_graph(
        net.nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "h", "w"])],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, [1, "c", "oh", "ow"])],
        net.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def check_probe(session: ort.InferenceSession, geometry, axis: str) -> None:
    """Infinity one pixel beyond the claimed halo leaves a box finite; on its last pixel it does not."""
    along, other = getattr(geometry, axis), geometry.x if axis == "y" else geometry.y
    first = -(-(max(along.before, along.margin_before, 0) + 1) // along.stride) * along.stride
    last = first + along.stride
    length = along.accepted_size(last + max(along.after, along.margin_after, 0) + 1)
    breadth = other.accepted_size(other.margin_before + other.margin_after + other.stride)

    def box_is_finite(poison: slice) -> bool:
        image = np.ones((1, 1, length, breadth), np.float32)
        image[:, :, poison] = np.inf
        (output,) = session.run(None, {"image": image if axis == "y" else image.swapaxes(2, 3).copy()})
        output = output if axis == "y" else output.swapaxes(2, 3)
        return bool(np.isfinite(output[:, :, along.output_position(first) : along.output_position(last)]).all())

    assert box_is_finite(slice(0, first - along.before))
    assert not box_is_finite(slice(0, first - along.before + 1))
    assert box_is_finite(slice(last + along.after, length))
    assert not box_is_finite(slice(last + along.after - 1, length))


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data())
def test_random_networks_run_in_tiles_and_strips_exactly_and_reach_what_the_walk_says(data):
    """The least tile, three each way, at a size that is no multiple of anything."""
    model = random_network(data)
    network = prepare_network(onnx.load_from_string(model), name="random")
    geometry = network.with_own_sizes(network.trace()).geometry
    assume(geometry is not None)
    assume(max(geometry.y.stride, geometry.x.stride) <= 32)
    session = ort.InferenceSession(model)
    for axis in ("y", "x") if not geometry.placed else ():  # such networks do not commute with shifts
        check_probe(session, geometry, axis)
    tile, size = [], []
    for base, more in ((geometry.y, 1), (geometry.x, -1)):
        axis = base.of_size((1 << 12) * base.stride + more)
        assume(not axis.one_pass)
        extra = more if axis is base else 0
        need = -(-axis.margin_before // axis.stride) * axis.stride + axis.stride + axis.margin_after
        tile.append(axis.accepted_size(max(need, 1)))
        size.append(tile[-1] + 3 * axis.stride + extra)
    generator = np.random.default_rng(size[0])
    image = generator.integers(0, LARGEST_VALUE + 1, (*size, 1), dtype=np.uint8)
    raw, summary, _ = segment(model, image, tile=tuple(tile))
    assert summary.tiles > 1
    expected = whole_pass(model, image, geometry)
    assert np.array_equal(raw, expected)
    rows = data.draw(st.integers(1, 3), label="strides in a strip") * geometry.y.stride
    strips, _, _ = segment(model, image, plan="strip", tile=(rows, tile[1]))
    assert np.array_equal(strips, expected)
