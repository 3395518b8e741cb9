"""The plan with the fewest computed pixels that fits the budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exactile.contract import BytesForShape, Contract, DeployedModel, ImageInput, MemoryModel, ResultOutput
from exactile.errors import BudgetError
from exactile.geometry import AxisGeometry, Geometry
from exactile.plan.budget import MemoryNeed, choose_tiles, format_bytes, slot_bytes
from exactile.plan.tiles import TilePlan


def contract(stride: int, halo: int) -> Contract:
    axis = AxisGeometry(stride=stride, before=halo, after=halo)
    return Contract(
        model_name="net",
        geometry=Geometry(y=axis, x=axis),
        image=ImageInput(name="image", dtype="uint8", channels=3),
        result=ResultOutput(name="result", kind="labels", dtype="uint8", channels=0),
        memory=MemoryModel(weights_bytes=1000, steps=(BytesForShape(40.0), BytesForShape(10.0, row=900.0))),
    )


def model_of(net: Contract) -> DeployedModel:
    return DeployedModel(contract=net, graph=b"")


def need_of(net: Contract, plan: TilePlan) -> MemoryNeed:
    return MemoryNeed(
        process_bytes=5000,
        weights_bytes=net.memory.weights_bytes,
        activation_bytes=net.memory.activation_bytes(*plan.tile_shape),
        buffer_bytes=slot_bytes(net, plan),
        sink_bytes=plan.result_shape[1] * 4,
        cache_bytes=plan.tile_shape[0] * 8,
    )


def cost(plan: TilePlan) -> int:
    """Pixels computed, and 64 x 64 for each tile."""
    return plan.computed_pixels + 4096 * len(plan)


def brute_force(net: Contract, image: tuple[int, int], budget: int) -> int | None:
    """The least cost; tries every tile shape."""
    stride = net.geometry.y.stride
    best = None
    for height in range(stride, net.geometry.y.accepted_size(image[0]) + 1, stride):
        for width in range(stride, net.geometry.x.accepted_size(image[1]) + 1, stride):
            try:
                plan = TilePlan.of(net.geometry, image, "model", (height, width))
            except Exception:  # noqa: BLE001 - too small for the halo
                continue
            if need_of(net, plan).fits(budget) and (best is None or cost(plan) < best):
                best = cost(plan)
    return best


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([2, 4, 8]),
    st.integers(0, 12),
    st.tuples(st.integers(8, 90), st.integers(8, 90)),
    st.integers(10_000, 400_000),
)
def test_no_other_tile_within_the_budget_costs_less(stride, halo, image, budget):
    """Up to the hundredth for which a smaller tile is taken."""
    net = contract(stride, halo)
    best = brute_force(net, image, budget)
    if best is None:
        with pytest.raises(BudgetError, match="--memory"):
            choose_tiles(model_of(net), image, "model", budget_bytes=budget, measure=lambda plan: need_of(net, plan))
        return
    plan = choose_tiles(model_of(net), image, "model", budget_bytes=budget, measure=lambda plan: need_of(net, plan))
    assert best <= cost(plan) <= best * 1.01 * 1.0001
    assert need_of(net, plan).fits(budget)


@pytest.mark.parametrize(("image", "most"), [((48, 48), 1), ((96, 96), 1), ((1000, 1000), 8), ((20_000, 20_000), 2000)])
def test_a_network_without_halo_gets_few_tiles(image, most):
    """Tiles of one pixel compute no pixel twice, and take minutes."""
    net = contract(1, 0)
    plan = choose_tiles(model_of(net), image, "model", budget_bytes=1 << 40, measure=lambda plan: need_of(net, plan))
    assert len(plan) <= most


def test_a_large_image_is_planned_quickly_enough_to_be_interactive():
    """100000 x 100000 pixels at stride 4: candidates are few, one for each number of tiles."""
    net = contract(4, 22)
    plan = choose_tiles(
        model_of(net), (100_000, 100_000), "model", budget_bytes=2 << 30, measure=lambda plan: need_of(net, plan)
    )
    assert plan.computed_pixels / plan.wanted_pixels < 1.05


def test_amounts_are_written_for_people():
    assert [format_bytes(n) for n in (17, 2048, 3 << 20, 1610612736)] == ["17 B", "2.0 KiB", "3.0 MiB", "1.50 GiB"]
