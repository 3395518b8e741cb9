"""The strips for an image that arrives in rows, whose height may not be known yet."""

from __future__ import annotations

from dataclasses import replace

from exactile.contract import DeployedModel, StripModel
from exactile.errors import PlanError
from exactile.geometry import AxisGeometry
from exactile.plan.border import Border


def strips_for_stream(
    model: DeployedModel, width: int, height: int | None, border: Border
) -> tuple[AxisGeometry, StripModel]:
    """Return the geometry along rows and the strips for an image of ``width`` pixels, and of ``height`` rows if known.

    If the height is unknown, one set of strips must serve every height that the network accepts as it is; otherwise the
    image is refused: the first strip runs before the height is known. Raises PlanError.
    """
    geometry = model.contract.geometry
    if model.strips is None:
        raise PlanError(f"this network cannot be run in strips: {model.no_strips_reason}")
    lines = (geometry.y, *(geometry.y.others or ()), geometry.x.of_size(width))
    if height is None and any(line.placed for line in lines):
        raise PlanError(
            "operators of this network depend on the position in the image, and so on its height; give it with height="
        )
    if border != "model":
        return geometry.y.without_others, model.strips
    if height is not None:
        of_image = geometry.of_size((height, width))
        strips = model.strips_at(of_image)
        if strips is None:
            raise PlanError(f"rows of this image cannot be run in strips: {model.no_strips_at(of_image)}")
        others = () if of_image.y is geometry.y else (of_image.y,)
        return replace(geometry.y, others=others), strips
    across = geometry.x.of_size(width)
    first, least = None, 0
    for along in (geometry.y, *(geometry.y.others or ())):
        of_image = replace(geometry, y=along, x=across)
        strips = model.strips_at(of_image)
        if strips is None:
            raise PlanError(
                f"the plan of the rows depends on the height ({model.no_strips_at(of_image)}); give it with height="
            )
        if first is not None and not _alike(first, strips):
            raise PlanError("the plan of the rows depends on the height, modulo the stride; give it with height=")
        first = first or strips
        least = max(least, strips.least_last_rows)
    assert first is not None
    return geometry.y, replace(first, least_last_rows=least)


def _alike(one: StripModel, other: StripModel) -> bool:
    return (one.graphs, one.lag, one.startup_rows) == (other.graphs, other.lag, other.startup_rows)
