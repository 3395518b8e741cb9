"""The proof: it confirms what is so, and finds planted wrong claims, without the rules of the walk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from exactile.errors import ChannelError, NotTileableError, PlanError
from exactile.geometry import Geometry, Span
from exactile.sources.array import ArraySource
from exactile.tolerance.halos import halo_steps
from exactile_converters.deploy import Normalization
from exactile_converters.plain_runs.dependency import Lane, impulse_spans, reach_of
from exactile_converters.plain_runs.difference import compare, probabilities
from exactile_converters.plain_runs.subject import scores_of
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.verify import verification as verification_module
from exactile_converters.verify import verify
from exactile_converters.verify.probe import Subjects, probe_axis
from exactile_converters.verify.room import Room
from exactile_converters.verify.sweep import offset_steps
from tests.converters.test_graph_io import model_of, weights
from tests.support import placed_nets
from tests.support.nets import NETS, onnx_bytes
from tests.support.whole_nets import attention

ALIGNED = {"coordinate_transformation_mode": "align_corners"}
SIDES = {"top": ("y", "before"), "bottom": ("y", "after"), "left": ("x", "before"), "right": ("x", "after")}


def network(name: str):
    return prepare_network(onnx.load_from_string(onnx_bytes(name)), name=name)


def planted(geometry: Geometry, side: str, by: int) -> Geometry:
    """The claim with ``by`` pixels more on ``side``."""
    axis, end = SIDES[side]
    along = getattr(geometry, axis)
    return replace(geometry, **{axis: replace(along, **{end: getattr(along, end) + by})})


def verdicts(found) -> dict[str, str]:
    return {side.side: side.verdict for probe in found.probes for side in probe.sides}


def reaches(found) -> dict[str, int]:
    return {side.side: side.measured_px for probe in found.probes for side in probe.sides}


def probes_of(model: bytes):
    """Both axes of what the walk claims about a serialised model, probed."""
    net = prepare_network(onnx.load_from_string(model), name="net")
    traced = net.trace()
    assert traced.obstacles == ()
    scores = scores_of(net, traced.features).name
    subjects = Subjects.of(net, scores, traced.features[scores])
    silent = lambda *_: None  # noqa: E731
    return [probe_axis(axis, subjects, traced.geometry, seed=0, progress=silent) for axis in ("y", "x")], scores


@pytest.mark.parametrize(
    "name",
    [
        "unet_d2",
        "unet_plain_d2",
        "unet_transpose3_d2",
        "unet_bilinear_skip_d2",
        "asymmetric",
        "dilated",
        "valid",
        "super_resolution",
        "low_resolution",
    ],
)
def test_a_true_claim_is_confirmed_to_the_pixel(name):
    """All four sides exact, stride exact, and tiled is whole; also where scale is not 1 or the halo is unsymmetric."""
    net = NETS[name]
    found = verify(network(name))
    assert found.holds
    assert set(verdicts(found).values()) == {"exact"}
    assert [probe.stride_verdict for probe in found.probes] == ["exact", "exact"]
    assert [probe.stride for probe in found.probes] == [net.stride, net.stride]
    offset = found.geometry.y.offset
    expected = (net.reach.top + offset, net.reach.bottom - offset, net.reach.left + offset, net.reach.right - offset)
    assert tuple(reaches(found).values()) == expected
    assert tuple(side.integer_px for probe in found.probes for side in probe.sides) == expected
    assert [probe.method for probe in found.probes] == ["poison", "poison"]
    assert found.comparison.tiles >= 9
    assert found.comparison.difference.different_labels == 0
    assert found.comparison.difference.max_abs <= 1e-5 * 100


@pytest.mark.parametrize("by", [0, -16])
def test_operators_that_depend_on_the_position_are_probed_without_shifts(by, monkeypatch):
    """Of such a network shifts of the image are no proof; a halo that is too small is still found."""
    net = prepare_network(onnx.load_from_string(placed_nets.pyramid(mode="linear", **ALIGNED)), name="placed")
    if by:
        claimed = planted(net.trace().geometry, "left", by)
        monkeypatch.setattr(
            verification_module,
            "probe_axis",
            lambda axis, subjects, _claim, **more: probe_axis(axis, subjects, claimed, **more),
        )
    found = verify(net)
    assert found.geometry.placed
    assert found.holds == (by == 0)
    assert [probe.stride_verdict for probe in found.probes] == ["sufficient", "sufficient"]
    assert all("depend on the position" in probe.note for probe in found.probes)
    assert verdicts(found)["left"] == ("TOO SMALL" if by else "larger than needed")
    assert found.comparison.difference.different_labels == 0


@pytest.mark.parametrize("side", SIDES)
def test_a_halo_one_pixel_too_small_is_found_on_its_side(side):
    """Although tiles, which round up to the stride, do not show it."""
    true = network("unet_transpose3_d2").trace().geometry
    found = verify(network("unet_transpose3_d2"), geometry=planted(true, side, -1))
    assert not found.holds
    assert verdicts(found) == {**dict.fromkeys(SIDES, "exact"), side: "TOO SMALL"}
    assert reaches(found) == {"top": 22, "bottom": 26, "left": 22, "right": 26}


@pytest.mark.parametrize("side", SIDES)
def test_a_halo_one_stride_too_small_shows_in_the_tiles_too(side):
    true = network("unet_transpose3_d2").trace().geometry
    found = verify(network("unet_transpose3_d2"), geometry=planted(true, side, -4))
    difference = found.comparison.difference
    assert not found.holds
    assert verdicts(found)[side] == "TOO SMALL"
    assert not difference.holds
    assert difference.max_abs > difference.tolerance
    assert difference.first is not None
    rows, columns = np.nonzero(difference.error_map > difference.tolerance)
    assert difference.first == (rows[0], columns[0])


@pytest.mark.parametrize("side", SIDES)
def test_a_halo_larger_than_needed_holds_but_is_told(side):
    true = network("unet_d1").trace().geometry
    found = verify(network("unet_d1"), geometry=planted(true, side, 3))
    assert found.holds
    assert verdicts(found) == {**dict.fromkeys(SIDES, "exact"), side: "larger than needed"}


def test_a_stride_larger_than_needed_is_told():
    true = network("unet_d1").trace().geometry
    found = verify(network("unet_d1"), geometry=Geometry(y=replace(true.y, stride=4), x=true.x))
    y, x = found.probes
    assert found.holds
    assert (y.stride_verdict, y.commuting_shifts) == ("larger than needed", (2, 4))
    assert (x.stride_verdict, x.commuting_shifts) == ("exact", (2,))


def coarse() -> bytes:
    """Pooling by 2 and up-sampling again, at any size."""
    nodes = [
        ("MaxPool", ["image"], ["small"], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        ("Resize", ["small", "", "scales"], ["large"], {"mode": "nearest"}),
        ("Conv", ["large", "w"], ["out"], {"pads": [1] * 4}),
    ]
    return model_of(nodes, {"scales": np.array([1, 1, 2, 2], np.float32), "w": weights(2, 3, 3, 3)})


def test_a_stride_that_is_too_small_is_found():
    net = prepare_network(onnx.load_from_string(coarse()), name="coarse")
    traced = net.trace()
    y = replace(traced.geometry.y, stride=1, before=traced.geometry.y.before + 2, after=traced.geometry.y.after + 2)
    subjects = Subjects.of(net, "out", traced.features["out"])
    claimed = Geometry(y=y, x=traced.geometry.x)
    probe = probe_axis("y", subjects, claimed, seed=0, progress=lambda *_: None)
    assert traced.geometry.y.stride == 2
    assert probe.stride_verdict == "TOO SMALL"
    assert not probe.holds


@pytest.mark.parametrize("name", ["unet_transpose3_d2", "unet_bilinear_d1", "asymmetric", "valid", "low_resolution"])
def test_integer_weights_alone_confirm_a_true_claim(name):
    """Nothing beyond the halo changes an aligned box, its last pixel does, and only whole strides shift the output."""
    for probe in verify(network(name)).probes:
        tried = probe.integers
        assert (tried.verdict, tried.beyond, tried.idle) == ("exact", (), ())
        assert tried.commuting_shifts == (NETS[name].stride,)
        assert tried.boxes == 4
        assert tried.residues == NETS[name].stride


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("by", "verdict"), [(-1, "TOO SMALL"), (1, "sufficient")])
def test_integer_weights_alone_find_a_wrong_halo_and_its_side(side, by, verdict):
    true = network("unet_d1").trace().geometry
    found = verify(network("unet_d1"), geometry=planted(true, side, by))
    axis = SIDES[side][0]
    tried = {probe.axis: probe.integers for probe in found.probes}
    assert {key: integers.verdict for key, integers in tried.items()} == {"y": "exact", "x": "exact", axis: verdict}
    assert tried[axis].beyond == ((side,) if by < 0 else ())
    assert tried[axis].idle == ((side,) if by > 0 else ())


def test_integer_weights_show_what_real_weights_cancel():
    """Difference of two equal branches: nothing of the image is left with these weights, with others it is."""
    nodes = [
        ("Conv", ["image", "w"], ["a"], {"pads": [1] * 4}),
        ("Conv", ["image", "w"], ["b"], {"pads": [1] * 4}),
        ("Sub", ["a", "b"], ["difference"], {}),
        ("Conv", ["difference", "v"], ["out"], {"pads": [1] * 4}),
    ]
    probes, _ = probes_of(model_of(nodes, {"w": weights(3, 3, 3, 3), "v": weights(2, 3, 3, 3)}))
    for probe in probes:
        assert [side.visible_px for side in probe.sides] == [0, 0]
        assert [side.integer_px for side in probe.sides] == [2, 2]
        assert probe.integers.verdict == "exact"


def test_a_claimed_stride_whose_sizes_the_network_refuses_fails_the_claim():
    """A U-Net does not run at all even sizes when it halves twice."""
    true = network("unet_d2").trace().geometry
    claimed = Geometry(y=replace(true.y, stride=2), x=true.x)
    found = verify(network("unet_d2"), geometry=claimed)
    y, x = found.probes
    assert not found.holds
    assert y.refused_px is not None
    assert y.refused_px % 2 == 0
    assert y.refused_px % 4
    assert x.refused_px is None
    assert f"does not run at {y.refused_px} pixels" in y.note


def activated(*steps: tuple[str, dict], head: str | None = None) -> bytes:
    """Two 3x3 convolutions with pointwise ``steps`` between them and an optional last activation."""
    nodes = [("Conv", ["image", "w0"], ["t0"], {"pads": [1] * 4})]
    nodes += [(op, [f"t{i}"], [f"t{i + 1}"], options) for i, (op, options) in enumerate(steps)]
    nodes += [("Conv", [f"t{len(steps)}", "w1"], ["scores"], {"pads": [1] * 4})]
    nodes += [(head, ["scores"], ["out"], {"axis": 1} if head == "Softmax" else {})]
    return model_of(nodes, {"w0": weights(4, 3, 3, 3), "w1": weights(3, 4, 3, 3)})


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "HardSigmoid", "Softmax", "Relu", "Elu", "HardSwish", "Softsign"])
@pytest.mark.parametrize("head", ["Identity", "Softmax", "Sigmoid"])
def test_saturating_activations_do_not_hide_an_influence(op, head):
    probes, scores = probes_of(activated((op, {"axis": 1} if op == "Softmax" else {}), head=head))
    assert scores == "scores" if head != "Identity" else scores
    assert all(side.verdict == "exact" and side.measured_px == 2 for probe in probes for side in probe.sides)
    assert {probe.method for probe in probes} == {"poison"}


def subjects_of(model: bytes):
    net = prepare_network(onnx.load_from_string(model), name="net")
    traced = net.trace()
    scores = scores_of(net, traced.features).name
    return Subjects.of(net, scores, traced.features[scores]), traced.geometry


def quantised() -> bytes:
    nodes = [
        ("QuantizeLinear", ["image", "scale", "zero"], ["q"], {}),
        ("DequantizeLinear", ["q", "scale", "zero"], ["d"], {}),
        ("Conv", ["d", "v"], ["c"], {"pads": [1] * 4}),
        ("Relu", ["c"], ["r"], {}),
        ("Conv", ["r", "w"], ["out"], {"pads": [1] * 4}),
    ]
    constants = {"v": -np.ones((4, 3, 3, 3), np.float32), "w": weights(2, 4, 3, 3)}
    return model_of(nodes, {**constants, "scale": np.float32(0.05), "zero": np.uint8(128)})


@pytest.mark.parametrize(
    "model", [activated(("Sigmoid", {}), head="Identity"), activated(("Tanh", {}), head="Identity"), quantised()]
)
def test_in_the_opened_copy_alone_infinity_goes_all_the_way(model):
    """Past activations that saturate, quantisation, and weights that are all negative before a ReLU."""
    subjects, geometry = subjects_of(model)
    lane = Lane.of("y", geometry.y, geometry.x, subjects.opened)
    reach = reach_of(list(impulse_spans(subjects.opened, lane, np.inf)), lane)
    assert (reach.before, reach.after) == (2, 2)


def test_what_shows_with_the_real_weights_counts_whatever_the_opened_copy_shows():
    narrow, geometry = subjects_of(activated(head="Identity"))
    nodes = [("Conv", ["image", "w"], ["out"], {"pads": [4] * 4})]
    wide, _ = subjects_of(model_of(nodes, {"w": np.ones((3, 3, 9, 9), np.float32)}))
    mixed = Subjects(real=wide.real, opened=narrow.opened)
    probe = probe_axis("x", mixed, geometry, seed=0, progress=lambda *_: None)
    assert [(side.measured_px, side.verdict) for side in probe.sides] == [(4, "TOO SMALL")] * 2


def test_a_label_map_inside_the_graph_is_looked_at_before_the_labels():
    nodes = [
        ("Conv", ["image", "w"], ["scores"], {"pads": [1] * 4}),
        ("ArgMax", ["scores"], ["best"], {"axis": 1, "keepdims": 0}),
        ("Cast", ["best"], ["out"], {"to": TensorProto.UINT8}),
    ]
    model = model_of(nodes, {"w": weights(4, 3, 3, 3)}, output=("n", "oh", "ow"), kind=TensorProto.UINT8)
    found = verify(prepare_network(onnx.load_from_string(model), name="labels"))
    assert found.probed_tensor == "scores"
    assert set(verdicts(found).values()) == {"exact"}
    assert found.comparison.difference.bit_identical


@pytest.mark.parametrize("factor", [0.5, 0.25])
def test_taps_of_weight_zero_are_part_of_the_claim_since_infinity_passes_them(factor):
    """Linear interpolation at whole positions reads its second tap with weight 0, within the same stride."""
    probes, _ = probes_of(interpolated(factor))
    assert all(probe.holds for probe in probes)
    assert {(side.measured_px, side.verdict) for probe in probes for side in probe.sides} == {(0, "exact")}


def interpolated(factor: float) -> bytes:
    options = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
    scales = np.array([1, 1, factor, factor], np.float32)
    return model_of([("Resize", ["image", "", "scales"], ["out"], options)], {"scales": scales})


def faint(depth: int) -> bytes:
    """Convolutions so many that their farthest pixels hardly count, and a resize that makes infinity suspect."""
    nodes = [("Conv", [f"t{i}" if i else "image", "w"], [f"t{i + 1}"], {"pads": [2] * 4}) for i in range(depth)]
    options = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
    nodes.append(("Resize", [f"t{depth}", "", "scales"], ["out"], options))
    return model_of(nodes, {"w": np.ones((3, 3, 5, 5), np.float32), "scales": np.array([1, 1, 0.5, 0.5], np.float32)})


@pytest.mark.parametrize("depth", [4, 60])
def test_a_faint_influence_is_not_taken_for_one_of_weight_zero(depth):
    """One pixel less than needed is found, however faint that pixel's part is."""
    net = prepare_network(onnx.load_from_string(faint(depth)), name="faint")
    traced = net.trace()
    subjects = Subjects.of(net, "out", traced.features["out"])
    claimed = planted(traced.geometry, "top", -1)
    probe = probe_axis("y", subjects, claimed, seed=0, progress=lambda *_: None)
    assert traced.geometry.y.before == 2 * depth
    assert probe.sides[0].verdict == "TOO SMALL"


