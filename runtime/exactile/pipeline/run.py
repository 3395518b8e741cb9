"""Read -> infer -> crop and write, each in a thread of its own, with slots that go round."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.background import Background
from exactile.contract import Contract
from exactile.engines.protocol import Engine
from exactile.engines.strip_engine import StripEngine
from exactile.errors import CancelledError, EngineError, ExactileError
from exactile.geometry import Box
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.channel import Channel
from exactile.pipeline.staging import stage_tile
from exactile.plan.budget import INPUT_SLOTS, OUTPUT_SLOTS
from exactile.plan.strips import StripPlan, StripStep
from exactile.plan.tiles import Step, TilePlan
from exactile.sinks.protocol import Sink
from exactile.sources.protocol import Source

Progress = Callable[[int], None]
"""Called with the number of result pixels just written."""

Array = NDArray[Any]

Lease = Callable[[Callable[[], None]], AbstractContextManager[tuple[Engine, float]]]
"""Waits for the engine, calling what it is given meanwhile; the engine and the seconds that opening it took."""


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
    plan it is within ``infer``. ``total`` holds it, and ``measure``, the time that statistics of the whole image took.
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

    Boxes that ``is_done`` says are in the sink already are not written; tiles for them are not computed either.
    Tiles whose zone of responsibility is all ``background`` are not computed, and ``skipped`` counts them.
    """

    plan: TilePlan | StripPlan
    contract: Contract
    source: Source
    lease: Lease
    sink: Sink
    progress: Progress
    is_done: Callable[[Box], bool] = _nothing_done
    background: Background | None = None
    skipped: Skipped = field(default_factory=Skipped)
    seconds: StageSeconds = field(default_factory=StageSeconds)
    cancellation: Cancellation = field(default_factory=Cancellation)
    read: Callable[[], None] = lambda: None

    def run(self) -> StageSeconds:
        """Run every step. Raises the first failure of any stage; KeyboardInterrupt stops all of them."""
        begin = time.perf_counter()
        slots = min(len(self.plan), INPUT_SLOTS), min(len(self.plan), OUTPUT_SLOTS)
        free_tiles: Channel[Array] = Channel(slots[0], self.cancellation)
        free_results: Channel[Array] = Channel(slots[1], self.cancellation)
        staged: Channel[tuple[Step, Array | None]] = Channel(slots[0], self.cancellation)
        inferred: Channel[tuple[Step, Array | None]] = Channel(slots[1], self.cancellation)
        self._fill(free_tiles, free_results, slots)
        threads = [
            self._thread("read", lambda: self._read(free_tiles, staged)),
            self._thread("infer", lambda: self._infer(staged, free_tiles, free_results, inferred)),
            self._thread("write", lambda: self._write(inferred, free_results)),
        ]
        for thread in threads:
            thread.start()
        self._wait(threads)
        self.seconds.total = time.perf_counter() - begin
        if self.cancellation.cause is not None:
            raise self.cancellation.cause
        return self.seconds

    def _fill(self, free_tiles: Channel[Array], free_results: Channel[Array], slots: tuple[int, int]) -> None:
        image, result = self.contract.image, self.contract.result
        try:
            for _ in range(slots[0]):
                free_tiles.put(np.empty(prod(self.plan.tile_shape) * image.channels, image.dtype))
            for _ in range(slots[1]):
                largest = prod(self.plan.tile_output_shape) * max(1, result.channels)
                free_results.put(np.empty(largest, result.dtype))
        except MemoryError as error:
            raise EngineError("out of memory while making the tile buffers; use a smaller --memory") from error

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

        return threading.Thread(target=guarded, name=f"exactile-{name}", daemon=True)

    def _wait(self, threads: list[threading.Thread]) -> None:
        try:
            for thread in threads:
                thread.join()
        except BaseException as interrupt:
            self.cancellation.cancel(interrupt)
            for thread in threads:
                thread.join()
            raise

    def _input_view(self, step: Step, slot: Array) -> Array:
        """A slot as the step's input, (H, W, C); slots are as large as the largest input."""
        shape = (*step.tile.shape, self.contract.image.channels)
        return slot[: prod(shape)].reshape(shape)

    def _result_view(self, step: Step, slot: Array) -> Array:
        """A slot as the step's output, (H', W') or (C', H', W')."""
        channels = self.contract.result.channels
        shape = (*((channels,) if channels else ()), *self.plan.output_shape(step))
        return slot[: prod(shape)].reshape(shape)

    def _read(self, free: Channel[Array], staged: Channel[tuple[Step, Array | None]]) -> None:
        for step in self.plan:
            if not isinstance(step, StripStep) and self.is_done(step.zor):
                continue
            tile = free.get()
            begin = time.perf_counter()
            stage_tile(self.source, step.tile, self.plan.border, self._input_view(step, tile))
            empty = self._is_background(step, self._input_view(step, tile))
            self.seconds.read += time.perf_counter() - begin
            staged.put((step, None if empty else tile))
            if empty:
                free.put(tile)
        staged.close()
        self.read()

    def _is_background(self, step: Step, pixels: Array) -> bool:
        """Whether nothing but background lies in the image where ``step`` gives the result."""
        if self.background is None or not step.zor.area:
            return False
        box = Box(self.plan.y.domain.image_span(step.zor.y), self.plan.x.domain.image_span(step.zor.x))
        return bool(box.area) and self.background.is_empty(box, pixels[box.slices(step.tile)])

    def _background_of(self, step: Step) -> Array:
        """The result where there is nothing but background: a view of one pixel."""
        assert self.background is not None
        self.skipped.tiles += 1
        self.skipped.pixels += step.zor.area
        return np.broadcast_to(np.array(self.background.label, self.contract.result.dtype), step.zor.shape)

    def _infer(
        self,
        staged: Channel[tuple[Step, Array | None]],
        free_tiles: Channel[Array],
        free_results: Channel[Array],
        inferred: Channel[tuple[Step, Array | None]],
    ) -> None:
        with self.lease(self.cancellation.check) as (engine, opening_s):
            opened_before_s = engine.opening_s if isinstance(engine, StripEngine) else 0.0
            self.cancellation.on_cancel(engine.cancel)
            try:
                self._infer_all(engine, staged, free_tiles, free_results, inferred)
            finally:
                # From here on it may be another run's engine, which a failure of this one does not concern.
                self.cancellation.forget(engine.cancel)
            opened_s = engine.opening_s - opened_before_s if isinstance(engine, StripEngine) else 0.0
            self.seconds.open = opening_s + opened_s
        inferred.close()

    def _infer_all(
        self,
        engine: Engine,
        staged: Channel[tuple[Step, Array | None]],
        free_tiles: Channel[Array],
        free_results: Channel[Array],
        inferred: Channel[tuple[Step, Array | None]],
    ) -> None:
        for step, tile in staged:
            if tile is None:
                inferred.put((step, None))
                continue
            result = free_results.get()
            begin = time.perf_counter()
            place = step.place if isinstance(step, StripStep) else None
            engine.infer(self._input_view(step, tile), self._result_view(step, result), place)
            self.seconds.infer += time.perf_counter() - begin
            free_tiles.put(tile)
            inferred.put((step, result))

    def _write(self, inferred: Channel[tuple[Step, Array | None]], free: Channel[Array]) -> None:
        for step, result in inferred:
            y, x = step.crop.slices()
            begin = time.perf_counter()
            # Strips over rows that only the border needs, or that only warm up the carries, give nothing.
            wanted = step.zor.area > 0 and not self.is_done(step.zor)
            if result is None:
                self.sink.write(step.zor, self._background_of(step))
            elif wanted:
                self.sink.write(step.zor, self._result_view(step, result)[..., y, x])
            self.seconds.write += time.perf_counter() - begin
            if result is not None:
                free.put(result)
            if wanted:
                self.progress(step.zor.area)
