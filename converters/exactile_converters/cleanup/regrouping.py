"""Express the target of a Reshape, written for one image size, by the dimensions that it regroups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod


@dataclass(frozen=True, slots=True)
class Target:
    """One dimension of the target: a product of dimensions of the operand, multiplied and divided by numbers."""

    dims: tuple[int, ...]
    times: int
    over: int = 1

    def size(self, shape: Sequence[int]) -> int:
        return prod(shape[dim] for dim in self.dims) * self.times // self.over


def targets(before: Sequence[int], following: Sequence[int], after: Sequence[int]) -> list[Target] | None:
    """Return how ``after``, the target for ``before``, follows those dimensions of it that follow the image's size.

    None where that is ambiguous. A dimension that is split into blocks grows by blocks: (64) to (8, 8) stands for (rows
    / 8, 8). Rows and columns may be merged, but merged ones cannot be split again: the sizes do not show how.
    """
    found: list[Target] = []
    for inside, made in _groups(before, after):
        grown = [dim for dim in inside if dim in following]
        if not grown:
            found += [Target((), size) for size in made]
            continue
        rest = [dim for dim in inside if dim not in grown and before[dim] > 1]
        if any(before[dim] == 1 for dim in grown) or any(dim < grown[0] for dim in rest):
            return None
        if len(grown) > 1 and (rest or sum(size > 1 for size in made) > 1):
            return None
        place = next((place for place, size in enumerate(made) if size > 1), 0)
        merged, blocks = prod(before[dim] for dim in rest), prod(made[place + 1 :])
        found += [Target((), size) for size in made[:place]]
        found.append(Target(tuple(grown), merged, blocks))
        found += [Target((), size) for size in made[place + 1 :]]
    return found


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return the finest division of both shapes into parts of equal product: dimensions of one, sizes of the other."""
    groups: list[tuple[list[int], list[int]]] = []
    left, right = list(range(len(before))), list(after)
    while left and right:
        inside, made = [left.pop(0)], [right.pop(0)]
        while (one := prod(before[dim] for dim in inside)) != (two := prod(made)):
            if one < two and left:
                inside.append(left.pop(0))
            elif one > two and right:
                made.append(right.pop(0))
            else:
                return [(list(range(len(before))), list(after))]
        groups.append((inside, made))
    if groups:
        groups[-1][0].extend(left)
        groups[-1][1].extend(right)
    return groups
