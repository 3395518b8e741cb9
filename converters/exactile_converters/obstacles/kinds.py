"""Group obstacles by kind: an operator and a reason, regardless of names and sizes in the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from exactile_converters.geometry.obstacle import Obstacle

OWN = re.compile(r"'[^']*'|\d+")
"""Names and sizes, which differ between nodes of one kind."""


def by_kind(obstacles: Iterable[Obstacle]) -> tuple[Obstacle, ...]:
    """Return the first obstacle of each kind, which counts the others, in order of first occurrence."""
    kinds: dict[tuple[str, str, bool], list[Obstacle]] = {}
    for one in obstacles:
        kinds.setdefault((one.op, OWN.sub("", one.reason), one.statistic), []).append(one)
    return tuple(
        replace(
            first,
            others=tuple(one.node for one in more),
            consequences=tuple(follows for one in (first, *more) for follows in one.consequences),
        )
        for first, *more in kinds.values()
    )


def in_the_way(obstacles: Iterable[Obstacle]) -> tuple[Obstacle, ...]:
    """Return the obstacles that passes cannot remove."""
    return tuple(one for one in obstacles if not one.statistic)
