"""Blocks of one image, each run by itself into one Zarr: the files of one run over the whole, byte for byte."""

from __future__ import annotations

import shutil
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import zarr

from exactile.errors import OptionError, ResumeError, SinkError
from exactile.geometry import Box, Span
from exactile.plan.part import fitted, part_of
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan
from exactile.planning import Wish
from exactile.session import Session
from exactile.sinks.protocol import ResultSpec
from exactile.sinks.zarr.blocks import BlockSink, SharedZarrSink, make_chunks
from exactile.sinks.zarr.sink import ZarrSink
from exactile.sources.array import ArraySource
from tests.plan.test_lanes import deployed
from tests.runs.test_exactness import image_for
from tests.support.nets import NETS

CASES = [
    *[("unet_d2", "raw", (201, 163), plan, border) for plan in ("tile", "strip") for border in ("model", "reflect")],
    ("unet_d1", "labels", (1, 777), "tile", "model"),
    ("unet_d1", "labels", (640, 64), "strip", "model"),
    ("asymmetric", "raw", (200, 190), "tile", "model"),
    ("valid", "labels", (300, 290), "tile", "model"),
    ("super_resolution", "labels", (150, 131), "strip", "model"),
    ("low_resolution", "raw", (900, 760), "tile", "model"),
]


model_of = cache(deployed)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_blocks(session: Session, source: ArraySource, sink: SharedZarrSink, wish: Wish, *, order: int = 1) -> None:
    plan = session.plan(source, sink, plan=wish.plan, tile=wish.tile, border=wish.border).plan
    if isinstance(plan, StripPlan):
        sink.span_columns()
    sink.begin(session.result_spec(plan, source))
    target = sink.target
    for number in range(target.count)[::order]:
        box = target.box(number)
        part = partial(_part, edge=target.edge, box=box)
        session.image_run(source, BlockSink(target, box), wish, part=part).run()
        sink.adopt(box)
    for level in range(target.box_levels + 1, target.levels):
        chunks = target.grids[level].count
        for first in range(0, chunks, 3):
            make_chunks(target, level, range(first, min(first + 3, chunks)))
    sink.finish()


def _part(plan, *, edge: int, box: Box):
    return part_of(fitted(plan, edge) if isinstance(plan, TilePlan) else plan, box)


@pytest.mark.parametrize(("name", "output", "size", "plan", "border"), CASES)
@pytest.mark.parametrize("edge", [32, 128])
def test_blocks_make_the_files_of_one_run(tmp_path, name, output, size, plan, border, edge):
    """From the last to the first; levels that blocks hold, and those made of them."""
    session = Session(model_of(name, output), memory_bytes=8 << 30, threads=1, keep_engine=True)
    source = ArraySource(image_for(name, *size, largest=7))
    wish = Wish(plan=plan, border=border)
    session.segment(source, ZarrSink(tmp_path / "whole.zarr", tile=16), plan=plan, border=border)
    in_blocks(session, source, SharedZarrSink(tmp_path / "blocks.zarr", tile=16, edge=edge), wish, order=-1)
    session.close()
    assert files_of(tmp_path / "blocks.zarr") == files_of(tmp_path / "whole.zarr")


