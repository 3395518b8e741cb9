"""Convert the image, as stored, to what the network takes: ``(sample / scale - mean) / std`` in float32.

A network with integer inputs gets the samples themselves, where its type holds them all.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exactile.contract import ImageStatistics
from exactile.errors import ModelError, OptionError
from exactile_converters.graphs.builder import Builder
from exactile_converters.graphs.interval import Interval, of_type
from exactile_converters.networks.network import Network
from exactile_converters.networks.normalization import Normalization

IMAGE = "exactile_image"
IMAGE_TYPES = {"uint8": ir.DataType.UINT8, "uint16": ir.DataType.UINT16, "float32": ir.DataType.FLOAT}
LARGEST_HALF = 65504.0


def taken_type(network: Network) -> np.dtype[np.generic]:
    """Return the type of the network's own image input."""
    return np.dtype((network.image.dtype or ir.DataType.FLOAT).numpy())


def fitting_image_type(network: Network) -> str:
    """Return the default sample type of a network: its own, else uint8."""
    return "uint16" if taken_type(network).name == "uint16" else "uint8"


def prepend_image(network: Network, dtype: str, normalization: Normalization) -> ir.Value:
    """Add the conversion of stored samples before the network's input; return the new input.

    Raises OptionError, ModelError.
    """
    if dtype not in IMAGE_TYPES:
        raise ModelError(f"images of {dtype} are not supported; convert to one of {', '.join(IMAGE_TYPES)}")
    wanted = taken_type(network)
    if wanted.kind != "f":
        _check_integers(network.name, wanted, dtype, normalization)
    elif wanted == np.float16:
        _check_half(network.name, dtype, normalization)
    build = Builder(network.model.graph, "exactile_in")
    kind = IMAGE_TYPES[dtype]
    image = ir.Value(name=IMAGE, shape=ir.Shape(["height", "width", network.channels]), type=ir.TensorType(kind))
    # Channels first while samples are still small: the arithmetic below then runs along whole planes.
    value = build.add("Transpose", image, perm=[2, 0, 1])
    value = build.add("Unsqueeze", value, build.axes(0))
    wanted_kind = network.image.dtype or ir.DataType.FLOAT
    if wanted.kind == "f":
        if kind != ir.DataType.FLOAT:
            value, kind = build.add("Cast", value, to=ir.DataType.FLOAT.value), ir.DataType.FLOAT
        value = _normalized(build, value, normalization, network.channels)
    if kind != wanted_kind:
        value = build.add("Cast", value, to=wanted_kind.value)
    order = ("n", "c", "y", "x")
    if network.labels != order:
        value = build.add("Transpose", value, perm=[order.index(label) for label in network.labels])
    value.type = ir.TensorType(wanted_kind)
    network.image.replace_all_uses_with(value)
    return image


def image_ranges(dtype: str, statistics: ImageStatistics | None) -> dict[str, Interval]:
    """Return the known ranges of the graph's inputs by name, including those for statistics of the whole image."""
    samples = of_type(np.dtype(dtype))
    if statistics is None:
        return {IMAGE: samples}
    span = samples.high - samples.low if samples.bounded else float("inf")
    scale = Interval(low=statistics.epsilon, high=span + statistics.epsilon, nan=samples.nan)
    return {IMAGE: samples, statistics.offset_name: samples, statistics.scale_name: scale}


def _normalized(build: Builder, value: ir.Value, normalization: Normalization, channels: int) -> ir.Value:
    statistics = normalization.statistics
    if statistics is not None:
        shape = (1, channels, 1, 1)
        value = build.add("Sub", value, build.named(statistics.offset_name, np.zeros(shape, np.float32)))
        value = build.add("Div", value, build.named(statistics.scale_name, np.ones(shape, np.float32)))
    for op, values, neutral in normalization.steps:
        if any(number != neutral for number in values):
            value = build.add(op, value, build.constant(np.array(values, np.float32).reshape(1, -1, 1, 1)))
    return value


def _check_integers(name: str, wanted: np.dtype[np.generic], dtype: str, normalization: Normalization) -> None:
    if normalization != Normalization():
        given = "statistics of the image" if normalization.statistics is not None else "--scale, --mean and --std"
        raise OptionError(
            f"{name}: the network takes {wanted} and does its own preprocessing; samples normalised by {given} would "
            "lose their fractions. Leave --scale, --mean, --std and --normalize out"
        )
    if not np.can_cast(np.dtype(dtype), wanted, "safe"):
        fitting = [known for known in IMAGE_TYPES if np.can_cast(np.dtype(known), wanted, "safe")]
        remedy = (
            f"convert the image to {' or '.join(fitting)}"
            if fitting
            else "export it with an input of float32 or uint8, and a cast behind it"
        )
        raise OptionError(
            f"{name}: the network takes {wanted} and does its own preprocessing; the image holds {dtype} samples, "
            f"which {wanted} does not hold. What to do: {remedy}"
        )


def _check_half(name: str, dtype: str, normalization: Normalization) -> None:
    """Raise where samples would overflow float16."""
    samples = of_type(np.dtype(dtype))
    if not samples.bounded or normalization.statistics is not None:
        return
    for op, values, _neutral in normalization.steps:
        numbers = Interval(low=min(values), high=max(values))
        samples = samples / numbers if op == "Div" else samples - numbers
    if not samples.within(-LARGEST_HALF, LARGEST_HALF):
        raise OptionError(
            f"{name}: the network takes float16, which ends at {LARGEST_HALF:.0f}, and samples come to "
            f"{samples.high:g}; divide them, as it was trained: e.g. --scale {of_type(np.dtype(dtype)).high:.0f}"
        )
