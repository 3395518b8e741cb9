"""Turn a model's tile or strip graph into a device form: TensorRT's input, and its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from exactile.bundle.engine_tensors import differences, engine_tensors, pass_tensors
from exactile.contract import DeployedModel, StripModel, StripRole
from exactile.contract.built_engine import EngineRole, TensorSpec
from exactile.engines.device_partials import DevicePartials
from exactile.errors import ModelError, OptionError
from exactile.machine.architecture import GPU
from exactile_converters.device.batch import batched
from exactile_converters.device.half import in_half_precision
from exactile_converters.device.plain import without_layout_nodes
from exactile_converters.device.samples import bytes_at_both_ends
from exactile_converters.device.stored import digest

DevicePrecision = Literal["fp32", "tf32", "fp16"]
"""``fp32`` and ``tf32`` have the same graph: they differ in how TensorRT may multiply."""

DTYPES = ("uint8", "float16", "float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceForm:
    """A graph with all weights inside, for one fixed shape; of the pass number ``level``, if it computes statistics.

    ``rows`` are the image rows that it takes, (least, most): equal except for ``last`` strips, whose dimension
    ``height`` stays free. Specs have -1 there.
    """

    model: onnx.ModelProto
    role: EngineRole
    batch: int
    rows: tuple[int, int]
    columns: int
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    level: int | None = None

    @property
    def sha256(self) -> str:
        """Return the hash of the graph as given to TensorRT."""
        return digest(self.model)


def tile_form(
    model: DeployedModel, shape: tuple[int, int], *, batch: int = 1, precision: DevicePrecision = "fp32"
) -> DeviceForm:
    """Return the graph for ``batch`` tiles of ``shape`` (height, width), an accepted size.

    Raises ModelError, OptionError.
    """
    contract, (height, width) = model.contract, shape
    proto = embedded(model.graph, model.weights)
    if batch > 1:
        batched(proto, contract.image.name, contract.result.name, batch)
    _fix(proto, {"height": height, "width": width})
    return _form(model, proto, "tile", batch, (height, height), width, precision)


def pass_form(model: DeployedModel, number: int, shape: tuple[int, int]) -> DeviceForm:
    """Return the graph of the ``number``-th pass that computes statistics, for tiles of ``shape`` (height, width).

    In single precision. Raises ModelError, OptionError, PlanError.
    """
    height, width = shape
    try:
        inputs, outputs = pass_tensors(model, number, shape)
    except ValueError as error:
        raise OptionError(str(error)) from error
    level = model.levels[number - 1]
    deployed = level.device_model
    proto = embedded(deployed.graph, deployed.weights)
    bytes_at_both_ends(proto)
    _fix(proto, {"height": height, "width": width, **DevicePartials.of(level).dims_at(width)})
    return _finished(
        proto,
        model.contract.model_name,
        inputs,
        outputs,
        role="tile",
        rows=(height, height),
        columns=width,
        level=number,
    )


def strip_form(
    model: DeployedModel, role: StripRole, rows: tuple[int, int], width: int, *, precision: DevicePrecision = "fp32"
) -> DeviceForm:
    """Return the graph of ``role`` for bands of ``width`` columns, an accepted size; ``rows`` are (least, most) rows.

    Raises ModelError, OptionError.
    """
    strips = _strips(model)
    proto = embedded(strips.graphs[role].graph, strips.weights)
    sizes = {carry.width_name: carry.columns_at(width) for carry in strips.carries}
    _fix(proto, {**sizes, "width": width, **({"height": rows[0]} if rows[0] == rows[1] else {})})
    without_layout_nodes(proto)
    return _form(model, proto, role, 1, rows, width, precision)


def embedded(graph: bytes, weights: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """Return the graph with the constants inside to which it refers by name."""
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights[tensor.name]), tensor.name))
    return model


def _strips(model: DeployedModel) -> StripModel:
    model = model.on(GPU)
    if model.strips is None:
        raise OptionError(f"{model.contract.model_name} has no strips: {model.no_strips_reason}")
    return model.strips


def _fix(model: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]


def _form(
    model: DeployedModel,
    proto: onnx.ModelProto,
    role: EngineRole,
    batch: int,
    rows: tuple[int, int],
    columns: int,
    precision: DevicePrecision,
) -> DeviceForm:
    contract = model.contract
    try:
        inputs, outputs = engine_tensors(model, role, batch=batch, rows=rows, columns=columns)
    except ValueError as error:
        raise OptionError(str(error)) from error
    bytes_at_both_ends(proto)
    if precision == "fp16":
        carried = frozenset(f"{carry.name}_in" for carry in model.strips.carries) if model.strips else frozenset()
        proto = in_half_precision(proto, contract.result.name, carried)
    return _finished(proto, contract.model_name, inputs, outputs, role=role, batch=batch, rows=rows, columns=columns)


def _finished(
    proto: onnx.ModelProto,
    name: str,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    *,
    role: EngineRole,
    rows: tuple[int, int],
    columns: int,
    batch: int = 1,
    level: int | None = None,
) -> DeviceForm:
    """Return the form; ``inputs`` and ``outputs`` are those of the contract of the model ``name``."""
    _drop_unused(proto)
    del proto.metadata_props[:]
    return DeviceForm(
        model=proto,
        role=role,
        batch=batch,
        rows=rows,
        columns=columns,
        inputs=_specs(proto.graph.input, inputs, name),
        outputs=_specs(proto.graph.output, outputs, name),
        level=level,
    )


def _specs(
    values: Iterable[onnx.ValueInfoProto], expected: Mapping[str, TensorSpec], model: str
) -> dict[str, TensorSpec]:
    """Return the contract's specs with the graph's own types; the graph's shapes must agree."""
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        if dtype not in DTYPES:
            raise ModelError(
                f"{model}: {value.name} is {dtype}, and engines give and take {', '.join(DTYPES)} and uint16 only; run "
                "the bundle with --engine onnxruntime"
            )
        declared = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
        known = expected[value.name].shape if value.name in expected else tuple(-1 for _ in declared)
        if len(known) == len(declared):
            declared = tuple(size if said is None else said for said, size in zip(declared, known, strict=True))
        found[value.name] = TensorSpec(shape=tuple(-1 if said is None else said for said in declared), dtype=dtype)
    for difference in differences(expected, found):
        raise ModelError(f"{model}: {difference}; convert the model again")
    return found


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
