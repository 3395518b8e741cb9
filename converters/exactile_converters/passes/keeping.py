"""Choose the maps to keep between passes, so that a pass begins there instead of at the image.

A map that a later pass reads can be kept or recomputed. The choice minimises the predicted time: recomputing costs the
map's operators; keeping costs its bytes, written once and read in each pass that begins there. The search starts with
every map that crosses from one level to another, and drops maps one by one as long as this saves time.

Where a map crosses is a choice, too: each pass can compute as much as possible, or only what its statistics need::

    image -- encoder --+-- pooled: a statistic            early: the first pass computes and keeps the branches
                       |-- branches ------ result         late: it keeps the encoder's map, the second computes them

Late, a pass has a smaller receptive field, and recomputes less at the edges of its tiles; early, fewer maps may cross.
The alternative that takes less time in tiles is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import prod

import onnx_ir as ir

from exactile_converters.geometry.cost import cost_per_pixel
from exactile_converters.geometry.node_view import SPATIAL, is_spatial
from exactile_converters.geometry.trace import Traced
from exactile_converters.passes.levels import LevelOf
from exactile_converters.passes.products import computed_as_one, factors_of
from exactile_converters.passes.reductions import Reduction
from exactile_converters.passes.segments import Segment, pass_geometry

MAC_S = 1 / 40e9
"""Seconds of a multiply-accumulate, on few cores."""

MADE_BYTE_S = 1 / 6e9
"""Seconds of an operator for each byte of its result."""

REDUCED_BYTES = {"moments": 6, "mean": 2, "sum": 2, "maximum": 2, "minimum": 2}
"""Bytes read or written for each byte of a map of which a statistic is computed: its zone, rows, squares."""

FLOAT_BYTES = 4

KEPT_BYTE_S = 1 / 2.5e9
"""Seconds to write a byte to a kept map, or to read it."""

USUAL_ZONE_PX = 1024
"""Zone size of tiles for which the times of passes are compared, in pixels: halos are computed in addition."""


class Cuts:
    """The passes of a traced network whose placeholders are those of ``levels``."""

    def __init__(self, traced: Traced, levels: Sequence[LevelOf], result: ir.Value) -> None:
        self._walk, self._nodes = traced.walk, traced.nodes
        self._features = traced.features
        self._image = next(iter(traced.features))
        self._makers = {
            value.name: node
            for node in traced.nodes
            if node in traced.walk.transfers
            for value in node.outputs
            if value.name in traced.features
        }
        self._targets = [tuple(one.of.name or "" for one in level) for level in levels]
        self._targets.append((result.name or "",))
        self._reducing = [sum(map(self._reducing_time, level)) for level in levels]
        self._levels = self._found_at(levels)
        self._crossing = self._levels
        self._seconds = {node: self._time(node) for node in dict.fromkeys(self._makers.values())}

    def best(self) -> tuple[Segment, ...]:
        """Return the passes in order, that of the result last."""
        early = self._best()
        self._crossing = self._needed_at()
        late = self._best()
        self._crossing = self._levels
        return min((early, late), key=self._in_tiles)

    def _in_tiles(self, segments: Sequence[Segment]) -> float:
        """Return the predicted seconds for each pixel of the image, in tiles of the default size."""
        total = 0.0
        for segment, targets, reducing in zip(segments, self._targets, [*self._reducing, 0.0], strict=True):
            names = [*targets, *segment.writes]
            halo = (pass_geometry(self._walk, segment, names, self._image, axis, 0) for axis in SPATIAL)
            computed = prod(1 + (one.before + one.after) / USUAL_ZONE_PX for one in halo)
            total += (self._seconds_of(segment) + reducing) * computed
        return total

    def _best(self) -> tuple[Segment, ...]:
        kept = self.candidates()
        least = self.seconds(kept)
        found = True
        while found:
            found = False
            for name in sorted(kept, key=self.bytes_of, reverse=True):
                fewer = kept - {name}
                seconds = self.seconds(fewer)
                if seconds < least:
                    kept, least, found = fewer, seconds, True
        return self.segments(kept)

    def candidates(self) -> frozenset[str]:
        """Return the maps that are computed in one pass and read by an operator of a later one."""
        found = set()
        for node in self._seconds:
            at = max(self._crossing[value.name or ""] for value in node.outputs if value.name in self._crossing)
            for name in self._read(node):
                labels = self._features[name].labels
                inside = name == self._image or name in self._walk.shifted
                if not inside and self._crossing[name] < at and all(axis in labels for axis in SPATIAL):
                    found.add(name)
        return frozenset(found)

    def segments(self, kept: AbstractSet[str]) -> tuple[Segment, ...]:
        """Return the passes if maps in ``kept`` are kept, as far as they are read."""
        wanted: set[str] = set()
        found: list[Segment] = []
        for index in reversed(range(len(self._targets))):
            writes = tuple(sorted(name for name in wanted if self._crossing[name] == index))
            segment = self._segment(index, writes, kept)
            wanted.update(segment.reads)
            found.append(segment)
        return tuple(reversed(found))

    def seconds(self, kept: AbstractSet[str]) -> float:
        """Return the predicted seconds for each pixel of the image."""
        return sum(map(self._seconds_of, self.segments(kept))) + sum(self._reducing)

    def work(self, segments: Sequence[Segment]) -> tuple[float, ...]:
        """Return the predicted time of each pass relative to one pass of the whole network."""
        whole = sum(self._seconds.values())
        seconds = [
            self._seconds_of(segment) + reducing
            for segment, reducing in zip(segments, [*self._reducing, 0.0], strict=True)
        ]
        return tuple(each / whole if whole else 1.0 for each in seconds)

    def _seconds_of(self, segment: Segment) -> float:
        kept = KEPT_BYTE_S * sum(self.bytes_of(name) for name in (*segment.reads, *segment.writes))
        return sum(self._seconds[node] for node in segment.nodes) + kept

    def bytes_of(self, name: str) -> float:
        """Return the bytes of a map for each pixel of the image."""
        feature = self._features[name]
        others = prod(size for size, label in zip(feature.shape, feature.labels, strict=True) if not is_spatial(label))
        return float(others * ir.DataType(feature.dtype).itemsize * feature.scale["y"] * feature.scale["x"])

    def _segment(self, index: int, writes: Iterable[str], kept: AbstractSet[str]) -> Segment:
        reads: set[str] = set()
        nodes: set[ir.Node] = set()
        image = False
        seen: set[str] = set()
        stack = [*self._targets[index], *writes]
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in kept and self._crossing[name] < index:
                reads.add(name)
            elif name == self._image:
                image = True
            else:
                node = self._makers[name]
                nodes.add(node)
                stack.extend(self._read(node))
        return Segment(
            nodes=tuple(node for node in self._nodes if node in nodes),
            reads=tuple(sorted(reads)),
            writes=tuple(writes),
            image=image,
        )

    def _read(self, node: ir.Node) -> list[str]:
        """Return the maps from which ``node`` is computed."""
        operands = (node.inputs[flow.operand] for flow in self._walk.transfers[node].flows)
        return [value.name for value in operands if value is not None and value.name]

    def _found_at(self, levels: Sequence[LevelOf]) -> Mapping[str, int]:
        """Return the first pass in which each value can be computed, by name."""
        found = {
            value.name or "": index + 1
            for index, level in enumerate(levels)
            for one in level
            for value in one.placeholders
        }
        found[self._image] = 0
        for node in self._nodes:
            if node in self._walk.transfers or node.op_type not in {"Shape", "Size"}:
                at = max((found.get(value.name or "", 0) for value in node.inputs if value is not None), default=0)
            else:
                at = 0
            found.update((value.name, at) for value in node.outputs if value.name)
        return found

    def _needed_at(self) -> Mapping[str, int]:
        """Return the first pass whose statistics, or result, need each map, by name."""
        found = dict.fromkeys(self._levels, len(self._targets))
        for index in reversed(range(len(self._targets))):
            for node in self._segment(index, (), frozenset()).nodes:
                found.update((value.name, index) for value in node.outputs if value.name)
        found[self._image] = 0
        return found

    def _reducing_time(self, one: Reduction) -> float:
        """Return the time of computing a statistic, for each pixel of the image."""
        made = self.bytes_of(one.of.name or "")
        if factors_of(one.of) is not None:
            return made / FLOAT_BYTES * MAC_S
        return MADE_BYTE_S * REDUCED_BYTES.get(one.kind, 2) * made

    def _time(self, node: ir.Node) -> float:
        if computed_as_one(node):
            return 0.0
        made = [value.name for value in node.outputs if value.name and value.name in self._features]
        macs = cost_per_pixel((node,), self._features).mac_per_pixel or 0
        return float(macs) * MAC_S + MADE_BYTE_S * sum(self.bytes_of(name) for name in made)
