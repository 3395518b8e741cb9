"""Derive the inputs and outputs of a model's engine from its contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from exactile.contract import Contract, DeployedModel, Level, StripModel
from exactile.contract.built_engine import EngineRole, TensorSpec
from exactile.contract.statistic import PREFIX
from exactile.engines.device_partials import DevicePartials
from exactile.machine.architecture import GPU

Specs = dict[str, TensorSpec]


def engine_tensors(
    model: DeployedModel, role: EngineRole, *, batch: int, rows: tuple[int, int], columns: int
) -> tuple[Specs, Specs]:
    """Return inputs and outputs by name; carried rows with the type that the contract gives them.

    ``rows`` and ``columns`` are those of the padded tile or strip; where ``rows`` are two numbers, rows are -1.
    Raises ValueError where the network does not accept such a shape, or has no strips.
    """
    contract = model.contract
    _check_shape(model, role, batch, rows, columns)
    fixed = rows[0] == rows[1]
    lead = (batch,) if batch > 1 else ()
    image = _as_bytes((*lead, rows[0] if fixed else -1, columns, contract.image.channels), contract.image.dtype)
    inputs = {contract.image.name: image, **_statistics(contract), **_found(model.levels)}
    width = contract.geometry.x.output_size(columns)
    height = _result_rows(model, role, rows[0]) if fixed else -1
    channels = (contract.result.channels,) if contract.result.channels else ()
    outputs = {contract.result.name: _as_bytes((*lead, *channels, height, width), contract.result.dtype)}
    if role != "tile":
        for carry in _strips(model).carries:
            spec = _as_bytes(carry.shape_at(columns), carry.dtype)
            if role != "first":
                inputs[f"{carry.name}_in"] = spec
            if role != "last":
                outputs[f"{carry.name}_out"] = spec
    return inputs, outputs


def pass_tensors(model: DeployedModel, number: int, shape: tuple[int, int]) -> tuple[Specs, Specs]:
    """Return inputs and outputs of the ``number``-th pass that finds statistics, for tiles of ``shape``, (height,
    width).

    Raises ValueError where there is no such pass for GPUs, or the network does not accept the shape; PlanError.
    """
    if not 1 <= number <= len(model.levels) or model.levels[number - 1].on_device is None:
        raise ValueError(f"the model has no pass {number} for GPUs, of {len(model.levels)} that find statistics")
    level, (height, width) = model.levels[number - 1], shape
    _check_shape(level.model, "tile", 1, (height, height), width)
    contract, partials = level.model.contract, DevicePartials.of(level)
    image = _as_bytes((height, width, contract.image.channels), contract.image.dtype)
    masks = {name: TensorSpec(shape=one, dtype="float32") for name, one in partials.shapes_at(width).items()}
    inputs = {contract.image.name: image, **_statistics(contract), **_found(model.levels[: number - 1]), **masks}
    given = TensorSpec(shape=(partials.numbers_at(height),), dtype="float32")
    return inputs, {contract.result.name: given}


def differences(expected: Mapping[str, TensorSpec], found: Mapping[str, TensorSpec]) -> Iterator[str]:
    """Yield differences between an engine's tensors and the contract.

    Carried rows of float32 may be float16. Statistics of the whole image that nothing depends on may be missing.
    """
    for name in sorted(expected.keys() | found.keys()):
        if name not in found and name.startswith(PREFIX):
            continue
        if name not in found:
            yield f"it has no {name}"
        elif name not in expected:
            yield f"it has {name}, which the contract does not"
        elif not _alike(name, expected[name], found[name]):
            yield f"{name} is {_text(found[name])} where the contract asks for {_text(expected[name])}"


def _alike(name: str, expected: TensorSpec, found: TensorSpec) -> bool:
    halved = name.endswith(("_in", "_out")) and (expected.dtype, found.dtype) == ("float32", "float16")
    return expected.shape == found.shape and (expected.dtype == found.dtype or halved)


def _text(spec: TensorSpec) -> str:
    return f"{spec.dtype} {list(spec.shape)}"


def _as_bytes(shape: tuple[int, ...], dtype: str) -> TensorSpec:
    """Return the specification with two bytes for each 16-bit number."""
    return TensorSpec(shape=(*shape, 2), dtype="uint8") if dtype == "uint16" else TensorSpec(shape=shape, dtype=dtype)


def _statistics(contract: Contract) -> Specs:
    statistics = contract.image.statistics
    if statistics is None:
        return {}
    spec = TensorSpec(shape=(1, contract.image.channels, 1, 1), dtype="float32")
    return {statistics.offset_name: spec, statistics.scale_name: spec}


def _found(levels: Sequence[Level]) -> Specs:
    """Return the inputs for statistics that passes find."""
    return {
        name: TensorSpec(shape=shape, dtype="float32")
        for level in levels
        for one in level.statistics
        for name, shape in zip(one.inputs, one.shapes, strict=True)
    }


def _check_shape(model: DeployedModel, role: EngineRole, batch: int, rows: tuple[int, int], columns: int) -> None:
    y, x = model.contract.geometry.y, model.contract.geometry.x
    if rows[0] > rows[1] or (rows[0] != rows[1] and role != "last"):
        raise ValueError(f"{rows[0]} to {rows[1]} rows are no rows of a {role} engine")
    if batch > 1 and role != "tile":
        raise ValueError("only tiles come in batches")
    heights = {0} if role in ("first", "body") else {y.remainder}
    if role == "last":
        heights |= _strips(model).own_rows.keys()
    if any(height % y.stride not in heights for height in rows) or (columns - x.remainder) % x.stride:
        raise ValueError(f"the network does not accept {rows[0]} to {rows[1]} rows of {columns} columns")
    if role == "tile":
        least = y.accepted_size(1)
    else:
        strips = _strips(model)
        last = min((strips.least_last_rows, *strips.own_rows.values()))
        least = {"first": strips.startup_rows, "body": y.stride, "last": last}[role]
    if rows[0] < least or columns < x.accepted_size(1):
        raise ValueError(f"{rows[0]} rows of {columns} columns are too few for a {role} engine of this network")


def _result_rows(model: DeployedModel, role: EngineRole, rows: int) -> int:
    axis = model.contract.geometry.y
    if role == "tile":
        return axis.output_size(rows)
    lag = _strips(model).lag
    if role == "first":
        return axis.output_position(rows) - lag
    if role == "body":
        return axis.output_position(rows)
    height = _strips(model).startup_rows + rows
    return axis.of_size(height).output_size(height) - axis.output_position(height - rows) + lag


def _strips(model: DeployedModel) -> StripModel:
    model = model.on(GPU)
    if model.strips is None:
        raise ValueError(f"the model has no strips: {model.no_strips_reason}")
    return model.strips
