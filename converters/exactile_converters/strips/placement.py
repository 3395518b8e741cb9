"""Where to carry rows: the set of maps whose carrying makes a strip cheapest.

Carrying a map costs copies in every strip, not carrying it costs computing its last rows once more, and with them
rows of everything before it. Between carrying everywhere and nowhere (the tile plan) lies the cheapest choice. It is
sought by switching single maps, in the order of the graph and back, as long as that helps, from several starts.
"""

from __future__ import annotations

from exactile_converters.geometry.reach import Same
from exactile_converters.strips.candidates import candidates
from exactile_converters.strips.cost import StripCosts
from exactile_converters.strips.source import StripSource

MOST_EVALUATIONS = 6000
MOST_ROUNDS = 8


def place(source: StripSource, *, strip_rows: int) -> frozenset[str]:
    """The names of the maps to carry in strips of ``strip_rows`` image rows. The image is always carried."""
    costs = StripCosts(source)
    names = candidates(source.frontiers)
    rounds = max(1, min(MOST_ROUNDS, MOST_EVALUATIONS // max(1, 3 * len(names))))
    found = [_descend(costs, names, start, strip_rows, rounds) for start in (set(), set(names), _waits(source, names))]
    return frozenset(min(found, key=lambda entry: entry[0])[1])


def _descend(
    costs: StripCosts, names: list[str], start: set[str], rows: int, rounds: int
) -> tuple[float, frozenset[str]]:
    """Switch one map at a time while it makes the strip cheaper; the cost and the maps."""
    carry, best = set(start), costs.strip(start, rows)
    for turn in range(rounds):
        before = best
        for name in reversed(names) if turn % 2 else names:
            carry ^= {name}
            cost = costs.strip(carry, rows)
            if cost < best:
                best = cost
            else:
                carry ^= {name}
        if best == before:
            break
    return best, frozenset(carry)


def _waits(source: StripSource, names: list[str]) -> set[str]:
    """Maps that wait for others where branches meet: the skip connections."""
    frontiers = source.frontiers
    found = set()
    for node in frontiers.nodes:
        readings = frontiers.readings[node]
        if len(readings) > 1:
            last = max(float(frontiers.lag[reading.name] / frontiers.scale(reading.name)) for reading in readings)
            found |= {
                reading.name
                for reading in readings
                if isinstance(reading.reach, Same)
                and float(frontiers.lag[reading.name] / frontiers.scale(reading.name)) < last
            }
    return found & set(names)
