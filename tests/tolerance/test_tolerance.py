"""Runs that need not be exact: the halo that is taken, the error that is found, and the way back to exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.contract import ImageStatistics
from exactile.contract.error_curve import ErrorCurve, ErrorPoint
from exactile.contract.tolerance import Tolerance
from exactile.errors import BudgetError, OptionError, PlanError, ResumeError
from exactile.geometry import AxisGeometry, Geometry
from exactile.planning import Planner
from exactile.processors.host import HostProcessor
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.tiff.sink import TiffSink
from exactile.sources.array import ArraySource
from exactile.tolerance.compared import compared
from exactile.tolerance.difference import Difference
from exactile.tolerance.halos import exact_halo, halo_steps, narrowed
from exactile.tolerance.local import check_tolerance
from exactile.tolerance.measure import CurveWish
from exactile.tolerance.narrow import NarrowPlan
from exactile.tolerance.narrowing import Narrowing
from exactile.tolerance.tile_runs import TileRuns, sample
from exactile_converters.deploy import Normalization, deploy, deploy_in_passes
from exactile_converters.prepare.from_onnx import prepare_network
from tests.passes.test_reductions import exported, network_of
from tests.support.nets import NETS, onnx_bytes

NEAR, FAR = 4, 12
WEAK = 1 / 64
THRESHOLD = 100.0


def taps(far: float = WEAK) -> onnx.ModelProto:
    """Scores ``x[y] + x[y + NEAR] + far * x[y + FAR]`` and THRESHOLD: exact in float32 for bytes; zeros below."""
    weights = np.zeros((2, 1, FAR + 1, 1), np.float32)
    weights[0, 0, [0, NEAR, FAR], 0] = 1, 1, far
    node = helper.make_node("Conv", ["image", "weights", "bias"], ["scores"], pads=[0, 0, FAR, 0])
    graph = helper.make_graph(
        [node],
        "taps",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([0, THRESHOLD], np.float32), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def deployed(model: onnx.ModelProto, output="raw", dtype="uint8"):
    return deploy(prepare_network(model, name="taps"), image_dtype=dtype, output=output)


def scores_of(image: np.ndarray, far: float = WEAK, cuts: tuple[int, ...] = (), halo: int = 0) -> np.ndarray:
    """What numpy gives; below each row of ``cuts`` no more than ``halo`` rows are seen from above it."""
    rows, values = image.shape[0], image[..., 0].astype(np.float64)
    found = np.zeros((2, *values.shape))
    found[1] = THRESHOLD
    stops = [*cuts, rows]
    for y in range(rows):
        end = min(rows, next(stop for stop in stops if stop > y) + halo)
        for distance, weight in ((0, 1.0), (NEAR, 1.0), (FAR, far)):
            if y + distance < (end if cuts else rows):
                found[0, y] += weight * values[y + distance]
    return found


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (200, 40, 1), dtype=np.uint8)


def run(model, image, tolerance, **options):
    session, sink = Session(model), ArraySink()
    summary = session.segment(ArraySource(image), sink, tolerance=tolerance, **options)
    return summary, sink.result


def test_tiles_see_as_far_as_the_tolerance_needs_and_differ_only_at_seams_by_what_was_cut_off(image):
    summary, result = run(deployed(taps()), image, "0.02", tile=(32, 40))
    told = summary.tolerance
    assert (told.exact, summary.exact, told.halo_px, told.exact_halo_px) == (False, False, NEAR, FAR)
    zones = 32 - NEAR
    cuts = tuple(range(zones, 200 - 32 + zones, zones))
    assert summary.tiles == len(cuts) + 1
    expected = scores_of(image, cuts=cuts, halo=NEAR)
    np.testing.assert_array_equal(result, expected)
    gap = np.abs(expected - scores_of(image)).max()
    assert 0 < gap <= 255 * WEAK
    assert 0 < told.found <= told.expected * 2
    assert told.found <= 0.02


def test_the_error_that_is_found_is_that_of_the_tiles_that_were_checked(image):
    summary, result = run(deployed(taps()), image, "0.02", tile=(32, 40))
    told, exact = summary.tolerance, scores_of(image)
    assert told.checked == 4
    session = Session(deployed(taps()))
    narrow = NarrowPlan.of(session.contract.geometry, (200, 40), NEAR, (32, 40))
    boxes = [step.zor.slices() for step in sample(narrow.plan, 4, 1)]
    gap = max(np.abs(result - exact)[(..., *box)].max() for box in boxes)
    seen = np.concatenate([exact[(..., *box)].ravel() for box in boxes])
    assert told.found == pytest.approx(gap / (seen.max() - seen.min()), rel=1e-12)


def test_where_the_tolerance_is_exceeded_the_result_is_the_exact_one_bit_for_bit(image):
    model = deployed(taps())
    curve = ErrorCurve(
        belongs_to="0" * 64,
        tile=(32, 40),
        seed=0,
        images=(),
        points=(ErrorPoint(halo_px=0, scores=0.0, labels=0.0), ErrorPoint(halo_px=FAR, scores=0.0, labels=0.0)),
    )
    summary, result = run(replace(model, error_curve=curve), image, "0.02", tile=(32, 40))
    np.testing.assert_array_equal(result, scores_of(image))
    told = summary.tolerance
    assert told.exact
    assert summary.exact
    assert told.found > 0.02
    assert told.halo_px == 0
    assert "tolerance exceeded" in told.reason
    assert f"row {told.at[0]}" in told.reason
    _, plain = run(model, image, None, tile=(32, 40))
    np.testing.assert_array_equal(result, plain)


def test_the_bound_is_the_bound(image):
    """The same error is within a tolerance as large as it, and beyond one that is a little smaller."""
    points = (ErrorPoint(halo_px=NEAR, scores=0.0, labels=0.0), ErrorPoint(halo_px=FAR, scores=0.0, labels=0.0))
    curve = ErrorCurve(belongs_to="0" * 64, tile=(32, 40), seed=0, images=(), points=points)
    model = replace(deployed(taps()), error_curve=curve)
    found = run(model, image, "0.02", tile=(32, 40))[0].tolerance.found
    assert not run(model, image, repr(found), tile=(32, 40))[0].exact
    assert run(model, image, repr(found * 0.999), tile=(32, 40))[0].exact


def test_one_bad_tile_among_those_that_are_checked_is_found(image):
    """The far tap sees something at one seam only."""
    model, quiet = deployed(taps(far=1.0)), np.zeros_like(image)
    geometry = Session(model).contract.geometry
    steps = sample(NarrowPlan.of(geometry, (200, 40), NEAR, (32, 40)).plan, 4, 1)
    step = steps[1]
    quiet[step.zor.y.stop + NEAR : step.zor.y.stop + FAR, 7] = 255
    points = tuple(ErrorPoint(halo_px=px, scores=0.0, labels=0.0) for px in (NEAR, FAR))
    curve = ErrorCurve(belongs_to="0" * 64, tile=(32, 40), seed=0, images=(), points=points)
    summary, result = run(replace(model, error_curve=curve), quiet, "1e-3", tile=(32, 40))
    assert summary.tolerance.exact
    assert summary.tolerance.at == (step.zor.y.start, step.zor.x.start)
    np.testing.assert_array_equal(result, scores_of(quiet, far=1.0))


def test_a_share_of_labels_is_counted(image):
    summary, result = run(deployed(taps(), "labels"), image, "labels:0.05", tile=(32, 40))
    exact = scores_of(image).argmax(0)
    told = summary.tolerance
    assert not told.exact
    narrow = NarrowPlan.of(Session(deployed(taps())).contract.geometry, (200, 40), told.halo_px, (32, 40))
    boxes = [step.zor.slices() for step in sample(narrow.plan, 4, 1)]
    differing = sum(int((result[box] != exact[box]).sum()) for box in boxes)
    assert told.found == differing / sum(exact[box].size for box in boxes)
    assert 0 < told.found <= 0.05


def test_a_tolerance_of_nothing_is_exact(image):
    summary, result = run(deployed(taps()), image, "0", tile=(32, 40))
    assert summary.exact
    np.testing.assert_array_equal(result, scores_of(image))


def test_an_image_of_one_tile_is_exact(image):
    summary, result = run(deployed(taps()), image, "0.02")
    assert summary.exact
    assert "one tile" in summary.tolerance.reason
    np.testing.assert_array_equal(result, scores_of(image))


def test_the_curve_falls_to_nothing_at_the_exact_halo_and_so_does_what_far_pixels_change(image):
    curve = Session(deployed(taps())).error_curve({"noise": ArraySource(image)}, CurveWish(tile=(40, 40), zones=99))
    by_halo = {point.halo_px: point for point in curve.points}
    assert max(by_halo) == FAR
    errors = [point.scores for point in curve.points]
    assert errors == sorted(errors, reverse=True)
    assert by_halo[FAR].scores == by_halo[FAR].labels == by_halo[FAR].far_scores == by_halo[FAR].far_labels == 0
    assert by_halo[FAR - 1].scores > 0
    assert by_halo[FAR - 1].far_scores > 0
    assert by_halo[NEAR].scores < by_halo[NEAR - 1].scores / 10
    assert by_halo[NEAR].far_scores < by_halo[NEAR - 1].far_scores / 10
    span = np.ptp(scores_of(image))
    assert by_halo[NEAR].scores <= 255 * WEAK / span * 1.01
    assert curve.images[0].size == (200, 40)


def test_the_curve_of_two_images_is_the_worse_of_both(image):
    session = Session(deployed(taps()))
    dark = (image // 200).astype(np.uint8)
    wish = CurveWish(tile=(40, 40))
    both = session.error_curve({"a": ArraySource(image), "b": ArraySource(dark)}, wish)
    alone = [session.error_curve({"one": ArraySource(pixels)}, wish) for pixels in (image, dark)]
    for point, *others in zip(both.points, *(one.points for one in alone), strict=True):
        assert point.scores == max(other.scores for other in others)
        assert point.far_labels == max(other.far_labels for other in others)
    assert [one.name for one in both.images] == ["a", "b"]


def test_an_image_without_seams_has_no_curve(image):
    with pytest.raises(PlanError, match="no seam"):
        Session(deployed(taps())).error_curve({"a": ArraySource(image)}, CurveWish(tile=(400, 400)))


@pytest.mark.parametrize("name", ["unet_transpose3_d2", "asymmetric", "valid", "super_resolution", "low_resolution"])
def test_the_exact_tile_of_every_zone_is_exact(name):
    """Every zone of a plan without halo, in its exact tile, against one whole pass."""
    net = NETS[name]
    model = deploy(
        prepare_network(onnx.load_from_string(onnx_bytes(name)), name=name), image_dtype="float32", output="raw"
    )
    pixels = np.random.default_rng(1).standard_normal((150, 133, net.channels)).astype(np.float32)
    _, whole = run(model, pixels, None, plan="whole")
    narrow = NarrowPlan.within(model.contract.geometry, (150, 133), 0, (96, 96))
    assert len(narrow.plan) > 1
    runs = TileRuns(
        model=model,
        planner=Planner(model, budget_bytes=4 << 30, process_bytes=0),
        processor=HostProcessor(model, threads=1, keep=False),
        source=ArraySource(pixels),
        sink=ArraySink(),
        constants={},
    )
    steps, covered, least = list(narrow.plan), np.zeros(whole.shape[1:], int), 0.0
    for step, exact, less in compared(narrow, runs, steps):
        here = whole[(..., *step.zor.slices())]
        np.testing.assert_allclose(exact, here, rtol=1e-5, atol=1e-5)
        covered[step.zor.slices()] += 1
        least = max(least, float(np.abs(less - here).max()))
    assert (covered == 1).all()
    assert (least > 1e-2) == (name != "valid")  # what unpadded convolutions look at, a tile always holds


class StoppingSink(TiffSink):
    """Fails after three boxes."""

    left = 3

    def write(self, box, block) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        super().write(box, block)


@pytest.mark.parametrize("tolerance", ["labels:0.05", "labels:1e-9"])
def test_a_run_that_is_gone_on_with_takes_over_halo_and_error_and_gives_the_same_bytes(
    tmp_path, image, tolerance, monkeypatch
):
    session, options = Session(deployed(taps(), "labels")), {"tolerance": tolerance, "tile": (32, 40)}
    whole = session.segment(ArraySource(image), TiffSink(tmp_path / "whole.tif", tile=32), **options)
    with pytest.raises(KeyboardInterrupt):
        session.segment(ArraySource(image), StoppingSink(tmp_path / "a.tif", tile=32, resumable=True), **options)
    sink = TiffSink(tmp_path / "a.tif", tile=32, resumable=True)
    record = sink.unfinished()
    assert record["exact"] is whole.exact
    assert record["asked"]["tolerance"] == Tolerance.parse(tolerance).text
    assert record["tolerance"]["halo_px"] == whole.tolerance.halo_px
    for other in ("labels:0.04", None):
        with pytest.raises(ResumeError, match=r"asked\.tolerance"):
            session.segment(ArraySource(image), sink, resume=True, tile=(32, 40), tolerance=other)
    monkeypatch.setattr(Narrowing, "find", lambda *_: pytest.fail("measured again"))
    sink = TiffSink(tmp_path / "a.tif", tile=32, resumable=True)
    again = session.segment(ArraySource(image), sink, resume=True, **options)
    assert again.kept_pixels > 0
    assert again.tolerance == whole.tolerance
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_statistics_of_the_whole_image_are_found_once_and_before(image):
    model = deploy(
        prepare_network(taps(), name="taps"),
        image_dtype="uint8",
        output="raw",
        normalization=Normalization(statistics=ImageStatistics(kind="zscore")),
    )
    session, reads = Session(model), []
    summary = session.segment(
        ArraySource(image),
        ArraySink(),
        tolerance="0.05",
        tile=(32, 40),
        measuring=lambda done, _all: reads.append(done),
    )
    assert not summary.exact
    assert reads[-1] == 200 * 40
    assert reads.count(200 * 40) == 1


def test_networks_that_look_at_the_whole_image_are_refused(image):
    model = deploy_in_passes(network_of(exported("nnunet_plain", "torchscript")), image_dtype="uint8", output="raw")
    colours = np.repeat(image, 3, 2)
    with pytest.raises(OptionError, match="statistics of the whole image"):
        run(model, colours, "0.1")
    with pytest.raises(OptionError, match="statistics of the whole image"):
        Session(model).error_curve({"a": ArraySource(colours)})
    statistics = Session(model).measure_statistics([ArraySource(colours)])  # fixed ones are no obstacle
    _, exact = run(model, colours, None, statistics=statistics)
    summary, result = run(model, colours, "0.2", statistics=statistics, tile=(48, 40))
    assert not summary.exact
    assert 0 < np.abs(result - exact).max() < 0.5 * np.ptp(exact)


def test_gpus_are_refused(image):
    with pytest.raises(OptionError, match="--device cpu"):
        check_tolerance(deployed(taps()), object(), image.shape[:2], Tolerance.parse("0.1"))


def test_an_exact_tile_that_does_not_fit_is_a_budget_error(image):
    model = deployed(taps())
    tight = Planner(model, budget_bytes=1000, process_bytes=0)
    runs = TileRuns(
        model=model,
        planner=tight,
        processor=HostProcessor(model, threads=1, keep=False),
        source=ArraySource(image),
        sink=ArraySink(),
        constants={},
    )
    narrow = NarrowPlan.of(model.contract.geometry, (200, 40), 0, (32, 40))
    with pytest.raises(BudgetError, match="smaller --tile"):
        list(compared(narrow, runs, list(narrow.plan)))


def test_more_seams_than_were_measured_have_more_other_labels():
    points = (
        ErrorPoint(halo_px=0, scores=None, labels=0.02),
        ErrorPoint(halo_px=4, scores=None, labels=0.01),
        ErrorPoint(halo_px=8, scores=None, labels=0.0),
    )
    curve = ErrorCurve(belongs_to="0" * 64, tile=(1, 1), seed=0, images=(), points=points)
    tolerance = Tolerance.parse("labels:0.015")
    assert curve.within(tolerance, lambda _halo: 1.0) == (4, 0.01)
    assert curve.within(tolerance, lambda _halo: 2.0) == (8, 0.0)
    assert curve.within(tolerance, lambda _halo: 0.5) == (0, 0.01)


def test_an_error_that_rises_again_with_the_halo_is_not_trusted():
    points = tuple(ErrorPoint(halo_px=px, scores=error, labels=None) for px, error in ((0, 0.0), (4, 0.1), (8, 0.0)))
    curve = ErrorCurve(belongs_to="0" * 64, tile=(1, 1), seed=0, images=(), points=points)
    assert curve.within(Tolerance.parse("0.05"), lambda _halo: 1.0) == (8, 0.0)


def test_a_narrowed_geometry_keeps_what_unpadded_convolutions_take_away():
    axis = AxisGeometry(stride=2, before=0, after=12, size_constant=-6)
    less = narrowed(Geometry(y=axis, x=axis), 2)
    assert (less.y.margin_before, less.y.margin_after) == (0, 6)
    assert exact_halo(Geometry(y=axis, x=axis)) == 12
    assert halo_steps(Geometry(y=axis, x=axis)) == (0, 2, 4, 6, 8, 10, 12)


def test_scores_that_are_not_numbers_are_equal_to_each_other_and_far_from_others():
    result = Session(deployed(taps())).contract.result
    ones = np.ones((2, 3, 3), np.float32)
    nan = np.where(np.arange(3) == 1, np.nan, ones).astype(np.float32)
    same, other = Difference(), Difference()
    same.add(result, nan, nan)
    other.add(result, ones, nan)
    assert same.scores == 0
    assert other.scores == np.inf


@pytest.mark.parametrize("text", ["much", "labels:", "-1", "1", "nan", "inf", "labels:2", "scores:1e-4"])
def test_what_is_no_tolerance_is_refused(text):
    with pytest.raises(OptionError, match="tolerance"):
        Tolerance.parse(text)


@pytest.mark.parametrize("text", ["1e-4", "labels:1e-05", "0.1"])
def test_a_tolerance_is_written_as_it_is_read(text):
    parsed = Tolerance.parse(text)
    assert Tolerance.parse(parsed.text) == parsed


@pytest.mark.parametrize(
    ("output", "tolerance", "options", "message"),
    [
        ("labels", "1e-4", {}, "--output probabilities or raw"),
        ("raw", "1e-4", {"plan": "strip"}, "--plan strip is exact"),
        ("raw", "1e-4", {"plan": "whole"}, "--plan whole is exact"),
        ("raw", "1e-4", {"border": "reflect"}, "--border model"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(image, output, tolerance, options, message):
    with pytest.raises(OptionError, match=message):
        run(deployed(taps(), output), image, tolerance, **options)
