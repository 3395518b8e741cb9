"""Strip graphs: concatenated strips are one pass over the whole image, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.strips.candidates import candidates
from exactile_converters.strips.demand import demand
from exactile_converters.strips.graphs import carries, strip_graph
from exactile_converters.strips.heights import least_last_rows, startup_rows
from exactile_converters.strips.placement import place
from exactile_converters.strips.refusal import StripError
from exactile_converters.strips.source import StripSource
from tests.converters.test_graph_io import model_of, weights
from tests.support.nets import NETS, onnx_bytes

ROLES = ("first", "body", "last")


class Strips:
    """The three graphs of a network for one choice of carried maps, run by plain ONNX Runtime."""

    def __init__(self, network: Network, choose) -> None:
        traced = network.trace()
        assert traced.obstacles == ()
        self.network, self.geometry = network, traced.geometry
        self.source = StripSource.of(
            model=network.model,
            walk=traced.walk,
            nodes=traced.nodes,
            sizes=traced.sizes,
            remainder=self.geometry.y.remainder,
            image=network.image,
            result=network.result,
        )
        carry = frozenset(choose(self.source))
        need = demand(self.source.frontiers, carry)
        self.startup, self.least_last = (
            startup_rows(self.source.frontiers, need),
            least_last_rows(self.source.frontiers),
        )
        self.carries = carries(self.source, need)
        self.graphs = {role: strip_graph(self.source, carry, role) for role in ROLES}
        self.rows = {name: traced.features[name].labels.index("y") for name in (network.result.name,)}
        self._sessions = {}

    def run(self, pixels: np.ndarray, heights: list[int]) -> np.ndarray:
        """``heights`` of all strips, first to last; ``pixels`` as the network takes them."""
        axis, result, carried, outputs, start = self.network.labels.index("y"), self.network.result.name, {}, [], 0
        for index, height in enumerate(heights):
            role = "first" if index == 0 else "last" if index == len(heights) - 1 else "body"
            rows = np.take(pixels, range(start, start + height), axis)
            names, session = self._session(role, rows.shape)
            feeds = {self.network.image.name: rows}
            feeds |= {f"{name}_in": rows for name, rows in carried.items()} if role != "first" else {}
            found = dict(zip(names, session.run(names, feeds), strict=True))
            outputs.append(found[result])
            carried = {carry.name: found[f"{carry.name}_out"] for carry in self.carries if role != "last"}
            start += height
        return np.concatenate(outputs, self.rows[result])

    def _session(self, role: str, shape: tuple[int, ...]):
        if (role, shape) not in self._sessions:
            width = shape[self.network.labels.index("x")]
            sizes = {"height": shape[self.network.labels.index("y")], "width": width}
            sizes |= {carry.width_name: carry.columns_at(width) for carry in self.carries}
            session = fixed_session(self.graphs[role].SerializeToString(), sizes)
            self._sessions[role, shape] = [output.name for output in session.get_outputs()], session
        return self._sessions[role, shape]


def fixed_session(model: bytes, sizes: dict[str, int]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def whole(model: bytes, network: Network, pixels: np.ndarray) -> np.ndarray:
    """One pass at fixed dimensions: with free ones ONNX Runtime cannot tell that shapes agree, and fuses less."""
    proto = onnx.load_from_string(model)
    for value in proto.graph.input:
        if value.name == network.image.name:
            for dim, size in zip(value.type.tensor_type.shape.dim, pixels.shape, strict=True):
                dim.dim_value = size
    return fixed_session(proto.SerializeToString(), {}).run([network.result.name], {network.image.name: pixels})[0]


def pixels_for(strips: Strips, rows: int, seed: int = 0) -> np.ndarray:
    geometry, labels = strips.geometry, strips.network.labels
    width = geometry.x.accepted_size(2 * geometry.x.stride + 9)
    sizes = {"n": 1, "c": strips.network.channels, "y": rows, "x": width}
    generator = np.random.default_rng(seed)
    return generator.integers(0, 5, [sizes[label] for label in labels]).astype(np.float32)


def loaded(model: bytes) -> Network:
    return prepare_network(onnx.load_from_string(model), name="net")


def check(model: bytes, choose, extra: tuple[int, ...] = (0, 1, 3), body: int = 1) -> Strips:
    """Equal at the least height, one stride more and some; with body strips of ``body`` strides."""
    network = loaded(model)
    strips = Strips(network, choose)
    stride = strips.source.frontiers.stride
    for strides in extra:
        heights = [strips.startup, *[stride * body] * (strides // body), strips.least_last]
        heights[-1] += stride * (strides % body)
        pixels = pixels_for(strips, sum(heights))
        found, expected = strips.run(pixels, heights), whole(model, network, pixels)
        assert np.array_equal(found, expected, equal_nan=True)
    return strips


def every(source: StripSource) -> list[str]:
    return candidates(source.frontiers)


def none(_source: StripSource) -> list[str]:
    return []


def chosen(source: StripSource) -> frozenset[str]:
    return place(source, strip_rows=64)


CHOICES = {"every": every, "none": none, "chosen": chosen}
LARGE = {name for name in NETS if name.startswith(("fc_", "resnet", "segnet")) or name.endswith(("d3", "d4"))}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", [name for name in NETS if name not in LARGE])
def test_strips_are_the_whole_pass_bit_for_bit(name, choice):
    check(onnx_bytes(name), CHOICES[choice])


@pytest.mark.parametrize("name", sorted(LARGE))
def test_large_networks_too_with_the_chosen_carries(name):
    check(onnx_bytes(name), chosen, extra=(1,))


@pytest.mark.parametrize("name", ["unet_d2", "unet_transpose3_d2", "low_resolution"])
def test_body_strips_of_any_height(name):
    strips = Strips(network := loaded(onnx_bytes(name)), chosen)
    stride = strips.source.frontiers.stride
    heights = [strips.startup + stride, 3 * stride, stride, 2 * stride, strips.least_last + 5 * stride]
    pixels = pixels_for(strips, sum(heights))
    assert np.array_equal(strips.run(pixels, heights), whole(onnx_bytes(name), network, pixels))


@pytest.mark.parametrize("name", ["unet_d2", "unet_plain_d2", "unet_d4"])
def test_the_start_up_height_cannot_be_smaller(name):
    """With one stride less, not a row of the result would be final: the halo below it is not there yet."""
    net, strips = NETS[name], Strips(loaded(onnx_bytes(name)), every)
    assert net.reach.bottom < strips.startup
    assert strips.startup - net.stride <= net.reach.bottom


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


W3, W5 = weights(4, 3, 3, 3), weights(4, 4, 5, 5)
SAME = {"pads": [1, 1, 1, 1]}
TAIL = ("Conv", ["m", "w1"], ["out"], {"pads": [2] * 4})
HEAD = ("Conv", ["image", "w0"], ["h"], SAME)
HALF = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}

UP = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
OPERATORS = {
    "pad reflect": (("Pad", ["h", "p"], ["m"], {"mode": "reflect"}), {"p": ints(0, 0, 3, 1, 0, 0, 2, 1)}),
    "pad edge": (("Pad", ["h", "p"], ["m"], {"mode": "edge"}), {"p": ints(0, 0, 1, 0, 0, 0, 2, 3)}),
    "pad constant": (("Pad", ["h", "p"], ["m"], {}), {"p": ints(0, 0, 2, 0, 0, 0, 0, 1)}),
    "crop by pad": (("Pad", ["h", "p"], ["m"], {}), {"p": ints(0, 0, -1, 0, 0, 0, -2, 0)}),
    "crop": (("Slice", ["h", "s", "e", "a"], ["m"], {}), {"s": ints(2, 1), "e": ints(-1, -3), "a": ints(2, 3)}),
    "crop and stride": (
        ("Slice", ["h", "s", "e", "a", "t"], ["m"], {}),
        {"s": ints(0, 0), "e": ints(1 << 40, 1 << 40), "a": ints(2, 3), "t": ints(2, 2)},
    ),
    "average, padding counted": (
        ("AveragePool", ["h"], ["m"], {"kernel_shape": [3, 3], "count_include_pad": 1, **SAME}),
        {},
    ),
    "average, padding not counted": (("AveragePool", ["h"], ["m"], {"kernel_shape": [3, 3], **SAME}), {}),
    "average, rounded up": (
        ("AveragePool", ["h"], ["m"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        {},
    ),
    "dilated pooling": (("MaxPool", ["h"], ["m"], {"kernel_shape": [3, 3], "dilations": [2, 2]}), {}),
    "pooling, rounded up": (("MaxPool", ["h"], ["m"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}), {}),
    "same upper": (
        ("MaxPool", ["h"], ["m"], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        {},
    ),
    "same lower": (
        ("Conv", ["h", "w2"], ["m"], {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
        {"w2": weights(4, 4, 3, 3)},
    ),
    "norm pooling": (("LpPool", ["h"], ["m"], {"kernel_shape": [2, 2], "strides": [2, 2]}), {}),
    "grouped and dilated": (
        ("Conv", ["h", "w2"], ["m"], {"group": 2, "dilations": [3, 2], "pads": [3, 2, 3, 2]}),
        {"w2": weights(4, 2, 3, 3)},
    ),
    "depthwise": (("Conv", ["h", "w2"], ["m"], {"group": 4, **SAME}), {"w2": weights(4, 1, 3, 3)}),
    "transposed, padded output": (
        ("ConvTranspose", ["h", "w2"], ["m"], {"strides": [3, 3], "output_padding": [1, 1], **SAME}),
        {"w2": weights(4, 4, 4, 4)},
    ),
    "transposed, padded on one side": (
        ("ConvTranspose", ["h", "w2"], ["m"], {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
        {"w2": weights(4, 4, 3, 3)},
    ),
    "transposed, kernel below stride": (
        ("ConvTranspose", ["h", "w2"], ["m"], {"strides": [3, 3], "output_padding": [2, 2]}),
        {"w2": weights(4, 4, 1, 1)},
    ),
    "transposed, dilated": (
        ("ConvTranspose", ["h", "w2"], ["m"], {"strides": [2, 2], "dilations": [2, 2]}),
        {"w2": weights(4, 4, 3, 3)},
    ),
    "nearest": (("Resize", ["h", "", "f"], ["m"], {"mode": "nearest"}), {"f": np.array([1, 1, 2, 2], np.float32)}),
    "nearest down": (
        ("Resize", ["h", "", "f"], ["m"], {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}),
        {"f": np.array([1, 1, 0.5, 0.5], np.float32)},
    ),
    "nearest above, behind linear": (
        ("Resize", ["h", "", "f"], ["b"], HALF),
        {"f": np.array([1, 1, 2, 2], np.float32)},
    ),
    "linear by 4": (("Resize", ["h", "", "f"], ["m"], HALF), {"f": np.array([1, 1, 4, 4], np.float32)}),
    "linear down": (("Resize", ["h", "", "f"], ["m"], HALF), {"f": np.array([1, 1, 0.25, 0.25], np.float32)}),
    "cubic": (("Resize", ["h", "", "f"], ["m"], {**HALF, "mode": "cubic"}), {"f": np.array([1, 1, 2, 2], np.float32)}),
    "blocks to channels": (("SpaceToDepth", ["h"], ["b"], {"blocksize": 2}), {}),
    "reshape": (("Reshape", ["h", "r"], ["b"], {}), {"r": ints(0, 2, 2, 0, -1)}),
    "expanded constant": (("Add", ["h", "k"], ["m"], {}), {"k": weights(4, 1, 1)}),
    "several joins": (("Concat", ["h", "image"], ["j"], {"axis": 1}), {}),
}
REST = {
    "nearest above, behind linear": [("Resize", ["b", "", "f"], ["m"], {**UP, "nearest_mode": "ceil"})],
    "blocks to channels": [("DepthToSpace", ["b"], ["m"], {"blocksize": 2})],
    "reshape": [("Reshape", ["b", "back"], ["m"], {})],
    "several joins": [
        ("Conv", ["j", "w3"], ["deep"], {"pads": [4] * 4, "dilations": [4, 4]}),
        ("Add", ["deep", "h"], ["sum"], {}),
        ("Split", ["sum", "two"], ["left", "right"], {"axis": 1}),
        ("Concat", ["right", "left"], ["m"], {"axis": 1}),
    ],
}
CONSTANTS = {"reshape": {"back": ints(0, 4, 0, -1)}, "several joins": {"w3": weights(4, 7, 3, 3), "two": ints(2, 2)}}


def operator_model(case: str) -> bytes:
    """A convolution, the operator, and a 5x5 convolution behind it."""
    node, constants = OPERATORS[case]
    constants = {"w0": W3, "w1": W5, **constants, **CONSTANTS.get(case, {})}
    if case == "reshape":  # (N, 4, H, W) -> (N, 2, 2, H, W) and back; only one -1 is allowed, so columns are fixed
        return reshaping_model()
    return model_of([HEAD, node, *REST.get(case, []), TAIL], constants)


def reshaping_model() -> bytes:
    """Channels regrouped by a shape that is computed from the map's own."""
    nodes = [
        HEAD,
        ("Shape", ["h"], ["size"], {"start": 2}),
        ("Concat", ["front", "size"], ["five"], {"axis": 0}),
        ("Reshape", ["h", "five"], ["b"], {}),
        ("Transpose", ["b"], ["t"], {"perm": [0, 2, 1, 3, 4]}),
        ("Concat", ["four", "size"], ["back"], {"axis": 0}),
        ("Reshape", ["t", "back"], ["m"], {}),
        TAIL,
    ]
    return model_of(nodes, {"w0": W3, "w1": W5, "front": ints(1, 2, 2), "four": ints(1, 4)})


