"""Build a graph whose feature maps are chunks: some rows of each map, from ``start`` to ``stop``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.strips.refusal import StripError

Role = Literal["first", "body", "last"]
ROLES: tuple[Role, ...] = ("first", "body", "last")

OPEN_END = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Chunk:
    """A tensor that holds the rows ``start`` to ``stop`` of a feature map, at the reference height."""

    name: str
    start: int
    stop: int
    feature: FeatureMap

    @property
    def axis(self) -> int:
        """Return the dimension of the rows."""
        if "y" not in self.feature.labels:
            raise StripError(f"{self.feature.name}: rows and columns are flattened into one axis where a strip is cut")
        return self.feature.labels.index("y")


@dataclass(slots=True)
class GraphBuilder:
    """Collects nodes and constants under unique names."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    """Chunks that were cut or joined, and so lost the blocked layout that ONNX Runtime's kernels pass on."""
    _new_rows: dict[str, Chunk] = field(default_factory=dict)
    """The chunk without carried rows from which a joined one was made."""
    _slices: dict[tuple[str, int, int], str] = field(default_factory=dict)
    _blocked: dict[str, str] = field(default_factory=dict)
    _values: dict[tuple[str, bytes], str] = field(default_factory=dict)
    _count: int = 0

    def fresh(self, hint: str) -> str:
        self._count += 1
        return f"strip_{self._count}_{hint}"

    def add(self, op: str, inputs: Sequence[str], *, hint: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; return its name."""
        name = self.fresh(hint or op)
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{name}_node", **attributes))
        return name

    def constant(self, array: NDArray[Any]) -> str:
        """Add a constant; equal ones share a name."""
        key = (f"{array.dtype}{array.shape}", array.tobytes())
        if key not in self._values:
            self._values[key] = name = self.fresh("constant")
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return self._values[key]

    def integers(self, values: Sequence[int]) -> str:
        return self.constant(np.array(values, np.int64))

    def rows(self, chunk: Chunk, start: int, stop: int) -> str:
        """Return the rows ``start`` to ``stop`` of a chunk whose length is unknown when the graph is built."""
        new = self._new_rows.get(chunk.name)
        if new is not None and start >= new.start:  # unchanged: no copy, and still in blocks
            chunk = new
        begin, end = start - chunk.start, stop - chunk.stop
        if begin < 0 or end > 0:
            raise StripError(
                f"{chunk.feature.name}: rows {start} to {stop} are wanted of {chunk.start} to {chunk.stop}"
            )
        return self._slice(chunk, begin, end or OPEN_END)

    def blocked(self, name: str, feature: FeatureMap, block: int) -> str:
        """Return a cut or joined chunk in blocks of channels again, so that the same kernels run as in a whole pass.

        Pooling over one pixel changes nothing else; where channels do not fill blocks, each is multiplied by one.
        """
        if name not in self.plain:
            return name
        if name not in self._blocked:
            channels = feature.shape[1]
            if channels % block == 0:
                self._blocked[name] = self.add("MaxPool", [name], hint="blocked", kernel_shape=[1, 1])
            else:
                ones = self.constant(np.ones((channels, 1, 1, 1), np.float32))
                self._blocked[name] = self.add("Conv", [name, ones], hint="blocked", group=channels)
        return self._blocked[name]

    def joined(self, carried: str, chunk: Chunk, rows: int) -> Chunk:
        """Return a chunk with the ``rows`` before it that were carried."""
        name = self.add("Concat", [carried, chunk.name], axis=chunk.axis, hint="joined")
        self.plain.add(name)
        self._new_rows[name] = chunk
        return Chunk(name, chunk.start - rows, chunk.stop, chunk.feature)

    def last_rows(self, chunk: Chunk, count: int) -> str:
        return self._slice(chunk, -count, OPEN_END)

    def _slice(self, chunk: Chunk, begin: int, end: int) -> str:
        if begin == 0 and end == OPEN_END:
            return chunk.name
        key = (chunk.name, begin, end)
        if key not in self._slices:
            lists = [self.integers([value]) for value in (begin, end, chunk.axis)]
            self._slices[key] = self.add("Slice", [chunk.name, *lists], hint="rows")
            self.plain.add(self._slices[key])
        return self._slices[key]
