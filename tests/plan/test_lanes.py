"""Lanes on a CPU: engines side by side give the same bits as one, stop together, and go on where they stopped."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest

from exactile.engines import lease
from exactile.engines.threads import threads_of_lane
from exactile.errors import BudgetError, CancelledError, EngineError, OptionError, PlanError
from exactile.plan.background import Threshold
from exactile.plan.lanes import LaneChoice, in_lanes, unevenness
from exactile.plan.speed import Speed
from exactile.plan.tiles import TilePlan
from exactile.planning import Planner, Wish
from exactile.processors.protocol import DeviceSpace
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.tiff.sink import TiffSink
from exactile.sources.array import ArraySource
from exactile.trace import Trace
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.runs.test_exactness import image_for
from tests.runs.test_resume import stopped
from tests.support.nets import onnx_bytes
from tests.support.oracle import whole_pass

PLANS = {
    "tiles": {"plan": "tile", "tile": (96, 96)},
    "three bands": {"plan": "strip", "tile": (16, 104)},
    "five bands": {"plan": "strip", "tile": (16, 80)},
}


@cache
def deployed(name: str, output: str = "raw", weights: str | None = None):
    """With integer weights; for labels such that there are several."""
    weights = weights or ("classes" if output == "labels" else "integer")
    network = prepare_network(onnx.load_from_string(onnx_bytes(name, weights=weights)), name="net")
    return deploy(network, image_dtype="uint8", output=output)


def session_of(name: str = "unet_d2", output: str = "raw", **options) -> Session:
    return Session(deployed(name, output), **{"memory_bytes": 8 << 30, "threads": 3, **options})


def run(image: np.ndarray, session: Session, **options):
    sink = ArraySink()
    summary = session.segment(ArraySource(image), sink, **options)
    return sink.result, summary


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(("lanes", "border"), [(2, "model"), (2, "reflect"), (3, "model")])
def test_any_number_of_lanes_gives_the_bits_of_one_and_of_plain_onnx_runtime(plan, lanes, border):
    """At an odd size; integer weights, so that one whole pass of ONNX Runtime agrees bit for bit."""
    image = image_for("unet_d2", 211, 193, largest=7)
    alone, one = run(image, session_of(lanes=1), border=border, **PLANS[plan])
    result, summary = run(image, session_of(lanes=lanes), border=border, **PLANS[plan])
    assert (one.lanes, summary.lanes) == (1, lanes)
    assert summary.tiles == one.tiles > lanes
    assert np.array_equal(result, alone)
    expected = whole_pass(
        onnx_bytes("unet_d2", weights="integer"), image, deployed("unet_d2").contract.geometry, border
    )
    assert np.array_equal(result, expected)


def test_labels_scores_and_pixels_counted_are_those_of_one_lane():
    """Random weights; progress tells of every pixel once."""
    image = image_for("unet_d2", 170, 260)
    for output in ("labels", "probabilities"):
        found = []
        for lanes in (1, 2):
            done: list[int] = []
            model = deployed("unet_d2", output, "random")
            session = Session(model, memory_bytes=8 << 30, threads=2, lanes=lanes)
            found.append(run(image, session, progress=done.append, **PLANS["three bands"])[0])
            assert sum(done) == 170 * 260
        assert np.array_equal(*found)


@pytest.mark.parametrize("plan", ["tiles", "three bands"])
def test_lanes_work_at_the_same_time(plan, monkeypatch):
    """Each inference waits until another one runs beside it."""
    together = threading.Barrier(2, timeout=20)
    original = lease.open_engine

    def meeting(*arguments, **options):
        engine = original(*arguments, **options)
        infer = engine.infer

        def met(*step):
            together.wait()
            return infer(*step)

        engine.infer = met
        return engine

    monkeypatch.setattr(lease, "open_engine", meeting)
    trace = Trace()
    image = image_for("unet_d2", 144, 144)  # an even number of tiles and of bands
    _, summary = run(image, session_of(lanes=2), trace=trace.of("image"), **PLANS[plan])
    assert summary.tiles % 2 == 0
    tracks = {event["args"]["name"] for event in trace.as_object()["traceEvents"] if event["name"] == "thread_name"}
    assert {"cpu 0", "cpu 1"} <= tracks


@pytest.mark.parametrize("plan", ["tiles", "three bands"])
def test_the_first_failure_of_a_lane_stops_all(plan, monkeypatch):
    original = lease.open_engine

    def failing(*arguments, lane, **options):
        engine = original(*arguments, lane=lane, **options)
        if lane == 1:
            engine.infer = lambda *_: (_ for _ in ()).throw(EngineError("lane 1 broke"))
        return engine

    monkeypatch.setattr(lease, "open_engine", failing)
    before = threading.active_count()
    session = session_of(lanes=2, keep_engine=True)
    with pytest.raises(EngineError, match="lane 1 broke"):
        run(image_for("unet_d2", 900, 193), session, **PLANS[plan])
    assert threading.active_count() == before
    monkeypatch.undo()
    image = image_for("unet_d2", 211, 193)  # with engines that were opened anew
    result, _ = run(image, session, **PLANS[plan])
    assert np.array_equal(result, run(image, session_of(lanes=1), **PLANS[plan])[0])
    session.close()


def test_cancelling_stops_all_lanes():
    session, sink = session_of(lanes=2), ArraySink()
    one = session.image_run(ArraySource(image_for("unet_d2", 3000, 193)), sink, Wish(plan="strip", tile=(16, 104)))
    one.watcher = type(one.watcher)(
        progress=lambda pixels: one.cancellation.cancel(CancelledError("enough")) if pixels else None
    )
    with pytest.raises(CancelledError):
        one.run()
    assert all(not thread.name.startswith("exactile-") for thread in threading.enumerate())


@pytest.mark.parametrize("plan", ["tiles", "three bands"])
def test_a_stopped_run_goes_on_in_its_lanes_to_the_same_bytes(tmp_path, plan):
    image, session = image_for("unet_d2", 230, 193), session_of(output="labels", lanes=2)
    session.segment(ArraySource(image), TiffSink(tmp_path / "whole.tif", tile=32), **PLANS[plan])
    for writes in (1, 9):
        stopped(session, image, tmp_path / "a.tif", writes, **PLANS[plan])
        sink = TiffSink(tmp_path / "a.tif", tile=32, resumable=True)
        summary = session_of(output="labels").segment(ArraySource(image), sink, resume=True, **PLANS[plan])
        assert summary.lanes == 2
        assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
        (tmp_path / "a.tif").unlink()
    stopped(session, image, tmp_path / "a.tif", 9, **PLANS[plan])
    sink = TiffSink(tmp_path / "a.tif", tile=32, resumable=True)
    slow = session_of(output="labels", threads=1)  # which has no thread for a second lane
    assert slow.segment(ArraySource(image), sink, resume=True, **PLANS[plan]).lanes == 1
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_background_is_skipped_in_lanes():
    image = image_for("unet_d2", 400, 300, largest=100)
    image[60:340, 30:290] = 255
    found = []
    for lanes in (1, 3):
        background = Threshold(value=250, beyond="above")
        found.append(run(image, session_of(output="labels", lanes=lanes), tile=(64, 64), background=background))
    assert found[0][1].skipped_tiles == found[1][1].skipped_tiles > 0
    assert np.array_equal(found[0][0], found[1][0])


def test_kept_engines_serve_runs_that_come_at_once():
    """Two runs of one session, each in two lanes, do not wait for each other's lanes."""
    session, images = session_of(lanes=2, keep_engine=True), [image_for("unet_d2", 211, 193), None]
    images[1] = 255 - images[0]
    found: list = [None, None]

    def work(index: int) -> None:
        found[index] = run(images[index], session, **PLANS["three bands"])[0]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for image, result in zip(images, found, strict=True):
        assert np.array_equal(result, run(image, session_of(lanes=1), **PLANS["three bands"])[0])
    session.close()


