"""Tiles along one axis: a partition, aligned, sufficient and without redundancy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exactile.errors import PlanError
from exactile.geometry import AxisGeometry, Geometry, Span
from exactile.plan.border import BORDERS, OUTSIDE, image_indices, needed_span
from exactile.plan.tiles import AxisDomain, AxisTiles, TilePlan

UNET = AxisGeometry(stride=16, before=94, after=94)


@st.composite
def geometries(draw):
    stride = draw(st.sampled_from([1, 2, 3, 4, 8, 12, 16]))
    scale = draw(st.sampled_from([Fraction(1), Fraction(2), Fraction(1, stride), Fraction(3)]))
    lost = draw(st.integers(0, 9)) if scale == 1 else 0
    before = draw(st.integers(0, 40))
    after = draw(st.integers(0, 40)) + lost
    remainder = draw(st.integers(0, stride - 1)) if scale.denominator == 1 else 0
    return AxisGeometry(
        stride=stride, before=before, after=after, scale=scale, size_constant=Fraction(-lost), remainder=remainder
    )


@st.composite
def plans(draw):
    geometry = draw(geometries())
    border = draw(st.sampled_from(BORDERS))
    domain = AxisDomain.of(geometry, draw(st.integers(10, 700)), border)
    steps = draw(st.integers(0, 40))
    tile = geometry.accepted_size(domain.smallest_tile + steps * geometry.stride)
    return AxisTiles.of(domain, tile), border


@given(plans())
@settings(max_examples=400)
def test_zones_partition_the_result(case):
    tiles, _ = case
    covered = [pixel for zor in tiles.zors for pixel in range(zor.start, zor.stop)]
    assert covered == list(range(tiles.domain.result_size))
    assert all(zor.length > 0 for zor in tiles.zors)


@given(plans())
@settings(max_examples=400)
def test_every_tile_holds_all_that_its_zone_depends_on(case):
    """Pixel by pixel: a zone's pixel lies in an aligned box whose needs the tile holds, up to the domain's edge."""
    tiles, _ = case
    domain, geometry = tiles.domain, tiles.domain.geometry
    for start, zor, crop in zip(tiles.starts, tiles.zors, tiles.crops, strict=True):
        assert start % geometry.stride == 0
        assert start >= 0
        assert start + tiles.tile <= domain.size
        assert crop >= 0
        assert crop + zor.length <= geometry.output_size(tiles.tile)
        per_stride = int(geometry.stride * geometry.scale)
        for pixel in (zor.start, zor.stop - 1):
            index = pixel + domain.result_start
            assert index - geometry.output_position(start) == crop + pixel - zor.start
            aligned = index // per_stride * geometry.stride
            first = max(0, aligned - geometry.before)
            assert first >= start or start == 0
            at_the_end = start + tiles.tile == domain.size
            assert aligned + geometry.stride + geometry.after <= start + tiles.tile or at_the_end


@given(plans())
@settings(max_examples=300)
def test_no_tile_could_be_left_out(case):
    """As many tiles as it takes when each advances as far as its halo allows."""
    tiles, border = case
    domain = tiles.domain
    if border != "model" or tiles.tile == domain.size:
        return
    wanted = 1 + -(-(domain.size - tiles.tile) // domain.advance(tiles.tile))
    assert len(tiles.starts) <= wanted


@given(st.integers(1, 30), st.integers(-90, 60), st.integers(1, 90), st.sampled_from(["reflect", "edge", "constant"]))
def test_border_indices_equal_numpy_pad(size, start, length, border):
    image = np.arange(1, size + 1)
    padded = np.pad(image, (100, 200), mode=border)
    span = Span(start, start + length)
    indices = image_indices(span, size, border)
    values = np.where(indices == OUTSIDE, 0, image[indices])
    assert np.array_equal(values, padded[100 + start : 100 + start + length])
    needed = needed_span(span, size, border)
    inside = indices[indices != OUTSIDE]
    assert all(needed.start <= index < needed.stop for index in inside)


def test_the_papers_image_takes_121_tiles():
    """Image 3584, tile 512, halo 96: the reference code computes 144 tiles, 121 do."""
    plan = TilePlan.of(Geometry(y=UNET, x=UNET), (3584, 3584), "model", (512, 512))
    assert len(plan) == 121
    assert plan.computed_pixels == 121 * 512 * 512


def test_an_image_that_fits_the_tile_is_one_whole_pass():
    plan = TilePlan.of(Geometry(y=UNET, x=UNET), (400, 512), "model", (512, 512))
    assert (plan.name, len(plan), plan.tile_shape) == ("whole", 1, (400, 512))


def test_rectangular_tiles_and_padding_to_the_stride():
    plan = TilePlan.of(Geometry(y=UNET, x=UNET), (1001, 777), "model", (320, 512))
    assert plan.tile_shape == (320, 512)
    assert (plan.y.domain.size, plan.x.domain.size) == (1008, 784)
    assert plan.result_shape == (1001, 777)


def test_a_tile_that_is_no_multiple_of_the_stride_is_refused_with_the_next_one():
    with pytest.raises(PlanError, match="try 512"):
        TilePlan.of(Geometry(y=UNET, x=UNET), (2000, 2000), "model", (500, 512))


def test_a_tile_smaller_than_the_halo_is_refused_with_the_least_one():
    """192 pixels are all halo: 96 before the zone and 94, rounded up by alignment, after it."""
    with pytest.raises(PlanError, match="at least 208"):
        TilePlan.of(Geometry(y=UNET, x=UNET), (2000, 2000), "model", (192, 512))
    assert len(TilePlan.of(Geometry(y=UNET, x=UNET), (2000, 400), "model", (208, 512))) > 1


def test_more_border_than_image_is_planned():
    plan = TilePlan.of(Geometry(y=UNET, x=UNET), (10, 1), "reflect", (4096, 4096))
    assert plan.result_shape == (10, 1)
