"""Translate between ``contract.json`` and the contract that the runtime works with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

import msgspec
from numpy.typing import NDArray

from exactile.bundle.contract_file import ContractFile, VerificationPart, WeightPart
from exactile.bundle.network_parts import (
    AxisPart,
    GeometryPart,
    ImagePart,
    MemoryPart,
    OwnSizePart,
    ResultPart,
    StatisticsPart,
)
from exactile.bundle.pass_parts import KeepingPart, LevelPart, WholePart
from exactile.bundle.strip_parts import (
    CarryPart,
    OtherStripsPart,
    PlacedPart,
    StripGraphPart,
    StripGraphsPart,
    StripsPart,
)
from exactile.contract import (
    BytesForShape,
    Carry,
    Contract,
    ImageInput,
    ImageStatistics,
    LabelClass,
    MemoryModel,
    PlacedModel,
    ResultOutput,
    StripGraph,
    StripModel,
    StripRole,
    Verification,
)
from exactile.geometry import AxisGeometry, Geometry

MEANING = ("rule", "doubt", "threshold", "activation", "stored", "nan_label", "may_be_nan", "unproven")
"""Fields of a result that the contract file and the contract share."""

OWN_SIZE = ("remainder", "before", "after", "extra_before", "extra_after", "least", "one_pass", "placed")
"""Fields of the geometry for another remainder that the contract file and the contract share."""

ROLES: tuple[StripRole, ...] = ("first", "body", "last")


def contract_from(file: ContractFile) -> Contract:
    """Return the contract. Raises ValueError if numbers contradict each other."""
    return Contract(
        model_name=file.model,
        geometry=geometry_from(file.geometry),
        image=image_from(file.image),
        result=ResultOutput(
            name=file.result.name,
            kind=file.result.kind,
            dtype=file.result.dtype,
            channels=file.result.channels,
            classes=file.result.classes,
            labels=tuple(
                LabelClass(value=value, name=part.name, rgb=_rgb(part.color), code=part.code)
                for value, part in enumerate(file.classes)
            ),
            **{name: getattr(file.result, name) for name in MEANING},
        ),
        memory=memory_from(file.memory),
        verification=_verification_from(file.verification),
        mac_per_pixel=file.mac_per_pixel,
        pixel_size_um=file.pixel_size_um,
    )


def _verification_from(part: VerificationPart | None) -> Verification:
    if part is None:
        return Verification(note="the bundle is of a converter that did not run models; convert it again")
    return Verification(by=part.by, note=part.note)


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def strips_from(part: StripsPart, graphs: Mapping[str, bytes], weights: Mapping[str, NDArray[Any]]) -> StripModel:
    """Return the model with strips. ``graphs``: the bytes of each file."""
    parts = {role: getattr(part.graphs, role) for role in ROLES}
    return StripModel(
        startup_rows=part.startup_rows,
        least_last_rows=part.least_last_rows,
        lag=part.lag,
        carries=tuple(_carry_from(carry) for carry in part.carries),
        graphs={
            role: StripGraph(graph=graphs[found.file], memory=memory_from(found.memory))
            for role, found in parts.items()
        },
        weights=weights,
        copied_passes=part.copied_passes,
        recomputed_rows=part.recomputed_rows,
        own_rows=dict(part.own_rows),
        own_columns={remainder: tuple(map(Fraction, own)) for remainder, own in part.own_columns},
        processor=part.processor,
    )


def claims_of(contract: Contract) -> dict[str, str]:
    """Return what the metadata of every graph of a bundle must say, so that no graph runs with another contract."""
    parts = {
        "exactile.geometry": geometry_part(contract.geometry),
        "exactile.image": image_part(contract.image),
        "exactile.result": result_part(contract.result),
    }
    return {key: msgspec.json.encode(part).decode() for key, part in parts.items()}


def layout_claims(
    weights: Mapping[str, WeightPart],
    strips: StripsPart | None,
    others: Sequence[OtherStripsPart],
    placed: PlacedPart | None,
    levels: Sequence[LevelPart] = (),
    keeping: KeepingPart | None = None,
    whole: WholePart | None = None,
) -> dict[str, str]:
    """Return the SHA-256 of the numbers by which weights are found and strips are cut: they are many."""
    parts: dict[str, object] = {"exactile.weights": weights, "exactile.strips": strips}
    if others:
        parts["exactile.other_strips"] = others
    if placed is not None:
        parts["exactile.placed"] = placed
    if levels:
        parts["exactile.levels"] = levels
    if keeping is not None:
        parts["exactile.keeping"] = keeping
    if whole is not None:
        parts["exactile.whole"] = whole
    encode = msgspec.json.Encoder(order="deterministic").encode
    return {key: hashlib.sha256(encode(part)).hexdigest() for key, part in parts.items()}


def geometry_from(part: GeometryPart) -> Geometry:
    """Return the file's part for the contract. Raises ValueError if numbers contradict each other."""
    return Geometry(y=axis_from(part.y), x=axis_from(part.x))


def geometry_part(geometry: Geometry) -> GeometryPart:
    return GeometryPart(y=axis_part(geometry.y), x=axis_part(geometry.x))


