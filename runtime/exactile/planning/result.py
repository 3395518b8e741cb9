"""The specification of the result of a plan."""

from __future__ import annotations

from exactile.contract import Contract
from exactile.plan.prediction import Plan
from exactile.sinks.protocol import ResultSpec
from exactile.sources.metadata import metadata_of
from exactile.sources.protocol import Source


def result_spec(contract: Contract, plan: Plan, source: Source) -> ResultSpec:
    """Return the specification of the result of ``plan`` for ``source``."""
    height, width = plan.result_shape
    result, pixel = contract.result, source.pixel_size_um
    scale = contract.geometry.y.scale, contract.geometry.x.scale
    metadata = metadata_of(source)
    place = metadata.georeference
    origin = plan.y.domain.image_origin, plan.x.domain.image_origin
    return ResultSpec(
        height=height,
        width=width,
        channels=result.channels,
        dtype=result.stored_dtype,
        labels=result.labels,
        pixel_size_um=None if pixel is None else (pixel[0] / float(scale[0]), pixel[1] / float(scale[1])),
        georeference=None if place is None else place.resampled(scale, origin),
        orientation=metadata.orientation,
        instances=metadata.instances,
        model=contract.model_name,
    )
