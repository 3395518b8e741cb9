"""Obstacles of one kind: an operator and a reason, whatever names and sizes the reason tells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from exactile_converters.geometry.obstacle import Obstacle

OWN = re.compile(r"'[^']*'|\d+")
"""Names and sizes, which nodes of one kind have of their own."""


def by_kind(obstacles: Iterable[Obstacle]) -> tuple[Obstacle, ...]:
    """The first obstacle of each kind, which counts the others, in the order of the first ones."""
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
    """Those that passes do not take."""
    return tuple(one for one in obstacles if not one.statistic)
