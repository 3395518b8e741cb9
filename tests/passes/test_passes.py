"""Networks that take statistics of the whole image, in passes, against plain ONNX Runtime on the whole image."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import exactile.runs.ways
from exactile.contract import DeployedModel
from exactile.contract.kept_map import KeptMap
from exactile.contract.statistic import Statistic
from exactile.errors import NotTileableError, OptionError, PlanError
from exactile.geometry import Box, Span
from exactile.kept_maps.scratch import ScratchMap
from exactile.kept_maps.store import MapStore, lifetimes, most_kept_bytes, most_on_disk
from exactile.passes.found import Found
from exactile.passes.merge import Merged
from exactile.passes.planner import PassPlanner
from exactile.plan.zones import TO_THE_END
from exactile.planning import Planner, Wish
from exactile.processors.host import HostProcessor
from exactile.runs.ways import Ways
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.nothing import NoSink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy, deploy_in_passes
from exactile_converters.passes.reductions import take_out
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.global_nets import BLOCKS, CHANNELS, GlobalNet, chain, integers, pyramid

SIZES = ((40, 52), (41, 57))
TOLERANCE = 3e-6

KINDS = {
    "excitation": "mean",
    "excitation_by_matrices": "mean",
    "image_pooling": "mean",
    "largest": "maximum",
    "smallest": "minimum",
    "root_of_squares": "sum",
}
"""Others take mean and variance."""


def image_of(size: tuple[int, int]) -> np.ndarray:
    """Bright on one side, so that zones differ from the whole."""
    pixels = np.random.default_rng(5).integers(0, 12, (*size, 1)).astype(np.uint8)
    pixels[size[0] // 2 :] += 9
    return pixels


def one_pass(model: bytes, image: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]


@cache
def deployed(model: bytes, size: tuple[int, int] | None) -> DeployedModel:
    network = prepare_network(onnx.load_from_string(model), name="global.onnx")
    return deploy_in_passes(network, image_dtype="uint8", output="raw", image_size=size)


def segment(model: DeployedModel, image: np.ndarray, plan: str, tile: tuple[int, int] | None = None):
    sink = ArraySink()
    summary = Session(model).segment(ArraySource(image), sink, plan=plan, tile=tile)
    return sink.result, summary


def small_tile(model: DeployedModel, size: tuple[int, int]) -> tuple[int, int]:
    """The smallest that advances by a stride or so, of the remainders of the image."""
    geometry = model.contract.geometry.of_size(size)
    found = []
    for axis, px in zip((geometry.y, geometry.x), size, strict=True):
        least = -(-max(0, axis.margin_before) // axis.stride) * axis.stride + 2 * axis.stride + axis.margin_after
        found.append(min(px, least + (px - least) % axis.stride))
    return found[0], found[1]


def check(model: bytes, size: tuple[int, int], tolerance: float = TOLERANCE) -> None:
    """In whole, tiles and strips, with kept maps and without."""
    image = image_of(size)
    expected = one_pass(model, image)
    found = deployed(model, size)
    again = replace(found, keeping=None)
    ways = [(again, "whole", None), (again, "tile", small_tile(again, size))]
    if found.strips is not None:
        ways.append((again, "strip", (found.strips.startup_rows, size[1])))
    if found.keeping is not None:
        ways.append((found, "tile", small_tile(found.keeping.at(size), size)))
    for way, plan, tile in ways:
        result, summary = segment(way, image, plan, tile)
        assert result.shape == expected.shape
        if plan == "tile":
            assert summary.tiles > 1
            assert max(one.tiles for one in summary.passes) > 1
        apart = np.abs(result - expected).max()
        assert apart <= tolerance * np.abs(expected).max(), (plan, way.keeping is not None, apart)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block", BLOCKS)
def test_every_operator_that_looks_at_the_whole_image(block, size):
    check(chain(block), size)


@pytest.mark.parametrize("size", [(120, 132), (121, 135)])
def test_a_pass_does_not_look_farther_than_its_statistics(size):
    """Branches of kernels of 15 are made by the pass that reads them, from the map that the mean is taken of."""
    model = pyramid()
    check(model, size)
    kept = deployed(model, size).keeping.at(size)
    (level,) = kept.levels
    assert level.model.contract.geometry.y.before <= 4
    assert kept.contract.geometry.y.before >= 4 * 7
    (one,) = kept.reads
    assert one.shape.count(None) == 2
    assert np.prod([length for length in one.shape if length]) == CHANNELS


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_found(block):
    network, reductions = take_out(prepare_network(onnx.load_from_string(chain(block)), name=block))
    assert [one.kind for one in reductions] == [KINDS.get(block, "moments")] * 2
    assert not network.trace().obstacles
    groups = {"decomposed_norm": 1, "group_norm": 2, "group_norm_operator": 2}.get(block, 4)
    assert {one.groups for one in reductions} == {groups}


@pytest.mark.parametrize("size", [(24, 31), (33, 40), (64, 9)])
def test_integers_are_equal_bit_for_bit(size):
    check(integers(), size, tolerance=0)


@pytest.mark.parametrize("size", SIZES)
def test_a_statistic_of_the_image_itself(size):
    """Of the samples as the network takes them, not as they are stored."""
    net = GlobalNet(seed=6)
    scaled = net.add("Mul", "image", net.add("GlobalAveragePool", "image"))
    model = net.model(net.layer(scaled, 1, 2))
    check(model, size)
    network = prepare_network(onnx.load_from_string(model), name="global.onnx")
    found = deploy_in_passes(
        network, image_dtype="uint8", output="raw", image_size=size, normalization=Normalization(scale=(7.0,))
    )
    image = image_of(size)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    values = image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(7)
    expected = session.run(None, {"image": values})[0][0]
    result, _ = segment(found, image, "tile", small_tile(found.keeping.at(size) if found.keeping else found, size))
    np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_levels_follow_from_what_depends_on_what():
    """Four in a row; two that depend on the image alone are found together."""
    found = deployed(chain("excitation", times=4), (40, 52))
    assert [len(level.statistics) for level in found.levels] == [1, 1, 1, 1]
    net = GlobalNet(seed=2)
    first, second = net.layer("image", 1), net.layer("image", 1)
    both = net.add("Add", BLOCKS["excitation"](net, first, 4), BLOCKS["instance_norm"](net, second, 4))
    found = deployed(net.model(net.layer(both, 4, 2)), (40, 52))
    assert [len(level.statistics) for level in found.levels] == [2]


def test_kept_maps_save_work_and_are_dropped_again():
    """Each pass computes what is new alone; without, all of them begin at the image."""
    size = (96, 96)
    found = deployed(chain("instance_norm", times=3), size)
    assert found.keeping is not None
    read = [level.model.reads_image for level in found.keeping.model.levels]
    assert read[0]
    assert not all(read)
    maps = {one.output: one for level in found.keeping.model.levels for one in level.model.writes}
    together = sum(one.bytes_at(size) for one in maps.values())
    assert 0 < most_kept_bytes(found.keeping.at(size), size) <= together


@pytest.mark.parametrize("rows_first", [True, False])
@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_kept_maps_are_what_was_written(tmp_path, memory_bytes, rows_first):
    """Parts of tiles that begin and end anywhere, in memory and in files; nothing is left behind."""
    one = KeptMap(
        output="map",
        input="map_in",
        dtype="float32",
        shape=(1, 3, None, None) if rows_first else (1, None, None, 3),
        scale=(Fraction(1, 2), Fraction(1, 2)),
        constant=(Fraction(1, 2), Fraction(0)),
        rows_first=True,
    )
    size = (41, 30)
    store = MapStore(size, memory_bytes=memory_bytes, folder=tmp_path)
    store.open([one])
    whole = np.random.default_rng(0).normal(size=one.shape_at(size)).astype(np.float32)
    y, x = one.axes
    for rows in ((0, 20), (20, 41)):
        for columns in ((0, 12), (12, 30)):
            tile = Box(Span(max(0, rows[0] - 4), min(41, rows[1] + (1 if rows[1] < 41 else 0))), Span(0, 30))
            first, count = tile.y.start // 2, one.sizes_at(tile.shape)[0]
            part = whole.take(range(first, first + count), axis=y)
            zone = [rows[0] - tile.y.start, TO_THE_END if rows[1] == 41 else rows[1] - tile.y.start,
                    columns[0], TO_THE_END if columns[1] == 30 else columns[1]]  # fmt: skip
            store.write([one], tile, np.array(zone), {"map": part})
    for tile in (Box(Span(0, 41), Span(0, 30)), Box(Span(10, 31), Span(4, 16))):
        rows, columns = one.sizes_at(tile.shape)
        expected = whole.take(range(tile.y.start // 2, tile.y.start // 2 + rows), axis=y)
        expected = expected.take(range(tile.x.start // 2, tile.x.start // 2 + columns), axis=x)
        np.testing.assert_array_equal(store.read([one], tile, store.buffers())["map_in"], expected)
    store.close()
    assert not list(tmp_path.iterdir())


def test_maps_that_memory_has_no_room_for_go_to_the_disk(tmp_path, monkeypatch):
    """The same bytes; without room on the disk, passes begin at the image."""
    size = (96, 96)
    found, image = deployed(chain("instance_norm", times=3), size), image_of(size)
    tile = small_tile(found.keeping.at(size), size)
    in_memory, _ = segment(found, image, "tile", tile)
    monkeypatch.setattr(exactile.runs.ways, "KEPT_SHARES", (0.0,))
    sink = ArraySink()
    Session(found, scratch=tmp_path).segment(ArraySource(image), sink, plan="tile", tile=tile)
    np.testing.assert_array_equal(sink.result, in_memory)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(exactile.runs.ways, "free_bytes", lambda _folder: 0)
    again = segment(found, image, "tile", small_tile(found, size))[0]
    np.testing.assert_allclose(again, in_memory, rtol=0, atol=TOLERANCE * np.abs(in_memory).max())


def test_kept_maps_leave_memory_for_a_tile_of_every_pass():
    """Within any budget that has room for passes at all; what is then too much goes to the disk."""
    size = (1024, 1024)
    found, source, sink = deployed(chain("instance_norm", times=3), size), ArraySource(image_of(size)), NoSink()
    kept_bytes = set()
    for budget_bytes in range(42 << 20, 200 << 20, 2 << 20):
        planner = Planner(found, budget_bytes=budget_bytes, process_bytes=0)
        processor = HostProcessor(found, threads=1, keep=False)
        ways = Ways(
            model=found, planner=planner, processor=processor, threads=1, scratch=Path("/tmp"), scratch_bytes=None
        )
        way = ways.choose(source, sink, Wish(plan="tile"), resume=False)
        if not way.model.reads:
            continue
        kept_bytes.add(way.planner.kept_bytes)
        way.planner.choose(source, sink, way.wish)
        for level in way.model.levels:
            passes = PassPlanner(
                level,
                budget_bytes=budget_bytes,
                process_bytes=way.planner.process_bytes,
                on_disk=way.planner.maps_on_disk(*size),
            )
            passes.choose(source, sink, Wish(plan="tile"))
    assert min(kept_bytes) < max(kept_bytes) == most_kept_bytes(found.keeping.at(size), size)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_what_goes_to_the_disk_is_known_beforehand(tmp_path, monkeypatch, share):
    size = (96, 96)
    model = deployed(chain("instance_norm", times=3), size).keeping.at(size)
    memory_bytes = int(most_kept_bytes(model, size) * share)
    written: dict[ScratchMap, int] = {}
    most = 0
    made, closed = ScratchMap.__init__, ScratchMap.close

    def opened(kept, shape, dtype, **where):
        made(kept, shape, dtype, **where)
        written[kept] = int(np.prod(shape)) * np.dtype(dtype).itemsize

    monkeypatch.setattr(ScratchMap, "__init__", opened)
    monkeypatch.setattr(ScratchMap, "close", lambda kept: (closed(kept), written.pop(kept)))
    store = MapStore(size, memory_bytes=memory_bytes, folder=tmp_path)
    for maps, dropped in lifetimes(model):
        store.open(maps)
        most = max(most, sum(written.values()))
        store.drop(dropped)
    assert most == most_on_disk(model, size, memory_bytes)
    assert most > 0 or share > 0.5


def test_scratch_files_take_no_more_than_is_allowed(monkeypatch):
    """One byte less than they need: passes begin at the image."""
    size = (96, 96)
    found, source = deployed(chain("instance_norm", times=3), size), ArraySource(image_of(size))
    monkeypatch.setattr(exactile.runs.ways, "KEPT_SHARES", (0.0,))
    wanted = most_on_disk(found.keeping.at(size), size, 0)
    for scratch_bytes, kept in ((wanted, True), (wanted - 1, False), (0, False), (None, True)):
        run = Session(found, scratch_bytes=scratch_bytes).image_run(source, ArraySink(), Wish(plan="tile"))
        assert bool(run.model.reads) == kept, scratch_bytes
    with pytest.raises(OptionError, match="--scratch-size"):
        Session(found, scratch_bytes=-1)


def test_a_resumed_run_keeps_the_statistics_of_the_first():
    """What was written by them stands: maps are made again by them, whatever this grid of tiles would find."""
    size = (96, 96)
    found = deployed(chain("instance_norm", times=3), size)
    source, sink = ArraySource(image_of(size)), ArraySink()
    run = Session(found).image_run(source, sink, Wish(plan="tile", tile=small_tile(found.keeping.at(size), size)))
    plan = run.planner.choose(source, sink, run.wish).plan
    passes = [run._passes(), run._passes()]
    first = passes[0].run(plan, {})
    recorded = {name: values + np.float32(0.5) for name, values in first.items()}
    again = passes[1].run(plan, {}, Found(statistics=recorded))
    assert all(again[name] is values for name, values in recorded.items())
    reads = run.model.reads
    whole = Box(Span(0, size[0]), Span(0, size[1]))
    one, other = (each.maps.read(reads, whole, each.maps.buffers()) for each in passes)
    assert any(not np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("start", [None, 2])
def test_sizes_of_a_map_that_a_pass_does_not_compute(start):
    """Positions are resized to the size of a convolution, of whose result alone a later pass begins at a function."""
    net = GlobalNet(seed=3)
    made = net.layer(net.layer(net.layer("image", 1, 16), 16, 16), 16, stride=2)
    normal = BLOCKS["instance_norm"](net, net.add("Relu", made), 4)
    if start is None:
        size = net.add("Slice", net.add("Shape", made), net.constant([2]), net.constant([4]))
    else:
        size = net.add("Shape", made, start=start)
    places = net.constant(np.random.default_rng(0).normal(size=(1, 4, 5, 7)), np.float32)
    grown = net.add("Resize", places, "", "", net.add("Concat", net.constant([1, 4]), size, axis=0), mode="linear")
    model = net.model(net.layer(net.add("Add", normal, grown), 4, 2))
    found = deployed(model, (60, 44))
    assert found.keeping is not None
    assert not found.keeping.model.reads_image
    check(model, (60, 44))


def test_statistics_do_not_depend_on_the_grid():
    """Another grid of tiles changes the result by rounding alone."""
    model, image = chain("instance_norm"), image_of((60, 44))
    found = deployed(model, (60, 44))
    results = [segment(found, image, "tile", tile)[0] for tile in ((20, 24), (32, 44), (60, 20))]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=0, atol=1e-6 * np.abs(results[0]).max())


@pytest.mark.parametrize("known", [True, False])
def test_a_size_that_is_refused_is_extended(kept_maps, known):
    """Statistics are those of the extended image, as in one pass over it, and maps are kept of it."""
    net = GlobalNet(seed=1)
    half = net.add("MaxPool", "image", kernel_shape=[2, 2], strides=[2, 2])
    deep = net.layer(net.layer(net.layer(half, 1), 4, kernel=5), 4, kernel=5)
    normal = BLOCKS["instance_norm"](net, deep, 4)
    scales = net.constant([1, 1, 2, 2], np.float32)
    whole = net.add("Resize", normal, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric",
                    nearest_mode="floor")  # fmt: skip
    model = net.model(net.layer(net.add("Concat", "image", whole, axis=1), 5, 2))
    image = image_of((31, 45))
    found = deployed(model, (31, 45) if known else None)
    assert found.keeping is not None
    assert found.keeping.model.reads
    expected = one_pass(model, np.pad(image, ((0, 1), (0, 1), (0, 0)), mode="reflect"))[:, :31, :45]
    for plan, tile in (("whole", None), ("tile", (24, 24))):
        result, summary = segment(found, image, plan, tile)
        assert summary.domain == (32, 46)
        np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
    assert len(kept_maps) == 1
    assert summary.tiles > 1


@pytest.mark.parametrize("block", ["excitation", "decomposed_norm", "image_pooling"])
def test_any_size_without_knowing_it_beforehand(kept_maps, block):
    """As for bundles: one deployed model for images of every size, its maps kept."""
    model = chain(block)
    found = deployed(model, None)
    for count, size in enumerate(((33, 47), (64, 64), (41, 38)), 1):
        tile = small_tile(found.keeping.at(size), size)
        result, summary = segment(found, image_of(size), "tile", tile)
        assert len(kept_maps) == count
        assert summary.tiles > 1
        expected = one_pass(model, image_of(size))
        np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
    found = replace(found, keeping=None)
    for size in ((33, 47), (64, 64)):
        image = image_of(size)
        result, _ = segment(found, image, "tile", small_tile(found, size))
        expected = one_pass(model, image)
        np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_merged_numbers_are_those_of_numpy():
    """A large mean and a small deviation, in zones of very different size."""
    values = np.random.default_rng(1).normal(1e4, 1e-2, (3, 100, 70)).astype(np.float32)
    moments = Statistic(kind="moments", channels=3, groups=3, inputs=("m", "v"), shapes=((3,), (3,)))
    merged = Merged([moments])
    for rows in (slice(0, 1), slice(1, 90), slice(90, 100)):
        zone = values[:, rows].reshape(3, -1)
        near = zone.mean(1, dtype=np.float32)
        apart = zone.astype(np.float64) - near[:, None]
        merged.add(np.concatenate([[zone.shape[1]], near, apart.sum(1), (apart**2).sum(1)]))
    found = merged.values()
    exact = values.reshape(3, -1).astype(np.float64)
    np.testing.assert_allclose(found["m"], exact.mean(1), rtol=1e-7)
    np.testing.assert_allclose(found["v"], exact.var(1), rtol=1e-6)


def test_what_is_refused():
    """Borders that extend the image by the halo; rows that are still to come; what is left over as an obstacle."""
    found = deployed(chain("excitation"), (40, 52))
    with pytest.raises(OptionError, match="a halo for each pass"):
        Session(found).segment(ArraySource(image_of((40, 52))), ArraySink(), border="reflect")
    with pytest.raises(PlanError, match="statistics of the whole image"):
        Session(found).stream(width=52, dtype="uint8")
    network = prepare_network(onnx.load_from_string(chain("excitation")), name="global.onnx")
    with pytest.raises(NotTileableError):
        deploy(network, image_dtype="uint8")
    net = GlobalNet(seed=2)
    rows = net.add("ReduceMean", net.layer("image", 1), net.constant([3]))
    model = net.model(net.layer(net.add("Add", net.layer("image", 1), rows), 4, 2))
    with pytest.raises(NotTileableError, match="ReduceMean"):
        deployed(model, (40, 52))
