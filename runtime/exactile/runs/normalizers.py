"""Offset and scale by which a model normalises an image, found of all its pixels."""

from __future__ import annotations

from collections.abc import Callable

from exactile.contract import ImageInput
from exactile.errors import OptionError
from exactile.image_statistics.measure import Normalizers, measure, passes
from exactile.planning import Planner
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.nodata import nodata_rule
from exactile.sources.protocol import Source

Measuring = Callable[[int, int], None]
"""Called with the pixels read so far, and their total."""


def measured_normalizers(
    image: ImageInput,
    planner: Planner,
    source: Source,
    *,
    measuring: Measuring | None,
    nodata: float | None,
) -> Normalizers:
    """Return offset and scale of ``source`` for a model that takes ``image``, within the memory of ``planner``.

    Raises OptionError if it does not take statistics of the whole image, ChannelError, PlanError, SourceError.
    """
    wanted = image.statistics
    if wanted is None:
        raise OptionError("this model normalises by fixed numbers; there is nothing to measure")
    leave_out_alpha(source, image.channels)
    planner.check_source(source)
    done, total = 0, passes(source, wanted) * source.height * source.width

    def advance(pixels: int) -> None:
        nonlocal done
        done += pixels
        if measuring is not None:
            measuring(done, total)

    rule = nodata_rule(source, nodata)
    cache_bytes = planner.measuring_cache(source)
    try:
        return measure(source, wanted, advance, cache_bytes=cache_bytes, nodata=rule)
    finally:
        if rule is not None:
            rule.close()
