"""Stages in threads: order, back-pressure, first failure, nothing left running."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exactile.contract import BytesForShape, Contract, ImageInput, MemoryModel, ResultOutput
from exactile.errors import CancelledError, EngineError, SinkError, SourceError
from exactile.geometry import AxisGeometry, Box, Geometry, Span
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.channel import Channel
from exactile.pipeline.host_compute import HostCompute
from exactile.pipeline.run import Pipeline
from exactile.pipeline.staging import stage_tile
from exactile.plan.border import BORDERS
from exactile.plan.budget import INPUT_SLOTS, OUTPUT_SLOTS
from exactile.plan.tiles import TilePlan
from exactile.sinks.array import ArraySink
from exactile.sinks.protocol import ResultSpec
from exactile.sources.array import ArraySource

AXIS = AxisGeometry(stride=4, before=3, after=3, scale=Fraction(1))
GEOMETRY = Geometry(y=AXIS, x=AXIS)
CONTRACT = Contract(
    model_name="sum",
    geometry=GEOMETRY,
    image=ImageInput(name="image", dtype="uint8", channels=1),
    result=ResultOutput(name="result", kind="labels", dtype="uint8", channels=0),
    memory=MemoryModel(weights_bytes=0, steps=(BytesForShape(1.0),)),
)


class Copy:
    """An engine whose result is its input; ``gate`` holds it up, ``fail_at`` breaks it."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at, self.runs, self.cancelled = fail_at, 0, False
        self.gate = threading.Event()
        self.gate.set()

    def infer(self, tile, out, place=None) -> None:
        self.gate.wait(10)
        if self.cancelled:
            raise CancelledError("cancelled")
        if self.runs == self.fail_at:
            raise EngineError("engine broke")
        self.runs += 1
        out[...] = tile[..., 0]

    def cancel(self) -> None:
        self.cancelled = True
        self.gate.set()

    def close(self) -> None: ...


class BreakingSource(ArraySource):
    def __init__(self, array, fail_at: int) -> None:
        super().__init__(array)
        self.reads, self.fail_at = 0, fail_at

    def read(self, box, out) -> None:
        self.reads += 1
        if self.reads > self.fail_at:
            raise SourceError("chunk is damaged")
        super().read(box, out)


class BreakingSink(ArraySink):
    writes = 0

    def write(self, box, block) -> None:
        self.writes += 1
        if self.writes == 3:
            raise SinkError("disk is full")
        super().write(box, block)


def pipeline(image, *, source=None, engine=None, sink=None, progress=None) -> Pipeline:
    plan = TilePlan.of(GEOMETRY, image.shape, "model", (16, 16))
    sink = sink or ArraySink()
    sink.begin(ResultSpec(height=image.shape[0], width=image.shape[1], channels=0, dtype="uint8"))
    cancellation = Cancellation()
    lease = lambda _lane, _check: nullcontext((engine or Copy(), 0.0))  # noqa: E731
    return Pipeline(
        plan,
        CONTRACT,
        source or ArraySource(image),
        HostCompute(plan, CONTRACT, lease, cancellation),
        sink,
        progress or (lambda _n: None),
        cancellation,
    )


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)


def test_every_pixel_is_carried_over_and_reported_once():
    image, done = picture(), []
    run = pipeline(image, progress=done.append)
    seconds = run.run()
    run.sink.finish()
    assert np.array_equal(run.sink.result, image)
    assert sum(done) == image.size
    assert seconds.total > 0


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ({"engine": Copy(fail_at=2)}, EngineError),
        ({"sink": BreakingSink()}, SinkError),
        ({"source": BreakingSource(picture(), 5)}, SourceError),
    ],
    ids=["engine", "sink", "source"],
)
def test_the_first_failure_is_raised_and_every_thread_ends(broken, error):
    before = threading.active_count()
    with pytest.raises(error):
        pipeline(picture(), **broken).run()
    assert threading.active_count() == before


def test_a_stuck_engine_holds_up_reading():
    """Back-pressure: no more tiles are read ahead than there are slots."""
    source, engine = BreakingSource(picture(), 1000), Copy()
    engine.gate.clear()
    run = pipeline(picture(), source=source, engine=engine)
    thread = threading.Thread(target=run.run)
    thread.start()
    time.sleep(0.3)
    assert source.reads <= INPUT_SLOTS
    engine.gate.set()
    thread.join(10)
    assert source.reads == len(run.plan) > INPUT_SLOTS + OUTPUT_SLOTS


def test_cancelling_stops_a_running_engine():
    engine = Copy()
    engine.gate.clear()
    run = pipeline(picture(), engine=engine)
    threading.Timer(0.2, lambda: run.cancellation.cancel(KeyboardInterrupt())).start()
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert engine.cancelled


def test_a_channel_is_bounded_and_ends():
    cancellation = Cancellation()
    channel: Channel[int] = Channel(2, cancellation)
    channel.put(1)
    channel.put(2)
    late = threading.Thread(target=lambda: (channel.put(3), channel.close()))
    late.start()
    time.sleep(0.05)
    assert late.is_alive()
    assert list(channel) == [1, 2, 3]
    cancellation.cancel(ValueError("first"))
    cancellation.cancel(ValueError("second"))
    assert str(cancellation.cause) == "first"
    with pytest.raises(CancelledError):
        channel.get()


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(-20, 10),
    st.integers(-20, 10),
    st.integers(1, 25),
    st.integers(1, 25),
    st.sampled_from(BORDERS),
)
@settings(max_examples=300)
def test_a_staged_tile_equals_numpy_pad(height, width, y, x, tile_height, tile_width, border):
    image = np.arange(1, height * width * 2 + 1, dtype=np.uint16).reshape(height, width, 2)
    padded = np.pad(image, [(30, 50), (30, 50), (0, 0)], mode="reflect" if border == "model" else border)
    out = np.full((tile_height, tile_width, 2), 9999, np.uint16)
    box = Box(Span(y, y + tile_height), Span(x, x + tile_width))
    stage_tile(ArraySource(image), box, border, out)
    assert np.array_equal(out, padded[30 + y : 30 + y + tile_height, 30 + x : 30 + x + tile_width])