@pytest.mark.parametrize("choice", ["every", "none"])
@pytest.mark.parametrize("case", OPERATORS)
def test_every_operator_that_reaches_over_rows(case, choice):
    check(operator_model(case), CHOICES[choice], extra=(0, 1, 5), body=2)


def test_flattened_tokens():
    """(N, C, H, W) -> (N, H*W, C), a product over channels, and back."""
    nodes = [
        HEAD,
        ("Shape", ["h"], ["size"], {"start": 2}),
        ("Reshape", ["h", "flat"], ["f"], {}),
        ("Transpose", ["f"], ["t"], {"perm": [0, 2, 1]}),
        ("MatMul", ["t", "k"], ["p"], {}),
        ("Transpose", ["p"], ["q"], {"perm": [0, 2, 1]}),
        ("Concat", ["four", "size"], ["back"], {"axis": 0}),
        ("Reshape", ["q", "back"], ["m"], {}),
        TAIL,
    ]
    constants = {"w0": W3, "w1": W5, "flat": ints(1, 4, -1), "four": ints(1, 4), "k": weights(4, 4)}
    check(model_of(nodes, constants), every)


def test_positions_found_by_pooling_have_no_strips():
    nodes = [
        HEAD,
        ("MaxPool", ["h"], ["d", "i"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("MaxUnpool", ["d", "i"], ["m"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        TAIL,
    ]
    with pytest.raises(StripError, match="MaxUnpool"):
        Strips(loaded(model_of(nodes, {"w0": W3, "w1": W5})), every)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_choice_of_carries_gives_the_same(data):
    name = data.draw(st.sampled_from(["unet_d2", "unet_transpose3_d1", "dilated", "valid", "low_resolution"]))
    network = loaded(onnx_bytes(name, "integer" if NETS[name].integer_weights else "random"))
    model = onnx_bytes(name, "integer" if NETS[name].integer_weights else "random")
    strips = Strips(network, lambda source: data.draw(st.sets(st.sampled_from(candidates(source.frontiers)))))
    stride = strips.source.frontiers.stride
    bodies = data.draw(st.lists(st.integers(1, 3), max_size=3))
    heights = [strips.startup, *[stride * strides for strides in bodies], strips.least_last]
    pixels = pixels_for(strips, sum(heights), seed=len(bodies))
    assert np.array_equal(strips.run(pixels, heights), whole(model, network, pixels))


def test_the_graphs_share_their_weights():
    """The same constants under the same names."""
    strips = Strips(loaded(onnx_bytes("unet_d2")), chosen)
    tables = [
        {
            tensor.name: numpy_helper.to_array(tensor).tobytes()
            for tensor in strips.graphs[role].graph.initializer
            if len(tensor.dims) == 4
        }
        for role in ROLES
    ]
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0]) > 5


def test_the_carried_maps_are_declared():
    strips = Strips(loaded(onnx_bytes("unet_d2")), every)
    body = strips.graphs["body"].graph
    assert {value.name for value in body.input} == {"image", *(f"{carry.name}_in" for carry in strips.carries)}
    assert replace(strips.carries[0], name="x").width_name == "x_width"
