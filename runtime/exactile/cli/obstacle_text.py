"""Describe an obstacle to exact tiling for display."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def obstacle_lines(found: Any, *, verbose: bool) -> Iterator[str]:
    """Yield the first node of the obstacle's kind and how many there are, reason and remedy.

    ``found`` is the converter's ``Obstacle``. With ``verbose`` also the other nodes, and what follows from them.
    """
    yield f"\n{'statistic' if found.statistic else 'obstacle '} {found.places}"
    yield f"  reason  {found.reason}"
    yield "  remedy  none is needed where passes are possible" if found.statistic else f"  remedy  {found.remedy}"
    if verbose:
        yield from (f"  also    {node!r}" for node in found.others)
        yield from (f"  follows {one.place}: {one.reason}" for one in found.consequences)
    elif found.consequences:
        yield f"  follows {len(found.consequences)} more, which --verbose names"
