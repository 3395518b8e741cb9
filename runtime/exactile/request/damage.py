"""Report damaged chunks of an image that were filled."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exactile.geometry import Box
    from exactile.sources.damage import DamageReport

MOST_LISTED = 5
"""Boxes named in a line; JSON has all."""


def box_list(boxes: Sequence[Box]) -> str:
    """Return ``y 32:64, x 0:90; ...``"""
    listed = [f"y {box.y.start}:{box.y.stop}, x {box.x.start}:{box.x.stop}" for box in boxes[:MOST_LISTED]]
    return "; ".join(listed) + (f"; and {len(boxes) - MOST_LISTED} more" if len(boxes) > MOST_LISTED else "")


def damage_object(damage: DamageReport) -> dict[str, Any]:
    """Return plain data; a box is [top, left, bottom, right], half-open."""
    return {
        "pixels": damage.pixels,
        "boxes": [_corners(box) for box in damage.boxes],
        "affected_result": [_corners(box) for box in damage.affected],
        "reasons": list(damage.reasons),
    }


def warn_of_damage(damage: DamageReport, image: Path | str) -> None:
    """Print one line on stderr if something was filled."""
    if damage.boxes:
        sys.stderr.write(
            f"warning: {image}: {damage.pixels} pixels could not be decoded and were filled: {box_list(damage.boxes)} "
            f"({damage.reasons[0]}); do not trust the result in {box_list(damage.affected)}\n"
        )


def _corners(box: Box) -> list[int]:
    return [box.y.start, box.x.start, box.y.stop, box.x.stop]