def test_a_network_that_takes_bytes_is_probed_with_finite_changes_and_says_so():
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Conv", ["floats", "w"], ["out"], pads=[1, 2, 1, 2]),
        ],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [onnx.numpy_helper.from_array(np.ones((2, 3, 3, 5), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = verify(prepare_network(model, name="bytes"))
    assert found.holds
    assert {probe.method for probe in found.probes} == {"finite changes"}
    assert all("uint8" in probe.note for probe in found.probes)
    assert reaches(found) == {"top": 1, "bottom": 1, "left": 2, "right": 2}
    true = prepare_network(model, name="bytes").trace().geometry
    roomy = verify(prepare_network(model, name="bytes"), geometry=planted(true, "left", 1))
    assert verdicts(roomy)["left"] == "sufficient"
    tight = verify(prepare_network(model, name="bytes"), geometry=planted(true, "left", -1))
    assert verdicts(tight)["left"] == "TOO SMALL"


def test_borders_that_reflect_need_a_wide_image_and_get_it():
    nodes = [("Pad", ["image", "p"], ["wide"], {"mode": "reflect"}), ("Conv", ["wide", "w"], ["out"], {})]
    probes, _ = probes_of(model_of(nodes, {"p": np.array([0, 0, 40, 40, 0, 0, 40, 40]), "w": weights(2, 3, 81, 81)}))
    assert {(side.measured_px, side.verdict) for probe in probes for side in probe.sides} == {(40, "exact")}


def test_half_precision_may_round_its_last_place():
    constants = {"w": weights(8, 3, 3, 3), "v": weights(2, 8, 3, 3)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["half"], pads=[1] * 4, strides=[2, 2]),
            helper.make_node("Conv", ["half", "v"], ["out"], pads=[1] * 4),
        ],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT16, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT16, ["n", 2, "oh", "ow"])],
        [onnx.numpy_helper.from_array(array.astype(np.float16), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = verify(prepare_network(model, name="half"))
    assert found.holds
    assert reaches(found) == {"top": 3, "bottom": 2, "left": 3, "right": 2}


def test_a_quantised_network_is_probed_without_its_quantisation():
    """Quantising caps infinity; the copy in which nothing vanishes leaves it out and opens quantised weights."""
    generator = np.random.default_rng(0)
    nodes = [
        ("DequantizeLinear", ["wq", "scale", "none"], ["w"], {}),
        ("Conv", ["image", "w"], ["c"], {"pads": [1] * 4}),
        ("QuantizeLinear", ["c", "scale", "zero"], ["q"], {}),
        ("DequantizeLinear", ["q", "scale", "zero"], ["d"], {}),
        ("Conv", ["d", "v"], ["out"], {"pads": [1] * 4}),
    ]
    constants = {
        "wq": generator.integers(-100, 100, (4, 3, 3, 3)).astype(np.int8),
        "v": weights(2, 4, 3, 3),
        "scale": np.float32(0.05),
        "none": np.int8(0),
        "zero": np.uint8(128),
    }
    probes, _ = probes_of(model_of(nodes, constants))
    assert {(probe.method, side.measured_px, side.verdict) for probe in probes for side in probe.sides} == {
        ("poison", 2, "exact")
    }


def test_an_untileable_network_is_an_error_that_lists_the_obstacles():
    with pytest.raises(NotTileableError, match="MatMul"):
        verify(prepare_network(onnx.load_from_string(attention()), name="attention"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_users_image_is_compared_with_its_normalisation(dtype):
    generator = np.random.default_rng(4)
    image = generator.integers(0, 256, (131, 150, 3)).astype(dtype)
    normalization = Normalization(scale=(255.0,), mean=(0.4, 0.5, 0.6), std=(0.2,))
    found = verify(network("unet_d2"), source=ArraySource(image), normalization=normalization, tile=(64, 68))
    comparison = found.comparison
    assert comparison.pixels.crop.slices() == (slice(0, 131), slice(0, 150))
    assert comparison.tile == (64, 68)
    assert comparison.output_shape == (3, 131, 150)
    assert comparison.difference.holds


def test_an_image_too_large_for_one_pass_is_cropped_in_the_middle(monkeypatch):
    """The crop is within what fits, and its pixels are the image's."""
    monkeypatch.setattr(Room, "needed", lambda _room, size: 0 if size[0] * size[1] <= 120 * 140 else 1 << 60)
    image = np.random.default_rng(0).integers(0, 256, (200, 180, 3), dtype=np.uint8)
    found = verify(network("unet_d2"), source=ArraySource(image), tile=(64, 64))
    pixels = found.comparison.pixels
    assert pixels.image_size == (200, 180)
    assert pixels.size[0] * pixels.size[1] <= 120 * 140
    assert pixels.size[0] * pixels.size[1] > 100 * 100
    assert Span(0, 200).contains(pixels.crop.y)
    assert np.array_equal(pixels.array, image[pixels.crop.slices()])
    assert found.holds


def test_an_image_that_is_one_tile_proves_nothing():
    with pytest.raises(PlanError, match="no seam"):
        verify(network("unet_d2"), source=ArraySource(np.zeros((60, 60, 3), np.uint8)), tile=(64, 64))


def test_an_image_of_other_channels_is_refused():
    with pytest.raises(ChannelError, match="--channels"):
        verify(network("unet_d2"), source=ArraySource(np.zeros((200, 200, 4), np.uint8)))


def test_the_same_seed_gives_the_same_proof():
    one, other, third = (verify(network("unet_d1"), seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.comparison.pixels.array, other.comparison.pixels.array)
    assert not np.array_equal(one.comparison.pixels.array, third.comparison.pixels.array)
    assert one == other


@pytest.mark.parametrize("name", ["unet_transpose3_d2", "low_resolution", "super_resolution", "valid"])
def test_the_sweep_falls_to_zero_at_the_claimed_halo_and_only_for_aligned_tiles(name):
    found = verify(network(name), with_sweep=True)
    geometry, sweep = found.geometry, found.sweep
    stride = geometry.y.stride
    assert [point.halo_px for point in sweep.halos] == list(halo_steps(geometry))
    last = sweep.halos[-1]
    assert last.max_abs <= found.comparison.difference.tolerance
    assert last.different_labels == 0
    if name != "valid":  # unpadded convolutions leave nothing to choose
        assert sweep.halos[0].rmse > 1e-3
        assert sweep.halos[-2].max_abs > found.comparison.difference.tolerance
        assert sweep.error_map.any()
    for point in sweep.offsets:
        exact = point.offset_px % stride == 0
        assert (point.max_abs <= found.comparison.difference.tolerance) == exact


def test_the_sweep_equals_a_tiling_done_by_hand():
    """Halo 0: the abutting tiles, each run alone by ONNX Runtime."""
    found = verify(network("unet_d1"), with_sweep=True, tile=(32, 32))
    image = found.comparison.pixels.array
    padded = np.pad(image, [(0, -size % 2) for size in image.shape[:2]] + [(0, 0)], mode="reflect")
    session = ort.InferenceSession(onnx_bytes("unet_d1"))

    def run(part):
        return session.run(None, {"image": np.ascontiguousarray(part.transpose(2, 0, 1)[None])})[0][0]

    whole, tiled = run(padded), np.full((3, *padded.shape[:2]), np.nan, np.float32)
    for y in range(0, padded.shape[0], 32):
        for x in range(0, padded.shape[1], 32):
            top, left = min(y, padded.shape[0] - 32), min(x, padded.shape[1] - 32)
            block = run(padded[top : top + 32, left : left + 32])
            tiled[:, y : y + 32, x : x + 32] = block[:, y - top :, x - left :]
    height, width = image.shape[:2]
    wrong = tiled.argmax(0)[:height, :width] != whole.argmax(0)[:height, :width]
    first = found.sweep.halos[0]
    assert first.different_labels == wrong.sum() > 0
    assert first.max_abs == pytest.approx(np.abs(tiled - whole)[:, :height, :width].max(), rel=1e-4)


def test_steps_of_the_sweep_begin_at_zero_and_end_at_the_halo():
    deep = network("unet_transpose3_d4").trace().geometry
    assert halo_steps(deep) == (0, 16, 32, 48, 64, 80, 96, 112)
    assert offset_steps(1) == ()
    assert offset_steps(4) == (0, 1, 2, 3)
    assert offset_steps(32) == (0, 1, 2, 4, 8, 16, 31)


def test_differences_are_counted_and_placed():
    whole = np.zeros((2, 4, 5), np.float32)
    whole[1] = 1
    tiled = whole.copy()
    tiled[0, 2, 3] = 5
    tiled[0, 3, 1] = 0.5
    found = compare(tiled, whole, probability=False)
    assert (found.different_labels, found.ties, found.different_values) == (1, 0, 2)
    assert (found.max_abs, found.first) == (5, (2, 3))
    assert found.rmse == pytest.approx(np.sqrt((25 + 0.25) / 40))
    assert not found.holds
    assert compare(whole, whole, probability=False).holds


def test_a_label_that_differs_at_a_tie_is_no_failure_but_a_missing_number_is():
    whole = np.ones((2, 3, 3), np.float32)
    tiled = whole.copy()
    tiled[1, 0, 0] += 1e-6
    tie = compare(tiled, whole, probability=False)
    assert (tie.different_labels, tie.ties, tie.bit_identical, tie.holds) == (1, 1, False, True)
    tiled[0, 1, 1] = np.nan
    broken = compare(tiled, whole, probability=False)
    assert broken.first == (1, 1)
    assert not broken.holds
    assert compare(tiled, tiled, probability=False).bit_identical


def test_probabilities_are_softmax_sigmoid_or_left_alone():
    scores = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    powers = np.exp(scores)
    assert np.allclose(probabilities(scores, already=False), powers / powers.sum(0), atol=1e-6)
    assert np.allclose(probabilities(scores[:1], already=False), 1 / (1 + np.exp(-scores[:1])), atol=1e-6)
    assert np.array_equal(probabilities(scores, already=True), scores)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_every_claim_of_the_walk_is_confirmed(name):
    found = verify(network(name))
    assert found.holds
    assert set(verdicts(found).values()) == {"exact"}
    assert {probe.stride_verdict for probe in found.probes} == {"exact"}
