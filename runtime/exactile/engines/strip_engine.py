"""Strip graphs in ONNX Runtime on the CPU: carries stay in the engine, handed from strip to strip in place."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from exactile.contract import POSITION, Contract, StripModel, StripRole
from exactile.engines.arena import SHARED_ARENA, share_allocator
from exactile.engines.carries import CarryPair
from exactile.engines.claims import check_claims
from exactile.engines.onnx_runtime import (
    add_weights,
    bind,
    fail,
    load_library,
    metadata_of,
    open_session,
    session_options,
)
from exactile.engines.threads import compute_threads
from exactile.errors import CancelledError, EngineError
from exactile.machine.memory import return_freed_memory
from exactile.plan.position import Position
from exactile.plan.strips import StripPlace

Array = NDArray[Any]


class StripEngine:
    """Runs the strips of ``bands`` in order; implements ``exactile.engines.protocol.Engine``.

    Each band has two sets of carries; a strip reads one and writes the other, by I/O binding: no row is copied in
    Python. One graph is open at a time: all of these bands run their first strip, then all body strips, then the last.
    ``activation_bytes`` is the most that any of the strips needs. ``opening_s`` is the time spent on opening graphs.
    ``claims`` and ``constants`` as in ``OnnxRuntimeEngine``.

    Raises EngineError when onnxruntime is missing or refuses a graph.
    """

    def __init__(
        self,
        strips: StripModel,
        contract: Contract,
        *,
        band_width: int,
        bands: Iterable[int],
        threads: int | None = None,
        activation_bytes: int | None = None,
        claims: Mapping[str, str] | None = None,
        constants: Mapping[str, Array] | None = None,
    ) -> None:
        self._ort = load_library()
        self._constants = constants or {}
        self._claims = claims or {}
        self._strips, self._contract = strips, contract
        self._width, self._threads = band_width, compute_threads(threads)
        self._share = activation_bytes is not None
        self._session: Any = None
        self._open_for: tuple[StripRole, int] | None = None
        self._asked: set[str] = set()
        self._run_options = self._ort.RunOptions()
        self._cancelled = self._closed = False
        self.opening_s = 0.0
        self._carries = {band: CarryPair(strips, band_width) for band in bands}
        if activation_bytes is not None:
            SHARED_ARENA.reserve(self, activation_bytes)

    def infer(self, tile: Array, out: Array, place: StripPlace | None = None, position: Position | None = None) -> None:
        """Run the strip ``tile`` ((H, W, C)) of the band of ``place``, and fill ``out`` ((H', W') or (C', H', W')).

        ``position`` is where the strip lies in the image, for graphs that ask for it.
        Strips of a band must come in order. Raises EngineError; CancelledError after ``cancel``.
        """
        if self._closed:
            raise EngineError("the engine is closed; open a new one")
        if self._cancelled:
            raise CancelledError("the engine was cancelled")
        if place is None:
            raise EngineError("a strip engine runs strips; this is a tile")
        self._open(place.role, tile.shape[0])
        pair = self._carries[place.band]
        binding = self._bound(tile, out, place.role, pair)
        if position is not None:
            bind(binding.bind_input, POSITION, position)
        try:
            self._session.run_with_iobinding(binding, self._run_options)
        except Exception as error:
            if self._cancelled:
                raise CancelledError("the engine was cancelled") from error
            fail(error, f"running a strip of {tile.shape[0]} x {tile.shape[1]} pixels")
        pair.swap()

    def cancel(self) -> None:
        """Make a running and every later ``infer`` raise CancelledError; callable from any thread."""
        self._cancelled = True
        self._run_options.terminate = True

    def close(self) -> None:
        """Release the session, the carries and their memory; safe to call twice."""
        self._closed = True
        self._session = None
        self._carries = {}
        SHARED_ARENA.release(self)

    def _bound(self, tile: Array, out: Array, role: StripRole, pair: CarryPair) -> Any:
        """Return everything that a strip reads and writes, in place."""
        binding = self._session.io_binding()
        bind(binding.bind_input, self._contract.image.name, tile)
        for name, array in self._constants.items():
            if name in self._asked:
                bind(binding.bind_input, name, array)
        bind(binding.bind_output, self._contract.result.name, out)
        if role != "first":
            for name, array in pair.current.items():
                bind(binding.bind_input, f"{name}_in", array)
        if role != "last":
            for name, array in pair.next.items():
                bind(binding.bind_output, f"{name}_out", array)
        return binding

    def _open(self, role: StripRole, height: int) -> None:
        if self._open_for == (role, height):
            return
        begin = time.perf_counter()
        self._session = None  # before the next one, so that weights are never there twice
        options = session_options(self._ort, (height, self._width), self._threads)
        # By default rows for carries are cut out last, and until then every map that they come from stays: measured
        # twice the memory that the model of liveness (nodes in their order) predicts.
        options.execution_order = self._ort.ExecutionOrder.PRIORITY_BASED
        for carry in self._strips.carries:
            options.add_free_dimension_override_by_name(carry.width_name, carry.columns_at(self._width))
        if self._share:
            share_allocator(options)
        graph = self._strips.graphs[role].graph
        add_weights(self._ort, options, self._strips.weights, graph)
        self._session = open_session(self._ort, graph, options)
        check_claims(metadata_of(self._session), self._claims, f"the graph of {role} strips")
        self._asked = {argument.name for argument in self._session.get_inputs()}
        return_freed_memory()
        self._open_for = role, height
        self.opening_s += time.perf_counter() - begin
