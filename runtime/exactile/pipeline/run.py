"""Read -> infer -> crop and write, each in its own thread, with buffers that are reused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import Contract
from exactile.errors import CancelledError, ExactileError
from exactile.geometry import Box
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.channel import Channel
from exactile.pipeline.compute import Compute, Lane, Load, ReadsAhead, Ticket
from exactile.pipeline.nodata_marks import NodataMarks
from exactile.pipeline.staging import stage_tile
from exactile.pipeline.stored_values import StoredValues
from exactile.pipeline.timing import INFER, TimeSpan
from exactile.plan.background import Background
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan, StripStep
from exactile.plan.tiles import Step
from exactile.sinks.protocol import Sink
from exactile.sources.protocol import Source
from exactile.threads.waited_thread import WaitedThread

Progress = Callable[[int], None]
"""Called with the number of result pixels that were written."""

Timed = Callable[[TimeSpan, Sequence[Step]], None]
"""Called with each piece of work that was done, and its steps."""

Array = NDArray[Any]


@dataclass(slots=True)
class Skipped:
    """Tiles and result pixels that were background."""

    tiles: int = 0
    pixels: int = 0


def _nothing_done(_zor: Box) -> bool:
    return False


@dataclass(slots=True)
class StageSeconds:
    """Busy time of each stage, in seconds; stages overlap, so they may add up to more than the total.

    ``open`` is the time that opening the engine took, while the first tiles are read; for the three graphs of a strip
    plan it is within ``infer``. ``total`` includes it, and ``measure``, the time for statistics of the whole image.
    ``infer`` is the sum over all lanes and GPUs.
    """

    measure: float = 0.0
    open: float = 0.0
    read: float = 0.0
    infer: float = 0.0
    write: float = 0.0
    total: float = 0.0


@dataclass(slots=True)
class Pipeline:
    """One run of a plan. ``run`` returns only when every thread has ended.

    Boxes for which ``is_done`` is true are already in the sink and are not written; tiles for them are not computed.
    Tiles whose zone of responsibility is entirely ``background`` are not computed, and ``skipped`` counts them.
    ``marks`` gives pixels without data a label. ``timed`` is called with every piece of work, in the thread that knows
    of it.
    """

    plan: Plan
    contract: Contract
    source: Source
    compute: Compute
    sink: Sink
    progress: Progress
    cancellation: Cancellation
    is_done: Callable[[Box], bool] = _nothing_done
    background: Background | None = None
    skipped: Skipped = field(default_factory=Skipped)
    seconds: StageSeconds = field(default_factory=StageSeconds)
    read: Callable[[], None] = lambda: None
    timed: Timed | None = None
    marks: NodataMarks | None = None
    values: StoredValues = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _lanes_at_work: int = 0

    def __post_init__(self) -> None:
        self.values = StoredValues(self.contract.result)

    def run(self) -> StageSeconds:
        """Run every step. Raises the first failure of any stage; KeyboardInterrupt stops all of them."""
        begin = time.perf_counter()
        loads = -(-len(self.plan) // self.compute.batch)
        try:
            with self.compute.staging(loads) as buffers:
                self._run(buffers)
        finally:
            self.compute.close()
        self.seconds.total = time.perf_counter() - begin
        if self.cancellation.cause is not None:
            raise self.cancellation.cause
        return self.seconds

    def _run(self, buffers: Sequence[Array]) -> None:
        free: Channel[Array] = Channel(len(buffers), self.cancellation)
        for buffer in buffers:
            free.put(buffer)
        lanes = range(self.compute.lanes)
        staged = self._queues(len(buffers))
        inferred: Channel[tuple[Load, Ticket | None]] = Channel(len(buffers), self.cancellation)
        self._lanes_at_work = len(lanes)
        threads = [
            self._thread("read", lambda: self._read(free, staged)),
            *(self._thread("infer", lambda i=i: self._infer(i, staged[i], free, inferred)) for i in lanes),  # type: ignore[misc]
            self._thread("write", lambda: self._write(inferred)),
        ]
        for thread in threads:
            thread.start()
        self._wait(threads)

    def _queues(self, capacity: int) -> list[Channel[Load]]:
        """Return the queue of each lane: strips of a band follow each other in one lane, tiles go to any."""
        if isinstance(self.plan, StripPlan):
            return [Channel(capacity, self.cancellation) for _ in range(self.compute.lanes)]
        return [Channel(capacity, self.cancellation)] * self.compute.lanes

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except CancelledError as error:
                self.cancellation.cancel(error)
            except MemoryError:
                self.cancellation.cancel(ExactileError(f"out of memory in the {name} stage; use a smaller --memory"))
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is re-raised in the caller's thread
                self.cancellation.cancel(error)

        return WaitedThread(target=guarded, name=f"exactile-{name}", daemon=True)

    def _wait(self, threads: list[threading.Thread]) -> None:
        try:
            for thread in threads:
                thread.join()
        except BaseException as interrupt:
            self.cancellation.cancel(interrupt)
            for thread in threads:
                thread.join()
            raise

    def _read(self, free: Channel[Array], staged: list[Channel[Load]]) -> None:
        for load in self._loads(free):
            first = load.steps[0]
            staged[first.place.band % len(staged) if isinstance(first, StripStep) else 0].put(load)
        for queue in staged:
            queue.close()
        self.read()

    def _loads(self, free: Channel[Array]) -> Iterator[Load]:
        """Yield every step to compute, staged, and those that are background."""
        steps: list[Step] = []
        buffer: Array | None = None
        number = count()
        for step in self.plan:
            if not isinstance(step, StripStep) and self.is_done(step.zor):
                continue
            buffer = free.get() if buffer is None else buffer
            if self._stage(step, buffer, len(steps)):
                yield Load((step,), None, next(number))
                continue
            self._read_ahead(step)
            steps.append(step)
            if len(steps) == self.compute.batch:
                yield Load(tuple(steps), buffer, next(number))
                steps, buffer = [], None
        if steps:
            yield Load(tuple(steps), buffer, next(number))

    def _stage(self, step: Step, buffer: Array, place: int) -> bool:
        """Stage a step as the ``place``-th of its load; return whether it is entirely background."""
        begin = time.perf_counter()
        shape = (*step.tile.shape, self.contract.image.channels)
        size = prod(shape)
        pixels = buffer[place * size : (place + 1) * size].reshape(shape)
        stage_tile(self.source, step.tile, self.plan.border, pixels)
        empty = self._is_background(step, pixels)
        if self.marks is not None and (step.zor.area or isinstance(step, StripStep)):
            self.marks.look(step, pixels)
        end = time.perf_counter()
        self.seconds.read += end - begin
        self._tell(TimeSpan("read", "read", begin, end), (step,))
        return empty

    def _read_ahead(self, step: Step) -> None:
        """Read further inputs of the network for ``step``."""
        span = self.compute.read_ahead(step) if isinstance(self.compute, ReadsAhead) else None
        if span is not None:
            self.seconds.read += span.seconds
            self._tell(span, (step,))

    def _is_background(self, step: Step, pixels: Array) -> bool:
        """Return whether the image is entirely background where ``step`` gives the result."""
        if self.background is None or not step.zor.area:
            return False
        box = Box(self.plan.y.domain.image_span(step.zor.y), self.plan.x.domain.image_span(step.zor.x))
        return bool(box.area) and self.background.is_empty(box, pixels[box.slices(step.tile)])

    def _background_of(self, step: Step) -> Array:
        """Return the result of a background step: a view of one pixel."""
        assert self.background is not None
        self.skipped.tiles += 1
        self.skipped.pixels += step.zor.area
        return np.broadcast_to(np.array(self.background.label, self.contract.result.stored_dtype), step.zor.shape)

    def _infer(
        self,
        index: int,
        staged: Channel[Load],
        free: Channel[Array],
        inferred: Channel[tuple[Load, Ticket | None]],
    ) -> None:
        with self.compute.lane(index, free=free.put, check=self.cancellation.check) as lane:
            self.cancellation.on_cancel(lane.cancel)
            try:
                for load in staged:
                    inferred.put((load, lane.start(load) if load.staged is not None else None))
            finally:
                # From here on it may be another run's engine, which a failure of this one must not affect.
                self.cancellation.forget(lane.cancel)
            self._lane_ended(lane, inferred)

    def _lane_ended(self, lane: Lane, inferred: Channel[tuple[Load, Ticket | None]]) -> None:
        with self._lock:
            self.seconds.open = max(self.seconds.open, lane.opening_s)
            self._lanes_at_work -= 1
            last = self._lanes_at_work == 0
        if last:
            inferred.close()

    def _write(self, inferred: Channel[tuple[Load, Ticket | None]]) -> None:
        for load, ticket in self._in_order(inferred):
            if ticket is None:
                (step,) = load.steps
                self._write_one(step, self._background_of(step))
                continue
            for step, pixels in zip(load.steps, ticket.results(), strict=True):
                self._write_one(step, pixels, computed=True)
            for span in ticket.spans():
                self.seconds.infer += span.seconds if span.work == INFER else 0.0
                self._tell(span, load.steps)
            ticket.release()

    def _in_order(self, inferred: Channel[tuple[Load, Ticket | None]]) -> Iterator[tuple[Load, Ticket | None]]:
        """Yield loads, on a CPU in the plan's order, so that no lane gets further ahead than its results have room.

        What a sink holds until neighbouring boxes come is then the same for any number of lanes.
        """
        if self.plan.lanes == 1:
            yield from inferred
            return
        waiting: dict[int, tuple[Load, Ticket | None]] = {}
        following = 0
        for one in inferred:
            waiting[one[0].number] = one
            while following in waiting:
                yield waiting.pop(following)
                following += 1

    def _write_one(self, step: Step, pixels: Array, *, computed: bool = False) -> None:
        # Strips over rows that only the border needs, or that only warm up the carries, have no result.
        if not step.zor.area or self.is_done(step.zor):
            return
        begin = time.perf_counter()
        result = self.values.take(step.zor, pixels) if computed else pixels
        self.sink.write(step.zor, result if self.marks is None else self.marks.mark(step, result))
        end = time.perf_counter()
        self.seconds.write += end - begin
        self._tell(TimeSpan("write", "write", begin, end), (step,))
        self.progress(step.zor.area)

    def _tell(self, span: TimeSpan, steps: Sequence[Step]) -> None:
        if self.timed is not None:
            self.timed(span, steps)
