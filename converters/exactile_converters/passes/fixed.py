"""Fix statistics of the whole image: as constants, they make the network local."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper

from exactile.contract.statistic import FIXED, PREFIX
from exactile.engines.onnx_runtime import load_library
from exactile.errors import OptionError
from exactile.passes.fixed import FixedStatistics, check_names
from exactile_converters.networks.network import Network
from exactile_converters.networks.normalization import Normalization
from exactile_converters.passes.key import statistics_key
from exactile_converters.passes.reductions import take_out

ERRORS_ONLY = 4
Array = NDArray[Any]


def with_fixed_statistics(network: Network, values: Mapping[str, Array] | None = None) -> Network:
    """Return a copy of ``network`` with ``values`` as its statistics, by the names of the graph inputs for them.

    Without ``values``, all are one. Raises OptionError where ``values`` are not those of this network.
    """
    local, _ = take_out(network.copy())
    graph = local.model.graph
    wanted = [name for name in graph.initializers if name.startswith(PREFIX)]
    if values is not None:
        shapes = {name: _shape(graph.initializers[name]) for name in wanted}
        check_names(network.name, shapes, values, measured_with="unknown")
    for name in wanted:
        placeholder = graph.initializers.pop(name)
        array = np.ones(_shape(placeholder), np.float32) if values is None else values[name]
        placeholder.name = FIXED + name.removeprefix(PREFIX)
        placeholder.const_value = ir.tensor(np.ascontiguousarray(array, np.float32), name=placeholder.name)
        graph.register_initializer(placeholder)
    graph.outputs[:] = [local.result]
    _fold(local.model)
    return replace(local, also=())


def freeze(network: Network, statistics: FixedStatistics, *, image_dtype: str, normalization: Normalization) -> Network:
    """Return a copy of ``network``, in the form in which it was read, with the measured ``statistics`` as constants.

    Raises OptionError for a network without statistics, and for statistics of another network.
    """
    local, reductions = take_out(network.copy())
    if not reductions:
        raise OptionError(f"{network.name} takes no statistics of the whole image that could be fixed")
    shapes = {value.name or "": _shape(value) for one in reductions for value in one.placeholders}
    statistics.check_names(network.name, shapes)
    key = statistics_key(local, reductions, image_dtype=image_dtype, normalization=normalization)
    statistics.check_key(network.name, key)
    return with_fixed_statistics(network, statistics.values)


def fixed_note(statistics: FixedStatistics) -> str:
    """Return the note for a bundle with these statistics."""
    return (
        f"statistics of the whole image are fixed, to those of {statistics.told}, measured with {statistics.model}; "
        "the result is not that of each image's own"
    )


def _shape(value: ir.Value) -> tuple[int, ...]:
    assert value.const_value is not None
    return tuple(int(str(dim)) for dim in value.const_value.shape)


def _fold(model: ir.Model) -> None:
    """Replace what is computed only from statistics and other constants by a constant, in place."""
    graph = model.graph
    constant = set(graph.initializers.values())
    fixed = {value for value in constant if (value.name or "").startswith(FIXED)}
    folded: list[ir.Node] = []
    for node in graph:
        read = [value for value in node.inputs if value is not None]
        if all(value in constant or value.const_value is not None for value in read):
            constant.update(node.outputs)
            if any(value in fixed for value in read):
                folded.append(node)
                fixed.update(node.outputs)
    inside = set(folded)
    wanted = [value for node in folded for value in node.outputs if any(user not in inside for user, _ in value.uses())]
    for value, array in zip(wanted, _computed(model, folded, wanted) if wanted else [], strict=True):
        name = f"{FIXED}{value.name}"
        made = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        graph.register_initializer(made)
        value.replace_all_uses_with(made)
    graph.remove(folded, safe=True)


def _computed(model: ir.Model, nodes: Sequence[ir.Node], wanted: Sequence[ir.Value]) -> list[Array]:
    """Compute the values of constants with ONNX Runtime."""
    ort = load_library()
    made = {value for node in nodes for value in node.outputs}
    read = {value for node in nodes for value in node.inputs if value is not None and value not in made}
    tensors = [
        ir.to_proto(ir.tensor(value.const_value.numpy(), name=value.name))
        for value in read
        if value.const_value is not None
    ]
    outputs = [onnx.ValueInfoProto(name=value.name) for value in wanted]
    graph = helper.make_graph([ir.to_proto(node) for node in nodes], "constants", [], outputs, tensors)
    opsets = [helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=min(model.ir_version, 10))
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {}))
