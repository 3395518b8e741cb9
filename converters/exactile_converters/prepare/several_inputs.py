"""Join several image inputs of the same geometry into one, whose channels are assigned in the order of the inputs.

A network for two modalities, ``a (N, 3, H, W)`` and ``b (N, 1, H, W)``, is treated as one that takes images of four
channels: the first three are ``a``, the last one is ``b``. All later steps see a network with one input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from exactile.errors import ModelError
from exactile_converters.geometry.node_view import SPATIAL, Labels
from exactile_converters.networks.network import ImageValue

JOINED = "exactile_images"
ORDER: Labels = ("n", "c", "y", "x")


def join_inputs(model: ir.Model, images: Sequence[ImageValue], name: str) -> ImageValue:
    """Replace the inputs ``images`` by one with all their channels, (N, C, H, W). Raises ModelError."""
    sizes = _common_size(images, name)
    graph = model.graph
    kind = ir.DataType.FLOAT if any(_floats(image) for image in images) else _dtype(images[0])
    channels = sum(image.channels for image in images)
    batch = next((dim for image in images if isinstance(dim := _dim(image, "n"), int)), "batch")
    joined = ir.Value(name=JOINED, shape=ir.Shape([batch, channels, *sizes]), type=ir.TensorType(kind))
    parts = ir.Value(
        name=f"{JOINED}_parts", const_value=ir.tensor(np.array([image.channels for image in images], np.int64))
    )
    graph.register_initializer(parts)
    split = ir.node("Split", [joined, parts], attributes={"axis": 1}, num_outputs=len(images), name=f"{JOINED}_split")
    nodes = [split]
    for index, (image, output) in enumerate(zip(images, split.outputs, strict=True)):
        output.name = f"{JOINED}_{index}"
        value, made = _as_wanted(output, image, kind, f"{JOINED}_{index}")
        nodes += made
        image.value.replace_all_uses_with(value)
    graph.insert_before(graph[0], nodes)
    taken = {image.value for image in images}
    graph.inputs[:] = [joined, *(value for value in graph.inputs if value not in taken)]
    return ImageValue(value=joined, labels=ORDER, channels=channels)


def _as_wanted(value: ir.Value, image: ImageValue, kind: ir.DataType, name: str) -> tuple[ir.Value, list[ir.Node]]:
    """Return ``value``, (N, C, H, W) of type ``kind``, in the type and order of axes of ``image``."""
    nodes = []
    if _dtype(image) != kind:
        nodes.append(ir.node("Cast", [value], attributes={"to": _dtype(image).value}, name=f"{name}_cast"))
        value = nodes[-1].outputs[0]
        value.name = f"{name}_cast"
    if image.labels != ORDER:
        order = [ORDER.index(label) for label in image.labels]
        nodes.append(ir.node("Transpose", [value], attributes={"perm": order}, name=f"{name}_transpose"))
        value = nodes[-1].outputs[0]
        value.name = f"{name}_transpose"
    return value, nodes


def _common_size(images: Sequence[ImageValue], name: str) -> list[int | str]:
    """Return height and width; names where no input fixes them."""
    found: list[int | str] = []
    for label, free in zip(SPATIAL, ("height", "width"), strict=True):
        fixed = {dim: image for image in images if isinstance(dim := _dim(image, label), int)}
        if len(fixed) > 1:
            listed = ", ".join(f"{image.value.name!r} has {dim}" for dim, image in fixed.items())
            raise ModelError(
                f"{name}: its image inputs have different sizes along {label} ({listed}); inputs of one size are "
                "supported: resize inside the network, or export with dynamic height and width"
            )
        found.append(next(iter(fixed), free))
    return found


def _dim(image: ImageValue, label: str) -> int | None:
    dims = image.value.shape or ()
    dim = dims[image.labels.index(label)]
    return dim if isinstance(dim, int) and dim > 0 else None


def _dtype(image: ImageValue) -> ir.DataType:
    return image.value.dtype or ir.DataType.FLOAT


def _floats(image: ImageValue) -> bool:
    return _dtype(image).is_floating_point()
