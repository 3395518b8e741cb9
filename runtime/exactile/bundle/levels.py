"""Translate between passes over the image in ``contract.json`` and the levels that the runtime works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from math import prod
from typing import Any

import msgspec
from numpy.typing import NDArray

from exactile.bundle.contract_file import ContractFile
from exactile.bundle.network_parts import GraphPart
from exactile.bundle.pass_parts import DevicePassPart, KeptPassPart, LevelPart, MapLinePart, StatisticPart, WholePart
from exactile.bundle.translation import (
    claims_of,
    geometry_from,
    geometry_part,
    image_from,
    memory_from,
    memory_part,
)
from exactile.contract import Contract, DeployedModel, Level, PlacedModel, ResultOutput, WholeGraph
from exactile.contract.device_graph import DevicePass, MapLine
from exactile.contract.statistic import PARTIALS, Statistic

NO_STRIPS = "statistics are found in tiles"

MOST_ENTRIES = 1 << 24
"""Most entries of an input for a statistic."""


def levels_from(
    file: ContractFile, graphs: Mapping[str, bytes], weights: Mapping[str, NDArray[Any]], layout: Mapping[str, str]
) -> tuple[Level, ...]:
    """Return the passes that find statistics; ``layout`` is what ``layout_claims`` returns. Raises ValueError."""
    return tuple(_level_from(file, part, graphs, weights, layout) for part in file.levels)


def _level_from(
    file: ContractFile,
    part: LevelPart,
    graphs: Mapping[str, bytes],
    weights: Mapping[str, NDArray[Any]],
    layout: Mapping[str, str],
) -> Level:
    contract = Contract(
        model_name=file.model,
        geometry=geometry_from(part.geometry),
        image=image_from(file.image),
        result=ResultOutput(name=PARTIALS, kind="raw", dtype="float64", channels=0),
        memory=memory_from(part.memory),
    )
    model = pass_from(part, contract, graphs, weights, layout, no_strips_reason=NO_STRIPS)
    statistics = tuple(map(_statistic_from, part.statistics))
    return Level(model=model, statistics=statistics, on_device=_on_device_from(part, graphs))


def _on_device_from(part: LevelPart, graphs: Mapping[str, bytes]) -> DevicePass | None:
    """Return the graph for GPUs. Raises ValueError if it describes other maps than there are statistics."""
    device = part.on_device
    if device is None:
        return None
    if not len(device.rows) == len(device.columns) == len(part.statistics):
        raise ValueError(
            f"a graph for GPUs speaks of {len(device.rows)} and {len(device.columns)} maps, and its pass finds "
            f"{len(part.statistics)} statistics"
        )
    lines = zip(map(_line_from, device.rows), map(_line_from, device.columns), strict=True)
    return DevicePass(graph=graphs[device.graph.file], maps=tuple(lines))


def _line_from(part: MapLinePart) -> MapLine:
    constants = tuple((remainder, Fraction(constant)) for remainder, constant in part.constants)
    return MapLine(Fraction(part.scale), part.stride, constants)


def _line_part(line: MapLine) -> MapLinePart:
    constants = tuple((remainder, str(constant)) for remainder, constant in line.constants)
    return MapLinePart(scale=str(line.scale), stride=line.stride, constants=constants)


def pass_from(
    part: LevelPart | KeptPassPart,
    contract: Contract,
    graphs: Mapping[str, bytes],
    weights: Mapping[str, NDArray[Any]],
    layout: Mapping[str, str],
    *,
    no_strips_reason: str,
) -> DeployedModel:
    """Return the graphs of one pass, under its ``contract``."""
    placed = None
    if part.placed_graph is not None:
        memory = memory_from(part.placed_memory or part.memory)
        placed = PlacedModel(graph=graphs[part.placed_graph.file], memory=memory)
    return DeployedModel(
        contract=contract,
        graph=graphs[part.graph.file],
        weights=weights,
        claims={**claims_of(contract), **layout},
        placed=placed,
        no_strips_reason=no_strips_reason,
        work=part.work,
    )


def _statistic_from(part: StatisticPart) -> Statistic:
    entries, numbers = [prod(shape) for shape in part.shapes], part.groups * prod(part.grid)
    if len(part.inputs) != len(part.shapes) or any(one % numbers or one > MOST_ENTRIES for one in entries):
        raise ValueError(f"statistic {part.inputs[0]} has shapes {part.shapes} for {numbers} entries")
    return Statistic(**msgspec.structs.asdict(part))


def whole_from(file: ContractFile, graphs: Mapping[str, bytes]) -> WholeGraph | None:
    """Return the graph that takes one pass over the whole image."""
    part = file.whole
    if part is None:
        return None
    return WholeGraph(graph=graphs[part.graph.file], memory=memory_from(part.memory), obstacles=part.obstacles)


def whole_part(whole: WholeGraph, graph: str) -> WholePart:
    """Return the level as the contract file has it. ``graph``: the name of its file."""
    return WholePart(graph=GraphPart(file=graph), memory=memory_part(whole.memory), obstacles=whole.obstacles)


def level_part(level: Level, graph: str, placed_graph: str | None, device_graph: str | None) -> LevelPart:
    """Return ``graph``, ``placed_graph``, ``device_graph``: the names of their files."""
    placed = level.model.placed
    return LevelPart(
        work=level.model.work,
        geometry=geometry_part(level.model.contract.geometry),
        memory=memory_part(level.model.contract.memory),
        graph=GraphPart(file=graph),
        statistics=tuple(StatisticPart(**asdict(one)) for one in level.statistics),
        placed_graph=GraphPart(file=placed_graph) if placed_graph is not None else None,
        placed_memory=memory_part(placed.memory) if placed is not None else None,
        on_device=_device_part(level.on_device, device_graph),
    )


def _device_part(on_device: DevicePass | None, graph: str | None) -> DevicePassPart | None:
    if on_device is None or graph is None:
        return None
    rows, columns = (tuple(_line_part(lines[index]) for lines in on_device.maps) for index in (0, 1))
    return DevicePassPart(graph=GraphPart(file=graph), rows=rows, columns=columns)