@pytest.mark.parametrize("name", ["unet_d2", "asymmetric", "valid", "super_resolution", "low_resolution"])
@pytest.mark.parametrize("size", [(1000, 900), (511, 2048)])
def test_fitted_tiles_end_with_blocks_and_see_what_they_need(name, size):
    """Zones partition the result, none straddles blocks, and each lies a halo within its tile, or at the edge."""
    geometry = model_of(name).contract.geometry
    plan = TilePlan.of(geometry, size, "model", (512 + geometry.y.remainder, 512 + geometry.x.remainder))
    found = fitted(plan, 256)
    for axis in (found.y, found.x):
        domain, one = axis.domain, axis.domain.geometry
        edges = [0, *(zor.stop for zor in axis.zors)]
        assert [zor.start for zor in axis.zors] == edges[:-1]
        assert edges[-1] == domain.result_size
        straddling = [zor for zor in axis.zors if zor.start // 256 != (zor.stop - 1) // 256]
        assert not straddling or axis is plan.y or axis is plan.x
        for start, zor, crop in zip(axis.starts, axis.zors, axis.crops, strict=True):
            assert start % one.stride == 0
            assert 0 <= start <= domain.size - axis.tile
            assert crop == zor.start - one.output_position(start)
            first, last = zor.start / one.scale, zor.stop / one.scale
            assert start == 0 or first - start >= one.margin_before
            assert start + axis.tile == domain.size or start + axis.tile - last >= one.margin_after


def test_strips_of_a_block_begin_a_halo_above_it():
    session = Session(model_of("unet_d2"), memory_bytes=8 << 30, threads=1)
    source = ArraySource(image_for("unet_d2", 800, 60))
    sink = SharedZarrSink("unused.zarr", tile=16, edge=64)
    plan = session.plan(source, sink, plan="strip", tile=(16, 60)).plan
    part = part_of(plan, Box(Span(400, 464), Span(0, 60)))
    zones = [zor for zor in part.y.zors if zor.length]
    assert (zones[0].start, zones[-1].stop) == (400, 464)
    halo = NETS["unet_d2"].reach.top
    assert 400 - 4 * halo < part.y.starts[0] <= 400 - halo
    assert part.y.roles[0] == "first"
    assert part.computed_pixels < plan.computed_pixels / 4


def test_an_early_end_keeps_whole_blocks(tmp_path):
    """The second run is given what the first has done, and the files are those of one run."""
    session = Session(model_of("unet_d2", "labels"), memory_bytes=8 << 30, threads=1, keep_engine=True)
    source = ArraySource(image_for("unet_d2", 200, 150, largest=7))
    session.segment(source, ZarrSink(tmp_path / "whole.zarr", tile=16), plan="tile")
    spec = ResultSpec(height=200, width=150, channels=0, dtype="uint8", labels=session.contract.result.labels)

    def begun(resume: bool) -> SharedZarrSink:
        sink = SharedZarrSink(tmp_path / "blocks.zarr", tile=16, edge=64, resumable=True)
        sink.describe({"image": "this"}, resume=resume)
        sink.begin(spec)
        return sink

    first = begun(resume=False)
    target = first.target
    for number in (0, 3, 4):
        box = target.box(number)
        session.image_run(
            source, BlockSink(target, box), Wish(plan="tile"), part=partial(_part, edge=64, box=box)
        ).run()
        first.adopt(box)
    first.abort()
    assert first.keeps
    assert not (tmp_path / "blocks.zarr").exists()
    other = SharedZarrSink(tmp_path / "blocks.zarr", tile=16, edge=128, resumable=True)
    other.describe({"image": "this"}, resume=True)
    with pytest.raises(ResumeError, match=r"output\.block: was 64, is 128"):
        other.begin(spec)
    second = begun(resume=True)
    assert [number for number in range(target.count) if second.is_done(target.box(number))] == [0, 3, 4]
    for number in set(range(target.count)) - {0, 3, 4}:
        box = target.box(number)
        session.image_run(
            source, BlockSink(target, box), Wish(plan="tile"), part=partial(_part, edge=64, box=box)
        ).run()
        second.adopt(box)
    for level in range(target.box_levels + 1, target.levels):
        make_chunks(target, level, range(target.grids[level].count))
    second.finish()
    session.close()
    assert files_of(tmp_path / "blocks.zarr") == files_of(tmp_path / "whole.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blocks.zarr", "whole.zarr"]


def test_a_zarr_whose_blocks_are_missing_gets_no_name(tmp_path):
    sink = SharedZarrSink(tmp_path / "a.zarr", tile=16, edge=32)
    sink.begin(ResultSpec(height=40, width=40, channels=0, dtype="uint8"))
    sink.adopt(sink.target.box(0))
    with pytest.raises(SinkError, match="written before"):
        sink.adopt(sink.target.box(0))
    with pytest.raises(SinkError, match="never written"):
        sink.finish()
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_late_block_does_not_reach_the_next_run(tmp_path):
    """A block of a run that ended writes into the folder that it began with, or nowhere."""
    spec = ResultSpec(height=64, width=64, channels=0, dtype="uint8")
    sink = SharedZarrSink(tmp_path / "a.zarr", tile=16, edge=64)
    sink.begin(spec)
    target = sink.target
    late = BlockSink(target, target.box(0), workers=1)
    late.begin(spec)
    part = Path(target.folder)
    shutil.rmtree(part)
    (tmp_path / "kept").mkdir()
    shutil.copytree(tmp_path / "kept", part)
    with pytest.raises(SinkError):  # noqa: PT012 -- which of the two fails is up to the threads
        late.write(target.box(0), np.ones((64, 64), np.uint8))
        late.finish()
    late.abort()
    assert list(part.rglob("*")) == []
    sink.abort()


def test_what_killed_processes_were_writing_is_removed(tmp_path):
    """Each writes new chunks under names of its own; only complete ones are there at the end."""
    spec = ResultSpec(height=32, width=32, channels=0, dtype="uint8")
    sink = SharedZarrSink(tmp_path / "a.zarr", tile=16, edge=32)
    sink.begin(spec)
    target, written = sink.target, np.arange(1024, dtype=np.uint8).reshape(32, 32)
    (Path(target.folder) / "0" / "c" / "0").mkdir(parents=True)
    left = Path(target.folder) / "0" / "c" / "0" / "1.0123abcd.partial"
    left.write_bytes(b"half")
    for _ in range(2):  # the second is that of a worker that was lost and comes back
        block = BlockSink(target, target.box(0), workers=1)
        block.begin(spec)
        block.write(target.box(0), written)
        block.finish()
    sink.adopt(target.box(0))
    sink.finish()
    found = zarr.open_array(tmp_path / "a.zarr" / "labels" / "segmentation" / "0", mode="r")[:]
    assert np.array_equal(found, written)
    assert not list(tmp_path.rglob("*.partial"))


def test_edges_of_blocks_are_checked_and_rounded_up(tmp_path):
    with pytest.raises(OptionError, match="a block needs a positive edge, got 0"):
        SharedZarrSink(tmp_path / "a.zarr", edge=0)
    sink = SharedZarrSink(tmp_path / "a.zarr", tile=48, edge=100)
    assert sink.edge(ResultSpec(height=9, width=9, channels=0, dtype="uint8")) == 192
