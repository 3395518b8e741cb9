"""Input and output inside the graph: image samples as stored go in, labels (or maps) come out.

``image (H, W, C)`` -> ``(sample / scale - mean) / std`` in float32 -> network -> ``result``
((H, W) labels, or (C, H, W) float32), so that one byte a sample goes in and one byte a pixel comes back.

Where the normalisation needs statistics of the whole image, it is ``(sample - offset) / scale`` with two constants that
``statistics_as_inputs`` turns into inputs once the graph is done: until then they count as any constant does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from exactile.contract import ImageInput, ImageStatistics, OutputKind, ResultOutput
from exactile.errors import ChannelError, ModelError, OptionError
from exactile_converters.from_onnx import Network
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import Labels
from exactile_converters.geometry.trace import ancestors

IMAGE, RESULT = "exactile_image", "exactile_result"
IMAGE_TYPES = {"uint8": ir.DataType.UINT8, "uint16": ir.DataType.UINT16, "float32": ir.DataType.FLOAT}
MapDtype = Literal["float32", "float16", "uint8"]
MAP_TYPES = {"float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16, "uint8": ir.DataType.UINT8}
TRANSPARENT = {"Identity", "Transpose", "Cast", "Squeeze", "Unsqueeze"}
THRESHOLD_OF_PROBABILITY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """``(sample / scale - mean) / std``; each one value, or one for each channel.

    With ``statistics``, ``(sample - offset) / scale`` by those of the whole image comes before.
    """

    scale: tuple[float, ...] = (1.0,)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    statistics: ImageStatistics | None = None

    def __post_init__(self) -> None:
        for name, values in (("scale", self.scale), ("mean", self.mean), ("std", self.std)):
            if not values or not all(np.isfinite(values)):
                raise OptionError(f"--{name} must be one finite number, or one for each channel; got {list(values)}")
        for name, values in (("scale", self.scale), ("std", self.std)):
            if 0.0 in values:
                raise OptionError(f"--{name} must not be 0; got {list(values)}")

    def check_channels(self, channels: int) -> None:
        for name, values in (("scale", self.scale), ("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ChannelError(
                    f"--{name} has {len(values)} values and the model takes {channels} channel(s); "
                    f"give one value, or {channels}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """A network with its input and output inside: its graph, and what goes in and comes out."""

    model: ir.Model
    image: ImageInput
    result: ResultOutput


def wrap(
    network: Network,
    output: FeatureMap,
    *,
    image_dtype: str,
    normalization: Normalization,
    kind: OutputKind,
    map_dtype: MapDtype | None = None,
) -> Wrapped:
    """Wrap ``network`` in place. ``output`` is the traced feature map of its result.

    ``map_dtype`` is that of probabilities or raw maps: float32 (the default), float16, or, for probabilities, uint8:
    ``round(255 * p)``.
    """
    if image_dtype not in IMAGE_TYPES:
        raise ModelError(f"images of {image_dtype} are not supported; convert to one of {', '.join(IMAGE_TYPES)}")
    normalization.check_channels(network.channels)
    image = _prepend(network, IMAGE_TYPES[image_dtype], normalization)
    tail = _Tail(network, output)
    result, spec = tail.append(kind, map_dtype)
    graph = network.model.graph
    graph.inputs[:] = [image]
    graph.outputs[:] = [result]
    for node in graph:
        for value in node.outputs:
            if value is not result:
                value.shape = None  # shapes written for the old input would contradict the tile's
    kept = set(ancestors(network.model, result))
    graph.remove([node for node in graph if node not in kept], safe=True)
    graph.sort()
    return Wrapped(
        model=network.model,
        image=ImageInput(name=IMAGE, dtype=image_dtype, channels=network.channels, statistics=normalization.statistics),
        result=spec,
    )


def statistics_as_inputs(model: onnx.ModelProto, statistics: ImageStatistics | None) -> None:
    """Offset and scale of the whole image, constants so far, become inputs of a finished graph."""
    if statistics is None:
        return
    names = (statistics.offset_name, statistics.scale_name)
    constants = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in names}
    for name in names:
        tensor = constants[name]
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        model.graph.initializer.remove(tensor)


class _Builder:
    """Adds nodes at the end of a graph, with fresh names."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix
        self._count = 0

    def add(self, op: str, *inputs: ir.Value, name: str | None = None, **attributes: int | Sequence[int]) -> ir.Value:
        self._count += 1
        node = ir.node(op, inputs, attributes=attributes, name=f"{self._prefix}_{self._count}_{op}")
        node.outputs[0].name = name or f"{self._prefix}_{self._count}"
        self._graph.append(node)
        return node.outputs[0]

    def constant(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ir.Value:
        self._count += 1
        value = ir.Value(name=f"{self._prefix}_{self._count}", const_value=ir.tensor(array))
        self._graph.register_initializer(value)
        return value

    def named(self, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ir.Value:
        """A constant under a name of its own."""
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        self._graph.register_initializer(value)
        return value

    def axes(self, *axes: int) -> ir.Value:
        return self.constant(np.array(axes, np.int64))


def _prepend(network: Network, dtype: ir.DataType, normalization: Normalization) -> ir.Value:
    graph = network.model.graph
    build = _Builder(graph, "exactile_in")
    image = ir.Value(name=IMAGE, shape=ir.Shape(["height", "width", network.channels]), type=ir.TensorType(dtype))
    # Channels first while samples are still small: the arithmetic below then runs along whole planes.
    value = build.add("Transpose", image, perm=[2, 0, 1])
    value = build.add("Unsqueeze", value, build.axes(0))
    wanted = network.image.dtype or ir.DataType.FLOAT
    steps = [
        ("Div", normalization.scale, 1.0),
        ("Sub", normalization.mean, 0.0),
        ("Div", normalization.std, 1.0),
    ]
    active = [(op, values) for op, values, neutral in steps if any(v != neutral for v in values)]
    current, statistics = dtype, normalization.statistics
    if active or statistics is not None or wanted.is_floating_point():
        if current != ir.DataType.FLOAT:
            value = build.add("Cast", value, to=ir.DataType.FLOAT.value)
            current = ir.DataType.FLOAT
        if statistics is not None:
            shape = (1, network.channels, 1, 1)
            value = build.add("Sub", value, build.named(statistics.offset_name, np.zeros(shape, np.float32)))
            value = build.add("Div", value, build.named(statistics.scale_name, np.ones(shape, np.float32)))
        for op, values in active:
            constant = np.array(values, np.float32).reshape(1, -1, 1, 1)
            value = build.add(op, value, build.constant(constant))
    if current != wanted:
        value = build.add("Cast", value, to=wanted.value)
    order = ("n", "c", "y", "x")
    if network.labels != order:
        value = build.add("Transpose", value, perm=[order.index(label) for label in network.labels])
    value.type = ir.TensorType(wanted)
    network.image.replace_all_uses_with(value)
    return image


class _Tail:
    """Turns the network's own output into labels, probabilities or a plain float map."""

    def __init__(self, network: Network, output: FeatureMap) -> None:
        self._build = _Builder(network.model.graph, "exactile_out")
        self._name = network.name
        self._value = network.result
        self._labels: Labels = output.labels
        self._shape = output.shape
        self._dtype = ir.DataType(output.dtype)
        self._last = _last_operation(network.result)

    @property
    def _channels(self) -> int:
        return self._shape[self._labels.index("c")] if "c" in self._labels else 1

    @property
    def _classes(self) -> int | None:
        """How many classes a label map distinguishes, where the graph tells."""
        if self._last is None or self._last.op_type != "ArgMax":
            return None
        source = self._last.inputs[0]
        producer = source.producer() if source is not None else None
        weights = producer.inputs[1] if producer is not None and producer.op_type == "Conv" else None
        if weights is None or weights.shape is None:
            return None
        count = weights.shape[0]
        return count if isinstance(count, int) else None

    def append(self, kind: OutputKind, map_dtype: MapDtype | None) -> tuple[ir.Value, ResultOutput]:
        if self._labels.count("c") > 1:
            raise ModelError(f"{self._name}: the output has more than one channel axis ({self._labels})")
        if kind == "labels" and map_dtype is not None:
            raise OptionError(f"labels are uint8 or uint16, as many as there are classes; {map_dtype} is for maps")
        if kind == "raw" and map_dtype == "uint8":
            raise OptionError("raw values have no range that 8 bits could hold; uint8 is for probabilities")
        match kind:
            case "labels":
                return self._finish_labels(*self._as_labels())
            case "probabilities":
                self._as_probabilities()
        return self._finish_map(kind, map_dtype or "float32")

    def _as_labels(self) -> tuple[ir.Value, int | None]:
        """A label map that keeps its labels' axes, and how many classes it tells apart, where that is known."""
        if not self._dtype.is_floating_point():
            if self._channels != 1:
                raise OptionError(
                    f"{self._name}: the output has {self._channels} channels of {self._dtype.name}, which are neither "
                    "scores nor labels; use --output raw"
                )
            return self._value, self._classes
        if self._channels == 1:
            threshold = THRESHOLD_OF_PROBABILITY if self._is_probability() else 0.0
            limit = self._build.constant(np.array(threshold, self._dtype.numpy()))
            return self._build.add("Greater", self._value, limit), 2
        axis = self._labels.index("c")
        classes = self._channels
        value = self._build.add("ArgMax", self._value, axis=axis, keepdims=0)
        self._labels = tuple(label for label in self._labels if label != "c")
        return value, classes

    def _as_probabilities(self) -> None:
        if not self._dtype.is_floating_point():
            raise OptionError(f"{self._name}: the network gives labels; it has no probabilities. Use --output labels")
        if self._last is not None and self._last.op_type == "LogSoftmax":
            self._value = self._build.add("Exp", self._value)
        elif self._channels == 1 and not self._is_probability():
            self._value = self._build.add("Sigmoid", self._value)
        elif self._channels > 1 and not self._is_probability():
            self._value = self._build.add("Softmax", self._value, axis=self._labels.index("c"))

    def _is_probability(self) -> bool:
        return self._last is not None and self._last.op_type in {"Softmax", "Sigmoid", "HardSigmoid"}

    def _finish_labels(self, value: ir.Value, classes: int | None) -> tuple[ir.Value, ResultOutput]:
        dtype = ir.DataType.UINT8 if classes is not None and classes <= 1 << 8 else ir.DataType.UINT16
        value = self._build.add("Cast", value, to=dtype.value)
        value = self._arranged(value, ("y", "x"), RESULT)
        value.type, value.shape = ir.TensorType(dtype), ir.Shape([None, None])
        spec = ResultOutput(name=RESULT, kind="labels", dtype=dtype.name.lower(), channels=0, classes=classes or 0)
        return value, spec

    def _finish_map(self, kind: OutputKind, map_dtype: MapDtype) -> tuple[ir.Value, ResultOutput]:
        value, dtype = self._value, MAP_TYPES[map_dtype]
        if map_dtype == "uint8":
            if self._dtype != ir.DataType.FLOAT:
                value = self._build.add("Cast", value, to=ir.DataType.FLOAT.value)
            value = self._build.add("Mul", value, self._build.constant(np.array(255, np.float32)))
            value = self._build.add("Round", value)
            value = self._build.add("Cast", value, to=dtype.value)
        elif self._dtype != dtype:
            value = self._build.add("Cast", value, to=dtype.value)
        channels = self._channels
        value = self._arranged(value, ("c", "y", "x"), RESULT)
        value.type, value.shape = ir.TensorType(dtype), ir.Shape([channels, None, None])
        return value, ResultOutput(name=RESULT, kind=kind, dtype=map_dtype, channels=channels, classes=channels)

    def _arranged(self, value: ir.Value, wanted: tuple[str, ...], name: str) -> ir.Value:
        """Bring ``value`` to exactly the axes ``wanted``, under its final ``name``."""
        gone = [dim for dim, label in enumerate(self._labels) if label not in wanted]
        if gone:
            value = self._build.add("Squeeze", value, self._build.axes(*gone))
        labels = [label for label in self._labels if label in wanted]
        for missing in [label for label in wanted if label not in labels]:
            value = self._build.add("Unsqueeze", value, self._build.axes(0))
            labels.insert(0, missing)  # type: ignore[arg-type]
        order = [labels.index(label) for label in wanted]  # type: ignore[arg-type]
        if order != sorted(order):
            return self._build.add("Transpose", value, name=name, perm=order)
        return self._build.add("Identity", value, name=name)


def _last_operation(value: ir.Value) -> ir.Node | None:
    """The operator that made ``value``, behind casts and moves of axes."""
    node = value.producer()
    while node is not None and node.op_type in TRANSPARENT:
        source: Sequence[ir.Value | None] = node.inputs
        node = source[0].producer() if source[0] is not None else None
    return node
