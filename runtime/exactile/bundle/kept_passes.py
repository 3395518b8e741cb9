"""Translate between passes over kept maps in ``contract.json`` and the models that the runtime works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from numpy.typing import NDArray

from exactile.bundle.contract_file import ContractFile
from exactile.bundle.levels import pass_from
from exactile.bundle.network_parts import GraphPart
from exactile.bundle.pass_parts import KeepingPart, KeptAlongPart, KeptMapPart, KeptPassPart
from exactile.bundle.translation import axis_from, axis_part, memory_from, memory_part
from exactile.contract import Contract, DeployedModel, KeptPasses, Level
from exactile.contract.kept_map import KeptAlong, KeptMap
from exactile.geometry import AxisGeometry, Geometry

NO_STRIPS = "passes over kept maps run in tiles"


def keeping_from(
    file: ContractFile,
    graphs: Mapping[str, bytes],
    weights: Mapping[str, NDArray[Any]],
    layout: Mapping[str, str],
    contract: Contract,
    levels: Sequence[Level],
) -> KeptPasses | None:
    """Return the passes over kept maps. ``contract`` and ``levels`` are those of the passes that begin at the image.

    Raises ValueError, IndexError.
    """
    part = file.keeping
    if part is None:
        return None
    if len(part.passes) != len(levels) + 1:
        raise ValueError(f"{len(part.passes)} passes over kept maps and {len(levels)} levels of statistics")
    known = list(map(axis_from, part.axes))
    y, x = ({one.remainder: _along_from(one, part, known) for one in along} for along in (part.y, part.x))
    first = y[part.y[0].remainder], x[part.x[0].remainder]
    maps = [_map_from(one, first) for one in part.maps]
    contracts = [*(level.model.contract for level in levels), contract]
    models = [
        _pass_from(
            one,
            replace(of, geometry=Geometry(y=first[0].geometry[index], x=first[1].geometry[index])),
            maps,
            graphs,
            weights,
            layout,
        )
        for index, (one, of) in enumerate(zip(part.passes, contracts, strict=True))
    ]
    found = tuple(replace(level, model=model) for level, model in zip(levels, models, strict=False))
    return KeptPasses(model=replace(models[-1], levels=found), geometry=contract.geometry, y=y, x=x)


def _along_from(part: KeptAlongPart, keeping: KeepingPart, known: Sequence[AxisGeometry]) -> KeptAlong:
    if (len(part.geometry), len(part.constants)) != (len(keeping.passes), len(keeping.maps)):
        raise ValueError(f"remainder {part.remainder} lists other passes or kept maps than there are")
    constants = (Fraction(one) for one in part.constants)
    return KeptAlong(
        geometry=tuple(known[index] for index in part.geometry),
        constants={one.output: constant for one, constant in zip(keeping.maps, constants, strict=True)},
    )


def _map_from(part: KeptMapPart, first: tuple[KeptAlong, KeptAlong]) -> KeptMap:
    if part.shape.count(None) != 2:
        raise ValueError(f"the kept map {part.output} has the shape {part.shape}, without rows or columns")
    return KeptMap(
        output=part.output,
        input=part.input,
        dtype=part.dtype,
        shape=part.shape,
        scale=(Fraction(part.scale[0]), Fraction(part.scale[1])),
        constant=(first[0].constants[part.output], first[1].constants[part.output]),
        rows_first=part.rows_first,
    )


def _pass_from(
    part: KeptPassPart,
    contract: Contract,
    maps: Sequence[KeptMap],
    graphs: Mapping[str, bytes],
    weights: Mapping[str, NDArray[Any]],
    layout: Mapping[str, str],
) -> DeployedModel:
    contract = replace(contract, memory=memory_from(part.memory))
    return replace(
        pass_from(part, contract, graphs, weights, layout, no_strips_reason=NO_STRIPS),
        reads=tuple(maps[index] for index in part.reads),
        writes=tuple(maps[index] for index in part.writes),
        reads_image=part.reads_image,
    )


def keeping_part(keeping: KeptPasses, names: Sequence[tuple[str, str | None]]) -> KeepingPart:
    """Return the kept passes as the contract file has them. ``names``: for each pass, the files of its graph and placed
    graph.
    """
    passes = [*(level.model for level in keeping.model.levels), keeping.model]
    maps = {one.output: one for model in passes for one in (*model.writes, *model.reads)}
    order = list(maps)
    axes: dict[AxisGeometry, int] = {}
    y, x = (
        tuple(
            KeptAlongPart(
                remainder=remainder,
                geometry=tuple(axes.setdefault(one, len(axes)) for one in along.geometry),
                constants=tuple(str(along.constants[name]) for name in order),
            )
            for remainder, along in known.items()
        )
        for known in (keeping.y, keeping.x)
    )
    return KeepingPart(
        maps=tuple(map(_map_part, maps.values())),
        passes=tuple(_pass_part(model, order, *files) for model, files in zip(passes, names, strict=True)),
        axes=tuple(map(axis_part, axes)),
        y=y,
        x=x,
    )


def _map_part(one: KeptMap) -> KeptMapPart:
    return KeptMapPart(
        output=one.output,
        input=one.input,
        dtype=one.dtype,  # type: ignore[arg-type]
        shape=one.shape,
        scale=(str(one.scale[0]), str(one.scale[1])),
        rows_first=one.rows_first,
    )


def _pass_part(model: DeployedModel, order: Sequence[str], graph: str, placed_graph: str | None) -> KeptPassPart:
    return KeptPassPart(
        graph=GraphPart(file=graph),
        memory=memory_part(model.contract.memory),
        reads=tuple(order.index(one.output) for one in model.reads),
        writes=tuple(order.index(one.output) for one in model.writes),
        reads_image=model.reads_image,
        work=model.work,
        placed_graph=GraphPart(file=placed_graph) if placed_graph is not None else None,
        placed_memory=memory_part(model.placed.memory) if model.placed is not None else None,
    )