def test_lanes_that_cannot_be_are_refused_with_a_way_out():
    image, small = image_for("unet_d2", 211, 193), image_for("unet_d2", 40, 40)
    with pytest.raises(OptionError, match="raise --threads"):
        run(image, session_of(lanes=4), **PLANS["tiles"])
    with pytest.raises(PlanError, match="fewer --lanes"):
        run(small, session_of(lanes=2), plan="whole")
    with pytest.raises(PlanError, match="fewer --lanes"):
        run(small, session_of(lanes=2))
    with pytest.raises(PlanError, match="fewer --lanes"):
        run(image, session_of(lanes=3), plan="strip", tile=(16, 128))
    with pytest.raises(OptionError, match="at least one lane"):
        session_of(lanes=0)


def test_every_lane_counts_in_the_memory_that_is_predicted():
    """Weights and activations of each engine; a plan in lanes that does not fit is not taken."""
    image, sink = ArraySource(image_for("unet_d2", 600, 600)), ArraySink()
    needs = {}
    for lanes in (1, 2):
        session = session_of(lanes=lanes)
        needs[lanes] = session.memory_need(session.plan(image, sink, tile=(64, 64)).plan, image, sink)
    assert needs[2].activation_bytes == 2 * needs[1].activation_bytes
    assert needs[2].weights_bytes == 2 * needs[1].weights_bytes
    least = needs[1].needed_bytes + needs[1].cache_bytes + needs[1].activation_bytes // 2
    with pytest.raises(BudgetError):
        session_of(lanes=2, memory_bytes=least).plan(image, sink, tile=(64, 64))
    assert session_of(memory_bytes=least).plan(image, sink, tile=(64, 64)).plan.lanes == 1


def test_lanes_pay_by_what_threads_wait_and_cost_where_they_are_uneven():
    geometry = deployed("unet_d2").contract.geometry
    plan = TilePlan.of(geometry, (600, 600), "model", (64, 64))
    assert unevenness(plan) == 1
    speed = Speed(threads=16)
    assert speed.of("tile", 16, 0) < speed.of("tile", 4, 0) < speed.of("tile", 1, 0) == 1
    three = TilePlan.of(geometry, (64, 96), "model", (64, 64))
    assert len(three) == 3
    assert unevenness(in_lanes(three, 2)) == 4 / 3  # one lane has two tiles, the other one
    assert LaneChoice.up_to(6).counts == (1, 2, 4, 6)
    assert LaneChoice.up_to(1).counts == (1,)
    assert [threads_of_lane(7, lanes) for lanes in (1, 2, 3, 8)] == [7, 3, 2, 1]


def test_networks_and_devices_of_one_lane_refuse_others():
    model, size = deployed("unet_d2"), {"budget_bytes": 1 << 40, "process_bytes": 0, "threads": 4}
    space = DeviceSpace(devices=1, slots=4, memory_bytes=1 << 40, engines=None)
    blocked = replace(model, contract=replace(model.contract, obstacles=("a: Softmax over all positions",)))
    for planner, why in (
        (Planner(model, space=space, **size), "a GPU"),
        (Planner(blocked, **size), "one pass"),
        (Planner(replace(model, levels=("a pass over the image",)), **size), "statistics of the whole image"),
    ):
        assert planner.lane_choice(Wish()).counts == planner.lane_choice(Wish(lanes=1)).counts == (1,)
        with pytest.raises(OptionError, match=why):
            planner.lane_choice(Wish(lanes=2))
