"""A network in OpenVINO on the CPU, at one tile shape; and strip graphs, whose carries stay in the engine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from exactile.contract import Contract, StripModel, StripRole
from exactile.engines.carries import CarryPair
from exactile.engines.openvino_library import CompiledGraph, Precision, compile_graph, load_openvino
from exactile.engines.threads import compute_threads
from exactile.errors import CancelledError, EngineError
from exactile.plan.position import Position
from exactile.plan.strips import StripPlace

Array = NDArray[Any]
TOLD = "OpenVINO computes in 32-bit integers, and cannot take the position of a tile"


class OpenVinoEngine:
    """Runs one graph at one fixed tile shape; implements ``exactile.engines.protocol.Engine``.

    ``graph`` is a serialised ONNX model whose input ``input_name`` is (height, width, C), and whose output
    ``output_name`` is (H', W') or (C', H', W'). ``tile_shape`` is (H, W), ``channels`` is C. ``weights`` are constants
    that the graph leaves outside, by name; they are read where they are. ``claims`` are entries of a contract; the
    graph's metadata must hold the same. ``constants`` are further inputs, the same for all tiles, as far as the graph
    asks for them. Nothing is copied: the network reads tiles and writes results where they are.

    Raises EngineError when openvino is missing or refuses the graph, and when graph and arguments disagree.
    """

    def __init__(
        self,
        graph: bytes,
        *,
        input_name: str,
        output_name: str,
        tile_shape: tuple[int, int],
        channels: int,
        threads: int | None = None,
        precision: Precision = "f32",
        weights: Mapping[str, Array] | None = None,
        claims: Mapping[str, str] | None = None,
        constants: Mapping[str, Array] | None = None,
    ) -> None:
        if min(tile_shape) < 1:
            raise EngineError(f"a tile of {tile_shape[0]} x {tile_shape[1]} pixels is empty")
        self._input_name, self._output_name = input_name, output_name
        self._constants = constants or {}
        self._cancelled = False
        self._doing = f"running a tile of {tile_shape[0]} x {tile_shape[1]} pixels"
        self._graph: CompiledGraph | None = compile_graph(
            load_openvino(),
            graph,
            weights or {},
            shapes={input_name: (*tile_shape, channels)},
            threads=compute_threads(threads),
            precision=precision,
            claims=claims or {},
            what="the graph",
        )
        check_output(self._graph, output_name, "the graph")

    def infer(self, tile: Array, out: Array, place: StripPlace | None = None, position: Position | None = None) -> None:
        """Run ``tile`` ((H, W, C), C-contiguous) and fill ``out`` ((H', W') or (C', H', W'), C-contiguous).

        Raises EngineError when an array does not fit or OpenVINO fails; CancelledError after ``cancel``.
        """
        if self._graph is None:
            raise EngineError("the engine is closed; open a new one")
        if self._cancelled:
            raise CancelledError("the engine was cancelled")
        if place is not None:
            raise EngineError("an engine for tiles cannot run strips")
        if position is not None:
            raise EngineError(TOLD)
        arrays = {**self._constants, self._input_name: tile, self._output_name: out}
        self._graph.run(arrays, self._doing, lambda: self._cancelled)

    def cancel(self) -> None:
        """Make a running and every later ``infer`` raise CancelledError; callable from any thread."""
        self._cancelled = True
        if (graph := self._graph) is not None:
            graph.request.cancel()

    def close(self) -> None:
        """Release the graph and its memory; safe to call twice."""
        self._graph = None


class OpenVinoStripEngine:
    """Runs the strips of ``bands`` in order; implements ``exactile.engines.protocol.Engine``.

    Each band has two sets of carries; a strip reads one and writes the other, where they are. One graph is open at a
    time. ``opening_s`` is the time spent on opening graphs. ``claims``, ``constants`` and ``precision`` as in
    ``OpenVinoEngine``.

    Raises EngineError when openvino is missing or refuses a graph.
    """

    def __init__(
        self,
        strips: StripModel,
        contract: Contract,
        *,
        band_width: int,
        bands: Iterable[int],
        threads: int | None = None,
        precision: Precision = "f32",
        claims: Mapping[str, str] | None = None,
        constants: Mapping[str, Array] | None = None,
    ) -> None:
        self._library = load_openvino()
        self._strips, self._contract, self._precision = strips, contract, precision
        self._width, self._threads = band_width, compute_threads(threads)
        self._claims, self._constants = claims or {}, constants or {}
        self._graph: CompiledGraph | None = None
        self._open_for: tuple[StripRole, int] | None = None
        self._cancelled = self._closed = False
        self.opening_s = 0.0
        self._carries = {band: CarryPair(strips, band_width) for band in bands}

    def infer(self, tile: Array, out: Array, place: StripPlace | None = None, position: Position | None = None) -> None:
        """Run the strip ``tile`` ((H, W, C)) of the band of ``place``, and fill ``out`` ((H', W') or (C', H', W')).

        Strips of a band must come in order. Raises EngineError; CancelledError after ``cancel``.
        """
        if self._closed:
            raise EngineError("the engine is closed; open a new one")
        if self._cancelled:
            raise CancelledError("the engine was cancelled")
        if place is None:
            raise EngineError("a strip engine runs strips; this is a tile")
        if position is not None:
            raise EngineError(TOLD)
        graph = self._opened(place.role, tile.shape[0])
        pair = self._carries[place.band]
        arrays = {**self._constants, self._contract.image.name: tile, self._contract.result.name: out}
        if place.role != "first":
            arrays |= {f"{name}_in": array for name, array in pair.current.items()}
        if place.role != "last":
            arrays |= {f"{name}_out": array for name, array in pair.next.items()}
        doing = f"running a strip of {tile.shape[0]} x {tile.shape[1]} pixels"
        graph.run(arrays, doing, lambda: self._cancelled)
        pair.swap()

    def cancel(self) -> None:
        """Make a running and every later ``infer`` raise CancelledError; callable from any thread."""
        self._cancelled = True
        if (graph := self._graph) is not None:
            graph.request.cancel()

    def close(self) -> None:
        """Release the graph, the carries and their memory; safe to call twice."""
        self._closed = True
        self._graph = None
        self._carries = {}

    def _opened(self, role: StripRole, height: int) -> CompiledGraph:
        if self._graph is not None and self._open_for == (role, height):
            return self._graph
        begin = time.perf_counter()
        self._graph = None  # before the next one, so that weights are never there twice
        image, strips = self._contract.image, self._strips
        shapes: dict[str, tuple[int, ...]] = {image.name: (height, self._width, image.channels)}
        if role != "first":
            shapes |= {f"{carry.name}_in": carry.shape_at(self._width) for carry in strips.carries}
        what = f"the graph of {role} strips"
        graph = compile_graph(
            self._library,
            strips.graphs[role].graph,
            strips.weights,
            shapes=shapes,
            threads=self._threads,
            precision=self._precision,
            claims=self._claims,
            what=what,
        )
        check_output(graph, self._contract.result.name, what)
        self._graph, self._open_for = graph, (role, height)
        self.opening_s += time.perf_counter() - begin
        return graph


def check_output(graph: CompiledGraph, name: str, what: str) -> None:
    """Raise EngineError if the graph has no output of this name."""
    if name not in graph.outputs:
        raise EngineError(f"{what} has no output {name!r}; it has {', '.join(map(repr, sorted(graph.outputs)))}")
