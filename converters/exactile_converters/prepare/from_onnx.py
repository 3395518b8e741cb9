"""Make a network from ONNX: flatten and clean its graph, find its image input and result output."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from exactile.errors import ModelError, OptionError
from exactile_converters.cleanup.cyclic_shifts import gather_cyclic_shifts
from exactile_converters.cleanup.empty_outputs import DropEmptyOutputs
from exactile_converters.cleanup.fixed_size import release_fixed_size
from exactile_converters.cleanup.flat_unpooling import write_unpooling
from exactile_converters.cleanup.identities import DropIdentities
from exactile_converters.cleanup.idle_padding import leave_out_idle_padding
from exactile_converters.cleanup.opset import at_least_opset
from exactile_converters.constant_flow.steady import two_shapes
from exactile_converters.constant_flow.write_out import write_out_constant_flow
from exactile_converters.declared.color_order import reorder_channels
from exactile_converters.declared.output_factor import scale_output
from exactile_converters.declared.read import read_declared
from exactile_converters.geometry.node_view import Labels
from exactile_converters.networks.declaration import Declaration
from exactile_converters.networks.network import ImageValue, Network
from exactile_converters.onnx_files.untrusted import check_functions, check_steps, check_tensors, one_line, understood
from exactile_converters.prepare.image_axes import first_convolution, give_batch
from exactile_converters.prepare.several_inputs import join_inputs
from exactile_converters.prepare.weights_as_arrays import hold_weights_as_arrays
from exactile_converters.runtime_operators.rewrite import refuse_unusable, write_as_onnx

OLDEST_WRAPPABLE_OPSET = 13


def load_network(path: str | Path, *, output_name: str | None = None) -> Network:
    """Read the ONNX file at ``path``, or a vendor's file that holds one. Raises ModelError saying what is wrong."""
    path = Path(path)
    proto, declared = read_declared(path, output_name=output_name)
    network = prepare_network(proto, name=path.name, output_name=output_name)
    return network if declared is None else _as_declared(network, declared)


def _as_declared(network: Network, declared: Declaration) -> Network:
    """Return the network with channels in the declared order, and its output multiplied by the declared factor.

    Raises ModelError where the file is that of another network.
    """
    if declared.channels not in (None, network.channels):
        raise ModelError(
            f"{network.name}: its file declares {declared.channels} channel(s), and the network takes "
            f"{network.channels}; the two do not belong together"
        )
    reorder_channels(network, declared.channel_order)
    return replace(scale_output(network, declared.output_factor), declared=declared)


def prepare_network(proto: onnx.ModelProto, *, name: str, output_name: str | None = None) -> Network:
    """Flatten, clean and sort a loaded model, and find its input and output."""
    check_tensors(proto, name, None)
    check_functions(proto, name)
    check_steps(proto, name)
    proto = at_least_opset(proto, OLDEST_WRAPPABLE_OPSET, name)
    try:
        model = ir.from_proto(proto)
        clean(model)
        hold_weights_as_arrays(model)
    except Exception as error:
        raise ModelError(f"{name}: the graph is damaged: {one_line(error)}") from error
    with understood(name):
        refuse_unusable(model, name)
        if write_as_onnx(model):
            clean(model)
        leave_out_idle_padding(model)
        give_batch(model)
        inputs = _image_inputs(model, name)
        image = inputs[0] if len(inputs) == 1 else join_inputs(model, inputs, name)
        if write_out_constant_flow(model, image.value, two_shapes(image.labels, image.channels)):
            clean(model)
        if write_unpooling(model, image.value, image.labels, image.channels):
            clean(model)
        release_fixed_size(model, image.value, image.labels)
        if gather_cyclic_shifts(model):
            clean(model)
        result = _result_output(model, name, output_name)
    return Network(
        name=name,
        model=model,
        image=image.value,
        result=result,
        labels=image.labels,
        channels=image.channels,
        inputs=inputs,
    )


def clean(model: ir.Model) -> None:
    """Inline functions, turn constant nodes into initialisers, and remove what is unused."""
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    steps: Sequence[ir.passes.PassBase] = (
        passes.InlinePass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.RemoveInitializersFromInputsPass(),
        DropIdentities(),
        passes.OutputFixPass(),
        passes.RemoveUnusedNodesPass(),
        DropEmptyOutputs(),
        passes.NameFixPass(),
        passes.TopologicalSortPass(),
    )
    for step in steps:
        step(model)


def _image_inputs(model: ir.Model, name: str) -> tuple[ImageValue, ...]:
    """Return the inputs that are used; all must be images. Raises ModelError."""
    used = [value for value in model.graph.inputs if value.uses() or value.is_graph_output()]
    if not used:
        listed = ", ".join(repr(value.name) for value in model.graph.inputs) or "none"
        raise ModelError(f"{name}: an image input is expected, and no input of the model is used ({listed})")
    others = [value for value in used if value.shape is not None and len(value.shape) != 4]
    if others and len(others) < len(used):
        listed = ", ".join(f"{value.name!r} of {len(value.shape or ())} dimensions" for value in others)
        raise ModelError(
            f"{name}: besides images (4 dimensions) it takes {listed}; export it with this value as a constant"
        )
    found = []
    for value in used:
        labels, channels = _layout(value, name)
        found.append(ImageValue(value=value, labels=labels, channels=channels))
    return tuple(found)


def _result_output(model: ir.Model, name: str, wanted: str | None) -> ir.Value:
    outputs = {value.name or "": value for value in model.graph.outputs}
    if not outputs:
        raise ModelError(f"{name}: the model has no output")
    if wanted is None:
        return next(iter(outputs.values()))
    if wanted not in outputs:
        raise OptionError(f"{name} has no output {wanted!r}; it has {', '.join(map(repr, outputs))}")
    return outputs[wanted]


def _layout(image: ir.Value, name: str) -> tuple[Labels, int]:
    """Return the axes of the image input and its number of channels."""
    weights = first_convolution(image)
    if image.shape is None and weights is not None:
        image.shape = ir.Shape([None] * 4)  # the convolution takes no other rank
    dims = [dim if isinstance(dim, int) and dim > 0 else None for dim in image.shape] if image.shape is not None else []
    if len(dims) != 4:
        raise ModelError(f"{name}: an image input of 4 dimensions is expected (N, C, H, W), it has {len(dims)}")
    first: Labels = ("n", "c", "y", "x")
    last: Labels = ("n", "y", "x", "c")
    if weights is not None:
        axis, channels = weights
        if channels < 1:
            raise ModelError(
                f"{name}: its first convolution takes {channels} channels; its groups or weights are damaged"
            )
        return (first if axis == 1 else last), channels
    if dims[1] is not None and (dims[3] is None or dims[1] <= dims[3]):
        return first, dims[1]
    if dims[3] is not None:
        return last, dims[3]
    raise ModelError(f"{name}: the number of channels is not fixed; export the model with a fixed channel dimension")
