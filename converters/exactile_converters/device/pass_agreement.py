"""Compare the statistics of a pass's device form with those of the bundle's graphs, in ONNX Runtime on the CPU.

For one tile of noise inside a larger image: pixels around its zone must not be counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import POSITION, DeployedModel, Level
from exactile.contract.statistic import ZONE
from exactile.engines.device_partials import DevicePartials
from exactile.errors import ModelError
from exactile.passes.merge import Merged
from exactile.plan.position import position_of
from exactile.plan.tiles import Step, TilePlan
from exactile.plan.zones import zone_of
from exactile_converters.device.agreement import (
    FormAgreement,
    GraphSession,
    checked,
    found_statistics,
    noise,
    run_form,
    statistics,
)
from exactile_converters.device.form import DeviceForm, DevicePrecision

TILES = 4
"""Tiles along each side of the image that contains the tile, in strides of wanted pixels."""


def check_pass(model: DeployedModel, form: DeviceForm, precision: DevicePrecision) -> FormAgreement:
    """Run ``form`` and the bundle's CPU graph on one tile; compare statistics of its zone, relative to the largest.

    Raises ModelError where they do not agree.
    """
    assert form.level is not None
    level = model.levels[form.level - 1]
    plan, step = _tile_within(level, (form.rows[0], form.columns))
    image = noise(level.model, form.rows[0], form.columns, seed=1)
    feeds = {level.model.contract.image.name: image, **statistics(level.model, image), **found_statistics(model)}
    given, expected = _by_form(level, form, plan, step, feeds), _by_bundle(level, plan, step, feeds)
    agreement, found = FormAgreement(), _values(level, given)
    for name, value in _values(level, expected).items():
        largest = max(float(np.abs(value).max()), 1e-6)  # means and variances have different magnitudes
        agreement.add(value / largest, found[name] / largest)
    return checked(agreement, form, precision)


def _tile_within(level: Level, shape: tuple[int, int]) -> tuple[TilePlan, Step]:
    geometry = level.model.contract.geometry
    size = [px + TILES * axis.stride for px, axis in zip(shape, (geometry.y, geometry.x), strict=True)]
    plan = TilePlan.of(geometry, (size[0], size[1]), "model", shape)
    if plan.tile_shape != shape:
        raise ModelError(f"tiles of {shape[0]} x {shape[1]} pixels are none for the passes of this network")
    steps = list(plan)
    return plan, steps[len(steps) // 2]


def _by_form(
    level: Level, form: DeviceForm, plan: TilePlan, step: Step, feeds: dict[str, NDArray[Any]]
) -> NDArray[np.float64]:
    told = DevicePartials.of(level)
    masks = np.zeros(told.mask_bytes(form.columns), np.uint8)
    told.tell(plan, step, masks)
    shapes, starts = told.shapes_at(form.columns), told.offsets_at(form.columns)
    given = {
        name: masks[starts[name] : starts[name] + 4 * shape[0] * shape[1]].view(np.float32).reshape(shape)
        for name, shape in shapes.items()
    }
    return told.of_zone(plan, step, run_form(form, form.rows[0], {**feeds, **given})[level.model.contract.result.name])


def _by_bundle(level: Level, plan: TilePlan, step: Step, feeds: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    where = {ZONE: zone_of(plan, step), POSITION: position_of(plan.y.domain, plan.x.domain, step.tile)}
    found = GraphSession.of_bundle(level.model, "tile", *plan.tile_shape).run({**feeds, **where})
    partials: NDArray[np.float64] = found[level.model.contract.result.name]
    return partials


def _values(level: Level, partials: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
    """Return the statistics of a zone alone."""
    merged = Merged(level.statistics)
    merged.add(partials)
    return merged.values()
