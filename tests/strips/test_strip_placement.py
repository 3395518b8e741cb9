"""Where rows are carried: the search against every subset, and its bookkeeping against a count from scratch."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import onnx
import pytest

from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.strips.candidates import candidates
from exactile_converters.strips.cost import StripCosts
from exactile_converters.strips.placement import Carrying, place
from exactile_converters.strips.source import StripSource
from tests.support.nets import onnx_bytes

MOST_TO_TRY = 12

SMALL = ["unet_d1", "unet_bilinear_d1", "dilated", "asymmetric", "valid", "super_resolution"]


def source_of(name: str) -> StripSource:
    network = prepare_network(onnx.load_from_string(onnx_bytes(name)), name=name)
    traced = network.trace()
    return StripSource.of(
        model=network.model,
        walk=traced.walk,
        nodes=traced.nodes,
        sizes=traced.sizes,
        remainder=traced.geometry.y.remainder,
        image=network.image,
        result=network.result,
    )


@pytest.mark.parametrize("rows", [1, 16, 128, 1024])
@pytest.mark.parametrize("name", SMALL)
def test_no_other_set_of_maps_is_cheaper(name, rows):
    source = source_of(name)
    names, costs = candidates(source.frontiers), StripCosts(source)
    assert len(names) >= 2
    assert len(names) <= MOST_TO_TRY
    subsets = chain.from_iterable(combinations(names, count) for count in range(len(names) + 1))
    cheapest = min(costs.strip(frozenset(subset), rows) for subset in subsets)
    assert costs.strip(place(source, strip_rows=rows), rows) == pytest.approx(cheapest, rel=1e-9)


@pytest.mark.parametrize("name", ["unet_d4", "fc_densenet56", "segnet", "resnet_unet_bilinear", "valid"])
def test_a_cost_kept_up_to_date_is_the_cost_counted_from_scratch(name):
    source, generator = source_of(name), np.random.default_rng(0)
    names, costs = candidates(source.frontiers), StripCosts(source)
    carrying = Carrying(source, costs, 64)
    for _ in range(40):
        carrying.switch(list(generator.choice(names, size=min(3, len(names)), replace=False)))
        assert carrying.cost == pytest.approx(costs.strip(carrying.carry, 64), rel=1e-9)


@pytest.mark.parametrize("name", ["unet_d4", "fc_densenet56", "segnet", "resnet_unet"])
def test_the_chosen_maps_cost_less_than_all_and_none(name):
    source = source_of(name)
    costs = StripCosts(source)
    chosen, every = (costs.strip(carry, 128) for carry in (place(source, strip_rows=128), candidates(source.frontiers)))
    assert chosen < every
    assert chosen < costs.strip(frozenset(), 128)


def test_what_a_strip_costs_beyond_a_pass_splits_in_a_part_that_grows_and_one_that_does_not():
    source = source_of("unet_d3")
    costs, carry = StripCosts(source), place(source, strip_rows=64)
    growing, fixed = costs.parts(carry, 64)
    assert growing > 0
    assert fixed > 0
    for rows in (64, 128, 512):
        assert costs.strip(carry, rows) == pytest.approx(costs.whole(rows) + growing * rows + fixed, rel=1e-9)


def test_long_strips_recompute_and_short_ones_carry():
    """Rows computed once more are few beside a long strip, copies are as many as its rows."""
    source = source_of("unet_d2")
    assert len(place(source, strip_rows=2048)) <= len(place(source, strip_rows=8))
