"""Which plan is taken where memory allows several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from exactile.contract import DeployedModel
from exactile.plan.choice import PlanSearch
from exactile.plan.prediction import Predicted, frugal
from exactile.plan.speed import slowed
from exactile.planning import Planner, Wish
from exactile.sinks.nothing import NoSink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.nets import onnx_bytes

AMPLE = 1 << 40


@pytest.fixture(scope="module")
def model() -> DeployedModel:
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d4")), name="net")
    return deploy(network, image_dtype="uint8")


def image_of(model: DeployedModel, px: int) -> ArraySource:
    """No pixels are there: it is planned for, and not read."""
    return ArraySource(np.broadcast_to(np.uint8(0), (px, px, model.contract.image.channels)))


def chosen(model: DeployedModel, px: int, budget_bytes: int = AMPLE):
    planner, source = Planner(model, budget_bytes=budget_bytes, process_bytes=0), image_of(model, px)
    plan = planner.choose(source, NoSink(), Wish()).plan
    return plan, planner.memory_need(plan, source, NoSink())


def test_a_small_image_is_one_pass(model):
    plan, _ = chosen(model, 256)
    assert plan.name == "whole"


@pytest.mark.parametrize("px", [8192, 20_000])
def test_ample_memory_is_not_taken_where_less_is_as_fast(model, px):
    """One pass over a large image has maps that no cache holds, and takes many times the memory."""
    plan, need = chosen(model, px)
    assert plan.name != "whole"
    whole = model.contract.memory.activation_bytes(px, px)
    assert need.activation_bytes < whole / 4


def test_a_large_image_is_not_one_tile_where_there_are_no_strips(model):
    alone = replace(model, strips=None, no_strips_reason="none were made", other_strips={})
    plan, need = chosen(alone, 8192)
    assert plan.name == "tile"
    assert need.activation_bytes < model.contract.memory.activation_bytes(8192, 8192) / 4
    assert plan.computed_pixels / plan.wanted_pixels < 1.4


def test_of_plans_that_take_the_same_time_one_that_is_much_smaller_is_taken(model):
    plan, _ = chosen(model, 256)
    large, smaller, small, slow = (
        Predicted(plan=plan, time=time, needed_bytes=needed)
        for time, needed in ((1.0, 400), (1.02, 300), (1.02, 100), (1.2, 10))
    )
    assert frugal([large, smaller, small, slow]) is small
    assert frugal([large, smaller, slow]) is large


def test_large_maps_cost_more():
    found = slowed(np.array([0, 1 << 20, 512 << 20, 1 << 30, 8 << 30]))
    assert (found[:3] == 1).all()
    assert (np.diff(found[2:]) > 0).all()


def test_images_of_one_size_are_planned_once_unless_they_take_other_memory(model, monkeypatch):
    looked, original = [], PlanSearch.best
    monkeypatch.setattr(PlanSearch, "best", lambda search: looked.append(1) or original(search))
    planner, sinks = Planner(model, budget_bytes=AMPLE, process_bytes=0), [NoSink(), NoSink(), NoSink()]
    sinks[1].buffer_bytes = lambda _spec, _write: AMPLE // 128
    sinks[2].buffer_bytes = lambda _spec, _write: AMPLE // 32
    plans = [planner.choose(image_of(model, 256), sink, Wish()).plan for sink in sinks]
    assert plans[0] is plans[1]
    assert len(looked) == 2
    planner.choose(image_of(model, 272), sinks[2], Wish())
    planner.choose(image_of(model, 272), sinks[2], Wish(border="reflect"))
    assert len(looked) == 4


def test_more_lanes_only_where_they_gain(model):
    """More than what is not told apart, and with the halo of the bands counted."""
    source = image_of(model, 16_384)
    plans = {
        threads: Planner(model, budget_bytes=AMPLE, process_bytes=0, threads=threads)
        .choose(source, NoSink(), Wish(plan="strip"))
        .plan
        for threads in (1, 2, 16)
    }
    assert plans[1].lanes == 1
    assert plans[16].lanes > 1
    assert plans[16].bands % plans[16].lanes == 0
    small = Planner(model, budget_bytes=AMPLE, process_bytes=0, threads=2).choose(
        image_of(model, 512), NoSink(), Wish()
    )
    assert small.plan.lanes == 1