def image_part(image: ImageInput) -> ImagePart:
    statistics = None
    if image.statistics is not None:
        # A whole number that was given for a float would be written, and later compared, as another text.
        numbers = {name: float(getattr(image.statistics, name)) for name in ("low", "high", "epsilon")}
        statistics = StatisticsPart(**asdict(image.statistics) | numbers)
    return ImagePart(
        name=image.name,
        dtype=image.dtype,  # type: ignore[arg-type]
        channels=image.channels,
        statistics=statistics,
    )


def result_part(result: ResultOutput) -> ResultPart:
    return ResultPart(
        name=result.name,
        kind=result.kind,
        dtype=result.dtype,  # type: ignore[arg-type]
        channels=result.channels,
        classes=result.classes,
        **{name: getattr(result, name) for name in MEANING},
    )


def memory_part(memory: MemoryModel) -> MemoryPart:
    steps, elements = (
        tuple((each.area, each.row, each.column, each.constant) for each in sizes)
        for sizes in (memory.steps, memory.elements)
    )
    return MemoryPart(weights_bytes=memory.weights_bytes, steps=steps, elements=elements or None)


def other_strips_from(
    parts: Sequence[OtherStripsPart], graphs: Mapping[str, bytes], weights: Mapping[str, NDArray[Any]]
) -> dict[tuple[int, int], StripModel]:
    """Return strips by (height, width) remainder; ``graphs``: the bytes of each file."""
    return {part.remainders: strips_from(part.strips, graphs, weights) for part in parts}


def placed_from(part: PlacedPart, graphs: Mapping[str, bytes], weights: Mapping[str, NDArray[Any]]) -> PlacedModel:
    """Return the strip model. ``graphs``: the bytes of each file."""
    return PlacedModel(
        graph=graphs[part.graph.file],
        memory=memory_from(part.memory),
        strips=strips_from(part.strips, graphs, weights) if part.strips is not None else None,
        no_strips_reason=part.no_strips_reason,
        other_strips=other_strips_from(part.other_strips, graphs, weights),
    )


def strips_part(strips: StripModel, files: Mapping[StripRole, str]) -> StripsPart:
    """Return the strips as the contract file has them. ``files``: the name of each role's graph."""
    parts = {role: StripGraphPart(file=files[role], memory=memory_part(strips.graphs[role].memory)) for role in ROLES}
    return StripsPart(
        startup_rows=strips.startup_rows,
        least_last_rows=strips.least_last_rows,
        lag=strips.lag,
        carries=tuple(_carry_part(carry) for carry in strips.carries),
        graphs=StripGraphsPart(**parts),
        copied_passes=strips.copied_passes,
        recomputed_rows=strips.recomputed_rows,
        own_rows=tuple(strips.own_rows.items()),
        own_columns=tuple((remainder, tuple(map(str, own))) for remainder, own in strips.own_columns.items()),
        processor=strips.processor,
    )


def image_from(part: ImagePart) -> ImageInput:
    statistics = ImageStatistics(**msgspec.structs.asdict(part.statistics)) if part.statistics is not None else None
    return ImageInput(name=part.name, dtype=part.dtype, channels=part.channels, statistics=statistics)


def axis_from(part: AxisPart) -> AxisGeometry:
    axis = AxisGeometry(
        stride=part.stride,
        before=part.before,
        after=part.after,
        extra_before=part.extra_before,
        extra_after=part.extra_after,
        scale=Fraction(part.scale),
        origin=Fraction(part.origin),
        size_constant=Fraction(part.size_constant),
        remainder=part.remainder,
        placed=part.placed,
    )
    if part.others is None:
        return axis
    return replace(axis, others=tuple(_other_from(axis, other) for other in part.others))


def _other_from(axis: AxisGeometry, part: OwnSizePart) -> AxisGeometry:
    own = {name: getattr(part, name) for name in OWN_SIZE}
    return replace(axis, size_constant=Fraction(part.size_constant), **own)


def _other_part(axis: AxisGeometry) -> OwnSizePart:
    own = {name: getattr(axis, name) for name in OWN_SIZE}
    return OwnSizePart(size_constant=str(axis.size_constant), **own)


def axis_part(axis: AxisGeometry) -> AxisPart:
    return AxisPart(
        stride=axis.stride,
        before=axis.before,
        after=axis.after,
        extra_before=axis.extra_before,
        extra_after=axis.extra_after,
        scale=str(axis.scale),
        origin=str(axis.origin),
        size_constant=str(axis.size_constant),
        remainder=axis.remainder,
        placed=axis.placed,
        others=None if axis.others is None else tuple(map(_other_part, axis.others)),
    )


def memory_from(part: MemoryPart) -> MemoryModel:
    steps, elements = (tuple(BytesForShape(*each) for each in sizes) for sizes in (part.steps, part.elements or ()))
    return MemoryModel(weights_bytes=part.weights_bytes, steps=steps, elements=elements)


def _carry_from(part: CarryPart) -> Carry:
    return Carry(
        name=part.name,
        of=part.of,
        dtype=part.dtype,
        shape=part.shape,
        width_scale=Fraction(part.width_scale),
        width_constant=Fraction(part.width_constant),
    )


def _carry_part(carry: Carry) -> CarryPart:
    return CarryPart(
        name=carry.name,
        of=carry.of,
        dtype=carry.dtype,  # type: ignore[arg-type]
        shape=carry.shape,
        width_scale=str(carry.width_scale),
        width_constant=str(carry.width_constant),
    )
