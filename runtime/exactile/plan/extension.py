"""Explain why an image is run at another size than its own."""

from __future__ import annotations

from exactile.geometry import Geometry
from exactile.plan.border import Border


def why_extended(geometry: Geometry, image: tuple[int, int], domain: tuple[int, int], border: Border) -> str:
    """Explain for an ``image`` of (height, width) pixels that is run as ``domain``; empty if they are the same."""
    if image == domain:
        return ""
    if border != "model":
        return "as the border asks"
    axes = list(zip((geometry.y, geometry.x), image, domain, strict=True))
    extended = [(axis, size) for axis, size, run_at in axes if size != run_at]
    if all(axis.takes(size) for axis, size in extended):
        return "because no engine was built for its own size"
    if any(axis.others is None for axis, _ in extended):
        return "because it is not known whether the network accepts its size; convert bundles of earlier versions again"
    return "because the network does not accept its size"
