"""Compute on the CPU: an engine in the thread of each lane, results in buffers that are reused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import prod

import numpy as np

from exactile.contract import Contract, ImageInput
from exactile.engines.onnx_runtime import OnnxRuntimeEngine
from exactile.engines.protocol import Engine, OpensGraphs
from exactile.errors import EngineError
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.channel import Channel
from exactile.pipeline.compute import Array, Free, Load
from exactile.pipeline.timing import INFER, TimeSpan
from exactile.plan.budget import OUTPUT_SLOTS, input_slots
from exactile.plan.position import position_of
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripStep
from exactile.plan.tiles import Step

Lease = Callable[[int, Callable[[], None]], AbstractContextManager[tuple[Engine, float]]]
"""Waits for the engine of a lane, calling its argument meanwhile; yields it, and the seconds that opening it took."""

TRACK = "cpu"


@dataclass(slots=True)
class HostCompute:
    """Implements ``Compute`` with an engine on the CPU for each lane of the plan."""

    plan: Plan
    contract: Contract
    lease: Lease
    cancellation: Cancellation
    further: Callable[[Step], Mapping[str, Array]] | None = None
    """Further inputs of the graph for a step, by name."""
    ahead: Callable[[Step], TimeSpan | None] | None = None
    """Reads them, as ``read_ahead`` does."""
    batch: int = 1

    @property
    def lanes(self) -> int:
        return self.plan.lanes

    @contextmanager
    def staging(self, loads: int) -> Iterator[Sequence[Array]]:
        yield staging_buffers(self.plan, self.contract.image, loads)

    @contextmanager
    def lane(self, index: int, *, free: Free, check: Callable[[], None]) -> Iterator[HostLane]:
        track = TRACK if self.lanes == 1 else f"{TRACK} {index}"
        with self.lease(index, check) as (engine, opening_s):
            yield HostLane(self, engine, free, opening_s, track)

    def read_ahead(self, step: Step) -> TimeSpan | None:
        """Implements ``ReadsAhead``."""
        return self.ahead(step) if self.ahead is not None else None

    def close(self) -> None:
        """Nothing to close: results are plain arrays, and the lane's thread left the lease."""


class HostLane:
    """Implements ``Lane``: a load is done when ``start`` returns."""

    def __init__(self, compute: HostCompute, engine: Engine, free: Free, opening_s: float, track: str) -> None:
        self._track = track
        self._plan, self._contract = compute.plan, compute.contract
        self._engine = engine
        self._free = free
        self._further = compute.further
        # The graphs of strips are opened while strips run; a kept engine has opened some before.
        self._opening_s = opening_s - _opened_s(engine)
        result = self._contract.result
        self._results: Channel[Array] = Channel(OUTPUT_SLOTS, compute.cancellation)
        largest = prod(self._plan.tile_output_shape) * max(1, result.channels)
        for buffer in _buffers(min(len(self._plan), OUTPUT_SLOTS), largest, result.dtype):
            self._results.put(buffer)

    @property
    def opening_s(self) -> float:
        return self._opening_s + _opened_s(self._engine)

    def start(self, load: Load) -> HostTicket:
        assert load.staged is not None
        (step,) = load.steps
        result = self._results.get()
        begin = time.perf_counter()
        place = step.place if isinstance(step, StripStep) else None
        out = self._result_view(step, result)
        plan = self._plan
        told = (position_of(plan.y.domain, plan.x.domain, step.tile),) if plan.placed else ()
        if self._further is not None:
            assert isinstance(self._engine, OnnxRuntimeEngine)
            self._engine.infer(self._input_view(step, load.staged), out, place, *told, inputs=self._further(step))
        else:
            self._engine.infer(self._input_view(step, load.staged), out, place, *told)
        end = time.perf_counter()
        self._free(load.staged)
        y, x = step.crop.slices()
        return HostTicket(
            pixels=out[..., y, x],
            span=TimeSpan(self._track, INFER, begin, end),
            done=lambda: self._results.put(result),
        )

    def cancel(self) -> None:
        self._engine.cancel()

    def _input_view(self, step: Step, staged: Array) -> Array:
        """Return a buffer as the step's input, (H, W, C); buffers are as large as the largest input."""
        shape = (*step.tile.shape, self._contract.image.channels)
        return staged[: prod(shape)].reshape(shape)

    def _result_view(self, step: Step, result: Array) -> Array:
        """Return a buffer as the step's output, (H', W') or (C', H', W')."""
        channels = self._contract.result.channels
        shape = (*((channels,) if channels else ()), *self._plan.output_shape(step))
        return result[: prod(shape)].reshape(shape)


@dataclass(frozen=True, slots=True)
class HostTicket:
    """Implements ``Ticket`` for a load that is done."""

    pixels: Array
    span: TimeSpan
    done: Callable[[], None]

    def results(self) -> Sequence[Array]:
        return (self.pixels,)

    def spans(self) -> Sequence[TimeSpan]:
        return (self.span,)

    def release(self) -> None:
        self.done()


def staging_buffers(plan: Plan, image: ImageInput, loads: int) -> list[Array]:
    """Return buffers for tiles that are read, wait and are inferred. Raises EngineError."""
    return _buffers(min(loads, input_slots(plan.lanes)), prod(plan.tile_shape) * image.channels, image.dtype)


def _buffers(count: int, size: int, dtype: str) -> list[Array]:
    try:
        return [np.empty(size, dtype) for _ in range(count)]
    except MemoryError as error:
        raise EngineError("out of memory while making the tile buffers; use a smaller --memory") from error


def _opened_s(engine: Engine) -> float:
    return engine.opening_s if isinstance(engine, OpensGraphs) else 0.0
