"""A network of reduced precision as ONNX Runtime computes it on this CPU: each rounding is its own operator.

A graph with quantise/dequantise pairs, or in half precision, does not say where numbers are rounded: ONNX Runtime fuses
pairs into integer operators, and computes in single precision where it has no half-precision kernel. What becomes of a
part of such a graph depends on the nodes around it. So ONNX Runtime optimises the whole graph and saves it; rows can be
cut and joined in the saved graph.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from exactile.engines.onnx_runtime import load_library, one_line
from exactile.errors import ExactileError
from exactile_converters.cuda_kernels.symmetric_padding import write_symmetric_padding
from exactile_converters.graphs.fewer_bits import FLOAT_OF
from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.strips.refusal import StripError

FREE_CAST, OWN_CAST = "InsertedPrecisionFreeCast_", "exactile_cast_"
"""Prefixes of nodes: ONNX Runtime takes casts with the first prefix for its own, and removes them."""

ERRORS_ONLY = 4


def executed(network: Network) -> Network:
    """Return what ``network``, which is not modified, becomes on a CPU. Raises StripError."""
    try:
        saved = _saved(_as_one_pass(network))
        found = prepare_network(saved, name=network.name, output_name=network.result.name)
        _cast_constants(found.model)
    except ExactileError as error:
        raise StripError(f"in reduced precision, ONNX Runtime computes a form that has no strips: {error}") from error
    return found


def _as_one_pass(network: Network) -> onnx.ModelProto:
    """Return the graph that one pass runs, without shapes that were written for one size."""
    copy = network.copy()
    write_symmetric_padding(copy.model.graph)
    sizes: dict[str, int | str] = {"n": 1, "c": copy.channels, "y": "height", "x": "width"}
    copy.image.shape = ir.Shape([sizes[label] for label in copy.labels])
    copy.model.graph.outputs[:] = [copy.result]
    for node in copy.model.graph:
        for value in node.outputs:
            value.shape = None
    proto: onnx.ModelProto = ir.to_proto(copy.model)
    return proto


def _saved(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``proto`` after those optimisations of ONNX Runtime that hold on all CPUs of this architecture."""
    ort = load_library()
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory(prefix="exactile-") as folder:
        path = Path(folder) / "executed.onnx"
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
            found = onnx.load(str(path))
        except Exception as error:
            raise StripError(
                f"in reduced precision, ONNX Runtime does not show how it computes it: {one_line(error)}"
            ) from error
    for node in found.graph.node:
        if node.name.startswith(FREE_CAST):
            node.name = OWN_CAST + node.name.removeprefix(FREE_CAST)
    used = {node.domain for node in found.graph.node}
    opsets = [opset for opset in found.opset_import if opset.domain in used | {""}]
    del found.opset_import[:]
    found.opset_import.extend(opsets)
    return found


def _cast_constants(model: ir.Model) -> None:
    """Cast weights of half precision as operators read them; ONNX Runtime folds these casts when it opens the graph."""
    graph = model.graph
    for node in list(graph):
        source = node.inputs[0] if node.inputs else None
        if node.op_type != "Cast" or node.domain or source is None or source.const_value is None:
            continue
        old = node.outputs[0]
        array = source.const_value.numpy().astype(
            ir.DataType(node.attributes.get_int("to", ir.DataType.FLOAT.value)).numpy()
        )
        name = f"{FLOAT_OF}{source.name}"
        made = graph.initializers.get(name)
        if made is None:
            made = ir.Value(name=name, const_value=ir.tensor(array, name=name))
            graph.register_initializer(made)
        old.replace_all_uses_with(made)
        graph.remove(node, safe=True)
    for value in list(graph.initializers.values()):
        if not value.uses():
            del graph.initializers[value.name or ""]
