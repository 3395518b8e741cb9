"""The strip plan: strips and bands partition the result; and the choice between plans."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from exactile.contract import BytesForShape, Carry, DeployedModel, MemoryModel, StripGraph, StripModel
from exactile.errors import BudgetError, EngineError, OptionError, PlanError
from exactile.geometry import AxisGeometry, Span
from exactile.plan.border import BORDERS
from exactile.plan.choice import PlanSearch
from exactile.plan.prediction import predicted_passes
from exactile.plan.strips import AxisStrips, StripPlace, StripPlan, least_rows
from exactile.plan.tiles import AxisDomain, TilePlan
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.plan.test_budget import contract, need_of
from tests.support.nets import NETS, onnx_bytes

MEMORY = MemoryModel(weights_bytes=1000, steps=(BytesForShape(40.0),))
CARRY = Carry(
    name="c", of="map", dtype="float32", shape=(1, 8, 10, None), width_scale=Fraction(1, 2), width_constant=Fraction(3)
)


def strip_model(
    *, startup: int = 24, last: int = 4, lag: int = 22, copied: float = 0.05, again: float = 2.0
) -> StripModel:
    return StripModel(
        startup_rows=startup,
        least_last_rows=last,
        lag=lag,
        carries=(CARRY,),
        graphs={role: StripGraph(graph=b"", memory=MEMORY) for role in ("first", "body", "last")},
        weights={},
        copied_passes=copied,
        recomputed_rows=again,
    )


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(1, 8), st.sampled_from(BORDERS), st.integers(0, 30), st.integers(1, 3))
def test_strips_take_every_row_once_and_give_every_row_once(height, strides, border, halo, last):
    geometry = AxisGeometry(stride=4, before=halo, after=halo)
    strips = strip_model(startup=-(-(halo + 1) // 4) * 4, last=4 * last, lag=halo)
    domain = AxisDomain.of(geometry, height, border)
    assume(domain.size >= least_rows(strips))
    axis = AxisStrips.of(domain, strips, 4 * strides)
    assert sum(axis.heights) == domain.size
    assert axis.starts == tuple(np.cumsum([0, *axis.heights[:-1]]))
    assert all(rows % 4 == 0 for rows in axis.heights[:-1])
    assert axis.heights[0] >= strips.startup_rows
    assert axis.heights[-1] >= strips.least_last_rows
    assert axis.roles == ("first", *["body"] * (len(axis.heights) - 2), "last")
    assert sum(axis.outputs) == domain.size
    assert all(rows > 0 for rows in axis.outputs)
    given_rows = [row for zor in axis.zors for row in range(zor.start, zor.stop)]
    assert given_rows == list(range(domain.result_size))
    for crop, zor, output in zip(axis.crops, axis.zors, axis.outputs, strict=True):
        assert zor.length == 0 or 0 <= crop <= crop + zor.length <= output


def test_an_image_too_low_and_strips_that_do_not_fit_the_stride_are_refused():
    geometry = AxisGeometry(stride=4, before=22, after=22)
    with pytest.raises(PlanError, match="24 rows are too few for strips, which need 28"):
        AxisStrips.of(AxisDomain.of(geometry, 24, "model"), strip_model(), 8)
    with pytest.raises(PlanError, match="10 rows does not fit the stride of 4; try 12"):
        AxisStrips.of(AxisDomain.of(geometry, 100, "model"), strip_model(), 10)


def test_carries_have_the_columns_of_their_map():
    assert CARRY.shape_at(100) == (1, 8, 10, 53)
    assert CARRY.bytes_at(100) == 8 * 10 * 53 * 4


def model_with(strips: StripModel | None) -> DeployedModel:
    return DeployedModel(
        contract=contract(4, 22), graph=b"", strips=strips, no_strips_reason="" if strips else "why not"
    )


def search(strips: StripModel | None, image: tuple[int, int], budget: int) -> PlanSearch:
    net = contract(4, 22)
    return PlanSearch(
        model=model_with(strips),
        image=image,
        border="model",
        budget_bytes=budget,
        measure=lambda plan: need_of(net, plan),
    )


def chosen(strips: StripModel | None, image: tuple[int, int], budget: int):
    return search(strips, image, budget).best()


def test_auto_takes_the_plan_that_is_predicted_to_be_fastest():
    """All at once where it fits; else strips, unless carrying costs more than halos."""
    assert chosen(strip_model(), (400, 400), 1 << 30).plan.name == "whole"
    small = 3 << 20
    assert chosen(strip_model(), (4000, 400), small).plan.name == "strip"
    costly = chosen(strip_model(copied=5.0), (4000, 400), small)
    assert costly.plan.name == "tile"
    assert "strip" in costly.reason
    none = chosen(None, (4000, 400), small)
    assert none.plan.name == "tile"
    assert "why not" in none.reason


def test_bands_are_as_few_as_fit():
    plans = [search(strip_model(), (4000, 4000), budget).strips() for budget in (1 << 30, 8 << 20, 2 << 20)]
    bands = [plan.bands for plan in plans]
    assert bands == sorted(bands)
    assert bands[0] == 1
    assert bands[-1] > 1
    with pytest.raises(BudgetError, match="--plan tile"):
        search(strip_model(), (4000, 4000), 1).strips()


def test_the_highest_strips_are_found_in_linear_time():
    """Each of 4,000 heights is read once or twice, whatever the number of roles."""

    class Counted(tuple):
        __slots__ = ()
        looked = 0

        def __iter__(self):
            for one in super().__iter__():
                Counted.looked += 1
                yield one

    image = (64_000, 400)
    plan = StripPlan.of(contract(4, 22).geometry, strip_model(), image, "model", rows=16, band=400)
    axis = replace(plan.y, heights=Counted(plan.y.heights))
    assert axis.highest == dict(zip(plan.y.roles, plan.y.heights, strict=True))  # bodies are equally high
    assert len(plan.y.heights) > 3_900
    assert Counted.looked <= 2 * len(plan.y.heights)
    assert plan.y.starts == tuple(np.cumsum((0, *plan.y.heights[:-1])).tolist())


def test_the_prediction_grows_with_what_is_computed_again():
    net, image = contract(4, 22), (4000, 400)
    plans = [StripPlan.of(net.geometry, strip_model(), image, "model", rows=rows, band=400) for rows in (8, 128)]
    assert predicted_passes(plans[0]) > predicted_passes(plans[1]) > 1.05
    assert predicted_passes(TilePlan.of(net.geometry, image, "model", (4000, 400))) == 1


@cache
def deployed(name: str, output: str = "raw") -> DeployedModel:
    network = prepare_network(onnx.load_from_string(onnx_bytes(name)), name=name)
    return deploy(network, image_dtype="uint8", output=output)


def run(name: str, image: np.ndarray, **options):
    sink = ArraySink()
    summary = Session(deployed(name), memory_bytes=8 << 30).segment(ArraySource(image), sink, **options)
    return sink.result, summary


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("name", ["unet_d2", "unet_transpose3_d2", "valid", "super_resolution", "low_resolution"])
def test_strips_in_bands_equal_the_whole_pass(name, border):
    geometry = deployed(name).contract.geometry.x
    image = np.random.default_rng(3).integers(0, 256, (109, 91, NETS[name].channels), dtype=np.uint8)
    band = geometry.accepted_size(geometry.margin_before + geometry.margin_after + 3 * geometry.stride)
    raw, summary = run(name, image, plan="strip", tile=(8, band), border=border)
    assert summary.bands > 1
    assert np.array_equal(raw, run(name, image, plan="whole", border=border)[0])


@pytest.mark.parametrize("height", [1, 3, 20, 27, 28, 29, 31, 32, 33, 40, 64])
def test_every_height_around_the_start_up(height):
    """unet_d2 starts up with 24 rows or more, and keeps 4 for the last strip."""
    image = np.random.default_rng(height).integers(0, 256, (height, 60, 3), dtype=np.uint8)
    raw, summary = run("unet_d2", image, plan="strip", tile=(4, 60))
    assert np.array_equal(raw, run("unet_d2", image, plan="whole")[0])
    assert summary.plan == ("strip" if summary.tiles > 1 else "whole")


@pytest.mark.parametrize("name", ["unet_d4", "unet_bilinear_d4", "segnet", "resnet_unet", "fc_densenet56", "dilated"])
def test_the_networks_of_the_field_in_strips(name):
    """Random weights, raw outputs; against one pass of the same engine."""
    stride = NETS[name].stride
    lowest = least_rows(deployed(name).strips)
    image = np.random.default_rng(5).integers(
        0, 256, (lowest + 2 * stride + 1, 3 * stride + 5, NETS[name].channels), dtype=np.uint8
    )
    raw, summary = run(name, image, plan="strip", tile=(stride, 10 * stride + 200))
    assert summary.tiles >= 3
    whole = run(name, image, plan="whole")[0]
    assert np.array_equal(raw, whole)


def test_a_network_without_strips_says_why_and_what_to_do():
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="net")
    session = Session(deploy(network, image_dtype="uint8", strips=False))
    with pytest.raises(PlanError, match=r"deployed without strips; use --plan tile"):
        session.segment(ArraySource(np.zeros((99, 99, 3), np.uint8)), ArraySink(), plan="strip")


def test_engines_refuse_what_they_were_not_opened_for():
    from exactile.engines.strip_engine import StripEngine

    model = deployed("unet_d2")
    engine = StripEngine(model.strips, model.contract, band_width=64, bands=range(1))
    with pytest.raises(EngineError, match="tile"):
        engine.infer(np.zeros((24, 64, 3), np.uint8), np.zeros((3, 2, 64), np.float32))
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(np.zeros((24, 64, 3), np.uint8), np.zeros((3, 2, 64), np.float32), StripPlace("first", 0))


def test_an_unknown_plan_is_refused():
    with pytest.raises(OptionError, match="strip"):
        run("unet_d2", np.zeros((99, 99, 3), np.uint8), plan="stripes")


def test_bands_begin_and_end_with_the_image():
    plan = StripPlan.of(contract(4, 22).geometry, strip_model(), (200, 301), "model", rows=8, band=128)
    spans = plan.x.tile_spans
    assert spans[0].start == 0
    assert spans[-1].stop == 304
    assert {span.start % 4 for span in spans} == {0}
    assert plan.x.zors[0].start == 0
    assert [one.stop for one in plan.x.zors[:-1]] == [other.start for other in plan.x.zors[1:]]
    assert plan.x.zors[-1] == Span(plan.x.zors[-1].start, 301)
